// What a recording says of a moment beside its walk: what the device is called on both sides, what the host had refused it, which pages are worth asking
// about, which architecture an IOMMU is.

import type { MomentWalk } from "../../view/moment.ts";
import type { ObjectHistory, Objects, Refusal } from "../../view/objects.ts";
import { eventAt } from "../../view/trace-index.ts";
import type { Place, Recording } from "../run/recording.ts";

/** Pages that are asked about at a moment: the last that devices used. */
const MOST_PLACES = 16;

/** "00:02.0 (0x10), the host's 0000:00:01.0 (0x8)": both sides' names, as far as they are known. */
export function deviceName(
  { columns, guests }: Recording,
  moment: MomentWalk | null,
  objects: Objects,
): string | undefined {
  const dma = moment === null ? undefined : eventAt(columns, moment.row);
  if (dma?.type !== "dma") return undefined;
  const host = `${dma.device} (0x${dma.deviceId.toString(16)})`;
  const all = [...objects.values()];
  const bound = all.find(({ kind, name }) => kind === "device" && name === dma.device);
  const guest = bound && all.find(({ kind, on }) => kind === "vDEVICE" && on.includes(bound.key));
  const called = guests.find(([name]) => name === dma.device)?.[1];
  if (guest === undefined && called !== undefined) return `${called}, the host's ${host},`;
  return guest === undefined ? host : `${guest.name}, the host's ${host},`;
}

/** What the host had refused of the device's set-up when the DMA was made. */
export function refusalOf({ columns }: Recording, moment: MomentWalk | null, history: ObjectHistory): Refusal | null {
  if (moment === null) return null;
  const dma = eventAt(columns, moment.row);
  if (dma.type !== "dma") return null;
  const devices = [...history.at(moment.row).values()].filter(
    ({ kind, name }) => kind === "device" && name === dma.device,
  );
  return devices.at(-1)?.refusal ?? null;
}

/** The pages that devices asked for, each once, in order of address. */
export function placesOf({ columns, run }: Recording): readonly Place[] {
  if (run === null) return [];
  const found = new Map<string, Place>();
  for (let row = columns.rows - 1; row >= 0 && found.size < MOST_PLACES; row--) {
    // A DMA names its device; page numbers are exact.
    if (columns.deviceId[row]! < 0 || columns.page[row]! < 0) continue;
    const event = eventAt(columns, row);
    if (event.type !== "dma" || event.pasid !== undefined || event.result === "msi") continue;
    const iova = event.iova & ~0xfffn;
    found.set(`${event.device} ${iova}`, { device: event.device, iova });
  }
  return [...found.values()].sort((a, b) =>
    a.iova < b.iova ? -1 : a.iova > b.iova ? 1 : a.device < b.device ? -1 : 1,
  );
}

/** The architecture of each IOMMU by its name, as walks and faults say it. */
export function kindsOf({ columns }: Recording): ReadonlyMap<string, string | undefined> {
  const kinds = new Map<string, string | undefined>();
  const seen = new Set<number>();
  for (let row = 0; row < columns.rows; row++) {
    const key = columns.actor[row]! * 16 + columns.type[row]!;
    if (seen.has(key)) continue;
    seen.add(key);
    const event = eventAt(columns, row);
    if (event.type === "walk" || event.type === "fault") kinds.set(event.iommu, event.kind);
  }
  return kinds;
}

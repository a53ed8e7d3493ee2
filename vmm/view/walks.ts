// Walks out of a trace: the loads of one translation, in order, with how it ended. The trace interleaves what the whole machine does;
// a walk is the run of "walk" events of one IOMMU that ends with the DMA (or fault record) they were made for.

import type { TracedEvent } from "../../host/base/trace.ts";
import type { WalkFault, WalkStep } from "../viommu/explainer.ts";
import { explainerOf } from "../viommu/kinds.ts";

export type { WalkFault, WalkStep };

export interface Walk {
  readonly iommu: string;
  readonly deviceId: number;
  readonly pasid: number | null;
  readonly iova: bigint;
  readonly write: boolean;
  /** Sequence number of the DMA or fault event that ended it. */
  readonly seq: number;
  readonly time: number;
  readonly steps: readonly WalkStep[];
  /** Physical address, if the DMA went through. */
  readonly spa: bigint | null;
  readonly fault: WalkFault | null;
  /** What became of the DMA; null: there was none (a debug translation, an ATS request). */
  readonly result: Transfer["result"] | null;
}

type Transfer = Extract<TracedEvent, { type: "dma" }>;

/** Every translation in the trace, oldest first. A DMA that hit the IOTLB is a walk without steps. */
export function collectWalks(events: Iterable<TracedEvent>): Walk[] {
  const walks: Walk[] = [];
  // Steps and fault of the translation under way, by device id.
  const steps = new Map<number, WalkStep[]>();
  const faults = new Map<number, WalkFault>();
  for (const event of events) {
    if (event.type === "walk" && event.where === "host") {
      const list = steps.get(event.deviceId);
      // An ATS translation moves no data: its loads are not those of the DMA that comes some time after it.
      if (list === undefined || explainerOf(event.kind).beginsAnew(list, event)) steps.set(event.deviceId, [event]);
      else list.push(event);
    } else if (event.type === "fault" && event.where === "hardware") {
      faults.set(event.deviceId, event);
    } else if (event.type === "dma") {
      const taken = steps.get(event.deviceId) ?? [];
      const fault = faults.get(event.deviceId) ?? null;
      steps.delete(event.deviceId);
      faults.delete(event.deviceId);
      walks.push({
        iommu: taken[0]?.iommu ?? fault?.iommu ?? "",
        deviceId: event.deviceId,
        pasid: event.pasid ?? null,
        iova: event.iova,
        write: event.write,
        seq: event.seq,
        time: event.time,
        steps: taken,
        spa: event.spa ?? null,
        fault,
        result: event.result,
      });
    }
  }
  // A translation without a DMA event (a debug translation, an ATS request): its fault says what it was for.
  for (const [deviceId, fault] of faults) {
    const taken = steps.get(deviceId) ?? [];
    walks.push({
      iommu: fault.iommu,
      deviceId,
      pasid: fault.pasid ?? null,
      iova: fault.iotval,
      write: explainerOf(fault.kind).faultWrites(fault),
      seq: fault.seq,
      time: fault.time,
      steps: taken,
      spa: null,
      fault,
      result: null,
    });
  }
  return walks;
}

/** Of a DMA that loaded no table: the last walk to its page that did, which filled the cache; null: none, or it loaded tables itself. */
export function filledBy(walk: Walk, walks: readonly Walk[]): Walk | null {
  if (walk.steps.length > 0 || walk.fault !== null) return null;
  return (
    walks.findLast(
      (other) =>
        other.seq < walk.seq &&
        other.deviceId === walk.deviceId &&
        other.pasid === walk.pasid &&
        other.iova >> 12n === walk.iova >> 12n &&
        other.fault === null &&
        other.steps.length > 0,
    ) ?? null
  );
}

/**
 * Says what a device's DMA went through when a walk was made, as the host's driver had last set it; null if the trace never saw it set. The
 * trace is looked through once, however many walks are asked about.
 */
export function attachmentsOf(events: readonly TracedEvent[]): (walk: Walk) => string | null {
  const names = new Map<number, string>();
  const attachments = new Map<string, Extract<TracedEvent, { type: "attach" }>[]>();
  for (const event of events) {
    if (event.type === "dma" && !names.has(event.deviceId)) names.set(event.deviceId, event.device);
    if (event.type !== "attach") continue;
    const list = attachments.get(event.device);
    if (list === undefined) attachments.set(event.device, [event]);
    else list.push(event);
  }
  return ({ deviceId, seq }) => {
    const name = names.get(deviceId);
    const last = name === undefined ? undefined : attachments.get(name)?.findLast((event) => event.seq < seq);
    return last === undefined ? null : `${name}: ${last.domain}, ${last.detail} (since ${last.time} ns)`;
  };
}

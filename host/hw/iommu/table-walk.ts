// What an IOMMU's tables say now of an access, as the events of a walk: asked of a second IOMMU with the same registers and without caches, which changes
// nothing. What the hardware would use may be older (stale-accesses.ts).

import { addressOf, type IovaPfn } from "../../base/address.ts";
import type { TracedEvent } from "../../base/trace.ts";
import { ACCESS_READ, ACCESS_WRITE, type HardwareIommu, TRANSLATED } from "./port.ts";

/** An access of four bytes; `pasid` -1: without. */
export interface TableAccess {
  readonly iova: bigint;
  readonly pasid: number;
  readonly write: boolean;
}

/** The loads, the fault if there is one, and the DMA that they were for; null: this kind of IOMMU cannot say. */
export function tableWalk(
  iommu: HardwareIommu,
  device: string,
  deviceId: number,
  { iova, pasid, write }: TableAccess,
): readonly TracedEvent[] | null {
  const tables = iommu.withoutCaches?.();
  if (tables === undefined) return null;
  const events: TracedEvent[] = [];
  const sink = { event: (event: TracedEvent) => void events.push(event) };
  tables.trace.addSink(sink);
  const offset = Number(iova & 0xfffn);
  const access = write ? ACCESS_WRITE : ACCESS_READ;
  const status = tables.translate(deviceId, pasid, false, access, Number(iova >> 12n) as IovaPfn, offset, false, 0);
  const passed = status === TRANSLATED;
  tables.trace.emit({
    ...{ type: "dma", device, deviceId, iova, length: 4, write },
    ...(pasid >= 0 ? { pasid } : {}),
    ...(passed ? { spa: addressOf(tables.resultPfn, offset) } : {}),
    result: passed ? "ok" : "aborted",
  });
  tables.trace.removeSink(sink);
  return events;
}

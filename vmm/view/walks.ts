// Walks out of a trace: the loads of one translation, in order, with how it ended. The trace interleaves what the whole machine does;
// a walk is the run of "walk" events of one IOMMU that ends with the DMA (or fault record) they were made for.

import type { TracedEvent } from "../../host/base/trace.ts";

export type WalkStep = Extract<TracedEvent, { type: "walk" }>;
export type WalkFault = Extract<TracedEvent, { type: "fault" }>;

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
}

/** TTYP values of writes (RISC-V IOMMU §4.2). */
const WRITES = new Set([3, 7]);

/** Every translation in the trace, oldest first. A DMA that hit the IOTLB is a walk without steps. */
export function collectWalks(events: Iterable<TracedEvent>): Walk[] {
  const walks: Walk[] = [];
  // Steps and fault of the translation under way, by device id.
  const steps = new Map<number, WalkStep[]>();
  const faults = new Map<number, WalkFault>();
  for (const event of events) {
    if (event.type === "walk" && event.where === "host") {
      const list = steps.get(event.deviceId);
      if (list === undefined) steps.set(event.deviceId, [event]);
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
      write: WRITES.has(fault.ttyp),
      seq: fault.seq,
      time: fault.time,
      steps: taken,
      spa: null,
      fault,
    });
  }
  return walks;
}

/** What a device's DMA went through when a walk was made, as the host's driver had last set it; null if the trace never saw it set. */
export function attachmentAt(events: readonly TracedEvent[], { deviceId, seq }: Walk): string | null {
  const dma = events.find((event) => event.type === "dma" && event.deviceId === deviceId);
  if (dma?.type !== "dma") return null;
  const last = events.findLast((event) => event.type === "attach" && event.device === dma.device && event.seq < seq);
  return last?.type === "attach" ? `${dma.device}: ${last.domain}, ${last.detail} (since ${last.time} ns)` : null;
}

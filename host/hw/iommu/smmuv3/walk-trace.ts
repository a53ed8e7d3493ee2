// Walks as trace events: attached to the walkers only while the trace is on.

import { TABLE_NAMES, type WalkObserver, type WalkTable } from "../../../arch/smmuv3/walk-observer.ts";
import { addressOf, type HpaPfn } from "../../../base/address.ts";
import type { Trace, TraceEvent } from "../../../base/trace.ts";

// Not state: whose walk is told of, set before each
export class WalkTrace implements WalkObserver {
  deviceId = 0;
  /** The walkers tell this observer. */
  attached = false;
  readonly #trace: Trace;
  readonly #iommu: string;

  constructor(trace: Trace, iommu: string) {
    this.#trace = trace;
    this.#iommu = iommu;
  }

  tableLoaded(
    table: WalkTable,
    level: number,
    pfn: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
  ): void {
    const event: TraceEvent & { type: "walk" } = {
      type: "walk",
      where: "host",
      kind: "smmuv3",
      iommu: this.#iommu,
      deviceId: this.deviceId,
      table: TABLE_NAMES[table],
      level,
      space: "spa",
      address: addressOf(pfn as HpaPfn, offset),
      entry: (BigInt(hi) << 32n) | BigInt(lo),
      cached: false,
    };
    this.#trace.emit(serves < 0 ? event : { ...event, serves });
  }
}

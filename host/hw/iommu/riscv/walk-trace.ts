// Walks as trace events: attached to the walkers only while the trace is on.

import type { WalkObserver, WalkTable } from "../../../arch/riscv/walk-observer.ts";
import { addressOf, type HpaPfn } from "../../../base/address.ts";
import type { Trace, TraceEvent } from "../../../base/trace.ts";

const TABLES = ["DDT", "PDT", "stage1", "stage2", "MSI"] as const;

// Not state: whose walk is told, set before each.
export class WalkTrace implements WalkObserver {
  /** Whose walk it is; set before each one. */
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
      iommu: this.#iommu,
      deviceId: this.deviceId,
      table: TABLES[table],
      level,
      space: "spa",
      address: addressOf(pfn as HpaPfn, offset),
      entry: (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0),
      cached: false,
    };
    this.#trace.emit(serves < 0 ? event : { ...event, serves });
  }
}

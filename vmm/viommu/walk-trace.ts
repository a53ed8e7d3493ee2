// Walks of a guest's tables as trace events: attached to the walkers only while the trace is on.

import type { Trace } from "../../host/base/trace.ts";
import type { WalkObserver } from "../../host/base/walk-observer.ts";

// Not state: whose walk is told of, set before each
export class WalkTrace implements WalkObserver {
  /** Whose walk it is. */
  deviceId = 0;
  /** The walkers tell this observer. */
  attached = false;
  readonly #trace: Trace;
  readonly #iommu: string;
  readonly #tables: readonly string[];
  readonly #kind: { readonly kind?: string };

  /** `tables`: names by the numbers that the kind's walkers use; `kind`: the events', where they have one. */
  constructor(trace: Trace, iommu: string, tables: readonly string[], kind?: string) {
    this.#trace = trace;
    this.#iommu = iommu;
    this.#tables = tables;
    this.#kind = kind === undefined ? {} : { kind };
  }

  tableLoaded(table: number, level: number, pfn: number, offset: number, lo: number, hi: number): void {
    this.#trace.emit({
      type: "walk",
      where: "guest",
      ...this.#kind,
      iommu: this.#iommu,
      deviceId: this.deviceId,
      table: this.#tables[table]!,
      level,
      space: "gpa",
      address: (BigInt(pfn) << 12n) | BigInt(offset),
      entry: (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0),
      cached: false,
    });
  }
}

// Walks as trace events: attached to the walkers only while the trace is on.

import { addressOf, type HpaPfn } from "../../base/address.ts";
import type { Trace, TraceEvent } from "../../base/trace.ts";
import type { WalkObserver } from "../../base/walk-observer.ts";

/** What one kind's events say beside the step itself. */
export interface WalkNames {
  /** Tables by the numbers that its walkers use. */
  readonly tables: readonly string[];
  /** The events' `kind`, where they have one. */
  readonly kind?: string;
}

// Not state: whose walk is told of, set before each.
export class WalkTrace implements WalkObserver {
  /** Whose walk it is; set before each one. */
  deviceId = 0;
  /** The walkers tell this observer. */
  attached = false;
  readonly #trace: Trace;
  readonly #iommu: string;
  readonly #tables: readonly string[];
  readonly #kind: { readonly kind?: string };

  constructor(trace: Trace, iommu: string, { tables, kind }: WalkNames) {
    this.#trace = trace;
    this.#iommu = iommu;
    this.#tables = tables;
    this.#kind = kind === undefined ? {} : { kind };
  }

  tableLoaded(
    table: number,
    level: number,
    pfn: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
    covers = -1,
    inputPfn = 0,
    cached = false,
  ): void {
    const event: TraceEvent & { type: "walk" } = {
      type: "walk",
      where: "host",
      ...this.#kind,
      iommu: this.#iommu,
      deviceId: this.deviceId,
      table: this.#tables[table]!,
      level,
      space: "spa",
      address: addressOf(pfn as HpaPfn, offset),
      entry: (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0),
      cached,
    };
    if (serves >= 0) event.serves = serves;
    if (covers >= 0) Object.assign(event, { covers, input: BigInt(inputPfn) << 12n });
    this.#trace.emit(event);
  }
}

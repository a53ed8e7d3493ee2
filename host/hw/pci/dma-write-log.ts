// A log of the pages a function wrote, kept by the function itself (what a migratable device's own dirty tracking is): IOVAs as the
// device used them, within the ranges it was told to watch. Bounded: past LIMIT pages every watched page counts as written.

const LIMIT = 1 << 20;

export interface WatchedRange {
  /** Page-frame numbers, inclusive. */
  readonly firstPfn: number;
  readonly lastPfn: number;
}

export class DmaWriteLog {
  readonly ranges: readonly WatchedRange[];
  readonly #written = new Set<number>();
  #everything = false;

  constructor(ranges: readonly WatchedRange[]) {
    this.ranges = ranges;
  }

  /** A write went through to this page. */
  wrote(pfn: number): void {
    if (this.#everything || !this.ranges.some(({ firstPfn, lastPfn }) => pfn >= firstPfn && pfn <= lastPfn)) return;
    this.#written.add(pfn);
    if (this.#written.size > LIMIT) {
      this.#everything = true;
      this.#written.clear();
    }
  }

  /** Calls `report` for each written page in [first, last] and forgets it. */
  take(first: number, last: number, report: (pfn: number) => void): void {
    if (this.#everything) {
      for (const { firstPfn, lastPfn } of this.ranges) {
        for (let pfn = Math.max(first, firstPfn); pfn <= Math.min(last, lastPfn); pfn++) report(pfn);
      }
      return;
    }
    for (const pfn of this.#written) {
      if (pfn < first || pfn > last) continue;
      report(pfn);
      this.#written.delete(pfn);
    }
  }
}

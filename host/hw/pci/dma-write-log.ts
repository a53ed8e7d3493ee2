// A log of the pages a function wrote, kept by the function itself (what a migratable device's own dirty tracking is): IOVAs as the
// device used them, within the ranges it was told to watch. Bounded: past LIMIT pages every watched page counts as written.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";

const LIMIT = 1 << 20;

export interface WatchedRange {
  /** Page-frame numbers, inclusive. */
  readonly firstPfn: number;
  readonly lastPfn: number;
}

export class DmaWriteLog implements Stateful {
  /** Sorted; they do not overlap. */
  readonly ranges: readonly WatchedRange[];
  readonly #written = new Set<number>();
  #everything = false;

  constructor(ranges: readonly WatchedRange[]) {
    this.ranges = [...ranges].sort((a, b) => a.firstPfn - b.firstPfn);
  }

  /** One as `saveState` wrote it. */
  static of(state: StateReader): DmaWriteLog {
    const log = new DmaWriteLog(
      state
        .records("ranges")
        .map((range) => ({ firstPfn: range.number("firstPfn"), lastPfn: range.number("lastPfn") })),
    );
    log.restoreState(state);
    return log;
  }

  /** A write went through to this page. */
  wrote(pfn: number): void {
    if (this.#everything || !this.#watched(pfn)) return;
    this.#written.add(pfn);
    if (this.#written.size > LIMIT) {
      this.#everything = true;
      this.#written.clear();
    }
  }

  /** Calls `report` with runs of written pages in [first, last], both ends inclusive, and forgets them. */
  take(first: number, last: number, report: (firstPfn: number, lastPfn: number) => void): void {
    if (this.#everything) {
      for (const { firstPfn, lastPfn } of this.ranges) {
        const from = Math.max(first, firstPfn);
        const to = Math.min(last, lastPfn);
        if (from <= to) report(from, to);
      }
    } else if (last - first < this.#written.size) {
      for (let pfn = first; pfn <= last; pfn++) {
        if (this.#written.delete(pfn)) report(pfn, pfn);
      }
    } else {
      for (const pfn of this.#written) {
        if (pfn < first || pfn > last) continue;
        report(pfn, pfn);
        this.#written.delete(pfn);
      }
    }
  }

  #watched(pfn: number): boolean {
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.ranges[middle]!.lastPfn < pfn) low = middle + 1;
      else high = middle;
    }
    return low < this.ranges.length && this.ranges[low]!.firstPfn <= pfn;
  }

  saveState(): StateRecord {
    return {
      ranges: this.ranges.map(({ firstPfn, lastPfn }) => ({ firstPfn, lastPfn })),
      everything: this.#everything,
      written: [...this.#written],
    };
  }

  restoreState(state: StateReader): void {
    this.#everything = state.boolean("everything");
    this.#written.clear();
    for (const pfn of state.list("written")) this.#written.add(Number(pfn));
  }
}

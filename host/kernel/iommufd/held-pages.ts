// Which pages of one user mapping are pinned, and how many holders each has (areas that are in a domain, in-kernel accesses).
//
// A page is pinned when its first holder comes and unpinned when its last one goes, however many there are: "each page of one
// iopt_pages is pinned exactly once". Kept as segments of consecutive pages with consecutive frames and one holder count, so that
// contiguous memory costs one segment however large it is.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { FrameRun } from "../file.ts";
import { refillList } from "../same-objects.ts";

interface Segment {
  /** Page index within the mapping. */
  first: number;
  count: number;
  frame: number;
  holds: number;
}

/** Where pages come from and go to. */
export interface PageSource {
  /** Pins (and accounts) `count` pages from `first`; the runs, or a negated errno with nothing pinned. */
  pin(first: number, count: number): FrameRun[] | number;
  unpin(run: FrameRun): void;
}

export class HeldPages implements Stateful {
  /** Ascending, disjoint. */
  readonly #segments: Segment[] = [];

  /** Number of segments, for tests of cost. */
  get segments(): number {
    return this.#segments.length;
  }

  /** True if nothing is held. */
  get empty(): boolean {
    return this.#segments.length === 0;
  }

  /** Adds a holder to pages [first, last], pinning those that had none; a negated errno leaves everything as it was. */
  hold(first: number, last: number, source: PageSource): number {
    const pinned: Segment[] = [];
    let next = first;
    for (let i = this.#indexOf(first); next <= last; i++) {
      const segment = this.#segments[i];
      const gapEnd = segment === undefined ? last + 1 : Math.min(segment.first, last + 1);
      if (gapEnd > next) {
        const runs = source.pin(next, gapEnd - next);
        if (typeof runs === "number") {
          for (const piece of pinned) source.unpin(piece);
          return runs;
        }
        let index = next;
        for (const run of runs) {
          pinned.push({ first: index, count: run.count, frame: run.frame, holds: 0 });
          index += run.count;
        }
      }
      if (segment === undefined) break;
      next = Math.max(gapEnd, segment.first + segment.count);
    }
    for (const piece of pinned) this.#segments.splice(this.#indexOf(piece.first), 0, piece);
    this.#change(first, last, 1);
    this.#merge(first, last);
    return 0;
  }

  /** Takes a holder from pages [first, last], unpinning those that have none left. */
  release(first: number, last: number, source: PageSource): void {
    this.#change(first, last, -1);
    for (let i = this.#indexOf(first); i < this.#segments.length && this.#segments[i]!.first <= last; ) {
      if (this.#segments[i]!.holds === 0) {
        const [gone] = this.#segments.splice(i, 1);
        source.unpin(gone!);
      } else {
        i++;
      }
    }
    this.#merge(first, last);
  }

  /** Frames of pages [first, last], as few runs as there are breaks in contiguity. All of them must be held. */
  runs(first: number, last: number): FrameRun[] {
    const runs: { frame: number; count: number }[] = [];
    let next = first;
    for (let i = this.#indexOf(first); next <= last; i++) {
      const segment = this.#segments[i];
      if (segment === undefined || segment.first > next) throw new Error(`page ${next} is not held`);
      const frame = segment.frame + (next - segment.first);
      const count = Math.min(segment.first + segment.count, last + 1) - next;
      const previous = runs[runs.length - 1];
      if (previous !== undefined && previous.frame + previous.count === frame) previous.count += count;
      else runs.push({ frame, count });
      next += count;
    }
    return runs;
  }

  /** Index of the first segment that ends after `page`. */
  #indexOf(page: number): number {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const segment = this.#segments[middle]!;
      if (segment.first + segment.count <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #change(first: number, last: number, by: 1 | -1): void {
    this.#splitAt(first);
    this.#splitAt(last + 1);
    for (let i = this.#indexOf(first); i < this.#segments.length; i++) {
      const segment = this.#segments[i]!;
      if (segment.first > last) break;
      segment.holds += by;
      if (segment.holds < 0) throw new Error(`page ${segment.first} is released more often than held`);
    }
  }

  #splitAt(page: number): void {
    const index = this.#indexOf(page);
    const segment = this.#segments[index];
    if (segment === undefined || segment.first >= page) return;
    const left = page - segment.first;
    this.#segments.splice(index + 1, 0, {
      first: page,
      count: segment.count - left,
      frame: segment.frame + left,
      holds: segment.holds,
    });
    segment.count = left;
  }

  /** Joins neighbours with the same holders and consecutive frames, so that pieces do not pile up. */
  #merge(first: number, last: number): void {
    let i = Math.max(1, this.#indexOf(first));
    while (i < this.#segments.length) {
      const left = this.#segments[i - 1]!;
      const right = this.#segments[i]!;
      if (left.first > last) break;
      if (
        left.first + left.count === right.first &&
        left.frame + left.count === right.frame &&
        left.holds === right.holds
      ) {
        left.count += right.count;
        this.#segments.splice(i, 1);
      } else {
        i++;
      }
    }
  }

  saveState(): StateRecord {
    return { segments: this.#segments.map(({ first, count, frame, holds }) => ({ first, count, frame, holds })) };
  }

  restoreState(state: StateReader): void {
    const segments = state.records("segments").map((saved) => ({
      first: saved.number("first"),
      count: saved.number("count"),
      frame: saved.number("frame"),
      holds: saved.number("holds"),
    }));
    refillList(this.#segments, segments);
  }
}

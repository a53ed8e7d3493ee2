// Which IOVAs of an IOAS may be used at all: ranges that are reserved (each with an owner: a domain for what lies outside its
// aperture, a device for its reserved regions, null for the selftest), and ranges user space has reserved for itself by ALLOW_IOVAS,
// to which automatic allocation then keeps and which nothing may reserve later.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { requireText } from "../same-objects.ts";
import { type Interval, IntervalTree } from "./interval-tree.ts";

export const U64_MAX = 0xffff_ffff_ffff_ffffn;

interface Reserved extends Interval {
  readonly owner: object | null;
}

export class IovaRanges implements Stateful {
  // Few (a couple per domain and device), and they may overlap: a list, and the disjoint holes between them, kept until they change.
  #reserved: Reserved[] = [];
  #holes: Interval[] | null = null; // not state: follows from what is reserved
  #allowed = new IntervalTree<Interval>();

  get reservedCount(): number {
    return this.#reserved.length;
  }

  isReserved(start: bigint, last: bigint): boolean {
    return this.#reserved.some((range) => range.start <= last && range.last >= start);
  }

  touchesAllowed(start: bigint, last: bigint): boolean {
    return this.#allowed.firstIn(start, last) !== null;
  }

  reserve(start: bigint, last: bigint, owner: object | null): void {
    this.#reserved.push({ start, last, owner });
    this.#holes = null;
  }

  removeReserved(owner: object | null): void {
    this.#reserved = this.#reserved.filter((range) => range.owner !== owner);
    this.#holes = null;
  }

  /** Ranges that nothing reserves, ascending (IOAS_IOVA_RANGES). */
  holes(): readonly Interval[] {
    this.#holes ??= holesBetween(this.#reserved);
    return this.#holes;
  }

  /** Replaces the allowed list; false (nothing changed) if a range is reserved. */
  allow(ranges: IntervalTree<Interval>): boolean {
    for (const range of ranges) if (this.isReserved(range.start, range.last)) return false;
    this.#allowed = ranges;
    return true;
  }

  /**
   * Looks through what automatic allocation may use, lowest first, until `search` finds an address in a piece; never below one
   * page nor in the last one. null if there is none.
   */
  searchUsable(search: (start: bigint, last: bigint) => bigint | null): bigint | null {
    const lowest = 4096n;
    const highest = U64_MAX - 4096n;
    const windows = this.#allowed.size === 0 ? [{ start: lowest, last: highest }] : joined(this.#allowed);
    for (const window of windows) {
      for (const hole of this.holes()) {
        let start = lowest;
        if (hole.start > start) start = hole.start;
        if (window.start > start) start = window.start;
        let last = highest;
        if (hole.last < last) last = hole.last;
        if (window.last < last) last = window.last;
        if (start > last) continue;
        const found = search(start, last);
        if (found !== null) return found;
      }
    }
    return null;
  }

  /** What is reserved comes with domains and devices, which must be the same. */
  saveState(): StateRecord {
    return {
      reserved: this.#reservedText(),
      allowed: [...this.#allowed].map(({ start, last }) => ({ start, last })),
    };
  }

  restoreState(state: StateReader): void {
    requireText(state, "reserved", this.#reservedText());
    const allowed = new IntervalTree<Interval>();
    for (const saved of state.records("allowed")) {
      allowed.insert({ start: saved.bigint("start"), last: saved.bigint("last") });
    }
    this.#allowed = allowed;
  }

  #reservedText(): string {
    const texts = this.#reserved.map(({ start, last }) => `0x${start.toString(16)}-0x${last.toString(16)}`);
    return texts.sort().join(" ");
  }
}

/** Ranges that follow each other without a gap are one window. */
function* joined(ranges: Iterable<Interval>): IterableIterator<Interval> {
  let open: { start: bigint; last: bigint } | null = null;
  for (const { start, last } of ranges) {
    if (open !== null && start === open.last + 1n) {
      open.last = last;
    } else {
      if (open !== null) yield open;
      open = { start, last };
    }
  }
  if (open !== null) yield open;
}

function holesBetween(reserved: readonly Reserved[]): Interval[] {
  const holes: Interval[] = [];
  let next = 0n;
  for (const range of [...reserved].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))) {
    if (range.start > next) holes.push({ start: next, last: range.start - 1n });
    if (range.last >= next) next = range.last + 1n;
  }
  if (next <= U64_MAX) holes.push({ start: next, last: U64_MAX });
  return holes;
}

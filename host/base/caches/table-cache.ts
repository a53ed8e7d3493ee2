// Pointers to tables that a walk went through: what hardware calls a walk cache. With one, a walk begins at the deepest table that is remembered
// for its address, instead of at the root.
//
// An entry is found by (stamp of its address space, block number at the size of what the table covers), as translations are. It gives the frame where
// the table lies in memory; for a first stage behind a second one that is both stages' result. Entries are four words, a set of four ways is one
// line of a processor's cache. Beside each stands where the pointer was read and what it was, for whoever watches walks.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../state.ts";
import type { AddressTag, AddressTags } from "./address-tags.ts";

/** log2, in pages of 4 KiB, of what a table covers; each is of one granule only: 4K has multiples of 9, 16K 2 + 11n, 64K 4 + 13n. */
export const TABLE_SHIFTS = Uint8Array.of(9, 13, 17, 18, 24, 27, 30, 35, 36);
/** Index bits of a table of each class: 9, 11 or 13. */
export const TABLE_STRIDES = Uint8Array.from(TABLE_SHIFTS, (shift) =>
  shift % 9 === 0 ? 9 : shift % 11 === 2 ? 11 : 13,
);
const CLASS_OF_SHIFT = Int8Array.from({ length: 64 }, (_, shift) => TABLE_SHIFTS.indexOf(shift));

const NO_WORDS = new Int32Array(0);
const NO_BYTES = new Uint8Array(0);

const WAYS = 4;
/** Int32 words per entry: block number; stamp and class; frame, low; frame's bits 43:32 and, above, bits 51:32 of the address. */
const STRIDE = 4;
const CLASS_BITS = 4;

/** The pointer that a walk followed last, and the table it came to: what there is to remember of the walk. */
// Not state: of one walk
export class FollowedPointer {
  /** log2, in pages, of what the table covers; 0: none was followed. */
  shift = 0;
  /** Where the table lies in memory. */
  tableLow = 0;
  tableHigh = 0;
  /** Where the pointer was read, frame and index, and what it was. */
  fromLow = 0;
  fromHigh = 0;
  index = 0;
  lo = 0;
  hi = 0;

  follow(shift: number, fromLow: number, fromHigh: number, index: number, lo: number, hi: number): void {
    this.shift = shift;
    this.fromLow = fromLow;
    this.fromHigh = fromHigh;
    this.index = index;
    this.lo = lo;
    this.hi = hi;
  }
}

export class TableCache implements Stateful {
  readonly #words: Int32Array = NO_WORDS;
  /** Frame and offset (with the frame's high bits above bit 12) of the pointer, and the pointer itself. */
  readonly #origins: Int32Array = NO_WORDS;
  readonly #setMask: number = 0;
  readonly #victims: Uint8Array = NO_BYTES;
  /** Entries of tables of 4 KiB pages, by more bits of the same hash than choose the set. */
  readonly #found: Int32Array = NO_WORDS; // not state: our speed, nothing is believed unseen
  readonly #foundMask: number = 0;
  readonly #tags: AddressTags;

  /** Of at least four entries. */
  constructor(entries: number, tags: AddressTags) {
    this.#tags = tags;
    const sets = (2 ** Math.ceil(Math.log2(Math.max(1, entries / WAYS)))) | 0;
    this.#setMask = sets - 1;
    this.#words = new Int32Array(sets * WAYS * STRIDE);
    this.#origins = new Int32Array(sets * WAYS * STRIDE);
    this.#victims = new Uint8Array(sets);
    this.#found = new Int32Array(sets * WAYS);
    this.#foundMask = sets * WAYS - 1;
  }

  /** The entry of the deepest table that is known for a frame (bits 31:0; bits 51:32) in the space of `tag`, or -1. */
  find(tag: AddressTag, low: number, high: number): number {
    const e = this.findOfPages(tag, low, high);
    return e >= 0 || tag.tables === 0 ? e : this.#search(tag, low, high);
  }

  /** `find` of a table of 4 KiB pages where the last one with such an address was found: it may have gone since, or be another's. */
  findOfPages(tag: AddressTag, low: number, high: number): number {
    const words = this.#words;
    const stamp = tag.stamp << CLASS_BITS;
    const block = (low >>> 9) | (high << 23);
    const e = this.#found[(block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#foundMask]!;
    return words[e] === block && words[e | 1] === stamp && words[e | 3]! >>> 21 === high >>> 9 ? e : -1;
  }

  #search(tag: AddressTag, low: number, high: number): number {
    const words = this.#words;
    const stamp = tag.stamp << CLASS_BITS;
    for (let classes = tag.tables; classes !== 0; classes &= classes - 1) {
      const size = 31 - Math.clz32(classes & -classes);
      const shift = TABLE_SHIFTS[size]!;
      const block = shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
      const key = stamp | size;
      const hash = block ^ (block >>> 9) ^ Math.imul(key, 0x9e3779b1);
      const first = (hash & this.#setMask) << 4;
      for (let e = first; e < first + WAYS * STRIDE; e += STRIDE) {
        // All of the address above the block has to agree: 52 - shift bits, of which `block` has 32.
        if (words[e] !== block || words[e | 1] !== key || ((words[e | 3]! >>> 12) ^ high) >>> (shift & 31) !== 0)
          continue;
        if (size === 0) this.#found[hash & this.#foundMask] = e;
        return e;
      }
    }
    return -1;
  }

  /** What the table of an entry covers: its class. */
  classAt(entry: number): number {
    return this.#words[entry | 1]! & 15;
  }

  frameLowAt(entry: number): number {
    return this.#words[entry | 2]!;
  }

  frameHighAt(entry: number): number {
    return this.#words[entry | 3]! & 0xfff;
  }

  /** The pointer, as it was read. */
  pointerLoAt(entry: number): number {
    return this.#origins[entry | 2]!;
  }

  pointerHiAt(entry: number): number {
    return this.#origins[entry | 3]!;
  }

  /** Where it was read: frame, and offset in it. */
  pointerPfnAt(entry: number): number {
    return (this.#origins[entry | 1]! >>> 12) * 0x100000000 + (this.#origins[entry]! >>> 0);
  }

  pointerOffsetAt(entry: number): number {
    return this.#origins[entry | 1]! & 0xfff;
  }

  /** Remembers the pointer that the walk for a frame followed last, in the space of `tag`. */
  insert(tag: AddressTag, low: number, high: number, followed: FollowedPointer): void {
    const { shift, tableLow, tableHigh, fromLow, fromHigh, index, lo, hi } = followed;
    const size = CLASS_OF_SHIFT[shift]!;
    if (size < 0) return;
    if (!tag.live) this.#tags.enliven(tag);
    const words = this.#words;
    const block = shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
    const key = (tag.stamp << CLASS_BITS) | size;
    const set = (block ^ (block >>> 9) ^ Math.imul(key, 0x9e3779b1)) & this.#setMask;
    const way = this.#victims[set]!;
    this.#victims[set] = (way + 1) & (WAYS - 1);
    const e = (set << 4) | (way << 2);
    words[e] = block;
    words[e | 1] = key;
    words[e | 2] = tableLow | 0;
    words[e | 3] = (tableHigh & 0xfff) | (high << 12);
    const origins = this.#origins;
    origins[e] = fromLow;
    origins[e | 1] = ((index & 511) << 3) | (fromHigh << 12);
    origins[e | 2] = lo;
    origins[e | 3] = hi;
    tag.tables |= 1 << size;
  }

  /** Drops the pointers of `tag`'s space to tables that cover some of the pages [pfn, pfn + pages). */
  invalidatePages(tag: AddressTag, pfn: number, pages: number): void {
    for (let classes = tag.tables; classes !== 0; classes &= classes - 1) {
      const size = 31 - Math.clz32(classes & -classes);
      const step = 2 ** TABLE_SHIFTS[size]!;
      const first = pfn - (pfn % step);
      if (((pfn + pages - first) / step) * WAYS > this.#words.length / STRIDE) this.#sweep(tag, size, pfn, pfn + pages);
      else for (let at = first; at < pfn + pages; at += step) this.#remove(tag, size, at);
    }
  }

  #remove(tag: AddressTag, size: number, page: number): void {
    const words = this.#words;
    const low = page | 0;
    const high = (page * 2 ** -32) | 0;
    const shift = TABLE_SHIFTS[size]!;
    const block = shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
    const key = (tag.stamp << CLASS_BITS) | size;
    const first = ((block ^ (block >>> 9) ^ Math.imul(key, 0x9e3779b1)) & this.#setMask) << 4;
    for (let e = first; e < first + 16; e += 4) {
      if (words[e] === block && words[e | 1] === key && ((words[e | 3]! >>> 12) ^ high) >>> (shift & 31) === 0)
        words[e | 1] = 0;
    }
  }

  #sweep(tag: AddressTag, size: number, first: number, end: number): void {
    const words = this.#words;
    const key = (tag.stamp << CLASS_BITS) | size;
    const shift = TABLE_SHIFTS[size]!;
    const step = 2 ** shift;
    for (let e = 0; e < words.length; e += STRIDE) {
      if (words[e | 1] !== key) continue;
      const low = shift < 32 ? (words[e]! << shift) >>> 0 : 0;
      const high = words[e | 3]! >>> 12;
      const page = high * 0x100000000 + low;
      const start = page - (page % step);
      if (start < end && start + step > first) words[e | 1] = 0;
    }
  }

  /** Empties the cache (reset, stamps exhausted). */
  clear(): void {
    this.#words.fill(0);
  }

  /** Entries that are not empty: most are, most of the time. Of each its place, four words and four of its origin. */
  saveState(): StateRecord {
    const words = this.#words;
    const entries: number[] = [];
    for (let e = 0; e < words.length; e += STRIDE)
      if (words[e | 1] !== 0)
        entries.push(e, ...words.subarray(e, e + STRIDE), ...this.#origins.subarray(e, e + STRIDE));
    return { entries: bytesOf(Int32Array.from(entries)), victims: bytesOf(this.#victims) };
  }

  restoreState(state: StateReader): void {
    const bytes = state.bytes("entries");
    const entries = new Int32Array(bytes.slice().buffer, 0, bytes.length >> 2);
    const words = this.#words;
    words.fill(0);
    for (let at = 0; at + 9 <= entries.length; at += 9) {
      const e = entries[at]!;
      if (e < 0 || e >= words.length || e % STRIDE !== 0) state.fail("entries", `has no place ${e}`);
      words.set(entries.subarray(at + 1, at + 5), e);
      this.#origins.set(entries.subarray(at + 5, at + 9), e);
    }
    state.memory("victims", this.#victims);
  }
}

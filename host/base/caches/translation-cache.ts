// Translations of both stages combined, superpages kept as superpages, set-associative, kept until a command drops them: an IOTLB, or TLB.
//
// An entry is found by (stamp of its address space, block number at its own size). Page sizes fall into ten classes; a tag
// remembers which classes its entries have, so that a look-up probes only those. What rights are, their bits say to whoever asks.
// An entry remembers the leaf that it was made from: commands name leaves, and one that is cached in smaller pieces goes whole.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../state.ts";
import type { AddressTag, AddressTags } from "./address-tags.ts";

/** log2 of a class's size in pages of 4 KiB: 4K, 16K, 64K, 2M, 4M, 32M, 512M, 1G, 512G, 256T. */
export const CLASS_SHIFTS = Uint8Array.of(0, 2, 4, 9, 10, 13, 17, 18, 27, 36);
const CLASS_PAGES = Float64Array.from(CLASS_SHIFTS, (shift) => 2 ** shift);

const CLASS_OF_SHIFT = Uint8Array.from(
  { length: 64 },
  (_, shift) => CLASS_SHIFTS.filter((size) => size <= shift).length - 1,
);

/** The largest class not above `shift` (at most 63). */
export function classOf(shift: number): number {
  return CLASS_OF_SHIFT[shift]!;
}

/** Flags of an entry: twelve bits for whoever makes it (rights), the class of the leaf, and what tells kinds of leaves apart (`ORIGIN`). */
const LEAF_AT = 12;
export const ORIGIN_AT = 16;
export const ORIGIN_BITS = 0xff << ORIGIN_AT;

/** Frame numbers have 52 bits. */
const FRAMES = 2 ** 52;

const NO_WORDS = new Int32Array(0);
const NO_DOUBLES = new Float64Array(0);
const NO_BYTES = new Uint8Array(0);

const WAYS = 4;
/**
 * Int32 words per entry, of which a set of four takes 2^5: block number, stamp and class, rest of the block number, flags, distance (a double), two
 * spare. The distance leads from any frame of the block to the one that it translates to.
 */
const STRIDE = 8;
/** Doubleword of an entry that holds the distance. */
const DISTANCE = 2;
const CLASS_BITS = 4;

/** Block number (low 32 bits) of a frame at a class's size. */
function blockOf(low: number, high: number, shift: number): number {
  if (shift === 0) return low;
  return shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
}

// Fields have a value before the constructor gives them theirs, of the same type: compiled code then need not ask what they hold.
export class TranslationCache implements Stateful {
  /** Entries are named by their first word's index. */
  readonly #words: Int32Array = NO_WORDS;
  /** The same words. */
  readonly #doubles: Float64Array = NO_DOUBLES; // not state: the same words
  readonly #victims: Uint8Array = NO_BYTES;
  /** Entries of 4 KiB pages, by their addresses' low bits and their stamps. */
  readonly #found: Int32Array = NO_WORDS; // not state: our speed, nothing is believed unseen
  readonly #foundMask: number = 0;
  /** -1: nothing is kept. */
  readonly #setMask: number = 0;
  readonly #tags: AddressTags;

  /** Of at least four entries, or of none that are ever found. */
  constructor(entries: number, tags: AddressTags) {
    this.#tags = tags;
    const sets = (2 ** Math.ceil(Math.log2(Math.max(1, entries / WAYS)))) | 0;
    this.#setMask = entries > 0 ? sets - 1 : -1;
    this.#words = new Int32Array(sets * WAYS * STRIDE);
    this.#doubles = new Float64Array(this.#words.buffer);
    this.#victims = new Uint8Array(sets);
    this.#found = new Int32Array(sets * WAYS);
    this.#foundMask = sets * WAYS - 1;
  }

  /** The entry for a frame (bits 31:0, the rest) in the space of `tag`, or -1. */
  find(tag: AddressTag, low: number, high: number): number {
    const e = this.findPage(tag, low, high);
    return e >= 0 || tag.sizes === 0 ? e : this.#search(tag, low, high);
  }

  /** `find` of a 4 KiB page where the last one with such an address was found: it may have gone since, or be another's. */
  findPage(tag: AddressTag, low: number, high: number): number {
    const words = this.#words;
    const stamp = tag.stamp << CLASS_BITS;
    const e = this.#found[(low ^ stamp) & this.#foundMask]!;
    return words[e] === low && words[e | 1] === stamp && words[e | 2] === high ? e : -1;
  }

  #search(tag: AddressTag, low: number, high: number): number {
    let sizes = tag.sizes;
    const words = this.#words;
    const stamp = tag.stamp << CLASS_BITS;
    if ((sizes & 1) !== 0) {
      const hash = low ^ (low >>> 9) ^ Math.imul(stamp, 0x9e3779b1);
      // The first word decides, nearly always: which of the four ways agree in it.
      const set = (hash & this.#setMask) << 5;
      if (
        words[set] === low ||
        words[set | STRIDE] === low ||
        words[set | (2 * STRIDE)] === low ||
        words[set | (3 * STRIDE)] === low
      ) {
        for (let e = set; e < set + WAYS * STRIDE; e += STRIDE) {
          if (words[e] !== low || words[e | 1] !== stamp || words[e | 2] !== high) continue;
          this.#found[(low ^ stamp) & this.#foundMask] = e;
          return e;
        }
      }
      sizes &= ~1;
      if (sizes === 0) return -1;
    }
    while (sizes !== 0) {
      const size = 31 - Math.clz32(sizes & -sizes);
      sizes &= sizes - 1;
      const shift = CLASS_SHIFTS[size]!;
      const block = shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
      const rest = shift < 32 ? high : 0;
      const key = stamp | size;
      let e = ((block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) << 5;
      const end = e + WAYS * STRIDE;
      for (; e < end; e += STRIDE) {
        if (words[e] === block && words[e + 1] === key && words[e + 2] === rest) return e;
      }
    }
    return -1;
  }

  /** `find` also where `findPage` does not look, and in what is global to the space. */
  findAnywhere(tag: AddressTag, low: number, high: number): number {
    const e = this.#search(tag, low, high);
    const { global } = tag;
    return e >= 0 || global === null || global.sizes === 0 ? e : this.find(global, low, high);
  }

  /** The frame that a frame in the space of `tag`, or in what is global to it, translates to; -1 if that is not cached. */
  frameOf(tag: AddressTag, frame: number): number {
    const entry = this.findAnywhere(tag, frame | 0, (frame * 2 ** -32) | 0);
    return entry < 0 ? -1 : this.frameAt(entry, frame);
  }

  flagsAt(entry: number): number {
    return this.#words[entry | 3]!;
  }

  /** The frame that `frame` translates to through `entry`. */
  frameAt(entry: number, frame: number): number {
    return frame + this.#doubles[(entry >> 1) | DISTANCE]!;
  }

  /** Drops one entry (as found), so that another can take its place. */
  drop(entry: number): void {
    this.#words[entry | 1] = 0;
  }

  /** `insert` for a page of 4 KiB that was a leaf, the common case. */
  insertPage(tag: AddressTag, low: number, high: number, distance: number, flags: number): void {
    const setMask = this.#setMask;
    if (setMask < 0) return;
    if (tag.sizes === 0 && !tag.live) this.#tags.enliven(tag);
    const words = this.#words;
    const victims = this.#victims;
    const stamp = tag.stamp << CLASS_BITS;
    const hash = low ^ (low >>> 9) ^ Math.imul(stamp, 0x9e3779b1);
    const set = hash & setMask;
    const way = victims[set]!;
    victims[set] = (way + 1) & (WAYS - 1);
    const e = (set << 5) | (way << 3);
    this.#found[(low ^ stamp) & this.#foundMask] = e;
    words[e] = low;
    words[e | 1] = stamp;
    words[e | 2] = high | 0;
    words[e | 3] = flags | 0;
    this.#doubles[(e >> 1) | DISTANCE] = distance;
    if ((tag.sizes & 1) === 0) tag.sizes |= 1;
  }

  /**
   * Keeps a translation of the block of class `size` around a frame; `distance` leads from there to what it translates to (a multiple of the block's
   * size), `leaf` is the class of the leaf that it was made from (at least `size`). An entry of the same block may stand already (if the caller did not look): both are valid until
   * invalidated.
   */
  insert(
    tag: AddressTag,
    low: number,
    high: number,
    size: number,
    leaf: number,
    distance: number,
    flags: number,
  ): void {
    if (this.#setMask < 0) return;
    if (tag.sizes === 0 && !tag.live) this.#tags.enliven(tag);
    const words = this.#words;
    const stamp = tag.stamp << CLASS_BITS;
    const shift = CLASS_SHIFTS[size]!;
    const block = blockOf(low, high, shift);
    const set = (block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask;
    const way = this.#victims[set]!;
    this.#victims[set] = (way + 1) & (WAYS - 1);
    const e = (set << 5) | (way << 3);
    words[e] = block;
    words[e + 1] = stamp | size;
    words[e + 2] = shift < 32 ? high : 0;
    words[e + 3] = flags | (leaf << LEAF_AT);
    this.#doubles[(e >> 1) | DISTANCE] = distance;
    tag.sizes |= 1 << size;
    if (leaf > size) tag.split |= 1 << leaf;
  }

  /**
   * Drops the entries of `tag`'s space that were made from leaves which cover some of the pages [pfn, pfn + pages): of those whose flags under `mask` are
   * `origin`.
   */
  invalidatePages(tag: AddressTag, pfn: number, pages: number, mask: number, origin: number): void {
    if (tag.sizes === 0) return;
    const end = pfn + pages;
    let from = pfn;
    let to = end;
    if (tag.split !== 0) {
      // The pieces of a leaf lie all over it.
      const widest = CLASS_PAGES[31 - Math.clz32(tag.split)]!;
      from -= from % widest;
      to += (widest - (to % widest)) % widest;
    }
    let probes = 0;
    for (let sizes = tag.sizes; sizes !== 0; sizes &= sizes - 1) {
      probes += (to - from) / CLASS_PAGES[31 - Math.clz32(sizes & -sizes)]! + 1;
    }
    if (probes * WAYS > this.#words.length / STRIDE) {
      this.#sweep(tag, pfn, end, mask, origin);
      return;
    }
    for (let sizes = tag.sizes; sizes !== 0; sizes &= sizes - 1) {
      const size = 31 - Math.clz32(sizes & -sizes);
      const step = CLASS_PAGES[size]!;
      for (let at = from - (from % step); at < to; at += step) this.#removeAt(tag, at, size, pfn, end, mask, origin);
    }
  }

  /** Looks where the entries of one block can be. */
  #removeAt(
    tag: AddressTag,
    page: number,
    size: number,
    first: number,
    end: number,
    mask: number,
    origin: number,
  ): void {
    const words = this.#words;
    const low = page | 0;
    const high = (page * 2 ** -32) | 0;
    const stamp = tag.stamp << CLASS_BITS;
    const shift = CLASS_SHIFTS[size]!;
    const block = blockOf(low, high, shift);
    const rest = shift < 32 ? high : 0;
    const key = stamp | size;
    const start = ((block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) << 5;
    for (let e = start; e < start + WAYS * STRIDE; e += STRIDE) {
      if (words[e] !== block || words[e + 1] !== key || words[e + 2] !== rest) continue;
      const flags = words[e + 3]!;
      if ((flags & mask) !== origin || !coversSome(flags, page, first, end)) continue;
      // Stamp 0 is never given out.
      words[e + 1] = 0;
    }
  }

  /** Looks at every entry. */
  #sweep(tag: AddressTag, first: number, end: number, mask: number, origin: number): void {
    const words = this.#words;
    for (let e = 0; e < words.length; e += STRIDE) {
      if (words[e + 1]! >>> CLASS_BITS !== tag.stamp) continue;
      const flags = words[e + 3]!;
      if ((flags & mask) !== origin) continue;
      if (coversSome(flags, this.#firstPage(e), first, end)) words[e + 1] = 0;
    }
  }

  /** Of the block that an entry translates. */
  #firstPage(e: number): number {
    const words = this.#words;
    const shift = CLASS_SHIFTS[words[e + 1]! & 15]!;
    return shift < 32
      ? (words[e + 2]! >>> 0) * 0x100000000 + ((words[e]! << shift) >>> 0)
      : (words[e]! >>> 0) * 2 ** shift;
  }

  /** Empties the cache (reset, stamps exhausted). */
  clear(): void {
    this.#words.fill(0);
  }

  saveState(): StateRecord {
    return {
      words: bytesOf(this.#words),
      victims: bytesOf(this.#victims),
    };
  }

  restoreState(state: StateReader): void {
    state.memory("words", this.#words);
    state.memory("victims", this.#victims);
    const words = this.#words;
    for (let e = 0; e < words.length; e += STRIDE) {
      if (words[e | 1] === 0) continue;
      // Where an entry leads must be a frame, whatever a document says.
      const frame = this.#firstPage(e) + this.#doubles[(e >> 1) | DISTANCE]!;
      if (!(Number.isInteger(frame) && frame >= 0 && frame < FRAMES))
        state.fail("words", `lead from entry ${e / STRIDE} to no frame`);
    }
  }
}

/** True if the leaf of the entry that holds `page` covers some of [first, end). */
function coversSome(flags: number, page: number, first: number, end: number): boolean {
  const pages = CLASS_PAGES[(flags >>> LEAF_AT) & 15]!;
  const start = page - (page % pages);
  return start < end && start + pages > first;
}

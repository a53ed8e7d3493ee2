// The IOTLB: combined first- and second-stage translations, superpages kept as superpages, set-associative.
//
// An entry is found by (stamp of its address space, block number at its own size). Page sizes fall into seven classes; a tag
// remembers which classes its entries have, so that a look-up probes only those. Rights are stored nine bits wide - read, write,
// execute for user requests, for supervisor requests without SUM, and with SUM - so that a hit is decided by one AND. W is stored
// only if D was set in both stages: the first write through a clean page walks again and sets it.
//
// The same structure keeps MSI page-table entries (keyed by the second stage's stamp and the guest-physical page).

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { AddressTag, AddressTags } from "./address-tags.ts";

/** log2 of a class's size in pages: 4 KiB, 64 KiB (NAPOT), 2 MiB, 4 MiB (Sv32), 1 GiB, 512 GiB, 256 TiB. */
export const CLASS_SHIFTS = Uint8Array.of(0, 4, 9, 10, 18, 27, 36);
const CLASS_PAGES = Float64Array.from(CLASS_SHIFTS, (shift) => 2 ** shift);

const CLASS_OF_SHIFT = Uint8Array.from(
  { length: 64 },
  (_, shift) => CLASS_SHIFTS.filter((size) => size <= shift).length - 1,
);

/** The largest class not above `shift` (at most 63). */
export function classOf(shift: number): number {
  return CLASS_OF_SHIFT[shift]!;
}

/** Right n is what KIND_n of a request needs: 1 << KIND_READ, 1 << KIND_WRITE, 1 << KIND_EXECUTE. */
export const RIGHT_READ = 1;
export const RIGHT_WRITE = 2;
export const RIGHT_EXECUTE = 4;
/** Shifts of the rights for each kind of requester. */
export const USER_RIGHTS = 0;
export const SUPERVISOR_RIGHTS = 3;
export const SUPERVISOR_SUM_RIGHTS = 6;

const WAYS = 4;
/** Int32 words per entry: block number, stamp and class, rest of the block number, flags, frame (two halves), two spare. */
const STRIDE = 8;
/** A range invalidation that would probe more blocks than this drops the whole address space instead (always legal, §4.1). */
const PROBE_LIMIT = 512;

/** Block number (low 32 bits) of a frame at a class's size. */
function blockOf(low: number, high: number, shift: number): number {
  if (shift === 0) return low;
  return shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
}

export class TranslationCache implements Stateful {
  /** Entries are named by their first word's index. */
  readonly #words: Int32Array;
  readonly #span: number;
  readonly #setMask: number;
  readonly #wayMask: number;
  readonly #victims: Uint8Array;
  readonly #enabled: boolean;

  constructor(entries: number) {
    this.#enabled = entries > 0;
    const rounded = 2 ** Math.ceil(Math.log2(Math.max(1, entries)));
    const ways = Math.min(WAYS, rounded);
    const sets = rounded / ways;
    this.#span = ways * STRIDE;
    this.#setMask = sets - 1;
    this.#wayMask = ways - 1;
    this.#words = new Int32Array(rounded * STRIDE);
    this.#victims = new Uint8Array(sets);
  }

  /** The entry for a frame (bits 31:0, the rest) in the space of `tag`, or -1. */
  find(tag: AddressTag, low: number, high: number): number {
    let sizes = tag.sizes;
    const words = this.#words;
    const stamp = tag.stamp << 3;
    if ((sizes & 1) !== 0) {
      // 4 KiB pages, the common case, without the arithmetic of the others.
      const first = ((low ^ (low >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) * this.#span;
      const last = first + this.#span;
      for (let e = first; e < last; e += 8) {
        if (words[e] === low && words[e | 1] === stamp && words[e | 2] === high) return e;
      }
      sizes &= ~1;
    }
    while (sizes !== 0) {
      const size = 31 - Math.clz32(sizes & -sizes);
      sizes &= sizes - 1;
      const shift = CLASS_SHIFTS[size]!;
      const block = shift === 0 ? low : shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
      const rest = shift < 32 ? high : 0;
      const key = stamp | size;
      let e = ((block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) * this.#span;
      const end = e + this.#span;
      for (; e < end; e += STRIDE) {
        if (words[e] === block && words[e + 1] === key && words[e + 2] === rest) return e;
      }
    }
    return -1;
  }

  flagsAt(entry: number): number {
    return this.#words[entry + 3]!;
  }

  /** The frame that `low` translates to through `entry`. */
  frameAt(entry: number, low: number, high: number): number {
    const words = this.#words;
    const size = words[entry + 1]! & 7;
    const baseLow = words[entry + 4]!;
    const baseHigh = words[entry + 5]!;
    if (size === 0) return baseHigh * 4294967296 + (baseLow >>> 0);
    const shift = CLASS_SHIFTS[size]!;
    if (shift < 32) return baseHigh * 0x100000000 + ((baseLow | (low & ((1 << shift) - 1))) >>> 0);
    return (baseHigh | (high & ((1 << (shift - 32)) - 1))) * 0x100000000 + (low >>> 0);
  }

  /** Drops one entry (as found), so that another can take its place. */
  drop(entry: number): void {
    this.#words[entry + 1] = 0;
  }

  /** `insert` for a page of 4 KiB, the common case. */
  insertPage(tag: AddressTag, low: number, high: number, targetLow: number, targetHigh: number, flags: number): void {
    if (!this.#enabled) return;
    const words = this.#words;
    const victims = this.#victims;
    const stamp = tag.stamp << 3;
    const set = (low ^ (low >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask;
    const way = victims[set]!;
    victims[set] = (way + 1) & this.#wayMask;
    const e = (set * this.#span + (way << 3)) | 0;
    words[e] = low;
    words[e | 1] = stamp;
    words[e | 2] = high;
    words[e | 3] = flags;
    words[e | 4] = targetLow;
    words[e | 5] = targetHigh;
    tag.sizes |= 1;
  }

  /**
   * Keeps a translation of the block of class `size` around a frame; `target` is what that frame itself translates to.
   * An entry of the same block may stand already (if the caller did not look): both are valid until invalidated.
   */
  insert(
    tag: AddressTag,
    low: number,
    high: number,
    size: number,
    targetLow: number,
    targetHigh: number,
    flags: number,
  ): void {
    if (!this.#enabled) return;
    const words = this.#words;
    const stamp = tag.stamp << 3;
    const shift = CLASS_SHIFTS[size]!;
    const block = blockOf(low, high, shift);
    const rest = shift < 32 ? high : 0;
    const key = stamp | size;
    const set = (block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask;
    const way = this.#victims[set]!;
    this.#victims[set] = (way + 1) & this.#wayMask;
    const e = set * this.#span + way * STRIDE;
    words[e] = block;
    words[e + 1] = key;
    words[e + 2] = rest;
    words[e + 3] = flags;
    words[e + 4] = shift < 32 ? targetLow & (-1 << shift) : 0;
    words[e + 5] = shift < 32 ? targetHigh : targetHigh & (-1 << (shift - 32));
    tag.sizes |= 1 << size;
  }

  /**
   * Drops the entries of `tag`'s space that were made from the leaves covering [pfn, pfn + pages); `pfn` is aligned to `pages`, a
   * power of two. A leaf that is cached in smaller pieces goes whole.
   */
  invalidateRange(tags: AddressTags, tag: AddressTag, pfn: number, pages: number): void {
    if (tag.sizes === 0) return;
    let length = pages;
    if (tag.split !== 0) length = Math.max(length, CLASS_PAGES[31 - Math.clz32(tag.split)]!);
    const start = pfn - (pfn % length);
    let probes = 0;
    for (let sizes = tag.sizes; sizes !== 0; sizes &= sizes - 1) {
      probes += Math.max(1, length / CLASS_PAGES[31 - Math.clz32(sizes & -sizes)]!);
    }
    if (probes > PROBE_LIMIT) {
      tags.invalidate(tag);
      return;
    }
    for (let sizes = tag.sizes; sizes !== 0; sizes &= sizes - 1) {
      const size = 31 - Math.clz32(sizes & -sizes);
      const step = CLASS_PAGES[size]!;
      for (let at = start - (start % step); at < start + length; at += step) this.#remove(tag, at, size);
    }
  }

  #remove(tag: AddressTag, pfn: number, size: number): void {
    const words = this.#words;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const stamp = tag.stamp << 3;
    const shift = CLASS_SHIFTS[size]!;
    const block = blockOf(low, high, shift);
    const rest = shift < 32 ? high : 0;
    const key = stamp | size;
    const start = ((block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) * this.#span;
    for (let e = start; e < start + this.#span; e += STRIDE) {
      // Stamp 0 is never given out.
      if (words[e] === block && words[e + 1] === key && words[e + 2] === rest) words[e + 1] = 0;
    }
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
  }
}

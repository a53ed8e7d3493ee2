// The IOTLB: combined first- and second-stage translations, superpages kept as superpages, set-associative.
//
// An entry is found by (stamp of its address space, block number at its own size). Page sizes fall into seven classes; a tag
// remembers which classes its entries have, so that a look-up probes only those. Rights are stored nine bits wide - read, write,
// execute for user requests, for supervisor requests without SUM, and with SUM - so that a hit is decided by one AND. W is stored
// only if D was set in both stages: the first write through a clean page walks again and sets it.
//
// The same structure keeps MSI page-table entries (keyed by the second stage's stamp and the guest-physical page).

import type { AddressTag, AddressTags } from "./address-tags.ts";

/** log2 of a class's size in pages: 4 KiB, 64 KiB (NAPOT), 2 MiB, 4 MiB (Sv32), 1 GiB, 512 GiB, 256 TiB. */
export const CLASS_SHIFTS = Uint8Array.of(0, 4, 9, 10, 18, 27, 36);

/** The largest class not above `shift`. */
export function classOf(shift: number): number {
  let result = 0;
  for (let i = 1; i < CLASS_SHIFTS.length; i++) if (CLASS_SHIFTS[i]! <= shift) result = i;
  return result;
}

export const RIGHT_READ = 1;
export const RIGHT_WRITE = 2;
export const RIGHT_EXECUTE = 4;
/** Shifts of the rights for each kind of requester. */
export const USER_RIGHTS = 0;
export const SUPERVISOR_RIGHTS = 3;
export const SUPERVISOR_SUM_RIGHTS = 6;
/** The frame stored is guest-physical: an interrupt-file page, to be looked up in the MSI table. */
export const ENTRY_MESSAGE = 1 << 9;
export const ENTRY_PBMT_SHIFT = 10;

const WAYS = 4;
/** Int32 words per entry: block number, stamp, high part and class, flags. */
const STRIDE = 4;
/** A range invalidation that would probe more blocks than this drops the whole address space instead (always legal, §4.1). */
const PROBE_LIMIT = 512;

export class TranslationCache {
  /** Flags of entry e are keys[e + 3]; its frame is frames[e / 4]. Entries are named by their offset e. */
  readonly #keys: Int32Array;
  readonly #frames: Float64Array;
  readonly #ways: number;
  readonly #setMask: number;
  readonly #victims: Uint8Array;
  readonly #enabled: boolean;

  constructor(entries: number) {
    this.#enabled = entries > 0;
    const rounded = 2 ** Math.ceil(Math.log2(Math.max(1, entries)));
    this.#ways = Math.min(WAYS, rounded);
    const sets = rounded / this.#ways;
    this.#setMask = sets - 1;
    this.#keys = new Int32Array(rounded * STRIDE);
    this.#frames = new Float64Array(rounded);
    this.#victims = new Uint8Array(sets);
  }

  /** The entry for a page frame in the space of `tag`, or -1. */
  find(tag: AddressTag, pfn: number): number {
    const keys = this.#keys;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const stamp = tag.stamp;
    const span = this.#ways * STRIDE;
    let sizes = tag.sizes;
    while (sizes !== 0) {
      const size = 31 - Math.clz32(sizes & -sizes);
      sizes &= sizes - 1;
      const shift = CLASS_SHIFTS[size]!;
      const block = shift === 0 ? low : shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
      const rest = (shift <= 32 ? high : (high >>> (shift - 32)) << (shift - 32)) | (size << 24);
      let e = ((block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) * span;
      const end = e + span;
      for (; e < end; e += STRIDE) {
        if (keys[e] === block && keys[e + 1] === stamp && keys[e + 2] === rest) return e;
      }
    }
    return -1;
  }

  flagsAt(entry: number): number {
    return this.#keys[entry + 3]!;
  }

  /** The frame that `pfn` translates to through `entry`. */
  frameAt(entry: number, pfn: number): number {
    const base = this.#frames[entry >> 2]!;
    const shift = CLASS_SHIFTS[this.#keys[entry + 2]! >>> 24]!;
    if (shift < 31) return base + (pfn & ((1 << shift) - 1));
    const size = 2 ** shift;
    return base + (pfn - Math.floor(pfn / size) * size);
  }

  /** log2 in pages of an entry's size. */
  shiftAt(entry: number): number {
    return CLASS_SHIFTS[this.#keys[entry + 2]! >>> 24]!;
  }

  /** Keeps a translation of the block of class `size` around `pfn`; `frame` is what `pfn` itself translates to. */
  insert(tag: AddressTag, pfn: number, size: number, frame: number, flags: number): void {
    if (!this.#enabled) return;
    const keys = this.#keys;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const stamp = tag.stamp;
    const shift = CLASS_SHIFTS[size]!;
    const block = shift === 0 ? low : shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
    const rest = (shift <= 32 ? high : (high >>> (shift - 32)) << (shift - 32)) | (size << 24);
    const set = (block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask;
    const span = this.#ways * STRIDE;
    const start = set * span;
    let e = -1;
    for (let i = start; i < start + span; i += STRIDE) {
      if (keys[i] === block && keys[i + 1] === stamp && keys[i + 2] === rest) {
        e = i;
        break;
      }
    }
    if (e < 0) {
      const way = this.#victims[set]!;
      this.#victims[set] = (way + 1) & (this.#ways - 1);
      e = start + way * STRIDE;
    }
    keys[e] = block;
    keys[e + 1] = stamp;
    keys[e + 2] = rest;
    keys[e + 3] = flags;
    const pages = 2 ** shift;
    const within = shift < 31 ? pfn & ((1 << shift) - 1) : pfn - Math.floor(pfn / pages) * pages;
    this.#frames[e >> 2] = frame - within;
    tag.sizes |= 1 << size;
  }

  /**
   * Drops the entries of `tag`'s space that were made from the leaves covering [pfn, pfn + pages); `pfn` is aligned to `pages`, a
   * power of two. A leaf that is cached in smaller pieces goes whole.
   */
  invalidateRange(tags: AddressTags, tag: AddressTag, pfn: number, pages: number): void {
    if (tag.sizes === 0) return;
    let length = pages;
    if (tag.split !== 0) length = Math.max(length, 2 ** CLASS_SHIFTS[31 - Math.clz32(tag.split)]!);
    const start = pfn - (pfn % length);
    let probes = 0;
    for (let sizes = tag.sizes; sizes !== 0; sizes &= sizes - 1) {
      probes += Math.max(1, length / 2 ** CLASS_SHIFTS[31 - Math.clz32(sizes & -sizes)]!);
    }
    if (probes > PROBE_LIMIT) {
      tags.invalidate(tag);
      return;
    }
    for (let sizes = tag.sizes; sizes !== 0; sizes &= sizes - 1) {
      const size = 31 - Math.clz32(sizes & -sizes);
      const step = 2 ** CLASS_SHIFTS[size]!;
      for (let at = start - (start % step); at < start + length; at += step) this.#remove(tag, at, size);
    }
  }

  #remove(tag: AddressTag, pfn: number, size: number): void {
    const keys = this.#keys;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const stamp = tag.stamp;
    const shift = CLASS_SHIFTS[size]!;
    const block = shift === 0 ? low : shift < 32 ? (low >>> shift) | (high << (32 - shift)) : high >>> (shift - 32);
    const rest = (shift <= 32 ? high : (high >>> (shift - 32)) << (shift - 32)) | (size << 24);
    const span = this.#ways * STRIDE;
    const start = ((block ^ (block >>> 9) ^ Math.imul(stamp, 0x9e3779b1)) & this.#setMask) * span;
    for (let e = start; e < start + span; e += STRIDE) {
      // Stamp 0 is never given out.
      if (keys[e] === block && keys[e + 1] === stamp && keys[e + 2] === rest) keys[e + 1] = 0;
    }
  }

  /** Empties the cache (reset, stamps exhausted). */
  clear(): void {
    this.#keys.fill(0);
  }
}

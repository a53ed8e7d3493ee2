// The TLB (§3.17): combined translations of both stages, set-associative, tagged by world, VMID and ASID, kept until a command drops them.
//
// An entry is found by (space, block number at its own size): a space is two numbers, `key` (VMID, ASID) and `meta` (world, global, ASET), so that a
// look-up compares three words. An entry remembers the leaf it was made from (granule, level, size): commands name leaves, and a leaf that is
// cached in smaller pieces goes whole. Rights are those of leaf-rights.ts, without the write rights of what is not marked dirty.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";

/** log2 of a class's size in pages of 4 KiB: 4K, 16K, 64K, 2M, 32M, 512M, 1G. */
const CLASS_SHIFTS = Uint8Array.of(0, 2, 4, 9, 13, 17, 18);
const CLASS_OF_SHIFT = Uint8Array.from(
  { length: 64 },
  (_, shift) => CLASS_SHIFTS.filter((size) => size <= shift).length - 1,
);

/** The largest class not above `shift`. */
export function classOf(shift: number): number {
  return CLASS_OF_SHIFT[shift]!;
}

// Word 2: bits 51:32 of the block's frame number in 19:0, then
const CLASS_AT = 20;
export const VALID = 1 << 27;
export const GLOBAL = 1 << 25;
export const ASET = 1 << 26;
const WORLD_AT = 23;
/** What an entry translates: VAs of NS-EL1, IPAs of NS-EL1, VAs of NS-EL2. */
export const TAG_EL1 = 0;
export const TAG_IPA = 1;
export const TAG_EL2 = 2;
export const metaOf = (tag: number): number => VALID | (tag << WORLD_AT);

// Word 3: rights in 5:0, then granule code, level and class of the leaf.
const GRANULE_AT = 6;
const LEVEL_AT = 8;
const LEAF_AT = 10;

const WAYS = 4;
const STRIDE = 8;
const SHIFT_44 = 2 ** 44;

/** What an invalidation drops. */
export interface InvalidationScope {
  /** TAG_* as bits. */
  readonly tags: number;
  /** -1: any. */
  readonly vmid: number;
  /** Bits of the VMID that are compared (CR0.VMW). */
  readonly vmidMask: number;
  /** -1: any ASID, global entries included. */
  readonly asid: number;
  /** With an ASID: global entries too (of the address). */
  readonly globals: boolean;
}

export class TranslationCache implements Stateful {
  readonly #words: Int32Array;
  readonly #span: number;
  readonly #setMask: number;
  readonly #wayMask: number;
  readonly #victims: Uint8Array;
  readonly #enabled: boolean;
  /** Classes that entries may have; classes of leaves that were cached in smaller pieces. */
  #classes = 0;
  #split = 0;
  /** There may be global entries. */
  globals = false;

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

  saveState(): StateRecord {
    return {
      words: bytesOf(this.#words),
      victims: bytesOf(this.#victims),
      classes: this.#classes,
      split: this.#split,
      globals: this.globals,
    };
  }

  restoreState(state: StateReader): void {
    state.memory("words", this.#words);
    state.memory("victims", this.#victims);
    this.#classes = state.number("classes");
    this.#split = state.number("split");
    this.globals = state.boolean("globals");
  }

  /** The entry for a frame in a space, or -1. */
  find(key: number, meta: number, low: number, high: number): number {
    const words = this.#words;
    const rest = meta | (high & 0xfffff);
    let classes = this.#classes;
    if ((classes & 1) !== 0) {
      const first = ((low ^ (low >>> 9) ^ Math.imul(key, 0x9e3779b1)) & this.#setMask) * this.#span;
      const last = first + this.#span;
      for (let e = first; e < last; e += 8) {
        if (words[e] === low && words[e | 1] === key && words[e | 2] === rest) return e;
      }
      classes &= ~1;
    }
    while (classes !== 0) {
      const size = 31 - Math.clz32(classes & -classes);
      classes &= classes - 1;
      const shift = CLASS_SHIFTS[size]!;
      const block = (low >>> shift) | (high << (32 - shift));
      const tagged = rest | (size << CLASS_AT);
      let e = ((block ^ (block >>> 9) ^ Math.imul(key, 0x9e3779b1)) & this.#setMask) * this.#span;
      const end = e + this.#span;
      for (; e < end; e += STRIDE) {
        if (words[e] === block && words[e | 1] === key && words[e | 2] === tagged) return e;
      }
    }
    return -1;
  }

  rightsAt(entry: number): number {
    return this.#words[entry | 3]!;
  }

  /** The frame that `low` translates to through `entry`. */
  frameAt(entry: number, low: number): number {
    const words = this.#words;
    const size = (words[entry | 2]! >>> CLASS_AT) & 7;
    if (size === 0) return words[entry | 5]! * 4294967296 + (words[entry | 4]! >>> 0);
    const within = (1 << CLASS_SHIFTS[size]!) - 1;
    return words[entry + 5]! * 4294967296 + ((words[entry + 4]! | (low & within)) >>> 0);
  }

  /** Drops one entry (as found). */
  drop(entry: number): void {
    this.#words[entry + 2] = 0;
  }

  /**
   * Keeps a translation of the block of 2^shift pages around a frame. `leafShift`, `leafGranule`: the leaf it came of, to which commands refer;
   * `rights` six bits.
   */
  insert(
    key: number,
    meta: number,
    low: number,
    high: number,
    shift: number,
    leafShift: number,
    leafGranule: number,
    targetLow: number,
    targetHigh: number,
    rights: number,
  ): void {
    if (!this.#enabled) return;
    const words = this.#words;
    const size = CLASS_OF_SHIFT[shift]!;
    const leaf = CLASS_OF_SHIFT[leafShift]!;
    const sizeShift = CLASS_SHIFTS[size]!;
    const block = sizeShift === 0 ? low : (low >>> sizeShift) | (high << (32 - sizeShift));
    const set = (block ^ (block >>> 9) ^ Math.imul(key, 0x9e3779b1)) & this.#setMask;
    const way = this.#victims[set]!;
    this.#victims[set] = (way + 1) & this.#wayMask;
    const level = 3 - (leafShift - (leafGranule - 12)) / (leafGranule - 3);
    const e = set * this.#span + way * STRIDE;
    words[e] = block;
    words[e + 1] = key;
    words[e + 2] = meta | (high & 0xfffff) | (size << CLASS_AT);
    words[e + 3] = rights | (((leafGranule - 12) >>> 1) << GRANULE_AT) | (level << LEVEL_AT) | (leaf << LEAF_AT);
    words[e + 4] = targetLow & (-1 << sizeShift);
    words[e + 5] = targetHigh;
    this.#classes |= 1 << size;
    if (leaf > size) this.#split |= 1 << leaf;
    if ((meta & GLOBAL) !== 0) this.globals = true;
  }

  /** Drops the entries of a scope, whatever their address. */
  invalidate(scope: InvalidationScope): void {
    this.#sweep(scope, 0, Number.POSITIVE_INFINITY, 0, 0);
  }

  /**
   * Drops the entries of a scope that were made from leaves which cover some of the pages [pfn, pfn + pages). `granule` (log2) and `level` narrow it to
   * leaves of that granule, and level; 0: any.
   */
  invalidatePages(scope: InvalidationScope, pfn: number, pages: number, granule: number, level: number): void {
    const single = pages <= 16 && scope.asid >= 0 && scope.vmid >= 0 && scope.vmidMask === 0xffff && this.#split === 0;
    if (!single) {
      this.#sweep(scope, pfn % SHIFT_44, pages, granule, level);
      return;
    }
    for (let page = 0; page < pages; page++) this.#dropPage(scope, pfn + page, granule, level);
  }

  /** Looks only where entries of this page can be. */
  #dropPage(scope: InvalidationScope, pfn: number, granule: number, level: number): void {
    const low = pfn | 0;
    const bits = (pfn * 2 ** -32) | 0;
    const high = (bits & 0x800) !== 0 ? bits | 0xff000 : bits & 0xfff;
    for (let tag = 0; tag < 3; tag++) {
      if ((scope.tags & (1 << tag)) === 0) continue;
      const meta = metaOf(tag);
      this.#dropFound((scope.asid << 16) | scope.vmid, meta, low, high, granule, level);
      if (!scope.globals || !this.globals) continue;
      this.#dropFound(scope.vmid, meta | GLOBAL, low, high, granule, level);
      this.#dropFound(scope.vmid, meta | GLOBAL | ASET, low, high, granule, level);
    }
  }

  #dropFound(key: number, meta: number, low: number, high: number, granule: number, level: number): void {
    const words = this.#words;
    for (let classes = this.#classes; classes !== 0; classes &= classes - 1) {
      const size = 31 - Math.clz32(classes & -classes);
      const shift = CLASS_SHIFTS[size]!;
      const block = shift === 0 ? low : (low >>> shift) | (high << (32 - shift));
      const rest = meta | (high & 0xfffff) | (size << CLASS_AT);
      const start = ((block ^ (block >>> 9) ^ Math.imul(key, 0x9e3779b1)) & this.#setMask) * this.#span;
      for (let e = start; e < start + this.#span; e += STRIDE) {
        if (words[e] !== block || words[e + 1] !== key || words[e + 2] !== rest) continue;
        if (isOfLeaf(words[e + 3]!, granule, level)) words[e + 2] = 0;
      }
    }
  }

  /** Looks at every entry. */
  #sweep(scope: InvalidationScope, first: number, pages: number, granule: number, level: number): void {
    const words = this.#words;
    const { tags, vmid, vmidMask, asid, globals } = scope;
    const everywhere = pages === Number.POSITIVE_INFINITY;
    const end = first + pages;
    for (let e = 0; e < words.length; e += STRIDE) {
      const rest = words[e + 2]!;
      if ((rest & VALID) === 0 || ((tags >>> ((rest >>> WORLD_AT) & 3)) & 1) === 0) continue;
      const key = words[e + 1]!;
      if (vmid >= 0 && ((key ^ vmid) & vmidMask) !== 0) continue;
      if (asid >= 0 && ((rest & GLOBAL) !== 0 ? !globals : key >>> 16 !== asid)) continue;
      if (!everywhere) {
        const flags = words[e + 3]!;
        if (!isOfLeaf(flags, granule, level)) continue;
        const shift = CLASS_SHIFTS[(rest >>> CLASS_AT) & 7]!;
        const page = (rest & 0xfff) * 0x100000000 + ((words[e]! << shift) >>> 0);
        const size = 2 ** CLASS_SHIFTS[(flags >>> LEAF_AT) & 7]!;
        const start = page - (page % size);
        if (start >= end || start + size <= first) continue;
      }
      words[e + 2] = 0;
    }
  }

  /** Empties the cache. */
  clear(): void {
    this.#words.fill(0);
    this.#classes = 0;
    this.#split = 0;
    this.globals = false;
  }
}

function isOfLeaf(flags: number, granule: number, level: number): boolean {
  if (granule !== 0 && ((flags >>> GRANULE_AT) & 3) * 2 + 12 !== granule) return false;
  return level === 0 || ((flags >>> LEVEL_AT) & 3) === level;
}

// One stage's way down its tables (DDI 0487 D8.2): where the next descriptor lies, what it says, and on to the table below.
//
// A descent is scratch of its walker. Addresses of descriptors are those that the stage's tables stand in: for stage 1 behind a stage 2 they
// are intermediate, and `load` is told where that frame really is.

import { swap32 } from "../../base/byte-order.ts";
import { TABLE_SHIFTS, TABLE_STRIDES, type TableCache } from "../../base/caches/table-cache.ts";
import { ACCESS_OK } from "../../base/memory.ts";
import type { TableReader } from "../../base/table-reader.ts";
import { F_ADDR_SIZE, F_TRANSLATION } from "./event-records.ts";
import { DESCRIPTOR_AF, DESCRIPTOR_TABLE, DESCRIPTOR_VALID } from "./leaf-rights.ts";
import type { TableTree } from "./translation-regime.ts";

/** What a stage says of access flags. */
interface AccessFlagRules {
  /** The SMMU sets them (HTTU), those of tables too. */
  readonly accessFlag: boolean;
  readonly tableAccessFlag: boolean;
  /** AFFD: a clear one is no fault. */
  readonly accessFaultsDisabled: boolean;
}

// Not state: scratch of one walk
export class TableDescent<P extends number> {
  /** The level's shift, and the descriptor's place: frame and offset. */
  shift = 0;
  frameLow = 0;
  frameHigh = 0;
  offset = 0;
  /** The descriptor (byte order undone); once decoded: is it a table's, and the frame it names. */
  lo = 0;
  hi = 0;
  pointer = false;
  outLow = 0;
  outHigh = 0;
  #tree: TableTree | null = null;
  #low = 0;
  #high = 0;
  readonly #reader: TableReader<P>;

  constructor(reader: TableReader<P>) {
    this.#reader = reader;
  }

  /** To the root's descriptor for a frame number. */
  start(tree: TableTree, low: number, high: number): void {
    this.#tree = tree;
    this.#low = low;
    this.#high = high;
    this.shift = tree.startShift;
    this.#locate(tree.rootLow, tree.rootHigh, tree.startMask, tree.rootEntry);
  }

  /** To the descriptor in a table that is remembered; false if that is of another granule. */
  resume(tables: TableCache, entry: number): boolean {
    const tree = this.#tree!;
    const size = tables.classAt(entry);
    if (TABLE_STRIDES[size] !== tree.stride) return false;
    this.shift = TABLE_SHIFTS[size]! - tree.stride;
    const lo = tables.pointerLoAt(entry);
    const hi = tables.pointerHiAt(entry);
    this.#locate(((lo >>> 12) | (hi << 20)) & tree.tableMask, (hi >>> 12) & 0xf, tree.strideMask, 0);
    return true;
  }

  /** On to the table that the descriptor names. */
  follow(): void {
    const tree = this.#tree!;
    this.shift -= tree.stride;
    this.#locate(this.outLow & tree.tableMask, this.outHigh, tree.strideMask, 0);
  }

  #locate(tableLow: number, tableHigh: number, mask: number, entry: number): void {
    const index = (bitsFrom(this.#low, this.#high, this.shift) & mask) + entry;
    this.frameLow = tableLow | (index >>> 9);
    this.frameHigh = tableHigh;
    this.offset = (index & 511) << 3;
  }

  /** Loads the descriptor, its frame being this one in memory; false: it cannot be fetched. */
  load(frameLow: number, frameHigh: number, bigEndian: boolean): boolean {
    const reader = this.#reader;
    if (reader.load(frameLow, frameHigh, this.offset) !== ACCESS_OK) return false;
    this.lo = bigEndian ? swap32(reader.hi) | 0 : reader.lo;
    this.hi = bigEndian ? swap32(reader.lo) | 0 : reader.hi;
    return true;
  }

  /** 0, F_TRANSLATION, or F_ADDR_SIZE for an output that is too large. */
  decode(): number {
    const tree = this.#tree!;
    const { lo, hi, shift } = this;
    this.pointer = shift !== tree.lastShift && (lo & 3) === 3;
    if (!this.pointer && !isLeaf(lo, shift, tree)) return F_TRANSLATION;
    this.outLow = (lo >>> 12) | (hi << 20);
    this.outHigh = (hi >>> 12) & 0xf;
    return ((this.outLow & tree.outputLow) | (this.outHigh & tree.outputHigh)) !== 0 ? F_ADDR_SIZE : 0;
  }

  /** Of a leaf: the output's frame number, bits 31:0 (the rest is `outHigh`). */
  get leafLow(): number {
    const within = (1 << this.shift) - 1;
    return (this.outLow & ~within) | (this.#low & within);
  }
}

/** The low half with the access flag that the SMMU sets before it uses the descriptor; 0: an access flag fault. */
export function withAccessFlag(lo: number, pointer: boolean, rules: AccessFlagRules): number {
  if (pointer) return rules.tableAccessFlag ? lo | DESCRIPTOR_AF : lo;
  if ((lo & DESCRIPTOR_AF) !== 0) return lo;
  if (rules.accessFlag) return lo | DESCRIPTOR_AF;
  return rules.accessFaultsDisabled ? lo : 0;
}

/** The bits of a frame number from `shift` up. */
function bitsFrom(low: number, high: number, shift: number): number {
  return shift < 32 ? (low >>> shift) | ((high << 1) << (31 - shift)) : high >>> (shift - 32);
}

/** A descriptor that is no table: a page at the last level, a block where there are blocks. */
function isLeaf(lo: number, shift: number, tree: TableTree): boolean {
  if ((lo & DESCRIPTOR_VALID) === 0) return false;
  const page = (lo & DESCRIPTOR_TABLE) !== 0;
  return shift === tree.lastShift ? page : !page && shift <= tree.blockShift;
}

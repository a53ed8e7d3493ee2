// Finding the stream table entry of a StreamID (IHI 0070 §3.3.2, §5.1) and the context descriptor of a SubstreamID (§3.3.3, §5.3), over a memory port.
//
// Both leave the structure's 16 words in `words` and return 0 or the number of an event; `fetchPfn`, `fetchOffset` say what could not be fetched.
// Addresses are counted in the structure's own 64 bytes: 50 bits, exact in a double. With stage 2 on, everything that leads to a context
// descriptor is an IPA: a fault there is the two-stage walker's, with CLASS CD.

import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import { C_BAD_STREAMID, C_BAD_SUBSTREAMID, F_CD_FETCH, F_STE_FETCH, F_WALK_EABT } from "./event-records.ts";
import type { SecondStage } from "./translation-regime.ts";
import type { TwoStageWalker } from "./two-stage-walk.ts";
import {
  TABLE_CONTEXT,
  TABLE_CONTEXT_L1,
  TABLE_STREAM,
  TABLE_STREAM_L1,
  type WalkObserver,
  type WalkTable,
} from "./walk-observer.ts";

/** STRTAB_BASE and STRTAB_BASE_CFG, taken apart. */
export interface StreamTable {
  /** STRTAB_BASE.ADDR, in 64 bytes. */
  readonly base: number;
  readonly log2Size: number;
  /** 6, 8 or 10; 0: a linear table. */
  readonly split: number;
}

/** Takes the registers apart (§6.3.24, §6.3.25). `twoLevel`: IDR0.ST_LEVEL allows two levels. */
export function streamTable(baseLow: number, baseHigh: number, cfg: number, twoLevel: boolean): StreamTable {
  const split = (cfg >>> 6) & 0x1f;
  const levels = twoLevel && ((cfg >>> 16) & 3) === 1;
  return {
    base: unitsOf(baseLow, baseHigh),
    log2Size: cfg & 0x3f,
    split: levels ? (split === 8 || split === 10 ? split : 6) : 0,
  };
}

/** Bits 55:6 of a doubleword, as a number of 64 bytes. */
function unitsOf(lo: number, hi: number): number {
  return (hi & 0xffffff) * 0x4000000 + (lo >>> 6);
}

/** Down to a multiple of 2^bits. */
function aligned(value: number, bits: number): number {
  return bits <= 0 ? value : value - (value % 2 ** bits);
}

export class StructureWalker<P extends number> {
  // not state, to the blank line: results of the last walk
  readonly words = new Int32Array(16);
  fetchPfn = -0;
  fetchOffset = 0;
  observer: WalkObserver | null = null;
  #lo = 0;
  #hi = 0;

  readonly #memory: MemoryPort<P>;
  readonly #limit: number;

  /** `limit`: first frame beyond OAS. */
  constructor(memory: MemoryPort<P>, limit: number) {
    this.#memory = memory;
    this.#limit = limit;
  }

  /** The entry of stream `sid`: 0, C_BAD_STREAMID or F_STE_FETCH. `sidSize` is IDR1.SIDSIZE. */
  locateStream(sid: number, table: StreamTable, sidSize: number): number {
    const { base, log2Size, split } = table;
    if (sid >= 2 ** Math.min(log2Size, sidSize)) return C_BAD_STREAMID;
    if (split === 0) return this.#fetch(TABLE_STREAM, aligned(base, log2Size) + sid) ? 0 : F_STE_FETCH;
    const leaf = sid % 2 ** split;
    const first = aligned(base * 8, Math.max(3, log2Size - split)) + (sid - leaf) / 2 ** split;
    if (!this.#load(TABLE_STREAM_L1, first)) return F_STE_FETCH;
    const span = this.#lo & 0x1f;
    if (span === 0 || span > 11 || span > split + 1 || leaf >= 2 ** (span - 1)) return C_BAD_STREAMID;
    const leaves = aligned(unitsOf(this.#lo, this.#hi), span - 1);
    return this.#fetch(TABLE_STREAM, leaves + leaf) ? 0 : F_STE_FETCH;
  }

  /**
   * The descriptor of substream `ssid` of a stream whose entry is `ste` (16 words, legal): 0, C_BAD_SUBSTREAMID, F_CD_FETCH, or an event of stage 2 that
   * `walker` describes. `substreams`: the table has more than one descriptor (S1CDMax > 0 and SSIDSIZE > 0). `limit`: first frame that a pointer cannot
   * have (2^IAS with stage 2, else 2^OAS).
   */
  locateContext(
    ssid: number,
    ste: Int32Array,
    substreams: boolean,
    second: SecondStage,
    limit: number,
    walker: TwoStageWalker<P>,
  ): number {
    const pointer = unitsOf(ste[0]!, ste[1]!);
    const cdMax = substreams ? ste[1]! >>> 27 : 0;
    const format = substreams ? (ste[0]! >>> 4) & 3 : 0;
    const split = format === 1 ? 6 : format === 2 ? 10 : 0;
    if (split === 0) return this.#fetchContext(aligned(pointer, cdMax) + ssid, second, walker);
    const leaf = ssid % 2 ** split;
    const first = aligned(pointer * 8, Math.max(3, cdMax - split)) + (ssid - leaf) / 2 ** split;
    const place = this.#contextPlace(first * 8, second, walker);
    if (place < 0) return -place;
    if (!this.#load(TABLE_CONTEXT_L1, place / 8)) return F_CD_FETCH;
    if ((this.#lo & 1) === 0) return C_BAD_SUBSTREAMID;
    const table = (this.#hi & 0xffffff) * 0x100000 + (this.#lo >>> 12);
    if (table >= limit) return C_BAD_SUBSTREAMID;
    return this.#fetchContext(aligned(table * 64, split) + leaf, second, walker);
  }

  #fetchContext(unit: number, second: SecondStage, walker: TwoStageWalker<P>): number {
    const place = this.#contextPlace(unit * 64, second, walker);
    if (place < 0) return -place;
    return this.#fetch(TABLE_CONTEXT, place / 64) ? 0 : F_CD_FETCH;
  }

  /** A byte address on the way to a descriptor, through stage 2 if it is on; minus the number of an event if that faults. */
  #contextPlace(address: number, second: SecondStage, walker: TwoStageWalker<P>): number {
    if (!second.enabled) return address;
    const pfn = Math.floor(address / 4096);
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const number = walker.contextAddress(second, low, high);
    if (number !== 0) return -number;
    return walker.hostPfn * 4096 + (address % 4096);
  }

  /** Loads the doubleword at `index` (in 8 bytes). */
  #load(table: WalkTable, index: number): boolean {
    const pfn = Math.floor(index / 512);
    const offset = (index % 512) * 8;
    this.fetchPfn = pfn;
    this.fetchOffset = offset;
    if (pfn >= this.#limit || this.#memory.load64(pfn as P, offset) !== ACCESS_OK) return false;
    this.#lo = this.#memory.lo | 0;
    this.#hi = this.#memory.hi | 0;
    this.observer?.tableLoaded(table, 0, pfn, offset, this.#lo >>> 0, this.#hi >>> 0, -1);
    return true;
  }

  /** Fetches the 64 bytes at `unit` (in 64 bytes) into `words`. */
  #fetch(table: WalkTable, unit: number): boolean {
    const pfn = Math.floor(unit / 64);
    const offset = (unit % 64) * 64;
    this.fetchPfn = pfn;
    this.fetchOffset = offset;
    if (pfn >= this.#limit) return false;
    const memory = this.#memory;
    const words = this.words;
    for (let i = 0; i < 8; i++) {
      if (memory.load64(pfn as P, offset + 8 * i) !== ACCESS_OK) return false;
      words[2 * i] = memory.lo | 0;
      words[2 * i + 1] = memory.hi | 0;
    }
    this.observer?.tableLoaded(table, 0, pfn, offset, words[0]! >>> 0, words[1]! >>> 0, -1);
    return true;
  }
}

/** True if the event a context fetch ended with is the two-stage walker's, not a fetch or configuration error. */
export function isStageFault(number: number): boolean {
  return number >= F_WALK_EABT;
}

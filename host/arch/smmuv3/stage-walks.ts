// Each stage's walk step by step, with every rule (VMSAv8-64, DDI 0487 D8; IHI 0070 §3.13): stage 1 with its tables behind stage 2, and stage 2.
//
//     walkFirst ── each table's address ──▶ walkSecond (CLASS TT) ──▶ descriptor ──▶ guestLow/High
//
// Results are fields; faults are returned as event numbers (0: none) with `stage2`, `faultClass` and the addresses that go with them; nothing is
// allocated or thrown. Frame numbers are pairs of 32-bit integers (bits 31:0; bits 51:32), descriptors two halves.

import { swap32 } from "../../base/byte-order.ts";
import { FollowedPointer, TABLE_SHIFTS, type TableCache } from "../../base/caches/table-cache.ts";
import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import { TableReader } from "../../base/table-reader.ts";
import { WORLD_EL2 } from "./context-descriptor.ts";
import { CLASS_CD, CLASS_IN, CLASS_TT, F_ACCESS, F_PERMISSION, F_TRANSLATION, F_WALK_EABT } from "./event-records.ts";
import {
  ALL_RIGHTS,
  CLEAN,
  DESCRIPTOR_NG,
  DESCRIPTOR_WRITE,
  EXECUTE,
  firstRights,
  isDevice,
  PRIVILEGED,
  READ,
  secondRights,
  TABLE_RESTRICTIONS,
  UNPRIVILEGED,
  WRITE,
} from "./leaf-rights.ts";
import { TableDescent, withAccessFlag } from "./table-descent.ts";
import type { SecondStage, TableTree, TranslationRegime } from "./translation-regime.ts";
import { TABLE_STAGE_1, TABLE_STAGE_2, type WalkObserver, type WalkTable } from "./walk-observer.ts";

/** What a request does. ATS requests ask for whatever rights there are, and may mark pages dirty unless No-Write is set (§3.9.1). */
export const KIND_READ = 0;
export const KIND_WRITE = 1;
export const KIND_EXECUTE = 2;
export const KIND_ATS = 3;
export const KIND_ATS_WRITE = 4;
/** Uses of stage 2 by the SMMU itself: reading a stage-1 descriptor, updating one, reading a context descriptor. */
export const USE_TABLE_READ = 5;
export const USE_TABLE_UPDATE = 6;
export const USE_CONTEXT_READ = 7;

/** The rights that a kind needs, both privileges. */
export const NEEDS = Uint8Array.of(READ, WRITE, EXECUTE, 0, 0, READ, WRITE, READ);
/** A stage that is off: larger than any page. */
export const NO_STAGE_SHIFT = 52;
/** Internal: the descriptor changed under a compare-and-exchange. */
const RETRY = -1;
/** Memory that never stops changing under us is an external abort after so many tries. */
const RETRY_LIMIT = 64;

/** Tells of a pointer that was not loaded, but remembered. */
export function tellRemembered(
  observer: WalkObserver | null,
  table: WalkTable,
  tree: TableTree,
  tables: TableCache,
  entry: number,
  serves: number,
  inputLow: number,
  inputHigh: number,
): void {
  if (observer === null) return;
  const shift = TABLE_SHIFTS[tables.classAt(entry)]!;
  const lo = tables.pointerLoAt(entry) >>> 0;
  const hi = tables.pointerHiAt(entry) >>> 0;
  const pfn = tables.pointerPfnAt(entry);
  const offset = tables.pointerOffsetAt(entry);
  const input = (inputHigh & 0xfffff) * 0x100000000 + (inputLow >>> 0);
  observer.tableLoaded(table, tree.levelOf(shift), pfn, offset, lo, hi, serves, shift + 12, input, true);
}

// Not state: what one walk found
export class StageWalks<P extends number> {
  guestLow = 0;
  guestHigh = 0;
  hostLow = 0;
  hostHigh = 0;
  /** Six bits of what both stages grant; CLEAN if writing needs another look. */
  rights = 0;
  /** log2 of the leaves' sizes in pages, NO_STAGE_SHIFT for a stage that is off; granule and shift name the level. */
  firstShift = NO_STAGE_SHIFT;
  secondShift = NO_STAGE_SHIFT;
  firstGranule = 0;
  secondGranule = 0;
  /** The stage-1 leaf is global (nG = 0). */
  global = false;
  stage2 = false;
  faultClass = CLASS_IN;
  /** TTRnW of an F_PERMISSION of class TT. */
  tableRead = true;
  /** IPA of a stage-2 fault (a frame), or the descriptor that could not be fetched. */
  faultPfn = -0;
  faultOffset = 0;
  /** The right that an ATS request's reads need: READ, or EXECUTE where they count as fetches. */
  wanted = READ;
  observer: WalkObserver | null = null;
  /** Pointers to tables that earlier walks went through; null: none are kept. */
  tables: TableCache | null = null;
  protected readonly firstPointer = new FollowedPointer();
  protected readonly secondPointer = new FollowedPointer();
  protected secondRights = ALL_RIGHTS;
  protected serves = -1;

  readonly memory: MemoryPort<P>;
  protected readonly first: TableReader<P>;
  protected readonly second: TableReader<P>;
  readonly #firstDescent: TableDescent<P>;
  readonly #secondDescent: TableDescent<P>;

  /** `limit`: first frame beyond OAS. */
  constructor(memory: MemoryPort<P>, limit: number) {
    this.memory = memory;
    this.first = new TableReader(memory);
    this.second = new TableReader(memory);
    this.first.setLimit(limit);
    this.second.setLimit(limit);
    this.#firstDescent = new TableDescent(this.first);
    this.#secondDescent = new TableDescent(this.second);
  }

  get guestPfn(): number {
    return this.guestHigh * 0x100000000 + (this.guestLow >>> 0);
  }

  get hostPfn(): number {
    return this.hostHigh * 0x100000000 + (this.hostLow >>> 0);
  }

  /** Stage 1 alone, with every rule; `rights` are its own. */
  walkFirst(regime: TranslationRegime, low: number, high: number, kind: number, privileged: boolean): number {
    if (!regime.first) {
      this.guestLow = low;
      this.guestHigh = high;
      this.firstShift = NO_STAGE_SHIFT;
      this.rights = ALL_RIGHTS;
      this.global = false;
      return 0;
    }
    const upper = (high & 0x800) !== 0 && regime.world !== WORLD_EL2;
    const half = upper ? regime.upper : regime.lower;
    const signLow = low & half.signLow;
    const signHigh = high & half.signHigh;
    if (
      !half.enabled ||
      (half.privilegedOnly && !privileged) ||
      (upper ? signLow !== half.signLow || signHigh !== half.signHigh : (signLow | signHigh) !== 0)
    )
      return this.#firstFault(F_TRANSLATION);
    const second = regime.second;
    const descent = this.#firstDescent;
    descent.start(half, low, high);
    this.firstPointer.shift = 0;
    const { tables } = this;
    const remembered = tables !== null && regime.plainKinds !== 0 ? tables.find(regime.tag, low, high) : -1;
    // Where the table's frames are in memory is known already.
    let known = tables !== null && remembered >= 0 && descent.resume(tables, remembered);
    if (tables !== null && known) tellRemembered(this.observer, TABLE_STAGE_1, half, tables, remembered, -1, low, high);
    let restrictions = 0;
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      if (tables !== null && known) {
        // Only tables of one frame are remembered behind stage 2; without one, all that lies in a table lies as it should.
        this.hostLow = tables.frameLowAt(remembered) | (descent.frameLow & ~half.tableMask);
        this.hostHigh = tables.frameHighAt(remembered);
      } else {
        this.serves = half.levelOf(descent.shift);
        const translated = this.#tableAddress(second, descent.frameLow, descent.frameHigh, USE_TABLE_READ);
        if (translated !== 0) return translated;
      }
      const { hostLow, hostHigh } = this;
      const { offset } = descent;
      if (!descent.load(hostLow, hostHigh, regime.bigEndian)) {
        this.#fetchFault(hostLow, hostHigh, offset, false);
        this.faultClass = CLASS_TT;
        return F_WALK_EABT;
      }
      const { lo, hi } = descent;
      this.tell(TABLE_STAGE_1, half, descent.shift, hostLow, hostHigh, offset, lo, hi, -1, low, high);
      const malformed = descent.decode();
      if (malformed !== 0) return this.#firstFault(malformed);
      let newLo = withAccessFlag(lo, descent.pointer, regime);
      if (newLo === 0) return this.#firstFault(F_ACCESS);
      let rights = 0;
      if (!descent.pointer) {
        rights = firstRights(lo, hi, half.hierarchical ? restrictions : 0, regime);
        if (half.privilegedOnly) rights &= ~UNPRIVILEGED;
        const own = privileged ? PRIVILEGED : UNPRIVILEGED;
        const needs = NEEDS[kind]! & own;
        if (needs !== 0 && (rights & needs) === 0) return this.#firstFault(F_PERMISSION);
        const writes = kind === KIND_WRITE || kind === KIND_ATS_WRITE;
        if ((rights & CLEAN) !== 0 && writes && (rights & WRITE & own) !== 0) {
          newLo &= ~DESCRIPTOR_WRITE;
          rights &= ~CLEAN;
        }
      }
      if (newLo !== lo) {
        const updated = this.#update(second, descent, newLo, regime.bigEndian);
        if (updated === RETRY) {
          tries++;
          continue;
        }
        if (updated !== 0) return updated;
      }
      if (descent.pointer) {
        restrictions |= hi & TABLE_RESTRICTIONS;
        this.firstPointer.follow(descent.shift, hostLow, hostHigh, offset >>> 3, lo, hi);
        known = false;
        descent.follow();
        continue;
      }
      this.firstPointer.tableLow = hostLow & half.tableMask;
      this.firstPointer.tableHigh = hostHigh;
      // Pointers under which less is granted are not remembered.
      if (restrictions !== 0) this.firstPointer.shift = 0;
      this.guestLow = descent.leafLow;
      this.guestHigh = descent.outHigh;
      this.firstShift = descent.shift;
      this.firstGranule = half.granule;
      this.rights = rights;
      this.global = (lo & DESCRIPTOR_NG) === 0;
      return 0;
    }
    this.#fetchFault(this.hostLow, this.hostHigh, 0, false);
    this.faultClass = CLASS_TT;
    return F_WALK_EABT;
  }

  /** Remembers the table that stage 1 came to. The pages of one larger than a page may lie apart behind stage 2. */
  protected rememberFirst(regime: TranslationRegime, low: number, high: number): void {
    const { tables, firstPointer } = this;
    if (tables === null || firstPointer.shift === 0 || regime.plainKinds === 0) return;
    if (!regime.second.enabled || this.firstGranule === 12) tables.insert(regime.tag, low, high, firstPointer);
  }

  /**
   * Remembers the table that stage 2 came to for the address itself. Those on the way to tables are left to themselves, so that a first walk shows
   * all there is.
   */
  protected rememberSecond(second: SecondStage): void {
    const { tables, secondPointer } = this;
    if (tables === null || secondPointer.shift === 0 || !second.plain) return;
    tables.insert(second.tag, this.guestLow, this.guestHigh, secondPointer);
  }

  /** Stage 2 for a context descriptor or its level-1 descriptor: 0 with the frame in host*, or an event of CLASS_CD. */
  contextAddress(second: SecondStage, low: number, high: number): number {
    this.serves = -1;
    const number = this.walkSecond(second, low, high, USE_CONTEXT_READ, true);
    if (number !== 0) this.faultClass = CLASS_CD;
    return number;
  }

  /** Stage 2 for the SMMU's own access to a stage-1 table: 0 with the frame in host*, or an event of CLASS_TT. */
  #tableAddress(second: SecondStage, low: number, high: number, use: number): number {
    const number = this.walkSecond(second, low, high, use, true);
    if (number !== 0) {
      this.faultClass = CLASS_TT;
      this.tableRead = use === USE_TABLE_READ;
    }
    return number;
  }

  /** Stage 2 alone: 0 with host*, or an event number; the caller says of which class. */
  walkSecond(second: SecondStage, low: number, high: number, use: number, privileged: boolean): number {
    if (!second.enabled) {
      this.hostLow = low;
      this.hostHigh = high;
      this.secondShift = NO_STAGE_SHIFT;
      this.secondRights = ALL_RIGHTS;
      return 0;
    }
    if (((low & second.inputLow) | (high & second.inputHigh)) !== 0) return this.#secondFault(F_TRANSLATION, low, high);
    const descent = this.#secondDescent;
    descent.start(second, low, high);
    this.secondPointer.shift = 0;
    const { tables } = this;
    const remembered = tables !== null && second.plain ? tables.find(second.tag, low, high) : -1;
    if (tables !== null && remembered >= 0 && descent.resume(tables, remembered))
      tellRemembered(this.observer, TABLE_STAGE_2, second, tables, remembered, this.serves, low, high);
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const { frameLow, frameHigh, offset } = descent;
      if (!descent.load(frameLow, frameHigh, second.bigEndian)) break;
      const { lo, hi } = descent;
      this.tell(TABLE_STAGE_2, second, descent.shift, frameLow, frameHigh, offset, lo, hi, this.serves, low, high);
      const malformed = descent.decode();
      if (malformed !== 0) return this.#secondFault(malformed, low, high);
      let newLo = withAccessFlag(lo, descent.pointer, second);
      if (newLo === 0) return this.#secondFault(F_ACCESS, low, high);
      let rights = 0;
      if (!descent.pointer) {
        rights = secondRights(lo, hi, second);
        const own = privileged ? PRIVILEGED : UNPRIVILEGED;
        const needs = NEEDS[use]! & own;
        if (needs !== 0 && (rights & needs) === 0) return this.#secondFault(F_PERMISSION, low, high);
        if (use >= USE_TABLE_READ && second.protectedWalk && isDevice(lo, second))
          return this.#secondFault(F_PERMISSION, low, high);
        const writes = use === KIND_WRITE || use === KIND_ATS_WRITE || use === USE_TABLE_UPDATE;
        if ((rights & CLEAN) !== 0 && writes) {
          newLo |= DESCRIPTOR_WRITE;
          rights &= ~CLEAN;
        }
      }
      if (newLo !== lo) {
        const updated = this.#exchange(frameLow, frameHigh, descent, newLo, second.bigEndian);
        if (updated === RETRY) {
          tries++;
          continue;
        }
        if (updated !== 0) break;
      }
      if (descent.pointer) {
        this.secondPointer.follow(descent.shift, frameLow, frameHigh, offset >>> 3, lo, hi);
        descent.follow();
        continue;
      }
      this.secondPointer.tableLow = frameLow & second.tableMask;
      this.secondPointer.tableHigh = frameHigh;
      this.hostLow = descent.leafLow;
      this.hostHigh = descent.outHigh;
      this.secondShift = descent.shift;
      this.secondGranule = second.granule;
      this.secondRights = rights;
      return 0;
    }
    this.#fetchFault(descent.frameLow, descent.frameHigh, descent.offset, true);
    return F_WALK_EABT;
  }

  #firstFault(number: number): number {
    this.stage2 = false;
    this.faultClass = CLASS_IN;
    this.faultPfn = 0;
    this.faultOffset = 0;
    return number;
  }

  #secondFault(number: number, low: number, high: number): number {
    this.stage2 = true;
    this.tableRead = true;
    this.faultPfn = (high & 0xfffff) * 0x100000000 + (low >>> 0);
    this.faultOffset = 0;
    return number;
  }

  #fetchFault(low: number, high: number, offset: number, stage2: boolean): void {
    this.stage2 = stage2;
    this.faultPfn = high * 0x100000000 + (low >>> 0);
    this.faultOffset = offset;
  }

  /** Updates the stage-1 descriptor that `descent` is at (§3.13): needs write permission of stage 2. 0 done, RETRY, or an event. */
  #update(second: SecondStage, descent: TableDescent<P>, newLo: number, bigEndian: boolean): number {
    const translated = this.#tableAddress(second, descent.frameLow, descent.frameHigh, USE_TABLE_UPDATE);
    if (translated !== 0) return translated;
    const result = this.#exchange(this.hostLow, this.hostHigh, descent, newLo, bigEndian);
    if (result > 0) {
      this.#fetchFault(this.hostLow, this.hostHigh, descent.offset, false);
      this.faultClass = CLASS_TT;
    }
    return result;
  }

  /** Compare-and-exchange of the descriptor that `descent` is at, in a frame of memory: 0 done, RETRY it had changed, F_WALK_EABT. */
  #exchange(low: number, high: number, descent: TableDescent<P>, newLo: number, bigEndian: boolean): number {
    const memory = this.memory;
    const pfn = (high * 0x100000000 + (low >>> 0)) as P;
    const { lo, hi } = descent;
    const oldLo = bigEndian ? swap32(hi) : lo >>> 0;
    const oldHi = bigEndian ? swap32(lo) : hi >>> 0;
    const toLo = bigEndian ? oldLo : newLo >>> 0;
    const toHi = bigEndian ? swap32(newLo) : oldHi;
    if (memory.compareExchange64(pfn, descent.offset, oldLo, oldHi, toLo, toHi) !== ACCESS_OK) return F_WALK_EABT;
    return memory.lo === oldLo && memory.hi === oldHi ? 0 : RETRY;
  }

  protected tell(
    table: WalkTable,
    tree: TableTree,
    shift: number,
    low: number,
    high: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
    inputLow: number,
    inputHigh: number,
  ): void {
    if (this.observer === null) return;
    const pfn = high * 0x100000000 + (low >>> 0);
    const inputPfn = (inputHigh & 0xfffff) * 0x100000000 + (inputLow >>> 0);
    const level = tree.levelOf(shift);
    this.observer.tableLoaded(table, level, pfn, offset, lo >>> 0, hi >>> 0, serves, shift + 12, inputPfn);
  }
}

// Each stage's walk step by step, with every rule of §3.6–3.8 (first stage, second stage, nested).
//
//     walkFirst ── each table's address ──▶ walkSecond (a read) ──▶ entry ──▶ guestLow/High ──▶ walkSecond (the access itself)
//
// Results are fields of the walker, faults are returned as reasons (0: none), nothing is allocated or thrown. Frame numbers are pairs (bits 31:0 and
// above), entries two halves. Accessed bits are set on the way down, entry by entry, the leaf's only once the access is granted; dirty bits in the
// leaf of a write. An entry that changed under an update restarts the walk.

import { FollowedPointer, TABLE_SHIFTS, type TableCache } from "../../base/caches/table-cache.ts";
import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import { TableReader } from "../../base/table-reader.ts";
import {
  FAULT_ADDRESS_BEYOND_WIDTH,
  FAULT_CONTEXT_INVALID,
  FAULT_ENTRY_RESERVED,
  FAULT_FS_ACCESS,
  FAULT_FS_NO_USER,
  FAULT_FS_NOT_CANONICAL,
  FAULT_FS_NOT_PRESENT,
  FAULT_FS_RESERVED,
  FAULT_FS_ROOT_ACCESS,
  FAULT_FS_ROOT_NO_READ,
  FAULT_FS_TABLE_BEYOND_WIDTH,
  FAULT_FS_TABLE_NO_READ,
  FAULT_FS_TABLE_NO_WRITE,
  FAULT_FS_UPDATE_FAILED,
  FAULT_FS_UPDATE_NOT_SNOOPED,
  FAULT_NO_READ,
  FAULT_NO_WRITE,
  FAULT_SM_NO_READ,
  FAULT_SM_NO_WRITE,
  FAULT_SS_ACCESS,
  FAULT_SS_BEYOND_WIDTH,
  FAULT_SS_NOT_PRESENT,
  FAULT_SS_RESERVED,
  FAULT_SS_ROOT_ACCESS,
  FAULT_SS_UPDATE_FAILED,
  FAULT_SS_UPDATE_NOT_SNOOPED,
  FAULT_TABLE_ACCESS,
} from "./fault-reasons.ts";
import {
  FS_A,
  FS_D,
  FS_EA,
  FS_P,
  FS_PS,
  FS_RW,
  FS_US,
  SS_A,
  SS_D,
  SS_PS,
  SS_R,
  SS_SNP,
  SS_TM_HIGH,
  SS_W,
} from "./page-table-entry.ts";
import type { StructureRules } from "./structure-rules.ts";
import type { TranslationSpace } from "./translation-space.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkObserver, type WalkTable } from "./walk-observer.ts";

/** What a request does. */
export const KIND_READ = 0;
export const KIND_WRITE = 1;
/** AtomicOps read and write. */
export const KIND_ATOMIC = 2;
/** Translation requests are given what rights there are: with No Write, and without it, when dirty bits may be set. */
export const KIND_ATS = 3;
export const KIND_ATS_WRITE = 4;

/** Shift of a stage that is off: larger than any page. */
export const NO_STAGE_SHIFT = 52;
/** Memory that never stops changing under us is a failed update after so many tries. */
const RETRY_LIMIT = 64;
/** Internal: an entry changed under its update. */
const RETRY = -1;

/** Level of the entries of a table that covers as much as its class says (table-cache.ts). */
export const LEVEL_OF_CLASS = Int32Array.from(TABLE_SHIFTS, (shift) => shift / 9 - 1);

/** Index of a frame number in a table of `level`. */
function indexAt(level: number, low: number, high: number): number {
  return (level < 3 ? low >>> (9 * level) : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4) & 511;
}

// Not state: what one walk found, and settings that whoever owns the walker makes again
export class StageWalks<P extends number> {
  /** First stage's result and second stage's input. */
  guestLow = 0;
  guestHigh = 0;
  /** What both stages come to. */
  hostLow = 0;
  hostHigh = 0;
  /** First stage: R/W and U/S of all entries, and its leaf with its size (log2, in pages). */
  firstRights = FS_RW | FS_US;
  firstLo = FS_D;
  firstShift = NO_STAGE_SHIFT;
  /** Of the last second-stage walk: R and W of all entries, leaf and size. */
  secondRights = SS_R | SS_W;
  secondLo = SS_D;
  secondShift = NO_STAGE_SHIFT;
  observer: WalkObserver | null = null;
  /** Pointers to tables that earlier walks went through; null: none are kept. */
  tables: TableCache | null = null;
  protected readonly firstPointer = new FollowedPointer();
  protected readonly secondPointer = new FollowedPointer();
  protected serves = -1;
  readonly memory: MemoryPort<P>;
  /** Where each stage's tables are read: often different banks. */
  protected readonly first: TableReader<P>;
  protected readonly second: TableReader<P>;
  protected readonly rules: StructureRules;

  constructor(memory: MemoryPort<P>, rules: StructureRules) {
    this.memory = memory;
    this.rules = rules;
    this.first = new TableReader(memory);
    this.second = new TableReader(memory);
    this.first.setLimit(rules.frameLimit);
    this.second.setLimit(rules.frameLimit);
  }

  get guestPfn(): number {
    return this.guestHigh * 0x100000000 + (this.guestLow >>> 0);
  }

  get hostPfn(): number {
    return this.hostHigh * 0x100000000 + (this.hostLow >>> 0);
  }

  /** First stage (§3.6; nested §3.8) to guestLow/High, for a space that has one. Checks what the access needs, unless it is a translation request. */
  walkFirst(space: TranslationSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const sign = high & space.signHigh;
    if (sign !== 0 && sign !== space.signHigh) return FAULT_FS_NOT_CANONICAL;
    for (let tries = 0; tries <= RETRY_LIMIT; tries++) {
      const reason = this.#descendFirst(space, low, high, kind, supervisor);
      if (reason !== RETRY) return reason;
    }
    return FAULT_FS_UPDATE_FAILED;
  }

  #descendFirst(space: TranslationSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const nested = space.secondLevels !== 0;
    const { tables } = this;
    let level = space.firstLevels - 1;
    let tableLow = space.firstRootLow;
    let tableHigh = space.firstRootHigh;
    let rights = FS_RW | FS_US;
    let known = false;
    this.firstPointer.shift = 0;
    if (tables !== null) {
      const entry = tables.find(space.tag, low, high);
      if (entry >= 0) {
        known = true;
        level = LEVEL_OF_CLASS[tables.classAt(entry)]!;
        const lo = tables.pointerLoAt(entry);
        const hi = tables.pointerHiAt(entry);
        tableLow = (lo >>> 12) | (hi << 20);
        tableHigh = (hi >>> 12) & 0xff;
        this.hostLow = tables.frameLowAt(entry);
        this.hostHigh = tables.frameHighAt(entry);
        this.tellRemembered(TABLE_FIRST_STAGE, tables, entry, -1);
      }
    }
    const root = known ? -1 : level;
    for (;;) {
      const offset = indexAt(level, low, high) << 3;
      if (known) known = false;
      else if (nested) {
        this.serves = level;
        const reason = this.#tableRead(space, tableLow, tableHigh, level === root);
        if (reason !== 0) return reason;
      } else {
        this.hostLow = tableLow;
        this.hostHigh = tableHigh;
      }
      const { hostLow, hostHigh } = this;
      if (this.first.load(hostLow, hostHigh, offset) !== ACCESS_OK)
        return level === root ? FAULT_FS_ROOT_ACCESS : FAULT_FS_ACCESS;
      const { lo, hi } = this.first;
      this.tell(TABLE_FIRST_STAGE, level, hostLow, hostHigh, offset, lo, hi, -1);
      if ((lo & FS_P) === 0) return FAULT_FS_NOT_PRESENT;
      const leaf = level === 0 || (lo & FS_PS) !== 0;
      if (this.#firstReserved(lo, hi, level, leaf)) return FAULT_FS_RESERVED;
      const outLow = (lo >>> 12) | (hi << 20);
      const outHigh = (hi >>> 12) & 0xff;
      const accessed = space.eafe ? FS_A | FS_EA : FS_A;
      if (!leaf) {
        if ((lo & accessed) !== accessed) {
          const reason = this.#updateFirst(space, tableLow, tableHigh, offset, lo, hi, lo | accessed);
          if (reason !== 0) return reason;
        }
        this.firstPointer.follow(9 * level, hostLow, hostHigh, offset >>> 3, lo | accessed, hi);
        rights &= lo;
        tableLow = outLow;
        tableHigh = outHigh;
        level--;
        continue;
      }
      this.firstPointer.tableLow = hostLow;
      this.firstPointer.tableHigh = hostHigh;
      // What the tables above restrict does not show in the last one alone: such are not remembered.
      if (rights !== (FS_RW | FS_US)) this.firstPointer.shift = 0;
      rights &= lo;
      const wanted = this.#firstWanted(space, rights, kind, supervisor);
      if (wanted < 0) return -wanted;
      const missing = (wanted === 0 ? 0 : wanted | accessed) & ~lo;
      if (missing !== 0) {
        const reason = this.#updateFirst(space, tableLow, tableHigh, offset, lo, hi, lo | missing);
        if (reason !== 0) return reason;
      }
      this.firstRights = rights;
      this.firstLo = lo | missing;
      const shift = 9 * level;
      this.firstShift = shift;
      const within = (1 << shift) - 1;
      this.guestLow = (outLow & ~within) | (low & within);
      this.guestHigh = outHigh;
      return 0;
    }
  }

  /** Bits of the leaf that have to be set (FS_A for any access, FS_D for a write); minus a reason if the access is not granted; 0: nothing is touched. */
  #firstWanted(space: TranslationSpace, rights: number, kind: number, supervisor: boolean): number {
    const user = supervisor || (rights & FS_US) !== 0;
    const write = (rights & FS_RW) !== 0 || (supervisor && !space.wpe);
    if (kind >= KIND_ATS) {
      if (!user) return 0;
      return kind === KIND_ATS_WRITE && write ? FS_A | FS_D : FS_A;
    }
    if (!user) return -FAULT_FS_NO_USER;
    if (kind === KIND_READ) return FS_A;
    return write ? FS_A | FS_D : -FAULT_SM_NO_WRITE;
  }

  #firstReserved(lo: number, hi: number, level: number, leaf: boolean): boolean {
    if ((hi & this.rules.entryReserved) !== 0) return true;
    if (level === 0 || !leaf) return false;
    if (level > 2) return true;
    // Bit 12 is PAT.
    return level === 1 ? (lo & 0x1fe000) !== 0 : (lo & 0x3fffe000) !== 0 || !this.rules.features.FS1GP;
  }

  /** The second stage for a first-stage table: a read, whose faults have names of their own (§3.8). */
  #tableRead(space: TranslationSpace, low: number, high: number, root: boolean): number {
    const reason = this.walkSecond(space, low, high, KIND_READ);
    if (reason === FAULT_SS_BEYOND_WIDTH) return FAULT_FS_TABLE_BEYOND_WIDTH;
    if (reason === FAULT_SM_NO_READ) return root ? FAULT_FS_ROOT_NO_READ : FAULT_FS_TABLE_NO_READ;
    return reason;
  }

  /** Sets bits in a first-stage entry. Nested: the table's page must be writable, and becomes dirty. */
  #updateFirst(
    space: TranslationSpace,
    tableLow: number,
    tableHigh: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
  ): number {
    let frameLow = this.hostLow;
    let frameHigh = this.hostHigh;
    if (space.secondLevels !== 0) {
      const reason = this.walkSecond(space, tableLow, tableHigh, KIND_WRITE);
      if (reason === FAULT_SM_NO_WRITE) return FAULT_FS_TABLE_NO_WRITE;
      if (reason === FAULT_SS_BEYOND_WIDTH) return FAULT_FS_TABLE_BEYOND_WIDTH;
      if (reason !== 0) return reason;
      frameLow = this.hostLow;
      frameHigh = this.hostHigh;
    }
    if (!space.snooped) return FAULT_FS_UPDATE_NOT_SNOOPED;
    return this.#exchange(frameLow, frameHigh, offset, lo, hi, newLo, FAULT_FS_UPDATE_FAILED);
  }

  /** Second stage (§3.7) to hostLow/High, for a space that has one. */
  walkSecond(space: TranslationSpace, low: number, high: number, kind: number): number {
    if (((low & space.beyondLow) | (high & space.beyondHigh)) !== 0)
      return space.scalable ? FAULT_SS_BEYOND_WIDTH : FAULT_ADDRESS_BEYOND_WIDTH;
    for (let tries = 0; tries <= RETRY_LIMIT; tries++) {
      const reason = this.#descendSecond(space, low, high, kind);
      if (reason !== RETRY) return reason;
    }
    return FAULT_SS_UPDATE_FAILED;
  }

  #descendSecond(space: TranslationSpace, low: number, high: number, kind: number): number {
    const { scalable } = space;
    const { tables } = this;
    let level = space.secondLevels - 1;
    let tableLow = space.secondRootLow;
    let tableHigh = space.secondRootHigh;
    let root = level;
    let rights = SS_R | SS_W;
    this.secondPointer.shift = 0;
    if (tables !== null) {
      const entry = tables.find(space.secondTag, low, high);
      if (entry >= 0) {
        root = -1;
        level = LEVEL_OF_CLASS[tables.classAt(entry)]!;
        tableLow = tables.frameLowAt(entry);
        tableHigh = tables.frameHighAt(entry);
        this.tellRemembered(TABLE_SECOND_STAGE, tables, entry, this.serves);
      }
    }
    for (;;) {
      const offset = indexAt(level, low, high) << 3;
      if (this.second.load(tableLow, tableHigh, offset) !== ACCESS_OK) {
        if (scalable) return level === root ? FAULT_SS_ROOT_ACCESS : FAULT_SS_ACCESS;
        return level === root ? FAULT_CONTEXT_INVALID : FAULT_TABLE_ACCESS;
      }
      const { lo, hi } = this.second;
      this.tell(TABLE_SECOND_STAGE, level, tableLow, tableHigh, offset, lo, hi, this.serves);
      if ((lo & (SS_R | SS_W)) === 0) {
        if (scalable) return FAULT_SS_NOT_PRESENT;
        return kind === KIND_WRITE || kind === KIND_ATOMIC ? FAULT_NO_WRITE : FAULT_NO_READ;
      }
      const leaf = level === 0 || (lo & SS_PS) !== 0;
      if (this.#secondReserved(lo, hi, level, leaf)) return scalable ? FAULT_SS_RESERVED : FAULT_ENTRY_RESERVED;
      const outLow = (lo >>> 12) | (hi << 20);
      const outHigh = (hi >>> 12) & 0xff;
      if (!leaf) {
        if (space.secondAD && (lo & SS_A) === 0) {
          const reason = this.#updateSecond(space, tableLow, tableHigh, offset, lo, hi, lo | SS_A);
          if (reason !== 0) return reason;
        }
        this.secondPointer.follow(9 * level, tableLow, tableHigh, offset >>> 3, lo, hi);
        rights &= lo;
        tableLow = outLow;
        tableHigh = outHigh;
        level--;
        continue;
      }
      this.secondPointer.tableLow = tableLow;
      this.secondPointer.tableHigh = tableHigh;
      if (rights !== (SS_R | SS_W)) this.secondPointer.shift = 0;
      rights &= lo;
      const refused = secondRefusal(rights, kind);
      if (refused !== 0) return scalable ? refused : refused === FAULT_SM_NO_WRITE ? FAULT_NO_WRITE : FAULT_NO_READ;
      let newLo = lo;
      if (space.secondAD) {
        newLo |= secondWanted(rights, lo, kind);
        if (newLo !== lo) {
          const reason = this.#updateSecond(space, tableLow, tableHigh, offset, lo, hi, newLo);
          if (reason !== 0) return reason;
        }
      }
      this.secondRights = rights;
      this.secondLo = newLo;
      const shift = 9 * level;
      this.secondShift = shift;
      const within = (1 << shift) - 1;
      this.hostLow = (outLow & ~within) | (low & within);
      this.hostHigh = outHigh;
      return 0;
    }
  }

  #secondReserved(lo: number, hi: number, level: number, leaf: boolean): boolean {
    const { features, entryReserved } = this.rules;
    if ((hi & (entryReserved | SS_TM_HIGH)) !== 0) return true;
    if ((lo & SS_SNP) !== 0 && (!leaf || !features.SC)) return true;
    if (level === 0 || !leaf) return false;
    if (level > 2 || (features.SSLPS & level) === 0) return true;
    return (lo & (level === 1 ? 0x1ff000 : 0x3ffff000)) !== 0;
  }

  #updateSecond(
    space: TranslationSpace,
    tableLow: number,
    tableHigh: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
  ): number {
    if (!space.snooped) return FAULT_SS_UPDATE_NOT_SNOOPED;
    return this.#exchange(tableLow, tableHigh, offset, lo, hi, newLo, FAULT_SS_UPDATE_FAILED);
  }

  /** Compare-and-exchange of an entry. 0 done, RETRY it had changed, or `failed`. */
  #exchange(
    frameLow: number,
    frameHigh: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
    failed: number,
  ): number {
    const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
    const { memory } = this;
    const status = memory.compareExchange64(pfn as P, offset, lo >>> 0, hi >>> 0, newLo >>> 0, hi >>> 0);
    if (status !== ACCESS_OK) return failed;
    return memory.lo === lo >>> 0 && memory.hi === hi >>> 0 ? 0 : RETRY;
  }

  /** Tells the observer, if there is one, of an entry loaded. */
  protected tell(
    table: WalkTable,
    level: number,
    frameLow: number,
    frameHigh: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
  ): void {
    if (this.observer === null) return;
    const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
    this.observer.tableLoaded(table, level, pfn, offset, lo >>> 0, hi >>> 0, serves);
  }

  /** Tells of a pointer that was not loaded, but remembered. */
  protected tellRemembered(table: WalkTable, tables: TableCache, entry: number, serves: number): void {
    if (this.observer !== null) tellRemembered(this.observer, table, tables, entry, serves);
  }
}

export function tellRemembered(
  observer: WalkObserver,
  table: WalkTable,
  tables: TableCache,
  entry: number,
  serves: number,
): void {
  const level = LEVEL_OF_CLASS[tables.classAt(entry)]! + 1;
  const lo = tables.pointerLoAt(entry) >>> 0;
  const hi = tables.pointerHiAt(entry) >>> 0;
  const pfn = tables.pointerPfnAt(entry);
  observer.tableLoaded(table, level, pfn, tables.pointerOffsetAt(entry), lo, hi, serves, undefined, undefined, true);
}

/** 0, or the scalable-mode reason why the second stage refuses a request of this kind; translation requests are refused nothing. */
function secondRefusal(rights: number, kind: number): number {
  if (kind >= KIND_ATS) return 0;
  if (kind !== KIND_READ && (rights & SS_W) === 0) return FAULT_SM_NO_WRITE;
  if (kind !== KIND_WRITE && (rights & SS_R) === 0) return FAULT_SM_NO_READ;
  return 0;
}

/** Accessed and dirty bits that a granted request sets in its leaf; a translation request with No Write may be granted writing where D is set already. */
function secondWanted(rights: number, leaf: number, kind: number): number {
  if (kind === KIND_WRITE || kind === KIND_ATOMIC) return SS_A | SS_D;
  if (kind === KIND_ATS_WRITE && (rights & SS_W) !== 0) return SS_A | SS_D;
  const grantsWriting = (rights & SS_W) !== 0 && (leaf & SS_D) !== 0;
  return (rights & SS_R) !== 0 || grantsWriting ? SS_A : 0;
}

// Each stage's walk step by step, with every rule of the privileged architecture and what the IOMMU adds to it (§3.3 steps 10 and 12, §3.4).
//
//     walkFirst ── each table's address ──▶ walkSecond (implicit access) ──▶ entry ──▶ gpaLow/High
//
// Results are fields of the walker, faults are returned as cause numbers (0: no fault), nothing is allocated or thrown. Inside,
// frame numbers are pairs of 32-bit integers (bits 31:0; bits 51:32) and entries two halves, so that a walk is integer work
// only; `firstStage` and `secondStage` take frame numbers as everybody else has them.
// Callers read afterwards: gpaPfn, spaPfn; the leaf entries with their sizes; for guest-page faults iotval2.

import { swap32 } from "../../base/byte-order.ts";
import { FollowedPointer, TABLE_SHIFTS, type TableCache } from "../../base/caches/table-cache.ts";
import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import { TableReader } from "../../base/table-reader.ts";
import type { AddressSpace } from "./address-space.ts";
import type { StructureRules } from "./capabilities.ts";
import { exchangeEntry } from "./entry-update.ts";
import {
  ACCESS_FAULT_CAUSE,
  ALL_RIGHTS,
  BARE_SHIFT,
  GUEST_PAGE_FAULT_CAUSE,
  KIND_EXECUTE,
  KIND_IMPLICIT_READ,
  KIND_IMPLICIT_WRITE,
  leafShift,
  loadFault,
  missingAD,
  PAGE_FAULT_CAUSE,
  POINTER_BITS,
  permits,
  RETRY,
  RETRY_LIMIT,
  withinLeaf,
} from "./leaf-rules.ts";
import { firstStageNarrow, secondStageNarrow } from "./narrow-walk.ts";
import { PTE_G, PTE_U, PTE_V } from "./page-table-entry.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkObserver, type WalkTable } from "./walk-observer.ts";

/** Level of the entries of a table that covers as much as its class says (table-cache.ts). */
export const LEVEL_OF_CLASS = Int32Array.from(TABLE_SHIFTS, (shift) => shift / 9 - 1);

/** Tells of a pointer that was not loaded, but remembered. */
export function tellRemembered(
  observer: WalkObserver | null,
  table: WalkTable,
  tables: TableCache,
  entry: number,
  serves: number,
): void {
  if (observer === null) return;
  const level = LEVEL_OF_CLASS[tables.classAt(entry)]! + 1;
  const lo = tables.pointerLoAt(entry) >>> 0;
  const hi = tables.pointerHiAt(entry) >>> 0;
  const pfn = tables.pointerPfnAt(entry);
  observer.tableLoaded(table, level, pfn, tables.pointerOffsetAt(entry), lo, hi, serves, undefined, undefined, true);
}

/** `iotval2Low` of a guest-page fault of the request's own access: its offset goes there. */
export const OWN_ACCESS = -1;

// Not state: what one walk found, and settings that whoever owns the walker makes again.
export class StageWalks<P extends number> {
  /** First-stage result and second-stage input. */
  gpaLow = 0;
  gpaHigh = 0;
  /** Second-stage result. */
  spaLow = 0;
  spaHigh = 0;
  /** Leaf of the first stage: entry and log2 of its size in pages. */
  firstLo = 0;
  firstHi = 0;
  firstShift = BARE_SHIFT;
  /** The leaf or some entry above it had G = 1. */
  firstGlobal = false;
  /** Leaf of the last second-stage walk. */
  secondLo = 0;
  secondHi = 0;
  secondShift = BARE_SHIFT;
  /** For guest-page faults: frame and low 12 bits (with the flags in bits 1:0) of iotval2. */
  iotval2Pfn = -0;
  iotval2Low = 0;
  /** Entries loaded (HPM events 7 and 8) while `counting`, until somebody sets them to 0. */
  counting = false;
  firstLoads = 0;
  secondLoads = 0;
  /** The walk ended at an interrupt file's page (a guest-physical page that MSI recognition matches). */
  isMessage = false;
  observer: WalkObserver | null = null;
  /** Pointers to tables that earlier walks went through; null: none are kept. */
  tables: TableCache | null = null;
  protected readonly firstPointer = new FollowedPointer();
  protected readonly secondPointer = new FollowedPointer();

  readonly memory: MemoryPort<P>;
  /** Where each stage's tables are read: often different banks. */
  protected readonly first: TableReader<P>;
  protected readonly second: TableReader<P>;
  /** High-half bits of an entry that are reserved, given the extensions; and those with N and PBMT, which plain entries lack too. */
  #reservedHigh = 0;
  protected plainHigh = 0;
  #pbmt = false;
  /** First-stage or directory level that an implicit second-stage walk serves. */
  serves = -1;

  constructor(memory: MemoryPort<P>, rules: StructureRules) {
    this.memory = memory;
    this.first = new TableReader(memory);
    this.second = new TableReader(memory);
    this.configure(rules);
  }

  /** Takes PAS and the page-table extensions from the capabilities. */
  configure(rules: StructureRules): void {
    this.first.setLimit(2 ** (rules.PAS - 12));
    this.second.setLimit(2 ** (rules.PAS - 12));
    // Bits 60:54, or 58:54 when Svrsw60t59b gives 60:59 to software.
    this.#reservedHigh = rules.Svrsw60t59b ? 0x07c00000 : 0x1fc00000;
    this.plainHigh = this.#reservedHigh | 0xe0000000;
    this.#pbmt = rules.Svpbmt;
  }

  get limit(): number {
    return this.first.limit;
  }

  /** First-stage result and second-stage input, as a frame number. */
  get gpaPfn(): number {
    return this.gpaHigh * 0x100000000 + (this.gpaLow >>> 0);
  }

  /** Second-stage result, as a frame number. */
  get spaPfn(): number {
    return this.spaHigh * 0x100000000 + (this.spaLow >>> 0);
  }

  /**
   * First stage: `pfn` of the IOVA to gpaPfn. Returns 0 or a cause; for guest-page faults on the walk's own loads iotval2 is set.
   * `kind` is the request's (KIND_READ … KIND_ATS_WRITE_EXECUTE).
   */
  firstStage(space: AddressSpace, pfn: number, kind: number, supervisor: boolean): number {
    return this.walkFirst(space, pfn | 0, (pfn * 2 ** -32) | 0, kind, supervisor);
  }

  /**
   * Second stage: a guest-physical frame to spaPfn. `use` says what the access needs of the entry (a request's kind or
   * KIND_IMPLICIT_*), `kind` which of the causes a fault reports.
   */
  secondStage(space: AddressSpace, pfn: number, use: number, kind: number): number {
    return this.walkSecond(space, pfn | 0, (pfn * 2 ** -32) | 0, use, kind);
  }

  /** Second-stage walk for a process-directory entry of `level`: an implicit read on behalf of a request of `kind`. */
  directoryAccess(space: AddressSpace, pfn: number, level: number, kind: number): number {
    this.serves = level;
    return this.secondStage(space, pfn, KIND_IMPLICIT_READ, kind);
  }

  /** The first stage alone, with every rule; `low` and `high` are the frame number of the IOVA. */
  walkFirst(space: AddressSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    this.firstGlobal = false;
    const levels = space.firstLevels;
    if (levels < 3) {
      if (levels !== 0) return firstStageNarrow(this, space, low, high, kind, supervisor);
      this.gpaLow = low;
      this.gpaHigh = high;
      this.firstShift = BARE_SHIFT;
      this.firstLo = ALL_RIGHTS;
      this.firstHi = 0;
      return 0;
    }
    // Canonical: the bits above the address width equal its top bit.
    const signLow = low & space.signLow;
    const signHigh = high & space.signHigh;
    if ((signLow | signHigh) !== 0 && (signLow !== space.signLow || signHigh !== space.signHigh)) {
      return PAGE_FAULT_CAUSE[kind]!;
    }
    const reader = this.first;
    let level = levels - 1;
    let tableLow = space.firstRootLow;
    let tableHigh = space.firstRootHigh;
    let hostLow = tableLow;
    let hostHigh = tableHigh;
    this.firstPointer.shift = 0;
    const { tables } = this;
    const remembered = tables !== null && space.plainKinds !== 0 ? tables.find(space.tag, low, high) : -1;
    // The table's frame in memory is known already.
    let known = remembered >= 0;
    if (tables !== null && known) {
      level = LEVEL_OF_CLASS[tables.classAt(remembered)]!;
      const lo = tables.pointerLoAt(remembered);
      const hi = tables.pointerHiAt(remembered);
      tableLow = (lo >>> 10) | (hi << 22);
      tableHigh = (hi >>> 10) & 0xfff;
      hostLow = tables.frameLowAt(remembered);
      hostHigh = tables.frameHighAt(remembered);
      tellRemembered(this.observer, TABLE_FIRST_STAGE, tables, remembered, -1);
    }
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const index = (level < 3 ? low >>> (9 * level) : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4) & 511;
      if (!known) {
        hostLow = tableLow;
        hostHigh = tableHigh;
      }
      if (!known && space.secondLevels !== 0) {
        this.serves = level;
        const cause = this.walkSecond(space, tableLow, tableHigh, KIND_IMPLICIT_READ, kind);
        if (cause !== 0) {
          this.implicitFault(tableLow, tableHigh, (index << 3) | 1);
          return cause;
        }
        hostLow = this.spaLow;
        hostHigh = this.spaHigh;
      }
      const status = reader.load(hostLow, hostHigh, index << 3);
      if (status !== ACCESS_OK) return loadFault(status, kind);
      const lo = space.firstBigEndian ? swap32(reader.hi) | 0 : reader.lo;
      const hi = space.firstBigEndian ? swap32(reader.lo) | 0 : reader.hi;
      this.firstLoads++;
      this.tell(TABLE_FIRST_STAGE, level, hostLow, hostHigh, index << 3, lo, hi, -1);
      if ((lo & POINTER_BITS) === PTE_V && (hi & this.plainHigh) === 0 && level > 0) {
        if ((lo & PTE_G) !== 0) this.firstGlobal = true;
        this.firstPointer.follow(9 * level, hostLow, hostHigh, index, lo, hi);
        known = false;
        tableLow = (lo >>> 10) | (hi << 22);
        tableHigh = (hi >>> 10) & 0xfff;
        level--;
        continue;
      }
      const cause = this.#firstLeaf(
        space,
        lo,
        hi,
        level,
        kind,
        supervisor,
        tableLow,
        tableHigh,
        hostLow,
        hostHigh,
        index << 3,
      );
      if (cause === RETRY) {
        tries++;
        continue;
      }
      if (cause !== 0) return cause;
      this.firstPointer.tableLow = hostLow;
      this.firstPointer.tableHigh = hostHigh;
      // What lies under a global pointer is global whatever its leaf says: such pointers are not remembered.
      if (this.firstGlobal) this.firstPointer.shift = 0;
      if ((lo & PTE_G) !== 0) this.firstGlobal = true;
      const within = withinLeaf(this.firstShift);
      this.gpaLow = (((lo >>> 10) | (hi << 22)) & ~within) | (low & within);
      this.gpaHigh = ((hi >>> 10) & 0xfff) | (this.firstShift > 32 ? high & 15 : 0);
      return 0;
    }
    return ACCESS_FAULT_CAUSE[kind]!;
  }

  /** The second stage alone, with every rule; `low` and `high` are a guest-physical frame number. */
  walkSecond(space: AddressSpace, low: number, high: number, use: number, kind: number): number {
    const levels = space.secondLevels;
    if (levels === 0) {
      this.spaLow = low;
      this.spaHigh = high;
      this.secondShift = BARE_SHIFT;
      this.secondLo = ALL_RIGHTS;
      this.secondHi = 0;
      return 0;
    }
    if (((low & space.beyondLow) | (high & space.beyondHigh)) !== 0) return GUEST_PAGE_FAULT_CAUSE[kind]!;
    if (levels === 2) return secondStageNarrow(this, space, low, use, kind);
    const reader = this.second;
    const serves = use >= KIND_IMPLICIT_READ ? this.serves : -1;
    let level = levels - 1;
    // The root is 16 KiB: two more index bits choose one of its four pages.
    const top = level === 2 ? low >>> 18 : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4;
    let tableLow = space.secondRootLow | (top >>> 9);
    let tableHigh = space.secondRootHigh;
    let index = top & 511;
    this.secondPointer.shift = 0;
    const { tables } = this;
    const remembered = tables !== null && space.plainKinds !== 0 ? tables.find(space.secondTag, low, high) : -1;
    if (tables !== null && remembered >= 0) {
      level = LEVEL_OF_CLASS[tables.classAt(remembered)]!;
      tableLow = tables.frameLowAt(remembered);
      tableHigh = tables.frameHighAt(remembered);
      index = (level < 3 ? low >>> (9 * level) : (low >>> 27) | (high << 5)) & 511;
      tellRemembered(this.observer, TABLE_SECOND_STAGE, tables, remembered, serves);
    }
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const status = reader.load(tableLow, tableHigh, index << 3);
      if (status !== ACCESS_OK) return loadFault(status, kind);
      const lo = space.secondBigEndian ? swap32(reader.hi) | 0 : reader.lo;
      const hi = space.secondBigEndian ? swap32(reader.lo) | 0 : reader.hi;
      this.secondLoads++;
      this.tell(TABLE_SECOND_STAGE, level, tableLow, tableHigh, index << 3, lo, hi, serves);
      if ((lo & POINTER_BITS) === PTE_V && (hi & this.plainHigh) === 0 && level > 0) {
        this.secondPointer.follow(9 * level, tableLow, tableHigh, index, lo, hi);
        tableLow = (lo >>> 10) | (hi << 22);
        tableHigh = (hi >>> 10) & 0xfff;
        level--;
        index = (level < 3 ? low >>> (9 * level) : (low >>> 27) | (high << 5)) & 511;
        continue;
      }
      const cause = this.#secondLeaf(space, lo, hi, level, use, kind, tableLow, tableHigh, index << 3);
      if (cause === RETRY) {
        tries++;
        continue;
      }
      if (cause !== 0) return cause;
      this.secondPointer.tableLow = tableLow;
      this.secondPointer.tableHigh = tableHigh;
      const within = withinLeaf(this.secondShift);
      this.spaLow = (((lo >>> 10) | (hi << 22)) & ~within) | (low & within);
      this.spaHigh = ((hi >>> 10) & 0xfff) | (this.secondShift > 32 ? high & 15 : 0);
      return 0;
    }
    return ACCESS_FAULT_CAUSE[kind]!;
  }

  /** An implicit access failed in the second stage: what iotval2 will say. */
  implicitFault(tableLow: number, tableHigh: number, low12: number): void {
    this.iotval2Pfn = tableHigh * 0x100000000 + (tableLow >>> 0);
    this.iotval2Low = low12;
  }

  /** Tells the observer, if there is one, of an entry loaded. */
  tell(
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

  /** A candidate first-stage leaf, step by step. Returns 0 (first* set, A/D up to date), RETRY or a cause. */
  #firstLeaf(
    space: AddressSpace,
    lo: number,
    hi: number,
    level: number,
    kind: number,
    supervisor: boolean,
    tableLow: number,
    tableHigh: number,
    hostLow: number,
    hostHigh: number,
    offset: number,
  ): number {
    const fault = PAGE_FAULT_CAUSE[kind]!;
    const shift = leafShift(lo, hi, level, this.#reservedHigh, this.#pbmt);
    if (shift < 0) return fault;
    // An ATS request to a page that is not its requester's is answered at once (§3.6): success without rights, as after this fault.
    const user = (lo & PTE_U) !== 0;
    if (supervisor ? user && (kind === KIND_EXECUTE || !space.sum) : !user) return fault;
    if (!permits(lo, kind)) return fault;
    const missing = missingAD(lo, kind, space.firstHardwareAD);
    if (missing < 0) return fault;
    if (missing !== 0) {
      const newLo = lo | missing;
      const cause = this.#setFirstAD(space, lo, hi, newLo, kind, tableLow, tableHigh, hostLow, hostHigh, offset);
      if (cause !== 0) return cause;
      lo = newLo;
    }
    this.firstLo = lo;
    this.firstHi = hi;
    this.firstShift = shift;
    return 0;
  }

  /** Sets A/D in a first-stage entry (§3.4): needs write permission in the second stage, as an implicit access. */
  #setFirstAD(
    space: AddressSpace,
    lo: number,
    hi: number,
    newLo: number,
    kind: number,
    tableLow: number,
    tableHigh: number,
    hostLow: number,
    hostHigh: number,
    offset: number,
  ): number {
    if (space.secondLevels !== 0) {
      const cause = this.walkSecond(space, tableLow, tableHigh, KIND_IMPLICIT_WRITE, kind);
      if (cause !== 0) {
        this.implicitFault(tableLow, tableHigh, offset | 3);
        return cause;
      }
      hostLow = this.spaLow;
      hostHigh = this.spaHigh;
    }
    return this.#update(hostLow, hostHigh, offset, lo, hi, newLo, space.firstBigEndian, kind);
  }

  /** A candidate second-stage leaf, step by step; U must be set, always. */
  #secondLeaf(
    space: AddressSpace,
    lo: number,
    hi: number,
    level: number,
    use: number,
    kind: number,
    tableLow: number,
    tableHigh: number,
    offset: number,
  ): number {
    const fault = GUEST_PAGE_FAULT_CAUSE[kind]!;
    const shift = leafShift(lo, hi, level, this.#reservedHigh, this.#pbmt);
    if (shift < 0 || (lo & PTE_U) === 0) return fault;
    if (!permits(lo, use)) return fault;
    const missing = missingAD(lo, use, space.secondHardwareAD);
    if (missing < 0) return fault;
    if (missing !== 0) {
      const newLo = lo | missing;
      const cause = this.#update(tableLow, tableHigh, offset, lo, hi, newLo, space.secondBigEndian, kind);
      if (cause !== 0) return cause;
      lo = newLo;
    }
    this.secondLo = lo;
    this.secondHi = hi;
    this.secondShift = shift;
    return 0;
  }

  /** Compare-and-exchange of an entry's low half. 0 done, RETRY it had changed, or a cause. */
  #update(
    frameLow: number,
    frameHigh: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
    bigEndian: boolean,
    kind: number,
  ): number {
    const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
    if (pfn >= this.limit) return ACCESS_FAULT_CAUSE[kind]!;
    return exchangeEntry(this.memory, pfn as P, offset, lo, hi, newLo, bigEndian, kind);
  }
}

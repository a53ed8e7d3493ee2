// The two-stage page-table walk of the privileged architecture with what the IOMMU adds to it (§3.3 steps 10 and 12, §3.4).
//
//     IOVA ── firstStage ──▶ gpaPfn ── secondStage ──▶ spaPfn
//                │ each table's address through secondStage (implicit access)
//
// Results are fields of the walker, faults are returned as cause numbers (0: no fault), nothing is allocated or thrown. Inside,
// frame numbers are pairs of 32-bit integers (bits 31:0; bits 51:32) and entries two halves, so that a walk is integer work
// only; `firstStage` and `secondStage` take frame numbers as everybody else has them. The common case of a leaf (readable or
// writable data page, A and D already set, no NAPOT, no PBMT) is decided by three masks; everything else goes to `#firstLeaf` and
// `#secondLeaf`, which follow the privileged architecture's steps one by one.
//
// Walk state that callers read afterwards: gpaPfn, spaPfn; the leaf entries with their sizes; for guest-page faults iotval2.

import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { swap32 } from "./byte-order.ts";
import type { StructureRules } from "./capabilities.ts";
import {
  ACCESS_FAULT_CAUSE,
  ALL_RIGHTS,
  BARE_SHIFT,
  GUEST_PAGE_FAULT_CAUSE,
  KIND_ATS,
  KIND_ATS_WRITE,
  KIND_EXECUTE,
  KIND_IMPLICIT_READ,
  KIND_IMPLICIT_WRITE,
  KIND_WRITE,
  loadFault,
  misaligned,
  PAGE_FAULT_CAUSE,
  POINTER_BITS,
  permits,
  RETRY,
  RETRY_LIMIT,
  wantedAD,
} from "./leaf-rules.ts";
import { firstStageNarrow, secondStageNarrow } from "./narrow-walk.ts";
import { PTE_A, PTE_D, PTE_G, PTE_R, PTE_U, PTE_V, PTE_W } from "./page-table-entry.ts";
import { TableReader } from "./table-reader.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkObserver, type WalkTable } from "./walk-observer.ts";

export {
  accessFaultCause,
  BARE_SHIFT,
  KIND_ATS,
  KIND_ATS_WRITE,
  KIND_EXECUTE,
  KIND_IMPLICIT_READ,
  KIND_IMPLICIT_WRITE,
  KIND_READ,
  KIND_WRITE,
} from "./leaf-rules.ts";

/** Bits a leaf must have for the fast path, per kind; 0 marks kinds that always take the slow one. */
const FIRST_NEED = Uint16Array.of(PTE_V | PTE_R | PTE_A, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D, 0, 0, 0);
const SECOND_NEED = Uint16Array.of(
  PTE_V | PTE_R | PTE_A | PTE_U,
  PTE_V | PTE_R | PTE_W | PTE_A | PTE_D | PTE_U,
  0,
  0,
  0,
  PTE_V | PTE_R | PTE_A | PTE_U,
  PTE_V | PTE_R | PTE_W | PTE_A | PTE_D | PTE_U,
);

export class TwoStageWalker<P extends number> {
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
  /** Entries loaded (HPM events 7 and 8), until somebody sets them to 0. */
  firstLoads = 0;
  secondLoads = 0;
  observer: WalkObserver | null = null;

  readonly memory: MemoryPort<P>;
  /** Where each stage's tables are read: often different banks. */
  readonly #first: TableReader<P>;
  readonly #second: TableReader<P>;
  /** High-half bits of an entry that are reserved, given the extensions; and those with N and PBMT, which plain entries lack too. */
  #reservedHigh = 0;
  #plainHigh = 0;
  #pbmt = false;
  /** First-stage or directory level that an implicit second-stage walk serves. */
  serves = -1;

  constructor(memory: MemoryPort<P>, rules: StructureRules) {
    this.memory = memory;
    this.#first = new TableReader(memory);
    this.#second = new TableReader(memory);
    this.configure(rules);
  }

  /** Takes PAS and the page-table extensions from the capabilities. */
  configure(rules: StructureRules): void {
    this.#first.setLimit(2 ** (rules.PAS - 12));
    this.#second.setLimit(2 ** (rules.PAS - 12));
    // Bits 60:54, or 58:54 when Svrsw60t59b gives 60:59 to software.
    this.#reservedHigh = rules.Svrsw60t59b ? 0x07c00000 : 0x1fc00000;
    this.#plainHigh = this.#reservedHigh | 0xe0000000;
    this.#pbmt = rules.Svpbmt;
  }

  /** First frame beyond PAS. */
  get limit(): number {
    return this.#first.limit;
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
   * `kind` is the request's (KIND_READ … KIND_ATS_WRITE).
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

  /** `firstStage` on a frame number as a pair. */
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
    const reader = this.#first;
    const twoStage = space.secondLevels !== 0;
    const bigEndian = space.firstBigEndian;
    const special = bigEndian || this.observer !== null;
    const plainHigh = this.#plainHigh;
    const need = kind <= KIND_WRITE ? FIRST_NEED[kind]! | (supervisor ? 0 : PTE_U) : 0;
    const mask = supervisor && !space.sum ? need | PTE_U : need;
    let level = levels - 1;
    let tableLow = space.firstRootLow;
    let tableHigh = space.firstRootHigh;
    let tries = 0;
    let loads = 0;
    for (;;) {
      const index = (level < 3 ? low >>> (9 * level) : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4) & 511;
      let hostLow = tableLow;
      let hostHigh = tableHigh;
      if (twoStage) {
        this.serves = level;
        const cause = this.walkSecond(space, tableLow, tableHigh, KIND_IMPLICIT_READ, kind);
        if (cause !== 0) {
          this.firstLoads += loads;
          this.implicitFault(tableLow, tableHigh, (index << 3) | 1);
          return cause;
        }
        hostLow = this.spaLow;
        hostHigh = this.spaHigh;
      }
      let lo: number;
      let hi: number;
      const page = (hostLow - reader.baseLow) | 0;
      if (page >= 0 && page < reader.pages && hostHigh === reader.baseHigh) {
        const at = (page << 10) | (index << 1);
        lo = reader.words[at]!;
        hi = reader.words[at + 1]!;
      } else {
        const status = reader.load(hostLow, hostHigh, index << 3);
        if (status !== ACCESS_OK) {
          this.firstLoads += loads;
          return loadFault(status, kind);
        }
        lo = reader.lo;
        hi = reader.hi;
      }
      loads++;
      if (special) {
        if (bigEndian) {
          const value = swap32(hi) | 0;
          hi = swap32(lo) | 0;
          lo = value;
        }
        this.tell(TABLE_FIRST_STAGE, level, hostLow, hostHigh, index << 3, lo, hi, -1);
      }
      if ((lo & POINTER_BITS) === PTE_V && (hi & plainHigh) === 0 && level > 0) {
        if ((lo & PTE_G) !== 0) this.firstGlobal = true;
        tableLow = (lo >>> 10) | (hi << 22);
        tableHigh = (hi >>> 10) & 0xfff;
        level--;
        continue;
      }
      this.firstLoads += loads;
      loads = 0;
      if (need === 0 || (lo & mask) !== need || (hi & plainHigh) !== 0 || (level !== 0 && misaligned(level, lo, hi))) {
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
          if (++tries > RETRY_LIMIT) return ACCESS_FAULT_CAUSE[kind]!;
          continue;
        }
        if (cause !== 0) return cause;
      } else {
        this.firstLo = lo;
        this.firstHi = hi;
        this.firstShift = 9 * level;
      }
      if ((lo & PTE_G) !== 0) this.firstGlobal = true;
      const ppnLow = (lo >>> 10) | (hi << 22);
      const ppnHigh = (hi >>> 10) & 0xfff;
      const shift = this.firstShift;
      if (shift === 0) {
        this.gpaLow = ppnLow;
        this.gpaHigh = ppnHigh;
      } else if (shift === 4) {
        this.gpaLow = (ppnLow & ~15) | (low & 15);
        this.gpaHigh = ppnHigh;
      } else if (shift < 32) {
        this.gpaLow = ppnLow | (low & ((1 << shift) - 1));
        this.gpaHigh = ppnHigh;
      } else {
        this.gpaLow = low;
        this.gpaHigh = ppnHigh | (high & 15);
      }
      return 0;
    }
  }

  /** `secondStage` on a frame number as a pair. */
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
    const reader = this.#second;
    const bigEndian = space.secondBigEndian;
    const special = bigEndian || this.observer !== null;
    const plainHigh = this.#plainHigh;
    const need = SECOND_NEED[use]!;
    let level = levels - 1;
    // The root is 16 KiB: two more index bits choose one of its four pages.
    const top = level === 2 ? low >>> 18 : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4;
    let tableLow = space.secondRootLow | (top >>> 9);
    let tableHigh = space.secondRootHigh;
    let index = top & 511;
    let tries = 0;
    let loads = 0;
    for (;;) {
      let lo: number;
      let hi: number;
      const page = (tableLow - reader.baseLow) | 0;
      if (page >= 0 && page < reader.pages && tableHigh === reader.baseHigh) {
        const at = (page << 10) | (index << 1);
        lo = reader.words[at]!;
        hi = reader.words[at + 1]!;
      } else {
        const status = reader.load(tableLow, tableHigh, index << 3);
        if (status !== ACCESS_OK) {
          this.secondLoads += loads;
          return loadFault(status, kind);
        }
        lo = reader.lo;
        hi = reader.hi;
      }
      loads++;
      if (special) {
        if (bigEndian) {
          const value = swap32(hi) | 0;
          hi = swap32(lo) | 0;
          lo = value;
        }
        const serves = use >= KIND_IMPLICIT_READ ? this.serves : -1;
        this.tell(TABLE_SECOND_STAGE, level, tableLow, tableHigh, index << 3, lo, hi, serves);
      }
      if ((lo & POINTER_BITS) === PTE_V && (hi & plainHigh) === 0 && level > 0) {
        tableLow = (lo >>> 10) | (hi << 22);
        tableHigh = (hi >>> 10) & 0xfff;
        level--;
        index = (level < 3 ? low >>> (9 * level) : (low >>> 27) | (high << 5)) & 511;
        continue;
      }
      this.secondLoads += loads;
      loads = 0;
      if (need === 0 || (lo & need) !== need || (hi & plainHigh) !== 0 || (level !== 0 && misaligned(level, lo, hi))) {
        const cause = this.#secondLeaf(space, lo, hi, level, use, kind, tableLow, tableHigh, index << 3);
        if (cause === RETRY) {
          if (++tries > RETRY_LIMIT) return ACCESS_FAULT_CAUSE[kind]!;
          continue;
        }
        if (cause !== 0) return cause;
      } else {
        this.secondLo = lo;
        this.secondHi = hi;
        this.secondShift = 9 * level;
      }
      const ppnLow = (lo >>> 10) | (hi << 22);
      const ppnHigh = (hi >>> 10) & 0xfff;
      const shift = this.secondShift;
      if (shift === 0) {
        this.spaLow = ppnLow;
        this.spaHigh = ppnHigh;
      } else if (shift === 4) {
        this.spaLow = (ppnLow & ~15) | (low & 15);
        this.spaHigh = ppnHigh;
      } else if (shift < 32) {
        this.spaLow = ppnLow | (low & ((1 << shift) - 1));
        this.spaHigh = ppnHigh;
      } else {
        this.spaLow = low;
        this.spaHigh = ppnHigh | (high & 15);
      }
      return 0;
    }
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
    const shift = this.#leafShift(lo, hi, level);
    if (shift < 0) return fault;
    // An ATS request reports what rights there are, but a page it cannot even read gives it none (§3.6) and is not marked accessed.
    const user = (lo & PTE_U) !== 0;
    if (supervisor ? user && (kind === KIND_EXECUTE || !space.sum) : !user) return fault;
    if (!permits(lo, kind)) return fault;
    const wanted = wantedAD(lo, kind);
    if ((lo & wanted) !== wanted) {
      if (!space.firstHardwareAD) {
        // §3.6: an ATS request that finds D = 0 loses the W right only.
        if ((lo & PTE_A) === 0 || kind < KIND_ATS) return fault;
      } else {
        const cause = this.#setFirstAD(
          space,
          lo,
          hi,
          lo | wanted,
          kind,
          tableLow,
          tableHigh,
          hostLow,
          hostHigh,
          offset,
        );
        if (cause !== 0) return cause;
        lo |= wanted;
      }
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
    return this.#exchange(hostLow, hostHigh, offset, lo, hi, newLo, space.firstBigEndian, kind);
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
    const shift = this.#leafShift(lo, hi, level);
    if (shift < 0 || (lo & PTE_U) === 0) return fault;
    const ats = use === KIND_ATS || use === KIND_ATS_WRITE;
    if (!permits(lo, use)) return fault;
    const wanted = wantedAD(lo, use);
    if ((lo & wanted) !== wanted) {
      if (!space.secondHardwareAD) {
        if ((lo & PTE_A) === 0 || !ats) return fault;
      } else {
        const cause = this.#exchange(tableLow, tableHigh, offset, lo, hi, lo | wanted, space.secondBigEndian, kind);
        if (cause !== 0) return cause;
        lo |= wanted;
      }
    }
    this.secondLo = lo;
    this.secondHi = hi;
    this.secondShift = shift;
    return 0;
  }

  /** log2 of a leaf's size in pages, -1 if the entry is not a legal leaf. */
  #leafShift(lo: number, hi: number, level: number): number {
    if ((lo & PTE_V) === 0 || (lo & (PTE_R | PTE_W)) === PTE_W) return -1;
    if ((hi & this.#reservedHigh) !== 0) return -1;
    const pbmt = (hi >>> 29) & 3;
    if (pbmt === 3 || (pbmt !== 0 && !this.#pbmt)) return -1;
    if ((hi & 0x80000000) !== 0) {
      // Svnapot: 64 KiB ranges at level 0 only.
      return level === 0 && (lo & 0x3c00) === 0x2000 ? 4 : -1;
    }
    if (level !== 0 && misaligned(level, lo, hi)) return -1;
    return 9 * level;
  }

  /** Compare-and-exchange of an entry's low half. 0 done, RETRY it had changed, or a cause. */
  #exchange(
    frameLow: number,
    frameHigh: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
    bigEndian: boolean,
    kind: number,
  ): number {
    const memory = this.memory;
    const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
    if (pfn >= this.limit) return ACCESS_FAULT_CAUSE[kind]!;
    const oldLo = bigEndian ? swap32(hi) : lo >>> 0;
    const oldHi = bigEndian ? swap32(lo) : hi >>> 0;
    const status = memory.compareExchange64(
      pfn as P,
      offset,
      oldLo,
      oldHi,
      bigEndian ? oldLo : newLo >>> 0,
      bigEndian ? swap32(newLo) : oldHi,
    );
    if (status !== ACCESS_OK) return loadFault(status, kind);
    return memory.lo === oldLo && memory.hi === oldHi ? 0 : RETRY;
  }
}

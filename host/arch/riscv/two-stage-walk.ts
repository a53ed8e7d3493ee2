// The two-stage page-table walk of the privileged architecture with what the IOMMU adds to it (§3.3 steps 10 and 12, §3.4).
//
//     IOVA ── firstStage ──▶ gpaPfn ── secondStage ──▶ spaPfn
//                │ each table's address through secondStage (implicit access)
//
// Results are fields of the walker, faults are returned as cause numbers (0: no fault), nothing is allocated or thrown. Inside,
// frame numbers are pairs of 32-bit integers (bits 31:0; bits 51:32) and entries two halves, so that a walk is integer work
// only; `firstStage` and `secondStage` take frame numbers as everybody else has them. The common case (pointers, and leaves with A
// and D already set, without NAPOT and PBMT) is one loop over both stages, decided by masks; whatever it does not recognise goes to
// `walkFirst` and `walkSecond`, which follow the privileged architecture's steps one by one.
// Callers read afterwards: gpaPfn, spaPfn; the leaf entries with their sizes; for guest-page faults iotval2.

import { swap32 } from "../../base/byte-order.ts";
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
  misaligned,
  missingAD,
  PAGE_FAULT_CAUSE,
  POINTER_BITS,
  permits,
  RETRY,
  RETRY_LIMIT,
  useBehind,
  withinLeaf,
} from "./leaf-rules.ts";
import { firstStageNarrow, secondStageNarrow } from "./narrow-walk.ts";
import { PTE_G, PTE_U, PTE_V } from "./page-table-entry.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkObserver, type WalkTable } from "./walk-observer.ts";

export * from "./leaf-rules.ts";

/** `iotval2Low` of a guest-page fault of the request's own access: its offset goes there. */
export const OWN_ACCESS = -1;

// Not state: what one walk found, and settings that whoever owns the walker makes again.
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
  /** Entries loaded (HPM events 7 and 8) while `counting`, until somebody sets them to 0. */
  counting = false;
  firstLoads = 0;
  secondLoads = 0;
  /** The walk ended at an interrupt file's page (a guest-physical page that MSI recognition matches). */
  isMessage = false;
  observer: WalkObserver | null = null;

  readonly memory: MemoryPort<P>;
  /** Where each stage's tables are read: often different banks. */
  readonly #first: TableReader<P>;
  readonly #second: TableReader<P>;
  /** High-half bits of an entry that are reserved, given the extensions; and those with N and PBMT, which plain entries lack too. */
  #reservedHigh = 0;
  #plainHigh = 0;
  #pbmt = false;
  /** Entries that the observer has been told of by a plain walk which then gave up. */
  #told = 0;
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
   * `kind` is the request's (KIND_READ … KIND_ATS_WRITE_EXECUTE).
   */
  firstStage(space: AddressSpace, pfn: number, kind: number, supervisor: boolean): number {
    this.#told = 0;
    return this.walkFirst(space, pfn | 0, (pfn * 2 ** -32) | 0, kind, supervisor);
  }

  /**
   * Second stage: a guest-physical frame to spaPfn. `use` says what the access needs of the entry (a request's kind or
   * KIND_IMPLICIT_*), `kind` which of the causes a fault reports.
   */
  secondStage(space: AddressSpace, pfn: number, use: number, kind: number): number {
    this.#told = 0;
    return this.walkSecond(space, pfn | 0, (pfn * 2 ** -32) | 0, use, kind);
  }

  /** Second-stage walk for a process-directory entry of `level`: an implicit read on behalf of a request of `kind`. */
  directoryAccess(space: AddressSpace, pfn: number, level: number, kind: number): number {
    this.serves = level;
    return this.secondStage(space, pfn, KIND_IMPLICIT_READ, kind);
  }

  /**
   * Both stages for a request that `walkPlainly` did not decide (§3.3 steps 17 to 19), with every rule: 0 with the results in place, or
   * a cause. If the first stage ends at an interrupt file's page, `isMessage` is set and the second stage is left alone. A
   * guest-page fault of the access itself has iotval2Low = OWN_ACCESS.
   */
  walkCarefully(space: AddressSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const first = this.walkFirst(space, low, high, kind, supervisor);
    if (first !== 0) return first;
    if (space.isMessagePage(this.gpaLow, this.gpaHigh)) {
      this.isMessage = true;
      return 0;
    }
    const use = useBehind(kind, this.firstLo);
    const second = this.walkSecond(space, this.gpaLow, this.gpaHigh, use, kind);
    if (second !== 0) {
      this.iotval2Pfn = this.gpaPfn;
      this.iotval2Low = OWN_ACCESS;
    }
    return second;
  }

  /**
   * The plain way through both stages: pointers and leaves as they usually are, little-endian, in the window of memory. True with the
   * results in place. False at anything else; `walkCarefully` must then follow and starts over (the observer is not told twice).
   * Frame numbers are pairs: bits 31:0 and 51:32. One round of the outer loop takes one guest-physical frame through the second
   * stage: those of the first stage's tables, then that of the data. What the loops use is held in locals, as integers, and
   * constants (POINTER_BITS, PTE_*, ALL_RIGHTS, BARE_SHIFT) are literals: compiled code then keeps them in registers.
   */
  walkPlainly(space: AddressSpace, low: number, high: number, kind: number, supervisor: boolean): boolean {
    this.isMessage = false;
    this.#told = 0;
    // KIND_READ and KIND_WRITE only.
    if (kind > 1 || !space.plain) return false;
    const signLow = low & space.signLow;
    const signHigh = high & space.signHigh;
    if ((signLow | signHigh) !== 0 && (signLow !== space.signLow || signHigh !== space.signHigh)) return false;
    const first = this.#first;
    const firstWords = first.words;
    const firstBaseLow = first.baseLow | 0;
    const firstBaseHigh = first.baseHigh | 0;
    const firstPages = first.pages >>> 0;
    const second = this.#second;
    const secondWords = second.words;
    const secondBaseLow = second.baseLow | 0;
    const secondBaseHigh = second.baseHigh | 0;
    const secondPages = second.pages >>> 0;
    const plainHigh = this.#plainHigh | 0;
    const watched = this.observer !== null;
    const secondLevels = space.secondLevels | 0;
    // V, R, A of a leaf, and W, D to write; in the first stage U for a user, no U for a supervisor without SUM.
    const need = (kind === 0 ? 0x43 : 0xc7) | (supervisor ? 0 : 0x10);
    const mask = supervisor && !space.sum ? need | 0x10 : need;
    let level = (space.firstLevels - 1) | 0;
    let guestLow = space.firstRootLow | 0;
    let guestHigh = space.firstRootHigh | 0;
    let firstLo = 0xdf;
    let firstShift = 52;
    let secondLo = 0xdf;
    let secondShift = 52;
    let global = 0;
    let firstLoads = 0;
    let secondLoads = 0;
    if (level < 0) {
      guestLow = low;
      guestHigh = high;
      if (space.recognizesMessages && space.isMessagePage(low, high)) return false;
    }
    for (;;) {
      let hostLow = guestLow;
      let hostHigh = guestHigh;
      if (secondLevels !== 0) {
        if (((guestLow & space.beyondLow) | (guestHigh & space.beyondHigh)) !== 0) return false;
        const secondNeed = level >= 0 || kind === 0 ? 0x53 : 0xd7;
        // `shift` is 9 times the level. The root is 16 KiB: two more index bits choose one of its four pages.
        let shift = secondLevels === 3 ? 18 : secondLevels === 4 ? 27 : 36;
        let index =
          shift === 18 ? guestLow >>> 18 : shift === 27 ? (guestLow >>> 27) | (guestHigh << 5) : guestHigh >>> 4;
        hostLow = space.secondRootLow | (index >>> 9);
        hostHigh = space.secondRootHigh | 0;
        for (;;) {
          const page = (hostLow - secondBaseLow) >>> 0;
          if (page >= secondPages || hostHigh !== secondBaseHigh) return false;
          const at = (page << 10) | ((index & 511) << 1);
          const lo = secondWords[at]!;
          const hi = secondWords[at | 1]!;
          // POINTER_BITS and PTE_V.
          const pointer = (lo & 0xdf) === 1;
          if ((hi & plainHigh) !== 0 || (pointer ? shift === 0 : (lo & secondNeed) !== secondNeed)) return false;
          if (watched) this.#tellPlainly(TABLE_SECOND_STAGE, shift / 9, hostLow, hostHigh, index, lo, hi, level);
          secondLoads = (secondLoads + 1) | 0;
          hostLow = (lo >>> 10) | (hi << 22);
          hostHigh = (hi >>> 10) & 0xfff;
          if (pointer) {
            shift = (shift - 9) | 0;
            index = shift === 27 ? (guestLow >>> 27) | (guestHigh << 5) : guestLow >>> shift;
            continue;
          }
          secondLo = lo;
          secondShift = shift;
          if (shift !== 0) {
            if (misaligned(shift / 9, lo, hi)) return false;
            if (shift < 32) hostLow |= guestLow & ((1 << shift) - 1);
            else {
              hostLow = guestLow;
              hostHigh |= guestHigh & 15;
            }
          }
          break;
        }
      }
      if (level < 0) {
        // What is plain has neither memory type nor N: of the high halves only the PPN, which is in the results.
        this.firstLo = firstLo;
        this.firstHi = 0;
        this.firstShift = firstShift;
        this.firstGlobal = (global & 0x20) !== 0;
        this.gpaLow = guestLow;
        this.gpaHigh = guestHigh;
        this.secondLo = secondLo;
        this.secondHi = 0;
        this.secondShift = secondShift;
        this.spaLow = hostLow;
        this.spaHigh = hostHigh;
        if (this.counting) {
          this.firstLoads += firstLoads;
          this.secondLoads += secondLoads;
        }
        return true;
      }
      const page = (hostLow - firstBaseLow) >>> 0;
      if (page >= firstPages || hostHigh !== firstBaseHigh) return false;
      const index = level < 3 ? low >>> ((level << 3) + level) : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4;
      const at = (page << 10) | ((index & 511) << 1);
      const lo = firstWords[at]!;
      const hi = firstWords[at | 1]!;
      const pointer = (lo & 0xdf) === 1;
      if ((hi & plainHigh) !== 0 || (pointer ? level === 0 : (lo & mask) !== need)) return false;
      if (watched) this.#tellPlainly(TABLE_FIRST_STAGE, level, hostLow, hostHigh, index, lo, hi, -1);
      global |= lo;
      guestLow = (lo >>> 10) | (hi << 22);
      guestHigh = (hi >>> 10) & 0xfff;
      if (pointer) {
        level = (level - 1) | 0;
        continue;
      }
      firstLo = lo;
      firstShift = 0;
      firstLoads = space.firstLevels - level;
      if (level !== 0) {
        if (misaligned(level, lo, hi)) return false;
        firstShift = (level << 3) + level;
        if (level < 4) guestLow |= low & ((1 << firstShift) - 1);
        else {
          guestLow = low;
          guestHigh |= high & 15;
        }
      }
      if (space.recognizesMessages && space.isMessagePage(guestLow, guestHigh)) return false;
      level = -1;
    }
  }

  /** As `tell`, from the plain way: the careful one, should it start over, keeps quiet about as many entries. */
  #tellPlainly(
    table: WalkTable,
    level: number,
    frameLow: number,
    frameHigh: number,
    index: number,
    lo: number,
    hi: number,
    serves: number,
  ): void {
    const told = this.#told;
    this.#told = 0;
    this.tell(table, level, frameLow, frameHigh, (index & 511) << 3, lo, hi, serves);
    this.#told = told + 1;
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
    const reader = this.#first;
    let level = levels - 1;
    let tableLow = space.firstRootLow;
    let tableHigh = space.firstRootHigh;
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const index = (level < 3 ? low >>> (9 * level) : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4) & 511;
      let hostLow = tableLow;
      let hostHigh = tableHigh;
      if (space.secondLevels !== 0) {
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
      if ((lo & POINTER_BITS) === PTE_V && (hi & this.#plainHigh) === 0 && level > 0) {
        if ((lo & PTE_G) !== 0) this.firstGlobal = true;
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
    const reader = this.#second;
    const serves = use >= KIND_IMPLICIT_READ ? this.serves : -1;
    let level = levels - 1;
    // The root is 16 KiB: two more index bits choose one of its four pages.
    const top = level === 2 ? low >>> 18 : level === 3 ? (low >>> 27) | (high << 5) : high >>> 4;
    let tableLow = space.secondRootLow | (top >>> 9);
    let tableHigh = space.secondRootHigh;
    let index = top & 511;
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const status = reader.load(tableLow, tableHigh, index << 3);
      if (status !== ACCESS_OK) return loadFault(status, kind);
      const lo = space.secondBigEndian ? swap32(reader.hi) | 0 : reader.lo;
      const hi = space.secondBigEndian ? swap32(reader.lo) | 0 : reader.hi;
      this.secondLoads++;
      this.tell(TABLE_SECOND_STAGE, level, tableLow, tableHigh, index << 3, lo, hi, serves);
      if ((lo & POINTER_BITS) === PTE_V && (hi & this.#plainHigh) === 0 && level > 0) {
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
    if (this.#told > 0) {
      this.#told--;
      return;
    }
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

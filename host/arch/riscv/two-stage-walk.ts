// The two-stage page-table walk of the privileged architecture with what the IOMMU adds to it (§3.3 steps 10 and 12, §3.4).
//
//     IOVA ── firstStage ──▶ gpaPfn ── secondStage ──▶ spaPfn
//                │ each table's address through secondStage (implicit access)
//
// Results are fields of the walker, faults are returned as cause numbers (0: no fault), nothing is allocated or thrown. Addresses
// are page-frame numbers (doubles up to 2^52); entries are two halves. The common case of a leaf (readable or writable data page,
// A and D already set, no NAPOT, no PBMT) is decided by three masks; everything else goes to `#firstLeaf` and `#secondLeaf`, which
// follow the privileged architecture's steps one by one.
//
// Walk state that callers read afterwards: gpaPfn, spaPfn; the leaf entries with their sizes; for guest-page faults iotval2.

import { ACCESS_FAULT, ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { swap32 } from "./byte-order.ts";
import type { StructureRules } from "./capabilities.ts";
import { CAUSE_PT_DATA_CORRUPTION } from "./fault-records.ts";
import { compareExchange32 } from "./narrow-entry.ts";
import { PTE_A, PTE_D, PTE_G, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from "./page-table-entry.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkObserver } from "./walk-observer.ts";

/** What the request does; indexes the cause tables. An ATS request asks for whatever rights there are. */
export const KIND_READ = 0;
export const KIND_WRITE = 1;
export const KIND_EXECUTE = 2;
export const KIND_ATS = 3;
/** ATS request without No-Write: D may be set where W = 1 (§3.4). */
export const KIND_ATS_WRITE = 4;
/** Second-stage uses only: reading a first-stage or process-directory entry, and setting A/D in one. */
export const KIND_IMPLICIT_READ = 5;
export const KIND_IMPLICIT_WRITE = 6;

const ACCESS_FAULT_CAUSE = Uint16Array.of(5, 7, 1, 5, 5, 5, 7);
const PAGE_FAULT_CAUSE = Uint16Array.of(13, 15, 12, 13, 13, 13, 15);
const GUEST_PAGE_FAULT_CAUSE = Uint16Array.of(21, 23, 20, 21, 21, 21, 23);

/** Cause of an access fault for a request of this kind (1, 5, 7). */
export function accessFaultCause(kind: number): number {
  return ACCESS_FAULT_CAUSE[kind]!;
}

const KIND_BITS = PTE_V | PTE_R | PTE_W | PTE_X;
/** Bits a leaf must have for the fast path, per kind; 0x100 (RSW, never required) marks kinds that always take the slow one. */
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

/** Internal result of a leaf check: the entry changed under a compare-and-exchange; load it again. */
const RETRY = -1;
/** Memory that never stops changing under us is an access fault after so many tries. */
const RETRY_LIMIT = 64;

/** Shift of a Bare stage: larger than any page. */
export const BARE_SHIFT = 52;

/** True if the PPN of a leaf at `level` (above 0) has bits below its superpage's size. */
function misaligned(level: number, lo: number, hi: number): boolean {
  if (level === 1) return (lo & 0x7fc00) !== 0;
  if (level === 2) return (lo & 0xffffc00) !== 0;
  if (level === 3) return (lo & 0xfffffc00) !== 0 || (hi & 0x1f) !== 0;
  return (lo & 0xfffffc00) !== 0 || (hi & 0x3fff) !== 0;
}

/** The low `shift` bits of a page-frame number. */
function lowBits(pfn: number, shift: number): number {
  if (shift < 31) return pfn & ((1 << shift) - 1);
  const size = 2 ** shift;
  return pfn - Math.floor(pfn / size) * size;
}

export class TwoStageWalker<P extends number> {
  /** First-stage result and second-stage input. */
  gpaPfn = 0;
  /** Second-stage result. */
  spaPfn = 0;
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
  iotval2Pfn = 0;
  iotval2Low = 0;
  /** Entries loaded since construction (HPM events 7 and 8). */
  firstLoads = 0;
  secondLoads = 0;
  observer: WalkObserver | null = null;

  readonly #memory: MemoryPort<P>;
  /** First frame outside the physical address space (PAS). */
  #limit = 0;
  /** High-half bits of an entry that are reserved, given the extensions. */
  #reservedHigh = 0;
  #pbmt = false;
  /** First-stage or directory level that an implicit second-stage walk serves. */
  #serves = -1;

  constructor(memory: MemoryPort<P>, rules: StructureRules) {
    this.#memory = memory;
    this.configure(rules);
  }

  /** Takes PAS and the page-table extensions from the capabilities. */
  configure(rules: StructureRules): void {
    this.#limit = 2 ** (rules.PAS - 12);
    // Bits 60:54, or 58:54 when Svrsw60t59b gives 60:59 to software.
    this.#reservedHigh = rules.Svrsw60t59b ? 0x07c00000 : 0x1fc00000;
    this.#pbmt = rules.Svpbmt;
  }

  /**
   * First stage: `pfn` of the IOVA to gpaPfn. Returns 0 or a cause; for guest-page faults on the walk's own loads iotval2 is set.
   * `kind` is the request's (KIND_READ … KIND_ATS_WRITE).
   */
  firstStage(space: AddressSpace, pfn: number, kind: number, supervisor: boolean): number {
    if (pfn >= space.holeStart && pfn < space.holeEnd) return PAGE_FAULT_CAUSE[kind]!;
    let level = space.firstLevels - 1;
    this.firstGlobal = false;
    if (level < 0) {
      this.gpaPfn = pfn;
      this.firstShift = BARE_SHIFT;
      this.firstLo = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;
      this.firstHi = 0;
      return 0;
    }
    if (space.firstLevels === 2) return this.#firstStageNarrow(space, pfn, kind, supervisor);
    const memory = this.#memory;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const twoStage = space.secondLevels !== 0;
    const need = kind <= KIND_WRITE ? FIRST_NEED[kind]! | (supervisor ? 0 : PTE_U) : 0;
    const mask = supervisor && !space.sum ? need | PTE_U : need;
    let table = space.firstRoot;
    let tries = 0;
    for (;;) {
      const index =
        level < 3 ? (low >>> (9 * level)) & 511 : level === 3 ? ((low >>> 27) | (high << 5)) & 511 : (high >>> 4) & 511;
      let host = table;
      if (twoStage) {
        this.#serves = level;
        const cause = this.secondStage(space, table, KIND_IMPLICIT_READ, kind);
        if (cause !== 0) {
          this.iotval2Pfn = table;
          this.iotval2Low = (index << 3) | 1;
          return cause;
        }
        host = this.spaPfn;
      }
      if (host >= this.#limit) return ACCESS_FAULT_CAUSE[kind]!;
      const status = memory.load64(host as P, index << 3);
      if (status !== ACCESS_OK) return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
      let lo = memory.lo;
      let hi = memory.hi;
      if (space.firstBigEndian) {
        const value = swap32(hi);
        hi = swap32(lo);
        lo = value;
      }
      this.firstLoads++;
      if (this.observer !== null) this.observer.tableLoaded(TABLE_FIRST_STAGE, level, host, index << 3, lo, hi, -1);
      if ((lo & KIND_BITS) === PTE_V) {
        // Pointer to the next level: A, D, U, PBMT, N and the reserved bits must be 0, and there must be a next level.
        if ((lo & (PTE_A | PTE_D | PTE_U)) !== 0 || (hi & (0xe0000000 | this.#reservedHigh)) !== 0 || level === 0) {
          return PAGE_FAULT_CAUSE[kind]!;
        }
        if ((lo & PTE_G) !== 0) this.firstGlobal = true;
        table = (hi & 0x3fffff) * 0x400000 + (lo >>> 10);
        level--;
        continue;
      }
      if (
        need === 0 ||
        (lo & mask) !== need ||
        (hi & (0xe0000000 | this.#reservedHigh)) !== 0 ||
        (level !== 0 && misaligned(level, lo, hi))
      ) {
        const cause = this.#firstLeaf(space, lo, hi, level, kind, supervisor, table, host, index << 3);
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
      const shift = this.firstShift;
      const ppn = (hi & 0x3fffff) * 0x400000 + (lo >>> 10);
      if (shift === 0) this.gpaPfn = ppn;
      else if (shift === 4) this.gpaPfn = ppn - 8 + (low & 15);
      else this.gpaPfn = ppn + lowBits(pfn, shift);
      return 0;
    }
  }

  /**
   * Second stage: a guest-physical frame to spaPfn. `use` says what the access needs of the entry (a request's kind or
   * KIND_IMPLICIT_*), `kind` which of the causes a fault reports.
   */
  secondStage(space: AddressSpace, pfn: number, use: number, kind: number): number {
    let level = space.secondLevels - 1;
    if (level < 0) {
      this.spaPfn = pfn;
      this.secondShift = BARE_SHIFT;
      this.secondLo = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;
      this.secondHi = 0;
      return 0;
    }
    if (pfn >= space.secondLimit) return GUEST_PAGE_FAULT_CAUSE[kind]!;
    if (level === 1) return this.#secondStageNarrow(space, pfn, use, kind);
    const memory = this.#memory;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const need = SECOND_NEED[use]!;
    // The root is 16 KiB: two more index bits choose one of its four pages.
    const top =
      level === 2 ? (low >>> 18) & 0x7ff : level === 3 ? ((low >>> 27) | (high << 5)) & 0x7ff : (high >>> 4) & 0x7ff;
    let table = space.secondRoot + (top >>> 9);
    let offset = (top & 511) << 3;
    let tries = 0;
    for (;;) {
      if (table >= this.#limit) return ACCESS_FAULT_CAUSE[kind]!;
      const status = memory.load64(table as P, offset);
      if (status !== ACCESS_OK) return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
      let lo = memory.lo;
      let hi = memory.hi;
      if (space.secondBigEndian) {
        const value = swap32(hi);
        hi = swap32(lo);
        lo = value;
      }
      this.secondLoads++;
      if (this.observer !== null) {
        const serves = use >= KIND_IMPLICIT_READ ? this.#serves : -1;
        this.observer.tableLoaded(TABLE_SECOND_STAGE, level, table, offset, lo, hi, serves);
      }
      if ((lo & KIND_BITS) === PTE_V) {
        if ((lo & (PTE_A | PTE_D | PTE_U)) !== 0 || (hi & (0xe0000000 | this.#reservedHigh)) !== 0 || level === 0) {
          return GUEST_PAGE_FAULT_CAUSE[kind]!;
        }
        table = (hi & 0x3fffff) * 0x400000 + (lo >>> 10);
        level--;
        const index = level < 3 ? (low >>> (9 * level)) & 511 : ((low >>> 27) | (high << 5)) & 511;
        offset = index << 3;
        continue;
      }
      if (
        need === 0 ||
        (lo & need) !== need ||
        (hi & (0xe0000000 | this.#reservedHigh)) !== 0 ||
        (level !== 0 && misaligned(level, lo, hi))
      ) {
        const cause = this.#secondLeaf(space, lo, hi, level, use, kind, table, offset);
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
      const shift = this.secondShift;
      const ppn = (hi & 0x3fffff) * 0x400000 + (lo >>> 10);
      if (shift === 0) this.spaPfn = ppn;
      else if (shift === 4) this.spaPfn = ppn - 8 + (low & 15);
      else this.spaPfn = ppn + lowBits(pfn, shift);
      return 0;
    }
  }

  /** Second-stage walk for a process-directory entry of `level`: an implicit read on behalf of a request of `kind`. */
  directoryAccess(space: AddressSpace, pfn: number, level: number, kind: number): number {
    this.#serves = level;
    return this.secondStage(space, pfn, KIND_IMPLICIT_READ, kind);
  }

  /** A candidate first-stage leaf, step by step. Returns 0 (first* set, A/D up to date), RETRY or a cause. */
  #firstLeaf(
    space: AddressSpace,
    lo: number,
    hi: number,
    level: number,
    kind: number,
    supervisor: boolean,
    table: number,
    host: number,
    offset: number,
  ): number {
    const fault = PAGE_FAULT_CAUSE[kind]!;
    const shift = this.#leafShift(lo, hi, level);
    if (shift < 0) return fault;
    if (kind < KIND_ATS) {
      // An ATS request reports what rights there are; the others must have theirs.
      const user = (lo & PTE_U) !== 0;
      if (supervisor ? user && (kind === KIND_EXECUTE || !space.sum) : !user) return fault;
      if (!permits(lo, kind)) return fault;
    }
    const wanted = wantedAD(lo, kind);
    if ((lo & wanted) !== wanted) {
      if (!space.firstHardwareAD) {
        // §3.6: an ATS request that finds D = 0 loses the W right only.
        if ((lo & PTE_A) === 0 || kind < KIND_ATS) return fault;
      } else {
        const cause = this.#setFirstAD(space, lo, hi, lo | wanted, kind, table, host, offset);
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
    table: number,
    host: number,
    offset: number,
  ): number {
    if (space.secondLevels !== 0) {
      const cause = this.secondStage(space, table, KIND_IMPLICIT_WRITE, kind);
      if (cause !== 0) {
        this.iotval2Pfn = table;
        this.iotval2Low = offset | 3;
        return cause;
      }
      host = this.spaPfn;
      if (host >= this.#limit) return ACCESS_FAULT_CAUSE[kind]!;
    }
    return this.#exchange(host, offset, lo, hi, newLo, space.firstBigEndian, kind);
  }

  /** A candidate second-stage leaf, step by step; U must be set, always. */
  #secondLeaf(
    space: AddressSpace,
    lo: number,
    hi: number,
    level: number,
    use: number,
    kind: number,
    table: number,
    offset: number,
  ): number {
    const fault = GUEST_PAGE_FAULT_CAUSE[kind]!;
    const shift = this.#leafShift(lo, hi, level);
    if (shift < 0 || (lo & PTE_U) === 0) return fault;
    const ats = use === KIND_ATS || use === KIND_ATS_WRITE;
    if (!ats && !permits(lo, use)) return fault;
    const wanted = wantedAD(lo, use);
    if ((lo & wanted) !== wanted) {
      if (!space.secondHardwareAD) {
        if ((lo & PTE_A) === 0 || !ats) return fault;
      } else {
        const cause = this.#exchange(table, offset, lo, hi, lo | wanted, space.secondBigEndian, kind);
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
    pfn: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
    bigEndian: boolean,
    kind: number,
  ): number {
    const memory = this.#memory;
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
    if (status !== ACCESS_OK) return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
    return memory.lo === oldLo && memory.hi === oldHi ? 0 : RETRY;
  }

  /** Sv32: 4-byte entries, two levels of 10 bits; no NAPOT, no PBMT. */
  #firstStageNarrow(space: AddressSpace, pfn: number, kind: number, supervisor: boolean): number {
    const memory = this.#memory;
    let table = space.firstRoot;
    let level = 1;
    let tries = 0;
    for (;;) {
      const offset = ((pfn >>> (10 * level)) & 0x3ff) << 2;
      let host = table;
      if (space.secondLevels !== 0) {
        this.#serves = level;
        const cause = this.secondStage(space, table, KIND_IMPLICIT_READ, kind);
        if (cause !== 0) {
          this.iotval2Pfn = table;
          this.iotval2Low = offset | 1;
          return cause;
        }
        host = this.spaPfn;
      }
      if (host >= this.#limit) return ACCESS_FAULT_CAUSE[kind]!;
      const status = memory.load32(host as P, offset);
      if (status !== ACCESS_OK) return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
      const entry = space.firstBigEndian ? swap32(memory.lo) : memory.lo;
      this.firstLoads++;
      if (this.observer !== null) this.observer.tableLoaded(TABLE_FIRST_STAGE, level, host, offset, entry, 0, -1);
      if ((entry & KIND_BITS) === PTE_V) {
        if ((entry & (PTE_A | PTE_D | PTE_U)) !== 0 || level === 0) return PAGE_FAULT_CAUSE[kind]!;
        if ((entry & PTE_G) !== 0) this.firstGlobal = true;
        table = entry >>> 10;
        level = 0;
        continue;
      }
      const fault = PAGE_FAULT_CAUSE[kind]!;
      let lo = entry;
      if (!narrowLeafLegal(lo, level)) return fault;
      if (kind < KIND_ATS) {
        const user = (lo & PTE_U) !== 0;
        if (supervisor ? user && (kind === KIND_EXECUTE || !space.sum) : !user) return fault;
        if (!permits(lo, kind)) return fault;
      }
      const wanted = wantedAD(lo, kind);
      if ((lo & wanted) !== wanted) {
        if (!space.firstHardwareAD) {
          if ((lo & PTE_A) === 0 || kind < KIND_ATS) return fault;
        } else {
          if (space.secondLevels !== 0) {
            const cause = this.secondStage(space, table, KIND_IMPLICIT_WRITE, kind);
            if (cause !== 0) {
              this.iotval2Pfn = table;
              this.iotval2Low = offset | 3;
              return cause;
            }
            host = this.spaPfn;
          }
          const cause = this.#exchangeNarrow(host, offset, lo, (lo | wanted) >>> 0, space.firstBigEndian, kind);
          if (cause === RETRY) {
            if (++tries > RETRY_LIMIT) return ACCESS_FAULT_CAUSE[kind]!;
            continue;
          }
          if (cause !== 0) return cause;
          lo = (lo | wanted) >>> 0;
        }
      }
      if ((lo & PTE_G) !== 0) this.firstGlobal = true;
      this.firstLo = lo;
      this.firstHi = 0;
      this.firstShift = 10 * level;
      this.gpaPfn = level === 0 ? lo >>> 10 : (lo >>> 10) + (pfn & 0x3ff);
      return 0;
    }
  }

  /** Sv32x4: as Sv32 with a 16 KiB root. */
  #secondStageNarrow(space: AddressSpace, pfn: number, use: number, kind: number): number {
    const memory = this.#memory;
    const top = (pfn >>> 10) & 0xfff;
    let table = space.secondRoot + (top >>> 10);
    let offset = (top & 0x3ff) << 2;
    let level = 1;
    let tries = 0;
    for (;;) {
      if (table >= this.#limit) return ACCESS_FAULT_CAUSE[kind]!;
      const status = memory.load32(table as P, offset);
      if (status !== ACCESS_OK) return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
      let lo = space.secondBigEndian ? swap32(memory.lo) : memory.lo;
      this.secondLoads++;
      if (this.observer !== null) {
        const serves = use >= KIND_IMPLICIT_READ ? this.#serves : -1;
        this.observer.tableLoaded(TABLE_SECOND_STAGE, level, table, offset, lo, 0, serves);
      }
      if ((lo & KIND_BITS) === PTE_V) {
        if ((lo & (PTE_A | PTE_D | PTE_U)) !== 0 || level === 0) return GUEST_PAGE_FAULT_CAUSE[kind]!;
        table = lo >>> 10;
        offset = (pfn & 0x3ff) << 2;
        level = 0;
        continue;
      }
      const fault = GUEST_PAGE_FAULT_CAUSE[kind]!;
      if (!narrowLeafLegal(lo, level) || (lo & PTE_U) === 0) return fault;
      const ats = use === KIND_ATS || use === KIND_ATS_WRITE;
      if (!ats && !permits(lo, use)) return fault;
      const wanted = wantedAD(lo, use);
      if ((lo & wanted) !== wanted) {
        if (!space.secondHardwareAD) {
          if ((lo & PTE_A) === 0 || !ats) return fault;
        } else {
          const cause = this.#exchangeNarrow(table, offset, lo, (lo | wanted) >>> 0, space.secondBigEndian, kind);
          if (cause === RETRY) {
            if (++tries > RETRY_LIMIT) return ACCESS_FAULT_CAUSE[kind]!;
            continue;
          }
          if (cause !== 0) return cause;
          lo = (lo | wanted) >>> 0;
        }
      }
      this.secondLo = lo;
      this.secondHi = 0;
      this.secondShift = 10 * level;
      this.spaPfn = level === 0 ? lo >>> 10 : (lo >>> 10) + (pfn & 0x3ff);
      return 0;
    }
  }

  #exchangeNarrow(pfn: number, offset: number, lo: number, newLo: number, bigEndian: boolean, kind: number): number {
    const memory = this.#memory;
    const expected = bigEndian ? swap32(lo) : lo >>> 0;
    const status = compareExchange32(memory, pfn as P, offset, expected, bigEndian ? swap32(newLo) : newLo >>> 0);
    if (status !== ACCESS_OK) return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
    return memory.lo === expected ? 0 : RETRY;
  }
}

/** True if a leaf gives the right that this use needs (rights only; execute needs X, a write W, a read R). */
function permits(lo: number, use: number): boolean {
  if (use === KIND_EXECUTE) return (lo & PTE_X) !== 0;
  return (lo & (use === KIND_WRITE || use === KIND_IMPLICIT_WRITE ? PTE_W : PTE_R)) !== 0;
}

/** The A and D bits that this use needs set. */
function wantedAD(lo: number, use: number): number {
  if (use === KIND_WRITE || use === KIND_IMPLICIT_WRITE) return PTE_A | PTE_D;
  if (use === KIND_ATS_WRITE && (lo & PTE_W) !== 0) return PTE_A | PTE_D;
  return PTE_A;
}

function narrowLeafLegal(lo: number, level: number): boolean {
  if ((lo & PTE_V) === 0 || (lo & (PTE_R | PTE_W)) === PTE_W) return false;
  return level === 0 || (lo & 0xffc00) === 0;
}

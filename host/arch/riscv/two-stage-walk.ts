// The two-stage page-table walk: both stages in one go.
//
//     IOVA ── first stage ──▶ gpaPfn ── second stage ──▶ spaPfn
//                │ each table's address through the second stage (implicit access)
//
// The common case (pointers, and leaves with A and D already set, without NAPOT and PBMT) is decided by masks: from the tables that earlier walks
// came to (`walkShortly`), else from the root or wherever is known, in one loop over both stages (`walkPlainly`); whatever these do not recognise goes
// to `walkFirst` and `walkSecond`, which follow the privileged architecture's steps one by one (stage-walks.ts, with what the results are).

import type { TableCache } from "../../base/caches/table-cache.ts";
import { PendingLoads } from "../../base/walk-observer.ts";
import type { AddressSpace } from "./address-space.ts";
import { misaligned, useBehind } from "./leaf-rules.ts";
import { LEVEL_OF_CLASS, OWN_ACCESS, StageWalks, tellRemembered } from "./stage-walks.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkTable } from "./walk-observer.ts";

export * from "./leaf-rules.ts";
export * from "./stage-walks.ts";

// Not state: what one walk found, and settings that whoever owns the walker makes again.
export class TwoStageWalker<P extends number> extends StageWalks<P> {
  /** What a plain walk has loaded so far. */
  readonly #pending = new PendingLoads();

  /**
   * Both stages for a request that `walkPlainly` did not decide (§3.3 steps 17 to 19), with every rule: 0 with the results in place, or
   * a cause. If the first stage ends at an interrupt file's page, `isMessage` is set and the second stage is left alone. A
   * guest-page fault of the access itself has iotval2Low = OWN_ACCESS.
   */
  walkCarefully(space: AddressSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const { tables } = this;
    this.firstPointer.shift = 0;
    this.secondPointer.shift = 0;
    const first = this.walkFirst(space, low, high, kind, supervisor);
    if (first !== 0) return first;
    if (tables !== null && this.firstPointer.shift !== 0) tables.insert(space.tag, low, high, this.firstPointer);
    if (space.isMessagePage(this.gpaLow, this.gpaHigh)) {
      this.isMessage = true;
      return 0;
    }
    const use = useBehind(kind, this.firstLo);
    const second = this.walkSecond(space, this.gpaLow, this.gpaHigh, use, kind);
    if (second !== 0) {
      this.iotval2Pfn = this.gpaPfn;
      this.iotval2Low = OWN_ACCESS;
    } else if (tables !== null && this.secondPointer.shift !== 0)
      tables.insert(space.secondTag, this.gpaLow, this.gpaHigh, this.secondPointer);
    return second;
  }

  /**
   * The plain way through both stages: pointers and leaves as they usually are, little-endian, in the window of memory. True with the
   * results in place. False at anything else; `walkCarefully` must then follow and starts over (the observer is told of that alone).
   * Frame numbers are pairs: bits 31:0 and 51:32. One round of the outer loop takes one guest-physical frame through the second
   * stage: those of the first stage's tables, then that of the data. What the loops use is held in locals, as integers, and
   * constants (POINTER_BITS, PTE_*, ALL_RIGHTS, BARE_SHIFT) are literals: compiled code then keeps them in registers.
   */
  walkPlainly(space: AddressSpace, low: number, high: number, kind: number, supervisor: boolean): boolean {
    this.isMessage = false;
    if (kind >= space.plainKinds) return false;
    const signLow = low & space.signLow;
    const signHigh = high & space.signHigh;
    if ((signLow | signHigh) !== 0 && (signLow !== space.signLow || signHigh !== space.signHigh)) return false;
    const first = this.first;
    const firstWords = first.words;
    const firstBaseLow = first.baseLow | 0;
    const firstBaseHigh = first.baseHigh | 0;
    const firstPages = first.pages >>> 0;
    const second = this.second;
    const secondWords = second.words;
    const secondBaseLow = second.baseLow | 0;
    const secondBaseHigh = second.baseHigh | 0;
    const secondPages = second.pages >>> 0;
    const plainHigh = this.plainHigh | 0;
    const watched = this.observer !== null;
    if (watched) this.#pending.forget();
    const tables = this.tables;
    const secondLevels = space.secondLevels | 0;
    // V, R, A of a leaf, and W, D to write; in the first stage U for a user, no U for a supervisor without SUM.
    const need = (kind === 0 ? 0x43 : 0xc7) | (supervisor ? 0 : 0x10);
    const mask = supervisor && !space.sum ? need | 0x10 : need;
    let level = (space.firstLevels - 1) | 0;
    let topLevel = level;
    let guestLow = space.firstRootLow | 0;
    let guestHigh = space.firstRootHigh | 0;
    let firstLo = 0xdf;
    let firstShift = 52;
    let secondLo = 0xdf;
    let secondShift = 52;
    let global = 0;
    let hostLow = 0;
    let hostHigh = 0;
    const { firstPointer, secondPointer } = this;
    firstPointer.shift = 0;
    secondPointer.shift = 0;
    let remembered = false;
    let firstLoads = 0;
    let secondLoads = 0;
    if (level < 0) {
      guestLow = low;
      guestHigh = high;
      if (space.recognizesMessages && space.isMessagePage(low, high)) return false;
    } else if (tables !== null && space.tag.tables !== 0) {
      const entry = tables.find(space.tag, low, high);
      if (entry >= 0) {
        remembered = true;
        hostLow = tables.frameLowAt(entry);
        hostHigh = tables.frameHighAt(entry);
        topLevel = level = LEVEL_OF_CLASS[tables.classAt(entry)]!;
        if (watched) tellRemembered(this.#pending, TABLE_FIRST_STAGE, tables, entry, -1);
      }
    }
    for (;;) {
      if (remembered) remembered = false;
      else if (secondLevels === 0) {
        hostLow = guestLow;
        hostHigh = guestHigh;
      } else {
        if (((guestLow & space.beyondLow) | (guestHigh & space.beyondHigh)) !== 0) return false;
        const secondNeed = level >= 0 || kind === 0 ? 0x53 : 0xd7;
        // `shift` is 9 times the level. The root is 16 KiB: two more index bits choose one of its four pages.
        let shift = secondLevels === 3 ? 18 : secondLevels === 4 ? 27 : 36;
        let index =
          shift === 18 ? guestLow >>> 18 : shift === 27 ? (guestLow >>> 27) | (guestHigh << 5) : guestHigh >>> 4;
        hostLow = space.secondRootLow | (index >>> 9);
        hostHigh = space.secondRootHigh | 0;
        if (tables !== null && space.secondTag.tables !== 0) {
          const entry = tables.find(space.secondTag, guestLow, guestHigh);
          if (entry >= 0) {
            hostLow = tables.frameLowAt(entry);
            hostHigh = tables.frameHighAt(entry);
            shift = Math.imul(LEVEL_OF_CLASS[tables.classAt(entry)]!, 9);
            index = shift === 27 ? (guestLow >>> 27) | (guestHigh << 5) : guestLow >>> shift;
            if (watched) tellRemembered(this.#pending, TABLE_SECOND_STAGE, tables, entry, level);
          }
        }
        secondPointer.shift = 0;
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
          const tableLow = hostLow;
          const tableHigh = hostHigh;
          hostLow = (lo >>> 10) | (hi << 22);
          hostHigh = (hi >>> 10) & 0xfff;
          if (pointer) {
            secondPointer.follow(shift, tableLow, tableHigh, index, lo, hi);
            shift = (shift - 9) | 0;
            index = shift === 27 ? (guestLow >>> 27) | (guestHigh << 5) : guestLow >>> shift;
            continue;
          }
          secondLo = lo;
          secondShift = shift;
          secondPointer.tableLow = tableLow;
          secondPointer.tableHigh = tableHigh;
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
        if (tables !== null) this.#remember(tables, space, low, high);
        if (watched) this.#pending.tell(this.observer!);
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
      if (!pointer) {
        firstPointer.tableLow = hostLow;
        firstPointer.tableHigh = hostHigh;
        // What lies under a global pointer is global whatever its leaf says: such pointers are not remembered.
        if ((global & 0x20) !== 0) firstPointer.shift = 0;
      }
      global |= lo;
      guestLow = (lo >>> 10) | (hi << 22);
      guestHigh = (hi >>> 10) & 0xfff;
      if (pointer) {
        firstPointer.follow(Math.imul(level, 9), hostLow, hostHigh, index, lo, hi);
        level = (level - 1) | 0;
        continue;
      }
      firstLo = lo;
      firstShift = 0;
      firstLoads = topLevel - level + 1;
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

  /**
   * The shortest way: one load a stage, of an entry for 4 KiB (in the second stage also 2 MiB) in a table that is remembered. What both leaves say
   * (their V is 1) with the results in place, as `walkPlainly` would find them; 0 if it must be asked.
   */
  walkShortly(space: AddressSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const tables = this.tables;
    if (tables === null || this.observer !== null || kind >= space.plainKinds) return 0;
    const plainHigh = this.plainHigh;
    let guestLow = low | 0;
    let guestHigh = high | 0;
    let firstLo = 0xdf;
    let firstShift = 52;
    if (space.firstLevels !== 0) {
      const signLow = low & space.signLow;
      const signHigh = high & space.signHigh;
      if ((signLow | signHigh) !== 0 && (signLow !== space.signLow || signHigh !== space.signHigh)) return 0;
      const entry = tables.findOfPages(space.tag, low, high);
      if (entry < 0) return 0;
      const { words, baseLow, baseHigh, pages } = this.first;
      const page = (tables.frameLowAt(entry) - baseLow) >>> 0;
      if (page >= pages || tables.frameHighAt(entry) !== baseHigh) return 0;
      const at = (page << 10) | ((low & 511) << 1);
      const lo = words[at]!;
      const hi = words[at | 1]!;
      // V, R, A of a leaf, and W, D to write; U for a user, no U for a supervisor without SUM.
      const need = (kind === 0 ? 0x43 : 0xc7) | (supervisor ? 0 : 0x10);
      if ((hi & plainHigh) !== 0 || (lo & (supervisor && !space.sum ? need | 0x10 : need)) !== need) return 0;
      guestLow = (lo >>> 10) | (hi << 22);
      guestHigh = (hi >>> 10) & 0xfff;
      firstLo = lo;
      firstShift = 0;
    }
    if (space.recognizesMessages && space.isMessagePage(guestLow, guestHigh)) return 0;
    let hostLow = guestLow;
    let hostHigh = guestHigh;
    let secondLo = 0xdf;
    let secondShift = 52;
    if (space.secondLevels !== 0) {
      if (((guestLow & space.beyondLow) | (guestHigh & space.beyondHigh)) !== 0) return 0;
      let entry = tables.findOfPages(space.secondTag, guestLow, guestHigh);
      secondShift = 0;
      if (entry < 0) {
        entry = tables.find(space.secondTag, guestLow, guestHigh);
        if (entry < 0 || LEVEL_OF_CLASS[tables.classAt(entry)] !== 1) return 0;
        secondShift = 9;
      }
      const { words, baseLow, baseHigh, pages } = this.second;
      const page = (tables.frameLowAt(entry) - baseLow) >>> 0;
      if (page >= pages || tables.frameHighAt(entry) !== baseHigh) return 0;
      const at = (page << 10) | (((guestLow >>> secondShift) & 511) << 1);
      const lo = words[at]!;
      const hi = words[at | 1]!;
      const need = kind === 0 ? 0x53 : 0xd7;
      if ((hi & plainHigh) !== 0 || (lo & need) !== need) return 0;
      hostLow = (lo >>> 10) | (hi << 22);
      hostHigh = (hi >>> 10) & 0xfff;
      if (secondShift !== 0) {
        if ((hostLow & 511) !== 0) return 0;
        hostLow |= guestLow & 511;
      }
      secondLo = lo;
    }
    this.isMessage = false;
    this.firstLo = firstLo;
    this.firstHi = 0;
    this.firstShift = firstShift;
    this.firstGlobal = firstShift === 0 && (firstLo & 0x20) !== 0;
    this.gpaLow = guestLow;
    this.gpaHigh = guestHigh;
    this.secondLo = secondLo;
    this.secondHi = 0;
    this.secondShift = secondShift;
    this.spaLow = hostLow;
    this.spaHigh = hostHigh;
    if (this.counting) {
      if (firstShift === 0) this.firstLoads++;
      if (secondShift !== 52) this.secondLoads++;
    }
    return firstLo & secondLo;
  }

  /**
   * Remembers the tables that a whole walk came to: the first stage's, and the second stage's for the address itself. Those on the way to tables are
   * left to themselves, so that a first walk shows all there is.
   */
  #remember(tables: TableCache, space: AddressSpace, low: number, high: number): void {
    const { firstPointer, secondPointer } = this;
    if (firstPointer.shift !== 0) tables.insert(space.tag, low, high, firstPointer);
    if (secondPointer.shift !== 0) tables.insert(space.secondTag, this.gpaLow, this.gpaHigh, secondPointer);
  }

  /** As `tell`, from the plain way. */
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
    const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
    this.#pending.tableLoaded(table, level, pfn, (index & 511) << 3, lo >>> 0, hi >>> 0, serves);
  }
}

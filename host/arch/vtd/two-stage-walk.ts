// The walk of both stages in one go, and of whichever of them a space has.
//
//     IOVA ── first stage ──▶ guest frame ── second stage ──▶ host frame
//                │ each table's address through the second stage (a read)
//
// The common case (accessed and dirty bits set, rights that need no second thought) is decided by masks: from the tables that earlier walks came to
// (`walkShortly`), else from the root or wherever is known, in one loop over both stages (`walkPlainly`); whatever these do not recognise goes to
// `walkCarefully`, which follows the specification's steps one by one (stage-walks.ts).

import type { TableCache } from "../../base/caches/table-cache.ts";
import { PendingLoads } from "../../base/walk-observer.ts";
import { FAULT_INTERRUPT_RANGE, FAULT_SM_INTERRUPT_RANGE } from "./fault-reasons.ts";
import { FS_D, FS_RW, FS_US, SS_D, SS_R, SS_W } from "./page-table-entry.ts";
import { KIND_ATS, LEVEL_OF_CLASS, NO_STAGE_SHIFT, StageWalks, tellRemembered } from "./stage-walks.ts";
import type { TranslationSpace } from "./translation-space.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkTable } from "./walk-observer.ts";

export {
  KIND_ATOMIC,
  KIND_ATS,
  KIND_ATS_WRITE,
  KIND_READ,
  KIND_WRITE,
  NO_STAGE_SHIFT,
} from "./stage-walks.ts";

/** What a walk grants: bit 0 read, 1 write, 2 both at once, for user requests; the same three above for supervisor ones. */
export const GRANTS_READ = 1 << 0;
export const GRANTS_WRITE = 1 << 1;
export const GRANTS_ATOMIC = 1 << 2;
/** Shift to a supervisor's. */
export const SUPERVISOR_GRANTS = 3;

// Compiled code knows the constants of its own module, and looks up imported ones each time: here are those that every walk meets.
const OFF_SHIFT = NO_STAGE_SHIFT;
const FIRST_DIRTY = FS_D;
const FIRST_WRITE = FS_RW;
const FIRST_USER = FS_US;
const SECOND_DIRTY = SS_D;
const SECOND_READ = SS_R;
const SECOND_WRITE = SS_W;
const ATOMIC = GRANTS_ATOMIC;
const SUPERVISOR = SUPERVISOR_GRANTS;

// Not state: what one walk found, and settings that whoever owns the walker makes again
export class TwoStageWalker<P extends number> extends StageWalks<P> {
  /** What a plain walk has loaded so far. */
  readonly #pending = new PendingLoads();

  /**
   * For a request that `walkPlainly` did not decide, with every rule: 0 with the results in place, or a fault reason. A translation request is refused
   * no right; what it may have is in `grants`.
   */
  walkCarefully(space: TranslationSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const { tables } = this;
    this.firstPointer.shift = 0;
    this.secondPointer.shift = 0;
    let use = kind;
    if (space.firstLevels !== 0) {
      const reason = this.walkFirst(space, low, high, kind, supervisor);
      if (reason !== 0) return reason;
      if (tables !== null && this.firstPointer.shift !== 0) tables.insert(space.tag, low, high, this.firstPointer);
      if (kind >= KIND_ATS) {
        if (!supervisor && (this.firstRights & FS_US) === 0) {
          // Nothing is left for the second stage to grant.
          this.secondRights = 0;
          this.secondShift = NO_STAGE_SHIFT;
          return 0;
        }
        if ((this.firstRights & FS_RW) === 0 && !(supervisor && !space.wpe)) use = KIND_ATS;
      }
    } else {
      this.firstRights = FS_RW | FS_US;
      this.firstLo = FS_D;
      this.firstShift = NO_STAGE_SHIFT;
      this.guestLow = low;
      this.guestHigh = high;
    }
    if (space.secondLevels !== 0) {
      this.serves = -1;
      const reason = this.walkSecond(space, this.guestLow, this.guestHigh, use);
      if (reason !== 0) return reason;
      if (tables !== null && this.secondPointer.shift !== 0)
        tables.insert(space.secondTag, this.guestLow, this.guestHigh, this.secondPointer);
    } else {
      this.secondRights = SS_R | SS_W;
      this.secondLo = SS_D;
      this.secondShift = NO_STAGE_SHIFT;
      this.hostLow = this.guestLow;
      this.hostHigh = this.guestHigh;
    }
    if (this.hostHigh === 0 && this.hostLow >>> 8 === 0xfee)
      return space.scalable ? FAULT_SM_INTERRUPT_RANGE : FAULT_INTERRUPT_RANGE;
    return 0;
  }

  /** What the last walk grants, six bits; writing only where the dirty bits that go with it are set already. */
  grants(space: TranslationSpace): number {
    const { firstRights, secondRights } = this;
    const clean = (this.firstLo & FIRST_DIRTY) === 0 || (space.secondAD && (this.secondLo & SECOND_DIRTY) === 0);
    const read = secondRights & SECOND_READ;
    const write = clean ? 0 : secondRights & SECOND_WRITE;
    const atomic = read !== 0 && write !== 0 ? ATOMIC : 0;
    const all = read | write | atomic;
    const user = (firstRights & FIRST_USER) === 0 ? 0 : (firstRights & FIRST_WRITE) !== 0 ? all : read;
    const supervisor = (firstRights & FIRST_WRITE) !== 0 || !space.wpe ? all : read;
    return user | (supervisor << SUPERVISOR);
  }

  /**
   * The plain way through both stages: entries as they usually are, in the window of memory. True with the results in place. False at anything else;
   * `walkCarefully` must then follow and starts over (the observer is told of that alone). One round of the outer loop takes one guest frame through
   * the second stage: those of the first stage's tables, then that of the data. What the loops use is held in locals, as integers, and constants are
   * literals: compiled code then keeps them in registers.
   */
  walkPlainly(space: TranslationSpace, low: number, high: number, kind: number, supervisor: boolean): boolean {
    // KIND_READ and KIND_WRITE only.
    if (kind > 1) return false;
    const watched = this.observer !== null;
    if (watched) this.#pending.forget();
    const tables = this.tables;
    const sign = high & space.signHigh;
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
    const firstReserved = this.rules.entryReserved | 0;
    // With bit 62.
    const secondReserved = firstReserved | 0x40000000;
    const secondLevels = space.secondLevels | 0;
    // Of every first-stage entry: P and A (EA), U/S for users, R/W to write but for supervisors without WPE; D is the leaf's.
    let need = space.eafe ? 0x421 : 0x21;
    if (!supervisor) need |= 4;
    if (kind === 1 && (!supervisor || space.wpe)) need |= 2;
    const leafNeed = kind === 1 ? need | 0x40 : need;
    const accessed = space.secondAD ? 0x100 : 0;
    let level = (space.firstLevels - 1) | 0;
    let guestLow = space.firstRootLow | 0;
    let guestHigh = space.firstRootHigh | 0;
    let firstRights = 6;
    let firstLo = 0x40;
    let firstShift = 52;
    let secondRights = 3;
    let secondLo = 0x200;
    let secondShift = 52;
    let hostLow = 0;
    let hostHigh = 0;
    const { firstPointer, secondPointer } = this;
    firstPointer.shift = 0;
    secondPointer.shift = 0;
    let remembered = false;
    if (level < 0) {
      guestLow = low;
      guestHigh = high;
    } else {
      if (sign !== 0 && sign !== space.signHigh) return false;
      if (tables !== null && space.tag.tables !== 0) {
        const entry = tables.find(space.tag, low, high);
        if (entry >= 0) {
          remembered = true;
          hostLow = tables.frameLowAt(entry);
          hostHigh = tables.frameHighAt(entry);
          level = LEVEL_OF_CLASS[tables.classAt(entry)]!;
          if (watched) tellRemembered(this.#pending, TABLE_FIRST_STAGE, tables, entry, -1);
        }
      }
    }
    for (;;) {
      if (remembered) remembered = false;
      else if (secondLevels === 0) {
        hostLow = guestLow;
        hostHigh = guestHigh;
      } else {
        if (((guestLow & space.beyondLow) | (guestHigh & space.beyondHigh)) !== 0) return false;
        // R, or W; A with SSADE; D is the leaf's.
        const secondNeed = (level >= 0 || kind === 0 ? 1 : 2) | accessed;
        const secondLeafNeed = level < 0 && kind === 1 && accessed !== 0 ? secondNeed | 0x200 : secondNeed;
        // `shift` is 9 times the level.
        let shift = secondLevels === 3 ? 18 : secondLevels === 4 ? 27 : 36;
        hostLow = space.secondRootLow | 0;
        hostHigh = space.secondRootHigh | 0;
        if (tables !== null && space.secondTag.tables !== 0) {
          const entry = tables.find(space.secondTag, guestLow, guestHigh);
          if (entry >= 0) {
            hostLow = tables.frameLowAt(entry);
            hostHigh = tables.frameHighAt(entry);
            shift = Math.imul(LEVEL_OF_CLASS[tables.classAt(entry)]!, 9);
            if (watched) tellRemembered(this.#pending, TABLE_SECOND_STAGE, tables, entry, level);
          }
        }
        secondPointer.shift = 0;
        let above = 3;
        for (;;) {
          const index =
            shift === 27 ? (guestLow >>> 27) | (guestHigh << 5) : shift === 36 ? guestHigh >>> 4 : guestLow >>> shift;
          const page = (hostLow - secondBaseLow) >>> 0;
          if (page >= secondPages || hostHigh !== secondBaseHigh) return false;
          const at = (page << 10) | ((index & 511) << 1);
          const lo = secondWords[at]!;
          const hi = secondWords[at | 1]!;
          if ((hi & secondReserved) !== 0) return false;
          if (watched) this.#tellPlainly(TABLE_SECOND_STAGE, shift / 9, hostLow, hostHigh, index, lo, hi, level);
          if (shift !== 0 && (lo & 0x80) === 0) {
            // A pointer: no SNP.
            if ((lo & (secondNeed | 0x800)) !== secondNeed) return false;
            secondPointer.follow(shift, hostLow, hostHigh, index, lo, hi);
            above &= lo;
            hostLow = (lo >>> 12) | (hi << 20);
            hostHigh = (hi >>> 12) & 0xff;
            shift = (shift - 9) | 0;
            continue;
          }
          if ((lo & secondLeafNeed) !== secondLeafNeed) return false;
          if ((lo & 0x800) !== 0 && !this.rules.features.SC) return false;
          secondPointer.tableLow = hostLow;
          secondPointer.tableHigh = hostHigh;
          if (above !== 3) secondPointer.shift = 0;
          secondRights = above & lo;
          secondLo = lo;
          secondShift = shift;
          hostLow = (lo >>> 12) | (hi << 20);
          hostHigh = (hi >>> 12) & 0xff;
          if (shift !== 0) {
            if (shift > 18 || (this.rules.features.SSLPS & (shift / 9)) === 0) return false;
            const within = (1 << shift) - 1;
            if ((hostLow & within) !== 0) return false;
            hostLow |= guestLow & within;
          }
          break;
        }
      }
      if (level < 0) {
        if (hostHigh === 0 && hostLow >>> 8 === 0xfee) return false;
        this.firstRights = firstRights;
        this.firstLo = firstLo;
        this.firstShift = firstShift;
        this.guestLow = guestLow;
        this.guestHigh = guestHigh;
        this.secondRights = secondRights;
        this.secondLo = secondLo;
        this.secondShift = secondShift;
        this.hostLow = hostLow;
        this.hostHigh = hostHigh;
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
      if ((hi & firstReserved) !== 0) return false;
      if (watched) this.#tellPlainly(TABLE_FIRST_STAGE, level, hostLow, hostHigh, index, lo, hi, -1);
      guestLow = (lo >>> 12) | (hi << 20);
      guestHigh = (hi >>> 12) & 0xff;
      if (level !== 0 && (lo & 0x80) === 0) {
        if ((lo & need) !== need) return false;
        firstPointer.follow(Math.imul(level, 9), hostLow, hostHigh, index, lo, hi);
        firstRights &= lo;
        level = (level - 1) | 0;
        continue;
      }
      if ((lo & leafNeed) !== leafNeed) return false;
      firstPointer.tableLow = hostLow;
      firstPointer.tableHigh = hostHigh;
      if (firstRights !== 6) firstPointer.shift = 0;
      firstRights &= lo;
      firstLo = lo;
      firstShift = 0;
      if (level !== 0) {
        // Bit 12 is PAT, the others below the leaf's size are reserved.
        if (level > 2 || (level === 2 && !this.rules.features.FS1GP)) return false;
        firstShift = (level << 3) + level;
        const within = (1 << firstShift) - 1;
        if ((guestLow & within & ~1) !== 0) return false;
        guestLow = (guestLow & ~within) | (low & within);
      }
      level = -1;
    }
  }

  /**
   * The shortest way: one load a stage, of an entry for 4 KiB (in the second stage also 2 MiB) in a table that is remembered. What `grants` then says (never
   * 0) with the results in place, as `walkPlainly` would find them; 0 if it must be asked.
   */
  walkShortly(space: TranslationSpace, low: number, high: number, kind: number, supervisor: boolean): number {
    const tables = this.tables;
    // KIND_READ and KIND_WRITE only.
    if (tables === null || this.observer !== null || kind > 1) return 0;
    const reserved = this.rules.entryReserved;
    let guestLow = low | 0;
    let guestHigh = high | 0;
    let firstLo = 0x46;
    let firstShift = OFF_SHIFT;
    if (space.firstLevels !== 0) {
      const entry = tables.findOfPages(space.tag, low, high);
      if (entry < 0) return 0;
      const { words, baseLow, baseHigh, pages } = this.first;
      const page = (tables.frameLowAt(entry) - baseLow) >>> 0;
      if (page >= pages || tables.frameHighAt(entry) !== baseHigh) return 0;
      const at = (page << 10) | ((low & 511) << 1);
      const lo = words[at]!;
      const hi = words[at | 1]!;
      // P and A (EA), U/S for users, R/W and D to write (R/W but for supervisors without WPE).
      let need = space.eafe ? 0x421 : 0x21;
      if (!supervisor) need |= 4;
      if (kind === 1) need |= supervisor && !space.wpe ? 0x40 : 0x42;
      if ((hi & reserved) !== 0 || (lo & need) !== need) return 0;
      guestLow = (lo >>> 12) | (hi << 20);
      guestHigh = (hi >>> 12) & 0xff;
      firstLo = lo;
      firstShift = 0;
    }
    let hostLow = guestLow;
    let hostHigh = guestHigh;
    let secondLo = 0x203;
    let secondShift = OFF_SHIFT;
    if (space.secondLevels !== 0) {
      if (((guestLow & space.beyondLow) | (guestHigh & space.beyondHigh)) !== 0) return 0;
      // R, or W; A and D with SSADE; of a large page PS.
      let need = kind === 0 ? 1 : 2;
      if (space.secondAD) need |= kind === 0 ? 0x100 : 0x300;
      let entry = tables.findOfPages(space.secondTag, guestLow, guestHigh);
      secondShift = 0;
      if (entry < 0) {
        entry = tables.find(space.secondTag, guestLow, guestHigh);
        if (entry < 0 || LEVEL_OF_CLASS[tables.classAt(entry)] !== 1 || (this.rules.features.SSLPS & 1) === 0) return 0;
        need |= 0x80;
        secondShift = 9;
      }
      const { words, baseLow, baseHigh, pages } = this.second;
      const page = (tables.frameLowAt(entry) - baseLow) >>> 0;
      if (page >= pages || tables.frameHighAt(entry) !== baseHigh) return 0;
      const at = (page << 10) | (((guestLow >>> secondShift) & 511) << 1);
      const lo = words[at]!;
      const hi = words[at | 1]!;
      // Bit 62 is reserved here.
      if ((hi & (reserved | 0x40000000)) !== 0 || (lo & need) !== need) return 0;
      if ((lo & 0x800) !== 0 && !this.rules.features.SC) return 0;
      hostLow = (lo >>> 12) | (hi << 20);
      hostHigh = (hi >>> 12) & 0xff;
      if (secondShift !== 0) {
        if ((hostLow & 511) !== 0) return 0;
        hostLow |= guestLow & 511;
      }
      secondLo = lo;
    }
    if (hostHigh === 0 && hostLow >>> 8 === 0xfee) return 0;
    this.firstRights = firstLo & 6;
    this.firstLo = firstLo;
    this.firstShift = firstShift;
    this.guestLow = guestLow;
    this.guestHigh = guestHigh;
    this.secondRights = secondLo & 3;
    this.secondLo = secondLo;
    this.secondShift = secondShift;
    this.hostLow = hostLow;
    this.hostHigh = hostHigh;
    return this.grants(space);
  }

  /**
   * Remembers the tables that a whole walk came to: the first stage's, and the second stage's for the address itself. Those on the way to tables are
   * left to themselves, so that a first walk shows all there is.
   */
  #remember(tables: TableCache, space: TranslationSpace, low: number, high: number): void {
    const { firstPointer, secondPointer } = this;
    if (firstPointer.shift !== 0) tables.insert(space.tag, low, high, firstPointer);
    if (secondPointer.shift !== 0) tables.insert(space.secondTag, this.guestLow, this.guestHigh, secondPointer);
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

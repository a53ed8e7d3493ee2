// The walk of both stages (VMSAv8-64, DDI 0487 D8; IHI 0070 §3.3.3, §3.13).
//
//     input ── stage 1 ──▶ guestLow/High ── stage 2 ──▶ hostLow/High
//                │ each table's address through stage 2 (CLASS TT)
//
// The common case (access flags set, nothing to mark dirty, no restrictions in tables) goes from the tables that earlier walks came to
// (`walkShortly`), else from the root or wherever is known, in one loop over both stages (`walkPlainly`); whatever these do not
// recognise goes through the stages one after the other, step by step (stage-walks.ts, where the results are described too).

import { TABLE_SHIFTS, TABLE_STRIDES } from "../../base/caches/table-cache.ts";
import { PendingLoads } from "../../base/walk-observer.ts";
import { WORLD_EL2 } from "./context-descriptor.ts";
import { CLASS_IN } from "./event-records.ts";
import { ALL_RIGHTS, CLEAN, isDevice, PRIVILEGED, READ, UNPRIVILEGED, WRITE } from "./leaf-rights.ts";
import { KIND_ATS, KIND_ATS_WRITE, NEEDS, NO_STAGE_SHIFT, StageWalks, tellRemembered } from "./stage-walks.ts";
import { type FirstStageHalf, STAGE_1, STAGE_2, type TableTree, type TranslationRegime } from "./translation-regime.ts";
import { TABLE_STAGE_1, TABLE_STAGE_2, type WalkTable } from "./walk-observer.ts";

export * from "./stage-walks.ts";

// Compiled code knows the constants of its own module, and looks up imported ones each time: here are those that every walk meets.
const HAS_STAGE_1 = STAGE_1;
const HAS_STAGE_2 = STAGE_2;
const ONE_HALF = WORLD_EL2;
const OFF_SHIFT = NO_STAGE_SHIFT;
const MARKED_CLEAN = CLEAN;
const RIGHTS = ALL_RIGHTS;
const USER_READ = READ & UNPRIVILEGED;
const USER_WRITE = WRITE & UNPRIVILEGED;
const PRIVILEGED_READ = READ & PRIVILEGED;
const PRIVILEGED_WRITE = WRITE & PRIVILEGED;

// Not state: what one walk found
export class TwoStageWalker<P extends number> extends StageWalks<P> {
  /** What a plain walk has loaded so far. */
  readonly #pending = new PendingLoads();

  /**
   * The plain way through both stages. True with the results in place; false at anything else: `walkCarefully` must then follow and starts over
   * (the observer is told of that alone). `low`, `high`: the frame number of the address, its top byte already replaced if it is ignored.
   */
  walkPlainly(regime: TranslationRegime, low: number, high: number, kind: number, privileged: boolean): boolean {
    if (kind >= regime.plainKinds) return false;
    const second = regime.second;
    const hasSecond = second.enabled;
    const watched = this.observer !== null;
    if (watched) this.#pending.forget();
    const tables = this.tables;
    const first = this.first;
    const firstWords = first.words;
    const firstBaseLow = first.baseLow | 0;
    const firstBaseHigh = first.baseHigh | 0;
    const firstPages = first.pages >>> 0;
    const reader = this.second;
    const secondWords = reader.words;
    const secondBaseLow = reader.baseLow | 0;
    const secondBaseHigh = reader.baseHigh | 0;
    const secondPages = reader.pages >>> 0;
    const lastShift2 = second.lastShift | 0;
    let half: FirstStageHalf = regime.lower;
    let shift1 = -1;
    let mask1 = 0;
    let entry1 = 0;
    let guestLow = low;
    let guestHigh = high;
    if (regime.first) {
      const upper = (high & 0x800) !== 0 && regime.world !== WORLD_EL2;
      if (upper) half = regime.upper;
      if (!half.enabled || half.privilegedOnly) return false;
      const signLow = low & half.signLow;
      const signHigh = high & half.signHigh;
      if (upper ? signLow !== half.signLow || signHigh !== half.signHigh : (signLow | signHigh) !== 0) return false;
      shift1 = half.startShift;
      mask1 = half.startMask;
      entry1 = half.rootEntry;
      guestLow = half.rootLow;
      guestHigh = half.rootHigh;
    }
    const lastShift1 = half.lastShift | 0;
    const right = (NEEDS[kind]! & (privileged ? 56 : 7)) | 0;
    let rights1 = 63;
    let rights2 = 63;
    let firstShift = 52;
    let secondShift = 52;
    let global = false;
    let hostLow = 0;
    let hostHigh = 0;
    const { firstPointer, secondPointer } = this;
    firstPointer.shift = 0;
    secondPointer.shift = 0;
    let remembered = false;
    if (tables !== null && shift1 >= 0 && regime.tag.tables !== 0) {
      const entry = tables.find(regime.tag, low, high);
      if (entry >= 0 && TABLE_STRIDES[tables.classAt(entry)] === half.stride) {
        remembered = true;
        hostLow = tables.frameLowAt(entry);
        hostHigh = tables.frameHighAt(entry);
        shift1 = TABLE_SHIFTS[tables.classAt(entry)]! - half.stride;
        mask1 = half.strideMask;
        entry1 = 0;
        if (watched) tellRemembered(this.#pending, TABLE_STAGE_1, half, tables, entry, -1, low, high);
      }
    }
    for (;;) {
      let index1 = 0;
      if (shift1 >= 0) {
        index1 =
          ((shift1 < 32 ? (low >>> shift1) | ((high << 1) << (31 - shift1)) : high >>> (shift1 - 32)) & mask1) + entry1;
        guestLow |= index1 >>> 9;
      }
      if (remembered) {
        remembered = false;
        hostLow |= index1 >>> 9;
      } else if (!hasSecond) {
        hostLow = guestLow;
        hostHigh = guestHigh;
      } else {
        if (((guestLow & second.inputLow) | (guestHigh & second.inputHigh)) !== 0) return false;
        let shift = second.startShift | 0;
        let mask = second.startMask | 0;
        let entry = second.rootEntry | 0;
        hostLow = second.rootLow;
        hostHigh = second.rootHigh;
        if (tables !== null && second.tag.tables !== 0) {
          const known = tables.find(second.tag, guestLow, guestHigh);
          if (known >= 0 && TABLE_STRIDES[tables.classAt(known)] === second.stride) {
            hostLow = tables.frameLowAt(known);
            hostHigh = tables.frameHighAt(known);
            shift = TABLE_SHIFTS[tables.classAt(known)]! - second.stride;
            mask = second.strideMask | 0;
            entry = 0;
            const serves = shift1 < 0 ? -1 : half.levelOf(shift1);
            if (watched)
              tellRemembered(this.#pending, TABLE_STAGE_2, second, tables, known, serves, guestLow, guestHigh);
          }
        }
        secondPointer.shift = 0;
        for (;;) {
          const index =
            ((shift < 32 ? (guestLow >>> shift) | ((guestHigh << 1) << (31 - shift)) : guestHigh >>> (shift - 32)) &
              mask) +
            entry;
          const frame = hostLow | (index >>> 9);
          const page = (frame - secondBaseLow) >>> 0;
          if (page >= secondPages || hostHigh !== secondBaseHigh) return false;
          const at = (page << 10) | ((index & 511) << 1);
          const lo = secondWords[at]!;
          const hi = secondWords[at | 1]!;
          // DESCRIPTOR_VALID | DESCRIPTOR_TABLE.
          const pointer = shift !== lastShift2 && (lo & 3) === 3;
          // DESCRIPTOR_VALID, DESCRIPTOR_AF.
          if (!pointer && ((lo & 0x401) !== 0x401 || shift > second.blockShift)) return false;
          if (shift === lastShift2 && (lo & 2) === 0) return false;
          if (watched) {
            this.#tellPlainly(
              TABLE_STAGE_2,
              second,
              shift,
              frame,
              hostHigh,
              index,
              lo,
              hi,
              half,
              shift1,
              guestLow,
              guestHigh,
            );
          }
          const tableLow = hostLow;
          const tableHigh = hostHigh;
          hostLow = (lo >>> 12) | (hi << 20);
          hostHigh = (hi >>> 12) & 0xf;
          if (((hostLow & second.outputLow) | (hostHigh & second.outputHigh)) !== 0) return false;
          if (pointer) {
            secondPointer.follow(shift, frame, tableHigh, index, lo, hi);
            hostLow &= second.tableMask;
            shift = (shift - second.stride) | 0;
            mask = second.strideMask | 0;
            entry = 0;
            continue;
          }
          secondPointer.tableLow = tableLow;
          secondPointer.tableHigh = tableHigh;
          const within = (1 << shift) - 1;
          hostLow = (hostLow & ~within) | (guestLow & within);
          if (shift1 >= 0) {
            if ((lo & 0x40) === 0 || (second.protectedWalk && isDevice(lo, second))) return false;
          } else {
            rights2 = second.leafRights.ofSecond(lo, hi, second);
            secondShift = shift;
          }
          break;
        }
      }
      if (shift1 < 0) {
        const rights = rights1 & rights2 & 63;
        const clean = ((rights1 | rights2) & 64) !== 0;
        if ((rights & right) === 0 || (clean && kind === 1)) return false;
        this.rights = clean ? rights | 64 : rights;
        this.firstShift = firstShift;
        this.firstGranule = half.granule;
        this.secondShift = secondShift;
        this.secondGranule = second.granule;
        this.global = global;
        this.guestLow = guestLow;
        this.guestHigh = guestHigh;
        this.hostLow = hostLow;
        this.hostHigh = hostHigh;
        if (tables !== null) {
          this.rememberFirst(regime, low, high);
          this.rememberSecond(second);
        }
        if (watched) this.#pending.tell(this.observer!);
        return true;
      }
      const page = (hostLow - firstBaseLow) >>> 0;
      if (page >= firstPages || hostHigh !== firstBaseHigh) return false;
      const at = (page << 10) | ((index1 & 511) << 1);
      const lo = firstWords[at]!;
      const hi = firstWords[at | 1]!;
      const pointer = shift1 !== lastShift1 && (lo & 3) === 3;
      if (pointer) {
        if ((hi & 0xf8000000) !== 0) return false;
      } else if ((lo & 0x401) !== 0x401 || shift1 > half.blockShift) return false;
      if (shift1 === lastShift1 && (lo & 2) === 0) return false;
      if (watched) {
        this.#tellPlainly(TABLE_STAGE_1, half, shift1, hostLow, hostHigh, index1, lo, hi, half, -1, low, high);
      }
      guestLow = (lo >>> 12) | (hi << 20);
      guestHigh = (hi >>> 12) & 0xf;
      if (((guestLow & half.outputLow) | (guestHigh & half.outputHigh)) !== 0) return false;
      if (pointer) {
        firstPointer.follow(shift1, hostLow, hostHigh, index1, lo, hi);
        guestLow &= half.tableMask;
        shift1 = (shift1 - half.stride) | 0;
        mask1 = half.strideMask;
        entry1 = 0;
        continue;
      }
      firstPointer.tableLow = hostLow & half.tableMask;
      firstPointer.tableHigh = hostHigh;
      const within = (1 << shift1) - 1;
      guestLow = (guestLow & ~within) | (low & within);
      rights1 = regime.leafRights.ofFirst(lo, hi, regime);
      if ((rights1 & right) === 0 || ((rights1 & 64) !== 0 && kind === 1)) return false;
      firstShift = shift1;
      global = (lo & 0x800) === 0;
      shift1 = -1;
    }
  }

  /**
   * Both stages with every rule: 0 with the results in place, or the number of an event. For ATS kinds what is missing is in `rights`, and F_PERMISSION
   * of the access itself never comes.
   */
  walkCarefully(regime: TranslationRegime, low: number, high: number, kind: number, privileged: boolean): number {
    this.firstPointer.shift = 0;
    this.secondPointer.shift = 0;
    const first = this.walkFirst(regime, low, high, kind, privileged);
    if (first !== 0) return first;
    this.rememberFirst(regime, low, high);
    const granted = this.rights;
    let use = kind;
    const own = privileged ? PRIVILEGED : UNPRIVILEGED;
    if (kind >= KIND_ATS) {
      // What stage 1 refuses never gets to stage 2: the reads' right, and writing, unless the page would have to be marked dirty for it.
      const writes = kind === KIND_ATS_WRITE || (granted & CLEAN) === 0 ? WRITE : 0;
      if ((granted & (this.wanted | writes) & own) === 0) {
        this.rights = 0;
        return 0;
      }
      if ((granted & WRITE & own) === 0) use = KIND_ATS;
    }
    this.serves = -1;
    const second = this.walkSecond(regime.second, this.guestLow, this.guestHigh, use, privileged);
    this.rights = (granted & this.secondRights & ALL_RIGHTS) | ((granted | this.secondRights) & CLEAN);
    if (second !== 0) this.faultClass = CLASS_IN;
    else this.rememberSecond(regime.second);
    return second;
  }

  /**
   * The shortest way: one load a stage, of a descriptor for 4 KiB (at stage 2 also 2 MiB) in a table that is remembered. The rights (never 0) with the
   * results in place, as `walkPlainly` would find them; 0 if it must be asked.
   */
  walkShortly(regime: TranslationRegime, low: number, high: number, kind: number, privileged: boolean): number {
    const tables = this.tables;
    if (tables === null || this.observer !== null || kind >= regime.plainKinds) return 0;
    let guestLow = low | 0;
    let guestHigh = high | 0;
    let rights = 63;
    let firstShift = OFF_SHIFT;
    let global = false;
    if ((regime.stages & HAS_STAGE_1) !== 0) {
      let half = regime.lower;
      if ((high & 0x800) !== 0 && regime.world !== ONE_HALF) {
        half = regime.upper;
        if ((~low & half.signLow) !== 0 || (~high & half.signHigh) !== 0) return 0;
      } else if (((low & half.signLow) | (high & half.signHigh)) !== 0) return 0;
      // A half that is not enabled has no granule.
      if (half.granule !== 12 || half.privilegedOnly) return 0;
      const entry = tables.findOfPages(regime.tag, low, high);
      if (entry < 0) return 0;
      const { words, baseLow, baseHigh, pages } = this.first;
      const page = (tables.frameLowAt(entry) - baseLow) >>> 0;
      if (page >= pages || tables.frameHighAt(entry) !== baseHigh) return 0;
      const at = (page << 10) | ((low & 511) << 1);
      const lo = words[at]!;
      const hi = words[at | 1]!;
      // DESCRIPTOR_VALID, DESCRIPTOR_TABLE (a page), DESCRIPTOR_AF.
      if ((lo & 0x403) !== 0x403) return 0;
      guestLow = (lo >>> 12) | (hi << 20);
      guestHigh = (hi >>> 12) & 0xf;
      if (((guestLow & half.outputLow) | (guestHigh & half.outputHigh)) !== 0) return 0;
      rights = regime.leafRights.ofFirst(lo, hi, regime);
      firstShift = 0;
      global = (lo & 0x800) === 0;
    }
    let hostLow = guestLow;
    let hostHigh = guestHigh;
    let secondShift = OFF_SHIFT;
    let clean = rights & MARKED_CLEAN;
    if ((regime.stages & HAS_STAGE_2) !== 0) {
      const second = regime.second;
      if (((guestLow & second.inputLow) | (guestHigh & second.inputHigh)) !== 0 || second.granule !== 12) return 0;
      // A page at the last level, a block above it.
      let leaf = 0x403;
      let entry = tables.findOfPages(second.tag, guestLow, guestHigh);
      secondShift = 0;
      if (entry < 0) {
        entry = tables.find(second.tag, guestLow, guestHigh);
        if (entry < 0 || TABLE_SHIFTS[tables.classAt(entry)] !== 18 || second.blockShift < 9) return 0;
        leaf = 0x401;
        secondShift = 9;
      }
      const { words, baseLow, baseHigh, pages } = this.second;
      const page = (tables.frameLowAt(entry) - baseLow) >>> 0;
      if (page >= pages || tables.frameHighAt(entry) !== baseHigh) return 0;
      const at = (page << 10) | (((guestLow >>> secondShift) & 511) << 1);
      const lo = words[at]!;
      const hi = words[at | 1]!;
      if ((lo & 0x403) !== leaf) return 0;
      hostLow = (lo >>> 12) | (hi << 20);
      hostHigh = (hi >>> 12) & 0xf;
      if (((hostLow & second.outputLow) | (hostHigh & second.outputHigh)) !== 0) return 0;
      if (secondShift !== 0) hostLow = (hostLow & ~511) | (guestLow & 511);
      const granted = second.leafRights.ofSecond(lo, hi, second);
      clean |= granted & MARKED_CLEAN;
      rights &= granted;
    }
    rights &= RIGHTS;
    const right = privileged ? (kind === 0 ? PRIVILEGED_READ : PRIVILEGED_WRITE) : kind === 0 ? USER_READ : USER_WRITE;
    if ((rights & right) === 0 || (clean !== 0 && kind === 1)) return 0;
    rights |= clean;
    this.rights = rights;
    this.firstShift = firstShift;
    this.firstGranule = 12;
    this.secondShift = secondShift;
    this.secondGranule = 12;
    this.global = global;
    this.guestLow = guestLow;
    this.guestHigh = guestHigh;
    this.hostLow = hostLow;
    this.hostHigh = hostHigh;
    return rights;
  }

  /** As `tell`, from the plain way. */
  #tellPlainly(
    table: WalkTable,
    tree: TableTree,
    shift: number,
    low: number,
    high: number,
    index: number,
    lo: number,
    hi: number,
    half: FirstStageHalf,
    servedShift: number,
    inputLow: number,
    inputHigh: number,
  ): void {
    const pfn = high * 0x100000000 + (low >>> 0);
    const inputPfn = (inputHigh & 0xfffff) * 0x100000000 + (inputLow >>> 0);
    const serves = servedShift < 0 ? -1 : half.levelOf(servedShift);
    const offset = (index & 511) << 3;
    this.#pending.tableLoaded(
      table,
      tree.levelOf(shift),
      pfn,
      offset,
      lo >>> 0,
      hi >>> 0,
      serves,
      shift + 12,
      inputPfn,
    );
  }
}

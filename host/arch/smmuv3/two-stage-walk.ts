// The walk of both stages (VMSAv8-64, DDI 0487 D8; IHI 0070 §3.3.3, §3.13).
//
//     input ── stage 1 ──▶ guestLow/High ── stage 2 ──▶ hostLow/High
//                │ each table's address through stage 2 (CLASS TT)
//
// The common case (access flags set, nothing to mark dirty, no restrictions in tables) is one loop over both stages; whatever it does not
// recognise goes through the stages one after the other, step by step (stage-walks.ts, where the results are described too).

import { WORLD_EL2 } from "./context-descriptor.ts";
import { CLASS_IN } from "./event-records.ts";
import {
  ALL_RIGHTS,
  CLEAN,
  firstRights,
  isDevice,
  PRIVILEGED,
  READ,
  secondRights,
  UNPRIVILEGED,
  WRITE,
} from "./leaf-rights.ts";
import { KIND_ATS, NEEDS, StageWalks } from "./stage-walks.ts";
import type { FirstStageHalf, TableTree, TranslationRegime } from "./translation-regime.ts";
import { TABLE_STAGE_1, TABLE_STAGE_2, type WalkTable } from "./walk-observer.ts";

export * from "./stage-walks.ts";

// Not state: what one walk found
export class TwoStageWalker<P extends number> extends StageWalks<P> {
  /**
   * The plain way through both stages. True with the results in place; false at anything else: `walkCarefully` must then follow and starts over (the
   * observer is not told twice). `low`, `high`: the frame number of the address, its top byte already replaced if it is ignored.
   */
  walkPlainly(regime: TranslationRegime, low: number, high: number, kind: number, privileged: boolean): boolean {
    this.told = 0;
    if (kind > 1 || !regime.plain) return false;
    const second = regime.second;
    const hasSecond = second.enabled;
    const watched = this.observer !== null;
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
    for (;;) {
      let index1 = 0;
      if (shift1 >= 0) {
        index1 =
          ((shift1 < 32 ? (low >>> shift1) | ((high << 1) << (31 - shift1)) : high >>> (shift1 - 32)) & mask1) + entry1;
        guestLow |= index1 >>> 9;
      }
      let hostLow = guestLow;
      let hostHigh = guestHigh;
      if (hasSecond) {
        if (((guestLow & second.inputLow) | (guestHigh & second.inputHigh)) !== 0) return false;
        let shift = second.startShift | 0;
        let mask = second.startMask | 0;
        let entry = second.rootEntry | 0;
        hostLow = second.rootLow;
        hostHigh = second.rootHigh;
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
          hostLow = (lo >>> 12) | (hi << 20);
          hostHigh = (hi >>> 12) & 0xf;
          if (((hostLow & second.outputLow) | (hostHigh & second.outputHigh)) !== 0) return false;
          if (pointer) {
            hostLow &= second.tableMask;
            shift = (shift - second.stride) | 0;
            mask = second.strideMask | 0;
            entry = 0;
            continue;
          }
          const within = (1 << shift) - 1;
          hostLow = (hostLow & ~within) | (guestLow & within);
          if (shift1 >= 0) {
            if ((lo & 0x40) === 0 || (second.protectedWalk && isDevice(lo, second))) return false;
          } else {
            rights2 = secondRights(lo, hi, second);
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
        guestLow &= half.tableMask;
        shift1 = (shift1 - half.stride) | 0;
        mask1 = half.strideMask;
        entry1 = 0;
        continue;
      }
      const within = (1 << shift1) - 1;
      guestLow = (guestLow & ~within) | (low & within);
      rights1 = firstRights(lo, hi, 0, regime);
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
    const first = this.walkFirst(regime, low, high, kind, privileged);
    if (first !== 0) return first;
    const granted = this.rights;
    let use = kind;
    const own = privileged ? PRIVILEGED : UNPRIVILEGED;
    if (kind >= KIND_ATS) {
      // What stage 1 refuses never gets to stage 2.
      if ((granted & (READ | WRITE | this.wanted) & own) === 0) {
        this.rights = 0;
        return 0;
      }
      if ((granted & WRITE & own) === 0) use = KIND_ATS;
    }
    this.serves = -1;
    const second = this.walkSecond(regime.second, this.guestLow, this.guestHigh, use, privileged);
    this.rights = (granted & this.secondRights & ALL_RIGHTS) | ((granted | this.secondRights) & CLEAN);
    if (second !== 0) this.faultClass = CLASS_IN;
    return second;
  }

  /** As `#tell`, from the plain way: the careful one, should it start over, keeps quiet about as many entries. */
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
    const told = this.told;
    this.told = 0;
    const serves = servedShift < 0 ? -1 : half.levelOf(servedShift);
    this.tell(table, tree, shift, low, high, (index & 511) << 3, lo, hi, serves, inputLow, inputHigh);
    this.told = told + 1;
  }
}

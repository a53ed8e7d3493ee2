// The walk of both stages (VMSAv8-64, DDI 0487 D8; IHI 0070 §3.3.3, §3.13).
//
//     input ── stage 1 ──▶ guestLow/High ── stage 2 ──▶ hostLow/High
//                │ each table's address through stage 2 (CLASS TT)
//
// Results are fields of the walker; faults are returned as event numbers (0: none) with `stage2`, `faultClass` and the addresses that go with them;
// nothing is allocated or thrown. Frame numbers are pairs of 32-bit integers (bits 31:0; bits 51:32), descriptors two halves. The common case
// (access flags set, nothing to mark dirty, no restrictions in tables) is one loop over both stages; whatever it does not recognise goes to
// `walkFirst` and `walkSecond`, which follow the architecture step by step.

import { swap32 } from "../../base/byte-order.ts";
import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import { TableReader } from "../../base/table-reader.ts";
import { WORLD_EL2 } from "./context-descriptor.ts";
import {
  CLASS_CD,
  CLASS_IN,
  CLASS_TT,
  F_ACCESS,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_TRANSLATION,
  F_WALK_EABT,
} from "./event-records.ts";
import {
  ALL_RIGHTS,
  CLEAN,
  DESCRIPTOR_AF,
  DESCRIPTOR_NG,
  DESCRIPTOR_TABLE,
  DESCRIPTOR_VALID,
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
import type { FirstStageHalf, SecondStage, TableTree, TranslationRegime } from "./translation-regime.ts";
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
const NEEDS = Uint8Array.of(READ, WRITE, EXECUTE, 0, 0, READ, WRITE, READ);
/** A stage that is off: larger than any page. */
export const NO_STAGE_SHIFT = 52;
/** Internal: the descriptor changed under a compare-and-exchange. */
const RETRY = -1;
/** Memory that never stops changing under us is an external abort after so many tries. */
const RETRY_LIMIT = 64;

export class TwoStageWalker<P extends number> {
  // not state, to the blank line: results and scratch of the last walk
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
  /** Rights besides read and write that an ATS request is after: EXECUTE where its reads count as fetches. */
  wanted = 0;
  observer: WalkObserver | null = null;
  #secondRights = ALL_RIGHTS;
  #serves = -1;
  #told = 0;

  readonly memory: MemoryPort<P>;
  readonly #first: TableReader<P>;
  readonly #second: TableReader<P>;

  /** `limit`: first frame beyond OAS. */
  constructor(memory: MemoryPort<P>, limit: number) {
    this.memory = memory;
    this.#first = new TableReader(memory);
    this.#second = new TableReader(memory);
    this.#first.setLimit(limit);
    this.#second.setLimit(limit);
  }

  get guestPfn(): number {
    return this.guestHigh * 0x100000000 + (this.guestLow >>> 0);
  }

  get hostPfn(): number {
    return this.hostHigh * 0x100000000 + (this.hostLow >>> 0);
  }

  /**
   * The plain way through both stages. True with the results in place; false at anything else: `walkCarefully` must then follow and starts over (the
   * observer is not told twice). `low`, `high`: the frame number of the address, its top byte already replaced if it is ignored.
   */
  walkPlainly(regime: TranslationRegime, low: number, high: number, kind: number, privileged: boolean): boolean {
    this.#told = 0;
    if (kind > 1 || !regime.plain) return false;
    const second = regime.second;
    const hasSecond = second.enabled;
    const watched = this.observer !== null;
    const first = this.#first;
    const firstWords = first.words;
    const firstBaseLow = first.baseLow | 0;
    const firstBaseHigh = first.baseHigh | 0;
    const firstPages = first.pages >>> 0;
    const reader = this.#second;
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
          if (watched) this.#tellPlainly(TABLE_STAGE_2, second, shift, frame, hostHigh, index, lo, hi, half, shift1);
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
      if (watched) this.#tellPlainly(TABLE_STAGE_1, half, shift1, hostLow, hostHigh, index1, lo, hi, half, -1);
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
    this.#serves = -1;
    const second = this.walkSecond(regime.second, this.guestLow, this.guestHigh, use, privileged);
    this.rights = (granted & this.#secondRights & ALL_RIGHTS) | ((granted | this.#secondRights) & CLEAN);
    if (second !== 0) this.faultClass = CLASS_IN;
    return second;
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
      return this.#firstFault(F_TRANSLATION, CLASS_IN);
    const second = regime.second;
    const reader = this.#first;
    let shift = half.startShift;
    let mask = half.startMask;
    let entry = half.rootEntry;
    let tableLow = half.rootLow;
    let tableHigh = half.rootHigh;
    let restrictions = 0;
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const index = (bitsFrom(low, high, shift) & mask) + entry;
      const frameLow = tableLow | (index >>> 9);
      const offset = (index & 511) << 3;
      this.#serves = half.levelOf(shift);
      const translated = this.#tableAddress(second, frameLow, tableHigh, USE_TABLE_READ);
      if (translated !== 0) return translated;
      const hostLow = this.hostLow;
      const hostHigh = this.hostHigh;
      if (reader.load(hostLow, hostHigh, offset) !== ACCESS_OK) {
        this.#fetchFault(hostLow, hostHigh, offset, false);
        this.faultClass = CLASS_TT;
        return F_WALK_EABT;
      }
      const lo = regime.bigEndian ? swap32(reader.hi) | 0 : reader.lo;
      const hi = regime.bigEndian ? swap32(reader.lo) | 0 : reader.hi;
      this.#tell(TABLE_STAGE_1, half.levelOf(shift), hostLow, hostHigh, offset, lo, hi, -1);
      const pointer = shift !== half.lastShift && (lo & 3) === 3;
      if (!pointer && !isLeaf(lo, shift, half)) return this.#firstFault(F_TRANSLATION, CLASS_IN);
      const outLow = (lo >>> 12) | (hi << 20);
      const outHigh = (hi >>> 12) & 0xf;
      if (((outLow & half.outputLow) | (outHigh & half.outputHigh)) !== 0)
        return this.#firstFault(F_ADDR_SIZE, CLASS_IN);
      let newLo = lo;
      let rights = 0;
      if (pointer) {
        if (regime.tableAccessFlag) newLo |= DESCRIPTOR_AF;
      } else {
        if ((lo & DESCRIPTOR_AF) === 0) {
          if (regime.accessFlag) newLo |= DESCRIPTOR_AF;
          else if (!regime.accessFaultsDisabled) return this.#firstFault(F_ACCESS, CLASS_IN);
        }
        rights = firstRights(lo, hi, half.hierarchical ? restrictions : 0, regime);
        if (half.privilegedOnly) rights &= ~UNPRIVILEGED;
        const own = privileged ? PRIVILEGED : UNPRIVILEGED;
        const needs = NEEDS[kind]! & own;
        if (needs !== 0 && (rights & needs) === 0) return this.#firstFault(F_PERMISSION, CLASS_IN);
        const writes = kind === KIND_WRITE || kind === KIND_ATS_WRITE;
        if ((rights & CLEAN) !== 0 && writes && (rights & WRITE & own) !== 0) {
          newLo &= ~DESCRIPTOR_WRITE;
          rights &= ~CLEAN;
        }
      }
      if (newLo !== lo) {
        const updated = this.#update(second, frameLow, tableHigh, offset, lo, hi, newLo, regime.bigEndian);
        if (updated === RETRY) {
          tries++;
          continue;
        }
        if (updated !== 0) return updated;
      }
      if (pointer) {
        restrictions |= hi & TABLE_RESTRICTIONS;
        tableLow = outLow & half.tableMask;
        tableHigh = outHigh;
        shift -= half.stride;
        mask = half.strideMask;
        entry = 0;
        continue;
      }
      const within = (1 << shift) - 1;
      this.guestLow = (outLow & ~within) | (low & within);
      this.guestHigh = outHigh;
      this.firstShift = shift;
      this.firstGranule = half.granule;
      this.rights = rights;
      this.global = (lo & DESCRIPTOR_NG) === 0;
      return 0;
    }
    this.#fetchFault(this.hostLow, this.hostHigh, 0, false);
    this.faultClass = CLASS_TT;
    return F_WALK_EABT;
  }

  /** Stage 2 for a context descriptor or its level-1 descriptor: 0 with the frame in host*, or an event of CLASS_CD. */
  contextAddress(second: SecondStage, low: number, high: number): number {
    this.#told = 0;
    this.#serves = -1;
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
      this.#secondRights = ALL_RIGHTS;
      return 0;
    }
    if (((low & second.inputLow) | (high & second.inputHigh)) !== 0) return this.#secondFault(F_TRANSLATION, low, high);
    const reader = this.#second;
    let shift = second.startShift;
    let mask = second.startMask;
    let entry = second.rootEntry;
    let tableLow = second.rootLow;
    let tableHigh = second.rootHigh;
    let frameLow = tableLow;
    let offset = 0;
    for (let tries = 0; tries <= RETRY_LIMIT; ) {
      const index = (bitsFrom(low, high, shift) & mask) + entry;
      frameLow = tableLow | (index >>> 9);
      offset = (index & 511) << 3;
      if (reader.load(frameLow, tableHigh, offset) !== ACCESS_OK) break;
      const lo = second.bigEndian ? swap32(reader.hi) | 0 : reader.lo;
      const hi = second.bigEndian ? swap32(reader.lo) | 0 : reader.hi;
      this.#tell(TABLE_STAGE_2, second.levelOf(shift), frameLow, tableHigh, offset, lo, hi, this.#serves);
      const pointer = shift !== second.lastShift && (lo & 3) === 3;
      if (!pointer && !isLeaf(lo, shift, second)) return this.#secondFault(F_TRANSLATION, low, high);
      const outLow = (lo >>> 12) | (hi << 20);
      const outHigh = (hi >>> 12) & 0xf;
      if (((outLow & second.outputLow) | (outHigh & second.outputHigh)) !== 0)
        return this.#secondFault(F_ADDR_SIZE, low, high);
      let newLo = lo;
      let rights = 0;
      if (pointer) {
        if (second.tableAccessFlag) newLo |= DESCRIPTOR_AF;
      } else {
        if ((lo & DESCRIPTOR_AF) === 0) {
          if (second.accessFlag) newLo |= DESCRIPTOR_AF;
          else if (!second.accessFaultsDisabled) return this.#secondFault(F_ACCESS, low, high);
        }
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
        const updated = this.#exchange(frameLow, tableHigh, offset, lo, hi, newLo, second.bigEndian);
        if (updated === RETRY) {
          tries++;
          continue;
        }
        if (updated !== 0) break;
      }
      if (pointer) {
        tableLow = outLow & second.tableMask;
        tableHigh = outHigh;
        shift -= second.stride;
        mask = second.strideMask;
        entry = 0;
        continue;
      }
      const within = (1 << shift) - 1;
      this.hostLow = (outLow & ~within) | (low & within);
      this.hostHigh = outHigh;
      this.secondShift = shift;
      this.secondGranule = second.granule;
      this.#secondRights = rights;
      return 0;
    }
    this.#fetchFault(frameLow, tableHigh, offset, true);
    return F_WALK_EABT;
  }

  #firstFault(number: number, faultClass: number): number {
    this.stage2 = false;
    this.faultClass = faultClass;
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

  /** Updates a stage-1 descriptor (§3.13): needs write permission of stage 2. 0 done, RETRY, or an event. */
  #update(
    second: SecondStage,
    low: number,
    high: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
    bigEndian: boolean,
  ): number {
    const translated = this.#tableAddress(second, low, high, USE_TABLE_UPDATE);
    if (translated !== 0) return translated;
    const result = this.#exchange(this.hostLow, this.hostHigh, offset, lo, hi, newLo, bigEndian);
    if (result > 0) {
      this.#fetchFault(this.hostLow, this.hostHigh, offset, false);
      this.faultClass = CLASS_TT;
    }
    return result;
  }

  /** Compare-and-exchange of a descriptor: 0 done, RETRY it had changed, F_WALK_EABT. */
  #exchange(
    low: number,
    high: number,
    offset: number,
    lo: number,
    hi: number,
    newLo: number,
    bigEndian: boolean,
  ): number {
    const memory = this.memory;
    const pfn = (high * 0x100000000 + (low >>> 0)) as P;
    const oldLo = bigEndian ? swap32(hi) : lo >>> 0;
    const oldHi = bigEndian ? swap32(lo) : hi >>> 0;
    const toLo = bigEndian ? oldLo : newLo >>> 0;
    const toHi = bigEndian ? swap32(newLo) : oldHi;
    if (memory.compareExchange64(pfn, offset, oldLo, oldHi, toLo, toHi) !== ACCESS_OK) return F_WALK_EABT;
    return memory.lo === oldLo && memory.hi === oldHi ? 0 : RETRY;
  }

  #tell(
    table: WalkTable,
    level: number,
    low: number,
    high: number,
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
    this.observer.tableLoaded(table, level, high * 0x100000000 + (low >>> 0), offset, lo >>> 0, hi >>> 0, serves);
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
  ): void {
    const told = this.#told;
    this.#told = 0;
    const serves = servedShift < 0 ? -1 : half.levelOf(servedShift);
    this.#tell(table, tree.levelOf(shift), low, high, (index & 511) << 3, lo, hi, serves);
    this.#told = told + 1;
  }
}

/** The bits of a frame number from `shift` up. */
function bitsFrom(low: number, high: number, shift: number): number {
  return shift < 32 ? (low >>> shift) | ((high << 1) << (31 - shift)) : high >>> (shift - 32);
}

/** A descriptor that is no table: a page at the last level, a block where there are blocks. */
function isLeaf(lo: number, shift: number, tree: TableTree): boolean {
  if ((lo & DESCRIPTOR_VALID) === 0) return false;
  const page = (lo & DESCRIPTOR_TABLE) !== 0;
  return shift === tree.lastShift ? page : !page && shift <= tree.blockShift;
}

// What stages 1 and 2 need for a walk, taken out of a stream table entry and a context descriptor (IHI 0070 §5.2, §5.4).
//
// Frame numbers are pairs of 32-bit integers (bits 31:0; bits 51:32), sizes are masks of the bits that must be clear. `shift` of a level is log2 of
// the 4 KiB pages that one of its entries covers.

import { type AddressTag, NO_TAG } from "../../base/caches/address-tags.ts";
import { type StreamWorld, WORLD_EL1, WORLD_EL2 } from "./context-descriptor.ts";
import { effectiveBits, type SmmuFeatures } from "./identification.ts";
import { LeafRights } from "./leaf-rights.ts";
import {
  firstBlockLevel,
  firstStageShape,
  granuleOfTg0,
  granuleOfTg1,
  levelShift,
  type StageShape,
  secondStageShape,
} from "./table-shapes.ts";

/** Low and high half of the mask of frame-number bits that an address of `bits` bits does not have. */
function beyondLow(bits: number): number {
  return bits - 12 < 32 ? -1 << (bits - 12) : 0;
}
function beyondHigh(bits: number): number {
  return bits - 12 < 32 ? -1 : -1 << (bits - 44);
}

// Not state: made of structures that whoever holds this keeps
/** Where and how one tree of tables is walked. */
export class TableTree {
  granule = 12;
  /** Shift of the start level, of pages, and of the largest block. */
  startShift = 0;
  lastShift = 0;
  blockShift = 0;
  stride = 9;
  startMask = 0;
  strideMask = 511;
  /** The root: its frame, and the entry within it where a root of less than 4 KiB begins. */
  rootLow = 0;
  rootHigh = 0;
  rootEntry = 0;
  /** Frame-number bits that a table's address has no use for (granules above 4 KiB). */
  tableMask = -1;
  /** Bits that an output must not have. */
  outputLow = 0;
  outputHigh = 0;

  /** `lo`, `hi`: the TTB's doubleword, of which bits 47:4 are the address; bits below the root's size are taken as 0. */
  setTree(shape: StageShape, lo: number, hi: number, outputBits: number): void {
    const { granule, startLevel, startBits } = shape;
    this.granule = granule;
    this.stride = granule - 3;
    this.lastShift = granule - 12;
    this.startShift = levelShift(granule, startLevel);
    this.blockShift = levelShift(granule, firstBlockLevel(granule));
    this.startMask = (1 << startBits) - 1;
    this.strideMask = (1 << this.stride) - 1;
    const address = lo & (-1 << (startBits + 3));
    this.rootLow = (address >>> 12) | (hi << 20);
    this.rootHigh = (hi >>> 12) & 0xf;
    this.rootEntry = (address & 0xfff) >>> 3;
    this.tableMask = -1 << (granule - 12);
    this.outputLow = beyondLow(outputBits);
    this.outputHigh = beyondHigh(outputBits);
  }

  /** The architecture's level of a shift. */
  levelOf(shift: number): number {
    return 3 - (shift - this.lastShift) / this.stride;
  }

  copyTree(other: TableTree): void {
    this.granule = other.granule;
    this.startShift = other.startShift;
    this.lastShift = other.lastShift;
    this.blockShift = other.blockShift;
    this.stride = other.stride;
    this.startMask = other.startMask;
    this.strideMask = other.strideMask;
    this.rootLow = other.rootLow;
    this.rootHigh = other.rootHigh;
    this.rootEntry = other.rootEntry;
    this.tableMask = other.tableMask;
    this.outputLow = other.outputLow;
    this.outputHigh = other.outputHigh;
  }
}

// Not state: made of structures that whoever holds this keeps
/** The half of stage 1 that one TTB describes. */
export class FirstStageHalf extends TableTree {
  /** EPDx = 0; else the granule is 0, too. */
  enabled = false;
  /** E0PDx: unprivileged accesses fault. */
  privilegedOnly = false;
  /** Table descriptors restrict what is below them (HADx = 0). */
  hierarchical = true;
  /** Frame-number bits above the input size: all clear in the lower half, all set in the upper. */
  signLow = 0;
  signHigh = 0;
}

// Not state: made of structures that whoever holds this keeps
export class SecondStage extends TableTree {
  enabled = false;
  /** Tag under which pointers to its tables are remembered. */
  tag: AddressTag = NO_TAG;
  /** Frame-number bits above the input size. */
  inputLow = 0;
  inputHigh = 0;
  bigEndian = false;
  /** Little-endian, no access flags of tables. */
  plain = true;
  accessFlag = false;
  dirty = false;
  accessFaultsDisabled = false;
  tableAccessFlag = false;
  /** S2PTW: walks that hit device memory fault. */
  protectedWalk = false;
  forcedWriteBack = false;
  xnx = false;
  /** What its leaves grant. */
  readonly leafRights = new LeafRights();
  stalls = false;
  records = false;

  disable(): void {
    this.enabled = false;
  }

  /** From a legal entry (16 words) with stage 2. */
  load(words: Int32Array, features: SmmuFeatures): void {
    const w5 = words[5]!;
    const granule = granuleOfTg0((w5 >>> 14) & 3, features);
    const t0sz = w5 & 0x3f;
    const shape = secondStageShape(granule, t0sz, (w5 >>> 6) & 3, features)!;
    this.setTree(shape, words[6]!, words[7]!, Math.min(48, effectiveBits((w5 >>> 16) & 7, features)));
    this.enabled = true;
    this.inputLow = beyondLow(64 - t0sz);
    this.inputHigh = beyondHigh(64 - t0sz);
    this.bigEndian = (w5 & (1 << 20)) !== 0;
    this.accessFaultsDisabled = (w5 & (1 << 21)) !== 0;
    this.protectedWalk = (w5 & (1 << 22)) !== 0;
    this.accessFlag = (w5 & (1 << 24)) !== 0;
    // Dirty without access flag acts as neither (§5.2).
    this.dirty = this.accessFlag && (w5 & (1 << 23)) !== 0;
    this.tableAccessFlag = this.accessFlag && features.HTTU === 3 && (w5 & (1 << 27)) !== 0;
    this.plain = !this.bigEndian && !this.tableAccessFlag;
    this.stalls = (w5 & (1 << 25)) !== 0;
    this.records = (w5 & (1 << 26)) !== 0;
    this.forcedWriteBack = features.FWB && (words[2]! & (1 << 25)) !== 0;
    this.xnx = features.XNX;
    this.leafRights.forget();
  }
}

export const STAGE_1 = 1 << 0;
export const STAGE_2 = 1 << 1;

// Not state: made of structures that whoever holds this keeps
/** Both stages of one context. */
export class TranslationRegime {
  /** Stage 1 is on. */
  first = false;
  /** Tag under which pointers to its tables are remembered. */
  tag: AddressTag = NO_TAG;
  world: StreamWorld = WORLD_EL1;
  readonly lower = new FirstStageHalf();
  readonly upper = new FirstStageHalf();
  second = NO_SECOND_STAGE;
  /** TBI0, TBI1: the top byte of an address is ignored. */
  ignoresTopLower = false;
  ignoresTopUpper = false;
  bigEndian = false;
  accessFlag = false;
  dirty = false;
  accessFaultsDisabled = false;
  tableAccessFlag = false;
  wxn = false;
  pan = false;
  epan = false;
  aborts = true;
  records = false;
  stalls = false;
  /** The plain walk takes requests whose kind is below this: to read and to write, where tables are little-endian and their access flags not kept; else none. */
  plainKinds = 0;
  /** STAGE_1, STAGE_2: which are on. */
  stages = 0;
  /** What stage-1 leaves grant. */
  readonly leafRights = new LeafRights();

  /** Stage 2 alone, or nothing. */
  loadSecondOnly(second: SecondStage): void {
    this.first = false;
    this.second = second;
    this.ignoresTopLower = this.ignoresTopUpper = false;
    this.#settle(true);
  }

  /** From a legal context descriptor (16 words) of a stream in `world`. */
  load(words: Int32Array, world: StreamWorld, second: SecondStage, features: SmmuFeatures): void {
    const w0 = words[0]!;
    const w1 = words[1]!;
    this.first = true;
    this.world = world;
    this.second = second;
    this.bigEndian = (w0 & (1 << 15)) !== 0;
    this.accessFaultsDisabled = (w1 & (1 << 3)) !== 0;
    this.wxn = (w1 & (1 << 4)) !== 0;
    this.ignoresTopLower = (w1 & (1 << 6)) !== 0;
    this.ignoresTopUpper = (w1 & (1 << 7)) !== 0;
    this.pan = world !== WORLD_EL2 && (w1 & (1 << 8)) !== 0;
    this.epan = features.EPAN && (words[3]! & (1 << 27)) !== 0;
    this.accessFlag = (w1 & (1 << 11)) !== 0;
    this.dirty = this.accessFlag && (w1 & (1 << 10)) !== 0;
    this.tableAccessFlag = this.accessFlag && features.HTTU === 3 && (words[2]! & 8) !== 0;
    this.stalls = (w1 & (1 << 12)) !== 0;
    this.records = (w1 & (1 << 13)) !== 0;
    this.aborts = features.TERM_MODEL || (w1 & (1 << 14)) !== 0;
    const output = Math.min(48, effectiveBits(w1 & 7, features));
    const lower = this.lower;
    lower.enabled = world === WORLD_EL2 || (w0 & (1 << 14)) === 0;
    lower.granule = 0;
    if (lower.enabled) {
      const granule = granuleOfTg0((w0 >>> 6) & 3, features);
      setHalf(lower, w0 & 0x3f, granule, words[2]!, words[3]!, output, world, features);
    }
    const upper = this.upper;
    upper.enabled = world !== WORLD_EL2 && (w0 & (1 << 30)) === 0;
    upper.granule = 0;
    if (upper.enabled) {
      const granule = granuleOfTg1((w0 >>> 22) & 3, features);
      setHalf(upper, (w0 >>> 16) & 0x3f, granule, words[4]!, words[5]!, output, world, features);
    }
    this.#settle(!this.bigEndian && !this.tableAccessFlag);
  }

  #settle(firstPlain: boolean): void {
    const { second } = this;
    this.plainKinds = firstPlain && !second.bigEndian && !second.tableAccessFlag ? 2 : 0;
    this.stages = (this.first ? STAGE_1 : 0) | (second.enabled ? STAGE_2 : 0);
    this.leafRights.forget();
  }
}

function setHalf(
  half: FirstStageHalf,
  tsz: number,
  granule: number,
  lo: number,
  hi: number,
  outputBits: number,
  world: StreamWorld,
  features: SmmuFeatures,
): void {
  half.setTree(firstStageShape(granule, tsz), lo, hi, outputBits);
  half.signLow = beyondLow(64 - tsz);
  half.signHigh = beyondHigh(64 - tsz) & 0xfffff;
  half.hierarchical = !(features.HAD && (lo & 2) !== 0);
  half.privilegedOnly = features.E0PD && world !== WORLD_EL2 && (lo & 4) !== 0;
}

/** Stands where there is no stage 2; never loaded. */
const NO_SECOND_STAGE = new SecondStage();

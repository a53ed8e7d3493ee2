// What a leaf descriptor grants (VMSAv8-64, DDI 0487 D8.4; IHI 0070 §3.13 for dirty state), as six bits: read, write, execute for
// unprivileged accesses, and the same for privileged ones.

import { WORLD_EL2 } from "./context-descriptor.ts";
import type { SecondStage, TranslationRegime } from "./translation-regime.ts";

export const DESCRIPTOR_VALID = 1 << 0;
/** Bit 1: a table above the last level, a page at it. */
export const DESCRIPTOR_TABLE = 1 << 1;
export const DESCRIPTOR_AF = 1 << 10;
/** Stage 1: AP[2], read-only. Stage 2: S2AP[1], writable. */
export const DESCRIPTOR_WRITE = 1 << 7;
/** Stage 1: AP[1], EL0 may access. Stage 2: S2AP[0], readable. */
export const DESCRIPTOR_LOW = 1 << 6;
export const DESCRIPTOR_NG = 1 << 11;
/** Bits of the high half. */
const DBM = 1 << 19;
const PXN = 1 << 21;
const UXN = 1 << 22;
const PXN_TABLE = 1 << 27;
const UXN_TABLE = 1 << 28;
const AP_TABLE_NO_EL0 = 1 << 29;
const AP_TABLE_READ_ONLY = 1 << 30;
/** Bits 63:59 of a table descriptor, in the high half. */
export const TABLE_RESTRICTIONS = 0xf8000000 | 0;

export const READ = 9;
export const WRITE = 18;
export const EXECUTE = 36;
export const UNPRIVILEGED = 7;
export const PRIVILEGED = 56;
export const ALL_RIGHTS = 63;
/** The write rights depend on the descriptor being marked dirty first. */
export const CLEAN = 64;

/** Stage 1. `tables` are the restrictions of the tables above, in the bits of their high halves. */
export function firstRights(lo: number, hi: number, tables: number, regime: TranslationRegime): number {
  const markable = regime.dirty && (lo & DESCRIPTOR_WRITE) !== 0 && (hi & DBM) !== 0;
  const readOnly = ((lo & DESCRIPTOR_WRITE) !== 0 && !markable) || (tables & AP_TABLE_READ_ONLY) !== 0;
  const clean = markable && !readOnly ? CLEAN : 0;
  const executable = (hi & UXN) === 0 && (tables & UXN_TABLE) === 0;
  if (regime.world === WORLD_EL2) {
    // One privilege level: AP[1], APTable[0], PXN and PAN have no meaning.
    const execute = executable && !(regime.wxn && !readOnly) ? EXECUTE : 0;
    return READ | (readOnly ? 0 : WRITE) | execute | clean;
  }
  const el0 = (lo & DESCRIPTOR_LOW) !== 0 && (tables & AP_TABLE_NO_EL0) === 0;
  let rights = el0 ? READ & UNPRIVILEGED : 0;
  if (el0 && !readOnly) rights |= WRITE & UNPRIVILEGED;
  const el0Executes = executable && !(regime.wxn && el0 && !readOnly);
  if (el0Executes) rights |= EXECUTE & UNPRIVILEGED;
  // What EL0 may write is never executed by EL1.
  const privilegedExecutable = (hi & PXN) === 0 && (tables & PXN_TABLE) === 0 && !(el0 && !readOnly);
  if (privilegedExecutable && !(regime.wxn && !readOnly)) rights |= EXECUTE & PRIVILEGED;
  if (!(regime.pan && (el0 || (regime.epan && el0Executes)))) {
    rights |= READ & PRIVILEGED;
    if (!readOnly) rights |= WRITE & PRIVILEGED;
  }
  return rights | clean;
}

/** Stage 2. */
export function secondRights(lo: number, hi: number, second: SecondStage): number {
  const clean = second.dirty && (lo & DESCRIPTOR_WRITE) === 0 && (hi & DBM) !== 0;
  let rights = clean ? WRITE | CLEAN : (lo & DESCRIPTOR_WRITE) !== 0 ? WRITE : 0;
  if ((lo & DESCRIPTOR_LOW) !== 0) rights |= READ;
  const xn = (hi >>> 21) & 3;
  if (second.xnx) {
    // XN[1:0]: 0 everybody, 1 EL0 only, 2 nobody, 3 EL1 only.
    rights |= xn === 0 ? EXECUTE : xn === 1 ? EXECUTE & UNPRIVILEGED : xn === 3 ? EXECUTE & PRIVILEGED : 0;
  } else if ((xn & 2) === 0) rights |= EXECUTE;
  return rights;
}

const UNKNOWN = 0xff;

// Not state: what the rules say, worked out once
/**
 * What leaves without restrictions from above grant in one regime (`firstRights`) or one stage 2 (`secondRights`), by the bits that decide it: AP[2:1] or
 * S2AP, DBM, and the two of execution. It is asked for leaf after leaf, and there are 32 answers.
 */
export class LeafRights {
  readonly #known = new Uint8Array(64).fill(UNKNOWN);

  /** The rules have changed. */
  forget(): void {
    this.#known.fill(UNKNOWN);
  }

  ofFirst(lo: number, hi: number, regime: TranslationRegime): number {
    const known = this.#known[placeOf(lo, hi)]!;
    return known !== UNKNOWN ? known : this.#learn(lo, hi, firstRights(lo, hi, 0, regime));
  }

  ofSecond(lo: number, hi: number, second: SecondStage): number {
    const known = this.#known[placeOf(lo, hi)]!;
    return known !== UNKNOWN ? known : this.#learn(lo, hi, secondRights(lo, hi, second));
  }

  #learn(lo: number, hi: number, rights: number): number {
    this.#known[placeOf(lo, hi)] = rights;
    return rights;
  }
}

/** Bits 7:6 and 51, 54:53 of a descriptor, as a number below 64. */
function placeOf(lo: number, hi: number): number {
  return ((lo >>> 6) & 3) | ((hi >>> 17) & 0x34);
}

/** True if a stage-2 leaf says Device memory (MemAttr, with S2FWB its other meaning: DDI 0487 D8.6). */
export function isDevice(lo: number, second: SecondStage): boolean {
  return (lo & (second.forcedWriteBack ? 0x10 : 0x30)) === 0;
}

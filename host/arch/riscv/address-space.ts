// What a two-stage walk needs to know of a device's or process's address space: roots, modes, byte orders, A/D policy. One mutable
// object per cached context, filled from a device context (and process context) and read by the walker.

import type { StructureRules } from "./capabilities.ts";
import { MODE_BARE, TC_GADE, TC_SADE, TC_SBE, TC_SXL } from "./device-context.ts";

/** No frame number reaches this. */
const NEVER = 2 ** 53;

/** Page frames below which a second-stage input lies, by levels (Sv32x4: 34 bits, Sv39x4: 41, Sv48x4: 50, Sv57x4: 59). */
function secondStageLimit(levels: number): number {
  return levels === 2 ? 2 ** 22 : 2 ** (9 * levels + 2);
}

/** Frame number in bits 43:0 of an iosatp-like doubleword. */
function rootOf(lo: number, hi: number): number {
  return (hi & 0xfff) * 0x100000000 + (lo >>> 0);
}

/** Levels of a page-table mode: 0 Bare, 2 Sv32, 3 Sv39, 4 Sv48, 5 Sv57. */
function levelsOf(mode: number, narrow: boolean): number {
  if (mode === MODE_BARE) return 0;
  return narrow ? 2 : mode - 5;
}

export class AddressSpace {
  /** 0 Bare, 2 Sv32, 3 Sv39, 4 Sv48, 5 Sv57. */
  firstLevels = 0;
  /** Root of the first stage: a guest-physical frame unless the second stage is Bare. */
  firstRoot = 0;
  /** Page frames in [holeStart, holeEnd) are not canonical: page fault. */
  holeStart = NEVER;
  holeEnd = NEVER;
  firstBigEndian = false;
  /** tc.SADE, tc.GADE: hardware sets A and D. */
  firstHardwareAD = false;
  secondHardwareAD = false;
  /** 0 Bare, 2 Sv32x4, 3 Sv39x4, 4 Sv48x4, 5 Sv57x4. */
  secondLevels = 0;
  secondRoot = 0;
  /** Guest-physical frames from here on are a guest-page fault. */
  secondLimit = NEVER;
  secondBigEndian = false;
  /** PC.ta.SUM: supervisor requests may touch user pages. */
  sum = false;

  /** Takes second stage, byte orders and A/D policy from a sound device context (halves); the first stage becomes Bare. */
  setSecondStage(dc: Uint32Array, rules: StructureRules): void {
    const tc = dc[0]!;
    this.secondLevels = levelsOf(dc[3]! >>> 28, rules.gxl);
    this.secondRoot = rootOf(dc[2]!, dc[3]!);
    this.secondLimit = NEVER;
    if (this.secondLevels !== 0) {
      // §3.1.3.1: with SXL = 1 an incoming guest-physical address has 34 bits, whatever the second stage's mode.
      this.secondLimit = (tc & TC_SXL) !== 0 ? secondStageLimit(2) : secondStageLimit(this.secondLevels);
    }
    this.secondBigEndian = rules.bigEndian;
    this.firstBigEndian = (tc & TC_SBE) !== 0;
    this.firstHardwareAD = (tc & TC_SADE) !== 0;
    this.secondHardwareAD = (tc & TC_GADE) !== 0;
    this.setBareFirstStage();
  }

  setBareFirstStage(): void {
    this.firstLevels = 0;
    this.firstRoot = 0;
    this.holeStart = this.holeEnd = NEVER;
    this.sum = false;
  }

  /** Takes the first stage from an iosatp-like doubleword (DC.fsc with PDTV = 0, PC.fsc). */
  setFirstStage(fscLo: number, fscHi: number, sxl: boolean, sum: boolean): void {
    this.firstLevels = levelsOf(fscHi >>> 28, sxl);
    this.firstRoot = rootOf(fscLo, fscHi);
    this.sum = sum;
    if (this.firstLevels === 0) {
      this.holeStart = this.holeEnd = NEVER;
    } else if (this.firstLevels === 2) {
      this.holeStart = 2 ** 20;
      this.holeEnd = NEVER;
    } else {
      // Bits 63:VASIZE-1 must be equal; VASIZE = 12 + 9 * levels.
      const half = 2 ** (9 * this.firstLevels - 1);
      this.holeStart = half;
      this.holeEnd = 2 ** 52 - half;
    }
  }

  /** Takes the second stage (and byte orders, A/D policy) of another space. */
  copySecondStage(other: AddressSpace): void {
    this.secondLevels = other.secondLevels;
    this.secondRoot = other.secondRoot;
    this.secondLimit = other.secondLimit;
    this.secondBigEndian = other.secondBigEndian;
    this.firstBigEndian = other.firstBigEndian;
    this.firstHardwareAD = other.firstHardwareAD;
    this.secondHardwareAD = other.secondHardwareAD;
  }
}

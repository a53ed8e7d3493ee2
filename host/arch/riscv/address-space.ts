// What a two-stage walk needs to know of a device's or process's address space: roots, modes, byte orders, A/D policy. One mutable
// object per cached context, filled from a device context (and process context) and read by the walker.

import { type AddressTag, NO_TAG } from "../../base/caches/address-tags.ts";
import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { StructureRules } from "./capabilities.ts";
import { MODE_BARE, MSIPTP_FLAT, TC_GADE, TC_SADE, TC_SBE, TC_SXL } from "./device-context.ts";

/** Levels of a page-table mode: 0 Bare, 2 Sv32, 3 Sv39, 4 Sv48, 5 Sv57. */
function levelsOf(mode: number, narrow: boolean): number {
  if (mode === MODE_BARE) return 0;
  return narrow ? 2 : mode - 5;
}

export class AddressSpace implements Stateful {
  /** 0 Bare, 2 Sv32, 3 Sv39, 4 Sv48, 5 Sv57. */
  firstLevels = 0;
  /** Root of the first stage, bits 31:0 and 43:32: a guest-physical frame unless the second stage is Bare. */
  firstRootLow = 0;
  firstRootHigh = 0;
  /** Bits of an IOVA's frame number that must be all 0 or all 1 (canonical addresses). */
  signLow = 0;
  signHigh = 0;
  firstBigEndian = false;
  /** tc.SADE, tc.GADE: hardware sets A and D. */
  firstHardwareAD = false;
  secondHardwareAD = false;
  /** 0 Bare, 2 Sv32x4, 3 Sv39x4, 4 Sv48x4, 5 Sv57x4. */
  secondLevels = 0;
  secondRootLow = 0;
  secondRootHigh = 0;
  /** Bits of a guest-physical frame number that must be 0: else a guest-page fault. */
  beyondLow = 0;
  beyondHigh = 0;
  secondBigEndian = false;
  /** MSI recognition (§3.1.3.6, §3.1.3.7): on, and mask and pattern as halves of 52-bit page numbers. */
  recognizesMessages = false;
  messageMaskLow = 0;
  messageMaskHigh = 0;
  messagePatternLow = 0;
  messagePatternHigh = 0;
  /** The plain way of the walker can take this space (little-endian, 8-byte entries) for requests whose kind is below this: to read and to write; else for none. */
  plainKinds = 2; // not state: follows from the fields, worked out again on restore
  /** Tags under which pointers to tables of this space, and of its second stage, are remembered. */
  tag: AddressTag = NO_TAG; // not state: found again by whoever caches
  secondTag: AddressTag = NO_TAG; // not state: found again by whoever caches
  /** PC.ta.SUM: supervisor requests may touch user pages. */
  sum = false;

  /** Takes second stage, byte orders and A/D policy from a sound device context (halves); the first stage becomes Bare. */
  setSecondStage(dc: Uint32Array, rules: StructureRules): void {
    const tc = dc[0]!;
    this.secondLevels = levelsOf(dc[3]! >>> 28, rules.gxl);
    this.secondRootLow = dc[2]! | 0;
    this.secondRootHigh = dc[3]! & 0xfff;
    // Guest-physical addresses have 34, 41, 50 or 59 bits; §3.1.3.1: with SXL = 1 they have 34, whatever the second stage's mode.
    const bits = (tc & TC_SXL) !== 0 ? 22 : this.secondLevels === 2 ? 22 : 9 * this.secondLevels + 2;
    this.beyondLow = bits >= 32 ? 0 : -1 << bits;
    this.beyondHigh = bits <= 32 ? -1 : -1 << (bits - 32);
    this.secondBigEndian = rules.bigEndian;
    this.firstBigEndian = (tc & TC_SBE) !== 0;
    this.firstHardwareAD = (tc & TC_SADE) !== 0;
    this.secondHardwareAD = (tc & TC_GADE) !== 0;
    this.recognizesMessages = rules.MSI_FLAT && dc[9]! >>> 28 === MSIPTP_FLAT;
    this.messageMaskLow = dc[10]! | 0;
    this.messageMaskHigh = dc[11]! & 0xfffff;
    this.messagePatternLow = dc[12]! | 0;
    this.messagePatternHigh = dc[13]! & 0xfffff;
    this.setBareFirstStage();
  }

  setBareFirstStage(): void {
    this.firstLevels = 0;
    this.firstRootLow = this.firstRootHigh = 0;
    this.signLow = this.signHigh = 0;
    this.sum = false;
    this.#settle();
  }

  /** Takes the first stage from an iosatp-like doubleword (DC.fsc with PDTV = 0, PC.fsc). */
  setFirstStage(fscLo: number, fscHi: number, sxl: boolean, sum: boolean): void {
    this.firstLevels = levelsOf(fscHi >>> 28, sxl);
    this.firstRootLow = fscLo | 0;
    this.firstRootHigh = fscHi & 0xfff;
    this.sum = sum;
    // Bits 63:VASIZE-1 must be equal, VASIZE = 12 + 9 * levels. (Sv32 has a rule of its own.)
    const below = 9 * this.firstLevels - 1;
    this.signLow = this.firstLevels < 3 ? 0 : below >= 32 ? 0 : -1 << below;
    this.signHigh = this.firstLevels < 3 ? 0 : (below <= 32 ? -1 : -1 << (below - 32)) & 0xfffff;
    this.#settle();
  }

  /** True if a guest-physical page (frame number bits 31:0, bits 51:32) is an interrupt file's (§3.1.3.7). */
  isMessagePage(low: number, high: number): boolean {
    return (
      this.recognizesMessages &&
      ((low ^ this.messagePatternLow) & ~this.messageMaskLow) === 0 &&
      ((high ^ this.messagePatternHigh) & ~this.messageMaskHigh & 0xfffff) === 0
    );
  }

  /** True if some interrupt-file page lies in the block of 2^shift pages around a guest-physical page. */
  overlapsMessagePages(low: number, high: number, shift: number): boolean {
    const keepLow = shift >= 32 ? 0 : -1 << shift;
    const keepHigh = shift <= 32 ? -1 : -1 << (shift - 32);
    return (
      this.recognizesMessages &&
      ((low ^ this.messagePatternLow) & ~this.messageMaskLow & keepLow) === 0 &&
      ((high ^ this.messagePatternHigh) & ~this.messageMaskHigh & keepHigh & 0xfffff) === 0
    );
  }

  #settle(): void {
    const plain =
      this.firstLevels !== 2 &&
      this.secondLevels !== 2 &&
      (this.firstLevels === 0 || !this.firstBigEndian) &&
      (this.secondLevels === 0 || !this.secondBigEndian);
    this.plainKinds = plain ? 2 : 0;
  }

  /** Takes the second stage (and byte orders, A/D policy) of another space. */
  copySecondStage(other: AddressSpace): void {
    this.secondLevels = other.secondLevels;
    this.secondRootLow = other.secondRootLow;
    this.secondRootHigh = other.secondRootHigh;
    this.beyondLow = other.beyondLow;
    this.beyondHigh = other.beyondHigh;
    this.secondBigEndian = other.secondBigEndian;
    this.firstBigEndian = other.firstBigEndian;
    this.firstHardwareAD = other.firstHardwareAD;
    this.secondHardwareAD = other.secondHardwareAD;
    this.recognizesMessages = other.recognizesMessages;
    this.messageMaskLow = other.messageMaskLow;
    this.messageMaskHigh = other.messageMaskHigh;
    this.messagePatternLow = other.messagePatternLow;
    this.messagePatternHigh = other.messagePatternHigh;
    this.#settle();
  }

  saveState(): StateRecord {
    return {
      firstLevels: this.firstLevels,
      firstRootLow: this.firstRootLow,
      firstRootHigh: this.firstRootHigh,
      signLow: this.signLow,
      signHigh: this.signHigh,
      firstBigEndian: this.firstBigEndian,
      firstHardwareAD: this.firstHardwareAD,
      secondHardwareAD: this.secondHardwareAD,
      secondLevels: this.secondLevels,
      secondRootLow: this.secondRootLow,
      secondRootHigh: this.secondRootHigh,
      beyondLow: this.beyondLow,
      beyondHigh: this.beyondHigh,
      secondBigEndian: this.secondBigEndian,
      recognizesMessages: this.recognizesMessages,
      messageMaskLow: this.messageMaskLow,
      messageMaskHigh: this.messageMaskHigh,
      messagePatternLow: this.messagePatternLow,
      messagePatternHigh: this.messagePatternHigh,
      sum: this.sum,
    };
  }

  restoreState(state: StateReader): void {
    this.firstLevels = state.number("firstLevels");
    this.firstRootLow = state.number("firstRootLow");
    this.firstRootHigh = state.number("firstRootHigh");
    this.signLow = state.number("signLow");
    this.signHigh = state.number("signHigh");
    this.firstBigEndian = state.boolean("firstBigEndian");
    this.firstHardwareAD = state.boolean("firstHardwareAD");
    this.secondHardwareAD = state.boolean("secondHardwareAD");
    this.secondLevels = state.number("secondLevels");
    this.secondRootLow = state.number("secondRootLow");
    this.secondRootHigh = state.number("secondRootHigh");
    this.beyondLow = state.number("beyondLow");
    this.beyondHigh = state.number("beyondHigh");
    this.secondBigEndian = state.boolean("secondBigEndian");
    this.recognizesMessages = state.boolean("recognizesMessages");
    this.messageMaskLow = state.number("messageMaskLow");
    this.messageMaskHigh = state.number("messageMaskHigh");
    this.messagePatternLow = state.number("messagePatternLow");
    this.messagePatternHigh = state.number("messagePatternHigh");
    this.sum = state.boolean("sum");
    this.#settle();
  }
}

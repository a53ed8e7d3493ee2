// What a walk needs to know of one address space: stages, roots, widths, how accessed and dirty bits are kept. One mutable object a cached structure,
// filled from a context entry (legacy mode, §9.3) or a PASID entry (scalable mode, §9.6).

import { type AddressTag, NO_TAG } from "../../base/caches/address-tags.ts";
import { secondStageBits } from "./capabilities.ts";
import {
  ENTRY_EAFE,
  ENTRY_PWSNP,
  ENTRY_SRE,
  ENTRY_SSADE,
  ENTRY_WPE,
  PGTT_FIRST,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND,
} from "./pasid-entries.ts";
import { TT_PASS_THROUGH } from "./root-and-context.ts";
import type { StructureRules } from "./structure-rules.ts";

// Not state: made of the words that whoever caches saves
export class TranslationSpace {
  /** Loaded from a PASID entry: which of two faults each condition is. */
  scalable = false;
  /** Addresses pass unchanged, below HAW. */
  identity = false;
  domain = 0;
  /** 0: no first stage; 4 or 5. */
  firstLevels = 0;
  /** Root of the first stage, frame number bits 31:0 and above: guest-physical when nested. */
  firstRootLow = 0;
  firstRootHigh = 0;
  /** Bits 51:32 of a frame number that must all be equal (canonical addresses). */
  signHigh = 0;
  /** Supervisor requests are allowed; supervisor writes keep to R/W; EA is set with A. */
  sre = false;
  wpe = false;
  eafe = false;
  /** 0: no second stage; 3, 4 or 5. */
  secondLevels = 0;
  secondRootLow = 0;
  secondRootHigh = 0;
  /** Bits of a second-stage input's frame number that must be 0. */
  beyondLow = 0;
  beyondHigh = 0;
  /** SSADE: the second stage's accessed and dirty bits are kept. */
  secondAD = false;
  /** PWSNP: page walks snoop, without which nothing can be updated. */
  snooped = true;
  /** Of this space, and of its second stage alone: for translations and pointers to tables. */
  tag: AddressTag = NO_TAG;
  secondTag: AddressTag = NO_TAG;

  /** From a sound context entry (4 halves). */
  loadContext(words: Int32Array, rules: StructureRules): void {
    this.scalable = false;
    this.domain = (words[2]! >>> 8) & 0xffff;
    this.identity = ((words[0]! >>> 2) & 3) === TT_PASS_THROUGH;
    this.firstLevels = 0;
    this.secondAD = false;
    this.snooped = true;
    this.sre = this.wpe = this.eafe = false;
    if (this.identity) this.secondLevels = 0;
    else this.#setSecondStage(words[2]! & 7, words[0]!, words[1]!, rules);
  }

  /** From a sound PASID entry (16 halves). */
  loadPasid(words: Int32Array, rules: StructureRules): void {
    const w0 = words[0]!;
    const w4 = words[4]!;
    const type = (w0 >>> 6) & 7;
    this.scalable = true;
    this.domain = words[2]! & 0xffff;
    this.identity = type === PGTT_PASS_THROUGH;
    this.snooped = (words[2]! & ENTRY_PWSNP) !== 0;
    this.sre = (w4 & ENTRY_SRE) !== 0;
    this.wpe = (w4 & ENTRY_WPE) !== 0;
    this.eafe = (w4 & ENTRY_EAFE) !== 0;
    this.firstLevels = 0;
    this.secondLevels = 0;
    this.secondAD = false;
    if (type === PGTT_FIRST || type === PGTT_NESTED) {
      this.firstLevels = 4 + ((w4 >>> 2) & 1);
      this.firstRootLow = (w4 >>> 12) | (words[5]! << 20);
      this.firstRootHigh = words[5]! >>> 12;
      this.signHigh = (-1 << (this.firstLevels === 4 ? 3 : 12)) & 0xfffff;
    }
    if (type === PGTT_SECOND || type === PGTT_NESTED) {
      this.secondAD = (w0 & ENTRY_SSADE) !== 0;
      this.#setSecondStage((w0 >>> 2) & 7, w0, words[1]!, rules);
    }
  }

  #setSecondStage(aw: number, lo: number, hi: number, rules: StructureRules): void {
    const { features } = rules;
    this.secondLevels = aw + 2;
    this.secondRootLow = (lo >>> 12) | (hi << 20);
    this.secondRootHigh = hi >>> 12;
    const bits = Math.min(secondStageBits(aw, features), features.MGAW + 1) - 12;
    this.beyondLow = bits >= 32 ? 0 : -1 << bits;
    this.beyondHigh = bits >= 52 ? 0 : bits <= 32 ? -1 : -1 << (bits - 32);
  }
}

// A translation regime with the tag that its translations carry (§3.17), and what cached translations remember of their leaves.

import { type AddressTags, UNNUMBERED } from "../../../base/caches/address-tags.ts";
import { ORIGIN_AT } from "../../../base/caches/translation-cache.ts";
import { WORLD_EL1, WORLD_EL2 } from "../context-descriptor.ts";
import { TranslationRegime } from "../translation-regime.ts";

/** What cached entries translate: VAs of NS-EL1, IPAs of NS-EL1, VAs of NS-EL2. */
export const TAGGED_EL1 = 0;
export const TAGGED_IPA = 1;
export const TAGGED_EL2 = 2;

/** Machines are VMIDs in a world; EL2 has none. Their spaces are ASIDs. */
export function machineOf(tagged: number, vmid: number): number {
  return (tagged << 16) | vmid;
}

/** Where a leaf came from, as range commands name it: granule, and level. */
export const ORIGIN_GRANULE = 3 << ORIGIN_AT;
export const ORIGIN_LEVEL = 12 << ORIGIN_AT;

/** Flags of entries made from leaves of a granule (log2) and level. */
export function originOf(granule: number, level: number): number {
  return (((granule - 12) >>> 1) | (level << 2)) << ORIGIN_AT;
}

// Not state: made of the words that the cache saves
export class CachedSpace extends TranslationRegime {
  /** Neither stage is on: addresses pass unchanged. */
  transparent = false;

  /** `ignoresTopLower` or `ignoresTopUpper`. */
  ignoresTop = false;

  settle(tags: AddressTags, asid: number, aset: boolean, vmid: number): void {
    // Loaded with its stream, before any context.
    if (!this.first) this.second.tag = this.tag = tags.tagFor(machineOf(TAGGED_IPA, vmid), UNNUMBERED, 0);
    else if (this.world === WORLD_EL2) this.tag = tags.tagFor(machineOf(TAGGED_EL2, 0), UNNUMBERED, 0);
    else {
      const machine = this.world === WORLD_EL1 ? machineOf(TAGGED_EL1, vmid) : machineOf(TAGGED_EL2, 0);
      this.tag = tags.tagFor(machine, asid, aset ? 1 : 0);
    }
    this.transparent = !this.first && !this.second.enabled;
    this.ignoresTop = this.first && (this.ignoresTopLower || this.ignoresTopUpper);
  }
}

// A guest's stream table entry, and the one that the hardware gets for it (Linux: arm_smmu_validate_vste, arm_smmu_make_nested_domain_ste).
//
//     guest's entry                     hardware's entry
//     V = 0, or Config 0 (abort)        V = 1, Config 0: transactions end without a record (§5.2)
//     Config 4 (bypass)                 the parent's second stage alone
//     Config 5 (stage 1)                the parent's second stage under the guest's stage 1 (Config 7), MEV = 1
//
// One mask a doubleword says what a guest may set. What the fields hold is not looked at, as in Linux: an S1CDMax, S1Fmt or S1STALLD that
// this hardware does not have makes the hardware's entry ILLEGAL, and its C_BAD_STE is relayed to the guest.

import { CONFIG_BOTH, CONFIG_BYPASS, CONFIG_S1, STE } from "../../../arch/smmuv3/stream-table-entry.ts";
import { EIO } from "../../../uapi/errno.ts";
import type { Entry } from "./entry-writer.ts";

const CONFIG_ABORT = 0;
const EATS_ABORT = 0;
const EATS_FULL = 1;

/** Of S1ContextPtr (§5.2: bits 55:6) Linux takes an intermediate address of 52 bits. */
const S1_CONTEXT_PTR = ((1n << 52n) - 1n) & ~0x3fn;
/** Bits that a guest may set in an entry with V = 1, a doubleword each. */
export const GUEST_STE_BITS = [
  maskOf("V", "Config", "S1Fmt", "S1CDMax") | S1_CONTEXT_PTR,
  maskOf("S1DSS", "S1CIR", "S1COR", "S1CSH", "S1STALLD", "EATS"),
] as const;

const EATS = maskOf("EATS");

/** A guest's entry as it was accepted. */
export interface GuestStreamEntry {
  readonly config: typeof CONFIG_ABORT | typeof CONFIG_BYPASS | typeof CONFIG_S1;
  /** Doublewords 0 and 1; both 0 where V is. */
  readonly ste0: bigint;
  readonly ste1: bigint;
  /** The guest asks for ATS; null for an entry without stage 1, whose EATS decides nothing. */
  readonly ats: boolean | null;
}

/** -EIO for bits that a guest may not set, for Config 1 to 3, 6 and 7, and for EATS 2 and 3. */
export function acceptGuestEntry(ste0: bigint, ste1: bigint): GuestStreamEntry | number {
  if ((ste0 & 1n) === 0n) return { config: CONFIG_ABORT, ste0: 0n, ste1: 0n, ats: null };
  if ((ste0 & ~GUEST_STE_BITS[0]) !== 0n || (ste1 & ~GUEST_STE_BITS[1]) !== 0n) return -EIO;
  const config = Number(STE.get([ste0, ste1], "Config"));
  if (config !== CONFIG_ABORT && config !== CONFIG_BYPASS && config !== CONFIG_S1) return -EIO;
  const eats = Number(STE.get([ste0, ste1], "EATS"));
  if (eats !== EATS_ABORT && eats !== EATS_FULL) return -EIO;
  return { config, ste0, ste1, ats: config === CONFIG_S1 ? eats === EATS_FULL : null };
}

/** The hardware's entry. `secondStage` is the parent's entry for the device (Config 6), with EATS as the host has decided. */
export function nestedStreamEntry(guest: GuestStreamEntry, secondStage: Entry): Entry {
  if (guest.config === CONFIG_BYPASS) return secondStage;
  if (guest.config === CONFIG_ABORT) return [1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
  const entry = [...secondStage];
  entry[0] = guest.ste0;
  STE.set(entry, "Config", BigInt(CONFIG_BOTH));
  entry[1] = secondStage[1]! | (guest.ste1 & ~EATS);
  // Of a device that faults over and over fewer records take up the event queue, which is every guest's.
  STE.set(entry, "MEV", 1n);
  return entry;
}

/** Mask of fields of one doubleword. */
function maskOf(...names: (keyof typeof STE.fields & string)[]): bigint {
  const { word } = STE.fields[names[0]!];
  const words = [0n, 0n];
  for (const name of names) STE.set(words, name, (1n << 64n) - 1n);
  return words[word]!;
}

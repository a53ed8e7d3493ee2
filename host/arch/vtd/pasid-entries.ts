// PASID directory entries (§9.5) and PASID table entries (§9.6), with the checks of present ones.
//
//     directory: 2^(PDTS + 7) entries of 8 bytes, by PASID[19:6] ──▶ table: 64 entries of 64 bytes, by PASID[5:0]

import { bit, bits, structure } from "../../base/fields.ts";
import { secondStageBits } from "./capabilities.ts";
import type { StructureRules } from "./structure-rules.ts";

export const PASID_DIRECTORY_ENTRY_BYTES = 8;
export const PASID_ENTRY_BYTES = 64;
/** PASIDs of one directory entry, as bits. */
export const PASID_TABLE_BITS = 6;

export const PASID_DIRECTORY_ENTRY = structure("PASID directory entry", "§9.5", 1, {
  P: bit(0),
  FPD: bit(1),
  SMPTBLPTR: bits(63, 12),
});

export const PASID_ENTRY = structure("PASID entry", "§9.6", 8, {
  P: bit(0),
  FPD: bit(1),
  AW: bits(4, 2, { values: { 1: "39", 2: "48", 3: "57" } }),
  PGTT: bits(8, 6, { values: { 1: "first", 2: "second", 3: "nested", 4: "pass-through" } }),
  SSADE: bit(9),
  SSPTPTR: bits(63, 12),
  DID: bits(15, 0, { word: 1 }),
  PWSNP: bit(23, { word: 1 }),
  PGSNP: bit(24, { word: 1 }),
  CD: bit(25, { word: 1 }),
  EMTE: bit(26, { word: 1 }),
  PAT: bits(63, 32, { word: 1 }),
  SRE: bit(0, { word: 2 }),
  FSPM: bits(3, 2, { word: 2, values: { 0: "4-level", 1: "5-level" } }),
  WPE: bit(4, { word: 2 }),
  ignored: bits(6, 5, { word: 2 }),
  EAFE: bit(7, { word: 2 }),
  FSPTPTR: bits(63, 12, { word: 2 }),
});

/** PASID entry PGTT. */
export const PGTT_FIRST = 1;
export const PGTT_SECOND = 2;
export const PGTT_NESTED = 3;
export const PGTT_PASS_THROUGH = 4;

/** Bits of the low halves, for hot code. */
export const ENTRY_SSADE = 1 << 9;
export const ENTRY_PWSNP = 1 << 23;
export const ENTRY_PGSNP = 1 << 24;
export const ENTRY_SRE = 1 << 0;
export const ENTRY_WPE = 1 << 4;
export const ENTRY_EAFE = 1 << 7;

/** True if a present directory entry has reserved bits set. */
export function pasidDirectoryReserved(lo: number, hi: number, rules: StructureRules): boolean {
  return ((lo & 0xffc) | (hi & rules.pointerReserved)) !== 0;
}

/** True if a present PASID entry (16 halves) has reserved bits set. */
export function pasidReserved(words: Int32Array, rules: StructureRules): boolean {
  const reserved = rules.pasidReserved;
  let found = words[2]! & rules.domainReserved;
  for (let i = 0; i < 16; i++) found |= words[i]! & reserved[i]!;
  return found !== 0;
}

/** Why a present PASID entry without reserved bits is invalid (SPT.4); null: it is not. */
export function pasidInvalid(words: Int32Array, rules: StructureRules): string | null {
  const { features } = rules;
  const w0 = words[0]!;
  const type = (w0 >>> 6) & 7;
  switch (type) {
    case PGTT_FIRST:
      if (!features.FSTS) return "PGTT asks for the first stage, which there is not";
      break;
    case PGTT_SECOND:
      if (!features.SSTS) return "PGTT asks for the second stage, which there is not";
      break;
    case PGTT_NESTED:
      if (!features.NEST) return "PGTT asks for nested translation, which there is not";
      break;
    case PGTT_PASS_THROUGH:
      return features.PT ? null : "PGTT asks for pass-through, which there is not";
    default:
      return "PGTT is reserved";
  }
  if (type !== PGTT_FIRST && secondStageBits((w0 >>> 2) & 7, features) === 0) return "AW is a width that there is not";
  if (type !== PGTT_SECOND) {
    const mode = (words[4]! >>> 2) & 3;
    if (mode > 1) return "FSPM is reserved";
    if (mode === 1 && !features.FS5LP) return "FSPM asks for 5 levels, which there are not";
  }
  return null;
}

// Root and context entries: legacy mode (§9.1, §9.3) and scalable mode (§9.2, §9.4), with the checks of present ones.
//
// Hot code holds an entry as halves of quadwords, signed; the tables serve drivers, views and tests.

import { bit, bits, structure } from "../../base/fields.ts";
import { secondStageBits } from "./capabilities.ts";
import type { StructureRules } from "./structure-rules.ts";

/** Both modes: 256 root entries of 16 bytes, by bus. */
export const ROOT_BYTES = 16;
/** Legacy: 256 entries, by device and function. */
export const CONTEXT_BYTES = 16;
/** Scalable: 128 entries in each of two tables (devfn 0–127, 128–255). */
export const SCALABLE_CONTEXT_BYTES = 32;

export const ROOT = structure("root entry", "§9.1", 2, { P: bit(0), CTP: bits(63, 12) });

export const SCALABLE_ROOT = structure("scalable-mode root entry", "§9.2", 2, {
  LP: bit(0),
  LCTP: bits(63, 12),
  UP: bit(0, { word: 1 }),
  UCTP: bits(63, 12, { word: 1 }),
});

export const CONTEXT = structure("context entry", "§9.3", 2, {
  P: bit(0),
  FPD: bit(1),
  TT: bits(3, 2, { values: { 0: "untranslated", 1: "+ATS", 2: "pass-through" } }),
  SSPTPTR: bits(63, 12),
  AW: bits(2, 0, { word: 1, values: { 1: "39", 2: "48", 3: "57" } }),
  ignored: bits(6, 3, { word: 1 }),
  DID: bits(23, 8, { word: 1 }),
});
/** Context.TT. */
export const TT_UNTRANSLATED = 0;
export const TT_ALL = 1;
export const TT_PASS_THROUGH = 2;

export const SCALABLE_CONTEXT = structure("scalable-mode context entry", "§9.4", 4, {
  P: bit(0),
  FPD: bit(1),
  DTE: bit(2),
  PASIDE: bit(3),
  PRE: bit(4),
  PDTS: bits(11, 9),
  PASIDDIRPTR: bits(63, 12),
  RID_PASID: bits(19, 0, { word: 1 }),
  RID_PRIV: bit(20, { word: 1 }),
});

/** P and FPD stand at the same bits of every structure but root entries, which have no FPD. */
export const PRESENT = 1 << 0;
export const FPD = 1 << 1;

/** PASIDs of a scalable-mode context are below this, by PDTS (§9.4). */
export function pasidLimit(pdts: number): number {
  return 2 ** (pdts + 13);
}

/** True if a present root entry (legacy, 4 halves) has reserved bits set. */
export function rootReserved(words: Int32Array, rules: StructureRules): boolean {
  return ((words[0]! & 0xffe) | (words[1]! & rules.pointerReserved) | words[2]! | words[3]!) !== 0;
}

/** True if one present half of a scalable-mode root entry has reserved bits set; the other half is nobody's business. */
export function scalableRootReserved(lo: number, hi: number, rules: StructureRules): boolean {
  return ((lo & 0xffe) | (hi & rules.pointerReserved)) !== 0;
}

/** True if a present context entry (legacy, 4 halves) has reserved bits set. */
export function contextReserved(words: Int32Array, rules: StructureRules): boolean {
  const w2 = words[2]!;
  return (
    ((words[0]! & 0xff0) |
      (words[1]! & rules.pointerReserved) |
      (w2 & 0xff000080) |
      ((w2 >>> 8) & rules.domainReserved) |
      words[3]!) !==
    0
  );
}

/** Why a present context entry without reserved bits is invalid (LCT.4); null: it is not. */
export function contextInvalid(words: Int32Array, rules: StructureRules): string | null {
  const { features } = rules;
  const type = (words[0]! >>> 2) & 3;
  if (type === 3) return "TT is reserved";
  if (type === TT_ALL && !features.DT) return "TT asks for ATS, which there is not";
  if (type === TT_PASS_THROUGH && !features.PT) return "TT asks for pass-through, which there is not";
  if (secondStageBits(words[2]! & 7, features) === 0) return "AW is a width that there is not";
  return null;
}

/** True if a present scalable-mode context entry (8 halves) has reserved bits set. */
export function scalableContextReserved(words: Int32Array, rules: StructureRules): boolean {
  const reserved = rules.scalableContextReserved;
  let found = 0;
  for (let i = 0; i < 8; i++) found |= words[i]! & reserved[i]!;
  return found !== 0;
}

/** Why a present scalable-mode context entry without reserved bits is invalid (SCT.4); null: it is not. */
export function scalableContextInvalid(words: Int32Array): string | null {
  const ridPasid = words[2]! & 0xfffff;
  return ridPasid >= pasidLimit((words[0]! >>> 9) & 7) ? "RID_PASID is beyond the PASID directory" : null;
}

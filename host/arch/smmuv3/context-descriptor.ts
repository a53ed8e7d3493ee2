// Context descriptors (IHI 0070 §5.4), level-1 descriptors of their tables (§5.3), and the rules that make one ILLEGAL (§5.4.2).
//
// Hot code holds a descriptor as 16 words of 32 bits, signed; the tables serve drivers, views and tests.

import { bit, bits, structure } from "../../base/fields.ts";
import { effectiveBits, type SmmuFeatures } from "./identification.ts";
import { addressBeyond, granuleOfTg0, granuleOfTg1 } from "./table-shapes.ts";

export const CD_BYTES = 64;

export const L1CD = structure("L1CD", "§5.3", 1, { V: bit(0), L2Ptr: bits(55, 12) });

export const CD = structure("CD", "§5.4", 8, {
  T0SZ: bits(5, 0),
  TG0: bits(7, 6, { values: { 0: "4K", 1: "64K", 2: "16K" } }),
  IR0: bits(9, 8),
  OR0: bits(11, 10),
  SH0: bits(13, 12),
  EPD0: bit(14),
  ENDI: bit(15),
  T1SZ: bits(21, 16),
  TG1: bits(23, 22, { values: { 1: "16K", 2: "4K", 3: "64K" } }),
  IR1: bits(25, 24),
  OR1: bits(27, 26),
  SH1: bits(29, 28),
  EPD1: bit(30),
  V: bit(31),
  IPS: bits(34, 32),
  AFFD: bit(35),
  WXN: bit(36),
  UWXN: bit(37),
  TBI0: bit(38),
  TBI1: bit(39),
  PAN: bit(40),
  AA64: bit(41),
  HD: bit(42),
  HA: bit(43),
  S: bit(44),
  R: bit(45),
  A: bit(46),
  ASET: bit(47),
  ASID: bits(63, 48),
  NSCFG0: bit(0, { word: 1 }),
  HAD0: bit(1, { word: 1 }),
  E0PD0: bit(2, { word: 1 }),
  HAFT: bit(3, { word: 1 }),
  TTB0: bits(55, 4, { word: 1 }),
  PnCH: bit(58, { word: 1 }),
  EPAN: bit(59, { word: 1 }),
  HWU0: bits(63, 60, { word: 1 }),
  NSCFG1: bit(0, { word: 2 }),
  HAD1: bit(1, { word: 2 }),
  E0PD1: bit(2, { word: 2 }),
  AIE: bit(3, { word: 2 }),
  TTB1: bits(55, 4, { word: 2 }),
  DS: bit(58, { word: 2 }),
  PIE: bit(59, { word: 2 }),
  HWU1: bits(63, 60, { word: 2 }),
  MAIR: bits(63, 0, { word: 3 }),
  AMAIR: bits(63, 0, { word: 4 }),
});

/** StreamWorlds (§3.3.4): which registers of a CPU the translation regime is like. */
export const WORLD_EL1 = 0;
export const WORLD_EL2 = 1;
export const WORLD_EL2_E2H = 2;
export type StreamWorld = 0 | 1 | 2;

/** Why a descriptor is ILLEGAL; CD_LEGAL that it is not. Texts in CD_FAULTS. */
export const CD_LEGAL = 0;
export const CD_FAULTS = [
  "",
  "V is 0",
  "S is set though the stream's S1STALLD forbids stalls",
  "A is 0, and the SMMU can only abort",
  "S disagrees with the stall model",
  "ENDI asks for an order there is not",
  "AA64 asks for a table format there is not",
  "HA or HD ask for updates there are not",
  "HAFT without HA",
  "ASID is wider than 8 bits",
  "T0SZ is out of range",
  "TG0 is a granule there is not",
  "TTB0 is out of range",
  "T1SZ is out of range",
  "TG1 is a granule there is not",
  "TTB1 is out of range",
] as const;

/** Whether a descriptor (16 words) is ILLEGAL for a stream of `world`: CD_LEGAL, or an index of CD_FAULTS, of the first rule it breaks (§5.4.2). */
export function cdFault(
  words: Int32Array,
  world: StreamWorld,
  stallsDisabled: boolean,
  features: SmmuFeatures,
): number {
  const w0 = words[0]!;
  const w1 = words[1]!;
  if (w0 >= 0) return 1;
  const stalls = (w1 & (1 << 12)) !== 0;
  if (stallsDisabled && stalls) return 2;
  if (features.TERM_MODEL && (w1 & (1 << 14)) === 0) return 3;
  if (features.STALL_MODEL === (stalls ? 1 : 2)) return 4;
  // NS-EL2 has one table and ignores EPDx; it has no second.
  const lower = world === WORLD_EL2 || (w0 & (1 << 14)) === 0;
  const upper = world !== WORLD_EL2 && (w0 & (1 << 30)) === 0;
  const big = (w0 & (1 << 15)) !== 0;
  if ((lower || upper) && features.TTENDIAN === (big ? 2 : 3)) return 5;
  if ((w1 & (1 << 9)) === 0) return 6;
  const ha = (w1 & (1 << 11)) !== 0;
  const hd = (w1 & (1 << 10)) !== 0;
  if (((ha || hd) && features.HTTU === 0) || (hd && features.HTTU === 1)) return 7;
  if ((words[2]! & 8) !== 0 && !ha && features.HTTU === 3) return 8;
  if (world !== WORLD_EL2 && !features.ASID16 && w1 >>> 24 !== 0) return 9;
  const size = Math.min(effectiveBits(w1 & 7, features), 48);
  if (lower) {
    const granule = granuleOfTg0((w0 >>> 6) & 3, features);
    if (sizeOutOfRange(w0 & 0x3f, granule, features)) return 10;
    if (granule === 0) return 11;
    if (addressBeyond(words[3]! & 0xffffff, size)) return 12;
  }
  if (upper) {
    const granule = granuleOfTg1((w0 >>> 22) & 3, features);
    if (sizeOutOfRange((w0 >>> 16) & 0x3f, granule, features)) return 13;
    if (granule === 0) return 14;
    if (addressBeyond(words[5]! & 0xffffff, size)) return 15;
  }
  return CD_LEGAL;
}

/** TxSZ: 16 to 39, to 48 (64K: 47) with small tables (§5.4; VAX and DS are not here). */
function sizeOutOfRange(tsz: number, granule: number, features: SmmuFeatures): boolean {
  return tsz < 16 || tsz > (features.STT ? (granule === 16 ? 47 : 48) : 39);
}

/** Where descriptor `ssid` of a table stands (§5.3): the leaf table's index and, for two levels, that of the level-1 descriptor (-1: linear). */
export function cdIndex(
  ssid: number,
  format: number,
  cdMax: number,
): { readonly level1: number; readonly leaf: number } {
  const split = cdMax === 0 || format === 0 || format === 3 ? 0 : format === 1 ? 6 : 10;
  if (split === 0) return { level1: -1, leaf: ssid };
  return { level1: ssid >>> split, leaf: ssid & ((1 << split) - 1) };
}

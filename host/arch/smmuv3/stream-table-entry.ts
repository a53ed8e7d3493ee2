// Stream table entries (IHI 0070 §5.2), level-1 stream table descriptors (§5.1.1), and the rules that make an entry ILLEGAL (§5.2.2).
//
// Hot code holds an entry as 16 words of 32 bits, signed; the tables serve drivers, views and tests.

import { bit, bits, structure } from "../../base/fields.ts";
import { ADDRESS_BITS, intermediateBits, outputBits, type SmmuFeatures } from "./identification.ts";
import { addressBeyond, granuleOfTg0, secondStageShape } from "./table-shapes.ts";

export const STE_BYTES = 64;

export const L1STD = structure("L1STD", "§5.1.1", 1, { Span: bits(4, 0), L2Ptr: bits(55, 6) });

export const STE = structure("STE", "§5.2", 8, {
  V: bit(0),
  Config: bits(3, 1, { values: { 0: "abort", 4: "bypass", 5: "S1", 6: "S2", 7: "S1+S2" } }),
  S1Fmt: bits(5, 4, { values: { 0: "linear", 1: "4K", 2: "64K" } }),
  S1ContextPtr: bits(55, 6),
  S1CDMax: bits(63, 59),
  S1DSS: bits(1, 0, { word: 1, values: { 0: "terminate", 1: "bypass", 2: "SSID0" } }),
  S1CIR: bits(3, 2, { word: 1 }),
  S1COR: bits(5, 4, { word: 1 }),
  S1CSH: bits(7, 6, { word: 1 }),
  S2HWU: bits(11, 8, { word: 1 }),
  DRE: bit(12, { word: 1 }),
  CONT: bits(16, 13, { word: 1 }),
  DCP: bit(17, { word: 1 }),
  PPAR: bit(18, { word: 1 }),
  MEV: bit(19, { word: 1 }),
  S1PIE: bit(24, { word: 1 }),
  S2FWB: bit(25, { word: 1 }),
  S1MPAM: bit(26, { word: 1 }),
  S1STALLD: bit(27, { word: 1 }),
  EATS: bits(29, 28, { word: 1, values: { 1: "full", 2: "split" } }),
  STRW: bits(31, 30, { word: 1, values: { 0: "EL1", 2: "EL2" } }),
  MemAttr: bits(35, 32, { word: 1 }),
  MTCFG: bit(36, { word: 1 }),
  ALLOCCFG: bits(40, 37, { word: 1 }),
  SHCFG: bits(45, 44, { word: 1 }),
  NSCFG: bits(47, 46, { word: 1 }),
  PRIVCFG: bits(49, 48, { word: 1, values: { 2: "unprivileged", 3: "privileged" } }),
  INSTCFG: bits(51, 50, { word: 1, values: { 2: "data", 3: "instruction" } }),
  S2VMID: bits(15, 0, { word: 2 }),
  S2T0SZ: bits(37, 32, { word: 2 }),
  S2SL0: bits(39, 38, { word: 2 }),
  S2IR0: bits(41, 40, { word: 2 }),
  S2OR0: bits(43, 42, { word: 2 }),
  S2SH0: bits(45, 44, { word: 2 }),
  S2TG: bits(47, 46, { word: 2, values: { 0: "4K", 1: "64K", 2: "16K" } }),
  S2PS: bits(50, 48, { word: 2 }),
  S2AA64: bit(51, { word: 2 }),
  S2ENDI: bit(52, { word: 2 }),
  S2AFFD: bit(53, { word: 2 }),
  S2PTW: bit(54, { word: 2 }),
  S2HD: bit(55, { word: 2 }),
  S2HA: bit(56, { word: 2 }),
  S2S: bit(57, { word: 2 }),
  S2R: bit(58, { word: 2 }),
  S2HAFT: bit(59, { word: 2 }),
  S2PIE: bit(60, { word: 2 }),
  S2POE: bit(61, { word: 2 }),
  S2NSW: bit(0, { word: 3 }),
  S2NSA: bit(1, { word: 3 }),
  S2SL0_2: bit(2, { word: 3 }),
  S2DS: bit(3, { word: 3 }),
  S2TTB: bits(55, 4, { word: 3 }),
  S2SKL: bits(62, 61, { word: 3 }),
});

/** STE.Config; bit 2 clear is abort, whatever the others. */
export const CONFIG_BYPASS = 4;
export const CONFIG_S1 = 5;
export const CONFIG_S2 = 6;
export const CONFIG_BOTH = 7;
/** Bits of Config. */
export const CONFIG_STAGE_1 = 1;
export const CONFIG_STAGE_2 = 2;

/** STE.S1DSS. */
export const S1DSS_BYPASS = 1;
export const S1DSS_SSID0 = 2;

/** Why an entry is ILLEGAL; STE_LEGAL that it is not. Texts in STE_FAULTS. */
export const STE_LEGAL = 0;
export const STE_FAULTS = [
  "",
  "V is 0",
  "Config asks for stage 1, which there is not",
  "Config asks for stage 2, which there is not",
  "EATS asks for split-stage ATS without both stages, with S2S, or where there is none",
  "EATS asks for full ATS with stalls of stage 2",
  "STRW is reserved",
  "S1STALLD is set where the stall model leaves no choice",
  "S1CDMax is above SSIDSIZE",
  "S1Fmt is two-level, which there is not",
  "S1ContextPtr is out of range",
  "S2S disagrees with the stall model",
  "S2AA64 asks for a table format there is not",
  "S2HA or S2HD ask for updates there are not",
  "S2HAFT without S2HA",
  "S2TG is a granule there is not",
  "S2TTB is out of range",
  "S2T0SZ is out of range",
  "S2SL0 does not go with S2T0SZ",
  "S2ENDI asks for an order there is not",
  "S2VMID is wider than 8 bits",
] as const;

/** Whether an entry (16 words) is ILLEGAL under `features`: STE_LEGAL, or an index of STE_FAULTS, of the first rule of §5.2.2 that it breaks. */
export function steFault(words: Int32Array, features: SmmuFeatures): number {
  const w0 = words[0]!;
  if ((w0 & 1) === 0) return 1;
  const config = (w0 >>> 1) & 7;
  if ((config & CONFIG_BYPASS) === 0) return STE_LEGAL;
  const first = (config & CONFIG_STAGE_1) !== 0;
  const second = (config & CONFIG_STAGE_2) !== 0;
  if (first && !features.S1P) return 2;
  if (second && !features.S2P) return 3;
  const w2 = words[2]!;
  const w5 = words[5]!;
  const stalls = (w5 & (1 << 25)) !== 0;
  if (features.ATS && config !== CONFIG_BYPASS) {
    const eats = (w2 >>> 28) & 3;
    if (eats === 2 && (config !== CONFIG_BOTH || stalls || features.NS1ATS)) return 4;
    if (eats === 1 && stalls && second) return 5;
  }
  const usesStrw = config === CONFIG_S1 && features.Hyp;
  if (usesStrw && (w2 & (1 << 30)) !== 0) return 6;
  if (first) {
    const fault = firstStageFault(words, second, features);
    if (fault !== STE_LEGAL) return fault;
  }
  if (second) {
    const fault = secondStageFault(words, features);
    if (fault !== STE_LEGAL) return fault;
  }
  const el1 = !usesStrw || w2 >>> 30 === 0;
  if (features.S2P && config !== CONFIG_BYPASS && el1 && !features.VMID16 && (words[4]! & 0xff00) !== 0) return 20;
  return STE_LEGAL;
}

function firstStageFault(words: Int32Array, second: boolean, features: SmmuFeatures): number {
  if ((words[2]! & (1 << 27)) !== 0 && features.STALL_MODEL !== 0) return 7;
  const cdMax = words[1]! >>> 27;
  if (features.SSIDSIZE !== 0) {
    if (cdMax > features.SSIDSIZE) return 8;
    const format = (words[0]! >>> 4) & 3;
    if ((format === 1 || format === 2) && cdMax !== 0 && !features.CD2L) return 9;
  }
  const limit = second ? intermediateBits(features) : outputBits(features);
  return addressBeyond(words[1]! & 0xffffff, limit) ? 10 : STE_LEGAL;
}

function secondStageFault(words: Int32Array, features: SmmuFeatures): number {
  const w5 = words[5]!;
  const stalls = (w5 & (1 << 25)) !== 0;
  if (features.STALL_MODEL === (stalls ? 1 : 2)) return 11;
  if ((w5 & (1 << 19)) === 0) return 12;
  const ha = (w5 & (1 << 24)) !== 0;
  const hd = (w5 & (1 << 23)) !== 0;
  if ((ha || hd) && features.HTTU === 0) return 13;
  if (hd && features.HTTU === 1) return 13;
  if ((w5 & (1 << 27)) !== 0 && !ha && features.HTTU === 3) return 14;
  const granule = granuleOfTg0((w5 >>> 14) & 3, features);
  if (granule === 0) return 15;
  const size = Math.min(ADDRESS_BITS[(w5 >>> 16) & 7]!, outputBits(features), 48);
  if (addressBeyond(words[7]! & 0xffffff, size)) return 16;
  const t0sz = w5 & 0x3f;
  const largest = features.STT ? (granule === 16 ? 47 : 48) : 39;
  if (t0sz > largest || t0sz < Math.max(16, 64 - intermediateBits(features))) return 17;
  if (secondStageShape(granule, t0sz, (w5 >>> 6) & 3, features) === null) return 18;
  const big = (w5 & (1 << 20)) !== 0;
  if (features.TTENDIAN === (big ? 2 : 3)) return 19;
  return STE_LEGAL;
}

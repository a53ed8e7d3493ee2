// Device contexts (§3.1): how a device_id is split into directory indexes, the layout of an entry, and the checks that make an
// entry "misconfigured" (§3.1.4).
//
// Raw contexts are Uint32Arrays of halves, low half first: dc[2 * n] and dc[2 * n + 1] are doubleword n after byte order has been
// undone. 8 halves in the base format (MSI_FLAT = 0), 16 in the extended one.

import { bit, bits, structure } from "../../base/fields.ts";
import { msiGuestAddressBits, type StructureRules } from "./capabilities.ts";

/** Doublewords of a device context. */
export const DC_TC = 0;
export const DC_IOHGATP = 1;
export const DC_TA = 2;
export const DC_FSC = 3;
export const DC_MSIPTP = 4;
export const DC_MSI_ADDR_MASK = 5;
export const DC_MSI_ADDR_PATTERN = 6;
export const DC_RESERVED = 7;

/** tc bits, all in the low half. */
export const TC_V = 1 << 0;
export const TC_EN_ATS = 1 << 1;
export const TC_EN_PRI = 1 << 2;
export const TC_T2GPA = 1 << 3;
export const TC_DTF = 1 << 4;
export const TC_PDTV = 1 << 5;
export const TC_PRPR = 1 << 6;
export const TC_GADE = 1 << 7;
export const TC_SADE = 1 << 8;
export const TC_DPE = 1 << 9;
export const TC_SBE = 1 << 10;
export const TC_SXL = 1 << 11;
/** Bits 23:12; bits 31:24 are for custom use and ignored here, bits 63:32 are reserved too. */
const TC_RESERVED = 0x00fff000;

/** Mode encodings. */
export const MODE_BARE = 0;
/** iosatp, PC.fsc (SXL = 0), iohgatp (GXL = 0): Sv39/Sv39x4, Sv48/Sv48x4, Sv57/Sv57x4. With SXL (GXL) = 1, 8 is Sv32 (Sv32x4). */
export const MODE_SV39 = 8;
export const MODE_SV48 = 9;
export const MODE_SV57 = 10;
export const MODE_SV32 = 8;
/** pdtp. */
export const PDTP_PD8 = 1;
export const PDTP_PD17 = 2;
export const PDTP_PD20 = 3;
/** msiptp. */
export const MSIPTP_OFF = 0;
export const MSIPTP_FLAT = 1;

const IOSATP_NAMES = { 0: "Bare", 8: "Sv39", 9: "Sv48", 10: "Sv57" };
const IOHGATP_NAMES = { 0: "Bare", 8: "Sv39x4", 9: "Sv48x4", 10: "Sv57x4" };
const PDTP_NAMES = { 0: "Bare", 1: "PD8", 2: "PD17", 3: "PD20" };

const contextFields = {
  V: bit(0),
  EN_ATS: bit(1),
  EN_PRI: bit(2),
  T2GPA: bit(3),
  DTF: bit(4),
  PDTV: bit(5),
  PRPR: bit(6),
  GADE: bit(7),
  SADE: bit(8),
  DPE: bit(9),
  SBE: bit(10),
  SXL: bit(11),
  custom: bits(31, 24),
  iohgatp_PPN: bits(43, 0, { word: DC_IOHGATP }),
  GSCID: bits(59, 44, { word: DC_IOHGATP }),
  iohgatp_MODE: bits(63, 60, { word: DC_IOHGATP, values: IOHGATP_NAMES }),
  PSCID: bits(31, 12, { word: DC_TA }),
  RCID: bits(51, 40, { word: DC_TA }),
  MCID: bits(63, 52, { word: DC_TA }),
  fsc_PPN: bits(43, 0, { word: DC_FSC }),
  fsc_MODE: bits(63, 60, { word: DC_FSC }),
} as const;

/** Base format: 32 bytes. */
export const DEVICE_CONTEXT_BASE = structure("device context", "§3.1.3", 4, contextFields);

/** Extended format: 64 bytes. */
export const DEVICE_CONTEXT = structure("device context", "§3.1.3", 8, {
  ...contextFields,
  msiptp_PPN: bits(43, 0, { word: DC_MSIPTP }),
  msiptp_MODE: bits(63, 60, { word: DC_MSIPTP, values: { 0: "Off", 1: "Flat" } }),
  msi_addr_mask: bits(51, 0, { word: DC_MSI_ADDR_MASK }),
  msi_addr_pattern: bits(51, 0, { word: DC_MSI_ADDR_PATTERN }),
});

/** fsc when PDTV = 0 and PC.fsc: iosatp. */
export const IOSATP = structure("iosatp", "§3.1.3.5", 1, {
  PPN: bits(43, 0),
  MODE: bits(63, 60, { values: IOSATP_NAMES }),
});

/** fsc when PDTV = 1. */
export const PDTP = structure("pdtp", "§3.1.3.5", 1, {
  PPN: bits(43, 0),
  MODE: bits(63, 60, { values: PDTP_NAMES }),
});

/** Non-leaf entries of device and process directories (§3.1.1, §3.2.1). */
export const DIRECTORY_ENTRY = structure("directory entry", "§3.1.1", 1, { V: bit(0), PPN: bits(53, 10) });

/** Bytes of one device context. */
export function deviceContextBytes(extended: boolean): 32 | 64 {
  return extended ? 64 : 32;
}

/** Index of `deviceId` in the directory table of `level` (0 is the leaf) (§3). */
export function deviceDirectoryIndex(deviceId: number, level: number, extended: boolean): number {
  const leafBits = extended ? 6 : 7;
  if (level === 0) return deviceId & ((1 << leafBits) - 1);
  if (level === 1) return (deviceId >>> leafBits) & 0x1ff;
  return deviceId >>> (leafBits + 9);
}

/** The number of device_id bits that a directory of `levels` levels covers (§3). */
export function deviceIdBits(levels: number, extended: boolean): number {
  return levels === 3 ? 24 : (extended ? 6 : 7) + (levels - 1) * 9;
}

/** True if a mode of iosatp or PC.fsc is valid and supported for this SXL. */
export function firstStageModeSupported(mode: number, sxl: boolean, rules: StructureRules): boolean {
  if (mode === MODE_BARE) return true;
  if (sxl) return mode === MODE_SV32 && rules.Sv32;
  return (mode === MODE_SV39 && rules.Sv39) || (mode === MODE_SV48 && rules.Sv48) || (mode === MODE_SV57 && rules.Sv57);
}

/** True if a mode of iohgatp is valid and supported for this GXL. */
export function secondStageModeSupported(mode: number, rules: StructureRules): boolean {
  if (mode === MODE_BARE) return true;
  if (rules.gxl) return mode === MODE_SV32 && rules.Sv32x4;
  return (
    (mode === MODE_SV39 && rules.Sv39x4) || (mode === MODE_SV48 && rules.Sv48x4) || (mode === MODE_SV57 && rules.Sv57x4)
  );
}

function processDirectoryModeSupported(mode: number, rules: StructureRules): boolean {
  return (
    mode === MODE_BARE ||
    (mode === PDTP_PD8 && rules.PD8) ||
    (mode === PDTP_PD17 && rules.PD17) ||
    (mode === PDTP_PD20 && rules.PD20)
  );
}

/** Bits 59:44 of fsc, msiptp and PC.fsc are reserved: the mask in the high half. */
const FSC_RESERVED_HIGH = 0x0ffff000;

/**
 * Why a valid (V = 1) device context is misconfigured (cause 259, §3.1.4): the rule in words, or null if it is sound. `dc` holds
 * 8 or 16 halves; with `rules.MSI_FLAT` 16. Custom tc bits 31:24 are ignored; PPNs are not checked against PAS (allowed: the
 * access then faults).
 */
export function deviceContextMisconfiguration(dc: Uint32Array, rules: StructureRules): string | null {
  const tc = dc[0]!;
  if ((tc & TC_RESERVED) !== 0 || dc[1] !== 0) return "reserved bits of tc";
  const enAts = (tc & TC_EN_ATS) !== 0;
  const enPri = (tc & TC_EN_PRI) !== 0;
  const t2gpa = (tc & TC_T2GPA) !== 0;
  const prpr = (tc & TC_PRPR) !== 0;
  const pdtv = (tc & TC_PDTV) !== 0;
  const sbe = (tc & TC_SBE) !== 0;
  const sxl = (tc & TC_SXL) !== 0;
  if (!rules.ATS && (enAts || enPri || prpr)) return "EN_ATS, EN_PRI or PRPR without ATS";
  if (!enAts && t2gpa) return "T2GPA without EN_ATS";
  if (!enAts && enPri) return "EN_PRI without EN_ATS";
  if (!enPri && prpr) return "PRPR without EN_PRI";
  if (!rules.T2GPA && t2gpa) return "T2GPA not supported";
  const hgatpMode = dc[3]! >>> 28;
  if (t2gpa && hgatpMode === MODE_BARE) return "T2GPA with iohgatp Bare";
  const fscMode = dc[7]! >>> 28;
  if ((dc[7]! & FSC_RESERVED_HIGH) !== 0) return "reserved bits of fsc";
  if (rules.gxl ? !sxl : sxl && !rules.gxlWritable) return "SXL not legal";
  if (pdtv) {
    if (!processDirectoryModeSupported(fscMode, rules)) return "pdtp mode not supported";
  } else {
    if (!firstStageModeSupported(fscMode, sxl, rules)) return "iosatp mode not supported";
    if ((tc & TC_DPE) !== 0) return "DPE without PDTV";
  }
  if (!secondStageModeSupported(hgatpMode, rules)) return "iohgatp mode not supported";
  if (hgatpMode !== MODE_BARE && (dc[2]! & 3) !== 0) return "second-stage root not aligned to 16 KiB";
  if (!rules.AMO_HWAD && (tc & (TC_SADE | TC_GADE)) !== 0) return "SADE or GADE without AMO_HWAD";
  if ((!rules.END || !rules.bigEndianWritable) && sbe !== rules.bigEndian) return "SBE not legal";
  if ((dc[4]! & 0xfff) !== 0 || (dc[5]! & 0xff) !== 0) return "reserved bits of ta";
  if (dc[5]! >>> 8 !== 0) {
    // Without QOSID the fields are reserved; with it they may be narrower than 12 bits.
    const rcid = (dc[5]! >>> 8) & 0xfff;
    const mcid = dc[5]! >>> 20;
    if (!rules.QOSID) return "RCID or MCID without QOSID";
    if (rcid >>> rules.rcidBits !== 0 || mcid >>> rules.mcidBits !== 0) return "RCID or MCID wider than supported";
  }
  if (!rules.MSI_FLAT) return null;
  const msiMode = dc[9]! >>> 28;
  if ((dc[9]! & FSC_RESERVED_HIGH) !== 0) return "reserved bits of msiptp";
  if (msiMode !== MSIPTP_OFF && msiMode !== MSIPTP_FLAT) return "msiptp mode not supported";
  if (rules.bareNeedsMsiOff && hgatpMode === MODE_BARE && msiMode !== MSIPTP_OFF) return "msiptp with iohgatp Bare";
  if (dc[11]! >>> 20 !== 0 || dc[13]! >>> 20 !== 0) return "reserved bits of msi_addr_mask or msi_addr_pattern";
  if (rules.checksMsiPatternWidth) {
    const wide = msiGuestAddressBits(rules) - 12 - 32;
    const lowMask = wide >= 0 ? 0 : -1 << (wide + 32);
    const highMask = wide <= 0 ? -1 : -1 << wide;
    if (((dc[10]! | dc[12]!) & lowMask) !== 0 || ((dc[11]! | dc[13]!) & highMask) !== 0)
      return "msi_addr_mask or msi_addr_pattern wider than guest-physical page numbers";
  }
  if ((dc[14]! | dc[15]!) !== 0) return "reserved doubleword";
  return null;
}

/** Halves of doublewords given as bigints: what `deviceContextMisconfiguration` takes. */
export function halvesOf(words: readonly bigint[]): Uint32Array {
  const halves = new Uint32Array(words.length * 2);
  for (let i = 0; i < words.length; i++) {
    halves[2 * i] = Number(words[i]! & 0xffffffffn);
    halves[2 * i + 1] = Number((words[i]! >> 32n) & 0xffffffffn);
  }
  return halves;
}

/** Doublewords from halves. */
export function wordsOf(halves: Uint32Array): bigint[] {
  const words: bigint[] = [];
  for (let i = 0; i < halves.length; i += 2) words.push((BigInt(halves[i + 1]!) << 32n) | BigInt(halves[i]!));
  return words;
}

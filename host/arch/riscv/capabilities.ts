// The capabilities register (§6.3), the feature-control register (§6.4) and the rules that both give for in-memory structures.
//
// `RiscvCapabilities` is the register taken apart, one member per bit in the specification's spelling. `StructureRules` is what
// the checks of device contexts, process contexts and page-table entries need to know: capabilities plus the current fctl plus
// the few widths an implementation chooses. Hardware derives it whenever fctl changes; a guest-visible IOMMU derives its own
// from the capabilities it advertises; a driver from what it read.

import { bit, bits, structure } from "../../base/fields.ts";

export const IGS_MSI = 0;
export const IGS_WSI = 1;
export const IGS_BOTH = 2;

/** Register layout (§6.3). */
export const CAPABILITIES = structure("capabilities", "§6.3", 1, {
  version: bits(7, 0, { access: "RO" }),
  Sv32: bit(8, { access: "RO" }),
  Sv39: bit(9, { access: "RO" }),
  Sv48: bit(10, { access: "RO" }),
  Sv57: bit(11, { access: "RO" }),
  Svrsw60t59b: bit(14, { access: "RO" }),
  Svpbmt: bit(15, { access: "RO" }),
  Sv32x4: bit(16, { access: "RO" }),
  Sv39x4: bit(17, { access: "RO" }),
  Sv48x4: bit(18, { access: "RO" }),
  Sv57x4: bit(19, { access: "RO" }),
  AMO_MRIF: bit(21, { access: "RO" }),
  MSI_FLAT: bit(22, { access: "RO" }),
  MSI_MRIF: bit(23, { access: "RO" }),
  AMO_HWAD: bit(24, { access: "RO" }),
  ATS: bit(25, { access: "RO" }),
  T2GPA: bit(26, { access: "RO" }),
  END: bit(27, { access: "RO" }),
  IGS: bits(29, 28, { access: "RO", values: { 0: "MSI", 1: "WSI", 2: "BOTH" } }),
  HPM: bit(30, { access: "RO" }),
  DBG: bit(31, { access: "RO" }),
  PAS: bits(37, 32, { access: "RO" }),
  PD8: bit(38, { access: "RO" }),
  PD17: bit(39, { access: "RO" }),
  PD20: bit(40, { access: "RO" }),
  QOSID: bit(41, { access: "RO" }),
  NL: bit(42, { access: "RO" }),
  S: bit(43, { access: "RO" }),
  custom: bits(63, 56, { access: "RO" }),
});

/** Register layout (§6.4). */
export const FCTL = structure("fctl", "§6.4", 1, {
  BE: bit(0, { access: "WARL" }),
  WSI: bit(1, { access: "WARL" }),
  GXL: bit(2, { access: "WARL" }),
});

export interface RiscvCapabilities {
  /** 0x10 is version 1.0. */
  readonly version: number;
  readonly Sv32: boolean;
  readonly Sv39: boolean;
  readonly Sv48: boolean;
  readonly Sv57: boolean;
  readonly Svrsw60t59b: boolean;
  readonly Svpbmt: boolean;
  readonly Sv32x4: boolean;
  readonly Sv39x4: boolean;
  readonly Sv48x4: boolean;
  readonly Sv57x4: boolean;
  readonly AMO_MRIF: boolean;
  readonly MSI_FLAT: boolean;
  readonly MSI_MRIF: boolean;
  readonly AMO_HWAD: boolean;
  readonly ATS: boolean;
  readonly T2GPA: boolean;
  readonly END: boolean;
  /** IGS_MSI, IGS_WSI or IGS_BOTH. */
  readonly IGS: number;
  readonly HPM: boolean;
  readonly DBG: boolean;
  /** Physical address width in bits, 32 to 56. */
  readonly PAS: number;
  readonly PD8: boolean;
  readonly PD17: boolean;
  readonly PD20: boolean;
  readonly QOSID: boolean;
  readonly NL: boolean;
  readonly S: boolean;
  /** Bits 63:56. */
  readonly custom: number;
}

const NUMERIC = new Set(["version", "IGS", "PAS", "custom"]);

/** The register's value. */
export function encodeCapabilities(capabilities: RiscvCapabilities): bigint {
  const words = [0n];
  for (const name of Object.keys(CAPABILITIES.fields) as (keyof RiscvCapabilities)[]) {
    CAPABILITIES.set(words, name, BigInt(Number(capabilities[name])));
  }
  return words[0]!;
}

/** Takes a register value apart. */
export function decodeCapabilities(value: bigint): RiscvCapabilities {
  const entries = (Object.keys(CAPABILITIES.fields) as (keyof RiscvCapabilities)[]).map((name) => {
    const field = Number(CAPABILITIES.get([value], name));
    return [name, NUMERIC.has(name) ? field : field === 1];
  });
  return Object.fromEntries(entries) as RiscvCapabilities;
}

/** What the checks of in-memory structures depend on. All members are plain, so that checks compile to loads and compares. */
export interface StructureRules extends RiscvCapabilities {
  /** fctl as it stands. */
  readonly bigEndian: boolean;
  readonly gxl: boolean;
  /** fctl bits that software can change (legal SXL and SBE values depend on it, §3.1.4). */
  readonly bigEndianWritable: boolean;
  readonly gxlWritable: boolean;
  /** Supported widths of RCID and MCID (0 without QOSID). */
  readonly rcidBits: number;
  readonly mcidBits: number;
  /** iohgatp Bare with msiptp not Off is misconfigured (required since 20260222; earlier texts allowed it). */
  readonly bareNeedsMsiOff: boolean;
  /** Bits of msi_addr_mask and msi_addr_pattern above the guest-physical width are reserved (§3.1.3.7, since 20250828). */
  readonly checksMsiPatternWidth: boolean;
}

export interface StructureChoices {
  readonly fctl?: number;
  readonly bigEndianWritable?: boolean;
  readonly gxlWritable?: boolean;
  readonly rcidBits?: number;
  readonly mcidBits?: number;
  readonly bareNeedsMsiOff?: boolean;
  readonly checksMsiPatternWidth?: boolean;
}

/** Rules for structures under these capabilities and this fctl value (bit 0 BE, bit 2 GXL). */
export function structureRules(capabilities: RiscvCapabilities, choices: StructureChoices = {}): StructureRules {
  const fctl = choices.fctl ?? 0;
  return {
    ...capabilities,
    bigEndian: (fctl & 1) !== 0,
    gxl: (fctl & 4) !== 0,
    bigEndianWritable: choices.bigEndianWritable ?? capabilities.END,
    gxlWritable: choices.gxlWritable ?? false,
    rcidBits: capabilities.QOSID ? (choices.rcidBits ?? 12) : 0,
    mcidBits: capabilities.QOSID ? (choices.mcidBits ?? 12) : 0,
    bareNeedsMsiOff: choices.bareNeedsMsiOff ?? true,
    checksMsiPatternWidth: choices.checksMsiPatternWidth ?? true,
  };
}

/**
 * Width in bits of the guest-physical addresses that the MSI address mask and pattern are written for (MGPAW, §3.1.3.7): that of
 * the widest second-stage mode supported, else PAS.
 */
export function msiGuestAddressBits(capabilities: RiscvCapabilities): number {
  if (capabilities.Sv57x4) return 59;
  if (capabilities.Sv48x4) return 50;
  if (capabilities.Sv39x4) return 41;
  if (capabilities.Sv32x4) return 34;
  return capabilities.PAS;
}

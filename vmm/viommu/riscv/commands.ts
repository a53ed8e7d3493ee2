// Which commands of the guest's queue are legal (§4.1), as the vIOMMU checks them before anything is forwarded: the host refuses
// much more, but an illegal command must stop the guest's queue exactly there, and with cmd_ill.
//
// A command is four unsigned 32-bit words. `classify` is on the invalidation path: no allocation.

import { DDTP_1LVL, DDTP_2LVL } from "../../../host/arch/riscv/registers.ts";

/** What is to be done with a command. */
export const ILLEGAL = 0;
export const IOTINVAL_VMA = 1;
export const IOTINVAL_GVMA = 2;
export const IOFENCE_C = 3;
export const IODIR_INVAL_DDT = 4;
export const IODIR_INVAL_PDT = 5;
export const ATS_INVAL = 6;
export const ATS_PRGR = 7;

/** Names as the specification writes them, by the numbers above. */
export const COMMAND_NAMES: readonly string[] = [
  "illegal",
  "IOTINVAL.VMA",
  "IOTINVAL.GVMA",
  "IOFENCE.C",
  "IODIR.INVAL_DDT",
  "IODIR.INVAL_PDT",
  "ATS.INVAL",
  "ATS.PRGR",
];

// Fields, in the low and high halves of doubleword 0.
export const AV = 1 << 10;
const IOFENCE_WSI = 1 << 11;
export const PSCV = 1 << 0;
export const DV = 1 << 1;
export const PV = 1 << 0;
export const DSV = 1 << 1;

/** What legality depends on, kept up to date by the register file's owner. */
export interface CommandRules {
  readonly nonLeaf: boolean;
  readonly range: boolean;
  readonly ats: boolean;
  /** Largest process_id width supported, in bits; 0: no process directories. */
  readonly processIdBits: number;
  /** fctl.WSI as it stands. */
  wiredInterrupts: boolean;
  /** ddtp.iommu_mode as it stands. */
  mode: number;
}

/** Width of device_id in the base format (§3): DID wider than the mode is illegal. */
function deviceIdFits(deviceId: number, mode: number): boolean {
  if (mode === DDTP_1LVL) return deviceId < 1 << 7;
  if (mode === DDTP_2LVL) return deviceId < 1 << 16;
  return true;
}

/** For an IOTINVAL: nothing reserved is set, nor what this IOMMU does not have. */
function invalidatesLegally(rules: CommandRules, lo0: number, hi0: number, lo1: number, hi1: number): boolean {
  // Reserved: dword 0 11, 43:35, 63:60; dword 1 8:0, 63:62.
  if ((lo0 & 0x800) !== 0 || (hi0 & 0xf000_0ff8) !== 0 || (lo1 & 0x1ff) !== 0 || (hi1 & 0xc000_0000) !== 0)
    return false;
  return ((hi0 & 4) === 0 || rules.nonLeaf) && ((lo1 & 0x200) === 0 || rules.range);
}

/** True for a legal IOTINVAL.VMA: what queues are full of. */
export function isVma(rules: CommandRules, lo0: number, hi0: number, lo1: number, hi1: number): boolean {
  return (lo0 & 0x3ff) === 0x001 && invalidatesLegally(rules, lo0, hi0, lo1, hi1);
}

/** True for a legal IODIR.INVAL_DDT. */
export function isDdt(rules: CommandRules, lo0: number, hi0: number, lo1: number, hi1: number): boolean {
  return (lo0 & 0x3ff) === 0x003 && classify(rules, lo0, hi0, lo1, hi1) === IODIR_INVAL_DDT;
}

export function classify(rules: CommandRules, lo0: number, hi0: number, lo1: number, hi1: number): number {
  // opcode | func3 << 7
  switch (lo0 & 0x3ff) {
    case 0x001:
      return invalidatesLegally(rules, lo0, hi0, lo1, hi1) ? IOTINVAL_VMA : ILLEGAL;
    case 0x081:
      return invalidatesLegally(rules, lo0, hi0, lo1, hi1) && (hi0 & PSCV) === 0 ? IOTINVAL_GVMA : ILLEGAL;
    case 0x002:
      if ((lo0 & 0xffff_c000) !== 0 || (hi1 & 0xc000_0000) !== 0) return ILLEGAL;
      if ((lo0 & IOFENCE_WSI) !== 0 && !rules.wiredInterrupts) return ILLEGAL;
      return IOFENCE_C;
    case 0x003:
    case 0x083: {
      // Reserved: dword 0 11:10, 32, 39:34; all of dword 1.
      if ((lo0 & 0xc00) !== 0 || (hi0 & 0xfd) !== 0 || lo1 !== 0 || hi1 !== 0) return ILLEGAL;
      const processId = lo0 >>> 12;
      const valid = (hi0 & DV) !== 0;
      if (valid && !deviceIdFits(hi0 >>> 8, rules.mode)) return ILLEGAL;
      if ((lo0 & 0x3ff) === 0x003) return processId === 0 ? IODIR_INVAL_DDT : ILLEGAL;
      return valid && processId < 1 << rules.processIdBits ? IODIR_INVAL_PDT : ILLEGAL;
    }
    case 0x004:
    case 0x084: {
      if (!rules.ats) return ILLEGAL;
      if ((lo0 & 0xc00) !== 0 || (hi0 & 0xfc) !== 0) return ILLEGAL;
      if ((lo0 & 0x3ff) === 0x004) return (lo1 & 0x7fe) === 0 ? ATS_INVAL : ILLEGAL;
      return lo1 === 0 && (hi1 & 0xe00) === 0 ? ATS_PRGR : ILLEGAL;
    }
    default:
      return ILLEGAL;
  }
}

/** Device id an ATS command names: segment (if given) and requester id. */
export function atsDeviceId(hi0: number): number {
  return ((hi0 >>> 8) & 0xffff) | ((hi0 & DSV) !== 0 ? (hi0 >>> 24) << 16 : 0);
}

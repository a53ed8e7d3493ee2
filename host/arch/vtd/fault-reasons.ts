// Fault reasons (§7.1.3): numbers, the specification's names and what they mean; which are qualified by FPD (a qualified fault is blocked all the
// same, but not recorded, when a structure on its way has Fault Processing Disable set).

/** 0: no fault. Legacy mode. */
export const FAULT_NONE = 0x00;
export const FAULT_ROOT_NOT_PRESENT = 0x01;
export const FAULT_CONTEXT_NOT_PRESENT = 0x02;
export const FAULT_CONTEXT_INVALID = 0x03;
export const FAULT_ADDRESS_BEYOND_WIDTH = 0x04;
export const FAULT_NO_WRITE = 0x05;
export const FAULT_NO_READ = 0x06;
export const FAULT_TABLE_ACCESS = 0x07;
export const FAULT_ROOT_ACCESS = 0x08;
export const FAULT_CONTEXT_ACCESS = 0x09;
export const FAULT_ROOT_RESERVED = 0x0a;
export const FAULT_CONTEXT_RESERVED = 0x0b;
export const FAULT_ENTRY_RESERVED = 0x0c;
export const FAULT_TRANSLATION_TYPE = 0x0d;
export const FAULT_INTERRUPT_RANGE = 0x0e;

/** Interrupt remapping. */
export const FAULT_IR_REQUEST_RESERVED = 0x20;
export const FAULT_IR_INDEX = 0x21;
export const FAULT_IR_NOT_PRESENT = 0x22;
export const FAULT_IR_ACCESS = 0x23;
export const FAULT_IR_ENTRY_RESERVED = 0x24;
export const FAULT_IR_COMPATIBILITY = 0x25;
export const FAULT_IR_SOURCE = 0x26;
export const FAULT_PI_ACCESS = 0x27;
export const FAULT_PI_RESERVED = 0x28;
export const FAULT_IR_REQUEST_INVALID = 0x29;

/** Root table address, and scalable mode. */
export const FAULT_RTA_MODE = 0x30;
export const FAULT_RTA_PASID = 0x31;
export const FAULT_RTA_PAGE_REQUEST = 0x32;
export const FAULT_RTA_ABORT = 0x33;
export const FAULT_SM_ROOT_ACCESS = 0x38;
export const FAULT_SM_ROOT_NOT_PRESENT = 0x39;
export const FAULT_SM_ROOT_RESERVED = 0x3a;
export const FAULT_SM_CONTEXT_ACCESS = 0x40;
export const FAULT_SM_CONTEXT_NOT_PRESENT = 0x41;
export const FAULT_SM_CONTEXT_RESERVED = 0x42;
export const FAULT_SM_CONTEXT_INVALID = 0x43;
export const FAULT_SM_NO_ATS = 0x44;
export const FAULT_SM_NO_PASID = 0x45;
export const FAULT_SM_PASID_TOO_LARGE = 0x46;
export const FAULT_SM_NO_PAGE_REQUEST = 0x47;
export const FAULT_SM_RID_PASID = 0x48;
export const FAULT_PASID_DIRECTORY_ACCESS = 0x50;
export const FAULT_PASID_DIRECTORY_NOT_PRESENT = 0x51;
export const FAULT_PASID_DIRECTORY_RESERVED = 0x52;
export const FAULT_PASID_ACCESS = 0x58;
export const FAULT_PASID_NOT_PRESENT = 0x59;
export const FAULT_PASID_RESERVED = 0x5a;
export const FAULT_PASID_INVALID = 0x5b;
export const FAULT_NO_EXECUTE_REQUESTS = 0x5c;
export const FAULT_NO_SUPERVISOR = 0x5d;
export const FAULT_FS_ACCESS = 0x70;
export const FAULT_FS_NOT_PRESENT = 0x71;
export const FAULT_FS_RESERVED = 0x72;
export const FAULT_FS_ROOT_ACCESS = 0x73;
export const FAULT_FS_TABLE_BEYOND_WIDTH = 0x74;
export const FAULT_FS_ROOT_NO_READ = 0x75;
export const FAULT_FS_TABLE_NO_READ = 0x76;
export const FAULT_FS_TABLE_NO_WRITE = 0x77;
export const FAULT_SS_ACCESS = 0x78;
export const FAULT_SS_NOT_PRESENT = 0x79;
export const FAULT_SS_RESERVED = 0x7a;
export const FAULT_SS_ROOT_ACCESS = 0x7b;
export const FAULT_SS_UPDATE_NOT_SNOOPED = 0x7c;
export const FAULT_SS_UPDATE_FAILED = 0x7d;
export const FAULT_FS_NOT_CANONICAL = 0x80;
export const FAULT_FS_NO_USER = 0x81;
export const FAULT_FS_NO_EXECUTE = 0x82;
export const FAULT_PASS_THROUGH_BEYOND_WIDTH = 0x83;
export const FAULT_SS_BEYOND_WIDTH = 0x84;
export const FAULT_SM_NO_WRITE = 0x85;
export const FAULT_SM_NO_READ = 0x86;
export const FAULT_SM_INTERRUPT_RANGE = 0x87;
export const FAULT_FS_UPDATE_NOT_SNOOPED = 0x90;
export const FAULT_FS_UPDATE_FAILED = 0x91;

export interface FaultReason {
  /** "SCT.2". */
  readonly name: string;
  readonly text: string;
  /** FPD keeps it out of the fault recording registers. */
  readonly qualified: boolean;
}

const q = (name: string, text: string): FaultReason => ({ name, text, qualified: true });
const u = (name: string, text: string): FaultReason => ({ name, text, qualified: false });

export const FAULT_REASONS: Readonly<Record<number, FaultReason>> = {
  1: u("LRT.2", "root entry not present"),
  2: q("LCT.2", "context entry not present"),
  3: q("LCT.4", "context entry invalid: AW or TT unsupported, or its table cannot be read"),
  4: q("LGN.1", "address beyond the address width"),
  5: q("LGN.2", "no write permission"),
  6: q("LGN.3", "no read permission"),
  7: q("LSL.1", "second-stage entry cannot be read"),
  8: u("LRT.1", "root entry cannot be read"),
  9: u("LCT.1", "context entry cannot be read"),
  10: u("LRT.3", "root entry has reserved bits set"),
  11: q("LCT.3", "context entry has reserved bits set"),
  12: q("LSL.2", "second-stage entry has reserved bits set"),
  13: q("LCT.5", "translation or translated request blocked by the translation type"),
  14: q("LGN.4", "translates into the interrupt address range"),
  32: u("IR", "interrupt request has reserved bits set"),
  33: u("IR", "interrupt index beyond the table"),
  34: q("IR", "interrupt remapping entry not present"),
  35: u("IR", "interrupt remapping table cannot be read"),
  36: q("IR", "interrupt remapping entry has reserved bits set"),
  37: u("IR", "compatibility format interrupt blocked"),
  38: q("IR", "source id check of the interrupt failed"),
  39: q("IR", "posted interrupt descriptor cannot be accessed"),
  40: q("IR", "posted interrupt descriptor has reserved bits set"),
  41: u("IR", "access to the interrupt address range that is no interrupt request"),
  48: u("RTA.1", "translation table mode not supported"),
  49: u("RTA.2", "request with PASID in legacy mode"),
  50: u("RTA.3", "page request in legacy mode"),
  51: u("RTA.4", "abort-DMA mode"),
  56: u("SRT.1", "scalable-mode root entry cannot be read"),
  57: u("SRT.2", "scalable-mode root entry not present"),
  58: u("SRT.3", "scalable-mode root entry has reserved bits set"),
  64: u("SCT.1", "scalable-mode context entry cannot be read"),
  65: q("SCT.2", "scalable-mode context entry not present"),
  66: q("SCT.3", "scalable-mode context entry has reserved bits set"),
  67: q("SCT.4", "scalable-mode context entry invalid"),
  68: q("SCT.5", "translation or translated request, and DTE is 0"),
  69: q("SCT.6", "request with PASID, and PASIDE is 0"),
  70: q("SCT.7", "PASID beyond the PASID directory"),
  71: q("SCT.8", "page request, and PRE is 0"),
  72: q("SCT.9", "RID_PASID field error"),
  80: u("SPD.1", "PASID directory entry cannot be read"),
  81: q("SPD.2", "PASID directory entry not present"),
  82: q("SPD.3", "PASID directory entry has reserved bits set"),
  88: u("SPT.1", "PASID entry cannot be read"),
  89: q("SPT.2", "PASID entry not present"),
  90: q("SPT.3", "PASID entry has reserved bits set"),
  91: q("SPT.4", "PASID entry invalid: PGTT, AW or FSPM unsupported"),
  92: q("SPT.5", "execute request, and ERE is 0"),
  93: q("SPT.6", "supervisor request, and SRE is 0"),
  112: q("SFS.1", "first-stage entry cannot be read"),
  113: q("SFS.2", "first-stage entry not present"),
  114: q("SFS.3", "first-stage entry has reserved bits set"),
  115: q("SFS.4", "first-stage root table cannot be read"),
  116: q("SFS.5", "first-stage table's address beyond the second stage's width"),
  117: q("SFS.6", "first-stage root table not readable by the second stage"),
  118: q("SFS.7", "first-stage table not readable by the second stage"),
  119: q("SFS.8", "first-stage table not writable by the second stage for an accessed or dirty update"),
  120: q("SSS.1", "second-stage entry cannot be read"),
  121: q("SSS.2", "second-stage entry not present"),
  122: q("SSS.3", "second-stage entry has reserved bits set"),
  123: q("SSS.4", "second-stage root table cannot be read"),
  124: q("SSS.5", "second-stage accessed or dirty update needed, and page walks do not snoop"),
  125: q("SSS.6", "second-stage accessed or dirty update failed"),
  128: q("SGN.1", "address not canonical"),
  129: q("SGN.2", "user request to a supervisor page"),
  130: q("SGN.3", "no execute permission"),
  131: q("SGN.4", "address beyond the host address width"),
  132: q("SGN.5", "address beyond the second stage's width"),
  133: q("SGN.6", "no write permission"),
  134: q("SGN.7", "no read permission"),
  135: q("SGN.8", "translates into the interrupt address range"),
  144: q("SFS.9", "first-stage accessed or dirty update needed, and page walks do not snoop"),
  145: q("SFS.10", "first-stage accessed or dirty update failed"),
};

/** One byte a reason: 1 where FPD keeps it out of the fault recording registers. */
export const QUALIFIED = Uint8Array.from({ length: 256 }, (_, reason) => (FAULT_REASONS[reason]?.qualified ? 1 : 0));

/** "SPT.2 (59h): PASID entry not present"; "fault reason 99h" for a number without a name. */
export function faultReasonName(reason: number): string {
  const known = FAULT_REASONS[reason];
  const number = `${reason.toString(16).toUpperCase().padStart(2, "0")}h`;
  return known === undefined ? `fault reason ${number}` : `${known.name} (${number}): ${known.text}`;
}

// Fault causes (§4.2), transaction types and the 32-byte record of the fault queue.
//
// Records are encoded from and to 8 halves (Uint32Array), so that the hardware writes one without allocating; `decodeFaultRecord`
// and `describeFaultRecord` serve drivers, relays and traces.

import { bit, bits, structure } from "../../base/fields.ts";

export const CAUSE_INSTRUCTION_ACCESS_FAULT = 1;
export const CAUSE_READ_ACCESS_FAULT = 5;
export const CAUSE_WRITE_ACCESS_FAULT = 7;
export const CAUSE_INSTRUCTION_PAGE_FAULT = 12;
export const CAUSE_READ_PAGE_FAULT = 13;
export const CAUSE_WRITE_PAGE_FAULT = 15;
export const CAUSE_INSTRUCTION_GUEST_PAGE_FAULT = 20;
export const CAUSE_READ_GUEST_PAGE_FAULT = 21;
export const CAUSE_WRITE_GUEST_PAGE_FAULT = 23;
export const CAUSE_ALL_INBOUND_DISALLOWED = 256;
export const CAUSE_DDT_LOAD_ACCESS_FAULT = 257;
export const CAUSE_DDT_NOT_VALID = 258;
export const CAUSE_DDT_MISCONFIGURED = 259;
export const CAUSE_TRANSACTION_TYPE_DISALLOWED = 260;
export const CAUSE_MSI_PTE_LOAD_ACCESS_FAULT = 261;
export const CAUSE_MSI_PTE_NOT_VALID = 262;
export const CAUSE_MSI_PTE_MISCONFIGURED = 263;
export const CAUSE_MRIF_ACCESS_FAULT = 264;
export const CAUSE_PDT_LOAD_ACCESS_FAULT = 265;
export const CAUSE_PDT_NOT_VALID = 266;
export const CAUSE_PDT_MISCONFIGURED = 267;
export const CAUSE_DDT_DATA_CORRUPTION = 268;
export const CAUSE_PDT_DATA_CORRUPTION = 269;
export const CAUSE_MSI_PT_DATA_CORRUPTION = 270;
export const CAUSE_MRIF_DATA_CORRUPTION = 271;
export const CAUSE_INTERNAL_DATA_PATH_ERROR = 272;
export const CAUSE_MSI_WRITE_ACCESS_FAULT = 273;
export const CAUSE_PT_DATA_CORRUPTION = 274;

export const CAUSE_NAMES: Readonly<Record<number, string>> = {
  1: "instruction access fault",
  4: "read address misaligned",
  5: "read access fault",
  6: "write/AMO address misaligned",
  7: "write/AMO access fault",
  12: "instruction page fault",
  13: "read page fault",
  15: "write/AMO page fault",
  20: "instruction guest-page fault",
  21: "read guest-page fault",
  23: "write/AMO guest-page fault",
  256: "all inbound transactions disallowed",
  257: "DDT entry load access fault",
  258: "DDT entry not valid",
  259: "DDT entry misconfigured",
  260: "transaction type disallowed",
  261: "MSI PTE load access fault",
  262: "MSI PTE not valid",
  263: "MSI PTE misconfigured",
  264: "MRIF access fault",
  265: "PDT entry load access fault",
  266: "PDT entry not valid",
  267: "PDT entry misconfigured",
  268: "DDT data corruption",
  269: "PDT data corruption",
  270: "MSI page table data corruption",
  271: "MRIF data corruption",
  272: "internal data path error",
  273: "IOMMU MSI write access fault",
  274: "first/second-stage page table data corruption",
};

/** "read page fault"; "cause 99" for a number without a name. */
export function causeName(cause: number): string {
  return CAUSE_NAMES[cause] ?? `cause ${cause}`;
}

/**
 * True for causes that DC.tc.DTF = 1 keeps out of the fault queue: those of the address translation process (§3.1.3.1, §4.2). What
 * was found before there was a context to set DTF, and the IOMMU's own troubles, are reported always.
 */
export function suppressedByDtf(cause: number): boolean {
  const reported =
    (cause >= CAUSE_ALL_INBOUND_DISALLOWED && cause <= CAUSE_DDT_MISCONFIGURED) ||
    cause === CAUSE_DDT_DATA_CORRUPTION ||
    cause === CAUSE_INTERNAL_DATA_PATH_ERROR ||
    cause === CAUSE_MSI_WRITE_ACCESS_FAULT;
  return !reported;
}

/** Transaction types. */
export const TTYP_NONE = 0;
export const TTYP_UNTRANSLATED_EXECUTE = 1;
export const TTYP_UNTRANSLATED_READ = 2;
export const TTYP_UNTRANSLATED_WRITE = 3;
export const TTYP_TRANSLATED_EXECUTE = 5;
export const TTYP_TRANSLATED_READ = 6;
export const TTYP_TRANSLATED_WRITE = 7;
export const TTYP_ATS_REQUEST = 8;
export const TTYP_MESSAGE_REQUEST = 9;

export const TTYP_NAMES: Readonly<Record<number, string>> = {
  0: "none",
  1: "untranslated execute",
  2: "untranslated read",
  3: "untranslated write/AMO",
  5: "translated execute",
  6: "translated read",
  7: "translated write/AMO",
  8: "ATS translation request",
  9: "message request",
};

export const FAULT_RECORD_BYTES = 32;

export const FAULT_RECORD = structure("fault record", "§4.2", 4, {
  CAUSE: bits(11, 0),
  PID: bits(31, 12),
  PV: bit(32),
  PRIV: bit(33),
  TTYP: bits(39, 34),
  DID: bits(63, 40),
  custom: bits(31, 0, { word: 1 }),
  iotval: bits(63, 0, { word: 2 }),
  iotval2: bits(63, 0, { word: 3 }),
});

export interface FaultRecord {
  readonly cause: number;
  readonly deviceId: number;
  /** -1 when PV = 0. */
  readonly processId: number;
  readonly privileged: boolean;
  readonly ttyp: number;
  readonly iotval: bigint;
  readonly iotval2: bigint;
}

/** Four doublewords. */
export function encodeFaultRecord(record: FaultRecord): bigint[] {
  const words = [0n, 0n, record.iotval, record.iotval2];
  FAULT_RECORD.set(words, "CAUSE", BigInt(record.cause));
  FAULT_RECORD.set(words, "TTYP", BigInt(record.ttyp));
  FAULT_RECORD.set(words, "DID", BigInt(record.deviceId));
  if (record.processId >= 0) {
    FAULT_RECORD.set(words, "PV", 1n);
    FAULT_RECORD.set(words, "PID", BigInt(record.processId));
    FAULT_RECORD.set(words, "PRIV", record.privileged ? 1n : 0n);
  }
  return words;
}

export function decodeFaultRecord(words: readonly bigint[]): FaultRecord {
  const field = (name: keyof typeof FAULT_RECORD.fields): number => Number(FAULT_RECORD.get(words, name));
  const valid = field("PV") === 1;
  return {
    cause: field("CAUSE"),
    deviceId: field("DID"),
    processId: valid ? field("PID") : -1,
    privileged: valid && field("PRIV") === 1,
    ttyp: field("TTYP"),
    iotval: words[2] ?? 0n,
    iotval2: words[3] ?? 0n,
  };
}

/** "read page fault (13), untranslated read, device 0x108 pasid 3, iotval 0x1000". */
export function describeFaultRecord(record: FaultRecord): string {
  const pasid = record.processId >= 0 ? ` pasid ${record.processId}${record.privileged ? " privileged" : ""}` : "";
  const second = record.iotval2 === 0n ? "" : `, iotval2 0x${record.iotval2.toString(16)}`;
  const kind = TTYP_NAMES[record.ttyp] ?? `ttyp ${record.ttyp}`;
  return (
    `${causeName(record.cause)} (${record.cause}), ${kind}, device 0x${record.deviceId.toString(16)}${pasid}, ` +
    `iotval 0x${record.iotval.toString(16)}${second}`
  );
}

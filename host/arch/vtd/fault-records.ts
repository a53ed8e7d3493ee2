// Fault recording registers (§11.4.7.6): 16 bytes each, two quadwords. F is set last, and cleared by writing 1.

import { bit, bits, structure } from "../../base/fields.ts";
import { faultReasonName } from "./fault-reasons.ts";

export const FAULT_RECORD_BYTES = 16;

export const FAULT_RECORD = structure("FRCD", "§11.4.7.6", 2, {
  /** Page of the request; of an interrupt request bits 63:48 are its index. */
  FI: bits(63, 12),
  SID: bits(15, 0, { word: 1 }),
  T2: bit(28, { word: 1 }),
  PRIV: bit(29, { word: 1 }),
  EXE: bit(30, { word: 1 }),
  PP: bit(31, { word: 1 }),
  FR: bits(39, 32, { word: 1 }),
  PV: bits(59, 40, { word: 1 }),
  AT: bits(61, 60, { word: 1, values: { 1: "translation request", 2: "translated" } }),
  T1: bit(62, { word: 1 }),
  F: bit(63, { word: 1 }),
});

/** The request's type, {T1, T2}. */
export const REQUEST_WRITE = 0;
export const REQUEST_PAGE = 1;
export const REQUEST_READ = 2;
export const REQUEST_ATOMIC = 3;
export const REQUEST_NAMES = ["write", "page request", "read", "AtomicOp"] as const;

/** FRCD.AT. */
export const AT_UNTRANSLATED = 0;
export const AT_TRANSLATION_REQUEST = 1;
export const AT_TRANSLATED = 2;

export interface FaultRecord {
  readonly reason: number;
  readonly sourceId: number;
  /** -1: the request had none (RID_PASID is never shown). */
  readonly pasid: number;
  /** REQUEST_WRITE, REQUEST_PAGE, REQUEST_READ or REQUEST_ATOMIC. */
  readonly type: number;
  readonly addressType: number;
  readonly privileged: boolean;
  readonly execute: boolean;
  /** Address of the page; of interrupt faults the index is in bits 63:48. */
  readonly address: bigint;
  /** F: a record stands here. */
  readonly valid: boolean;
}

export function decodeFaultRecord(words: readonly bigint[]): FaultRecord {
  const get = (field: keyof typeof FAULT_RECORD.fields): number => Number(FAULT_RECORD.get(words, field));
  return {
    reason: get("FR"),
    sourceId: get("SID"),
    pasid: get("PP") !== 0 ? get("PV") : -1,
    type: get("T1") * 2 + get("T2"),
    addressType: get("AT"),
    privileged: get("PRIV") !== 0,
    execute: get("EXE") !== 0,
    address: FAULT_RECORD.get(words, "FI") << 12n,
    valid: get("F") !== 0,
  };
}

/** "SPT.2 (59h): PASID entry not present: write by 0x108, PASID 3, at 0x1000". */
export function describeFaultRecord(words: readonly bigint[]): string {
  const record = decodeFaultRecord(words);
  const id = `0x${record.sourceId.toString(16)}${record.pasid < 0 ? "" : `, PASID ${record.pasid}`}`;
  const reason = faultReasonName(record.reason);
  if (record.reason >= 0x20 && record.reason <= 0x29) return `${reason}: index ${record.address >> 48n} from ${id}`;
  const what = record.addressType === AT_TRANSLATION_REQUEST ? "translation request" : REQUEST_NAMES[record.type]!;
  const translated = record.addressType === AT_TRANSLATED ? "translated " : "";
  return `${reason}: ${translated}${what} by ${id}, at 0x${record.address.toString(16)}`;
}

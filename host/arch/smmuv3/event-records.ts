// Event records (IHI 0070 §7.3): 32 bytes, and page-request records (§8.2): 16 bytes.

import { bit, bits, structure } from "../../base/fields.ts";

export const EVENT_BYTES = 32;
export const PAGE_REQUEST_BYTES = 16;

export const F_UUT = 0x01;
export const C_BAD_STREAMID = 0x02;
export const F_STE_FETCH = 0x03;
export const C_BAD_STE = 0x04;
export const F_BAD_ATS_TREQ = 0x05;
export const F_STREAM_DISABLED = 0x06;
export const F_TRANSL_FORBIDDEN = 0x07;
export const C_BAD_SUBSTREAMID = 0x08;
export const F_CD_FETCH = 0x09;
export const C_BAD_CD = 0x0a;
export const F_WALK_EABT = 0x0b;
export const F_TRANSLATION = 0x10;
export const F_ADDR_SIZE = 0x11;
export const F_ACCESS = 0x12;
export const F_PERMISSION = 0x13;
export const F_TLB_CONFLICT = 0x20;
export const F_CFG_CONFLICT = 0x21;
export const E_PAGE_REQUEST = 0x24;
export const F_VMS_FETCH = 0x25;

export const EVENT_NAMES: Readonly<Record<number, string>> = {
  1: "F_UUT",
  2: "C_BAD_STREAMID",
  3: "F_STE_FETCH",
  4: "C_BAD_STE",
  5: "F_BAD_ATS_TREQ",
  6: "F_STREAM_DISABLED",
  7: "F_TRANSL_FORBIDDEN",
  8: "C_BAD_SUBSTREAMID",
  9: "F_CD_FETCH",
  10: "C_BAD_CD",
  11: "F_WALK_EABT",
  16: "F_TRANSLATION",
  17: "F_ADDR_SIZE",
  18: "F_ACCESS",
  19: "F_PERMISSION",
  32: "F_TLB_CONFLICT",
  33: "F_CFG_CONFLICT",
  36: "E_PAGE_REQUEST",
  37: "F_VMS_FETCH",
};

/** What the access was for that faulted: fetching a context descriptor, walking tables, or the transaction itself. */
export const CLASS_CD = 0;
export const CLASS_TT = 1;
export const CLASS_IN = 2;

/** All fields that some event has; which ones a number has, see §7.3. */
export const EVENT_RECORD = structure("event record", "§7.3", 4, {
  number: bits(7, 0),
  SSV: bit(11),
  SSID: bits(31, 12),
  SID: bits(63, 32),
  STAG: bits(15, 0, { word: 1 }),
  GPCF: bit(16, { word: 1 }),
  Stall: bit(31, { word: 1 }),
  PnU: bit(33, { word: 1 }),
  InD: bit(34, { word: 1 }),
  RnW: bit(35, { word: 1 }),
  NSIPA: bit(36, { word: 1 }),
  S2: bit(39, { word: 1 }),
  CLASS: bits(41, 40, { word: 1, values: { 0: "CD", 1: "TT", 2: "IN" } }),
  TTRnW: bit(44, { word: 1 }),
  InputAddr: bits(63, 0, { word: 2 }),
  /** IPA (bits 55:12) or FetchAddr (bits 55:3), by number. */
  IPA: bits(55, 0, { word: 3 }),
});

export interface EventRecord {
  readonly number: number;
  readonly streamId: number;
  /** -1 when SSV = 0. */
  readonly substreamId: number;
  readonly stag: number;
  readonly stall: boolean;
  readonly privileged: boolean;
  readonly instruction: boolean;
  readonly read: boolean;
  readonly stage2: boolean;
  readonly class: number;
  readonly tableRead: boolean;
  readonly inputAddress: bigint;
  /** IPA or fetch address; 0 where the event has none. */
  readonly address: bigint;
}

export function decodeEvent(words: readonly bigint[]): EventRecord {
  const get = (field: keyof typeof EVENT_RECORD.fields): number => Number(EVENT_RECORD.get(words, field));
  const number = get("number");
  const substream = get("SSV") !== 0 || number === C_BAD_SUBSTREAMID;
  return {
    number,
    streamId: get("SID"),
    substreamId: substream ? get("SSID") : -1,
    stag: get("STAG"),
    stall: get("Stall") !== 0,
    privileged: get("PnU") !== 0,
    instruction: get("InD") !== 0,
    read: get("RnW") !== 0,
    stage2: get("S2") !== 0,
    class: get("CLASS"),
    tableRead: get("TTRnW") !== 0,
    inputAddress: EVENT_RECORD.get(words, "InputAddr"),
    address: EVENT_RECORD.get(words, "IPA"),
  };
}

/** "F_TRANSLATION"; "event 0x99" for a number without a name. */
export function eventName(number: number): string {
  return EVENT_NAMES[number] ?? `event 0x${number.toString(16)}`;
}

/** "F_PERMISSION of stream 0x8, SSID 3: write at 0x1000, stage 2 (IN), IPA 0x2000, stalled as 4". */
export function describeEvent(words: readonly bigint[]): string {
  const event = decodeEvent(words);
  const { number } = event;
  let text = `${eventName(number)} of stream 0x${event.streamId.toString(16)}`;
  if (event.substreamId >= 0) text += `, SSID ${event.substreamId}`;
  const hasAddress = number >= F_WALK_EABT || number === F_BAD_ATS_TREQ || number === F_TRANSL_FORBIDDEN;
  if (hasAddress) {
    const access = event.instruction ? "instruction read" : event.read ? "read" : "write";
    text += `: ${access} at 0x${event.inputAddress.toString(16)}`;
  }
  if (number >= F_WALK_EABT && number <= F_PERMISSION) {
    text += `, stage ${event.stage2 ? 2 : 1} (${["CD", "TT", "IN"][event.class] ?? event.class})`;
    if (event.stage2 || number === F_WALK_EABT)
      text += `, ${number === F_WALK_EABT ? "fetch" : "IPA"} 0x${event.address.toString(16)}`;
  } else if (number === F_STE_FETCH || number === F_CD_FETCH) text += `: fetch 0x${event.address.toString(16)}`;
  return event.stall ? `${text}, stalled as ${event.stag}` : text;
}

export const PAGE_REQUEST_RECORD = structure("page request", "§8.2", 2, {
  SID: bits(31, 0),
  SSID: bits(51, 32),
  Priv: bit(58),
  X: bit(59),
  R: bit(60),
  W: bit(61),
  Last: bit(62),
  SSV: bit(63),
  PRGIndex: bits(8, 0, { word: 1 }),
  Addr: bits(63, 12, { word: 1 }),
});

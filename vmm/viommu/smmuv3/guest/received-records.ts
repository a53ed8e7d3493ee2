// What the guest finds in its queues (IHI 0070 §7.3, §8.1), decoded.

import { decodeEvent, type EventRecord, PAGE_REQUEST_RECORD } from "../../../../host/arch/smmuv3/event-records.ts";

/** An event, and the four doublewords it was. */
export interface GuestEvent extends EventRecord {
  readonly words: readonly bigint[];
}

export function guestEvent(words: readonly bigint[]): GuestEvent {
  return { ...decodeEvent(words), words };
}

export interface ReceivedPageRequest {
  readonly deviceId: number;
  /** null: without. */
  readonly pasid: number | null;
  readonly address: bigint;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  readonly last: boolean;
  /** PRGIndex. */
  readonly group: number;
}

export function decodePageRequest(words: readonly bigint[]): ReceivedPageRequest {
  const get = (field: keyof typeof PAGE_REQUEST_RECORD.fields): number => Number(PAGE_REQUEST_RECORD.get(words, field));
  return {
    deviceId: get("SID"),
    pasid: get("SSV") === 0 ? null : get("SSID"),
    address: PAGE_REQUEST_RECORD.get(words, "Addr") << 12n,
    read: get("R") !== 0,
    write: get("W") !== 0,
    execute: get("X") !== 0,
    privileged: get("Priv") !== 0,
    last: get("Last") !== 0,
    group: get("PRGIndex"),
  };
}

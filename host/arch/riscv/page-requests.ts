// Records of the page-request queue (§4.3): one Page Request or Stop Marker message of PCIe PRI.

import { bit, bits, structure } from "../../base/fields.ts";

export const PAGE_REQUEST_BYTES = 16;

export const PAGE_REQUEST = structure("page request", "§4.3", 2, {
  PID: bits(31, 12),
  PV: bit(32),
  PRIV: bit(33),
  EXEC: bit(34),
  DID: bits(63, 40),
  R: bit(0, { word: 1 }),
  W: bit(1, { word: 1 }),
  L: bit(2, { word: 1 }),
  PRGI: bits(11, 3, { word: 1 }),
  /** Page-frame number of the request's address. */
  ADDR: bits(63, 12, { word: 1 }),
});

/** Message code of a Page Request message (PCIe 6.0 §10.4.1), reported in iotval. */
export const MESSAGE_CODE_PAGE_REQUEST = 4;

export interface PageRequestRecord {
  readonly deviceId: number;
  /** -1 when PV = 0. */
  readonly processId: number;
  readonly privileged: boolean;
  readonly execute: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly last: boolean;
  readonly group: number;
  readonly address: bigint;
}

export function decodePageRequest(words: readonly bigint[]): PageRequestRecord {
  const field = (name: keyof typeof PAGE_REQUEST.fields): number => Number(PAGE_REQUEST.get(words, name));
  return {
    deviceId: field("DID"),
    processId: field("PV") === 1 ? field("PID") : -1,
    privileged: field("PRIV") === 1,
    execute: field("EXEC") === 1,
    read: field("R") === 1,
    write: field("W") === 1,
    last: field("L") === 1,
    group: field("PRGI"),
    address: PAGE_REQUEST.get(words, "ADDR") << 12n,
  };
}

export function encodePageRequest(request: PageRequestRecord): bigint[] {
  const words = [0n, 0n];
  const set = (name: keyof typeof PAGE_REQUEST.fields, value: bigint | number | boolean): void =>
    PAGE_REQUEST.set(words, name, BigInt(value));
  set("DID", request.deviceId);
  if (request.processId >= 0) {
    set("PV", 1);
    set("PID", request.processId);
    set("PRIV", request.privileged);
    set("EXEC", request.execute);
  }
  set("R", request.read);
  set("W", request.write);
  set("L", request.last);
  set("PRGI", request.group);
  set("ADDR", request.address >> 12n);
  return words;
}

// Page request descriptors (§7.4.1) in the page request queue, 32 bytes, and response codes of page group responses (§7.5).

import { bit, bits, structure } from "../../base/fields.ts";

export const PAGE_REQUEST_BYTES = 32;
export const PAGE_REQUEST_TYPE = 1;

export const PAGE_REQUEST = structure("page request", "§7.4.1", 4, {
  type: bits(7, 0),
  PP: bit(8),
  RID: bits(31, 16),
  PASID: bits(51, 32),
  EXR: bit(52),
  PMR: bit(53),
  R: bit(0, { word: 1 }),
  W: bit(1, { word: 1 }),
  LPIG: bit(2, { word: 1 }),
  PRGI: bits(11, 3, { word: 1 }),
  ADDR: bits(63, 12, { word: 1 }),
});

/** Response codes, as PCIe's. */
export const RESPONSE_SUCCESS = 0;
export const RESPONSE_INVALID = 1;
export const RESPONSE_FAILURE = 15;

export interface PageRequest {
  readonly requesterId: number;
  /** -1: none. */
  readonly pasid: number;
  readonly address: bigint;
  readonly group: number;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  /** Last page in group: somebody waits for a response. */
  readonly last: boolean;
}

export function decodePageRequest(words: readonly bigint[]): PageRequest {
  const get = (field: keyof typeof PAGE_REQUEST.fields): number => Number(PAGE_REQUEST.get(words, field));
  return {
    requesterId: get("RID"),
    pasid: get("PP") !== 0 ? get("PASID") : -1,
    address: PAGE_REQUEST.get(words, "ADDR") << 12n,
    group: get("PRGI"),
    read: get("R") !== 0,
    write: get("W") !== 0,
    execute: get("EXR") !== 0,
    privileged: get("PMR") !== 0,
    last: get("LPIG") !== 0,
  };
}

// From the record that the host relays to the record that the guest may see (IHI 0070 §7.3). The guest's SMMU has no second stage, the hardware's has the
// host's: what only the host's could say never passes, nor do bits that a record of its number does not have.
//
// Linux relays 04, 06, 08, 0a and 10–13 of transactions that do not stall and in which stage 2 has no part; nestbox's kernel can be told to relay 09 and
// 0b besides, of fetches that stage 2 refused, with guest-physical addresses. A record of a blocked device (Config 0) never comes: hardware aborts silently.

import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_SUBSTREAMID,
  F_ACCESS,
  F_ADDR_SIZE,
  F_CD_FETCH,
  F_PERMISSION,
  F_STREAM_DISABLED,
  F_TRANSLATION,
  F_WALK_EABT,
} from "../../../host/arch/smmuv3/event-records.ts";

/** SSV and SSID of word 0. */
const SUBSTREAM = 0xfffff800;
/** PnU, InD, RnW, CLASS of word 3. */
const ACCESS = 0x30e;
const STAGE_2 = 1 << 7;
/** Words 2 to 7 that a record has, as masks, by number; word 0's SSV and SSID are every record's but F_STREAM_DISABLED's. */
const FAULT = [0, ACCESS, 0xffffffff, 0xffffffff, 0, 0] as const;
const NOTHING = [0, 0, 0, 0, 0, 0] as const;
const MASKS: Readonly<Record<number, readonly number[]>> = {
  [C_BAD_STE]: NOTHING,
  [F_STREAM_DISABLED]: NOTHING,
  [C_BAD_SUBSTREAMID]: NOTHING,
  [C_BAD_CD]: NOTHING,
  [F_CD_FETCH]: [0, 0, 0, 0, 0xfffffff8, 0x00ffffff],
  [F_WALK_EABT]: [0, ACCESS, 0xffffffff, 0xffffffff, 0xfffffff8, 0x00ffffff],
  [F_TRANSLATION]: FAULT,
  [F_ADDR_SIZE]: FAULT,
  [F_ACCESS]: FAULT,
  [F_PERMISSION]: FAULT,
};

/** Takes a host record of 32 bytes apart into eight words; false if it is too short to be one. */
export function loadRecord(bytes: Uint8Array, words: Uint32Array): boolean {
  if (bytes.length < 32) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, 32);
  for (let i = 0; i < 8; i++) words[i] = view.getUint32(4 * i, true);
  return true;
}

/** Leaves in `words` what the guest may see of them; false if that is nothing. */
export function relayRecord(words: Uint32Array): boolean {
  const number = words[0]! & 0xff;
  const masks = MASKS[number];
  if (masks === undefined || (words[3]! & STAGE_2) !== 0) return false;
  words[0] = number | (number === F_STREAM_DISABLED ? 0 : words[0]! & SUBSTREAM);
  for (let i = 0; i < 6; i++) words[i + 2] = words[i + 2]! & masks[i]!;
  return true;
}

// Which of the hardware's event records a guest is told of, and how they read then (Linux: arm_smmu_handle_event, arm_vmaster_report_event).
//
// Relayed are records about the guest's own entries and tables: C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD and the four
// faults of a translation, where no stage 2 has a part in them and the transaction does not stall (those are page requests). The guest's
// StreamID takes the host's place; the rest is the hardware's record bit for bit.
//
// A fetch of the guest's tables that stage 2 refuses (S2 = 1) is not relayed, so a guest hears nothing of a table that lies outside of its
// memory. `tableFetchForGuest` makes the record that an SMMU without a second stage would write, of a fetch from memory that is not there:
// F_CD_FETCH (§7.3.10) or F_WALK_EABT (§7.3.12). That is a deviation from Linux, off by default.

import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_SUBSTREAMID,
  CLASS_CD,
  CLASS_TT,
  EVENT_RECORD,
  F_ACCESS,
  F_ADDR_SIZE,
  F_CD_FETCH,
  F_PERMISSION,
  F_STREAM_DISABLED,
  F_TRANSLATION,
  F_WALK_EABT,
} from "../../../arch/smmuv3/event-records.ts";
import { iommuVeventArmSmmuv3 } from "../../../uapi/smmuv3-nesting.ts";

/** Four doublewords. */
export type EventWords = readonly bigint[];

const CONFIGURATION: readonly number[] = [C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD];
const TRANSLATION: readonly number[] = [F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION];

const OF_THE_INPUT = ["InputAddr", "PnU", "InD", "RnW"] as const;
/** IPA 55:12 of doubleword 3. */
const IPA_BITS = ((1n << 56n) - 1n) & ~0xfffn;

/** The kernel handles records with this number: relays them, or takes a stalled transaction's as a page request. The others it logs. */
export function isHandled(words: EventWords): boolean {
  const number = Number(EVENT_RECORD.get(words, "number"));
  return CONFIGURATION.includes(number) || TRANSLATION.includes(number);
}

/** The vEVENT of a handled record of a transaction that does not stall, for the guest's StreamID; null where stage 2 has a part in it. */
export function eventForGuest(words: EventWords, virtualId: bigint): Uint8Array | null {
  return EVENT_RECORD.get(words, "S2") === 0n ? withStream(words, virtualId) : null;
}

/** What a guest whose SMMU has no stage 2 would read of a table fetch that stage 2 refused; null for any other record. */
export function tableFetchForGuest(words: EventWords, virtualId: bigint): Uint8Array | null {
  const number = Number(EVENT_RECORD.get(words, "number"));
  if (!TRANSLATION.includes(number) || EVENT_RECORD.get(words, "S2") === 0n) return null;
  const accessClass = Number(EVENT_RECORD.get(words, "CLASS"));
  if (accessClass !== CLASS_CD && accessClass !== CLASS_TT) return null;
  // SSV and SSID stay; the intermediate address, known to the page, is the guest's physical one.
  const record = [words[0]!, 0n, 0n, words[3]! & IPA_BITS];
  EVENT_RECORD.set(record, "number", BigInt(accessClass === CLASS_CD ? F_CD_FETCH : F_WALK_EABT));
  if (accessClass === CLASS_TT) {
    for (const field of OF_THE_INPUT) EVENT_RECORD.set(record, field, EVENT_RECORD.get(words, field));
    EVENT_RECORD.set(record, "CLASS", BigInt(CLASS_TT));
  }
  return withStream(record, virtualId);
}

function withStream(words: EventWords, virtualId: bigint): Uint8Array {
  const [first, evt1, evt2, evt3] = words as [bigint, bigint, bigint, bigint];
  const evt0 = (first & 0xffffffffn) | (BigInt.asUintN(32, virtualId) << 32n);
  return iommuVeventArmSmmuv3.encode({ evt0, evt1, evt2, evt3 });
}

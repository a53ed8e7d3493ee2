// Which commands of the guest's queue are legal (IHI 0070 §4, §7.1), as this SMMU checks them before anything is forwarded: whatever would be
// illegal at the host never reaches it, for there it would stop the queue of everybody.
//
// A command is four 32-bit words. `classify` is on the invalidation path: no allocation. Legal commands that only say something to an SMMU with other
// features (CMD_PREFETCH_*) are NOTHING_TO_DO.

import {
  ATC_SIZE_ALL,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_ADDR,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
} from "../../../host/arch/smmuv3/commands.ts";
import type { SmmuFeatures } from "../../../host/arch/smmuv3/identification.ts";

/** What is to be done with a command. */
export const ILLEGAL = 0;
export const NOTHING_TO_DO = 1;
export const CFGI_STE = 2;
export const CFGI_STE_RANGE = 3;
export const CFGI_CD = 4;
export const CFGI_CD_ALL = 5;
export const TLBI_NH_ALL = 6;
export const TLBI_NH_ASID = 7;
export const TLBI_NH_VA = 8;
export const TLBI_NH_VAA = 9;
export const TLBI_NSNH_ALL = 10;
export const ATC_INV = 11;
export const RESUME = 12;
export const STALL_TERM = 13;
export const PRI_RESP = 14;
export const SYNC = 15;

/** Names by the numbers above. */
export const COMMAND_NAMES: readonly string[] = [
  "illegal",
  "CMD_PREFETCH",
  "CMD_CFGI_STE",
  "CMD_CFGI_STE_RANGE",
  "CMD_CFGI_CD",
  "CMD_CFGI_CD_ALL",
  "CMD_TLBI_NH_ALL",
  "CMD_TLBI_NH_ASID",
  "CMD_TLBI_NH_VA",
  "CMD_TLBI_NH_VAA",
  "CMD_TLBI_NSNH_ALL",
  "CMD_ATC_INV",
  "CMD_RESUME",
  "CMD_STALL_TERM",
  "CMD_PRI_RESP",
  "CMD_SYNC",
];

const SSEC = 1 << 10;
/** CMD_ATC_INV, CMD_PREFETCH_*: SSV. */
export const SSV = 1 << 11;
const GLOBAL = 1 << 9;
/** Word 0 of a range: NUM and SCALE. */
const RANGE = 0x1f1f000;
/** Word 2: Leaf, TTL, TG. */
const LEAF = 1;
const TTL = 0x300;
const TG = 0xc00;
/** Word 2 of CMD_PRI_RESP; 3 is Reserved (§4.5.2). */
const RESP = 0x3000;

export function classify(features: SmmuFeatures, word0: number, word2: number): number {
  if ((word0 & SSEC) !== 0) return ILLEGAL;
  switch (word0 & 0xff) {
    case CMD_SYNC:
      return (word0 & 0x3000) === 0x3000 ? ILLEGAL : SYNC;
    case CMD_TLBI_NH_VA:
      return features.S1P && !isReservedRange(features, word0, word2) ? TLBI_NH_VA : ILLEGAL;
    case CMD_TLBI_NH_VAA:
      return features.S1P && !isReservedRange(features, word0, word2) ? TLBI_NH_VAA : ILLEGAL;
    case CMD_TLBI_NH_ASID:
      return features.S1P ? TLBI_NH_ASID : ILLEGAL;
    case CMD_TLBI_NH_ALL:
      return features.S1P ? TLBI_NH_ALL : ILLEGAL;
    case CMD_TLBI_NSNH_ALL:
      return TLBI_NSNH_ALL;
    case CMD_ATC_INV:
      return features.ATS && (word2 & 0x3f) <= ATC_SIZE_ALL ? ATC_INV : ILLEGAL;
    case CMD_CFGI_STE:
      return CFGI_STE;
    case CMD_CFGI_STE_RANGE:
      return CFGI_STE_RANGE;
    case CMD_CFGI_CD:
      return features.S1P ? CFGI_CD : ILLEGAL;
    case CMD_CFGI_CD_ALL:
      return features.S1P ? CFGI_CD_ALL : ILLEGAL;
    case CMD_RESUME:
      return features.STALL_MODEL !== 1 ? RESUME : ILLEGAL;
    case CMD_STALL_TERM:
      return features.STALL_MODEL !== 1 ? STALL_TERM : ILLEGAL;
    case CMD_PRI_RESP:
      return features.PRI && (word2 & RESP) !== RESP ? PRI_RESP : ILLEGAL;
    case CMD_PREFETCH_CONFIG:
    case CMD_PREFETCH_ADDR:
      return NOTHING_TO_DO;
    default:
      // TLBI_S2_IPA and S12_VMALL need stage 2, TLBI_EL2_* Hyp, TLBI_EL3_* is not of this queue: none is offered.
      return ILLEGAL;
  }
}

/** §4.4.1.1: with TG, NUM = SCALE = TTL = 0 is Reserved. */
function isReservedRange(features: SmmuFeatures, word0: number, word2: number): boolean {
  return features.RIL && (word2 & TG) !== 0 && (word0 & RANGE) === 0 && (word2 & TTL) === 0;
}

/** Of the masks below: what a command has with a range (TLBI_NH_VA, TLBI_NH_VAA), or with SSV (ATC_INV). */
const EXTENDED = 16;
const ALL = -1;
const ADDRESS = 0xfffff000 | 0;
const SSID = 0xfffff000 | 0;

/** Four words a command, and again as extended: what the host gets of it. All else it does not define, or is RES0 here (the VMID is the host's). */
export const FOR_HOST = new Int32Array(4 * 2 * EXTENDED);
const keep = (kind: number, words: readonly [number, number, number, number]): void => FOR_HOST.set(words, 4 * kind);
for (const kind of [TLBI_NH_ALL, TLBI_NSNH_ALL]) keep(kind, [0xff, 0, 0, 0]);
keep(CFGI_CD_ALL, [0xff, ALL, 0, 0]);
keep(CFGI_CD, [0xff | SSID, ALL, LEAF, 0]);
keep(TLBI_NH_ASID, [0xff, 0xffff0000, 0, 0]);
keep(TLBI_NH_VA, [0xff, 0xffff0000, ADDRESS | LEAF, ALL]);
keep(TLBI_NH_VA + EXTENDED, [0xff | RANGE, 0xffff0000, ADDRESS | TG | TTL | LEAF, ALL]);
keep(TLBI_NH_VAA, [0xff, 0, ADDRESS | LEAF, ALL]);
keep(TLBI_NH_VAA + EXTENDED, [0xff | RANGE, 0, ADDRESS | TG | TTL | LEAF, ALL]);
keep(ATC_INV, [0xff, ALL, ADDRESS | 0x3f, ALL]);
keep(ATC_INV + EXTENDED, [0xff | SSID | SSV | GLOBAL, ALL, ADDRESS | 0x3f, ALL]);

/** Where in `FOR_HOST` the four masks of a command stand. */
export function masksAt(kind: number, features: SmmuFeatures, word0: number, word2: number): number {
  const extended =
    kind === ATC_INV
      ? (word0 & SSV) !== 0
      : (kind === TLBI_NH_VA || kind === TLBI_NH_VAA) && features.RIL && (word2 & TG) !== 0;
  return 4 * (extended ? kind + EXTENDED : kind);
}

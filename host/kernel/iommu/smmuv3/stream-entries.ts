// Stream table entries (IHI 0070 §5.2) as the driver writes them, and which of their bits the hardware uses (Linux: arm_smmu_make_*_ste,
// arm_smmu_get_ste_used, arm_smmu_get_ste_update_safe).
//
//     abort, bypass      neither stage
//     context table      stage 1 by the descriptors of the device's table; S1DSS says what requests without PASID are
//     second stage       one page table

import {
  CONFIG_BYPASS,
  CONFIG_S1,
  CONFIG_S2,
  CONFIG_STAGE_1,
  CONFIG_STAGE_2,
  S1DSS_BYPASS,
  STE,
} from "../../../arch/smmuv3/stream-table-entry.ts";
import { ENTRY_WORDS, type Entry, type EntryRules } from "./entry-writer.ts";

type Field = keyof typeof STE.fields;

const WRITE_BACK = 1;
const INNER_SHAREABLE = 3;
/** STE.SHCFG: as the transaction says. */
const SHCFG_INCOMING = 1;
const STRW_EL2 = 2;
export const EATS_FULL = 1;

/** What of an SMMU and of a device entries depend on. */
export interface StreamTraits {
  /** Memory attributes of a stream can be overridden (IDR1.ATTR_TYPES_OVR). */
  readonly overridesAttributes: boolean;
  /** Streams may stall, and the driver decides which do. */
  readonly choosesStalls: boolean;
  /** The host's kernel runs at EL2 with E2H: its address spaces are tagged so. */
  readonly el2: boolean;
  /** The device may be stalled. */
  readonly stalls: boolean;
}

/** Where a device's context descriptors are. */
export interface ContextTablePlace {
  readonly address: bigint;
  /** STE.S1Fmt. */
  readonly format: number;
  /** STE.S1CDMax. */
  readonly bits: number;
}

/** STE fields of a second stage. */
export interface SecondStageFields {
  readonly S2VMID: number;
  readonly S2T0SZ: number;
  readonly S2SL0: number;
  readonly S2TG: number;
  readonly S2PS: number;
  readonly S2TTB: bigint;
  readonly S2FWB: boolean;
}

/** Eight doublewords with these fields; an address is given by its own bits. */
export function streamEntry(fields: Readonly<Partial<Record<Field, number | bigint>>>): bigint[] {
  const words = Array<bigint>(ENTRY_WORDS).fill(0n);
  for (const [name, value] of Object.entries(fields)) STE.set(words, name as Field, BigInt(value));
  return words;
}

/** V = 1, Config = 0: transactions are aborted and nothing is recorded. */
export function abortEntry(): Entry {
  return streamEntry({ V: 1 });
}

export function bypassEntry(traits: StreamTraits): Entry {
  return streamEntry({ V: 1, Config: CONFIG_BYPASS, SHCFG: traits.overridesAttributes ? SHCFG_INCOMING : 0 });
}

export function contextTableEntry(
  table: ContextTablePlace,
  traits: StreamTraits,
  ats: boolean,
  withoutPasid: number,
): Entry {
  return streamEntry({
    V: 1,
    Config: CONFIG_S1,
    S1Fmt: table.format,
    S1ContextPtr: table.address >> 6n,
    S1CDMax: table.bits,
    S1DSS: withoutPasid,
    S1CIR: WRITE_BACK,
    S1COR: WRITE_BACK,
    S1CSH: INNER_SHAREABLE,
    S1STALLD: traits.choosesStalls && !traits.stalls ? 1 : 0,
    EATS: ats ? EATS_FULL : 0,
    SHCFG: traits.overridesAttributes && withoutPasid === S1DSS_BYPASS ? SHCFG_INCOMING : 0,
    // VMID 0 is nobody's second stage.
    STRW: traits.el2 ? STRW_EL2 : 0,
  });
}

export function secondStageEntry(stage: SecondStageFields, traits: StreamTraits, ats: boolean): Entry {
  return streamEntry({
    V: 1,
    Config: CONFIG_S2,
    EATS: ats ? EATS_FULL : 0,
    SHCFG: traits.overridesAttributes ? SHCFG_INCOMING : 0,
    S2FWB: stage.S2FWB ? 1 : 0,
    S2VMID: stage.S2VMID,
    S2T0SZ: stage.S2T0SZ,
    S2SL0: stage.S2SL0,
    S2IR0: WRITE_BACK,
    S2OR0: WRITE_BACK,
    S2SH0: INNER_SHAREABLE,
    S2TG: stage.S2TG,
    S2PS: stage.S2PS,
    S2AA64: 1,
    S2PTW: 1,
    S2S: traits.stalls ? 1 : 0,
    S2R: 1,
    S2TTB: stage.S2TTB >> 4n,
  });
}

// --- what hardware looks at ---

/** Masks by doubleword of the bits of these fields. */
function mask(...fields: readonly Field[]): Entry {
  const words = Array<bigint>(ENTRY_WORDS).fill(0n);
  for (const field of fields) STE.set(words, field, (1n << BigInt(STE.fields[field].width)) - 1n);
  return words;
}

const VALID = mask("V");
const CONFIG = mask("V", "Config");
const STAGE_1 = mask("S1Fmt", "S1ContextPtr", "S1CDMax", "S1DSS", "S1CIR", "S1COR", "S1CSH", "S1STALLD");
const STAGE_1_TOO = mask("STRW", "EATS", "MEV", "S2VMID");
const TABLE_FIELDS = mask("S2T0SZ", "S2SL0", "S2IR0", "S2OR0", "S2SH0", "S2TG", "S2PS");
const STAGE_2 = mask("S2FWB", "EATS", "SHCFG", "MEV", "S2VMID", "S2AA64", "S2ENDI", "S2PTW", "S2S", "S2R", "S2TTB");
const INCOMING = mask("SHCFG");
const SAFE = mask("MEV");
const SAFE_WITH_EATS = mask("MEV").map((word, at) => (at === 1 ? word | (1n << 28n) : word));

function either(...masks: readonly Entry[]): Entry {
  return Array.from({ length: ENTRY_WORDS }, (_, word) => masks.reduce((all, one) => all | one[word]!, 0n));
}

export const STREAM_ENTRY_RULES: EntryRules = {
  used(entry) {
    if (STE.get(entry, "V") === 0n) return VALID;
    const config = Number(STE.get(entry, "Config"));
    const parts = [CONFIG];
    if ((config & CONFIG_STAGE_1) !== 0) {
      parts.push(STAGE_1, STAGE_1_TOO);
      if (Number(STE.get(entry, "S1DSS")) === S1DSS_BYPASS) parts.push(INCOMING);
    }
    if ((config & CONFIG_STAGE_2) !== 0) parts.push(STAGE_2, TABLE_FIELDS);
    if (config === CONFIG_BYPASS) parts.push(INCOMING);
    return either(...parts);
  },
  /**
   * MEV only merges events. EATS may go between 0 and 1 at any time, unless split-stage ATS or stalls of stage 2 are in it: with these EATS = 1
   * may be ILLEGAL (§5.2.2).
   */
  safe(from, to) {
    const split = (STE.get(from, "EATS") | STE.get(to, "EATS")) & 2n;
    const stalls = STE.get(from, "S2S") | STE.get(to, "S2S");
    return split === 0n && stalls === 0n ? SAFE_WITH_EATS : SAFE;
  },
};

// Context descriptors (IHI 0070 §5.4) as the driver writes them, and which of their bits the hardware uses (Linux: arm_smmu_make_s1_cd,
// arm_smmu_get_cd_used).

import { CD } from "../../../arch/smmuv3/context-descriptor.ts";
import { ENTRY_WORDS, type Entry, type EntryRules } from "./entry-writer.ts";
import { MAIR } from "./table-shape.ts";

type Field = keyof typeof CD.fields;

const WRITE_BACK = 1;
const INNER_SHAREABLE = 3;

/** A first stage. */
export interface FirstStageFields {
  readonly ASID: number;
  readonly T0SZ: number;
  readonly TG0: number;
  readonly IPS: number;
  readonly TTB0: bigint;
  /** The hardware marks accesses and writes. */
  readonly marks: boolean;
}

/** Not valid. */
export const NO_DESCRIPTOR: Entry = Array<bigint>(ENTRY_WORDS).fill(0n);

export function contextDescriptor(stage: FirstStageFields, stalls: boolean): Entry {
  return descriptor({
    T0SZ: stage.T0SZ,
    TG0: stage.TG0,
    IR0: WRITE_BACK,
    OR0: WRITE_BACK,
    SH0: INNER_SHAREABLE,
    // Upper addresses are not used.
    EPD1: 1,
    V: 1,
    IPS: stage.IPS,
    AA64: 1,
    HD: stage.marks ? 1 : 0,
    HA: stage.marks ? 1 : 0,
    S: stalls ? 1 : 0,
    R: 1,
    A: 1,
    ASET: 1,
    ASID: stage.ASID,
    TTB0: stage.TTB0 >> 4n,
    MAIR,
  });
}

export function descriptor(fields: Readonly<Partial<Record<Field, number | bigint>>>): Entry {
  const words = Array<bigint>(ENTRY_WORDS).fill(0n);
  for (const [name, value] of Object.entries(fields)) CD.set(words, name as Field, BigInt(value));
  return words;
}

const ALL = (1n << 64n) - 1n;
const EVERYTHING: Entry = Array<bigint>(ENTRY_WORDS).fill(ALL);
const NOTHING: Entry = Array<bigint>(ENTRY_WORDS).fill(0n);

function mask(...fields: readonly Field[]): Entry {
  return descriptor(Object.fromEntries(fields.map((field) => [field, (1n << BigInt(CD.fields[field].width)) - 1n])));
}

const VALID = mask("V");
const LOWER_HALF = mask("T0SZ", "TG0", "IR0", "OR0", "SH0", "TTB0");
const WITHOUT_LOWER_HALF: Entry = EVERYTHING.map((word, at) => word & ~LOWER_HALF[at]!);

export const CONTEXT_DESCRIPTOR_RULES: EntryRules = {
  used(entry) {
    if (CD.get(entry, "V") === 0n) return VALID;
    return CD.get(entry, "EPD0") === 0n ? EVERYTHING : WITHOUT_LOWER_HALF;
  },
  safe: () => NOTHING,
};

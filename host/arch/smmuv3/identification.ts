// The identification registers (IHI 0070 §6.3.1–6.3.7): what an SMMU can do, as tables of fields and as one object that walks and checks read.
//
// `SmmuFeatures` holds field values in the specification's names and encodings. encodeIdentification gives the register words, decodeIdentification
// reads them back (a driver, a guest's SMMU derived from the host's).

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";

export const IDR0 = structure("IDR0", "§6.3.1", 1, {
  S2P: bit(0),
  S1P: bit(1),
  TTF: bits(3, 2, { values: { 1: "VMSAv8-32", 2: "VMSAv8-64", 3: "both" } }),
  COHACC: bit(4),
  BTM: bit(5),
  HTTU: bits(7, 6, { values: { 0: "none", 1: "AF", 2: "AF+dirty", 3: "AF+dirty+table" } }),
  DORMHINT: bit(8),
  Hyp: bit(9),
  ATS: bit(10),
  NS1ATS: bit(11),
  ASID16: bit(12),
  MSI: bit(13),
  SEV: bit(14),
  ATOS: bit(15),
  PRI: bit(16),
  VMW: bit(17),
  VMID16: bit(18),
  CD2L: bit(19),
  VATOS: bit(20),
  TTENDIAN: bits(22, 21, { values: { 0: "mixed", 2: "little", 3: "big" } }),
  ATSRECERR: bit(23),
  STALL_MODEL: bits(25, 24, { values: { 0: "both", 1: "terminate", 2: "stall" } }),
  TERM_MODEL: bit(26),
  ST_LEVEL: bits(28, 27, { values: { 0: "linear", 1: "two-level" } }),
  RME_IMPL: bit(30),
});

export const IDR1 = structure("IDR1", "§6.3.2", 1, {
  SIDSIZE: bits(5, 0),
  SSIDSIZE: bits(10, 6),
  PRIQS: bits(15, 11),
  EVENTQS: bits(20, 16),
  CMDQS: bits(25, 21),
  ATTR_PERMS_OVR: bit(26),
  ATTR_TYPES_OVR: bit(27),
  REL: bit(28),
  QUEUES_PRESET: bit(29),
  TABLES_PRESET: bit(30),
  ECMDQ: bit(31),
});

export const IDR3 = structure("IDR3", "§6.3.4", 1, {
  HAD: bit(2),
  PBHA: bit(3),
  XNX: bit(4),
  PPS: bit(5),
  MPAM: bit(7),
  FWB: bit(8),
  STT: bit(9),
  RIL: bit(10),
  BBML: bits(12, 11),
  E0PD: bit(13),
  PTWNNC: bit(14),
  DPT: bit(15),
  PASIDTT: bit(16),
  EPAN: bit(17),
});

export const IDR5 = structure("IDR5", "§6.3.6", 1, {
  OAS: bits(2, 0, { values: { 0: "32", 1: "36", 2: "40", 3: "42", 4: "44", 5: "48", 6: "52", 7: "56" } }),
  GRAN4K: bit(4),
  GRAN16K: bit(5),
  GRAN64K: bit(6),
  DS: bit(7),
  D128: bit(8),
  VAX: bits(11, 10),
  STALL_MAX: bits(31, 16),
});

export const IIDR = structure("IIDR", "§6.3.7", 1, {
  Implementer: bits(11, 0),
  Revision: bits(15, 12),
  Variant: bits(19, 16),
  ProductID: bits(31, 20),
});

export const AIDR = structure("AIDR", "§6.3.8", 1, { ArchRev: bits(7, 0) });

/** Output sizes in bits by OAS, IPS and S2PS encodings (§6.3.6, §5.4). */
export const ADDRESS_BITS = Uint8Array.of(32, 36, 40, 42, 44, 48, 52, 56);

/**
 * Fields of IDR0, IDR1, IDR3, IDR5 and AIDR.ArchRev, by their names; one-bit fields are truth values. What is missing here (VMSAv8-32, DS, D128, ATOS,
 * MPAM, DPT, …) reads 0.
 */
export interface SmmuFeatures {
  readonly S2P: boolean;
  readonly S1P: boolean;
  readonly COHACC: boolean;
  readonly BTM: boolean;
  /** 0 none, 1 access flag, 2 and dirty state, 3 and the access flag of tables. */
  readonly HTTU: number;
  readonly Hyp: boolean;
  readonly ATS: boolean;
  readonly NS1ATS: boolean;
  readonly ASID16: boolean;
  readonly MSI: boolean;
  readonly SEV: boolean;
  readonly PRI: boolean;
  readonly VMW: boolean;
  readonly VMID16: boolean;
  readonly CD2L: boolean;
  /** 0 mixed, 2 little-endian, 3 big-endian tables. */
  readonly TTENDIAN: number;
  readonly ATSRECERR: boolean;
  /** 0 stall and terminate, 1 terminate only, 2 stall only. */
  readonly STALL_MODEL: number;
  readonly TERM_MODEL: boolean;
  readonly ST_LEVEL: number;
  readonly SIDSIZE: number;
  readonly SSIDSIZE: number;
  readonly PRIQS: number;
  readonly EVENTQS: number;
  readonly CMDQS: number;
  readonly ATTR_PERMS_OVR: boolean;
  readonly ATTR_TYPES_OVR: boolean;
  readonly HAD: boolean;
  readonly XNX: boolean;
  readonly PPS: boolean;
  readonly FWB: boolean;
  readonly STT: boolean;
  readonly RIL: boolean;
  readonly BBML: number;
  readonly E0PD: boolean;
  readonly PTWNNC: boolean;
  readonly EPAN: boolean;
  /** Encoding: 0 to 5 are 32, 36, 40, 42, 44, 48 bits. */
  readonly OAS: number;
  readonly GRAN4K: boolean;
  readonly GRAN16K: boolean;
  readonly GRAN64K: boolean;
  readonly STALL_MAX: number;
  readonly ArchRev: number;
}

type Words = { IDR0: bigint; IDR1: bigint; IDR3: bigint; IDR5: bigint; AIDR: bigint };
type AnyStructure = Structure<Record<string, FieldSpec>>;

const REGISTERS = [
  ["IDR0", IDR0],
  ["IDR1", IDR1],
  ["IDR3", IDR3],
  ["IDR5", IDR5],
  ["AIDR", AIDR],
] as const;

/** The registers that say so. TTF is VMSAv8-64 alone. */
export function encodeIdentification(features: SmmuFeatures): Words {
  const words: Words = { IDR0: 0n, IDR1: 0n, IDR3: 0n, IDR5: 0n, AIDR: 0n };
  const values = features as unknown as Readonly<Record<string, number | boolean | undefined>>;
  for (const [name, table] of REGISTERS) {
    const shape = table as unknown as AnyStructure;
    const word = [0n];
    for (const field of Object.keys(shape.fields)) shape.set(word, field, BigInt(Number(values[field] ?? 0)));
    if (name === "IDR0") shape.set(word, "TTF", 2n);
    words[name] = word[0]!;
  }
  return words;
}

/** As encodeIdentification's words say. */
export function decodeIdentification(words: Readonly<Words>): SmmuFeatures {
  const features: Record<string, number | boolean> = {};
  for (const [name, table] of REGISTERS) {
    const shape = table as unknown as AnyStructure;
    for (const field of Object.values(shape.fields)) {
      const value = Number(shape.get([words[name]], field.name));
      features[field.name] = field.width === 1 ? value !== 0 : value;
    }
  }
  return features as unknown as SmmuFeatures;
}

/** Bits of a physical address. */
export function outputBits(features: SmmuFeatures): number {
  return ADDRESS_BITS[features.OAS]!;
}

/** Bits of an intermediate physical address: IAS is OAS without VMSAv8-32 (§3.4). */
export function intermediateBits(features: SmmuFeatures): number {
  return ADDRESS_BITS[features.OAS]!;
}

/** Bits of addresses under an IPS or S2PS value: no more than OAS; reserved values cap (§5.2, §5.4). */
export function effectiveBits(encoding: number, features: SmmuFeatures): number {
  return Math.min(ADDRESS_BITS[encoding]!, outputBits(features));
}

/** True if the granule of log2 `granule` (12, 14, 16) exists. */
export function hasGranule(granule: number, features: SmmuFeatures): boolean {
  return granule === 12 ? features.GRAN4K : granule === 14 ? features.GRAN16K : granule === 16 && features.GRAN64K;
}

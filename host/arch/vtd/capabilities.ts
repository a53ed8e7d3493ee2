// Capability and extended capability registers (VT-d §11.4.2, §11.4.3): what a unit can do, as tables of fields and as one object that walks and
// checks read.
//
// `VtdFeatures` holds field values in the specification's names and encodings; the tables are what both directions work from.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";

export const VER = structure("VER", "§11.4.1", 1, { MIN: bits(3, 0), MAX: bits(7, 4) });

export const CAP = structure("CAP", "§11.4.2", 1, {
  ND: bits(2, 0),
  AFL: bit(3),
  RWBF: bit(4),
  PLMR: bit(5),
  PHMR: bit(6),
  CM: bit(7),
  SAGAW: bits(12, 8, { values: { 2: "39", 4: "48", 6: "39+48", 8: "57", 12: "48+57", 14: "39+48+57" } }),
  MGAW: bits(21, 16),
  ZLR: bit(22),
  FRO: bits(33, 24),
  SSLPS: bits(37, 34, { values: { 1: "2M", 2: "1G", 3: "2M+1G" } }),
  PSI: bit(39),
  NFR: bits(47, 40),
  MAMV: bits(53, 48),
  DWD: bit(54),
  DRD: bit(55),
  FS1GP: bit(56),
  PI: bit(59),
  FS5LP: bit(60),
  ECMDS: bit(61),
  ESIRTPS: bit(62),
  ESRTPS: bit(63),
});

export const ECAP = structure("ECAP", "§11.4.3", 1, {
  C: bit(0),
  QI: bit(1),
  DT: bit(2),
  IR: bit(3),
  EIM: bit(4),
  PT: bit(6),
  SC: bit(7),
  IRO: bits(17, 8),
  MHMV: bits(23, 20),
  MTS: bit(25),
  NEST: bit(26),
  PRS: bit(29),
  ERS: bit(30),
  SRS: bit(31),
  NWFS: bit(33),
  EAFS: bit(34),
  PSS: bits(39, 35),
  PASID: bit(40),
  DIT: bit(41),
  PDS: bit(42),
  SMTS: bit(43),
  VCS: bit(44),
  SSADS: bit(45),
  SSTS: bit(46),
  FSTS: bit(47),
  SMPWCS: bit(48),
  RPS: bit(49),
  PMS: bit(51),
  ADMS: bit(52),
  RPRIVS: bit(53),
  SMS: bit(58),
});

/**
 * Fields of CAP and ECAP that something here depends on, by their names; one-bit fields are truth values. What is missing (AFL, PLMR, PHMR, ERS,
 * VCS, ECMDS, PMS, …) reads 0. HAW is in no register: firmware tells software (DMAR, host address width).
 */
export interface VtdFeatures {
  /** 2^(4 + 2·ND) domain ids. */
  readonly ND: number;
  readonly RWBF: boolean;
  readonly CM: boolean;
  /** Second-stage widths: bit 1 39, bit 2 48, bit 3 57 bits. */
  readonly SAGAW: number;
  /** Largest guest address width, less 1. */
  readonly MGAW: number;
  readonly ZLR: boolean;
  /** Fault recording registers stand at 16 · FRO. */
  readonly FRO: number;
  /** Bit 0: 2 MiB leaves of the second stage, bit 1: 1 GiB. */
  readonly SSLPS: number;
  readonly PSI: boolean;
  /** Fault recording registers, less 1. */
  readonly NFR: number;
  /** Largest address mask of a page-selective invalidation. */
  readonly MAMV: number;
  readonly DWD: boolean;
  readonly DRD: boolean;
  readonly FS1GP: boolean;
  /** Posted interrupts. */
  readonly PI: boolean;
  readonly FS5LP: boolean;
  readonly ESIRTPS: boolean;
  readonly ESRTPS: boolean;
  readonly C: boolean;
  readonly QI: boolean;
  readonly DT: boolean;
  readonly IR: boolean;
  readonly EIM: boolean;
  readonly PT: boolean;
  readonly SC: boolean;
  /** IVA and IOTLB registers stand at 16 · IRO. */
  readonly IRO: number;
  readonly MHMV: number;
  /** Memory types: fields of PASID and second-stage entries. */
  readonly MTS: boolean;
  readonly NEST: boolean;
  readonly PRS: boolean;
  readonly SRS: boolean;
  readonly NWFS: boolean;
  readonly EAFS: boolean;
  /** PASIDs of PSS + 1 bits. */
  readonly PSS: number;
  readonly PASID: boolean;
  readonly DIT: boolean;
  readonly PDS: boolean;
  readonly SMTS: boolean;
  readonly SSADS: boolean;
  readonly SSTS: boolean;
  readonly FSTS: boolean;
  readonly SMPWCS: boolean;
  readonly RPS: boolean;
  readonly ADMS: boolean;
  readonly RPRIVS: boolean;
}

type AnyStructure = Structure<Record<string, FieldSpec>>;
const TABLES = { CAP: CAP as unknown as AnyStructure, ECAP: ECAP as unknown as AnyStructure };

/** The registers' values that say so. */
export function encodeCapabilities(features: VtdFeatures): { CAP: bigint; ECAP: bigint } {
  const values = features as unknown as Readonly<Record<string, number | boolean | undefined>>;
  const encode = (shape: AnyStructure): bigint => {
    const word = [0n];
    for (const field of Object.keys(shape.fields)) shape.set(word, field, BigInt(Number(values[field] ?? 0)));
    return word[0]!;
  };
  return { CAP: encode(TABLES.CAP), ECAP: encode(TABLES.ECAP) };
}

/** As the registers say; fields that `VtdFeatures` does not name come along. */
export function decodeCapabilities(cap: bigint, ecap: bigint): VtdFeatures {
  const features: Record<string, number | boolean> = {};
  for (const [shape, value] of [
    [TABLES.CAP, cap],
    [TABLES.ECAP, ecap],
  ] as const) {
    for (const field of Object.values(shape.fields)) {
      const number = Number(shape.get([value], field.name));
      features[field.name] = field.width === 1 ? number !== 0 : number;
    }
  }
  return features as unknown as VtdFeatures;
}

/** Bits of a second-stage input by AW (1 to 3: 39, 48, 57); 0 for one that the unit does not have. */
export function secondStageBits(aw: number, features: VtdFeatures): number {
  return aw >= 1 && aw <= 3 && (features.SAGAW & (1 << aw)) !== 0 ? 30 + 9 * aw : 0;
}

/** Domain ids are below this. */
export function domainLimit(features: VtdFeatures): number {
  return 2 ** (4 + 2 * Math.min(6, features.ND));
}

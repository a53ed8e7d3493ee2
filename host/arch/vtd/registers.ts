// The register page of a VT-d unit (§11.4) as one table: offsets, widths, fields.
//
// IVA, IOTLB and the fault recording registers stand where ECAP.IRO and CAP.FRO say: `invalidationRegisters` and `faultRecordingRegister` give their
// offsets. 32-bit registers are accessed as aligned dwords, 64-bit ones as one quadword or two dwords.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";
import { CAP, ECAP, VER, type VtdFeatures } from "./capabilities.ts";
import { FAULT_RECORD, FAULT_RECORD_BYTES } from "./fault-records.ts";

/** Offsets (§11.4). */
export const REG = {
  VER: 0x00,
  CAP: 0x08,
  ECAP: 0x10,
  GCMD: 0x18,
  GSTS: 0x1c,
  RTADDR: 0x20,
  CCMD: 0x28,
  FSTS: 0x34,
  FECTL: 0x38,
  FEDATA: 0x3c,
  FEADDR: 0x40,
  FEUADDR: 0x44,
  AFLOG: 0x58,
  PMEN: 0x64,
  PLMBASE: 0x68,
  PLMLIMIT: 0x6c,
  PHMBASE: 0x70,
  PHMLIMIT: 0x78,
  IQH: 0x80,
  IQT: 0x88,
  IQA: 0x90,
  ICS: 0x9c,
  IECTL: 0xa0,
  IEDATA: 0xa4,
  IEADDR: 0xa8,
  IEUADDR: 0xac,
  IQERCD: 0xb0,
  IRTA: 0xb8,
  PQH: 0xc0,
  PQT: 0xc8,
  PQA: 0xd0,
  PRS: 0xdc,
  PECTL: 0xe0,
  PEDATA: 0xe4,
  PEADDR: 0xe8,
  PEUADDR: 0xec,
} as const;

/** GCMD and GSTS: the same positions. SRTP, SFL, WBF and SIRTP are one-shot. */
export const GSTS = structure("GSTS", "§11.4", 1, {
  CFIS: bit(23),
  IRTPS: bit(24),
  IRES: bit(25),
  QIES: bit(26),
  WBFS: bit(27),
  AFLS: bit(28),
  FLS: bit(29),
  RTPS: bit(30),
  TES: bit(31),
});
export const GCMD = structure("GCMD", "§11.4", 1, {
  CFI: bit(23),
  SIRTP: bit(24),
  IRE: bit(25),
  QIE: bit(26),
  WBF: bit(27),
  EAFL: bit(28),
  SFL: bit(29),
  SRTP: bit(30),
  TE: bit(31),
});
export const GCMD_CFI = 1 << 23;
export const GCMD_SIRTP = 1 << 24;
export const GCMD_IRE = 1 << 25;
export const GCMD_QIE = 1 << 26;
export const GCMD_WBF = 1 << 27;
export const GCMD_SRTP = 1 << 30;
export const GCMD_TE = 0x80000000;
/** What software writes back unchanged: GSTS without the one-shot bits (SRTP, SFL, WBF, SIRTP). */
export const GSTS_LEVELS = 0x96ffffff;

export const RTADDR = structure("RTADDR", "§11.4", 1, {
  TTM: bits(11, 10, { values: { 0: "legacy", 1: "scalable", 3: "abort" } }),
  RTA: bits(63, 12),
});
export const TTM_LEGACY = 0;
export const TTM_SCALABLE = 1;
export const TTM_RESERVED = 2;
export const TTM_ABORT = 3;

export const CCMD = structure("CCMD", "§11.4", 1, {
  DID: bits(15, 0),
  SID: bits(31, 16),
  FM: bits(33, 32),
  CAIG: bits(60, 59),
  CIRG: bits(62, 61, { values: { 1: "global", 2: "domain", 3: "device" } }),
  ICC: bit(63),
});

export const FSTS = structure("FSTS", "§11.4", 1, {
  PFO: bit(0),
  PPF: bit(1),
  AFO: bit(2),
  APF: bit(3),
  IQE: bit(4),
  ICE: bit(5),
  ITE: bit(6),
  FRI: bits(15, 8),
});
export const FSTS_PFO = 1 << 0;
export const FSTS_PPF = 1 << 1;
export const FSTS_IQE = 1 << 4;
export const FSTS_ICE = 1 << 5;
export const FSTS_ITE = 1 << 6;

/** FECTL, IECTL and PECTL. */
export const EVENT_CONTROL = structure("event control", "§11.4", 1, { IP: bit(30), IM: bit(31) });
export const EVENT_IP = 1 << 30;
export const EVENT_IM = 0x80000000;
export const EVENT_DATA = structure("event data", "§11.4", 1, { IMD: bits(15, 0) });
export const EVENT_ADDRESS = structure("event address", "§11.4", 1, { MA: bits(31, 2) });
export const EVENT_UPPER_ADDRESS = structure("event upper address", "§11.4", 1, { MUA: bits(31, 0) });

/** IQH and IQT: a byte offset; with 256-bit descriptors bit 4 is reserved. */
export const IQ_OFFSET = structure("queue offset", "§11.4", 1, { offset: bits(18, 4) });
export const IQA = structure("IQA", "§11.4", 1, {
  QS: bits(2, 0),
  DW: bit(11, { values: { 0: "128-bit", 1: "256-bit" } }),
  IQA: bits(63, 12),
});
export const IQA_DW = 1 << 11;
export const ICS = structure("ICS", "§11.4", 1, { IWC: bit(0) });

export const IQERCD = structure("IQERCD", "§11.4", 1, {
  IQEI: bits(3, 0, {
    values: {
      1: "invalid tail",
      2: "descriptor fetch error",
      3: "invalid type",
      4: "reserved field",
      5: "invalid descriptor width",
      6: "misaligned tail",
      7: "invalid translation table mode",
    },
  }),
  ITESID: bits(47, 32),
  ICESID: bits(63, 48),
});
/** IQERCD.IQEI. */
export const IQEI_NONE = 0;
export const IQEI_TAIL = 1;
export const IQEI_FETCH = 2;
export const IQEI_TYPE = 3;
export const IQEI_RESERVED = 4;
export const IQEI_WIDTH = 5;
export const IQEI_MISALIGNED_TAIL = 6;
export const IQEI_TTM = 7;

export const IRTA = structure("IRTA", "§11.4", 1, { S: bits(3, 0), EIME: bit(11), IRTA: bits(63, 12) });
export const IRTA_EIME = 1 << 11;

/** PQH and PQT. */
export const PQ_OFFSET = structure("page request offset", "§11.4", 1, { offset: bits(18, 5) });
export const PQA = structure("PQA", "§11.4", 1, { PQS: bits(2, 0), PQA: bits(63, 12) });
export const PRS = structure("PRS", "§11.4", 1, { PPR: bit(0), PRO: bit(1) });
export const PRS_PPR = 1 << 0;
export const PRS_PRO = 1 << 1;

/** At 16 · ECAP.IRO. */
export const IVA = structure("IVA", "§11.4", 1, { AM: bits(5, 0), IH: bit(6), ADDR: bits(63, 12) });
/** 8 bytes behind IVA. */
export const IOTLB = structure("IOTLB", "§11.4", 1, {
  DID: bits(47, 32),
  DW: bit(48),
  DR: bit(49),
  IAIG: bits(58, 57),
  IIRG: bits(61, 60, { values: { 1: "global", 2: "domain", 3: "page" } }),
  IVT: bit(63),
});

/** Granularities of CCMD.CIRG, IOTLB.IIRG and the descriptors that do the same. */
export const GRANULARITY_GLOBAL = 1;
export const GRANULARITY_DOMAIN = 2;
/** Of context invalidations: by source id. */
export const GRANULARITY_DEVICE = 3;
/** Of IOTLB invalidations. */
export const GRANULARITY_PAGE = 3;

/** Where IVA stands; IOTLB is 8 bytes behind. */
export function invalidationRegisters(features: Pick<VtdFeatures, "IRO">): number {
  return 16 * features.IRO;
}

/** Where fault recording register `index` stands. */
export function faultRecordingRegister(features: Pick<VtdFeatures, "FRO">, index: number): number {
  return 16 * features.FRO + FAULT_RECORD_BYTES * index;
}

/** Bytes of register space: whole pages that hold every register. */
export function registerBytes(features: Pick<VtdFeatures, "IRO" | "FRO" | "NFR">): number {
  const end = Math.max(0x100, invalidationRegisters(features) + 16, faultRecordingRegister(features, features.NFR + 1));
  return Math.ceil(end / 4096) * 4096;
}

export interface RegisterDescription {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 4 | 8 | 16;
  readonly layout: Structure<Record<string, FieldSpec>>;
}

const whole = structure("value", "§11.4", 1, { value: bits(63, 0) });
const LAYOUTS: Readonly<Partial<Record<keyof typeof REG, unknown>>> = {
  VER,
  CAP,
  ECAP,
  GCMD,
  GSTS,
  RTADDR,
  CCMD,
  FSTS,
  FECTL: EVENT_CONTROL,
  FEDATA: EVENT_DATA,
  FEADDR: EVENT_ADDRESS,
  FEUADDR: EVENT_UPPER_ADDRESS,
  IQH: IQ_OFFSET,
  IQT: IQ_OFFSET,
  IQA,
  ICS,
  IECTL: EVENT_CONTROL,
  IEDATA: EVENT_DATA,
  IEADDR: EVENT_ADDRESS,
  IEUADDR: EVENT_UPPER_ADDRESS,
  IQERCD,
  IRTA,
  PQH: PQ_OFFSET,
  PQT: PQ_OFFSET,
  PQA,
  PRS,
  PECTL: EVENT_CONTROL,
  PEDATA: EVENT_DATA,
  PEADDR: EVENT_ADDRESS,
  PEUADDR: EVENT_UPPER_ADDRESS,
};
const WIDE = /^(E?CAP|RTADDR|CCMD|AFLOG|PHM.*|IQ[HTA]|IQERCD|IRTA|PQ[HTA])$/;

const FIXED: readonly RegisterDescription[] = Object.entries(REG).map(([name, offset]) => ({
  name,
  offset,
  bytes: WIDE.test(name) ? 8 : 4,
  layout: (LAYOUTS[name as keyof typeof REG] ?? whole) as Structure<Record<string, FieldSpec>>,
}));

/** All registers of a unit with these features. */
export function registersOf(features: Pick<VtdFeatures, "IRO" | "FRO" | "NFR">): readonly RegisterDescription[] {
  const iva = invalidationRegisters(features);
  const movable: RegisterDescription[] = [
    { name: "IVA", offset: iva, bytes: 8, layout: IVA as unknown as RegisterDescription["layout"] },
    { name: "IOTLB", offset: iva + 8, bytes: 8, layout: IOTLB as unknown as RegisterDescription["layout"] },
  ];
  for (let i = 0; i <= features.NFR; i++) {
    movable.push({
      name: `FRCD${i}`,
      offset: faultRecordingRegister(features, i),
      bytes: 16,
      layout: FAULT_RECORD as unknown as RegisterDescription["layout"],
    });
  }
  return [...FIXED, ...movable];
}

/** "GSTS TES=1 RTPS=1": for traces and the register dump. `words`: the register's quadwords (or its dword). */
export function describeRegister(register: RegisterDescription, words: readonly bigint[]): string {
  const text = register.layout.describe(words);
  return text === "" ? register.name : `${register.name} ${text}`;
}

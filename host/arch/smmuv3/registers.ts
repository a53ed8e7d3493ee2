// The Non-secure register pages of an SMMUv3 (IHI 0070 §6.2, §6.3) as one table: offsets, widths, fields.
//
// Two pages of 64 KiB: everything but four queue indexes stands on the first; PROD and CONS of the event and page-request queues on the
// second. Registers of 8 bytes may be accessed as two halves.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";
import { AIDR, IDR0, IDR1, IDR3, IDR5, IIDR } from "./identification.ts";

export const REGISTER_BYTES = 0x20000;
/** Where the second page begins. */
export const PAGE_1 = 0x10000;

/** Offsets (§6.2). */
export const REG = {
  IDR0: 0x00,
  IDR1: 0x04,
  IDR2: 0x08,
  IDR3: 0x0c,
  IDR4: 0x10,
  IDR5: 0x14,
  IIDR: 0x18,
  AIDR: 0x1c,
  CR0: 0x20,
  CR0ACK: 0x24,
  CR1: 0x28,
  CR2: 0x2c,
  STATUSR: 0x40,
  GBPA: 0x44,
  AGBPA: 0x48,
  IRQ_CTRL: 0x50,
  IRQ_CTRLACK: 0x54,
  GERROR: 0x60,
  GERRORN: 0x64,
  GERROR_IRQ_CFG0: 0x68,
  GERROR_IRQ_CFG1: 0x70,
  GERROR_IRQ_CFG2: 0x74,
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0,
  EVENTQ_IRQ_CFG0: 0xb0,
  EVENTQ_IRQ_CFG1: 0xb8,
  EVENTQ_IRQ_CFG2: 0xbc,
  PRIQ_BASE: 0xc0,
  PRIQ_IRQ_CFG0: 0xd0,
  PRIQ_IRQ_CFG1: 0xd8,
  PRIQ_IRQ_CFG2: 0xdc,
  EVENTQ_PROD: 0x100a8,
  EVENTQ_CONS: 0x100ac,
  PRIQ_PROD: 0x100c8,
  PRIQ_CONS: 0x100cc,
} as const;

export const CR0 = structure("CR0", "§6.3.9", 1, {
  SMMUEN: bit(0),
  PRIQEN: bit(1),
  EVENTQEN: bit(2),
  CMDQEN: bit(3),
  ATSCHK: bit(4),
  VMW: bits(8, 6),
  DPT_WALK_EN: bit(10),
});
export const CR0_SMMUEN = 1 << 0;
export const CR0_PRIQEN = 1 << 1;
export const CR0_EVENTQEN = 1 << 2;
export const CR0_CMDQEN = 1 << 3;
export const CR0_ATSCHK = 1 << 4;

export const CR1 = structure("CR1", "§6.3.11", 1, {
  QUEUE_IC: bits(1, 0),
  QUEUE_OC: bits(3, 2),
  QUEUE_SH: bits(5, 4),
  TABLE_IC: bits(7, 6),
  TABLE_OC: bits(9, 8),
  TABLE_SH: bits(11, 10),
});

export const CR2 = structure("CR2", "§6.3.12", 1, { E2H: bit(0), RECINVSID: bit(1), PTM: bit(2), REC_CFG_ATS: bit(3) });
export const CR2_E2H = 1 << 0;
export const CR2_RECINVSID = 1 << 1;
export const CR2_PTM = 1 << 2;
export const CR2_REC_CFG_ATS = 1 << 3;

export const GBPA = structure("GBPA", "§6.3.14", 1, {
  MemAttr: bits(3, 0),
  MTCFG: bit(4),
  ALLOCCFG: bits(11, 8),
  SHCFG: bits(13, 12),
  PRIVCFG: bits(17, 16),
  INSTCFG: bits(19, 18),
  ABORT: bit(20),
  Update: bit(31),
});
export const GBPA_ABORT = 1 << 20;
export const GBPA_UPDATE = 0x80000000;

export const IRQ_CTRL = structure("IRQ_CTRL", "§6.3.16", 1, { GERROR: bit(0), PRIQ: bit(1), EVENTQ: bit(2) });
export const IRQ_GERROR = 1 << 0;
export const IRQ_PRIQ = 1 << 1;
export const IRQ_EVENTQ = 1 << 2;

export const GERROR = structure("GERROR", "§6.3.19", 1, {
  CMDQ_ERR: bit(0),
  EVENTQ_ABT_ERR: bit(2),
  PRIQ_ABT_ERR: bit(3),
  MSI_CMDQ_ABT_ERR: bit(4),
  MSI_EVENTQ_ABT_ERR: bit(5),
  MSI_PRIQ_ABT_ERR: bit(6),
  MSI_GERROR_ABT_ERR: bit(7),
  SFM_ERR: bit(8),
  CMDQP_ERR: bit(9),
  DPT_ERR: bit(10),
});
export const GERROR_CMDQ_ERR = 1 << 0;
export const GERROR_EVENTQ_ABT_ERR = 1 << 2;
export const GERROR_PRIQ_ABT_ERR = 1 << 3;
export const GERROR_MSI_CMDQ_ABT_ERR = 1 << 4;
export const GERROR_MSI_EVENTQ_ABT_ERR = 1 << 5;
export const GERROR_MSI_PRIQ_ABT_ERR = 1 << 6;
export const GERROR_MSI_GERROR_ABT_ERR = 1 << 7;
/** Bits of GERROR that software may acknowledge. */
export const GERROR_BITS = 0x7fd;

export const STRTAB_BASE = structure("STRTAB_BASE", "§6.3.24", 1, { ADDR: bits(55, 6), RA: bit(62) });
export const STRTAB_BASE_CFG = structure("STRTAB_BASE_CFG", "§6.3.25", 1, {
  LOG2SIZE: bits(5, 0),
  SPLIT: bits(10, 6),
  FMT: bits(17, 16, { values: { 0: "linear", 1: "two-level" } }),
});

/** CMDQ_BASE, EVENTQ_BASE and PRIQ_BASE (§6.3.26 and others); bit 62 is RA or WA. */
export const QUEUE_BASE = structure("queue base", "§6.3.26", 1, {
  LOG2SIZE: bits(4, 0),
  ADDR: bits(55, 5),
  RA_WA: bit(62),
});
/** PROD or CONS (§7.1): index and wrap bit, as wide as the queue. */
export const CMDQ_CONS = structure("CMDQ_CONS", "§6.3.28", 1, {
  RD: bits(19, 0),
  ERR: bits(30, 24, { values: { 1: "CERROR_ILL", 2: "CERROR_ABT", 3: "CERROR_ATC_INV_SYNC" } }),
});
export const CERROR_NONE = 0;
export const CERROR_ILL = 1;
export const CERROR_ABT = 2;
export const CERROR_ATC_INV_SYNC = 3;
export const QUEUE_PROD = structure("queue PROD", "§6.3.30", 1, { WR: bits(19, 0), OVFLG: bit(31) });
export const QUEUE_CONS = structure("queue CONS", "§6.3.31", 1, { RD: bits(19, 0), OVACKFLG: bit(31) });
export const OVERFLOW_FLAG = 0x80000000;

export const IRQ_CFG0 = structure("IRQ_CFG0", "§6.3.21", 1, { ADDR: bits(55, 2) });
export const IRQ_CFG2 = structure("IRQ_CFG2", "§6.3.23", 1, { MemAttr: bits(3, 0), SH: bits(5, 4), LO: bit(31) });
const whole = structure("data", "§6.3.22", 1, { DATA: bits(31, 0) });

export interface RegisterDescription {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 4 | 8;
  readonly layout: Structure<Record<string, FieldSpec>>;
}

const LAYOUTS: Readonly<Partial<Record<keyof typeof REG, unknown>>> = {
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IIDR,
  AIDR,
  CR0,
  CR0ACK: CR0,
  CR1,
  CR2,
  GBPA,
  IRQ_CTRL,
  IRQ_CTRLACK: IRQ_CTRL,
  GERROR,
  GERRORN: GERROR,
  GERROR_IRQ_CFG0: IRQ_CFG0,
  GERROR_IRQ_CFG2: IRQ_CFG2,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  CMDQ_BASE: QUEUE_BASE,
  CMDQ_PROD: QUEUE_PROD,
  CMDQ_CONS,
  EVENTQ_BASE: QUEUE_BASE,
  EVENTQ_IRQ_CFG0: IRQ_CFG0,
  EVENTQ_IRQ_CFG2: IRQ_CFG2,
  PRIQ_BASE: QUEUE_BASE,
  PRIQ_IRQ_CFG0: IRQ_CFG0,
  PRIQ_IRQ_CFG2: IRQ_CFG2,
  EVENTQ_PROD: QUEUE_PROD,
  EVENTQ_CONS: QUEUE_CONS,
  PRIQ_PROD: QUEUE_PROD,
  PRIQ_CONS: QUEUE_CONS,
};
const WIDE = /_BASE$|_IRQ_CFG0$/;

export const REGISTERS: readonly RegisterDescription[] = Object.entries(REG).map(([name, offset]) => ({
  name,
  offset,
  bytes: WIDE.test(name) ? 8 : 4,
  layout: (LAYOUTS[name as keyof typeof REG] ?? whole) as Structure<Record<string, FieldSpec>>,
}));

/** The register that a byte offset lies in; undefined where there is none. */
export function registerAt(offset: number): RegisterDescription | undefined {
  return REGISTERS.find((register) => offset >= register.offset && offset < register.offset + register.bytes);
}

/** "CR0 SMMUEN=1 CMDQEN=1": for traces and the register dump. */
export function describeRegister(register: RegisterDescription, value: bigint): string {
  const text = register.layout.describe([value]);
  return text === "" ? register.name : `${register.name} ${text}`;
}

// The 4 KiB register page of a RISC-V IOMMU (§6.1) as one table: offsets, widths, fields with their access types.
//
// Consumers: the physical IOMMU and the guest-visible one (both keep their own state), the host's driver (offsets and fields),
// traces and the register dump (`registerAt`, `describeRegister`). Repeated registers (counters, event selectors, the MSI table)
// appear once, with a count and a stride.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";
import { CAPABILITIES, FCTL } from "./capabilities.ts";

export const REGISTER_PAGE_BYTES = 4096;

/** Offsets (§6.1). */
export const REG = {
  capabilities: 0,
  fctl: 8,
  ddtp: 16,
  cqb: 24,
  cqh: 32,
  cqt: 36,
  fqb: 40,
  fqh: 48,
  fqt: 52,
  pqb: 56,
  pqh: 64,
  pqt: 68,
  cqcsr: 72,
  fqcsr: 76,
  pqcsr: 80,
  ipsr: 84,
  iocountovf: 88,
  iocountinh: 92,
  iohpmcycles: 96,
  iohpmctr1: 104,
  iohpmevt1: 352,
  tr_req_iova: 600,
  tr_req_ctl: 608,
  tr_response: 616,
  iommu_qosid: 624,
  icvec: 760,
  msi_cfg_tbl: 768,
} as const;

/** ddtp.iommu_mode (§6.5). */
export const DDTP_OFF = 0;
export const DDTP_BARE = 1;
export const DDTP_1LVL = 2;
export const DDTP_2LVL = 3;
export const DDTP_3LVL = 4;

export const DDTP = structure("ddtp", "§6.5", 1, {
  iommu_mode: bits(3, 0, {
    access: "WARL",
    values: { 0: "Off", 1: "Bare", 2: "1LVL", 3: "2LVL", 4: "3LVL" },
  }),
  busy: bit(4, { access: "RO", reset: 0n }),
  PPN: bits(53, 10, { access: "WARL" }),
});

/** cqb, fqb and pqb share one layout (§6.6, §6.9, §6.12): 2^(LOG2SZ_1 + 1) entries. */
export const QUEUE_BASE = structure("queue base", "§6.6", 1, {
  LOG2SZ_1: bits(4, 0, { access: "WARL" }),
  PPN: bits(53, 10, { access: "WARL" }),
});

export const CQCSR = structure("cqcsr", "§6.15", 1, {
  cqen: bit(0, { access: "RW", reset: 0n }),
  cie: bit(1, { access: "RW", reset: 0n }),
  cqmf: bit(8, { access: "RW1C" }),
  cmd_to: bit(9, { access: "RW1C" }),
  cmd_ill: bit(10, { access: "RW1C" }),
  fence_w_ip: bit(11, { access: "RW1C" }),
  cqon: bit(16, { access: "RO", reset: 0n }),
  busy: bit(17, { access: "RO", reset: 0n }),
});

export const FQCSR = structure("fqcsr", "§6.16", 1, {
  fqen: bit(0, { access: "RW", reset: 0n }),
  fie: bit(1, { access: "RW", reset: 0n }),
  fqmf: bit(8, { access: "RW1C" }),
  fqof: bit(9, { access: "RW1C" }),
  fqon: bit(16, { access: "RO", reset: 0n }),
  busy: bit(17, { access: "RO", reset: 0n }),
});

export const PQCSR = structure("pqcsr", "§6.17", 1, {
  pqen: bit(0, { access: "RW", reset: 0n }),
  pie: bit(1, { access: "RW", reset: 0n }),
  pqmf: bit(8, { access: "RW1C" }),
  pqof: bit(9, { access: "RW1C" }),
  pqon: bit(16, { access: "RO", reset: 0n }),
  busy: bit(17, { access: "RO", reset: 0n }),
});

/** Bits common to the three queue control registers. */
export const CSR_ENABLE = 1 << 0;
export const CSR_INTERRUPT_ENABLE = 1 << 1;
export const CSR_MEMORY_FAULT = 1 << 8;
/** fqcsr, pqcsr. */
export const CSR_OVERFLOW = 1 << 9;
/** cqcsr. */
export const CQCSR_CMD_TO = 1 << 9;
export const CQCSR_CMD_ILL = 1 << 10;
export const CQCSR_FENCE_W_IP = 1 << 11;
export const CSR_ON = 1 << 16;
export const CSR_BUSY = 1 << 17;

export const IPSR = structure("ipsr", "§6.18", 1, {
  cip: bit(0, { access: "RW1C", reset: 0n }),
  fip: bit(1, { access: "RW1C", reset: 0n }),
  pmip: bit(2, { access: "RW1C", reset: 0n }),
  pip: bit(3, { access: "RW1C", reset: 0n }),
});
export const IPSR_CIP = 1;
export const IPSR_FIP = 2;
export const IPSR_PMIP = 4;
export const IPSR_PIP = 8;

export const IOHPMEVT = structure("iohpmevt", "§6.23", 1, {
  eventID: bits(14, 0, { access: "WARL" }),
  DMASK: bit(15, { access: "RW" }),
  PID_PSCID: bits(35, 16, { access: "RW" }),
  DID_GSCID: bits(59, 36, { access: "RW" }),
  PV_PSCV: bit(60, { access: "RW" }),
  DV_GSCV: bit(61, { access: "RW" }),
  IDT: bit(62, { access: "RW" }),
  OF: bit(63, { access: "RW" }),
});

export const IOHPMCYCLES = structure("iohpmcycles", "§6.21", 1, {
  counter: bits(62, 0, { access: "RW" }),
  OF: bit(63, { access: "RW" }),
});

export const TR_REQ_CTL = structure("tr_req_ctl", "§6.25", 1, {
  go_busy: bit(0, { access: "RW1S", reset: 0n }),
  Priv: bit(1, { access: "RW" }),
  Exe: bit(2, { access: "RW" }),
  NW: bit(3, { access: "RW" }),
  PID: bits(31, 12, { access: "RW" }),
  PV: bit(32, { access: "RW" }),
  DID: bits(63, 40, { access: "RW" }),
});

export const TR_RESPONSE = structure("tr_response", "§6.26", 1, {
  fault: bit(0, { access: "RO" }),
  PBMT: bits(8, 7, { access: "RO", values: { 0: "PMA", 1: "NC", 2: "IO" } }),
  S: bit(9, { access: "RO" }),
  PPN: bits(53, 10, { access: "RO" }),
});

export const IOMMU_QOSID = structure("iommu_qosid", "§6.27", 1, {
  RCID: bits(11, 0, { access: "WARL" }),
  MCID: bits(27, 16, { access: "WARL" }),
});

export const ICVEC = structure("icvec", "§6.28", 1, {
  civ: bits(3, 0, { access: "WARL" }),
  fiv: bits(7, 4, { access: "WARL" }),
  pmiv: bits(11, 8, { access: "WARL" }),
  piv: bits(15, 12, { access: "WARL" }),
});

const whole = (name: string, section: string, high: number, more: Partial<FieldSpec> = {}) =>
  structure(name, section, 1, { value: bits(high, 0, more) });

type AnyStructure = Structure<Record<string, FieldSpec>>;

export interface RegisterDescription {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 4 | 8;
  readonly section: string;
  readonly fields: AnyStructure;
  /** Repeated registers: how many, and bytes from one to the next; names are numbered from `first`. */
  readonly count?: number;
  readonly stride?: number;
  readonly first?: number;
}

const register = (
  name: string,
  offset: number,
  bytes: 4 | 8,
  fields: object,
  repeat: { count?: number; stride?: number; first?: number } = {},
): RegisterDescription => {
  const layout = fields as AnyStructure;
  return { name, offset, bytes, section: layout.section, fields: layout, ...repeat };
};

/** Every register of the page, in ascending order. */
export const REGISTERS: readonly RegisterDescription[] = [
  register("capabilities", REG.capabilities, 8, CAPABILITIES),
  register("fctl", REG.fctl, 4, FCTL),
  register("ddtp", REG.ddtp, 8, DDTP),
  register("cqb", REG.cqb, 8, QUEUE_BASE),
  register("cqh", REG.cqh, 4, whole("cqh", "§6.7", 31, { access: "RO" })),
  register("cqt", REG.cqt, 4, whole("cqt", "§6.8", 31, { access: "WARL" })),
  register("fqb", REG.fqb, 8, QUEUE_BASE),
  register("fqh", REG.fqh, 4, whole("fqh", "§6.10", 31, { access: "WARL" })),
  register("fqt", REG.fqt, 4, whole("fqt", "§6.11", 31, { access: "RO" })),
  register("pqb", REG.pqb, 8, QUEUE_BASE),
  register("pqh", REG.pqh, 4, whole("pqh", "§6.13", 31, { access: "WARL" })),
  register("pqt", REG.pqt, 4, whole("pqt", "§6.14", 31, { access: "RO" })),
  register("cqcsr", REG.cqcsr, 4, CQCSR),
  register("fqcsr", REG.fqcsr, 4, FQCSR),
  register("pqcsr", REG.pqcsr, 4, PQCSR),
  register("ipsr", REG.ipsr, 4, IPSR),
  register("iocountovf", REG.iocountovf, 4, whole("iocountovf", "§6.19", 31, { access: "RO" })),
  register("iocountinh", REG.iocountinh, 4, whole("iocountinh", "§6.20", 31, { access: "WARL" })),
  register("iohpmcycles", REG.iohpmcycles, 8, IOHPMCYCLES),
  register("iohpmctr", REG.iohpmctr1, 8, whole("iohpmctr", "§6.22", 63, { access: "WARL" }), {
    count: 31,
    stride: 8,
    first: 1,
  }),
  register("iohpmevt", REG.iohpmevt1, 8, IOHPMEVT, { count: 31, stride: 8, first: 1 }),
  register(
    "tr_req_iova",
    REG.tr_req_iova,
    8,
    structure("tr_req_iova", "§6.24", 1, { vpn: bits(63, 12, { access: "RW" }) }),
  ),
  register("tr_req_ctl", REG.tr_req_ctl, 8, TR_REQ_CTL),
  register("tr_response", REG.tr_response, 8, TR_RESPONSE),
  register("iommu_qosid", REG.iommu_qosid, 4, IOMMU_QOSID),
  register("icvec", REG.icvec, 8, ICVEC),
  register(
    "msi_addr",
    REG.msi_cfg_tbl,
    8,
    structure("msi_addr", "§6.29", 1, { ADDR: bits(55, 2, { access: "WARL" }) }),
    {
      count: 16,
      stride: 16,
      first: 0,
    },
  ),
  register("msi_data", REG.msi_cfg_tbl + 8, 4, whole("msi_data", "§6.29", 31, { access: "RW" }), {
    count: 16,
    stride: 16,
    first: 0,
  }),
  register(
    "msi_vec_ctl",
    REG.msi_cfg_tbl + 12,
    4,
    structure("msi_vec_ctl", "§6.29", 1, { M: bit(0, { access: "RW" }) }),
    {
      count: 16,
      stride: 16,
      first: 0,
    },
  ),
];

interface RegisterPlace {
  readonly name: string;
  /** Offset of the register's first byte. */
  readonly offset: number;
  readonly register: RegisterDescription;
}

const PLACES: readonly (RegisterPlace | undefined)[] = (() => {
  const places: (RegisterPlace | undefined)[] = new Array(REGISTER_PAGE_BYTES / 4).fill(undefined);
  for (const description of REGISTERS) {
    const count = description.count ?? 1;
    for (let i = 0; i < count; i++) {
      const offset = description.offset + i * (description.stride ?? 0);
      const suffix = description.count === undefined ? "" : `${(description.first ?? 0) + i}`;
      const place = { name: `${description.name}${suffix}`, offset, register: description };
      for (let word = 0; word < description.bytes / 4; word++) places[offset / 4 + word] = place;
    }
  }
  return places;
})();

/** The register that holds the byte at `offset`; undefined for reserved and custom space. */
export function registerAt(offset: number): RegisterPlace | undefined {
  return PLACES[offset >>> 2];
}

/** Name for traces: "cqt", "ddtp.high" (upper half of an 8-byte register), "reserved+0x280". */
export function registerName(offset: number): string {
  const place = registerAt(offset);
  if (place === undefined) return `reserved+0x${offset.toString(16)}`;
  return offset - place.offset >= 4 ? `${place.name}.high` : place.name;
}

/** "ddtp: iommu_mode=3LVL PPN=0x80012"; `value` is the whole register's. */
export function describeRegister(offset: number, value: bigint): string {
  const place = registerAt(offset);
  if (place === undefined) return registerName(offset);
  return `${place.name}: ${place.register.fields.describe([value])}`;
}

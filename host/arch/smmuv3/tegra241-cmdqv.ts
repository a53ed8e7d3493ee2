// NVIDIA's command queue virtualization beside an SMMUv3 (Tegra241 CMDQV): its register map, as Linux's driver (tegra241-cmdqv.c) and QEMU's model
// (hw/arm/tegra241-cmdqv.h) have it; there is no public specification.
//
//     0x00000  configuration: CMDQV, CMDQ_ALLOC of each VCMDQ, VINTFs
//     0x10000  page 0 of VCMDQs by global index: indexes, enable, errors
//     0x20000  page 1 of the same: where the queue stands in memory
//     0x30000 + v * 0x20000  pages 0 and 1 of VINTF v: the same registers by logical index, as far as they are allocated to it

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";

export const CMDQV_PAGE_BYTES = 0x10000;
export const VCMDQ_PAGE0 = 0x10000;
export const VCMDQ_PAGE1 = 0x20000;
export const VINTF_PAGES = 0x30000;
/** Bytes between the pages 0 of two VINTFs; page 1 stands in the middle. */
export const VINTF_PAGES_STRIDE = 0x20000;
export const VCMDQ_STRIDE = 0x80;

/** Configuration page: offsets. Maps have a bit per VINTF or VCMDQ, in words of 32. */
export const CMDQV_REG = {
  CONFIG: 0x0000,
  PARAM: 0x0004,
  STATUS: 0x0008,
  VINTF_ERR_MAP: 0x0014,
  VINTF_INT_MASK: 0x001c,
  CMDQ_ERR_MAP: 0x0024,
  CMDQ_ALLOC: 0x0200,
  VINTF: 0x1000,
} as const;
export const VINTF_STRIDE = 0x100;
/** Offsets from a VINTF's registers. */
export const VINTF_REG = {
  CONFIG: 0x00,
  STATUS: 0x04,
  SID_MATCH: 0x40,
  SID_REPLACE: 0x80,
  LVCMDQ_ERR_MAP: 0xc0,
} as const;
/** Offsets from a VCMDQ's registers in a page 0. */
export const VCMDQ_REG = { CONS: 0x00, PROD: 0x04, CONFIG: 0x08, STATUS: 0x0c, GERROR: 0x10, GERRORN: 0x14 } as const;
/** Offsets from a VCMDQ's registers in a page 1, 64 bits each. */
export const VCMDQ_PAGE1_REG = { BASE: 0x00, CONS_INDX_BASE: 0x08 } as const;

const LINUX = "tegra241-cmdqv.c";

export const CMDQV_CONFIG = structure("CMDQV_CONFIG", LINUX, 1, {
  EN: bit(0),
  PER_CMD_OFFSET: bits(3, 1),
  MAX_CLK_BATCH: bits(11, 4),
  MAX_CMD_BATCH: bits(19, 12),
  CONS_DRAM_EN: bit(20),
});
export const CMDQV_PARAM = structure("CMDQV_PARAM", LINUX, 1, {
  VER: bits(3, 0),
  NUM_VCMDQ_LOG2: bits(7, 4),
  NUM_VINTF_LOG2: bits(11, 8),
  NUM_SID_PER_VM_LOG2: bits(15, 12),
});
export const CMDQV_STATUS = structure("CMDQV_STATUS", LINUX, 1, { ENABLED: bit(0) });
export const CMDQ_ALLOC = structure("CMDQ_ALLOC", LINUX, 1, {
  ALLOCATED: bit(0),
  LVCMDQ: bits(7, 1),
  VINTF: bits(20, 15),
});
export const VINTF_CONFIG = structure("VINTF_CONFIG", LINUX, 1, { EN: bit(0), VMID: bits(16, 1), HYP_OWN: bit(17) });
export const VINTF_STATUS = structure("VINTF_STATUS", LINUX, 1, {
  ENABLED: bit(0),
  STATUS: bits(3, 1, { values: { 1: "VCMDQ_ERROR" } }),
  VI_NUM_LVCMDQ: bits(23, 16),
});
export const SID_MATCH = structure("SID_MATCH", LINUX, 1, { EN: bit(0), VIRT_SID: bits(20, 1) });
export const SID_REPLACE = structure("SID_REPLACE", LINUX, 1, { PHYS_SID: bits(19, 0) });
export const VCMDQ_CONS = structure("VCMDQ_CONS", LINUX, 1, {
  RD: bits(19, 0),
  ERR: bits(30, 24, {
    values: { 1: "CERROR_ILL", 2: "CERROR_ABT", 3: "CERROR_ATC_INV_SYNC", 4: "CERROR_ILL_ACCESS" },
  }),
});
export const VCMDQ_PROD = structure("VCMDQ_PROD", LINUX, 1, { WR: bits(19, 0) });
export const VCMDQ_CONFIG = structure("VCMDQ_CONFIG", LINUX, 1, { EN: bit(0) });
export const VCMDQ_STATUS = structure("VCMDQ_STATUS", LINUX, 1, { ENABLED: bit(0) });
export const VCMDQ_GERROR = structure("VCMDQ_GERROR", LINUX, 1, {
  CMDQ_ERR: bit(0),
  CONS_DRAM_WR_ABT_ERR: bit(1),
  CMDQ_INIT_ERR: bit(2),
});
export const VCMDQ_BASE = structure("VCMDQ_BASE", LINUX, 1, { LOG2SIZE: bits(4, 0), ADDR: bits(47, 5) });

/** CMDQV_CONFIG at reset: on, and numbers that mean nothing to software. */
export const CMDQV_CONFIG_RESET = 0x00020083;
export const CMDQV_EN = 1 << 0;
export const CMDQV_CONFIG_BITS = 0x000fffff;
export const ALLOC_ALLOCATED = 1 << 0;
export const ALLOC_BITS = 0x001f80ff;
export const VINTF_EN = 1 << 0;
export const VINTF_HYP_OWN = 1 << 17;
export const VINTF_CONFIG_BITS = 0x0003ffff;
export const VCMDQ_EN = 1 << 0;
export const VCMDQ_CMDQ_ERR = 1 << 0;
export const VCMDQ_INIT_ERR = 1 << 2;
export const VCMDQ_GERROR_BITS = 0x7;
export const SID_BITS = 0xfffff;
/** VCMDQ_CONS.ERR besides CMDQ_CONS.ERR's own: a command that is not for this queue to give. */
export const CERROR_ILL_ACCESS = 4;

/** A CMDQV's registers: all pages of `vintfs` VINTFs. */
export const cmdqvBytes = (vintfs: number): number => VINTF_PAGES + vintfs * VINTF_PAGES_STRIDE;
export const vintfPage0 = (vintf: number): number => VINTF_PAGES + vintf * VINTF_PAGES_STRIDE;
export const vintfPage1 = (vintf: number): number => vintfPage0(vintf) + CMDQV_PAGE_BYTES;

type AnyStructure = Structure<Record<string, FieldSpec>>;

const CONFIGURATION: readonly (readonly [from: number, words: number, name: string, layout: AnyStructure | null])[] = [
  [CMDQV_REG.CONFIG, 1, "CONFIG", CMDQV_CONFIG],
  [CMDQV_REG.PARAM, 1, "PARAM", CMDQV_PARAM],
  [CMDQV_REG.STATUS, 1, "STATUS", CMDQV_STATUS],
  [CMDQV_REG.VINTF_ERR_MAP, 2, "VINTF_ERR_MAP", null],
  [CMDQV_REG.VINTF_INT_MASK, 2, "VINTF_INT_MASK", null],
  [CMDQV_REG.CMDQ_ERR_MAP, 4, "CMDQ_ERR_MAP", null],
  [CMDQV_REG.CMDQ_ALLOC, 128, "CMDQ_ALLOC", CMDQ_ALLOC],
];
const VINTF_REGISTERS: readonly (readonly [number, number, string, AnyStructure | null])[] = [
  [VINTF_REG.CONFIG, 1, "CONFIG", VINTF_CONFIG],
  [VINTF_REG.STATUS, 1, "STATUS", VINTF_STATUS],
  [VINTF_REG.SID_MATCH, 16, "SID_MATCH", SID_MATCH],
  [VINTF_REG.SID_REPLACE, 16, "SID_REPLACE", SID_REPLACE],
  [VINTF_REG.LVCMDQ_ERR_MAP, 4, "LVCMDQ_ERR_MAP", null],
];
const VCMDQ_LAYOUTS = [
  ["CONS", VCMDQ_CONS],
  ["PROD", VCMDQ_PROD],
  ["CONFIG", VCMDQ_CONFIG],
  ["STATUS", VCMDQ_STATUS],
  ["GERROR", VCMDQ_GERROR],
  ["GERRORN", VCMDQ_GERROR],
] as const satisfies readonly (readonly [string, AnyStructure])[];
const VCMDQ_PAGE1_NAMES = ["BASE", "BASE+4", "CONS_INDX_BASE", "CONS_INDX_BASE+4"] as const;

/** What stands at an offset of a CMDQV: "VINTF0 LVCMDQ1 PROD", and its fields where it has any. */
export function cmdqvRegisterAt(offset: number): { readonly name: string; readonly layout: AnyStructure | null } {
  const page = Math.floor(offset / CMDQV_PAGE_BYTES);
  const at = offset % CMDQV_PAGE_BYTES;
  if (page === 0) {
    if (at < CMDQV_REG.VINTF) return named("", CONFIGURATION, at);
    const vintf = Math.floor((at - CMDQV_REG.VINTF) / VINTF_STRIDE);
    return named(`VINTF${vintf} `, VINTF_REGISTERS, (at - CMDQV_REG.VINTF) % VINTF_STRIDE);
  }
  const queue = Math.floor(at / VCMDQ_STRIDE);
  const vintf = (page - 3) >> 1;
  const whose = page < 3 ? `VCMDQ${queue}` : `VINTF${vintf} LVCMDQ${queue}`;
  const word = Math.floor((at % VCMDQ_STRIDE) / 4);
  if ((page & 1) === 0)
    return { name: `${whose} ${VCMDQ_PAGE1_NAMES[word] ?? `+0x${(word * 4).toString(16)}`}`, layout: null };
  const register = VCMDQ_LAYOUTS[word];
  if (register === undefined) return { name: `${whose} +0x${(word * 4).toString(16)}`, layout: null };
  return { name: `${whose} ${register[0]}`, layout: register[1] };
}

function named(
  prefix: string,
  table: readonly (readonly [number, number, string, AnyStructure | null])[],
  at: number,
): { readonly name: string; readonly layout: AnyStructure | null } {
  for (const [from, words, name, layout] of table) {
    if (at >= from && at < from + words * 4) {
      const index = Math.floor((at - from) / 4);
      return { name: words === 1 ? `${prefix}${name}` : `${prefix}${name}${index}`, layout };
    }
  }
  return { name: `${prefix}+0x${at.toString(16)}`, layout: null };
}

// Page-table entries of Sv39/48/57 and their x4 variants (8 bytes) and Sv32/Sv32x4 (4 bytes), and MSI page-table entries.
// Privileged architecture, "Supervisor-Level ISA" (Sv39 … Sv57, Svnapot, Svpbmt) and "Hypervisor Extension" (SvNx4); AIA chapter 9.

import { bit, bits, structure } from "../../base/fields.ts";

export const PTE_V = 1 << 0;
export const PTE_R = 1 << 1;
export const PTE_W = 1 << 2;
export const PTE_X = 1 << 3;
export const PTE_U = 1 << 4;
export const PTE_G = 1 << 5;
export const PTE_A = 1 << 6;
export const PTE_D = 1 << 7;

const leafBits = { V: bit(0), R: bit(1), W: bit(2), X: bit(3), U: bit(4), G: bit(5), A: bit(6), D: bit(7) };

export const PTE = structure("page-table entry", "privileged architecture, Sv39", 1, {
  ...leafBits,
  RSW: bits(9, 8),
  PPN: bits(53, 10),
  /** Svrsw60t59b: two more bits for software. */
  RSW2: bits(60, 59),
  PBMT: bits(62, 61, { values: { 1: "NC", 2: "IO" } }),
  N: bit(63),
});

export const PTE32 = structure("page-table entry", "privileged architecture, Sv32", 1, {
  ...leafBits,
  RSW: bits(9, 8),
  PPN: bits(31, 10),
});

/** MSI page-table entry, basic-translate mode (M = 3). */
export const MSI_PTE_BASIC = structure("MSI page-table entry", "AIA §9.5.1", 2, {
  V: bit(0),
  M: bits(2, 1, { values: { 1: "MRIF", 3: "basic" } }),
  PPN: bits(53, 10),
  C: bit(63),
});

/** MSI page-table entry, MRIF mode (M = 1). */
export const MSI_PTE_MRIF = structure("MSI page-table entry", "AIA §9.5.2", 2, {
  V: bit(0),
  M: bits(2, 1, { values: { 1: "MRIF", 3: "basic" } }),
  /** Bits 55:9 of the interrupt file's address. */
  MRIF_ADDRESS: bits(53, 7),
  C: bit(63),
  NID_LOW: bits(9, 0, { word: 1 }),
  NPPN: bits(53, 10, { word: 1 }),
  NID_10: bit(60, { word: 1 }),
});
export const MSI_PTE_M_MRIF = 1;
export const MSI_PTE_M_BASIC = 3;

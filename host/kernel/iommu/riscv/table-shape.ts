// The page tables of this architecture as ../page-table.ts writes them: Sv39/48/57 for a first stage, Sv39x4/48x4/57x4 for a second one
// (privileged specification, "Sv39" and "Two-stage address translation"; the root of a second stage is four pages, 16 KiB aligned).
//
// Leaves carry A and U always and D where writable, so hardware never needs to write; only a table that tracks dirty pages is
// written with D clear and relies on GADE.

import { EADDRINUSE, EOPNOTSUPP } from "../../../uapi/errno.ts";
import { IOMMU_NOEXEC, IOMMU_READ, IOMMU_WRITE } from "../driver.ts";
import type { LeafBits, TableShape } from "../page-table.ts";

const V = 1;
const R = 2;
const W = 4;
const X = 8;
const U = 16;
const A = 64;
const D = 128;
const RWX = R | W | X;

/** Levels of a mode by its number in iosatp / iohgatp. */
export const MODE_LEVELS: Readonly<Record<number, number>> = { 8: 3, 9: 4, 10: 5 };

export interface RiscvTable {
  /** 3, 4 or 5. */
  readonly levels: number;
  readonly secondStage: boolean;
  /** Leaves start clean; hardware sets D. */
  readonly tracksDirty: boolean;
  /** Bits of a physical address that the hardware drives (PAS). */
  readonly physicalBits: number;
}

export type RiscvTableShape = TableShape & RiscvTable;

export function riscvTableShape(table: RiscvTable): RiscvTableShape {
  const { levels, secondStage, tracksDirty, physicalBits } = table;
  return {
    ...table,
    name: `${levels} levels of a ${secondStage ? "second" : "first"} stage, ${physicalBits} bits${tracksDirty ? ", dirty" : ""}`,
    stride: 9,
    // Second stage: two bits wider.
    rootEntries: secondStage ? 2048 : 512,
    granulePages: 1,
    largestLeaf: 3,
    // PPN: bits 53:10.
    frameShift: 10,
    frameHigh: 0x3fffff,
    presentBits: 1,
    tableBits: V,
    occupied: EADDRINUSE,
    leafKind: () => V,
    isLeaf: (lo) => (lo & RWX) !== 0,
    leafBits: (protection) => leafBits(protection, tracksDirty),
    isDirty: (lo) => (lo & (V | W | D)) === (V | W | D),
    cleaned: (lo) => lo & ~D,
  };
}

/** -EOPNOTSUPP for a mapping that grants nothing. */
function leafBits(protection: number, tracksDirty: boolean): LeafBits | number {
  let lo = U | A;
  if ((protection & IOMMU_READ) !== 0) lo |= R;
  // W without R is a reserved encoding.
  if ((protection & IOMMU_WRITE) !== 0) lo |= tracksDirty ? R | W : R | W | D;
  if ((protection & IOMMU_NOEXEC) === 0) lo |= X;
  return (lo & RWX) === 0 ? -EOPNOTSUPP : { lo, hi: 0 };
}

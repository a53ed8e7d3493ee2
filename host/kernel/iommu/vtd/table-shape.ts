// The page tables of this architecture as ../page-table.ts writes them: first stage in x86's format (VT-d §9.7), second stage (§9.8). Entries are what
// Linux's writes (generic_pt/fmt/x86_64.h, vtdss.h): first-stage leaves carry A, and D where writable, so that the hardware has nothing to mark; a second
// stage's are marked only while dirty state is tracked.

import {
  FS_A,
  FS_D,
  FS_P,
  FS_PS,
  FS_RW,
  FS_US,
  SS_D,
  SS_PS,
  SS_R,
  SS_SNP,
  SS_W,
} from "../../../arch/vtd/page-table-entry.ts";
import { EADDRINUSE, EINVAL } from "../../../uapi/errno.ts";
import { IOMMU_READ, IOMMU_WRITE } from "../driver.ts";
import type { LeafBits, TableShape } from "../page-table.ts";

export interface VtdTable {
  readonly stage: 1 | 2;
  /** 3, 4 or 5. */
  readonly levels: number;
  /** Bits of an input address that are used: of a first stage only those of its lower half. */
  readonly inputBits: number;
  /** 2 MiB and 1 GiB leaves. */
  readonly largestLeaf: 0 | 1 | 2;
  /** Second stage: leaves are snooped whatever the device asks (SNP). */
  readonly snoops: boolean;
  /** Second stage under a guest's first one: every mapping is writable (ERRATA_772415). */
  readonly mustWrite: boolean;
}

export type VtdShape = TableShape & VtdTable;

/** Entries are of 52 bits; what the unit drives no software can know but by firmware. */
const PHYSICAL_BITS = 52;

export function vtdShape(table: VtdTable): VtdShape {
  const { stage, levels, inputBits, largestLeaf, snoops, mustWrite } = table;
  const first = stage === 1;
  return {
    ...table,
    name: `VT-d ${first ? "first" : "second"} stage, ${levels} levels, ${inputBits} bits, leaves up to ${largestLeaf}${snoops ? ", snooped" : ""}${mustWrite ? ", writable" : ""}`,
    stride: 9,
    rootEntries: 512,
    granulePages: 1,
    physicalBits: PHYSICAL_BITS,
    // Bits 51:12.
    frameShift: 12,
    frameHigh: 0xfffff,
    presentBits: first ? FS_P : SS_R | SS_W,
    tableBits: first ? FS_P | FS_RW | FS_US | FS_A : SS_R | SS_W,
    occupied: EADDRINUSE,
    leafKind: (level) => (level === 0 ? 0 : FS_PS),
    isLeaf: (lo, level) => level === 0 || (lo & (first ? FS_PS : SS_PS)) !== 0,
    leafBits: first ? firstStageBits : (protection) => secondStageBits(protection, snoops, mustWrite),
    isDirty: (lo) => !first && (lo & SS_D) !== 0,
    cleaned: (lo) => (lo & ~SS_D) >>> 0,
  };
}

/** A first stage has no leaf that cannot be read. */
function firstStageBits(protection: number): LeafBits {
  const lo = FS_P | FS_US | FS_A;
  return { lo: (protection & IOMMU_WRITE) === 0 ? lo : lo | FS_RW | FS_D, hi: 0 };
}

/** -EINVAL for a mapping that grants nothing, or no write where it must. */
function secondStageBits(protection: number, snoops: boolean, mustWrite: boolean): LeafBits | number {
  let lo = snoops ? SS_SNP : 0;
  if ((protection & IOMMU_READ) !== 0) lo |= SS_R;
  if ((protection & IOMMU_WRITE) !== 0) lo |= SS_W;
  if ((lo & (SS_R | SS_W)) === 0 || (mustWrite && (lo & SS_W) === 0)) return -EINVAL;
  return { lo, hi: 0 };
}

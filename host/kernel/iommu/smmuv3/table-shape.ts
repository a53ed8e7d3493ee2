// The page tables of this architecture as ../page-table.ts writes them: VMSAv8-64 of stage 1 (TTB0 alone) and of stage 2 (DDI 0487 D8.3), in
// the shapes that Linux's driver makes (io-pgtable-arm.c): one granule for a domain, stage 2 with concatenated tables at its start only
// where there is no other way.
//
// Level 0 of ../page-table.ts is level 3 of the architecture. Leaves carry AF always: the hardware never has to mark an access. Where dirty
// state is tracked a writable leaf has DBM and starts dirty, as in Linux; iommufd clears what there is when tracking begins.

import { EEXIST, EINVAL } from "../../../uapi/errno.ts";
import { IOMMU_CACHE, IOMMU_MMIO, IOMMU_NOEXEC, IOMMU_READ, IOMMU_WRITE } from "../driver.ts";
import type { LeafBits, TableShape } from "../page-table.ts";

/** log2 of a granule. */
export type Granule = 12 | 14 | 16;

export interface Vmsav8Table {
  readonly granule: Granule;
  readonly stage: 1 | 2;
  /** Bits of an input address: IAS. */
  readonly inputBits: number;
  /** Bits of an output address: OAS. */
  readonly physicalBits: number;
  /** Stage 1: writable leaves have DBM. */
  readonly tracksDirty: boolean;
  /** Stage 2 under S2FWB: memory attributes in the encoding of STE.S2FWB = 1 (§5.2). */
  readonly forcedWriteBack: boolean;
}

export type Vmsav8Shape = TableShape & Vmsav8Table & { readonly startLevel: number };

const TABLE_OR_PAGE = 3;
const BLOCK = 1;
const AF = 1 << 10;
const INNER_SHAREABLE = 3 << 8;
const OUTER_SHAREABLE = 2 << 8;
// Stage 1. AP[2]: read-only (with DBM: clean). AP[1]: for unprivileged requests, too.
const AP_READ_ONLY = 1 << 7;
const AP_UNPRIVILEGED = 1 << 6;
const NG = 1 << 11;
/** MAIR attributes that Linux's tables use: 0 not cacheable, 1 write-back, 2 device. */
export const MAIR = 0xf404ff44n;
const ATTRIBUTE_CACHED = 1 << 2;
const ATTRIBUTE_DEVICE = 2 << 2;
// Stage 2.
const S2AP_READ = 1 << 6;
const S2AP_WRITE = 1 << 7;
const MEMATTR_DEVICE = 1 << 2;
const MEMATTR_NOT_CACHED = 5 << 2;
const MEMATTR_WRITE_BACK = 0xf << 2;
const MEMATTR_FORCED_WRITE_BACK = 6 << 2;
// High halves.
const DBM = 1 << 19;
const XN = 3 << 21;

export function vmsav8Shape(table: Vmsav8Table): Vmsav8Shape {
  const { granule, stage, inputBits, physicalBits, tracksDirty, forcedWriteBack } = table;
  const stride = granule - 3;
  let levels = Math.ceil((inputBits - granule) / stride);
  let startBits = inputBits - granule - stride * (levels - 1);
  if (stage === 2 && mustConcatenate(granule, inputBits, physicalBits)) {
    levels--;
    startBits += stride;
  }
  return {
    ...table,
    name: `VMSAv8-64 stage ${stage}, ${1 << (granule - 10)} KiB, ${inputBits} to ${physicalBits} bits${tracksDirty ? ", dirty" : ""}${forcedWriteBack ? ", forced write-back" : ""}`,
    startLevel: 4 - levels,
    levels,
    stride,
    rootEntries: 2 ** startBits,
    granulePages: 2 ** (granule - 12),
    // Blocks: 4 KiB granule 2 MiB and 1 GiB, 16 KiB 32 MiB, 64 KiB 512 MiB.
    largestLeaf: granule === 12 ? 2 : 1,
    // Bits 47:12.
    frameShift: 12,
    frameHigh: 0xffff,
    presentBits: 1,
    tableBits: TABLE_OR_PAGE,
    occupied: EEXIST,
    leafKind: (level) => (level === 0 ? TABLE_OR_PAGE : BLOCK),
    isLeaf: (lo, level) => level === 0 || (lo & 2) === 0,
    leafBits:
      stage === 1 ? (asked) => firstStageBits(asked, tracksDirty) : (asked) => secondStageBits(asked, forcedWriteBack),
    isDirty: (lo, hi) => (hi & DBM) !== 0 && (lo & AP_READ_ONLY) === 0,
    cleaned: (lo) => (lo | AP_READ_ONLY) >>> 0,
  };
}

/**
 * Where the start level that a single table would need does not exist: 4 KiB level 0 and 16 KiB level 1 with few physical address bits, 16 KiB
 * level 0 without DS (DDI 0487 D8.2.2; io-pgtable-arm.c, arm_lpae_concat_mandatory).
 */
function mustConcatenate(granule: Granule, inputBits: number, physicalBits: number): boolean {
  const stride = granule - 3;
  const startLevel = 4 - Math.ceil((inputBits - granule) / stride);
  if (granule === 12) return startLevel === 0 && physicalBits < 44;
  return granule === 14 && (startLevel === 0 || (startLevel === 1 && physicalBits <= 40));
}

/** -EINVAL for a mapping that grants nothing (arm_lpae_map_pages). */
function firstStageBits(protection: number, tracksDirty: boolean): LeafBits | number {
  if ((protection & (IOMMU_READ | IOMMU_WRITE)) === 0) return -EINVAL;
  let lo = AF | NG | AP_UNPRIVILEGED | shareability(protection);
  let hi = (protection & IOMMU_NOEXEC) === 0 ? 0 : XN;
  // There is no write without read.
  if ((protection & IOMMU_WRITE) === 0) lo |= AP_READ_ONLY;
  else if (tracksDirty) hi |= DBM;
  if ((protection & IOMMU_MMIO) !== 0) lo |= ATTRIBUTE_DEVICE;
  else if ((protection & IOMMU_CACHE) !== 0) lo |= ATTRIBUTE_CACHED;
  return { lo, hi };
}

function secondStageBits(protection: number, forcedWriteBack: boolean): LeafBits | number {
  if ((protection & (IOMMU_READ | IOMMU_WRITE)) === 0) return -EINVAL;
  let lo = AF | shareability(protection);
  if ((protection & IOMMU_READ) !== 0) lo |= S2AP_READ;
  if ((protection & IOMMU_WRITE) !== 0) lo |= S2AP_WRITE;
  if ((protection & IOMMU_MMIO) !== 0) lo |= MEMATTR_DEVICE;
  else if (forcedWriteBack) lo |= MEMATTR_FORCED_WRITE_BACK;
  else lo |= (protection & IOMMU_CACHE) !== 0 ? MEMATTR_WRITE_BACK : MEMATTR_NOT_CACHED;
  return { lo, hi: (protection & IOMMU_NOEXEC) === 0 ? 0 : XN };
}

function shareability(protection: number): number {
  return (protection & IOMMU_CACHE) !== 0 ? INNER_SHAREABLE : OUTER_SHAREABLE;
}

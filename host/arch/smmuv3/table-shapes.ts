// How granules and sizes give tables their shape (VMSAv8-64, DDI 0487 D8.2; IHI 0070 §5.2, §5.4): stride, where a walk starts, how wide its first
// index is. Sizes are in pages of 4 KiB, whatever the granule: `shift` of a level is log2 of what one entry of it covers.
//
// Only output sizes up to 48 bits: no DS, no VAX.

import { hasGranule, outputBits, type SmmuFeatures } from "./identification.ts";

/** log2 of the granule by TG0 and S2TG; 0: reserved, or not there. */
export function granuleOfTg0(field: number, features: SmmuFeatures): number {
  const granule = field === 0 ? 12 : field === 1 ? 16 : field === 2 ? 14 : 0;
  return hasGranule(granule, features) ? granule : 0;
}

/** log2 of the granule by TG1. */
export function granuleOfTg1(field: number, features: SmmuFeatures): number {
  const granule = field === 1 ? 14 : field === 2 ? 12 : field === 3 ? 16 : 0;
  return hasGranule(granule, features) ? granule : 0;
}

/** log2, in 4 KiB pages, of what an entry of `level` covers. */
export function levelShift(granule: number, level: number): number {
  return granule - 12 + (granule - 3) * (3 - level);
}

/** The first level at which a granule has blocks (without DS and 52-bit addresses). */
export function firstBlockLevel(granule: number): number {
  return granule === 12 ? 1 : 2;
}

export interface StageShape {
  readonly granule: number;
  readonly startLevel: number;
  /** Bits of the start level's index. */
  readonly startBits: number;
}

/** Stage 1: TxSZ alone decides (DDI 0487 D8.2.2). */
export function firstStageShape(granule: number, tsz: number): StageShape {
  const stride = granule - 3;
  const startLevel = 4 - Math.ceil((64 - tsz - granule) / stride);
  return { granule, startLevel, startBits: 64 - tsz - granule - stride * (3 - startLevel) };
}

/** Stage 2: S2SL0 says where the walk starts; null where it does not go with S2T0SZ (§5.2, DDI 0487 D8.2.2). Up to 16 tables are concatenated. */
export function secondStageShape(
  granule: number,
  t0sz: number,
  sl0: number,
  features: SmmuFeatures,
): StageShape | null {
  let startLevel: number;
  if (granule === 12) {
    if (sl0 === 3 && !features.STT) return null;
    startLevel = sl0 === 3 ? 3 : 2 - sl0;
  } else {
    if (sl0 === 3) return null;
    startLevel = 3 - sl0;
  }
  // Levels that only machines with enough physical addresses have.
  const physical = outputBits(features);
  if (granule === 12 && startLevel === 0 && physical <= 42) return null;
  if (granule === 14 && startLevel === 1 && physical <= 40) return null;
  if (granule === 16 && startLevel === 1 && physical <= 42) return null;
  const stride = granule - 3;
  const startBits = 64 - t0sz - granule - stride * (3 - startLevel);
  return startBits >= 1 && startBits <= stride + 4 ? { granule, startLevel, startBits } : null;
}

/** True if an address whose bits 55:32 are `high` has bits at `bits` (32 to 55) or above. */
export function addressBeyond(high: number, bits: number): boolean {
  return high >>> (bits - 32) !== 0;
}

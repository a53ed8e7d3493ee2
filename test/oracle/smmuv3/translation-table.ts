/**
 * VMSAv8-64 translation tables of either stage: granules, levels, and what a descriptor is (A-profile architecture).
 */
import type { Choose } from "../latitude.ts";
import { bit, bits, type Features } from "./identification.ts";

export interface Granule {
  /** log2 of the bytes: 12, 14 or 16. */
  readonly bits: bigint;
  /** Address bits that a whole table resolves. */
  readonly stride: bigint;
}

function granule(f: Features, log2: bigint | undefined): Granule | null {
  return log2 !== undefined && f.granules.includes(log2) ? { bits: log2, stride: log2 - 3n } : null;
}

/** S2TG and TG0; null: Reserved or not supported. */
export function granuleOfTG0(f: Features, encoded: bigint): Granule | null {
  return granule(f, [12n, 16n, 14n][Number(encoded)]);
}

/** TG1 is encoded differently. */
export function granuleOfTG1(f: Features, encoded: bigint): Granule | null {
  return granule(f, [undefined, 14n, 12n, 16n][Number(encoded)]);
}

/** The lowest address bit that a table at `level` resolves: log2 of the bytes that a leaf there maps. */
export function levelShift(granule: Granule, level: number): bigint {
  return granule.bits + granule.stride * BigInt(3 - level);
}

export type Descriptor =
  | { readonly kind: "invalid" }
  | { readonly kind: "table"; readonly address: bigint }
  | { readonly kind: "leaf"; readonly address: bigint };

/** `size`: effective bits of the output address, which decide about bits 51:48 with 64K granules. */
export function decodeDescriptor(
  f: Features,
  granule: Granule,
  level: number,
  descriptor: bigint,
  size: bigint,
  choose: Choose,
): Descriptor {
  if (!bit(descriptor, 0n)) return { kind: "invalid" };
  const table = level < 3 && bit(descriptor, 1n);
  const page = level === 3 && bit(descriptor, 1n);
  if (!table && !page && !blocksAt(f, granule, level)) return { kind: "invalid" };
  const low = table ? granule.bits : levelShift(granule, level);
  let address = bits(descriptor, 47n, low) << low;
  const high = granule.bits === 16n && f.OAS >= 52n ? bits(descriptor, 15n, 12n) : 0n;
  if (high !== 0n && (size >= 52n || choose(2, "descriptor bits 15:12 with a smaller output size") === 0))
    address |= high << 48n;
  return { kind: table ? "table" : "leaf", address };
}

/** Blocks exist at these levels; 64K level 1 with 52-bit addresses only. */
function blocksAt(f: Features, granule: Granule, level: number): boolean {
  if (level === 3) return false;
  if (level === 2) return true;
  if (level === 1) return granule.bits === 12n || (granule.bits === 16n && f.OAS >= 52n);
  return false;
}

/** Descriptor bits (A-profile architecture). */
export const AF = 1n << 10n;
/** AP[2] at stage 1, S2AP[1] at stage 2: writable is 0 there and 1 here. */
export const WRITE_CONTROL = 1n << 7n;
export const DBM = 51n;

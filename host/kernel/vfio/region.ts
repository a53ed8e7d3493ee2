// Regions of any assigned device: offset bits 63:40 of the device file name the region, the rest is the position in it. Registers are
// accessed in naturally aligned pieces (mapped: ../mapped-registers.ts).

import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import type { PostedWrites } from "../file.ts";

const OFFSET_SHIFT = 40n;
const OFFSET_MASK = (1n << OFFSET_SHIFT) - 1n;

export function regionOffset(index: number): bigint {
  return BigInt(index) << OFFSET_SHIFT;
}

/** Index and position of an offset that is not negative. */
export function splitOffset(offset: bigint): { readonly index: number; readonly at: bigint } {
  return { index: Number(offset >> OFFSET_SHIFT), at: offset & OFFSET_MASK };
}

/** The largest naturally aligned access of at most `widest` bytes. */
export function pieceSize(at: number, left: number, widest: AccessSize): AccessSize {
  for (const size of [8, 4, 2] as const) if (size <= widest && left >= size && at % size === 0) return size;
  return 1;
}

export function loadPiece(registers: MmioPort, at: number, size: AccessSize, view: DataView, into: number): void {
  const low = registers.mmioRead(at, size);
  if (size === 1) view.setUint8(into, low);
  else if (size === 2) view.setUint16(into, low, true);
  else view.setUint32(into, low, true);
  if (size === 8) view.setUint32(into + 4, registers.high, true);
}

export function storePiece(registers: MmioPort, at: number, size: AccessSize, view: DataView, from: number): void {
  if (size === 1) registers.mmioWrite(at, 1, view.getUint8(from), 0);
  else if (size === 2) registers.mmioWrite(at, 2, view.getUint16(from, true), 0);
  else if (size === 4) registers.mmioWrite(at, 4, view.getUint32(from, true), 0);
  else registers.mmioWrite(at, 8, view.getUint32(from, true), view.getUint32(from + 4, true));
}

/** Of a region at `base` in the file, what may be posted after a write at a position in it. */
export function postedRegisters(registers: MmioPort, base: bigint, bytes: number, at: number): PostedWrites {
  if (registers.posting === undefined) {
    return { from: base, to: base + BigInt(bytes), every: 0, width: 0, deferrable: false };
  }
  const posting = registers.posting(at);
  if (posting === null) return { from: base, to: base, every: 0, width: 0, deferrable: false };
  const { from, to, every, width, deferrable } = posting;
  return { from: base + BigInt(from), to: base + BigInt(to), every, width, deferrable };
}

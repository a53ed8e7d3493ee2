// Regions of any assigned device: offset bits 63:40 of the device file name the region, the rest is the position in it. Registers are
// accessed in naturally aligned pieces, and mapped as they are.

import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import type { FileMapping } from "../file.ts";

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

/**
 * Registers as mapped by user space: they read all ones and take nothing while the device has none, and after it was closed. (Linux takes the
 * mapping away and ends the access with SIGBUS; all ones is what the bus would give.)
 */
// Not state: it ends with its file.
class MappedRegisters implements MmioPort {
  high = 0;
  readonly #present: () => boolean;
  readonly #registers: MmioPort;
  readonly #start: number;
  readonly #bytes: number;
  closed = false;

  constructor(registers: MmioPort, start: number, bytes: number, present: () => boolean) {
    this.#present = present;
    this.#registers = registers;
    this.#start = start;
    this.#bytes = bytes;
  }

  #reachable(offset: number, size: number): boolean {
    return !this.closed && offset >= 0 && offset + size <= this.#bytes && this.#present();
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (!this.#reachable(offset, size)) {
      this.high = 0xffffffff;
      return size >= 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    }
    const low = this.#registers.mmioRead(this.#start + offset, size);
    if (size === 8) this.high = this.#registers.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (this.#reachable(offset, size)) this.#registers.mmioWrite(this.#start + offset, size, lo, hi);
  }
}

/** A mapping of [start, start + bytes) of a region's registers; `present` is asked at every access. */
export function mapRegisters(registers: MmioPort, start: number, bytes: number, present: () => boolean): FileMapping {
  const mapped = new MappedRegisters(registers, start, bytes, present);
  return {
    registers: mapped,
    close: () => {
      mapped.closed = true;
    },
  };
}

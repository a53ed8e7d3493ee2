// Whole pages of a device's registers, from where they stand: what user space gets when it maps them.

import type { AccessSize, MmioPort } from "../../../base/mmio.ts";

// Not state: the registers are their device's.
export class RegisterPage implements MmioPort {
  high = 0;
  readonly #registers: MmioPort;
  readonly #base: number;
  readonly #bytes: number;

  constructor(registers: MmioPort, base: number, bytes: number) {
    this.#registers = registers;
    this.#base = base;
    this.#bytes = bytes;
  }

  mmioRead(offset: number, size: AccessSize): number {
    this.high = 0;
    if (!this.#holds(offset, size)) return 0;
    const low = this.#registers.mmioRead(this.#base + offset, size);
    this.high = this.#registers.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (this.#holds(offset, size)) this.#registers.mmioWrite(this.#base + offset, size, lo, hi);
  }

  #holds(offset: number, size: number): boolean {
    return offset >= 0 && offset + size <= this.#bytes;
  }
}

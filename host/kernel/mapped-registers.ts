// What mmap of a device's registers gives user space.

import type { AccessSize, MmioPort } from "../base/mmio.ts";
import type { FileMapping } from "./file.ts";

/**
 * Registers as mapped by user space: they read all ones and take nothing while the device has none, and after the mapping was closed: they may be somebody else's by then. (Linux takes the
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

/** A mapping of [start, start + bytes) of a device's registers; `present` is asked at every access. */
export function mapRegisters(registers: MmioPort, start: number, bytes: number, present: () => boolean): FileMapping {
  const mapped = new MappedRegisters(registers, start, bytes, present);
  return {
    registers: mapped,
    close: () => {
      mapped.closed = true;
    },
  };
}

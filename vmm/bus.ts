// The VM's physical address space outside RAM: which device answers a guest's load or store.
//
// Devices claim ranges; an access is dispatched by binary search over at most a few dozen of them, the last hit first. What
// nobody claims reads all ones and swallows writes, as a PC's bus does, and is reported once per page.

import type { AccessSize, MmioPort } from "../host/base/mmio.ts";

export interface BusRange {
  readonly name: string;
  /** Guest-physical base, below 2^53. */
  readonly base: number;
  readonly size: number;
  readonly port: MmioPort;
  /** Name of the register at an offset, for the trace. */
  readonly registerName?: (offset: number) => string;
}

/** Not state: who answers where is wiring, and what is kept is the last access's. */
export class Bus {
  /** High half of the last 8-byte load, unsigned. */
  high = 0;
  /** The range that answered last, for the trace. */
  hit: BusRange | null = null;
  /** Called for an access that nobody answers. */
  onUnclaimed: ((address: number, size: AccessSize, write: boolean) => void) | null = null;
  readonly #ranges: BusRange[] = [];

  get ranges(): readonly BusRange[] {
    return this.#ranges;
  }

  /** Claims [base, base + size). Throws RangeError on an overlap (a bug of whoever built the machine). */
  claim(range: BusRange): void {
    for (const other of this.#ranges) {
      if (range.base < other.base + other.size && other.base < range.base + range.size) {
        throw new RangeError(`${range.name} overlaps ${other.name} on the VM's bus`);
      }
    }
    this.#ranges.push(range);
    this.#ranges.sort((a, b) => a.base - b.base);
    this.hit = null;
  }

  /** Gives up the range that starts at `base`. */
  release(base: number): void {
    const index = this.#ranges.findIndex((range) => range.base === base);
    if (index >= 0) this.#ranges.splice(index, 1);
    this.hit = null;
  }

  /** The range that answers at `address`, or null. */
  find(address: number): BusRange | null {
    const last = this.hit;
    if (last !== null && address >= last.base && address < last.base + last.size) return last;
    let low = 0;
    let high = this.#ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = this.#ranges[middle]!;
      if (address < range.base) high = middle - 1;
      else if (address >= range.base + range.size) low = middle + 1;
      else return range;
    }
    return null;
  }

  /** Naturally aligned load; an unaligned one, or one past its range's end, is answered by nobody. */
  load(address: number, size: AccessSize): number {
    const range = this.find(address);
    if (range === null || (address & (size - 1)) !== 0 || address + size > range.base + range.size) {
      this.hit = null;
      this.onUnclaimed?.(address, size, false);
      this.high = 0xffffffff;
      return size >= 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    }
    if (this.hit !== range) this.hit = range;
    const low = range.port.mmioRead(address - range.base, size);
    if (size === 8) this.high = range.port.high;
    return low;
  }

  store(address: number, size: AccessSize, lo: number, hi: number): void {
    const range = this.find(address);
    if (range === null || (address & (size - 1)) !== 0 || address + size > range.base + range.size) {
      this.hit = null;
      this.onUnclaimed?.(address, size, true);
      return;
    }
    if (this.hit !== range) this.hit = range;
    range.port.mmioWrite(address - range.base, size, lo, hi);
  }
}

// A GICv2m frame (Server Base System Architecture, appendix "GICv2m"): a page of which a store of an interrupt number pulses that interrupt, which is
// how devices' messages reach a GICv2.

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";

const MSI_TYPER = 0x008;
const MSI_SETSPI = 0x040;
const MSI_IIDR = 0xfcc;

export class GicV2mFrame implements MmioPort {
  readonly high = 0;
  readonly #first: number; // not state: wiring
  readonly #count: number; // not state: wiring
  readonly #pulse: (id: number) => void; // not state: wiring

  /** Messages are the interrupts `first` … `first + count − 1`. */
  constructor(first: number, count: number, pulse: (id: number) => void) {
    this.#first = first;
    this.#count = count;
    this.#pulse = pulse;
  }

  /** A device's or a CPU's store. */
  store32(offset: number, value: number): void {
    if (offset !== MSI_SETSPI) return;
    const id = value & 0x3ff;
    if (id >= this.#first && id < this.#first + this.#count) this.#pulse(id);
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (size !== 4) return 0;
    if (offset === MSI_TYPER) return (this.#first << 16) | this.#count;
    return offset === MSI_IIDR ? 0x0200143b : 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 4) this.store32(offset, lo);
  }
}

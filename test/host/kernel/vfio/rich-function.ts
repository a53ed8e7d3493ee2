// A PCI function with more capabilities than the device models have, for what VFIO makes of them: four MSI vectors, MSI-X, Advanced
// Features, Advanced Error Reporting, Downstream Port Containment, PASID with Execute, a serial number. Its registers are one BAR of
// scratch memory; it raises what a test tells it to.

import type { Capability } from "../../../../host/devices/capabilities/capability.ts";
import type { ConfigSpace } from "../../../../host/devices/config-space.ts";
import { PciEndpoint } from "../../../../host/devices/pci-function.ts";
import type { AccessSize, MmioPort } from "../../../../host/devices/ports.ts";

const MSIX_TABLE = 0x2000;

type Fixed = readonly [at: number, size: 1 | 2 | 4, value: number];

/** Registers of `bytes` bytes whose every bit can be written, but for those with a value. */
class PlainCapability implements Capability {
  readonly id: number;
  readonly bytes: number;
  readonly extendedVersion?: number;
  readonly #values: readonly Fixed[];

  constructor(id: number, bytes: number, extended: boolean, values: readonly Fixed[] = []) {
    this.id = id;
    this.bytes = bytes;
    if (extended) this.extendedVersion = 1;
    this.#values = values;
  }

  place(config: ConfigSpace, at: number): void {
    const header = this.extendedVersion === undefined ? 2 : 4;
    for (let i = header; i < this.bytes; i++) config.declare(at + i, 1, { writable: 0xff });
    for (const [offset, size, value] of this.#values) config.declare(at + offset, size, { value });
  }
}

class Memory implements MmioPort {
  high = 0;
  readonly view = new DataView(new ArrayBuffer(0x4000));

  mmioRead(offset: number, size: AccessSize): number {
    if (size === 8) this.high = this.view.getUint32(offset + 4, true);
    return size === 1
      ? this.view.getUint8(offset)
      : size === 2
        ? this.view.getUint16(offset, true)
        : this.view.getUint32(offset, true);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (size === 1) this.view.setUint8(offset, lo);
    else if (size === 2) this.view.setUint16(offset, lo, true);
    else this.view.setUint32(offset, lo, true);
    if (size === 8) this.view.setUint32(offset + 4, hi, true);
  }
}

export class RichFunction extends PciEndpoint {
  readonly registers = new Memory();

  constructor(options: { name: string; interruptPin?: boolean; hiddenFirst?: boolean }) {
    super({ vendorId: 0x1234, deviceId: 0x5678, revision: 1, classCode: 0xff0000, ...options });
    this.addBar(0, { size: 0x4000, kind: "memory64", prefetchable: true, registers: this.registers });
    this.addMsi(4);
    this.addMsix(8, { bar: 0, tableOffset: MSIX_TABLE, pendingOffset: 0x3000 });
    // Advanced Features with FLR; a debug port, which VFIO hides; a vendor's own registers.
    this.addCapability(new PlainCapability(0x13, 6, false, [[3, 1, 3]]));
    this.addCapability(new PlainCapability(0x0a, 4, false));
    this.addCapability(new PlainCapability(0x09, 8, false, [[2, 1, 8]]));
    const pasid = new PlainCapability(0x1b, 8, true, [[4, 2, 6 | (16 << 8)]]);
    if (options.hiddenFirst === true) this.addCapability(pasid);
    this.addCapability(new PlainCapability(0x01, 0x48, true));
    this.addCapability(new PlainCapability(0x1d, 0x10, true));
    if (options.hiddenFirst !== true) this.addCapability(pasid);
    this.addCapability(new PlainCapability(0x03, 12, true));
  }

  message(vector: number): void {
    this.raise(vector);
  }

  level(asserted: boolean): void {
    this.setInterruptLevel(asserted);
  }

  /** Detected Parity Error in the status register. */
  detectParityError(): void {
    this.config.set16(6, this.config.get16(6) | 0x8000);
  }

  protected onReset(): void {}
}

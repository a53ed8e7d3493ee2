// The kernel's IOMMU drivers and the hardware they found. A kind of IOMMU (HardwareIommu.kind) has a factory in the table below; a
// second architecture is a new folder beside riscv/ and one line here.

import type { HardwareIommu } from "../../hw/iommu/port.ts";
import { ENODEV } from "../../uapi/errno.ts";
import type { IommuDevice, IommuDriver } from "./driver.ts";
import { RiscvDriver, type RiscvDriverParts } from "./riscv/driver.ts";

/** An interrupt of an IOMMU's own, as a message. */
export interface HardwareInterrupts {
  readonly requestMessage: ((name: string, handle: () => void) => { address: bigint; data: number } | null) | null;
  readonly defer: (handle: () => void) => void;
}

/** What the kernel needs of a driver to bring hardware up and to place devices behind it. */
export interface IommuHardwareDriver extends IommuDriver {
  addHardware(parts: { readonly hardware: HardwareIommu } & HardwareInterrupts): object | number;
  place(device: IommuDevice, hardware: HardwareIommu): void;
  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number };
}

export type IommuDriverParts = RiscvDriverParts;

const KINDS: Readonly<Record<string, (parts: IommuDriverParts) => IommuHardwareDriver>> = {
  riscv: (parts) => new RiscvDriver(parts),
};

export class IommuHardware {
  readonly #parts: IommuDriverParts;
  readonly #interrupts: HardwareInterrupts;
  readonly #drivers = new Map<string, IommuHardwareDriver>();
  readonly #byHardware = new Map<HardwareIommu, IommuHardwareDriver>();

  constructor(parts: IommuDriverParts, interrupts: HardwareInterrupts) {
    this.#parts = parts;
    this.#interrupts = interrupts;
  }

  /** Probes one IOMMU with the driver of its kind; 0, -ENODEV for a kind without one, or what the driver says. */
  add(hardware: HardwareIommu): number {
    const make = KINDS[hardware.kind];
    if (make === undefined) return -ENODEV;
    const driver = this.#drivers.get(hardware.kind) ?? make(this.#parts);
    this.#drivers.set(hardware.kind, driver);
    const added = driver.addHardware({ hardware, ...this.#interrupts });
    if (typeof added === "number") return added;
    this.#byHardware.set(hardware, driver);
    return 0;
  }

  driverOf(hardware: HardwareIommu): IommuHardwareDriver | null {
    return this.#byHardware.get(hardware) ?? null;
  }

  place(device: IommuDevice, hardware: HardwareIommu): void {
    this.#byHardware.get(hardware)?.place(device, hardware);
  }

  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number } {
    return this.#byHardware.get(hardware)?.limitsOf(hardware) ?? { ats: false, maxPasids: 0 };
  }
}

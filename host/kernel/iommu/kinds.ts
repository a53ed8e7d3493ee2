// The kernel's IOMMU drivers by kind of hardware (HardwareIommu.kind): a folder and a line each.

import type { IommuDriverParts, IommuHardwareDriver } from "./hardware.ts";
import { RiscvDriver } from "./riscv/driver.ts";
import { Smmuv3Driver } from "./smmuv3/driver.ts";

export type DriverKinds = Readonly<Record<string, (parts: IommuDriverParts) => IommuHardwareDriver>>;

export const DRIVER_KINDS: DriverKinds = {
  riscv: (parts) => new RiscvDriver(parts),
  smmuv3: (parts) => new Smmuv3Driver(parts),
};

// The kernel's IOMMU drivers by kind of hardware (HardwareIommu.kind): a folder and a line each.

import type { IommuDriverParts, IommuHardwareDriver } from "./hardware.ts";
import { RiscvDriver } from "./riscv/driver.ts";
import { SMMUV3_DEVIATIONS } from "./smmuv3/deviations.ts";
import { Smmuv3Driver } from "./smmuv3/driver.ts";
import { VTD_DEVIATIONS } from "./vtd/deviations.ts";
import { VtdDriver } from "./vtd/driver.ts";

export type DriverKinds = Readonly<Record<string, (parts: IommuDriverParts) => IommuHardwareDriver>>;

export const DRIVER_KINDS: DriverKinds = {
  riscv: (parts) => new RiscvDriver(parts),
  smmuv3: (parts) => new Smmuv3Driver(parts),
  vtd: (parts) => new VtdDriver(parts),
};

/** What a kind's driver does only if it is told to, because Linux's does not: names (host/kernel/README.md). */
export const DEVIATIONS: Readonly<Record<string, readonly string[]>> = {
  smmuv3: SMMUV3_DEVIATIONS,
  vtd: VTD_DEVIATIONS,
};

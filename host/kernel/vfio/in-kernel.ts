// VFIO for whoever boots a kernel: its drivers and device nodes.

import type { Kernel } from "../kernel.ts";
import { VfioPciDriver } from "./pci-driver.ts";

export type { VfioDevice } from "./device.ts";
export { VfioPciDriver } from "./pci-driver.ts";

/** Registers vfio-pci. */
export function addVfio(kernel: Kernel): VfioPciDriver {
  const driver = new VfioPciDriver(kernel);
  kernel.pci.registerDriver(driver);
  return driver;
}

// vfio-pci: the PCI driver that gives a function to user space (Linux: vfio_pci.c).

import { EINVAL } from "../../../uapi/errno.ts";
import type { Kernel } from "../../kernel.ts";
import type { PciDriver } from "../../pci/pci-bus.ts";
import type { VfioDevices } from "../vfio-devices.ts";
import { VfioPciFunction } from "./function.ts";

export function vfioPci(kernel: Kernel, vfio: VfioDevices, mappableBars: boolean): PciDriver {
  return {
    name: "vfio-pci",
    managesDma: true,
    /** -EINVAL for a function without an IOMMU. */
    probe: (pci) =>
      pci.iommuDevice === null ? -EINVAL : vfio.add(new VfioPciFunction(kernel, pci, pci.iommuDevice, mappableBars)),
    remove: (pci, done) => vfio.remove(pci.iommuDevice, done),
  };
}

// Booting a kernel on a machine: IOMMUs first, then the functions behind them, then what user space can open.
//
//     const { kernel, vfio } = bootKernel({ memory, ram, clock, trace, interruptFiles, iommus: [iommu0], roots: [{ root }] });
//     kernel.pci.bind("0000:01:00.0", "vfio-pci");          /dev/vfio/devices/vfio0 appears (vfio.nodeOf says which)
//     const process = kernel.createProcess("vmm");           system calls
//     process.exit(); kernel.liveObjects                     0

import type { HardwareIommu } from "../hw/iommu/port.ts";
import type { RootComplex } from "../hw/pci/root-complex.ts";
import type { Interconnect } from "../hw/platform/interconnect.ts";
import { ENOMEM, errnoName } from "../uapi/errno.ts";
import { addIommufd, type IommufdOptions } from "./iommufd/in-kernel.ts";
import { Kernel, type KernelParts } from "./kernel.ts";
import type { GroupKey } from "./pci/pci-bus.ts";
import { addVfio, type VfioDevices, type VfioOptions } from "./vfio/in-kernel.ts";

export interface BootParts extends KernelParts {
  readonly iommus: readonly HardwareIommu[];
  /** `groupKey`: functions with the same key share an iommu group; default each its own. */
  readonly roots: readonly { readonly root: RootComplex; readonly groupKey?: GroupKey }[];
  /** Devices on no bus; absent: there are none. */
  readonly interconnect?: Interconnect;
  readonly iommufd?: IommufdOptions;
  readonly vfio?: VfioOptions;
}

export interface BootedKernel {
  readonly kernel: Kernel;
  readonly vfio: VfioDevices;
  /** What went wrong and was gone on without, as a kernel's log: an IOMMU that could not be probed, a device without. */
  readonly problems: readonly string[];
  /** One of them is that there was no memory for it. */
  readonly outOfMemory: boolean;
}

export function bootKernel(parts: BootParts): BootedKernel {
  const kernel = new Kernel(parts);
  const problems: string[] = [];
  let outOfMemory = false;
  const failed = (what: string, errno: number): void => {
    problems.push(`${what} failed: ${errnoName(errno)}`);
    outOfMemory ||= errno === -ENOMEM;
  };
  for (const iommu of parts.iommus) {
    if (!kernel.iommuHardware.knows(iommu.kind)) {
      problems.push(
        `${iommu.name}: this kernel has no driver for a ${iommu.kind} IOMMU; devices behind it are without one`,
      );
      continue;
    }
    const result = kernel.iommuHardware.add(iommu);
    if (result < 0) failed(`${iommu.name}: probing the IOMMU`, result);
  }
  const environment = addIommufd(kernel, parts.iommufd);
  const vfio = addVfio(kernel, environment, parts.vfio);
  for (const { root, groupKey } of parts.roots) {
    const result = kernel.pci.addRootComplex(root, groupKey);
    if (result < 0) failed(`segment ${root.segment}: putting a device behind its IOMMU`, result);
  }
  const found = parts.interconnect === undefined ? 0 : kernel.platform.addInterconnect(parts.interconnect);
  if (found < 0) failed("putting a platform device behind its IOMMU", found);
  return { kernel, vfio, problems, outOfMemory };
}

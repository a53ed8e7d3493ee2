// Booting a kernel on a machine: IOMMUs first, then the functions behind them, then what user space can open.
//
//     const { kernel, vfio } = bootKernel({ memory, ram, clock, trace, interruptFiles, iommus: [iommu0], roots: [{ root }] });
//     kernel.pci.bind("0000:01:00.0", "vfio-pci");          /dev/vfio/devices/vfio0 appears (vfio.nodeOf says which)
//     const process = kernel.createProcess("vmm");           system calls
//     process.exit(); kernel.liveObjects                     0

import type { HardwareIommu } from "../hw/iommu/port.ts";
import type { RootComplex } from "../hw/pci/root-complex.ts";
import { addIommufd, type IommufdOptions } from "./iommufd/in-kernel.ts";
import { Kernel, type KernelParts } from "./kernel.ts";
import type { GroupKey } from "./pci/driver-core.ts";
import { addVfio, type VfioOptions, type VfioPciDriver } from "./vfio/in-kernel.ts";

export interface BootParts extends KernelParts {
  readonly iommus: readonly HardwareIommu[];
  /** `groupKey`: functions with the same key share an iommu group; default each its own. */
  readonly roots: readonly { readonly root: RootComplex; readonly groupKey?: GroupKey }[];
  readonly iommufd?: IommufdOptions;
  readonly vfio?: VfioOptions;
}

export interface BootedKernel {
  readonly kernel: Kernel;
  readonly vfio: VfioPciDriver;
  /** What went wrong and was gone on without, as a kernel's log: an IOMMU that could not be probed, a device without. */
  readonly problems: readonly string[];
}

export function bootKernel(parts: BootParts): BootedKernel {
  const kernel = new Kernel(parts);
  const problems: string[] = [];
  for (const iommu of parts.iommus) {
    const result = kernel.iommuHardware.add(iommu);
    if (result < 0) problems.push(`${iommu.name}: probing the IOMMU failed with errno ${-result}`);
  }
  const environment = addIommufd(kernel, parts.iommufd);
  const vfio = addVfio(kernel, environment, parts.vfio);
  for (const { root, groupKey } of parts.roots) {
    const result = kernel.pci.addRootComplex(root, groupKey);
    if (result < 0) problems.push(`segment ${root.segment}: a device has no IOMMU: errno ${-result}`);
  }
  return { kernel, vfio, problems };
}

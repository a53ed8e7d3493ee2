// VFIO for whoever boots a kernel: its drivers and device nodes.

import type { IommufdEnvironment } from "../iommufd/environment.ts";
import { openIommufd } from "../iommufd/in-kernel.ts";
import type { Kernel } from "../kernel.ts";
import { VfioContainer, VfioContainerFile } from "./container.ts";
import { VfioPciDriver } from "./pci-driver.ts";

export type { VfioDevice } from "./device.ts";
export { VfioPciDriver } from "./pci-driver.ts";

export interface VfioOptions {
  /** Who serves /dev/vfio/vfio: the type1 container, or iommufd (CONFIG_IOMMUFD_VFIO_CONTAINER). Default type1. */
  readonly container?: "type1" | "iommufd";
  /** User space may map BARs (default). Where it cannot share memory with the machine it may not: it reads and writes instead. */
  readonly mappableBars?: boolean;
}

/** Registers vfio-pci and makes /dev/vfio/vfio. */
export function addVfio(kernel: Kernel, iommufd: IommufdEnvironment, options: VfioOptions = {}): VfioPciDriver {
  const driver = new VfioPciDriver(kernel, options.mappableBars ?? true);
  kernel.pci.registerDriver(driver);
  const path = "/dev/vfio/vfio";
  if (options.container === "iommufd") {
    kernel.addNode(path, () => openIommufd(iommufd, path, "memory"));
  } else {
    kernel.addNode(path, () => {
      kernel.live.created("vfio container file");
      const container = new VfioContainer(kernel, iommufd);
      return new VfioContainerFile(container, () => kernel.live.destroyed("vfio container file"));
    });
  }
  return driver;
}

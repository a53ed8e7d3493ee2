// VFIO for whoever boots a kernel: its drivers and device nodes.

import type { IommufdEnvironment } from "../iommufd/environment.ts";
import { openIommufd } from "../iommufd/in-kernel.ts";
import type { Kernel } from "../kernel.ts";
import { VfioContainer, VfioContainerFile } from "./container.ts";
import { vfioPci } from "./pci/vfio-pci.ts";
import { vfioPlatform } from "./platform/vfio-platform.ts";
import { VfioDevices } from "./vfio-devices.ts";

export type { VfioDevice } from "./device.ts";
export { VfioDevices } from "./vfio-devices.ts";

export interface VfioOptions {
  /** Who serves /dev/vfio/vfio: the type1 container, or iommufd (CONFIG_IOMMUFD_VFIO_CONTAINER). Default type1. */
  readonly container?: "type1" | "iommufd";
  /** User space may map registers (default). Where it cannot share memory with the machine it may not: it reads and writes instead. */
  readonly mappableBars?: boolean;
}

/** Registers vfio-pci and vfio-platform, and makes /dev/vfio/vfio. */
export function addVfio(kernel: Kernel, iommufd: IommufdEnvironment, options: VfioOptions = {}): VfioDevices {
  const vfio = new VfioDevices(kernel);
  const mappable = options.mappableBars ?? true;
  kernel.keep("vfio", vfio);
  kernel.pci.registerDriver(vfioPci(kernel, vfio, mappable));
  kernel.platform.registerDriver(vfioPlatform(kernel, vfio, mappable));
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
  return vfio;
}

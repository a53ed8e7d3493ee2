// vfio-platform: the platform driver that gives a device to user space (Linux: vfio_platform.c, vfio_platform_common.c).

import { EINVAL } from "../../../uapi/errno.ts";
import type { Kernel } from "../../kernel.ts";
import type { PlatformDriver } from "../../platform/platform-bus.ts";
import type { VfioDevices } from "../vfio-devices.ts";
import { VfioPlatformDevice } from "./device.ts";

export function vfioPlatform(kernel: Kernel, vfio: VfioDevices, mappable: boolean): PlatformDriver {
  return {
    name: "vfio-platform",
    managesDma: true,
    /** -EINVAL for a device without an IOMMU. That there is a reset function for it (reset_required) is so for all devices here. */
    probe: (device) =>
      device.iommuDevice === null
        ? -EINVAL
        : vfio.add(new VfioPlatformDevice(kernel, device, device.iommuDevice, mappable)),
    remove: (device, done) => vfio.remove(device.iommuDevice, done),
  };
}

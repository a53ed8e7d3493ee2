// Names of ioctl requests, for counters and traces of whoever makes the calls.

import { IOMMUFD_IOCTLS } from "./iommufd.ts";
import * as vfio from "./vfio.ts";
import { VFIO_CONTAINER_IOCTLS, VFIO_GROUP_IOCTLS } from "./vfio-container.ts";

const names = new Map<number, string>();
for (const [request, { name }] of IOMMUFD_IOCTLS) names.set(request, name);
for (const [name, value] of Object.entries(vfio)) {
  // Requests, among the constants: all are _IO(';', 100 and up).
  if (typeof value === "number" && name.startsWith("VFIO_") && value >= 0x3b00 + 100 && value < 0x3b00 + 200) {
    if (!IOMMUFD_IOCTLS.has(value)) names.set(value, name);
  }
}

/** "IOMMU_HWPT_ALLOC"; "ioctl 0x3b99" for a request without a name here. */
export function ioctlName(request: number): string {
  return names.get(request) ?? `ioctl 0x${request.toString(16)}`;
}

/** Every request of iommufd, and of VFIO's devices, groups and containers, by name. */
export const IOCTL_NAMES: ReadonlySet<string> = new Set([
  ...names.values(),
  ...VFIO_CONTAINER_IOCTLS.values(),
  ...VFIO_GROUP_IOCTLS.values(),
]);

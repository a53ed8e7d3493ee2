// What the driver keeps for a device (Linux: dev_iommu->priv), and the one way a device changes domains.

import { EINVAL } from "../../../uapi/errno.ts";
import type { IommuDevice, IommuDomain } from "../driver.ts";
import type { Context } from "./context-switch.ts";
import type { RiscvIommu } from "./instance.ts";

export interface DeviceData {
  readonly iommu: RiscvIommu;
  /** The domain attached now, as this driver sees it. */
  domain: RiscvDomain | null;
  /** Page requests were asked for by the core. */
  pageRequests: boolean;
}

/** A domain of this driver: is told who uses it. */
export interface RiscvDomain extends IommuDomain {
  deviceJoined(device: IommuDevice): void;
  deviceLeft(device: IommuDevice): void;
  contextFor(data: DeviceData): Context | number;
}

export function deviceDataOf(device: IommuDevice): DeviceData {
  return device.driverData as DeviceData;
}

/**
 * Writes the context, then moves the device's membership: the new domain is told before the switch, so that an unmap between both
 * would reach the device's caches, the old one after it (it flushes its tag when its last device leaves).
 */
export function moveDevice(device: IommuDevice, to: RiscvDomain, _old: IommuDomain | null, context: Context): number {
  const data = deviceDataOf(device);
  const from = data.domain;
  if (data.iommu.devices.get(device.deviceId) !== device) return -EINVAL;
  to.deviceJoined(device);
  const result = data.iommu.switchContext(device.deviceId, context);
  if (result < 0) {
    if (from !== to) to.deviceLeft(device);
    return result;
  }
  data.domain = to;
  if (from !== null && from !== to) from.deviceLeft(device);
  return 0;
}

// A host device that is to be a guest's: where, behind which vIOMMU, and with whom it shares its iommu group.

import { formatPlace, type PciPlace } from "./pci/host-bridge.ts";

/** What there is to say of any host device, as an administrator would read it in sysfs. */
export interface HostDeviceRequest {
  /** Path of the VFIO cdev. */
  readonly path: string;
  /** "0000:00:01.0", "edu0". */
  readonly hostName: string;
  /** Host's name of the IOMMU the device is behind. */
  readonly iommu: string;
  /** Its iommu group's number, and the other devices of that, with the paths of their cdevs (null: VFIO does not have it). */
  readonly group: number;
  readonly groupOthers: readonly { readonly hostName: string; readonly path: () => string | null }[];
  /** Puts the device behind a vIOMMU of its own choosing instead of its IOMMU's: devices with equal names share one. */
  readonly viommu?: string;
}

/** A PCI function, to be one of the guest's. */
export interface AssignmentRequest extends HostDeviceRequest, PciPlace {}

/** A platform device, to be the guest's under an id of its own at its vIOMMU. */
export interface PlatformRequest extends HostDeviceRequest {
  readonly guestId: number;
  /** What firmware calls it (device tree: compatible). */
  readonly compatible: string;
  /** The host's firmware says that its transactions can wait (device tree: dma-can-stall). */
  readonly canStall: boolean;
}

/** "0x400": how a guest's platform device is called, which has no place but an id. */
export function formatDeviceId(guestId: number): string {
  return `0x${guestId.toString(16)}`;
}

/** "00:02.0", "0x400": the device in the guest. */
export function guestNameOf(request: AssignmentRequest | PlatformRequest): string {
  return "guestId" in request ? formatDeviceId(request.guestId) : formatPlace(request);
}

/** "iommu group 3 (0000:00:01.0, 0000:00:02.0)". */
export function groupName({ hostName, group, groupOthers }: HostDeviceRequest): string {
  const members = [hostName, ...groupOthers.map((other) => other.hostName)].sort();
  return `iommu group ${group} (${members.join(", ")})`;
}

/** How messages of the host's refusals name a device: a group that somebody else owns is the likely reason. */
export function nameInGroup(request: HostDeviceRequest): string {
  return request.groupOthers.length === 0 ? request.hostName : `${request.hostName} of ${groupName(request)}`;
}

/** What tells the streams of a vIOMMU apart; undefined for a device alone. */
export function streamOf(request: HostDeviceRequest): string | undefined {
  return request.groupOthers.length === 0 ? undefined : groupName(request);
}

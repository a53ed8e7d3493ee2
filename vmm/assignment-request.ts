// A host device that is to be a guest's: where, behind which vIOMMU, and with whom it shares its iommu group.

import type { PciPlace } from "./pci/host-bridge.ts";

export interface AssignmentRequest extends PciPlace {
  /** Path of the VFIO cdev. */
  readonly path: string;
  /** "0000:00:01.0". */
  readonly hostName: string;
  /** Host's name of the IOMMU the device is behind. */
  readonly iommu: string;
  /** Its iommu group's number, and the other devices of that, with the paths of their cdevs (null: VFIO does not have it). */
  readonly group: number;
  readonly groupOthers: readonly { readonly hostName: string; readonly path: () => string | null }[];
  /** Puts the device behind a vIOMMU of its own choosing instead of its IOMMU's: devices with equal names share one. */
  readonly viommu?: string;
}

/** "iommu group 3 (0000:00:01.0, 0000:00:02.0)". */
export function groupName({ hostName, group, groupOthers }: AssignmentRequest): string {
  const members = [hostName, ...groupOthers.map((other) => other.hostName)].sort();
  return `iommu group ${group} (${members.join(", ")})`;
}

/** How messages of the host's refusals name a device: a group that somebody else owns is the likely reason. */
export function nameInGroup(request: AssignmentRequest): string {
  return request.groupOthers.length === 0 ? request.hostName : `${request.hostName} of ${groupName(request)}`;
}

/** What tells the streams of a vIOMMU apart; undefined for a device alone. */
export function streamOf(request: AssignmentRequest): string | undefined {
  return request.groupOthers.length === 0 ? undefined : groupName(request);
}

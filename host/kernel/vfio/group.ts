// A VFIO group: the devices of one iommu group that are bound to vfio-pci, as /dev/vfio/$GROUP shows them (Linux: vfio/group.c).
//
// The group's own file and the devices' nodes exclude each other: while a device of it is bound through its node the group cannot
// be opened, and while the group is open no device can be bound. The group's file and its container: group-file.ts.

import { EBUSY } from "../../uapi/errno.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { VfioDevice } from "./device.ts";

export class VfioGroup {
  readonly iommuGroup: IommuGroup;
  readonly devices = new Set<VfioDevice>();
  /** The group's file is open (it can be once). */
  opened = false;
  #cdevs = 0;

  constructor(iommuGroup: IommuGroup) {
    this.iommuGroup = iommuGroup;
  }

  /** A device is being bound through its node: -EBUSY while the group is open (vfio_device_block_group). */
  blockForCdev(): number {
    if (this.opened) return -EBUSY;
    this.#cdevs++;
    return 0;
  }

  unblock(): void {
    this.#cdevs--;
  }

  /** Devices bound through their nodes. */
  get boundByNode(): number {
    return this.#cdevs;
  }
}

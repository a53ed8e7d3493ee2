// The devices that user space may have (Linux: drivers/vfio/vfio_main.c, group.c): those which a driver of their bus gave to VFIO. Each has its
// node, /dev/vfio/devices/vfioN, and the first of an iommu group makes /dev/vfio/$GROUP.
//
// A bus's driver (vfio-pci, vfio-platform) manages DMA ownership itself: binding claims nothing, the claim comes with user space's own
// (BIND_IOMMUFD, or the group's container).

import type { Stateful, StateRecord } from "../../base/state.ts";
import { EBUSY, EINVAL, ENODEV } from "../../uapi/errno.ts";
import type { IommuDevice } from "../iommu/driver.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { Kernel } from "../kernel.ts";
import { VfioDevice } from "./device.ts";
import { VfioDeviceFile } from "./device-file.ts";
import type { VfioDeviceOperations } from "./device-operations.ts";
import { VfioGroup } from "./group.ts";
import { VfioGroupFile } from "./group-file.ts";

export class VfioDevices implements Stateful {
  readonly #kernel: Kernel;
  readonly #groups = new Map<IommuGroup, VfioGroup>();
  readonly #devices = new Map<IommuDevice, VfioDevice>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** In the order in which they came. */
  get devices(): readonly VfioDevice[] {
    return [...this.#devices.values()];
  }

  /** Path of a device's node, null if VFIO does not have the device. */
  nodeOf(name: string): string | null {
    const device = this.devices.find((known) => known.name === name);
    return device === undefined ? null : nodePath(device);
  }

  /** Path of the group's node of a device, null if VFIO does not have the device. */
  groupNodeOf(name: string): string | null {
    const device = this.devices.find((known) => known.name === name);
    return device === undefined ? null : groupPath(device.group);
  }

  /** A bus's driver gives a device: -EINVAL for one whose IOMMU does not keep DMA coherent. */
  add(operations: VfioDeviceOperations): number {
    const { iommu } = this.#kernel;
    const { iommuDevice } = operations;
    const driver = iommu.driverOf(iommuDevice);
    const iommuGroup = iommu.groupOf(iommuDevice);
    if (driver === null || iommuGroup === null || !driver.capable(iommuDevice, "CACHE_COHERENCY")) return -EINVAL;
    const group = this.#groups.get(iommuGroup) ?? this.#newGroup(iommuGroup);
    const device = new VfioDevice(this.#kernel, operations, group, this.#freeNumber());
    this.#devices.set(iommuDevice, device);
    group.devices.add(device);
    this.#kernel.addNode(nodePath(device), () => this.#open(device));
    return 0;
  }

  /** A bus's driver takes a device back: true at once, or `done` is called when user space has let go of it. */
  remove(iommuDevice: IommuDevice | null, done: () => void): boolean {
    const device = iommuDevice === null ? undefined : this.#devices.get(iommuDevice);
    if (iommuDevice === null || device === undefined) return true;
    this.#kernel.removeNode(nodePath(device));
    const forget = () => {
      this.#devices.delete(iommuDevice);
      device.group.devices.delete(device);
      const { group } = device;
      if (group.devices.size > 0) return;
      this.#groups.delete(group.iommuGroup!);
      this.#kernel.removeNode(groupPath(group));
      group.lastDeviceGone();
    };
    const gone = device.remove(() => {
      forget();
      done();
    });
    if (gone) forget();
    return gone;
  }

  #newGroup(iommuGroup: IommuGroup): VfioGroup {
    const group = new VfioGroup(iommuGroup);
    this.#groups.set(iommuGroup, group);
    this.#kernel.addNode(groupPath(group), () => this.#openGroup(group));
    return group;
  }

  /** -EBUSY when it is open already or a device of it is bound through its node; -ENODEV when no device is left. */
  #openGroup(group: VfioGroup): VfioGroupFile | number {
    if (group.devices.size === 0) return -ENODEV;
    if (group.openedFile !== null || group.boundByNode > 0) return -EBUSY;
    return new VfioGroupFile(groupPath(group), group, this.#kernel.live);
  }

  #open(device: VfioDevice): VfioDeviceFile | number {
    const opened = device.fileOpened();
    if (opened < 0) return -ENODEV;
    return new VfioDeviceFile(nodePath(device), device, false);
  }

  #freeNumber(): number {
    const used = new Set(this.devices.map((device) => device.number));
    let number = 0;
    while (used.has(number)) number++;
    return number;
  }

  // --- state: groups and devices must be the same ---

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const group of this.#groups.values()) yield [`group ${group.id}`, group];
    for (const device of this.#devices.values()) yield [device.name, device];
  }
}

function nodePath(device: VfioDevice): string {
  return `/dev/vfio/devices/vfio${device.number}`;
}

function groupPath(group: VfioGroup): string {
  return `/dev/vfio/${group.id}`;
}

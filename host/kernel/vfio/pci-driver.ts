// vfio-pci: the PCI driver that gives a function to user space (Linux: vfio_pci.c). It manages DMA ownership itself: binding claims
// nothing, the claim comes with user space's own (BIND_IOMMUFD, or the group's container).
//
// Binding makes /dev/vfio/devices/vfioN and, for the first function of an iommu group, /dev/vfio/$GROUP.

import type { Stateful, StateRecord } from "../../base/state.ts";
import { EBUSY, EINVAL, ENODEV } from "../../uapi/errno.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { Kernel } from "../kernel.ts";
import type { PciDriver } from "../pci/driver-core.ts";
import type { PciDevice } from "../pci/pci-device.ts";
import { VfioDevice } from "./device.ts";
import { VfioDeviceFile } from "./device-file.ts";
import { VfioGroup } from "./group.ts";
import { VfioGroupFile } from "./group-file.ts";

export class VfioPciDriver implements PciDriver, Stateful {
  readonly name = "vfio-pci";
  readonly managesDma = true;
  readonly kept = this;
  readonly #kernel: Kernel;
  readonly #mappableBars: boolean; // not state: as it was configured
  readonly #groups = new Map<IommuGroup, VfioGroup>();
  readonly #devices = new Map<PciDevice, VfioDevice>();

  constructor(kernel: Kernel, mappableBars = true) {
    this.#kernel = kernel;
    this.#mappableBars = mappableBars;
  }

  /** Devices bound to it. */
  get devices(): readonly VfioDevice[] {
    return [...this.#devices.values()];
  }

  /** Path of a device's node, null if vfio-pci does not have the device. */
  nodeOf(name: string): string | null {
    const device = this.devices.find((known) => known.name === name);
    return device === undefined ? null : nodePath(device);
  }

  /** Path of the group's node of a device, null if vfio-pci does not have the device. */
  groupNodeOf(name: string): string | null {
    const device = this.devices.find((known) => known.name === name);
    return device === undefined ? null : groupPath(device.group);
  }

  /** -EINVAL for a device without an IOMMU or whose IOMMU does not keep DMA coherent. */
  probe(pci: PciDevice): number {
    const { iommu } = this.#kernel;
    const { iommuDevice } = pci;
    const driver = iommuDevice === null ? null : iommu.driverOf(iommuDevice);
    const iommuGroup = iommuDevice === null ? null : iommu.groupOf(iommuDevice);
    if (iommuDevice === null || driver === null || iommuGroup === null) return -EINVAL;
    if (!driver.capable(iommuDevice, "CACHE_COHERENCY")) return -EINVAL;
    const group = this.#groups.get(iommuGroup) ?? this.#newGroup(iommuGroup);
    const device = new VfioDevice(this.#kernel, pci, iommuDevice, group, this.#freeNumber(), this.#mappableBars);
    this.#devices.set(pci, device);
    group.devices.add(device);
    pci.driverData = device;
    this.#kernel.addNode(nodePath(device), () => this.#open(device));
    return 0;
  }

  remove(pci: PciDevice, done: () => void): boolean {
    const device = this.#devices.get(pci);
    if (device === undefined) return true;
    this.#kernel.removeNode(nodePath(device));
    const forget = () => {
      this.#devices.delete(pci);
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

// Functions found on the root complexes (Linux: drivers/pci), as devices of the driver core (../driver-core.ts).

import type { PciSlot, RootComplex } from "../../hw/pci/root-complex.ts";
import { Bus, type Driver } from "../driver-core.ts";
import type { IommuCore } from "../iommu/core.ts";
import type { IommuHardware } from "../iommu/hardware.ts";
import { PciDevice, PciIommuDevice } from "./pci-device.ts";

export type PciDriver = Driver<PciDevice>;

export type GroupKey = (slot: PciSlot) => string | null;

export class PciBus extends Bus<PciDevice> {
  readonly #hardware: IommuHardware;

  constructor(iommu: IommuCore, hardware: IommuHardware) {
    super(iommu);
    this.#hardware = hardware;
  }

  /**
   * Enumerates a root complex and follows its plugs and unplugs. `groupKey` says which functions share an iommu group (same key);
   * null: one of its own. Returns the first error of a function's IOMMU probing, 0 if all went well.
   */
  addRootComplex(root: RootComplex, groupKey: GroupKey = () => null): number {
    let result = 0;
    for (const slot of root.slots) {
      const added = this.#add(slot, groupKey);
      if (added < 0 && result === 0) result = added;
    }
    root.onPlug = (slot) => this.#add(slot, groupKey);
    root.onUnplug = (slot) => this.unplugged(slot.name);
    return result;
  }

  #add(slot: PciSlot, groupKey: GroupKey): number {
    let iommuDevice: PciIommuDevice | null = null;
    let result = 0;
    if (slot.iommu !== null && this.#hardware.driverOf(slot.iommu) !== null) {
      iommuDevice = new PciIommuDevice(slot, this.#hardware.limitsOf(slot.iommu));
      this.#hardware.place(iommuDevice, slot.iommu);
      result = this.iommu.addDevice(iommuDevice, this.#hardware.driverOf(slot.iommu)!, groupKey(slot));
      // Linux: a device that its IOMMU driver refuses has no group, and VFIO does not take it.
      if (result < 0) iommuDevice = null;
    }
    this.added(new PciDevice(slot, iommuDevice));
    return result;
  }
}

/** pci-stub: binds to anything, does nothing, leaves the group to whoever claims it. */
export const PCI_STUB: PciDriver = {
  name: "pci-stub",
  managesDma: true,
  probe: () => 0,
  remove: () => true,
};

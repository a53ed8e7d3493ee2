// The driver core for PCI (Linux: drivers/base/dd.c and pci-driver.c): functions found on the root complexes, drivers bound to them
// by name, and the DMA ownership that binding implies.
//
//     bind    claim the group's DMA for kernel drivers (unless the driver manages DMA itself) → probe → on failure give it back
//     unbind  remove (which may have to wait for users) → give it back
//
// A driver with `managesDma` (vfio-pci, pci-stub) takes no part in ownership: what it does with the device's DMA it claims later,
// for its user.

import type { Stateful, StateRecord } from "../../base/state.ts";
import type { PciSlot, RootComplex } from "../../hw/pci/root-complex.ts";
import { EBUSY, ENODEV } from "../../uapi/errno.ts";
import type { IommuCore } from "../iommu/core.ts";
import type { IommuHardware } from "../iommu/hardware.ts";
import { PciDevice, PciIommuDevice } from "./pci-device.ts";

export interface PciDriver {
  readonly name: string;
  /** Linux: driver_managed_dma. */
  readonly managesDma: boolean;
  /** What it keeps of its devices; absent: nothing. */
  readonly kept?: Stateful;
  /** Takes the device over; 0 or a negated errno. */
  probe(device: PciDevice): number;
  /**
   * Gives it up. True: done. False: it waits for users it has told, and calls `done` when the last has gone.
   */
  remove(device: PciDevice, done: () => void): boolean;
}

export type GroupKey = (slot: PciSlot) => string | null;

export class PciBus implements Stateful {
  readonly #iommu: IommuCore;
  readonly #hardware: IommuHardware;
  readonly #drivers = new Map<string, PciDriver>();
  readonly #devices = new Map<string, PciDevice>();
  /** Pulled out while an unbind waits: what is left to do when that is over. */
  readonly #afterRemoval = new Map<PciDevice, () => void>(); // not state: unbinding that waits is the same

  constructor(iommu: IommuCore, hardware: IommuHardware) {
    this.#iommu = iommu;
    this.#hardware = hardware;
  }

  /** By name, ascending. */
  get devices(): readonly PciDevice[] {
    return [...this.#devices.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  device(name: string): PciDevice | null {
    return this.#devices.get(name) ?? null;
  }

  get drivers(): readonly string[] {
    return [...this.#drivers.keys()].sort();
  }

  registerDriver(driver: PciDriver): void {
    this.#drivers.set(driver.name, driver);
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
    root.onUnplug = (slot) => this.#unplugged(slot);
    return result;
  }

  #add(slot: PciSlot, groupKey: GroupKey): number {
    let iommuDevice: PciIommuDevice | null = null;
    let result = 0;
    if (slot.iommu !== null && this.#hardware.driverOf(slot.iommu) !== null) {
      iommuDevice = new PciIommuDevice(slot, this.#hardware.limitsOf(slot.iommu));
      this.#hardware.place(iommuDevice, slot.iommu);
      result = this.#iommu.addDevice(iommuDevice, this.#hardware.driverOf(slot.iommu)!, groupKey(slot));
      // Linux: a device that its IOMMU driver refuses has no group, and VFIO does not take it.
      if (result < 0) iommuDevice = null;
    }
    this.#devices.set(slot.name, new PciDevice(slot, iommuDevice));
    return result;
  }

  /** Surprise removal: accesses give all ones from now on; the driver is unbound and may wait for its users. */
  #unplugged(slot: PciSlot): void {
    const device = this.#devices.get(slot.name);
    if (device === undefined) return;
    device.gone = true;
    this.#devices.delete(slot.name);
    const forget = () => {
      if (device.iommuDevice !== null) this.#iommu.removeDevice(device.iommuDevice);
    };
    if (device.driver === null) forget();
    else this.#remove(device, forget);
  }

  /**
   * Binds a driver by name. -ENODEV without such a device or driver, -EBUSY when it has a driver or user space owns its group
   * (and the driver does not manage DMA itself), else what the driver's probe says.
   */
  bind(deviceName: string, driverName: string): number {
    const device = this.#devices.get(deviceName);
    const driver = this.#drivers.get(driverName);
    if (device === undefined || driver === undefined) return -ENODEV;
    if (device.driver !== null) return -EBUSY;
    const group = device.iommuDevice === null ? null : this.#iommu.groupOf(device.iommuDevice);
    if (!driver.managesDma && group !== null) {
      const claimed = group.useDefaultDomain();
      if (claimed < 0) return claimed;
    }
    const probed = driver.probe(device);
    if (probed < 0) {
      if (!driver.managesDma) group?.unuseDefaultDomain();
      return probed;
    }
    device.driver = driver;
    return 0;
  }

  /**
   * Unbinds the device's driver. 0: done. 1: users were told and it waits for the last to go. -ENODEV: no such device, no driver, or
   * unbinding already.
   */
  unbind(deviceName: string): number {
    const device = this.#devices.get(deviceName);
    if (device === undefined || device.driver === null || device.removing) return -ENODEV;
    return this.#remove(device, () => {}) ? 0 : 1;
  }

  #remove(device: PciDevice, then: () => void): boolean {
    const driver = device.driver!;
    const finish = () => {
      device.removing = false;
      device.driver = null;
      device.driverData = null;
      if (!driver.managesDma && device.iommuDevice !== null) {
        this.#iommu.groupOf(device.iommuDevice)?.unuseDefaultDomain();
      }
      then();
    };
    if (device.removing) {
      this.#afterRemoval.set(device, then);
      return false;
    }
    device.removing = true;
    const done = driver.remove(device, () => {
      finish();
      this.#afterRemoval.get(device)?.();
      this.#afterRemoval.delete(device);
    });
    if (done) finish();
    return done;
  }

  // --- state: functions and their drivers must be the same ---

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const device of this.devices) yield [device.name, device];
    for (const [name, { kept }] of this.#drivers) if (kept !== undefined) yield [`driver ${name}`, kept];
  }
}

/** pci-stub: binds to anything, does nothing, leaves the group to whoever claims it. */
export const PCI_STUB: PciDriver = {
  name: "pci-stub",
  managesDma: true,
  probe: () => 0,
  remove: () => true,
};

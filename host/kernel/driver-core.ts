// The driver core (Linux: drivers/base/dd.c): devices of a bus, drivers bound to them by name, and the DMA ownership that binding implies.
// One bus a kind of device: pci/pci-bus.ts, platform/platform-bus.ts.
//
//     bind    claim the group's DMA for kernel drivers (unless the driver manages DMA itself) → probe → on failure give it back
//     unbind  remove (which may have to wait for users) → give it back
//
// A driver with `managesDma` (vfio-pci, vfio-platform, pci-stub) takes no part in ownership: what it does with the device's DMA it claims later,
// for its user.

import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import { EBUSY, ENODEV } from "../uapi/errno.ts";
import type { IommuCore } from "./iommu/core.ts";
import type { IommuDevice } from "./iommu/driver.ts";
import { requireText } from "./same-objects.ts";

/** A device as the driver core knows it (Linux: struct device). */
export abstract class BusDevice<Self extends BusDevice<Self>> implements Stateful {
  /** "0000:01:00.0", "edu0". */
  abstract readonly name: string;
  /** null: not behind an IOMMU. */
  abstract readonly iommuDevice: IommuDevice | null;
  driver: Driver<Self> | null = null;
  /** Unbinding has begun and waits for its users. */
  removing = false;
  /** It was pulled out. */
  gone = false;

  /** Drivers are bound as the document says; what they wait for, when unbinding, is theirs. */
  saveState(): StateRecord {
    return { driver: this.driver?.name ?? "none", removing: this.removing, gone: this.gone };
  }

  restoreState(state: StateReader): void {
    requireText(state, "driver", this.driver?.name ?? "none");
    if (state.boolean("removing") !== this.removing) state.fail("removing", "is not so here");
    this.gone = state.boolean("gone");
  }
}

export interface Driver<Device> {
  readonly name: string;
  /** Linux: driver_managed_dma. */
  readonly managesDma: boolean;
  /** Takes the device over; 0 or a negated errno. */
  probe(device: Device): number;
  /**
   * Gives it up. True: done. False: it waits for users it has told, and calls `done` when the last has gone.
   */
  remove(device: Device, done: () => void): boolean;
}

export abstract class Bus<Device extends BusDevice<Device>> implements Stateful {
  protected readonly iommu: IommuCore;
  readonly #drivers = new Map<string, Driver<Device>>(); // not state: registered at boot
  readonly #devices = new Map<string, Device>();
  /** Pulled out while an unbind waits: what is left to do when that is over. */
  readonly #afterRemoval = new Map<Device, () => void>(); // not state: unbinding that waits is the same

  constructor(iommu: IommuCore) {
    this.iommu = iommu;
  }

  /** By name, ascending. */
  get devices(): readonly Device[] {
    return [...this.#devices.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  device(name: string): Device | null {
    return this.#devices.get(name) ?? null;
  }

  get drivers(): readonly string[] {
    return [...this.#drivers.keys()].sort();
  }

  registerDriver(driver: Driver<Device>): void {
    this.#drivers.set(driver.name, driver);
  }

  /** A device was found. */
  protected added(device: Device): void {
    this.#devices.set(device.name, device);
  }

  /** Surprise removal: accesses give all ones from now on; the driver is unbound and may wait for its users. */
  protected unplugged(name: string): void {
    const device = this.#devices.get(name);
    if (device === undefined) return;
    device.gone = true;
    this.#devices.delete(name);
    const forget = () => {
      if (device.iommuDevice !== null) this.iommu.removeDevice(device.iommuDevice);
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
    const group = device.iommuDevice === null ? null : this.iommu.groupOf(device.iommuDevice);
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

  #remove(device: Device, then: () => void): boolean {
    const driver = device.driver!;
    const finish = () => {
      device.removing = false;
      device.driver = null;
      if (!driver.managesDma && device.iommuDevice !== null) {
        this.iommu.groupOf(device.iommuDevice)?.unuseDefaultDomain();
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

  // --- state: devices and their drivers must be the same ---

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const device of this.devices) yield [device.name, device];
  }
}

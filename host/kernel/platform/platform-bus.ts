// Devices on no bus (Linux: drivers/base/platform.c): what firmware describes, as devices of the driver core (../driver-core.ts). Each has an
// iommu group of its own (generic_device_group); whether its DMA may stall is firmware's word (dma-can-stall).

import type { Interconnect, PlatformSlot } from "../../hw/platform/interconnect.ts";
import { Bus, BusDevice, type Driver } from "../driver-core.ts";
import { DeviceAttachments } from "../iommu/attachments.ts";
import type { IommuCore } from "../iommu/core.ts";
import type { IommuDevice } from "../iommu/driver.ts";
import type { IommuHardware } from "../iommu/hardware.ts";

export type PlatformDriver = Driver<PlatformDevice>;

/** A platform device behind an IOMMU, as the iommu core and drivers see it. */
// Not state: what its IOMMU's driver keeps for it is the driver's.
class PlatformIommuDevice implements IommuDevice {
  readonly name: string;
  readonly deviceId: number;
  readonly canStall: boolean;
  readonly maxPasids = 0;
  readonly hasAts = false;
  readonly hasPri = false;
  readonly isVirtualFunction = false;
  readonly attachments = new DeviceAttachments();
  driverData: unknown = null;

  constructor({ name, deviceId, canStall }: PlatformSlot) {
    this.name = name;
    this.deviceId = deviceId;
    this.canStall = canStall;
  }
}

/** A platform device as the kernel knows it (Linux: struct platform_device). */
export class PlatformDevice extends BusDevice<PlatformDevice> {
  readonly slot: PlatformSlot;
  readonly name: string;
  readonly iommuDevice: IommuDevice | null;

  constructor(slot: PlatformSlot, iommuDevice: IommuDevice | null) {
    super();
    this.slot = slot;
    this.name = slot.name;
    this.iommuDevice = iommuDevice;
  }

  /** What firmware calls it (device tree: compatible). */
  get compatible(): string {
    return this.slot.endpoint.compatible;
  }

  /** By the reset function that there is for devices of its kind. */
  reset(): void {
    if (!this.gone) this.slot.endpoint.reset();
  }
}

export class PlatformBus extends Bus<PlatformDevice> {
  readonly #hardware: IommuHardware;

  constructor(iommu: IommuCore, hardware: IommuHardware) {
    super(iommu);
    this.#hardware = hardware;
  }

  /**
   * Takes the devices that firmware describes, and follows those that come and go. The first error of a device's IOMMU probing, 0 if all
   * went well.
   */
  addInterconnect(interconnect: Interconnect): number {
    let result = 0;
    for (const slot of interconnect.slots) {
      const added = this.#add(slot);
      if (added < 0 && result === 0) result = added;
    }
    interconnect.onPlug = (slot) => this.#add(slot);
    interconnect.onUnplug = ({ name }) => this.unplugged(name);
    return result;
  }

  #add(slot: PlatformSlot): number {
    const driver = slot.iommu === null ? null : this.#hardware.driverOf(slot.iommu);
    let iommuDevice: IommuDevice | null = null;
    let result = 0;
    if (slot.iommu !== null && driver !== null) {
      iommuDevice = new PlatformIommuDevice(slot);
      this.#hardware.place(iommuDevice, slot.iommu);
      result = this.iommu.addDevice(iommuDevice, driver);
      if (result < 0) iommuDevice = null;
    }
    this.added(new PlatformDevice(slot, iommuDevice));
    return result;
  }
}

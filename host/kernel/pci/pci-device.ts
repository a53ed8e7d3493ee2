// A PCI function as the kernel knows it (Linux: struct pci_dev): its slot, its place behind an IOMMU, its driver, and the services
// that drivers share: bus mastering, reset, ATS/PRI/PASID.

import type { PciFunction } from "../../devices/ports.ts";
import type { PciSlot } from "../../hw/pci/root-complex.ts";
import { BusDevice } from "../driver-core.ts";
import { DeviceAttachments } from "../iommu/attachments.ts";
import type { IommuDevice, IommuTranslationServices } from "../iommu/driver.ts";
import {
  CAP_EXPRESS,
  CAP_POWER,
  COMMAND_MASTER,
  COMMAND_MEMORY,
  D0,
  D3HOT,
  EXT_CAP_ATS,
  EXT_CAP_PASID,
  EXT_CAP_PRI,
  findCapability,
  findExtendedCapability,
  PCI_BAR0,
  PCI_COMMAND,
  PCI_INTERRUPT_LINE,
  POWER_CONTROL,
  POWER_STATE,
} from "./config-access.ts";

const ATS_CONTROL = 6;
const ATS_ENABLE = 0x8000;
const PRI_CONTROL = 4;
const PRI_ALLOCATION = 12;
const PRI_CAPACITY = 8;
const PASID_CAPABILITY = 4;
const PASID_CONTROL = 6;
/** Execute Permission and Privileged Mode stand at the same bits of capability and control (PCIe 6.0 §7.8.9). */
const PASID_ENABLE = 1;
const PASID_EXECUTE = 2;
const PASID_PRIVILEGED = 4;
const EXPRESS_DEVICE_CAPABILITIES = 4;
const EXPRESS_DEVICE_CONTROL = 8;
const EXPRESS_DEVICE_CONTROL_2 = 0x28;
const CACHE_LINE = 0x0c;
/** Cleared by writing 1. */
const PME_STATUS = 0x8000;
const FUNCTION_LEVEL_RESET = 1 << 28;
const INITIATE_FUNCTION_LEVEL_RESET = 1 << 15;

/** What the IOMMU in front of a function lets it do. */
export interface TranslationLimits {
  readonly ats: boolean;
  /** 0: no PASIDs. */
  readonly maxPasids: number;
}

/** A function behind an IOMMU, as the iommu core and drivers see it. */
// Not state: what its IOMMU's driver keeps for it is the driver's.
export class PciIommuDevice implements IommuDevice {
  readonly name: string;
  readonly deviceId: number;
  readonly maxPasids: number;
  readonly pasidExecutes: boolean;
  readonly pasidPrivileged: boolean;
  readonly hasAts: boolean;
  readonly hasPri: boolean;
  readonly isVirtualFunction = false;
  readonly services: IommuTranslationServices;
  readonly attachments = new DeviceAttachments();
  driverData: unknown = null;

  constructor(slot: PciSlot, limits: TranslationLimits) {
    const pci = slot.function;
    const ats = findExtendedCapability(pci, EXT_CAP_ATS);
    const pri = findExtendedCapability(pci, EXT_CAP_PRI);
    const pasid = findExtendedCapability(pci, EXT_CAP_PASID);
    this.name = slot.name;
    this.deviceId = slot.deviceId;
    this.hasAts = ats !== 0 && limits.ats;
    this.hasPri = pri !== 0 && this.hasAts;
    const width = pasid === 0 ? 0 : (pci.configRead(pasid + PASID_CAPABILITY, 2) >> 8) & 0x1f;
    const features = pasid === 0 ? 0 : pci.configRead(pasid + PASID_CAPABILITY, 2) & (PASID_EXECUTE | PASID_PRIVILEGED);
    this.pasidExecutes = (features & PASID_EXECUTE) !== 0;
    this.pasidPrivileged = (features & PASID_PRIVILEGED) !== 0;
    this.maxPasids = pasid === 0 ? 0 : Math.min(2 ** width, limits.maxPasids);
    this.services = {
      setPasid: (on) => {
        if (this.maxPasids > 0) setBits(pci, pasid + PASID_CONTROL, on ? PASID_ENABLE | features : 0);
      },
      setAts: (on) => {
        if (this.hasAts) setBits(pci, ats + ATS_CONTROL, on ? ATS_ENABLE : 0);
      },
      setPri: (on) => {
        if (!this.hasPri) return;
        if (on) pci.configWrite(pri + PRI_ALLOCATION, 4, pci.configRead(pri + PRI_CAPACITY, 4));
        setBits(pci, pri + PRI_CONTROL, on ? 1 : 0);
      },
    };
  }
}

function setBits(pci: PciFunction, at: number, value: number): void {
  if (pci.configRead(at, 2) !== value) pci.configWrite(at, 2, value);
}

export class PciDevice extends BusDevice<PciDevice> {
  readonly slot: PciSlot;
  /** "0000:01:00.0". */
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** null: not behind an IOMMU. */
  readonly iommuDevice: PciIommuDevice | null;

  constructor(slot: PciSlot, iommuDevice: PciIommuDevice | null) {
    super();
    this.slot = slot;
    this.name = slot.name;
    this.vendorId = slot.function.configRead(0, 2);
    this.deviceId = slot.function.configRead(2, 2);
    this.iommuDevice = iommuDevice;
  }

  get function(): PciFunction {
    return this.slot.function;
  }

  setMaster(on: boolean): void {
    const command = this.configRead(PCI_COMMAND, 2);
    this.configWrite(PCI_COMMAND, 2, on ? command | COMMAND_MASTER : command & ~COMMAND_MASTER);
  }

  configRead(offset: number, size: 1 | 2 | 4): number {
    return this.gone ? 2 ** (8 * size) - 1 : this.function.configRead(offset, size);
  }

  configWrite(offset: number, size: 1 | 2 | 4, value: number): void {
    if (!this.gone) this.function.configWrite(offset, size, value);
  }

  /** False in D3hot, where a function has no registers but its configuration space. */
  get awake(): boolean {
    const power = findCapability(this.function, CAP_POWER);
    return power === 0 || (this.configRead(power + POWER_CONTROL, 2) & POWER_STATE) !== D3HOT;
  }

  /** pci_set_power_state: states that the function does not have change nothing. */
  setPowerState(state: number): void {
    const power = findCapability(this.function, CAP_POWER);
    if (power === 0) return;
    const control = this.configRead(power + POWER_CONTROL, 2) & ~(POWER_STATE | PME_STATUS);
    this.configWrite(power + POWER_CONTROL, 2, control | state);
  }

  /** Memory decoding on: the kernel reaches its registers (pci_enable_device). */
  enableMemory(): void {
    this.configWrite(PCI_COMMAND, 2, this.configRead(PCI_COMMAND, 2) | COMMAND_MEMORY);
  }

  get canReset(): boolean {
    if (this.gone) return false;
    const express = findCapability(this.function, CAP_EXPRESS);
    if (express === 0) return false;
    return (this.function.configRead(express + EXPRESS_DEVICE_CAPABILITIES, 4) & FUNCTION_LEVEL_RESET) !== 0;
  }

  /**
   * Function-level reset, in D0; command register, BARs, device control and what the IOMMU driver switched on are put back
   * (pci_reset_function).
   */
  reset(): boolean {
    if (!this.canReset) return false;
    this.setPowerState(D0);
    const express = findCapability(this.function, CAP_EXPRESS);
    // In the order in which they are put back: PASID before ATS before PRI, the command register last, so that nothing masters the
    // bus before the rest stands.
    const saved: [number, 1 | 2 | 4, number][] = [];
    const save = (at: number, size: 1 | 2 | 4) => saved.push([at, size, this.configRead(at, size)]);
    const extended = [
      [EXT_CAP_PASID, PASID_CONTROL, 2],
      [EXT_CAP_ATS, ATS_CONTROL, 2],
      [EXT_CAP_PRI, PRI_ALLOCATION, 4],
      [EXT_CAP_PRI, PRI_CONTROL, 2],
    ] as const;
    for (const [id, offset, size] of extended) {
      const at = findExtendedCapability(this.function, id);
      if (at !== 0) save(at + offset, size);
    }
    save(express + EXPRESS_DEVICE_CONTROL_2, 2);
    save(CACHE_LINE, 2);
    save(PCI_INTERRUPT_LINE, 1);
    for (let bar = 0; bar < 6; bar++) save(PCI_BAR0 + 4 * bar, 4);
    save(PCI_COMMAND, 2);
    const control = this.configRead(express + EXPRESS_DEVICE_CONTROL, 2);
    this.configWrite(express + EXPRESS_DEVICE_CONTROL, 2, control | INITIATE_FUNCTION_LEVEL_RESET);
    this.configWrite(express + EXPRESS_DEVICE_CONTROL, 2, control);
    for (const [offset, size, value] of saved) this.configWrite(offset, size, value);
    return true;
  }
}

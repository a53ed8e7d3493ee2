// An assigned PCI function (Linux: struct vfio_pci_core_device): its interrupts, its virtual configuration space, its resets.
//
//     first open   bus mastering off, function reset, virtual configuration space made        (vfio_pci_core_enable)
//     last close   interrupts off, bus mastering off, function reset                          (vfio_pci_core_disable)

import type { Stateful } from "../../../base/state.ts";
import { EINVAL, ENOTTY } from "../../../uapi/errno.ts";
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
} from "../../../uapi/vfio.ts";
import type { CallContext, FileMapping, MmapRequest, PostedWrites } from "../../file.ts";
import type { Kernel } from "../../kernel.ts";
import { D0 } from "../../pci/config-access.ts";
import type { PciDevice, PciIommuDevice } from "../../pci/pci-device.ts";
import type { VfioDeviceOperations } from "../device-operations.ts";
import { VirtualConfigSpace } from "./config-space.ts";
import { dmaLogging, isDmaLogging } from "./dma-logging.ts";
import { hotReset, hotResetInfo } from "./hot-reset.ts";
import { deviceInfo, irqInfo, regionInfo, setIrqs } from "./information.ts";
import { VfioInterrupts } from "./interrupts.ts";
import { accessRegion, mapRegion, postedWrites } from "./regions.ts";

// Not state: its parts are.
export class VfioPciFunction implements VfioDeviceOperations {
  readonly name: string;
  readonly iommuDevice: PciIommuDevice;
  readonly attachesPasids = true;
  readonly advancesPosition = true;
  readonly pci: PciDevice;
  readonly interrupts: VfioInterrupts;
  readonly config: VirtualConfigSpace;
  /** User space may map its BARs. */
  readonly mappableBars: boolean;
  readonly #kernel: Kernel;

  constructor(kernel: Kernel, pci: PciDevice, iommuDevice: PciIommuDevice, mappableBars: boolean) {
    this.mappableBars = mappableBars;
    this.name = pci.name;
    this.#kernel = kernel;
    this.pci = pci;
    this.iommuDevice = iommuDevice;
    this.interrupts = new VfioInterrupts({
      device: pci,
      interrupts: kernel.interrupts,
      iommu: kernel.iommu,
      clock: kernel.clock,
      trace: kernel.trace,
      names: kernel.names,
    });
    this.config = new VirtualConfigSpace(pci, {
      disableIntx: (disabled) => this.interrupts.intxDisabledByUser(disabled),
      msiArmed: () => this.interrupts.msiArmed,
      msiVectorsLog2: () => this.interrupts.msiVectorsLog2,
      reset: () => {
        this.#reset();
      },
    });
  }

  /** Options after the name are refused, -EINVAL: none applies to a function without virtual functions (vfio_pci_core_match). */
  matches(text: string): boolean | number {
    if (!text.startsWith(this.name)) return false;
    const options = text.slice(this.name.length);
    if (options !== "" && !options.startsWith(" ")) return false;
    return options.trim() === "" ? true : -EINVAL;
  }

  /** The function is put into a known state. */
  open(): void {
    this.pci.setPowerState(D0);
    this.pci.setMaster(false);
    this.pci.enableMemory();
    this.pci.reset();
    this.config.reset();
    this.pci.setMaster(false);
  }

  close(): void {
    this.pci.setPowerState(D0);
    this.pci.setMaster(false);
    this.interrupts.close();
    this.pci.slot.dma.writeLog = null;
    this.pci.reset();
    this.pci.setMaster(false);
  }

  askBack(): void {
    this.interrupts.askBack();
  }

  ioctl(call: CallContext, request: number, argument: bigint, byNode: boolean): number {
    switch (request) {
      case VFIO_DEVICE_GET_INFO:
        return deviceInfo(this, call, argument);
      case VFIO_DEVICE_GET_REGION_INFO:
        return regionInfo(this, call, argument);
      case VFIO_DEVICE_GET_IRQ_INFO:
        return irqInfo(this, call, argument);
      case VFIO_DEVICE_SET_IRQS:
        return setIrqs(this, call, argument);
      case VFIO_DEVICE_RESET:
        return this.#reset();
      case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
        return hotResetInfo(call, argument);
      case VFIO_DEVICE_PCI_HOT_RESET:
        return hotReset(byNode, call, argument);
      default:
        return -ENOTTY;
    }
  }

  /** Dirty logging by the device, where it can; no other feature of 7.2 applies to the functions here (no migration, no virtual ones). */
  feature(call: CallContext, feature: number, flags: number, data: bigint, size: number): number {
    return isDmaLogging(feature) ? dmaLogging(this.pci, call, feature, flags, data, size) : -ENOTTY;
  }

  access(call: CallContext, va: bigint, length: number, position: bigint, write: boolean): number {
    return accessRegion(this, call, va, length, position, write);
  }

  map(request: MmapRequest): FileMapping | number {
    return mapRegion(this, request);
  }

  postedWrites(position: bigint): PostedWrites | null {
    return postedWrites(this, position);
  }

  get canReset(): boolean {
    return this.pci.canReset;
  }

  /**
   * VFIO_DEVICE_RESET, and Initiate FLR by user space: the function is awake afterwards, with its command register as it was. A device
   * with ATS is parked in the blocking domain meanwhile.
   */
  #reset(): number {
    if (!this.canReset) return -EINVAL;
    const begun = this.#kernel.iommu.beginReset(this.iommuDevice);
    if (begun < 0) return begun;
    this.pci.reset();
    this.config.powerChanged();
    this.#kernel.iommu.endReset(this.iommuDevice);
    this.interrupts.restoreAfterReset();
    return 0;
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["interrupts", this.interrupts],
      ["config space", this.config],
    ];
  }
}

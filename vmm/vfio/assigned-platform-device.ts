// A host's platform device in the guest: opened through its VFIO cdev, bound to the VM's iommufd, its regions on the VM's bus, its wires at the
// VM's interrupt controller. Its DMA goes through the host's hardware, never through here.
//
//   guest MMIO ─▶ region ─▶ mapped VFIO region (or pread/pwrite where it cannot be mapped)        host interrupt ─▶ assigned-wires.ts

import type { MmioPort } from "../../host/base/mmio.ts";
import type { Stateful, StateRecord } from "../../host/base/state.ts";
import type { Trace } from "../../host/base/trace.ts";
import { ENODEV } from "../../host/uapi/errno.ts";
import { O_RDWR } from "../../host/uapi/system-calls.ts";
import {
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_FLAGS_PLATFORM,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_REGION_INFO_FLAG_MMAP,
  vfioDeviceBindIommufd,
  vfioDeviceInfo,
  vfioRegionInfo,
} from "../../host/uapi/vfio.ts";
import type { DeviceHandle } from "../viommu/host-port.ts";
import { AssignedWires } from "./assigned-wires.ts";
import type { GuestAddressSpace } from "./guest-address-space.ts";
import { HostRefusal } from "./host-refusal.ts";
import { KernelCalls } from "./kernel-calls.ts";
import { OverlaidRegisters, RegionAccess } from "./region-access.ts";

export interface AssignedPlatformDeviceOptions {
  readonly addressSpace: GuestAddressSpace;
  /** Path of the cdev: "/dev/vfio/devices/vfio0". */
  readonly path: string;
  /** Names the device towards the vIOMMU's host port. */
  readonly handle: DeviceHandle;
  /** "0x400" in the guest, "edu0" in the host: for messages and traces. */
  readonly guestName: string;
  readonly hostName: string;
  readonly trace: Trace;
}

export interface AssignedRegion {
  readonly size: number;
  readonly registers: MmioPort;
}

/** What a device may have, so that none takes a machine's whole address space or all of its wires. */
const MOST_REGIONS = 16;
const MOST_WIRES = 32;
const LARGEST_REGION = 0x1000_0000n;

export class AssignedPlatformDevice implements Stateful {
  readonly name: string;
  readonly hostName: string;
  readonly handle: DeviceHandle;
  readonly ats = false;
  readonly pri = false;
  /** Descriptor of the cdev, and iommufd's id of the device. */
  readonly fd: number;
  readonly deviceId: number;
  readonly regions: readonly AssignedRegion[];
  readonly wires: AssignedWires;
  readonly #calls: KernelCalls;
  #disposed = false; // not state: what is closed is not written down

  /** Opens and binds the device. Throws HostRefusal with the call's name and both names. */
  constructor(options: AssignedPlatformDeviceOptions) {
    this.name = options.guestName;
    this.hostName = options.hostName;
    this.handle = options.handle;
    const { system } = options.addressSpace.calls;
    this.fd = system.open(options.path, O_RDWR);
    if (this.fd < 0) throw this.#refusal(`open ${options.path}`, this.fd);
    this.#calls = new KernelCalls(system);
    const bound = this.#calls.ioctl(this.fd, VFIO_DEVICE_BIND_IOMMUFD, vfioDeviceBindIommufd, {
      iommufd: options.addressSpace.iommufd,
    });
    if (bound.result < 0) throw this.#givenUp("VFIO_DEVICE_BIND_IOMMUFD", bound.result);
    this.deviceId = bound.out.out_devid;
    const { result, out } = this.#calls.ioctl(this.fd, VFIO_DEVICE_GET_INFO, vfioDeviceInfo, {});
    if (result < 0) throw this.#givenUp("VFIO_DEVICE_GET_INFO", result);
    if ((out.flags & VFIO_DEVICE_FLAGS_PLATFORM) === 0 || out.num_regions > MOST_REGIONS || out.num_irqs > MOST_WIRES) {
      const what = `VFIO_DEVICE_GET_INFO (flags ${out.flags}, ${out.num_regions} regions, ${out.num_irqs} interrupts)`;
      throw this.#givenUp(what, -ENODEV);
    }
    this.wires = new AssignedWires(this.#calls, this.fd, out.num_irqs, this.name, options.trace);
    this.regions = Array.from({ length: out.num_regions }, (_, index) => this.#openRegion(index));
    const wired = this.wires.open();
    if (wired < 0) throw this.#givenUp("binding an eventfd to an interrupt", wired);
  }

  #openRegion(index: number): AssignedRegion {
    const { result, out } = this.#calls.ioctl(this.fd, VFIO_DEVICE_GET_REGION_INFO, vfioRegionInfo, { index });
    const refused = result < 0 ? result : out.size === 0n || out.size > LARGEST_REGION ? -ENODEV : 0;
    if (refused < 0) throw this.#givenUp(`VFIO_DEVICE_GET_REGION_INFO of region ${index}`, refused);
    const size = Number(out.size);
    const mapped =
      (out.flags & VFIO_REGION_INFO_FLAG_MMAP) === 0
        ? -ENODEV
        : this.#calls.system.mmapRegion(this.fd, out.offset, size);
    const direct = typeof mapped === "number" ? new RegionAccess(this.#calls, this.fd, out.offset) : mapped;
    return { size, registers: new OverlaidRegisters(direct, () => this.wires.touched()) };
  }

  /** True while an interrupt waits for `service`. */
  get flagged(): boolean {
    return this.wires.flagged;
  }

  /** Trace event that flagged it. */
  get cause(): number {
    return this.wires.cause;
  }

  service(): void {
    this.wires.service();
  }

  /** The host's device as after power-on; 0 or a negated errno. */
  reset(): number {
    return this.#calls.system.ioctl(this.fd, VFIO_DEVICE_RESET, 0n);
  }

  /** Closes the device: its interrupts, mappings, and the binding. The vIOMMU has detached it before. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.wires.touched();
    this.wires.close();
    this.#calls.system.close(this.fd);
    this.#calls[Symbol.dispose]();
  }

  #refusal(call: string, errno: number): HostRefusal {
    return new HostRefusal(`${call} for guest device ${this.name} (host ${this.hostName})`, errno);
  }

  /** Closes what is open so far; the error to throw. */
  #givenUp(call: string, errno: number): HostRefusal {
    this.wires?.close();
    this.#calls.system.close(this.fd);
    this.#calls[Symbol.dispose]();
    return this.#refusal(call, errno);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [["wires", this.wires]];
  }
}

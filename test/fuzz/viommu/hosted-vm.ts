// A virtual machine without a vCPU on a modelled host with one IOMMU: guest RAM, a guest-visible IOMMU and assigned edu devices, by system calls alone. A kind
// says what hardware the host has, and makes the guest.

import type { MmioPort } from "../../../host/base/mmio.ts";
import type { Process } from "../../../host/kernel/process.ts";
import { AssignedDevice } from "../../../vmm/vfio/assigned-device.ts";
import type { AssignedPlatformDevice } from "../../../vmm/vfio/assigned-platform-device.ts";
import { GuestAddressSpace } from "../../../vmm/vfio/guest-address-space.ts";
import { IommufdHost } from "../../../vmm/vfio/iommufd-host.ts";
import type { GuestVisibleIommu, PluggedDevice } from "../../../vmm/viommu/kind.ts";
import type { NestedCodec } from "../../../vmm/viommu/nested-codec.ts";
import { type Machine, name } from "../../host/kernel/machine.ts";

export interface Plugged {
  readonly guestId: number;
  /** As the host's kernel calls it. */
  readonly hostName: string;
  readonly device: AssignedDevice | AssignedPlatformDevice;
  readonly bar: MmioPort;
}

/** A guest: its RAM and its IOMMU. */
export interface HostedGuest {
  readonly viommu: GuestVisibleIommu;
  readonly buffer: ArrayBuffer;
  /** What the machine's loop does around a trap. */
  settle(): void;
}

export abstract class HostedVm<G extends HostedGuest> {
  readonly machine: Machine;
  readonly process: Process;
  readonly space: GuestAddressSpace;
  readonly host: IommufdHost;
  readonly reports: string[] = [];
  readonly plugged: Plugged[] = [];
  readonly #ramBase: bigint;
  #guest: G | null = null;
  #nextHandle = 100;

  constructor(machine: Machine, codec: NestedCodec, ramBase: bigint) {
    if (machine.problems.length > 0) throw new Error(machine.problems.join("; "));
    this.machine = machine;
    this.#ramBase = ramBase;
    this.process = machine.kernel.createProcess("vmm");
    this.space = new GuestAddressSpace(this.process);
    const report = (line: string) => void this.reports.push(line);
    this.host = new IommufdHost({ addressSpace: this.space, codec, report });
  }

  get guest(): G {
    return this.#guest!;
  }

  /** The guest whose IOMMU has hardware that says so of itself (GET_HW_INFO). */
  protected abstract makeGuest(info: Uint8Array): G;

  /** Opens a device of the host and plugs it in under a guest id. Throws what a machine's builder would see. */
  assign(rid: number, guestId: number): Plugged {
    const { machine: host } = this;
    const bound = host.vfio.nodeOf(name(rid)) === null ? host.kernel.pci.bind(name(rid), "vfio-pci") : 0;
    if (bound < 0) throw new Error(`vfio-pci does not bind: ${bound}`);
    const handle = this.nextHandle();
    const device = new AssignedDevice({
      ...{ addressSpace: this.space, path: host.vfio.nodeOf(name(rid))!, handle },
      ...{ guestName: `guest ${guestId.toString(16)}`, hostName: name(rid) },
      message: (pfn, offset, data) => {
        const { viommu } = this.guest;
        if (viommu.takesMessage?.(guestId, pfn, offset, data) !== true) viommu.messagePage(guestId, pfn);
      },
      report: (line) => this.reports.push(line),
      trace: host.trace,
    });
    const { ats, pri } = device;
    this.plugIn(device, handle, guestId, { faults: pri, ats, pri });
    device.connect({
      dma: { read: () => 1, write: () => 1 },
      interrupt: { intx: () => {} },
      clock: host.clock,
    });
    device.onReset = () => this.guest.viommu.deviceReset(guestId);
    device.configWrite(4, 2, 6);
    return this.keep({ guestId, hostName: name(rid), device, bar: device.bars[0]!.registers });
  }

  protected nextHandle(): number {
    return this.#nextHandle++;
  }

  /** Makes a bound device known to the host port and to the guest's IOMMU. */
  protected plugIn(
    device: AssignedDevice | AssignedPlatformDevice,
    handle: number,
    guestId: number,
    { faults, ...abilities }: Pick<PluggedDevice, "ats" | "pri" | "canStall"> & { readonly faults: boolean },
  ): void {
    const { fd, deviceId, hostName } = device;
    const guestName = `guest ${guestId.toString(16)}`;
    this.host.register({ handle, fd, deviceId, guestName, hostName, faults });
    this.#guest ??= this.#makeGuest(handle);
    const errno = this.guest.viommu.plug({ handle, guestId, name: guestName, hostName, emulated: false, ...abilities });
    if (errno >= 0) return;
    this.host.unregister(handle);
    device[Symbol.dispose]();
    throw new Error(`plug: ${errno}`);
  }

  protected keep(plugged: Plugged): Plugged {
    this.plugged.push(plugged);
    return plugged;
  }

  #makeGuest(handle: number): G {
    const info = this.host.hwInfo(handle);
    if (typeof info === "number") throw new Error(`hw info: ${info}`);
    const guest = this.makeGuest(info.bytes);
    this.space.mapRam(this.#ramBase, guest.buffer, 0, guest.buffer.byteLength);
    return guest;
  }

  /** Takes a device out, as an operator would. */
  unplug(plugged: Plugged): void {
    this.guest.viommu.unplug(plugged.guestId);
    this.host.unregister(plugged.device.handle);
    plugged.device[Symbol.dispose]();
    this.plugged.splice(this.plugged.indexOf(plugged), 1);
  }

  /** What the machine's loop does around a trap: flagged work. */
  settle(): void {
    for (let round = 0; round < 16; round++) {
      this.guest.settle();
      for (const { device } of this.plugged) if (device.flagged) device.service();
    }
  }

  /** Lets time pass. */
  run(ns = 200_000): void {
    const { clock } = this.machine;
    for (const end = clock.now + ns; clock.nextDeadline <= end; ) {
      clock.advanceTo(clock.nextDeadline);
      clock.fireDue();
      this.settle();
    }
    this.settle();
  }

  [Symbol.dispose](): void {
    for (const plugged of [...this.plugged]) this.unplug(plugged);
    this.host[Symbol.dispose]();
    this.space[Symbol.dispose]();
  }
}

// A virtual machine without a vCPU on a modelled host with one SMMUv3: guest RAM, a guest-visible SMMUv3 and assigned edu devices, by system calls alone.
// The guest's driver is test/vmm/viommu/smmuv3/guest.ts.

import type { SmmuFeatures } from "../../../../host/arch/smmuv3/identification.ts";
import type { MmioPort } from "../../../../host/base/mmio.ts";
import type { EduOptions } from "../../../../host/devices/edu/edu.ts";
import type { Smmuv3Options } from "../../../../host/hw/iommu/smmuv3/options.ts";
import type { Process } from "../../../../host/kernel/process.ts";
import { iommuHwInfoArmSmmuv3 } from "../../../../host/uapi/smmuv3-nesting.ts";
import { AssignedDevice } from "../../../../vmm/vfio/assigned-device.ts";
import { AssignedPlatformDevice } from "../../../../vmm/vfio/assigned-platform-device.ts";
import { GuestAddressSpace } from "../../../../vmm/vfio/guest-address-space.ts";
import { IommufdHost } from "../../../../vmm/vfio/iommufd-host.ts";
import { SMMUV3_NESTING } from "../../../../vmm/viommu/smmuv3/nested-codec.ts";
import { type Machine, machine, name } from "../../../host/kernel/machine.ts";
import { Guest, RAM } from "../../../vmm/viommu/smmuv3/guest.ts";

export interface Plugged {
  readonly guestId: number;
  /** As the host's kernel calls it. */
  readonly hostName: string;
  readonly device: AssignedDevice | AssignedPlatformDevice;
  readonly bar: MmioPort;
}

export interface SmmuVmOptions {
  readonly features: Partial<SmmuFeatures>;
  readonly caches?: Smmuv3Options["caches"];
  /** Host's name of an edu on no bus, which can stall; left out: none. */
  readonly platform?: string;
  readonly devices: readonly { readonly rid: number; readonly options: EduOptions }[];
}

export class SmmuVm {
  readonly machine: Machine;
  readonly process: Process;
  readonly space: GuestAddressSpace;
  readonly host: IommufdHost;
  readonly reports: string[] = [];
  readonly plugged: Plugged[] = [];
  readonly #stalls: boolean;
  #guest: Guest | null = null;
  #nextHandle = 100;

  constructor({ features, caches, devices, platform }: SmmuVmOptions) {
    const platforms = platform === undefined ? [] : [{ name: platform, deviceId: 0x300, canStall: true }];
    this.#stalls = platform !== undefined;
    const smmu = { features, atsTimeoutNs: 20_000, ...(caches === undefined ? {} : { caches }) };
    this.machine = machine({ smmus: [smmu], devices, platform: platforms, ramPages: 1024 });
    if (this.machine.problems.length > 0) throw new Error(this.machine.problems.join("; "));
    this.process = this.machine.kernel.createProcess("vmm");
    this.space = new GuestAddressSpace(this.process);
    const report = (line: string) => void this.reports.push(line);
    this.host = new IommufdHost({ addressSpace: this.space, codec: SMMUV3_NESTING, report });
  }

  get guest(): Guest {
    return this.#guest!;
  }

  /** Opens a device of the host and plugs it in under a guest id. Throws what a machine's builder would see. */
  assign(rid: number, guestId: number): Plugged {
    const { machine: host } = this;
    const bound = host.vfio.nodeOf(name(rid)) === null ? host.kernel.pci.bind(name(rid), "vfio-pci") : 0;
    if (bound < 0) throw new Error(`vfio-pci does not bind: ${bound}`);
    const handle = this.#nextHandle++;
    const device = new AssignedDevice({
      addressSpace: this.space,
      path: host.vfio.nodeOf(name(rid))!,
      handle,
      guestName: `guest ${guestId.toString(16)}`,
      hostName: name(rid),
      message: (pfn) => void this.guest.smmu.messagePage(guestId, pfn),
      report: (line) => this.reports.push(line),
      trace: host.trace,
    });
    const { name: guestName, hostName, fd, deviceId, ats, pri } = device;
    this.host.register({ handle, fd, deviceId, guestName, hostName, faults: pri });
    this.#guest ??= this.#makeGuest(handle);
    const identity = { handle, guestId, name: guestName, hostName };
    const errno = this.guest.smmu.plug({ ...identity, ats, pri, emulated: false });
    if (errno < 0) {
      this.host.unregister(handle);
      device[Symbol.dispose]();
      throw new Error(`plug: ${errno}`);
    }
    device.connect({
      dma: { read: () => 1, write: () => 1 },
      interrupt: { intx: () => {} },
      clock: host.clock,
    });
    device.onReset = () => this.guest.smmu.deviceReset(guestId);
    device.configWrite(4, 2, 6);
    const plugged: Plugged = { guestId, hostName: name(rid), device, bar: device.bars[0]!.registers };
    this.plugged.push(plugged);
    return plugged;
  }

  /** The same of a device on no bus, whose transactions may stall. */
  assignPlatform(hostName: string, guestId: number): Plugged {
    const { machine: host } = this;
    const bound = host.vfio.nodeOf(hostName) === null ? host.kernel.platform.bind(hostName, "vfio-platform") : 0;
    if (bound < 0) throw new Error(`vfio-platform does not bind: ${bound}`);
    const handle = this.#nextHandle++;
    const guestName = `guest ${guestId.toString(16)}`;
    const path = host.vfio.nodeOf(hostName)!;
    const device = new AssignedPlatformDevice({
      ...{ addressSpace: this.space, path, handle, guestName, hostName, trace: host.trace },
    });
    this.host.register({ handle, fd: device.fd, deviceId: device.deviceId, guestName, hostName, faults: true });
    this.#guest ??= this.#makeGuest(handle);
    const identity = { handle, guestId, name: guestName, hostName };
    const errno = this.guest.smmu.plug({ ...identity, ats: false, pri: false, emulated: false, canStall: true });
    if (errno < 0) {
      this.host.unregister(handle);
      device[Symbol.dispose]();
      throw new Error(`plug: ${errno}`);
    }
    const plugged: Plugged = { guestId, hostName, device, bar: device.regions[0]!.registers };
    this.plugged.push(plugged);
    return plugged;
  }

  #makeGuest(handle: number): Guest {
    const info = this.host.hwInfo(handle);
    if (typeof info === "number") throw new Error(`hw info: ${info}`);
    const { idr0, idr1, idr3, idr5, aidr } = iommuHwInfoArmSmmuv3.decode(info.bytes);
    const { clock, trace } = this.machine;
    const words = {
      IDR0: BigInt(idr0),
      IDR1: BigInt(idr1),
      IDR3: BigInt(idr3),
      IDR5: BigInt(idr5),
      AIDR: BigInt(aidr),
    };
    const guest = new Guest({ host: this.host, hardware: words, stalls: this.#stalls, clock, trace });
    this.space.mapRam(RAM, guest.buffer, 0, guest.buffer.byteLength);
    return guest;
  }

  /** Takes a device out, as an operator would. */
  unplug(plugged: Plugged): void {
    this.guest.smmu.unplug(plugged.guestId);
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

// A virtual machine for tests, without a vCPU: a modelled host with edu devices, and on it, by system calls alone, guest RAM,
// guest-visible IOMMUs and assigned devices. The guest's driver is test/vmm/viommu/guest.ts.

import type { MmioPort } from "../../../host/base/mmio.ts";
import type { Process } from "../../../host/kernel/process.ts";
import { iommuHwInfoRiscv } from "../../../host/uapi/riscv-nesting.ts";
import { AssignedDevice } from "../../../vmm/vfio/assigned-device.ts";
import { GuestAddressSpace } from "../../../vmm/vfio/guest-address-space.ts";
import { IommufdHost } from "../../../vmm/vfio/iommufd-host.ts";
import type { RiscvConfiguration } from "../../../vmm/viommu/riscv/capabilities.ts";
import { RISCV_NESTING } from "../../../vmm/viommu/riscv/nested-codec.ts";
import { eduDma, eduOutcome, type Machine, type MachineOptions, machine, name } from "../../host/kernel/machine.ts";
import { Guest, RAM, SV39 } from "../viommu/guest.ts";

const V = 1n;
/** V, R, W, U, A, D. */
const LEAF = 0xd7n;

/** The window that every stage 1 maps one to one (host/kernel/iommu/riscv: SW_MSI). */
export const MSI_WINDOW = 0x0800_0000n;

/** Where stage 1 tables are made. */
const TABLES = RAM + 0x8_0000n;
/** Pages for data. */
export const DATA = RAM + 0xe_0000n;

export interface Plugged {
  guestId: number;
  readonly rid: number;
  readonly device: AssignedDevice;
  readonly bar: MmioPort;
  readonly iommu: VmIommu;
  /** Messages that got through the device's first stage: page and data. */
  readonly messages: { readonly page: number; readonly data: number }[];
  /** Messages that did not. */
  lostMessages: number;
  /** Level of its INTx line. */
  intx: boolean;
}

/** One vIOMMU of a VM, with its guest driver. */
export interface VmIommu {
  readonly host: IommufdHost;
  readonly guest: Guest;
}

export interface AssignOptions {
  /** Which vIOMMU, by number; made if it is not there. */
  readonly iommu?: number;
  readonly configuration?: RiscvConfiguration;
}

export class Vm {
  readonly machine: Machine;
  readonly process: Process;
  readonly space: GuestAddressSpace;
  readonly reports: string[] = [];
  readonly plugged: Plugged[] = [];
  readonly iommus: VmIommu[] = [];
  #nextTable = 0n;
  #nextHandle = 100;

  constructor(host: Machine | MachineOptions = {}) {
    this.machine = "kernel" in host ? host : machine(host);
    if (this.machine.problems.length > 0) throw new Error(this.machine.problems.join("; "));
    this.process = this.machine.kernel.createProcess("vmm");
    this.space = new GuestAddressSpace(this.process);
  }

  /** The first vIOMMU's guest driver. */
  get guest(): Guest {
    return this.iommus[0]!.guest;
  }

  /** Opens a device of the host and plugs it in under a guest id. Throws what a machine's builder would see. */
  assign(rid: number, guestId: number, options: AssignOptions = {}): Plugged {
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
      message: (pfn, _offset, data) => {
        const page = plugged.iommu.guest.viommu.messagePage(plugged.guestId, pfn);
        if (page < 0) plugged.lostMessages++;
        else plugged.messages.push({ page, data });
      },
      report: (line) => this.reports.push(line),
      trace: host.trace,
    });
    const iommu = this.#iommuFor(device, handle, options);
    const bar = device.bars[0]!.registers;
    const plugged: Plugged = { guestId, rid, device, bar, iommu, messages: [], lostMessages: 0, intx: false };
    const identity = { handle, guestId, name: device.name, hostName: device.hostName };
    const errno = iommu.guest.viommu.plug({ ...identity, ats: device.ats, pri: device.pri, emulated: false });
    if (errno < 0) {
      iommu.host.unregister(handle);
      device[Symbol.dispose]();
      throw new Error(`plug: ${errno}`);
    }
    device.connect({
      dma: { read: () => 1, write: () => 1 },
      interrupt: {
        intx: (asserted) => {
          plugged.intx = asserted;
        },
      },
      clock: host.clock,
    });
    device.onReset = () => iommu.guest.viommu.deviceReset(plugged.guestId);
    device.configWrite(4, 2, 6);
    this.plugged.push(plugged);
    return plugged;
  }

  #iommuFor(device: AssignedDevice, handle: number, options: AssignOptions): VmIommu {
    const index = options.iommu ?? 0;
    const registration = {
      handle,
      fd: device.fd,
      deviceId: device.deviceId,
      guestName: device.name,
      hostName: device.hostName,
      faults: device.pri,
    };
    const known = this.iommus[index];
    if (known !== undefined) {
      known.host.register(registration);
      return known;
    }
    const host = new IommufdHost({
      addressSpace: this.space,
      codec: RISCV_NESTING,
      report: (line) => this.reports.push(line),
    });
    host.register(registration);
    const info = host.hwInfo(handle);
    if (typeof info === "number") throw new Error(`hw info: ${info}`);
    const { capabilities, fctl } = iommuHwInfoRiscv.decode(info.bytes);
    const first = this.iommus[0]?.guest;
    const guest = new Guest({
      host,
      clock: this.machine.clock,
      trace: this.machine.trace,
      hardware: { capabilities, fctl },
      name: `viommu${index}`,
      // Each vIOMMU's driver keeps its structures in a quarter of guest memory of its own.
      at: BigInt(index) * 0x4_0000n,
      ...(options.configuration === undefined ? {} : { configuration: options.configuration }),
      ...(first === undefined ? {} : { memoryOf: first }),
    });
    if (first === undefined) this.space.mapRam(RAM, guest.buffer, 0, guest.buffer.byteLength);
    this.iommus[index] = { host, guest };
    return { host, guest };
  }

  /** Takes a device out, as an operator would. */
  unplug(plugged: Plugged): void {
    plugged.iommu.guest.viommu.unplug(plugged.guestId);
    plugged.iommu.host.unregister(plugged.device.handle);
    plugged.device[Symbol.dispose]();
    this.plugged.splice(this.plugged.indexOf(plugged), 1);
  }

  /** What the machine's loop does around a trap: flagged work. */
  settle(): void {
    for (let round = 0; round < 16; round++) {
      for (const { guest } of this.iommus) guest.settle();
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

  /** An edu command to its end; how it ended. */
  dma(plugged: Plugged, address: bigint, count: number, toRam: boolean, interrupt = false): number {
    eduDma(plugged.bar, address, count, toRam, interrupt);
    this.run();
    return eduOutcome(plugged.bar);
  }

  /** A first stage in Sv39 with the given pages, and the message window one to one unless `withoutWindow`. */
  tables(pages: readonly (readonly [bigint, bigint])[] = [], options: { withoutWindow?: boolean } = {}): Stage1 {
    const stage1 = new Stage1(this.guest, TABLES + this.#nextTable);
    this.#nextTable += 0x6000n;
    for (const [iova, page] of pages) stage1.map(iova, page);
    if (options.withoutWindow !== true) stage1.map(MSI_WINDOW, MSI_WINDOW);
    return stage1;
  }

  [Symbol.dispose](): void {
    for (const plugged of [...this.plugged]) this.unplug(plugged);
    for (const { host } of this.iommus) host[Symbol.dispose]();
    this.space[Symbol.dispose]();
  }
}

/** Sv39 tables in guest memory. */
export class Stage1 {
  readonly root: bigint;
  readonly #guest: Guest;
  #next: bigint;

  constructor(guest: Guest, root: bigint) {
    this.#guest = guest;
    this.root = root;
    this.#next = root + 0x1000n;
  }

  get fsc(): bigint {
    return SV39 | (this.root >> 12n);
  }

  map(iova: bigint, page: bigint, bits = LEAF): void {
    this.#guest.store64(this.entry(iova), ((page >> 12n) << 10n) | bits);
  }

  unmap(iova: bigint): void {
    this.#guest.store64(this.entry(iova), 0n);
  }

  /** Address of the leaf entry, tables made on the way. */
  entry(iova: bigint): bigint {
    let table = this.root;
    for (let level = 2n; level > 0n; level--) {
      const at = table + ((iova >> (12n + 9n * level)) & 511n) * 8n;
      const entry = this.#guest.load64(at);
      if ((entry & V) === 0n) {
        this.#guest.store64(at, ((this.#next >> 12n) << 10n) | V);
        table = this.#next;
        this.#next += 0x1000n;
      } else {
        table = (entry >> 10n) << 12n;
      }
    }
    return table + ((iova >> 12n) & 511n) * 8n;
  }
}

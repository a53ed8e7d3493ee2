// A host put together from a description: memory, IOMMUs, root complexes, devices, and the kernel on top. The only place that knows all
// of them. What is above (a VMM, a scenario, the command line) makes processes here and otherwise uses system calls.
//
// Host-physical map (nothing is identity with anything a guest sees):
//   0x0_2800_0000   interrupt files, one page each, unless an IOMMU's architecture says where they are
//   0x0_3000_0000   registers of platform devices
//   0x1_0000_0000   BARs, 32-bit window translated up; 0x40_0000_0000 64-bit window
//   0x8_0000_0000   the kernel's RAM; buffers that processes lend (guest RAM) go above

import { type HpaPfn, hex } from "./base/address.ts";
import type { Clock } from "./base/clock.ts";
import { PhysicalMemory } from "./base/memory.ts";
import {
  bytesOf,
  isStateful,
  type KeepBytes,
  StateError,
  type Stateful,
  type StateReader,
  type StateRecord,
} from "./base/state.ts";
import type { Trace } from "./base/trace.ts";
import { makeFunction, makeIommu, makePlatformDevice, type OpenBlockFile } from "./described-hardware.ts";
import {
  type DeviceDescription,
  groupKeyOf,
  type HostDescription,
  HostDescriptionError,
  type PlatformDeviceDescription,
  pciDeviceId,
  splitBdf,
} from "./description.ts";
import type { BlockStore } from "./devices/nvme/block-store.ts";
import type { DmaPort, PciFunction } from "./devices/ports.ts";
import { InterruptFiles } from "./hw/interrupt-files.ts";
import { type CorruptedEntries, corruptedEntries } from "./hw/iommu/corrupted-entries.ts";
import { HARDWARE_KINDS, type HardwareKinds } from "./hw/iommu/kinds.ts";
import { ACCESS_READ, ACCESS_WRITE, type HardwareIommu } from "./hw/iommu/port.ts";
import {
  type AskedTranslation,
  askTranslation,
  reportStaleAccesses,
  type StaleAccess,
} from "./hw/iommu/stale-accesses.ts";
import { AilingFunction } from "./hw/pci/ailing-function.ts";
import { BarWindow } from "./hw/pci/bar-window.ts";
import { type PciSlot, RootComplex } from "./hw/pci/root-complex.ts";
import { AilingEndpoint } from "./hw/platform/ailing-endpoint.ts";
import { Interconnect, type PlatformSlot } from "./hw/platform/interconnect.ts";
import { bootKernel } from "./kernel/boot.ts";
import { ALLOCATIONS, NO_INJECTION } from "./kernel/inject.ts";
import { InjectionPlan } from "./kernel/injection-plan.ts";
import type { IommuDevice } from "./kernel/iommu/driver.ts";
import type { DriverKinds } from "./kernel/iommu/kinds.ts";
import type { Kernel } from "./kernel/kernel.ts";
import type { PciDevice } from "./kernel/pci/pci-device.ts";
import type { PlatformDevice } from "./kernel/platform/platform-bus.ts";
import type { Process } from "./kernel/process.ts";
import type { VfioDevices, VfioOptions } from "./kernel/vfio/in-kernel.ts";
import { errnoName } from "./uapi/errno.ts";
import { IOCTL_NAMES } from "./uapi/ioctl-names.ts";

const INTERRUPT_FILES_PFN = 0x28000;
const RAM_PFN = 0x800000;
const PLATFORM_WINDOW = { base: 0x3000_0000, size: 0x1000_0000 };
const WINDOW32 = { base: 0x4000_0000, size: 0x4000_0000 };
const WINDOW64 = { base: 0x40_0000_0000, size: 0x40_0000_0000 };

export type { AskedTranslation } from "./hw/iommu/stale-accesses.ts";
export { InjectionPlan, InjectionSyntaxError } from "./kernel/injection-plan.ts";

/** Kinds of IOMMU besides those that ship: hardware, and the kernel's drivers for it. */
export interface HostKinds {
  readonly hardware: HardwareKinds;
  readonly drivers: DriverKinds;
}

export interface HostParts {
  readonly clock: Clock;
  readonly trace: Trace;
  /** Opens the file behind an NVMe drive; absent: drives with files cannot be made (a browser). */
  readonly openBlockFile?: (file: string, blockBytes: 512 | 4096) => BlockStore & { close(): void };
  /** Default: those that ship. */
  readonly kinds?: HostKinds;
  /** How the kernel's VFIO is configured. */
  readonly vfio?: VfioOptions;
}

/** A device as a VMM is told of it. */
export interface AssignableDevice {
  /** "0000:00:01.0", "edu0". */
  readonly hostName: string;
  /** What it hangs on: its VFIO cdev says the same (VFIO_DEVICE_FLAGS_PCI, _PLATFORM). */
  readonly bus: "pci" | "platform";
  /** Of a platform device what its firmware says: `compatible`, and dma-can-stall. */
  readonly compatible: string;
  readonly canStall: boolean;
  /** Path of its VFIO cdev. */
  readonly path: string;
  /** Name of its IOMMU, "" without. */
  readonly iommu: string;
  /** Number of its iommu group, -1 without. */
  readonly group: number;
  /** The other devices of the group; `path` binds vfio-pci where there is no driver, null: another driver has the device. */
  readonly groupOthers: readonly { readonly hostName: string; readonly path: () => string | null }[];
}

export interface DmaCounters {
  readonly transfers: number;
  readonly bytes: number;
  readonly aborted: number;
  readonly messages: number;
}

export class Host implements Stateful {
  readonly description: HostDescription;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly #memory = new PhysicalMemory<HpaPfn>();
  readonly #interruptFiles: InterruptFiles;
  /** What the kernel went on without when it booted, one line each. */
  readonly problems: readonly string[];
  readonly #kernel: Kernel;
  readonly #vfio: VfioDevices;
  // not state, to the blank line: as the description says.
  readonly #iommus = new Map<string, HardwareIommu>();
  readonly #roots = new Map<number, RootComplex>();
  readonly #interconnect: Interconnect;
  /** IOMMUs that have been asked about their entries, by name. */
  readonly #corrupted = new Map<string, CorruptedEntries>();
  readonly #files: { close(): void }[] = [];

  #processes = 0;

  /** Throws HostDescriptionError for what the description's checks cannot see (an option out of range, a file that cannot be opened). */
  constructor(description: HostDescription, parts: HostParts) {
    const { clock, trace } = parts;
    this.description = description;
    this.clock = clock;
    this.trace = trace;
    this.#memory.addBank(RAM_PFN as HpaPfn, this.#makeRam(description.memory));
    const kinds = parts.kinds?.hardware ?? HARDWARE_KINDS;
    const doorbells = description.iommus.map(({ kind }) => kinds[kind]?.doorbells).find((pfn) => pfn !== undefined);
    this.#interruptFiles = new InterruptFiles({
      memory: this.#memory,
      clock,
      trace,
      basePfn: (doorbells ?? INTERRUPT_FILES_PFN) as HpaPfn,
      files: 4,
    });
    for (const iommu of description.iommus)
      this.#iommus.set(iommu.name, makeIommu(description.name, iommu, kinds, { memory: this.#memory, clock, trace }));
    const window32 = new BarWindow(WINDOW32.base, WINDOW32.size);
    const window64 = new BarWindow(WINDOW64.base, WINDOW64.size);
    const groups = new Map<string, string>();
    for (const device of description.devices) {
      const { segment } = splitBdf(device.bdf);
      let root = this.#roots.get(segment);
      if (root === undefined) {
        const messages = this.#interruptFiles;
        root = new RootComplex({ segment, memory: this.#memory, clock, trace, window32, window64, messages });
        this.#roots.set(segment, root);
      }
      groups.set(device.bdf, groupKeyOf(device));
      try {
        this.#plug(root, device, parts.openBlockFile);
      } catch (error) {
        // The files of the drives before it: nobody will ever have this host to dispose of.
        this.closeFiles();
        throw error;
      }
    }
    this.#interconnect = new Interconnect({
      ...{ memory: this.#memory, clock, trace, messages: this.#interruptFiles },
      window: new BarWindow(PLATFORM_WINDOW.base, PLATFORM_WINDOW.size),
    });
    for (const device of description.platform) this.#place(device);
    const { kernel, vfio, problems, outOfMemory } = bootKernel({
      memory: this.#memory,
      ram: { base: RAM_PFN as HpaPfn, pages: description.memory / 4096 },
      clock,
      trace,
      interruptFiles: this.#interruptFiles,
      ...(parts.kinds === undefined ? {} : { drivers: parts.kinds.drivers }),
      ...(parts.vfio === undefined ? {} : { vfio: parts.vfio }),
      deviations: description.deviations,
      ...(description.msiWindow === undefined ? {} : { msiWindow: description.msiWindow }),
      iommus: [...this.#iommus.values()],
      roots: [...this.#roots.values()].map((root) => ({ root, groupKey: (slot) => groups.get(slot.name) ?? null })),
      interconnect: this.#interconnect,
    });
    if (outOfMemory) {
      this.closeFiles();
      const has = `${description.memory / 1024}K are too little`;
      throw new HostDescriptionError(`${description.name}: memory: ${has}: ${problems.join("; ")}`);
    }
    this.#kernel = kernel;
    this.#vfio = vfio;
    this.problems = problems;
  }

  /** Names of the devices: PCI functions, then platform devices, each ascending. */
  get deviceNames(): readonly string[] {
    return [...this.#kernel.pci.devices, ...this.#kernel.platform.devices].map(({ name }) => name);
  }

  /** Full name of a device, a PCI function's given with or without its domain; null if there is none. */
  find(name: string): string | null {
    return this.deviceNames.find((known) => known === name || known === `0000:${name}`) ?? null;
  }

  /** As `find`, but throws HostDescriptionError, naming the devices there are. */
  resolve(written: string): string {
    const name = this.find(written);
    if (name !== null) return name;
    throw new HostDescriptionError(
      `host ${this.description.name} has no device ${written} (it has ${this.deviceNames.join(", ")})`,
    );
  }

  /** The kernel, for adapters that bring processes from outside. */
  get kernel(): Kernel {
    return this.#kernel;
  }

  /** A process whose system calls a VMM uses. */
  createProcess(name = `vmm${++this.#processes}`): Process {
    return this.#kernel.createProcess(name);
  }

  /** The process is gone, and with it its memory and descriptors. */
  endProcess(name: string): void {
    this.#kernel.processes.find((process) => process.name === name)?.exit();
  }

  /**
   * Path of a device's VFIO cdev; binds its bus's VFIO driver to it first if it has no driver, as an administrator would. Throws
   * HostDescriptionError if that is refused.
   */
  vfioPath(name: string): string {
    const { bus, driver } = this.#busOf(name);
    if (bus.device(name)?.driver === null) {
      const bound = bus.bind(name, driver);
      if (bound < 0) throw new HostDescriptionError(`${driver} does not take ${name}: ${errnoName(bound)}`);
    }
    const path = this.#vfio.nodeOf(name);
    if (path === null) throw new HostDescriptionError(`${name} has a kernel driver, not ${driver}`);
    return path;
  }

  /** The bus that a device is on, and its driver for user space. */
  #busOf(name: string) {
    const { pci, platform } = this.#kernel;
    const onPlatform = platform.device(name) !== null;
    return onPlatform
      ? ({ kind: "platform", bus: platform, driver: "vfio-platform" } as const)
      : ({ kind: "pci", bus: pci, driver: "vfio-pci" } as const);
  }

  #iommuDeviceOf(name: string): IommuDevice | null {
    return this.#busOf(name).bus.device(name)?.iommuDevice ?? null;
  }

  /**
   * The iommu group of a device: its number and the names of all its devices, as sysfs would show it; null for a device without an IOMMU.
   */
  groupOf(name: string): { readonly id: number; readonly devices: readonly string[] } | null {
    const device = this.#iommuDeviceOf(name);
    const group = device === null ? null : this.#kernel.iommu.groupOf(device);
    return group === null ? null : { id: group.id, devices: group.devices.map((member) => member.name).sort() };
  }

  /** What a device and the IOMMU before it can do of PCIe's translation services; `pasidBits` 0: no PASIDs. */
  translationServicesOf(name: string): {
    readonly ats: boolean;
    readonly pageRequests: boolean;
    readonly pasidBits: number;
  } {
    const device = this.#iommuDeviceOf(name);
    if (device === null) return { ats: false, pageRequests: false, pasidBits: 0 };
    const pasidBits = device.maxPasids === 0 ? 0 : Math.log2(device.maxPasids);
    return { ats: device.hasAts, pageRequests: device.hasPri, pasidBits };
  }

  /** What a VMM is told of a device that it is to be given, as an administrator would tell it. Throws as `vfioPath`. */
  assignable(name: string): AssignableDevice {
    const group = this.groupOf(name);
    return {
      hostName: name,
      bus: this.#busOf(name).kind,
      compatible: this.#kernel.platform.device(name)?.compatible ?? "",
      canStall: this.#kernel.platform.device(name)?.slot.canStall ?? false,
      path: this.vfioPath(name),
      iommu: this.iommuOf(name),
      group: group?.id ?? -1,
      groupOthers: (group?.devices ?? [])
        .filter((other) => other !== name)
        .map((other) => ({ hostName: other, path: () => this.#vfioPathOrNull(other) })),
    };
  }

  #vfioPathOrNull(name: string): string | null {
    try {
      return this.vfioPath(name);
    } catch (error) {
      if (error instanceof HostDescriptionError) return null;
      throw error;
    }
  }

  /** Name of the IOMMU a device is behind ("" none), as sysfs would show it. */
  iommuOf(name: string): string {
    return this.#slot(name).iommu?.name ?? "";
  }

  /** The id by which its IOMMU knows a device. */
  deviceIdOf(name: string): number {
    return this.#slot(name).deviceId;
  }

  /** The device's own bus-master port, for scripted DMA. */
  dmaOf(name: string): DmaPort {
    return this.#ailing(name).dma ?? this.#slot(name).dma;
  }

  /** The model of a PCI function itself: what a person with a screwdriver reaches. */
  functionOf(name: string): PciFunction {
    const plugged = this.#kernel.pci.device(name)?.function;
    if (plugged === undefined) throw new HostDescriptionError(`${name} is no PCI function`);
    return (plugged as AilingFunction).inner;
  }

  /** Pulls a device out of its slot, or takes it off the interconnect. */
  pullOut(name: string): void {
    const slot = this.#slot(name);
    if ("endpoint" in slot) this.#interconnect.unplug(name);
    else this.#roots.get(splitBdf(name).segment)!.unplug(slot.requesterId);
  }

  /**
   * Makes kernel and devices fail by rules (kernel/injection-plan.ts says which there are) from now on; what was told before is
   * forgotten. The plan says what it has done. Throws InjectionSyntaxError for a rule it does not understand, HostDescriptionError for a
   * device there is not.
   */
  inject(rules: readonly string[], seed = 0): InjectionPlan {
    const known = { ioctl: IOCTL_NAMES, allocation: ALLOCATIONS };
    const plan = new InjectionPlan(rules, seed, this.trace, known, (ns) => this.clock.advance(ns));
    const skip = plan.skipsCommands ? (name: string) => plan.skipCommand(name) : null;
    for (const iommu of this.#iommus.values()) iommu.skipCommand = skip;
    this.#corruptEntries(plan);
    const ailing = plan.devices.map((rule) => ({ rule, ailment: this.#ailing(this.resolve(rule.device)).ailment }));
    for (const name of this.deviceNames) Object.assign(this.#ailing(name).ailment, { dead: false, delayNs: 0 });
    for (const { rule, ailment } of ailing) {
      Object.assign(ailment, { dead: rule.dead, delayNs: rule.delayNs });
      if (this.trace.on) this.trace.emit({ type: "injection", point: "device", name: rule.device, rule: rule.text });
    }
    this.#kernel.injector = plan;
    return plan;
  }

  /** Does something while nothing fails. */
  soundly(action: () => void): void {
    const { injector } = this.#kernel;
    this.#kernel.injector = NO_INJECTION;
    action();
    this.#kernel.injector = injector;
  }

  /** A device's DMA goes through a first stage that user space owns. */
  #isNested(name: string): boolean {
    const group = this.#kernel.iommu.groups.find(({ devices }) => devices.some((one) => one.name === name));
    return group?.domain.kind === "nested";
  }

  /** Has the IOMMUs ask a plan with entry rules, and no longer one from before. */
  #corruptEntries(plan: InjectionPlan): void {
    const written = [...new Set(plan.entryDevices)].map((name) => ({ name, device: this.resolve(name) }));
    for (const { device } of written) {
      const name = this.iommuOf(device);
      const iommu = this.#iommus.get(name);
      if (iommu === undefined) throw new HostDescriptionError(`${device} is behind no IOMMU: it has no entries`);
      const entries = this.#corrupted.get(name) ?? corruptedEntries(iommu, this.#memory);
      if (entries === null)
        throw new HostDescriptionError(`${name}: entries of a ${iommu.kind} IOMMU cannot be corrupted`);
      this.#corrupted.set(name, entries);
    }
    for (const [iommu, entries] of this.#corrupted) {
      const behind = written.filter(({ device }) => this.iommuOf(device) === iommu);
      const names = new Map(behind.map(({ name, device }) => [this.deviceIdOf(device), name]));
      // A kernel whose own tables rot is no longer one whose behaviour is modelled: a guest's stage 1 only.
      entries.ask = (deviceId, address, entry) => {
        const name = names.get(deviceId);
        return name === undefined || !this.#isNested(this.resolve(name)) ? -1 : plan.corruptedBit(name, address, entry);
      };
      if (behind.length === 0) entries.ask = null;
    }
  }

  /**
   * Has every DMA reported that goes by a translation which an IOMMU cached and its tables no longer hold (hw/iommu/stale-accesses.ts); `nested`: through a first stage that user space owns. Throws
   * HostDescriptionError for a kind of IOMMU that cannot say.
   */
  reportStaleAccesses(report: (device: string, iommu: string, nested: boolean, access: StaleAccess) => void): void {
    for (const [name, iommu] of this.#iommus) {
      const able = reportStaleAccesses(iommu, (access) => {
        const device = this.deviceNames.find(
          (known) => this.iommuOf(known) === name && this.deviceIdOf(known) === access.deviceId,
        );
        const nested = device !== undefined && this.#isNested(device);
        report(device ?? `device 0x${access.deviceId.toString(16)}`, name, nested, access);
      });
      if (!able) throw new HostDescriptionError(`${name}: a ${iommu.kind} IOMMU cannot be checked for stale accesses`);
    }
  }

  /**
   * What a device's IOMMU says of an access: by its caches, and by the tables as they are now. Nothing changes by asking. null without an
   * IOMMU, or for a kind that cannot say what its tables hold. `pasid` -1: none.
   */
  askTranslation(device: string, iova: bigint, write: boolean, pasid = -1): AskedTranslation | null {
    const { iommu } = this.#slot(device);
    if (iommu === null) return null;
    return askTranslation(iommu, this.deviceIdOf(device), pasid, write ? ACCESS_WRITE : ACCESS_READ, iova);
  }

  /** Physical memory, for tests that damage it on purpose. */
  get memory(): PhysicalMemory<HpaPfn> {
    return this.#memory;
  }

  get dmaCounters(): DmaCounters {
    const sum = { transfers: 0, bytes: 0, aborted: 0, messages: 0 };
    const slots = [...[...this.#roots.values()].flatMap((root) => root.slots), ...this.#interconnect.slots];
    for (const { dma } of slots) {
      sum.transfers += dma.counters.transfers;
      sum.bytes += dma.counters.bytes;
      sum.aborted += dma.counters.aborted;
      sum.messages += dma.counters.messages;
    }
    return sum;
  }

  /** The host as a tree of plain values, for `nestbox inspect`. */
  describe(): Record<string, unknown> {
    const iommus: Record<string, unknown> = {};
    for (const [name, hardware] of this.#iommus) {
      iommus[name] = { kind: hardware.kind, devices: this.#behind(hardware).join(" ") || "none" };
    }
    const devices: Record<string, unknown> = {};
    const common = ({ name, slot, driver }: PciDevice | PlatformDevice) => {
      const { transfers, bytes, aborted, messages } = slot.dma.counters;
      return {
        iommu: slot.iommu?.name ?? "none",
        "iommu group": this.groupOf(name)?.id ?? "none",
        "device id": slot.iommu === null && "endpoint" in slot ? "none" : hex(slot.deviceId),
        driver: driver?.name ?? "none",
        dma: `${transfers} transfers, ${bytes} bytes, ${aborted} aborted, ${messages} MSIs`,
      };
    };
    for (const device of this.#kernel.pci.devices) {
      devices[device.name] = { id: `${hex(device.vendorId, 4)}:${hex(device.deviceId, 4)}`, ...common(device) };
    }
    for (const device of this.#kernel.platform.devices) {
      const { bases, endpoint, canStall } = device.slot;
      devices[device.name] = {
        compatible: device.compatible,
        registers: endpoint.regions.map(({ size }, i) => `${hex(bases[i]!)} + ${hex(size)}`).join(", "),
        ...common(device),
        stalls: canStall ? "its transactions may wait (dma-can-stall)" : "never",
      };
    }
    const groups: Record<string, unknown> = {};
    for (const group of this.#kernel.iommu.groups) {
      groups[group.id] = group.devices.map(({ name }) => name).join(" ");
    }
    const live: Record<string, unknown> = {};
    for (const [kind, count] of this.liveKinds) live[kind] = count;
    return {
      name: this.description.name,
      memory: `${this.description.memory / 2 ** 20} MiB`,
      iommus,
      "iommu groups": groups,
      devices,
      "live objects": live,
    };
  }

  #behind(hardware: HardwareIommu): string[] {
    const devices = [...this.#kernel.pci.devices, ...this.#kernel.platform.devices];
    return devices.filter(({ slot }) => slot.iommu === hardware).map(({ name }) => name);
  }

  /** Objects of the kernel's that somebody still holds; 0 once every process has ended. */
  get liveObjects(): number {
    return this.#kernel.liveObjects;
  }

  get liveKinds(): readonly [string, number][] {
    return this.#kernel.liveKinds;
  }

  [Symbol.dispose](): void {
    for (const process of this.#kernel.processes) process.exit();
    this.closeFiles();
  }

  /** Closes the files behind drives: what must not be left undone when a run breaks off; nothing else of the host is touched. */
  closeFiles(): void {
    for (const file of this.#files.splice(0)) file.close();
  }

  #makeRam(bytes: number): ArrayBuffer {
    try {
      return new ArrayBuffer(bytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new HostDescriptionError(
        `${this.description.name}: memory: ${bytes} bytes are more than this machine gives`,
      );
    }
  }

  /** Every device is put in its place through one of these (`#plug`, `#place`). */
  #ailing(name: string): AilingFunction | AilingEndpoint {
    const slot = this.#slot(name);
    return "endpoint" in slot ? (slot.endpoint as AilingEndpoint) : (slot.function as AilingFunction);
  }

  #slot(name: string): PciSlot | PlatformSlot {
    const slot = this.#busOf(name).bus.device(name)?.slot;
    if (slot === undefined) throw new HostDescriptionError(`host ${this.description.name} has no device ${name}`);
    return slot;
  }

  #plug(root: RootComplex, device: DeviceDescription, openFile: HostParts["openBlockFile"]): void {
    const iommu = device.iommu === undefined ? null : this.#iommus.get(device.iommu)!;
    const open: OpenBlockFile = (name, blockBytes) => {
      const file = openFile!(name, blockBytes);
      this.#files.push(file);
      return file;
    };
    const model = makeFunction(this.description.name, device, openFile && open);
    const made = new AilingFunction(model, (ns) => this.clock.advance(ns));
    try {
      root.plug(splitBdf(device.bdf).requesterId, made, iommu, pciDeviceId(device.bdf));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new HostDescriptionError(`${this.description.name}: ${error.message}`);
    }
  }

  #place(device: PlatformDeviceDescription): void {
    const { name, iommu, deviceId = 0, canStall } = device;
    const endpoint = new AilingEndpoint(makePlatformDevice(device), (ns) => this.clock.advance(ns));
    const hardware = iommu === undefined ? null : this.#iommus.get(iommu)!;
    this.#interconnect.plug(endpoint, { name, iommu: hardware, deviceId, canStall });
  }

  /** RAM: the kernel's own; what processes lend is theirs to save. */
  saveState(keep: KeepBytes = bytesOf): StateRecord {
    return { processes: this.#processes, ram: keep(this.#ram) };
  }

  restoreState(state: StateReader): void {
    this.#processes = state.number("processes");
    state.memory("ram", this.#ram);
  }

  get #ram(): Uint8Array {
    return this.#memory.banks.find(({ basePfn }) => basePfn === RAM_PFN)!.bytes;
  }

  /** Hardware before the kernel, whose objects take up what they find there. Clock and trace are the machine's. */
  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["interrupt files", this.#interruptFiles];
    for (const [name, iommu] of this.#iommus) {
      if (!isStateful(iommu)) throw new StateError(`${name}: IOMMUs of the kind "${iommu.kind}" save no state`);
      yield [name, iommu];
    }
    for (const [segment, root] of this.#roots) yield [`segment ${segment}`, root];
    yield ["interconnect", this.#interconnect];
    yield ["kernel", this.#kernel];
  }
}

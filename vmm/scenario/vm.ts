// A VM in a scenario: the machine of a component guest without a vCPU; the scenario is the guest. Verbs on the VM and its devices are what
// a guest driver would do, plus the device's own side (DMA), which a scenario asks for directly.

import type { Clock } from "../../host/base/clock.ts";
import type { Trace, TracedEvent } from "../../host/base/trace.ts";
import type { DmaPort } from "../../host/devices/ports.ts";
import type { Host } from "../../host/host.ts";
import type { AssignedEntry, VirtualIommu } from "../assignment.ts";
import { ASSIGNMENT_FORM, isOnPlatform, misplaced, parseAssignment } from "../assignment-text.ts";
import { ComponentMachine } from "../component-machine.ts";
import { CountingCalls } from "../counting-calls.ts";
import { MSI_BASE, RAM_BASE, SW_MSI_BASE, SW_MSI_SIZE } from "../memory-map.ts";
import { formatBdf, formatPlace, parseBdf, UNREACHABLE } from "../pci/host-bridge.ts";
import { collectWalks, type Walk } from "../view/walks.ts";
import type { FaultWord, GuestSide, PageRequest } from "../viommu/guest-driver.ts";
import type { ViommuKind } from "../viommu/kind.ts";
import type {
  ConfigurationOf,
  DefaultKind,
  DriverOf,
  FaultOf,
  Stage1ModeOf,
  Stage1Of,
  ViommuKindName,
} from "../viommu/kinds.ts";
import { EduDriver } from "./edu.ts";
import { ScenarioEndpoint } from "./endpoint.ts";
import { GuestRam } from "./guest-memory.ts";
import { ScenarioPlatformDevice } from "./platform-device.ts";
import { ExpectationFailed } from "./scenario.ts";

const CAPABILITY_VENDOR = 0x09;
/** Behind id, next, length and revision. */
const FEATURES_AT = 4;

export interface VmOptions<K extends ViommuKindName = DefaultKind> {
  /** Kind of the guest-visible IOMMU. */
  readonly kind?: K;
  readonly host?: Host;
  /** On a host whose 0000:00:01.0 has PASIDs, ATS and page requests, where none is named. */
  readonly services?: boolean;
  /** Bytes of RAM, a multiple of 64 KiB. Default 16 MiB. */
  readonly memory?: number;
  /**
   * "HOST-BDF@GUEST-BDF" each; "HOST-BDF@00:03.0/00.0" behind a root port, whose bus the guest numbers. Append "/NAME" to put a device
   * behind a vIOMMU of its own. Of a platform device: "HOST-NAME@0xID", its id at the vIOMMU.
   */
  readonly assign?: readonly string[];
  /**
   * Takes devices whose iommu group has others, too. The group is one stream with one context (the kind's README says what the guest
   * sees of it). Default: they are refused.
   */
  readonly allowSharedGroup?: boolean;
  readonly configuration?: ConfigurationOf<K>;
  /** False: the scenario brings the vIOMMU up itself. Default true. */
  readonly bringUp?: boolean;
}

/** A fault as a scenario expects it: in every kind's words, or by fields of the architecture's own record. */
export type ExpectedFault<K extends ViommuKindName = DefaultKind> = ExpectedWords<K> & Partial<FaultOf<K>>;

interface ExpectedWords<K extends ViommuKindName> {
  readonly what?: FaultWord;
  readonly device?: ScenarioEndpoint<K>;
  readonly iova?: bigint;
  readonly write?: boolean;
  readonly pasid?: number;
}

export class ScenarioVm<K extends ViommuKindName = DefaultKind> {
  readonly ram: GuestRam;
  readonly machine: ComponentMachine;
  readonly host: Host;
  readonly name: string;
  readonly kind: ViommuKind;
  readonly #devices: ScenarioDevice<K>[] = [];
  readonly #platformDevices: ScenarioPlatformDevice<K>[] = [];
  readonly #iommus: DriverOf<K>[] = [];
  readonly #calls: CountingCalls;
  readonly #trace: Trace;
  #tags = 1;

  constructor(
    kind: ViommuKind,
    host: Host,
    options: VmOptions<K>,
    clock: Clock,
    trace: Trace,
    report: (message: string) => void,
  ) {
    const process = host.createProcess();
    this.kind = kind;
    this.host = host;
    this.name = process.name;
    const memoryBytes = options.memory ?? 16 * 2 ** 20;
    this.#calls = new CountingCalls(process);
    this.#trace = trace;
    let machine: ComponentMachine | null = null;
    try {
      machine = new ComponentMachine({
        clock,
        trace,
        calls: this.#calls,
        memoryBytes,
        kind: this.kind,
        configuration: options.configuration ?? {},
        allowSharedGroup: options.allowSharedGroup === true,
        report,
      });
      this.machine = machine;
      const told = { trace, process: this.name };
      this.ram = new GuestRam(this.machine.memory, BigInt(RAM_BASE), BigInt(memoryBytes), told);
      // Platform devices first: whether transactions may stall is what a vIOMMU says from its start.
      const [platform, functions] = split(options.assign ?? [], isOnPlatform);
      for (const assignment of platform) this.assignPlatform(assignment, false);
      for (const assignment of functions) this.assign(assignment, false);
      if (options.bringUp !== false) this.bringUp();
    } catch (error) {
      // A scenario may go on after a refusal: what was assigned before it is free again.
      machine?.[Symbol.dispose]();
      host.endProcess(this.name);
      throw error;
    }
  }

  /** The first vIOMMU's guest driver. */
  get iommu(): DriverOf<K> {
    const first = this.#iommus[0];
    if (first === undefined) throw new Error("this VM has no vIOMMU that is up: assign a device, or call bringUp");
    return first;
  }

  get iommus(): readonly DriverOf<K>[] {
    return this.#iommus;
  }

  get devices(): readonly ScenarioDevice<K>[] {
    return this.#devices;
  }

  /** Devices on no bus. */
  get platformDevices(): readonly ScenarioPlatformDevice<K>[] {
    return this.#platformDevices;
  }

  /** The platform device with this id at its vIOMMU. */
  platformDevice(guestId: number): ScenarioPlatformDevice<K> {
    const device = this.#platformDevices.find((candidate) => candidate.guestId === guestId);
    if (device === undefined) throw new Error(`this VM has no platform device 0x${guestId.toString(16)}`);
    return device;
  }

  /** The device at a guest BDF. */
  device(bdf: string): ScenarioDevice<K> {
    const routingId = parseBdf(bdf);
    const device = this.#devices.find((candidate) => candidate.guestId === routingId);
    if (device === undefined) throw new Error(`this VM has no device at ${bdf}`);
    return device;
  }

  /** Assigns (hot-plugs) "HOST-BDF@GUEST-BDF"; bus mastering is turned on. Throws HostRefusal. */
  assign(assignment: string, bringUp = true): ScenarioDevice<K> {
    const { place, request } = this.#request(assignment);
    if ("guestId" in place) throw new Error(`"${assignment}" is a platform device: assignPlatform`);
    const entry = this.machine.assignment.assign({ ...request, ...place });
    const device = new ScenarioDevice<K>(this, entry, this.host.dmaOf(request.hostName));
    device.configWrite16(4, 0x6);
    this.#devices.push(device);
    if (bringUp) this.bringUp();
    return device;
  }

  /** Assigns (hot-plugs) the platform device "HOST-NAME@0xID". Throws HostRefusal. */
  assignPlatform(assignment: string, bringUp = true): ScenarioPlatformDevice<K> {
    const { place, request } = this.#request(assignment);
    if (!("guestId" in place)) throw new Error(`"${assignment}" is a PCI function: assign`);
    const entry = this.machine.assignment.platform.assign({ ...request, ...place });
    const viommu = this.machine.assignment.viommus[entry.viommu] ?? null;
    const device = new ScenarioPlatformDevice<K>(this, entry, viommu, this.host.dmaOf(request.hostName));
    this.#platformDevices.push(device);
    if (bringUp) this.bringUp();
    return device;
  }

  #request(assignment: string) {
    const written = parseAssignment(assignment);
    if (written === undefined) throw new Error(`"${assignment}": ${ASSIGNMENT_FORM}`);
    const { place, viommu } = written;
    const assignable = this.host.assignable(this.host.resolve(written.hostName));
    const wrong = misplaced(assignable.hostName, assignable.bus, place);
    if (wrong !== null) throw new Error(`"${assignment}": ${wrong}`);
    return { place, request: { ...assignable, ...(viommu === undefined ? {} : { viommu }) } };
  }

  /** Hot-unplugs a device. */
  unassign(device: ScenarioDevice<K> | ScenarioPlatformDevice<K>): void {
    const { assignment } = this.machine;
    if (device instanceof ScenarioPlatformDevice) {
      dropFrom(this.#platformDevices, device);
      assignment.platform.unassign(device.entry);
    } else {
      dropFrom(this.#devices, device);
      assignment.unassign(device.entry);
    }
    this.settle();
  }

  /** A root port's registers, or any function's, as the guest's bus enumeration writes them. */
  configWrite(bdf: string, offset: number, size: 1 | 2 | 4, value: number): void {
    const routingId = parseBdf(bdf);
    if (routingId === undefined) throw new Error(`"${bdf}" is not a PCI address`);
    this.machine.pci.configWrite(routingId, offset, size, value);
    this.settle();
  }

  /** Starts the guest's driver on every vIOMMU that has none yet. */
  bringUp(): void {
    const { viommus } = this.machine.assignment;
    for (let i = this.#iommus.length; i < viommus.length; i++) {
      const { ram } = this;
      const { base, viommu } = viommus[i]!;
      const surroundings = {
        port: this.machine.machine,
        ram,
        base,
        messageAddress: MSI_BASE,
        firstMessage: 64 + 4 * i,
        hardwareQueues: viommu.hardwareQueues === true,
      };
      this.#iommus.push(this.#guest.driver(surroundings) as DriverOf<K>);
    }
  }

  /** The guest driver of the vIOMMU that a device is behind. */
  iommuOf(device: ScenarioEndpoint<K>): DriverOf<K> {
    return this.#iommus[device.viommu!.index]!;
  }

  /** An empty first stage in guest RAM, with the host's MSI window mapped one to one (unless told not to). */
  stage1(mode?: Stage1ModeOf<K>, options: { tag?: number; pscid?: number; msiWindow?: boolean } = {}): Stage1Of<K> {
    const stage1 = this.#guest.stage1(this.ram, options.tag ?? options.pscid ?? this.#tags++, mode) as Stage1Of<K>;
    if (options.msiWindow !== false) {
      // One leaf for each page the host uses would do; the whole window is what a guest is told to map.
      stage1.map(MSI_WINDOW.base, MSI_WINDOW.base, MSI_WINDOW.size);
    }
    return stage1;
  }

  /** System calls this VM has made of the host so far, by request. */
  get hostCalls(): Readonly<Record<string, number>> {
    return this.#calls.counts;
  }

  /** The walks the hardware makes while `act` runs: one for each DMA. */
  walksOf(act: () => void): Walk[] {
    const events: TracedEvent[] = [];
    const sink = { event: (event: TracedEvent) => void events.push(event) };
    this.#trace.addSink(sink);
    act();
    this.#trace.removeSink(sink);
    return collectWalks(events);
  }

  /** Does what is due and flagged, as at the end of a trap. */
  settle(): void {
    this.machine.machine.settle();
  }

  /** Interrupts the guest takes now, lowest number first. */
  takeInterrupts(): number[] {
    const taken: number[] = [];
    this.settle();
    // A wire that nobody lowers stays pending: stop when a number comes again.
    for (let next = this.machine.interrupts.take(); next >= 0 && !taken.includes(next); ) {
      taken.push(next);
      next = this.machine.interrupts.take();
    }
    return taken;
  }

  /** Fault records the guest finds now, of every vIOMMU. */
  takeFaults(): FaultOf<K>[] {
    this.settle();
    return this.#iommus.flatMap((iommu) => iommu.takeFaults() as FaultOf<K>[]);
  }

  /** Page requests that wait for the guest now, oldest first, of every vIOMMU. */
  takePageRequests(): PageRequest[] {
    this.settle();
    return this.#iommus.flatMap((iommu) => iommu.takeRequests());
  }

  /** The guest finds exactly one fault record, and it is this one; with `what`, nothing where that kind of IOMMU says nothing. */
  expectFault(expected: ExpectedFault<K> & { readonly what?: undefined }): FaultOf<K>;
  expectFault(expected: ExpectedFault<K>): FaultOf<K> | null;
  expectFault(expected: ExpectedFault<K>): FaultOf<K> | null {
    const guest = this.#guest;
    const { what, device, iova, write, pasid, ...fields } = expected as ExpectedWords<K> & Record<string, unknown>;
    const heard = what === undefined ? null : guest.hears(what, write === true);
    const records = this.takeFaults();
    const found = records.map((record) => guest.describeFault(record)).join("; ") || "none";
    if (heard !== null && heard.code === null) {
      if (records.length === 0) return null;
      throw new ExpectationFailed(
        `expected that the guest hears nothing of "${what}" (${heard.section}), found ${found}`,
      );
    }
    const record = records[0];
    const code = heard?.code ?? (typeof fields.cause === "number" ? fields.cause : null);
    if (records.length !== 1 || record === undefined) {
      const name = code === null ? "" : ` (${guest.faultName(code)})`;
      throw new ExpectationFailed(`expected one fault record${name}, found ${records.length}: ${found}`);
    }
    const fault = guest.faultOf(record);
    const own = record as object as Readonly<Record<string, unknown>>;
    const mismatch =
      (heard !== null && fault.code !== heard.code) ||
      (device !== undefined && fault.deviceId !== device.guestId) ||
      (iova !== undefined && (fault.address === null || fault.address >> 12n !== iova >> 12n)) ||
      (write !== undefined && fault.write !== write) ||
      (pasid !== undefined && fault.pasid !== pasid) ||
      Object.entries(fields).some(([name, value]) => value !== undefined && own[name] !== value);
    if (mismatch) {
      const wanted = {
        ...fields,
        ...(heard === null ? {} : { what, code: heard.code, section: heard.section }),
        write,
        pasid,
        device: device?.name,
        iova: iova === undefined ? undefined : `0x${iova.toString(16)}`,
      };
      throw new ExpectationFailed(`the fault record is ${found}; expected ${JSON.stringify(wanted, bigintText)}`);
    }
    return record;
  }

  /** Messages of assigned devices pass by their stage 1: it needs no window of the host's. */
  get messagesPassBy(): boolean {
    return this.#guest.messagesPassBy === true;
  }

  /** A device that changes from one set-up to another has none in between. */
  get switchesBlock(): boolean {
    return this.#guest.switchesBlock === true;
  }

  expectNoFault(): void {
    const records = this.takeFaults();
    if (records.length > 0)
      throw new ExpectationFailed(`expected no fault, found ${this.#guest.describeFault(records[0])}`);
  }

  get #guest(): GuestSide {
    return this.kind.guest;
  }

  [Symbol.dispose](): void {
    this.machine[Symbol.dispose]();
    this.host.endProcess(this.name);
  }
}

/** An assigned device, from the guest's side (context, configuration) and from its own (DMA). */
export class ScenarioDevice<K extends ViommuKindName = DefaultKind> extends ScenarioEndpoint<K> {
  readonly entry: AssignedEntry;

  constructor(vm: ScenarioVm<K>, entry: AssignedEntry, dma: DmaPort) {
    super(vm, dma);
    this.entry = entry;
  }

  /** The guest's device id; -1 while the bus it is on has no number. */
  get guestId(): number {
    return this.entry.routingId;
  }

  /** "00:02.0". */
  get name(): string {
    return this.guestId === UNREACHABLE ? formatPlace(this.entry.request) : formatBdf(this.guestId);
  }

  get hostName(): string {
    return this.entry.request.hostName;
  }

  get canStall(): boolean {
    return false;
  }

  get viommu(): VirtualIommu | null {
    return this.entry.viommu;
  }

  configRead32(offset: number): number {
    return this.entry.device.configRead(offset, 4);
  }

  configWrite16(offset: number, value: number): void {
    this.entry.device.configWrite(offset, 2, value);
  }

  configWrite32(offset: number, value: number): void {
    this.entry.device.configWrite(offset, 4, value);
  }

  /** Enables the device's MSI with this address and data, as a guest driver does. */
  enableMsi(address: bigint, data: number): void {
    const at = this.#capability(0x05);
    const control = this.entry.device.configRead(at + 2, 2);
    const wide = (control & 0x80) !== 0;
    this.configWrite32(at + 4, Number(address & 0xffffffffn));
    if (wide) this.configWrite32(at + 8, Number(address >> 32n));
    this.configWrite16(at + (wide ? 12 : 8), data);
    this.configWrite16(at + 2, control | 1);
    this.vm.settle();
  }

  #capability(id: number): number {
    const at = this.findCapability(id);
    if (at === 0) throw new Error(`device ${this.name} has no capability 0x${id.toString(16)}`);
    return at;
  }

  /** Offset of a capability in configuration space, 0 if there is none. */
  findCapability(id: number): number {
    let at = this.entry.device.configRead(0x34, 1);
    for (let hops = 0; at >= 0x40 && hops < 48; hops++) {
      if (this.entry.device.configRead(at, 1) === id) return at;
      at = this.entry.device.configRead(at + 1, 1);
    }
    return 0;
  }

  /** The guest's driver for an edu device. */
  get edu(): EduDriver {
    const bar = this.entry.device.bars[0];
    if (bar == null) throw new Error(`device ${this.name} is no edu device: it has no BAR 0`);
    // Features stand in the vendor-specific capability: revision, then 16 bits of them.
    const at = this.findCapability(CAPABILITY_VENDOR);
    return new EduDriver(this, bar.registers, at === 0 ? 0 : this.entry.device.configRead(at + FEATURES_AT, 2));
  }
}

function dropFrom<T>(list: T[], item: T): void {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
}

/** Those that `first` says yes to, and the rest. */
function split<T>(list: readonly T[], first: (item: T) => boolean): [T[], T[]] {
  return [list.filter(first), list.filter((item) => !first(item))];
}

function bigintText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? `0x${value.toString(16)}` : value;
}

/** The window that a first stage must map one to one. */
export const MSI_WINDOW = { base: BigInt(SW_MSI_BASE), size: BigInt(SW_MSI_SIZE) } as const;

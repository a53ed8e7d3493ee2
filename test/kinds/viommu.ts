// The test kind's guest-visible half in four shapes, and the kind itself as hosts and machines take it.

import * as z from "zod";
import type { GpaPfn } from "../../host/base/address.ts";
import { ACCESS_OK } from "../../host/base/memory.ts";
import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import type { StateReader, StateRecord } from "../../host/base/state.ts";
import type { DmaPort } from "../../host/devices/ports.ts";
import type { HostKinds } from "../../host/host.ts";
import { EEXIST, ENODEV } from "../../host/uapi/errno.ts";
import type {
  DeviceTranslation,
  DriverSurroundings,
  FaultWord,
  GuestDriver,
  GuestMemory,
  GuestSide,
  GuestStage1,
  MapOptions,
  PageRequest,
} from "../../vmm/viommu/guest-driver.ts";
import type { HostEvent, ViommuHost } from "../../vmm/viommu/host-port.ts";
import type {
  CapabilitySheet,
  Disposition,
  GuestVisibleIommu,
  PluggedDevice,
  PluggedState,
  ViommuActivity,
  ViommuKind,
  ViommuOptions,
} from "../../vmm/viommu/kind.ts";
import type { NestedCodec } from "../../vmm/viommu/nested-codec.ts";
import { TrivialDriver } from "./driver.ts";
import {
  ALL,
  BYPASS,
  EVENTS,
  eventData,
  GUEST,
  GUEST_REGISTER_BYTES,
  INVALIDATION,
  invalidationData,
  OPERATION_ENTER,
  OPERATION_MAP,
  QUEUE,
  QUEUE_ENTRIES,
  QUEUE_PAGE,
  queueReply,
  RUN_BYTES,
  RUNS,
  STAGE1,
  stage1Data,
  VIOMMU,
  VIOMMU_QUEUES,
} from "./formats.ts";
import { TrivialHardware } from "./hardware.ts";

export type Shape = "viommu" | "hwpt" | "mapped" | "hardware queue";

const NO_DMA: DmaPort = { read: () => 1, write: () => 1 };

class TrivialViommu implements GuestVisibleIommu {
  readonly name: string;
  high = 0;
  flagged = false;
  cause = 0;
  commandsExecuted = 0;
  readonly capabilitySheet: CapabilitySheet = { registers: {}, rows: [] };
  readonly #options: ViommuOptions;
  readonly #shape: Shape;
  readonly #host: ViommuHost | null;
  readonly #states = new Map<number, { device: PluggedDevice; table: bigint }>();
  readonly #words = new Map<number, bigint>();
  readonly #faults: { readonly device: number; readonly write: number; readonly page: bigint }[] = [];
  #queue = -1;

  constructor(options: ViommuOptions, shape: Shape) {
    this.name = options.name;
    this.#options = options;
    this.#shape = shape;
    this.#host = options.host;
    if (this.#host !== null) {
      this.#host.onEvents = () => {
        this.flagged = true;
      };
    }
  }

  get activity(): ViommuActivity {
    const nested = [...this.#states.values()].filter(({ table }) => table !== 0n && table !== BYPASS).length;
    return { commands: { INVALIDATE: this.commandsExecuted }, faults: this.#faults.length, nested, bypass: 0 };
  }

  get plugged(): PluggedState[] {
    return [...this.#states.values()].map(({ device, table }) => {
      const disposition: Disposition = table === 0n ? "blocked" : table === BYPASS ? "bypass" : "nested";
      return { device, disposition, cause: 1, refusal: 0 };
    });
  }

  service(): void {
    this.flagged = false;
    for (const event of this.#host?.events() ?? []) this.#take(event);
  }

  plug(device: PluggedDevice): number {
    if (this.#states.has(device.guestId)) return -EEXIST;
    const errno = this.#host?.attach(device.handle, BigInt(device.guestId)) ?? -ENODEV;
    if (errno === 0) this.#states.set(device.guestId, { device, table: 0n });
    return errno;
  }

  unplug(guestId: number): number {
    const state = this.#states.get(guestId);
    if (state === undefined) return 0;
    this.#states.delete(guestId);
    return this.#host?.detach(state.device.handle) ?? 0;
  }

  deviceReset(): void {}

  reset(): void {
    for (const guestId of this.#states.keys()) this.#install(guestId, 0n);
    this.#words.clear();
  }

  messagePage(guestId: number, pfn: number): number {
    const table = this.#states.get(guestId)?.table ?? 0n;
    if (table === 0n || table === BYPASS) return table === 0n ? -1 : pfn;
    const { memory } = this.#options;
    for (let i = 0; i < RUNS; i++) {
      const [from, to, pages] = [0, 8, 16].map((field) => {
        const status = memory.load64(Number(table) as GpaPfn, i * RUN_BYTES + field);
        return status === ACCESS_OK ? memory.lo + memory.hi * 2 ** 32 : 0;
      }) as [number, number, number];
      if (pages === 0) return -1;
      if (pfn >= from && pfn < from + pages) return to + pfn - from;
    }
    return -1;
  }

  emulatedDma(): DmaPort {
    return NO_DMA;
  }

  mmioRead(offset: number, _size: AccessSize): number {
    const fault = this.#faults[0];
    const value =
      offset === GUEST.FAULT_DEVICE
        ? BigInt(fault?.device ?? ALL)
        : offset === GUEST.FAULT_WRITE
          ? BigInt(fault?.write ?? 0)
          : offset === GUEST.FAULT_PAGE
            ? (fault?.page ?? 0n)
            : (this.#words.get(offset) ?? 0n);
    this.high = Number(value >> 32n);
    return Number(value & 0xffffffffn);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    const value = (BigInt(size === 8 ? hi : 0) << 32n) | BigInt(lo);
    this.#words.set(offset, value);
    const word = (register: number) => this.#words.get(register) ?? 0n;
    const device = Number(word(GUEST.DEVICE));
    if (offset === GUEST.STAGE1) this.#install(device, value);
    else if (offset === GUEST.INVALIDATE) this.#invalidate(lo);
    else if (offset === GUEST.FAULT_DEVICE) this.#faults.shift();
    else if (offset === GUEST.OPERATION) this.#status(this.#operate(lo, device, word));
    else if (offset === GUEST.QUEUE) this.#status(this.#startQueue(value));
  }

  #status(errno: number): void {
    this.#words.set(GUEST.STATUS, BigInt(-Math.min(errno, 0)));
  }

  #install(guestId: number, table: bigint): void {
    const state = this.#states.get(guestId);
    if (state === undefined || this.#host === null) return;
    const { handle } = state.device;
    const errno =
      table === 0n
        ? this.#host.setBlocked(handle)
        : table === BYPASS
          ? this.#host.setBypass(handle)
          : this.#host.setNested(handle, stage1Data.encode({ table }));
    if (errno === 0) state.table = table;
    this.#status(errno);
  }

  #invalidate(guestId: number): void {
    this.commandsExecuted++;
    const handle = this.#states.get(guestId)?.device.handle;
    const batch = invalidationData.encode({ device: guestId });
    this.#status(this.#host?.invalidate(batch, 1, this.#shape === "hwpt" ? handle : undefined).errno ?? 0);
  }

  #operate(operation: number, guestId: number, word: (register: number) => bigint): number {
    const domains = this.#host?.domains;
    const domain = Number(word(GUEST.DOMAIN));
    if (domains === undefined) return -ENODEV;
    if (operation === OPERATION_ENTER) {
      const handle = this.#states.get(guestId)?.device.handle;
      return handle === undefined ? -ENODEV : domains.attach(handle, domain);
    }
    if (operation !== OPERATION_MAP) return domains.unmap(domain, word(GUEST.IOVA), word(GUEST.LENGTH));
    return domains.map(domain, word(GUEST.IOVA), word(GUEST.GPA), word(GUEST.LENGTH), 3);
  }

  #startQueue(gpa: bigint): number {
    const queues = this.#host?.hardwareQueues;
    if (queues === undefined) return -ENODEV;
    if (this.#queue >= 0) {
      this.#options.mapPage?.(QUEUE_PAGE, null);
      queues.free(this.#queue);
      this.#queue = -1;
    }
    const queue = queues.allocate(0, gpa, BigInt(QUEUE_ENTRIES * 4));
    if (queue < 0) return queue;
    const page: MmioPort | number = queues.page();
    if (typeof page === "number") {
      queues.free(queue);
      return page;
    }
    this.#queue = queue;
    this.#options.mapPage?.(QUEUE_PAGE, page);
    return 0;
  }

  #take(event: HostEvent): void {
    if (event.kind === "fault" && this.#faults.length < 64) this.#faults.push(eventData.decode(event.record));
  }

  saveState(): StateRecord {
    return {
      flagged: this.flagged,
      cause: this.cause,
      commandsExecuted: this.commandsExecuted,
      devices: [...this.#states].map(([guestId, { device, table }]) => ({ guestId, handle: device.handle, table })),
      words: [...this.#words].map(([offset, value]) => ({ offset, value })),
      faults: this.#faults.map(({ device, write, page }) => ({ device, write, page })),
      queue: this.#queue,
    };
  }

  restoreState(state: StateReader): void {
    const plugged = new Map([...this.#states.values()].map(({ device }) => [device.handle, device]));
    const devices = state
      .records("devices")
      .map((each): readonly [number, { device: PluggedDevice; table: bigint }] => {
        const device = plugged.get(each.number("handle")) ?? each.fail("handle", "is no device's here");
        return [each.number("guestId"), { device, table: each.bigint("table") }];
      });
    if (devices.length !== plugged.size) state.fail("devices", `are not ${plugged.size}`);
    this.#states.clear();
    for (const [guestId, entry] of devices) this.#states.set(guestId, entry);
    this.#words.clear();
    for (const word of state.records("words")) this.#words.set(word.number("offset"), word.bigint("value"));
    this.#faults.splice(0, this.#faults.length);
    for (const fault of state.records("faults")) {
      this.#faults.push({ device: fault.number("device"), write: fault.number("write"), page: fault.bigint("page") });
    }
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
    this.commandsExecuted = state.number("commandsExecuted");
    const queue = state.number("queue");
    if (queue === this.#queue) return;
    if (this.#queue >= 0) this.#options.mapPage?.(QUEUE_PAGE, null);
    this.#queue = queue;
    const page = queue < 0 ? -ENODEV : this.#host?.hardwareQueues?.page();
    if (typeof page === "object") this.#options.mapPage?.(QUEUE_PAGE, page);
  }
}

const STAGE1_FORMATS = {
  stage1Type: STAGE1,
  invalidationType: INVALIDATION,
  invalidationBytes: invalidationData.bytes,
  wantsPageRequests: () => false,
} as const;

function codecOf(shape: Shape): NestedCodec {
  if (shape === "mapped") return { shape: "mapped" };
  if (shape === "hwpt") return { shape: "hwpt", ...STAGE1_FORMATS };
  return {
    shape: "viommu",
    ...STAGE1_FORMATS,
    viommuType: () => (shape === "viommu" ? VIOMMU : VIOMMU_QUEUES),
    blocked: stage1Data.encode({ table: 0n }),
    bypass: stage1Data.encode({ table: BYPASS }),
    eventType: EVENTS,
    eventBytes: eventData.bytes,
    ...(shape === "viommu"
      ? {}
      : {
          hardwareQueues: {
            viommuType: VIOMMU_QUEUES,
            queueType: QUEUE,
            replyBytes: queueReply.bytes,
            page: (reply: Uint8Array) => {
              const { offset, length } = queueReply.decode(reply);
              return { offset, length: Number(length) };
            },
          },
        }),
  };
}

/** A guest driver of the test kind: its list of runs, and the registers of formats.ts. */
class TrivialGuestDriver implements GuestDriver {
  readonly offer = { ats: false, pageRequests: false, pasidBits: 0 };
  readonly #surroundings: DriverSurroundings;

  constructor(surroundings: DriverSurroundings) {
    this.#surroundings = surroundings;
  }

  installTranslation(deviceId: number, { whole }: DeviceTranslation): void {
    this.installContext(deviceId, {
      table: whole === null || whole === "blocked" ? 0n : whole === "bypass" ? BYPASS : (whole as TrivialStage1).page,
    });
  }

  installContext(deviceId: number, { table }: { readonly table: bigint }): void {
    this.#store(GUEST.DEVICE, deviceId);
    const { port, base } = this.#surroundings;
    port.store(base + GUEST.STAGE1, 8, Number(table & 0xffffffffn), Number(table >> 32n));
  }

  /** Of every device: the test kind's tags are its devices. */
  invalidate(): void {
    for (const device of [0x08, 0x10]) this.#store(GUEST.INVALIDATE, device);
  }

  fence(): void {}

  takeRequests(): PageRequest[] {
    return [];
  }

  takeFaults(): TrivialFault[] {
    const { port, base } = this.#surroundings;
    const faults: TrivialFault[] = [];
    for (;;) {
      const device = port.load(base + GUEST.FAULT_DEVICE, 4);
      if (device === ALL) return faults;
      const write = port.load(base + GUEST.FAULT_WRITE, 4) === 1;
      const page = port.load(base + GUEST.FAULT_PAGE, 8) + port.high * 2 ** 32;
      faults.push({ device, write, page });
      this.#store(GUEST.FAULT_DEVICE, 0);
    }
  }

  #store(register: number, value: number): void {
    const { port, base } = this.#surroundings;
    port.store(base + register, 4, value, 0);
  }
}

export interface TrivialFault {
  readonly device: number;
  readonly write: boolean;
  readonly page: number;
}

class TrivialStage1 implements GuestStage1 {
  readonly tag: number;
  readonly page: bigint;
  readonly #ram: GuestMemory;
  readonly #at: bigint;
  readonly #runs: (readonly [iova: bigint, gpa: bigint, pages: bigint, permissions: bigint])[] = [];

  constructor(ram: GuestMemory, tag: number) {
    this.tag = tag;
    this.#ram = ram;
    this.#at = ram.allocate();
    this.page = this.#at >> 12n;
  }

  map(iova: bigint, gpa: bigint, length: bigint, { read = true, write = true }: MapOptions = {}): void {
    this.#runs.push([iova >> 12n, gpa >> 12n, length >> 12n, (read ? 1n : 0n) | (write ? 2n : 0n)]);
    this.#store();
  }

  unmap(iova: bigint, length: bigint): void {
    const kept = this.#runs.filter(([from, , pages]) => from + pages <= iova >> 12n || from >= (iova + length) >> 12n);
    this.#runs.splice(0, this.#runs.length, ...kept);
    this.#store();
  }

  #store(): void {
    this.#ram.write(this.#at, new Uint8Array(4096));
    this.#runs.forEach((run, i) => {
      run.forEach((value, field) => {
        this.#ram.write64(this.#at + BigInt(i * RUN_BYTES + field * 8), value);
      });
    });
  }
}

const TRIVIAL_GUEST = {
  host: "trivial host",
  stage1Modes: ["runs"],
  stage1: (ram: GuestMemory, tag: number) => new TrivialStage1(ram, tag),
  driver: (surroundings: DriverSurroundings) => new TrivialGuestDriver(surroundings),
  hears: (what: FaultWord) => ({ code: what === "device not set up" ? null : 1, section: "README.md" }),
  faultOf: ({ device, write, page }: TrivialFault) => ({
    code: 1,
    deviceId: device,
    pasid: null,
    address: BigInt(page) << 12n,
    write,
  }),
  describeFault: ({ device, page }: TrivialFault) => `device ${device} page ${page}`,
  faultName: () => "refused",
} satisfies GuestSide;

export function trivialKind(shape: Shape): ViommuKind {
  return {
    name: "trivial",
    title: "test kind",
    registerBytes: GUEST_REGISTER_BYTES,
    addressBytes: QUEUE_PAGE + 4096,
    registerName: (offset) => `+0x${offset.toString(16)}`,
    nesting: codecOf(shape),
    node: { deviceTree: () => ({ compatible: "nestbox,trivial" }), region: "iommu", wires: 0 },
    guest: TRIVIAL_GUEST,
    explainer: {
      specification: "test/kinds/README.md",
      beginsAnew: (walk, next) => next.table === "stage1" || walk.at(-1)!.table === "stage2",
      describeEntry: ({ entry }) => `0x${entry.toString(16)}`,
      decodeEntry: () => ({ name: "run", specification: "test/kinds/README.md", section: "list", fields: [] }),
      decodeCommand: () => null,
      decodeFault: () => ({ name: "record", specification: "none", section: "§0", fields: [] }),
      stage1Output: () => null,
      stage2Input: () => null,
      servedTable: () => "stage1",
      faultAddress: () => null,
      faultWrites: ({ ttyp }) => ttyp === 1,
      explainFault: () => ({ blame: "the guest", why: "No run of the list holds the page.", section: "list" }),
      registers: (port) => ({ DEVICE: `0x${port.mmioRead(GUEST.DEVICE, 4).toString(16)}` }),
    },
    create: (options) => new TrivialViommu(options, shape),
  };
}

/** The kind's half of a host. */
export const TRIVIAL_HOST: HostKinds = {
  hardware: {
    trivial: { name: "trivial", options: z.strictObject({}), create: (parts) => new TrivialHardware(parts) },
  },
  drivers: { trivial: (parts) => new TrivialDriver(parts) },
};

// `nestbox fuzz ioctl`: random and nearly valid iommufd requests, reads, writes, mappings, closes and device operations from two
// processes, with allocations failing now and then; after every few calls the invariants of test/host/kernel/iommufd/invariants.ts
// are checked, and at the end of every round everything must be gone. Devices are the selftests', and in most rounds some behind IOMMUs of
// one kind that have hardware (ioctl/hardware.ts), which must see what the kernel says.
// Then rounds with SMMUv3s and with VT-d units, real functions behind them and a guest whose tables change (ioctl/smmuv3-round.ts, ioctl/vtd-round.ts).
//
// A finding prints the seed of its round: `--seed N` repeats it.

import { NO_PASID } from "../../host/devices/ports.ts";
import type { HardwareIommu } from "../../host/hw/iommu/port.ts";
import type { Injector } from "../../host/kernel/inject.ts";
import type { IommuDevice } from "../../host/kernel/iommu/driver.ts";
import { MockDevice } from "../../host/kernel/iommu/mock/mock-device.ts";
import { TestAccessFile, TestDmaBufferFile } from "../../host/kernel/iommu/mock/selftest-files.ts";
import type { IommufdContext } from "../../host/kernel/iommufd/context.ts";
import {
  attachDevice,
  type BoundDevice,
  bindDevice,
  contextOf,
  detachDevice,
  replaceDevice,
  unbindDevice,
} from "../../host/kernel/iommufd/in-kernel.ts";
import type { IommufdObject, ObjectType } from "../../host/kernel/iommufd/object-table.ts";
import { Viommu } from "../../host/kernel/iommufd/viommu.ts";
import type { Process } from "../../host/kernel/process.ts";
import { IOMMU_DESTROY, IOMMU_HWPT_ALLOC, IOMMU_IOAS_UNMAP, IOMMUFD_IOCTLS } from "../../host/uapi/iommufd.ts";
import { MAP_SHARED, O_RDWR, PROT_READ } from "../../host/uapi/system-calls.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { violations } from "../host/kernel/iommufd/invariants.ts";
import { MockHost } from "../host/kernel/iommufd/mock-host.ts";
import { addHardware, HARDWARE_KINDS, type KindValues, mistranslation } from "./ioctl/hardware.ts";
import { STEPS as SMMUV3_STEPS, smmuv3Round } from "./ioctl/smmuv3-round.ts";
import { STEPS as VFIO_STEPS, vfioRound } from "./ioctl/vfio-round.ts";
import { STEPS as VTD_STEPS, vtdRound } from "./ioctl/vtd-round.ts";

const STEPS = 600;
const MAX_ERRNO = 4095;

/** xorshift32: the same seed, the same round. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b) >>> 0 || 1;
  }

  below(limit: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state % limit;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

const EDGES = [0n, 1n, 0xfffn, 0x1000n, 0x1800n, 1n << 24n, 1n << 31n, (1n << 63n) - 1n, 0xffff_ffff_ffff_f000n];
const TYPES = [0, 1, 0xdead, 0xdeadbeef, 0xbeefbeef, 0xfeedbeef];
const REQUESTS = [...IOMMUFD_IOCTLS.keys()];
/** What a field wants, by the structure it is in. */
const ID_TYPES: Readonly<Record<string, readonly ObjectType[]>> = {
  ioas_id: ["ioas"],
  dst_ioas_id: ["ioas"],
  src_ioas_id: ["ioas"],
  object_id: ["ioas"],
  dev_id: ["device"],
  pt_id: ["ioas", "hwpt-paging", "viommu"],
  viommu_id: ["viommu"],
  fault_id: ["fault-queue"],
  "iommu_viommu_alloc.hwpt_id": ["hwpt-paging"],
  "iommu_hwpt_invalidate.hwpt_id": ["hwpt-nested", "viommu"],
  hwpt_id: ["hwpt-paging"],
};
const FLAGS: Readonly<Record<string, readonly number[]>> = {
  iommu_ioas_map: [6, 6, 7, 7, 4, 2],
  iommu_ioas_map_file: [6, 7],
  iommu_ioas_copy: [6, 7],
  iommu_hwpt_alloc: [0, 0, 1, 1, 1, 2, 8, 4, 3, 9, 12],
  iommu_hwpt_set_dirty_tracking: [0, 1],
  iommu_hwpt_get_dirty_bitmap: [0, 1],
  iommu_hw_info: [0, 1],
};
const STRUCTURE_TYPES: Readonly<Record<string, readonly number[]>> = {
  iommu_hwpt_alloc: [0, 0xdead],
  iommu_hw_info: [0, 0xfeedbeef],
  iommu_hwpt_invalidate: [0xdeadbeef],
  iommu_viommu_alloc: [0xdeadbeef],
  iommu_veventq_alloc: [0xbeefbeef],
  iommu_hw_queue_alloc: [0xdeadbeef],
};
const TEST_COMMAND = 0x3ba0;
const TEST_OPERATIONS = 23;
const VFIO_REQUESTS = [100, 101, 102, 112, 113, 114, 117].map((number) => 0x3b00 | number);

class Actor {
  readonly process: Process;
  readonly scratch: bigint;
  readonly ram: bigint;
  fds: number[] = [];
  /** Whose objects the current request names. */
  context: IommufdContext | null = null;
  mappings: { va: bigint; length: number; owner: IommufdObject }[] = [];

  constructor(host: MockHost, name: string) {
    this.process = host.kernel.createProcess(name);
    this.scratch = this.process.memory.allocate(8192);
    this.ram = this.process.memory.allocate(64 * 4096);
    this.open();
  }

  open(): void {
    const fd = this.process.open("/dev/iommu", O_RDWR);
    if (fd >= 0) this.fds.push(fd);
  }
}

class Round {
  readonly #random: Random;
  readonly #host = new MockHost();
  readonly #actors: Actor[];
  readonly #devices: IommuDevice[];
  /** What the devices with hardware are behind; null: there are none. */
  readonly #kind: KindValues | null;
  #hardware: readonly HardwareIommu[] = [];
  readonly #bound = new Set<BoundDevice>();
  /** Contexts by the file that made them, for as long as it lives. */
  readonly #contexts = new Set<IommufdContext>();
  last = "";

  constructor(seed: number) {
    this.#random = new Random(seed);
    const random = this.#random;
    const injector: Injector = {
      ioctl: () => 0,
      allocation: () => random.chance(3),
      loseEvent: () => random.chance(5),
    };
    this.#actors = [new Actor(this.#host, "left"), new Actor(this.#host, "right")];
    this.#devices = [0, 4, 0, 4, 1].map((flags, i) =>
      this.#host.addDevice({ flags, ...(i < 2 ? { group: "pair" } : {}) }),
    );
    this.#kind = random.pick([null, ...HARDWARE_KINDS, ...HARDWARE_KINDS]);
    if (this.#kind !== null) {
      const chance = (percent: number) => random.chance(percent);
      const { devices, hardware } = addHardware(this.#host.kernel, this.#host.memory, this.#kind, chance);
      this.#hardware = hardware;
      // Few of the selftests' beside them, so that most of what happens is theirs.
      this.#devices.splice(2, 3, ...devices);
      for (const { process, ram, scratch } of this.#actors) this.#say(process, [ram, scratch + 4096n]);
    }
    this.#host.kernel.injector = injector;
  }

  /** Fills memory with what a guest of the kind might say. */
  #say(process: Process, addresses: readonly bigint[]): void {
    for (const address of addresses) {
      const bytes = process.memory.bytes(address, 4096);
      const view = new DataView(bytes.buffer, bytes.byteOffset, 4096);
      for (let at = 0; at < 4096; at += 16) view.setBigUint64(at, this.#random.pick(this.#kind!.words), true);
    }
  }

  /** Runs the round: the first violation, or null. */
  run(): string | null {
    for (let step = 0; step < STEPS; step++) {
      const actor = this.#random.pick(this.#actors);
      this.#learn();
      const result = this.#act(actor);
      if (!(Number.isInteger(result) && result >= -MAX_ERRNO)) return `${this.last} returned ${result}`;
      if (step % 4 === 3) {
        const found = this.#check();
        if (found !== null) return found;
      }
    }
    return this.#check() ?? this.#takeDown();
  }

  #learn(): void {
    for (const actor of this.#actors) {
      for (const fd of actor.fds) {
        const context = contextBehind(actor.process, fd);
        if (typeof context !== "number") this.#contexts.add(context);
      }
    }
    for (const context of this.#contexts) if (context.file.references === 0) this.#contexts.delete(context);
  }

  #check(): string | null {
    this.#learn();
    const owners = new Map<IommufdObject, number>();
    for (const { owner } of this.#actors.flatMap((actor) => actor.mappings)) {
      owners.set(owner, (owners.get(owner) ?? 0) + 1);
    }
    const found = violations(this.#host.kernel, [...this.#contexts], owners);
    const [device, pages] = [this.#random.pick(this.#devices), [0, 0, 0].map(() => this.#iova())];
    const seen = device instanceof MockDevice ? null : mistranslation(device, this.#hardware, pages);
    if (seen !== null) found.push(seen);
    return found.length === 0 ? null : `after ${this.last}: ${found.join("; ")}`;
  }

  #takeDown(): string | null {
    for (const device of this.#bound) this.#release(device);
    for (const actor of this.#actors) actor.process.exit();
    const left = this.#host.kernel.liveKinds;
    return left.length === 0 ? null : `left at the end: ${left.map(([kind, count]) => `${count} ${kind}`).join(", ")}`;
  }

  #release(device: BoundDevice): void {
    for (const pasid of [NO_PASID, 1, 5]) detachDevice(device, pasid);
    unbindDevice(device);
    this.#bound.delete(device);
  }

  #act(actor: Actor): number {
    const random = this.#random;
    const kind = random.below(100);
    if (actor.fds.length === 0) actor.open();
    if (kind < 68) return this.#request(actor);
    if (kind < 84) return this.#device(actor);
    if (kind < 90) return this.#readOrWrite(actor);
    if (kind < 94) return this.#map(actor);
    if (kind < 97) return this.#report();
    return this.#openOrClose(actor);
  }

  #context(actor: Actor): IommufdContext | null {
    for (const fd of actor.fds) {
      const context = contextBehind(actor.process, fd);
      if (typeof context !== "number") return context;
    }
    return null;
  }

  // --- requests ---

  #request(actor: Actor): number {
    const random = this.#random;
    const own = actor.fds.filter((fd) => typeof contextBehind(actor.process, fd) !== "number");
    const fd = random.pick(own.length > 0 && random.chance(97) ? own : actor.fds);
    const behind = contextBehind(actor.process, fd);
    actor.context = typeof behind === "number" ? null : behind;
    const roll = random.below(100);
    const request =
      roll < 70
        ? this.#pickRequest()
        : roll < 93
          ? TEST_COMMAND
          : random.chance(80)
            ? random.pick(VFIO_REQUESTS)
            : 0x3b00 | random.below(256);
    const bytes = request === TEST_COMMAND ? this.#testCommand(actor) : this.#structure(actor, request);
    actor.process.memory.bytes(actor.scratch, bytes.length).set(bytes);
    this.last = `request 0x${request.toString(16)} [${[...new Uint32Array(bytes.slice().buffer)].map((word) => word.toString(16)).join(" ")}]`;
    const argument = random.chance(97) ? actor.scratch : random.pick([0n, 0x10n, 0xffff_ffff_ffff_fff0n, actor.ram]);
    const result = actor.process.ioctl(fd, request, argument);
    // Descriptors that the request made are the actor's, too.
    for (let made = 0; made < 64; made++) {
      if (!actor.fds.includes(made) && typeof actor.process.descriptors.lookup(made) !== "number") actor.fds.push(made);
    }
    return result;
  }

  /** Creating is more frequent than destroying, or nothing would ever stand on anything. */
  #pickRequest(): number {
    const request = this.#random.pick(REQUESTS);
    return (request === IOMMU_DESTROY || request === IOMMU_IOAS_UNMAP) && this.#random.chance(60)
      ? IOMMU_HWPT_ALLOC
      : request;
  }

  #structure(actor: Actor, request: number): Uint8Array {
    const random = this.#random;
    const known = IOMMUFD_IOCTLS.get(request);
    const size = known?.layout.bytes ?? 32;
    const bytes = new Uint8Array(Math.ceil((size + 16) / 4) * 4);
    const view = new DataView(bytes.buffer);
    for (const [name, field] of Object.entries(known?.layout.fields ?? {})) {
      if (name === "size") continue;
      const value = this.#value(actor, known!.layout.name, name);
      if (field.bytes === 8) view.setBigUint64(field.offset, BigInt.asUintN(64, value), true);
      else if (field.bytes === 4) view.setUint32(field.offset, Number(value & 0xffff_ffffn), true);
      else if (field.bytes === 2) view.setUint16(field.offset, Number(value & 0xffffn), true);
      else view.setUint8(field.offset, Number(value & 0xffn));
    }
    if (known === undefined) for (let i = 4; i < size; i += 4) view.setUint32(i, random.below(4), true);
    if (request === IOMMU_HWPT_ALLOC && random.chance(85)) {
      // Type and length of the driver's data belong together.
      const kinds: (readonly [number, number])[] = [
        [0, 0],
        [0xdead, 8],
      ];
      if (this.#kind !== null) kinds.push([this.#kind.nested, this.#kind.nestedBytes]);
      const [type, length] = random.pick(kinds);
      view.setUint32(24, type, true);
      view.setUint32(28, length, true);
    }
    const wrong = random.below(100);
    view.setUint32(0, wrong < 94 ? size : random.pick([0, 4, size - 4, size + 8, 0xffff_ffff]), true);
    return bytes;
  }

  /** A value for a field of a structure: mostly one that makes sense. */
  #value(actor: Actor, structure: string, name: string): bigint {
    const random = this.#random;
    if (name.startsWith("__reserved")) return random.chance(1) ? 1n : 0n;
    if (name === "virt_id") return BigInt(random.below(4)) << BigInt(random.pick([0, 0, 4, 32]));
    const types = ID_TYPES[`${structure}.${name}`] ?? ID_TYPES[name];
    if (types !== undefined) return BigInt(this.#id(actor, types));
    if (name === "id") return BigInt(this.#id(actor));
    if (/uptr|user_va|allowed_iovas|^data$/.test(name)) {
      return random.chance(92) ? this.#address(actor) : random.pick(EDGES);
    }
    if (/iova|^start$/.test(name)) return random.chance(90) ? this.#iova() : random.pick(EDGES);
    if (name === "length") return random.chance(90) ? BigInt(1 + random.below(6)) * 0x1000n : random.pick(EDGES);
    if (name === "page_size") return random.pick([4096n, 2048n, 1n, 0n]);
    if (name === "flags")
      return BigInt(random.chance(93) ? random.pick(FLAGS[structure] ?? [0]) : random.below(1 << 16));
    if (name === "type" || name === "data_type") {
      const own = this.#kind === null || random.chance(40) ? undefined : kindType(this.#kind, structure);
      return BigInt(own ?? random.pick(random.chance(90) ? (STRUCTURE_TYPES[structure] ?? TYPES) : TYPES));
    }
    if (name === "entry_len") return BigInt(random.pick([8, 12, 12, 16, 0, 4]));
    if (name === "data_len") return BigInt(random.pick([0, 8, 8, 8, 24, 4]));
    if (name === "fd") return BigInt(random.pick([...actor.fds, 60]));
    if (name === "val64" || name === "index") return BigInt(random.below(2));
    return BigInt(random.below(random.chance(90) ? 4 : 70_000));
  }

  #iova(): bigint {
    return BigInt(this.#random.below(24)) * 0x1000n + 0x100_0000n;
  }

  #address(actor: Actor): bigint {
    return (this.#random.chance(70) ? actor.ram : actor.scratch + 4096n) + BigInt(this.#random.below(8)) * 0x400n;
  }

  #id(actor: Actor, types?: readonly ObjectType[]): number {
    const random = this.#random;
    const objects = [...(actor.context?.objects ?? [])];
    const wanted = types === undefined ? objects : objects.filter((object) => types.includes(object.type));
    return wanted.length > 0 && random.chance(95) ? random.pick(wanted).id : random.below(40);
  }

  #testCommand(actor: Actor): Uint8Array {
    const random = this.#random;
    const bytes = new Uint8Array(72);
    const view = new DataView(bytes.buffer);
    const operation = 1 + random.below(TEST_OPERATIONS);
    const accesses = actor.fds.filter((fd) => actor.process.descriptors.lookup(fd) instanceof TestAccessFile);
    const buffers = actor.fds.filter((fd) => actor.process.descriptors.lookup(fd) instanceof TestDmaBufferFile);
    view.setUint32(0, 72, true);
    view.setUint32(4, operation, true);
    const word = (at: number, value: number) => view.setUint32(at, value, true);
    const range = (at: number) => {
      view.setBigUint64(at, this.#value(actor, "", "iova"), true);
      view.setBigUint64(at + 8, this.#value(actor, "", "length"), true);
    };
    switch (operation) {
      case 1: // ADD_RESERVED, far from where most is mapped
        word(8, this.#id(actor, ["ioas"]));
        view.setBigUint64(16, 0x4000_0000n + this.#iova(), true);
        view.setBigUint64(24, 4096n, true);
        break;
      case 2:
      case 12: // MOCK_DOMAIN
        word(8, this.#id(actor, ["ioas", "hwpt-paging"]));
        word(28, random.pick([0, 0, 1, 4, 8]));
        break;
      case 6:
      case 7:
      case 8:
      case 11: // on access files
        word(8, random.pick(accesses.length > 0 ? accesses : actor.fds));
        word(16, operation === 11 ? this.#id(actor, ["ioas"]) : random.below(3));
        if (operation === 7) {
          word(16, random.below(2));
          range(24);
        } else if (operation === 8) {
          range(16);
          view.setBigUint64(32, actor.ram, true);
          word(40, random.pick([0, 1, 4, 5]));
        }
        break;
      case 4:
        view.setBigUint64(16, 4096n, true);
        view.setBigUint64(24, actor.ram, true);
        break;
      case 5:
        word(8, this.#id(actor, ["ioas"]));
        word(20, random.below(2));
        break;
      case 3:
      case 13:
        word(8, this.#id(actor, ["hwpt-paging"]));
        range(operation === 3 ? 16 : 24);
        view.setBigUint64(operation === 3 ? 32 : 40, operation === 3 ? actor.ram : 4096n, true);
        view.setBigUint64(48, actor.ram, true);
        break;
      case 10:
      case 18:
      case 19:
      case 20:
      case 21: // on selftest devices
        word(8, this.#id(actor, ["selftest"]));
        word(
          16,
          operation === 10 ? this.#id(actor, ["ioas", "hwpt-paging", "hwpt-nested"]) : random.pick([0, 1, 5, 1024]),
        );
        word(20, this.#id(actor, ["hwpt-paging", "hwpt-nested"]));
        break;
      case 22:
        word(16, random.below(3) * 4096);
        break;
      case 23:
        word(16, random.pick(buffers.length > 0 ? buffers : actor.fds));
        word(20, random.below(2));
        break;
      default:
        word(8, this.#id(actor));
        word(16, this.#id(actor, ["device"]));
        word(20, random.below(2));
    }
    return bytes;
  }

  // --- devices, as VFIO would ---

  #device(actor: Actor): number {
    const random = this.#random;
    const roll = random.below(100);
    if (roll < 30 || this.#bound.size === 0) {
      const device = random.pick(this.#devices);
      const group = this.#host.kernel.iommu.groupOf(device);
      // Mostly the context that owns the group already, so that groups of two get both their devices.
      const owner = [...this.#bound].find((bound) => bound.group.group === group)?.context;
      const context = owner !== undefined && random.chance(70) ? owner : this.#context(actor);
      this.last = `bind ${device.name}`;
      // VFIO binds a device once.
      if (context === null || [...this.#bound].some((bound) => bound.device === device)) return 0;
      const bound = bindDevice(context, device);
      if (typeof bound === "number") return bound;
      this.#bound.add(bound);
      return 0;
    }
    const bound = random.pick([...this.#bound]);
    const pasid = random.pick([NO_PASID, NO_PASID, NO_PASID, 1, 5]);
    const current = bound.group.attachments.get(pasid);
    const attached = current?.devices.has(bound) === true;
    const target = this.#target(bound, attached ? null : (current?.hwpt.id ?? null));
    this.last = `device operation ${roll} on ${bound.device.name}, PASID ${pasid}, object ${target}`;
    // As in VFIO, a second attach is a replace.
    if (roll < 70) return attached ? replaceDevice(bound, pasid, target) : attachDevice(bound, pasid, target);
    if (roll < 85) detachDevice(bound, pasid);
    else this.#release(bound);
    return 0;
  }

  /** What to attach: mostly something that can be, and what the rest of the group is attached to (`joined`). */
  #target(bound: BoundDevice, joined: number | null): number {
    const random = this.#random;
    if (joined !== null && random.chance(70)) return joined;
    const objects = [...bound.context.objects];
    const fitting = objects.filter(({ type }) => type === "ioas" || type === "hwpt-paging" || type === "hwpt-nested");
    const from = fitting.length > 0 && random.chance(92) ? fitting : objects;
    return from.length > 0 ? random.pick(from).id : 1;
  }

  #report(): number {
    const random = this.#random;
    const device = random.pick(this.#devices);
    this.last = `page request of ${device.name}`;
    this.#host.kernel.iommu.reportPageRequest(device, {
      pasid: random.pick([NO_PASID, 1, 5]),
      group: random.below(4),
      last: random.chance(60),
      permissions: random.below(16),
      address: BigInt(random.below(1 << 20)) << 12n,
    });
    if (device instanceof MockDevice) device.viommu?.core.reportEvent(0xbeefbeef, new Uint8Array(4));
    return 0;
  }

  // --- files and memory ---

  #readOrWrite(actor: Actor): number {
    const random = this.#random;
    const fd = random.pick(actor.fds);
    const length = random.pick([0, 8, 12, 40, 80, 100, 4000]);
    const va = random.chance(92) ? actor.scratch : 0x10n;
    this.last = `read or write of ${length} bytes on ${fd}`;
    if (random.chance(65)) return actor.process.read(fd, va, length, random.chance(95) ? -1n : 8n);
    actor.process.memory.bytes(actor.scratch, 8).set(Uint8Array.of(random.below(4), 0, 0, 0, random.below(3), 0, 0, 0));
    return actor.process.write(fd, va, length, -1n);
  }

  #map(actor: Actor): number {
    const random = this.#random;
    if (actor.mappings.length > 0 && random.chance(50)) {
      const [gone] = actor.mappings.splice(random.below(actor.mappings.length), 1);
      this.last = "munmap";
      return actor.process.munmap(gone!.va, gone!.length);
    }
    const fd = random.pick(actor.fds);
    const offset = BigInt(1 + 2 * random.below(3)) * 4096n;
    const length = random.pick([8192, 8192, 4096, 100]);
    this.last = `mmap of ${length} bytes at ${offset} of ${fd}`;
    const context = contextBehind(actor.process, fd);
    const before = typeof context === "number" ? [] : viommus(context).map((viommu) => [viommu, viommu.users] as const);
    const va = actor.process.mmap(fd, offset, length, PROT_READ, random.chance(90) ? MAP_SHARED : 2);
    if (va < 0n) return Number(va);
    const owner = before.find(([viommu, users]) => viommu.users > users)?.[0];
    if (owner === undefined) throw new Error("a mapping holds nothing");
    actor.mappings.push({ va, length, owner });
    return 0;
  }

  #openOrClose(actor: Actor): number {
    const random = this.#random;
    this.last = "open or close";
    const own = actor.fds.filter((fd) => typeof contextBehind(actor.process, fd) !== "number");
    if (own.length < 2 && random.chance(50)) {
      actor.open();
      return 0;
    }
    // Contexts are closed rarely, or nothing would grow in them; other files often.
    const others = actor.fds.filter((fd) => !own.includes(fd));
    const gone = random.pick(others.length > 0 && random.chance(90) ? others : actor.fds);
    const [fd] = actor.fds.splice(actor.fds.indexOf(gone), 1);
    this.last = `close of ${fd}`;
    return actor.process.close(fd!);
  }
}

/** The kind's own value for a structure's type. */
function kindType(kind: KindValues, structure: string): number | undefined {
  const values: Readonly<Record<string, number>> = {
    iommu_hwpt_alloc: kind.nested,
    iommu_hw_info: kind.hwInfo,
    iommu_hwpt_invalidate: kind.invalidate,
    iommu_viommu_alloc: kind.viommu,
    iommu_veventq_alloc: kind.events,
  };
  return values[structure];
}

/** The context behind a descriptor, or a negated errno. */
function contextBehind(process: Process, fd: number): IommufdContext | number {
  const context = contextOf(process.descriptors.lookup(fd));
  if (typeof context !== "number") context.file.put();
  return context;
}

function viommus(context: IommufdContext): Viommu[] {
  return [...context.objects].filter((object) => object instanceof Viommu);
}

/** One round: null, or what is wrong with it. */
export function fuzzRound(seed: number): string | null {
  const round = new Round(seed);
  try {
    return round.run();
  } catch (error) {
    return `${round.last} threw ${error instanceof Error ? error.stack : String(error)}`;
  }
}

export const fuzzer: Fuzzer = {
  about:
    "random iommufd and VFIO requests, on a mock, on SMMUv3s, on VT-d units, on devices of both buses: invariants, DMA contained, all freed",
  round: (seed, count) => {
    const problem = fuzzRound(seed) ?? smmuv3Round(seed) ?? vtdRound(seed) ?? vfioRound(seed);
    count("calls", STEPS + SMMUV3_STEPS + VTD_STEPS + VFIO_STEPS);
    return problem === null ? null : { problem };
  },
};

// A round of `nestbox fuzz ioctl` on VFIO's own files: two processes drive a PCI function and two platform devices, each by its node and through
// its group, with requests whose fields are nearly right; registers are read, written and mapped at any place, interrupts bound to whatever
// descriptor, devices unbound, bound and pulled out meanwhile. What must hold: every answer is a number that Linux could give, no exception
// escapes, registers of what is gone or closed read all ones, and in the end nothing is left.

import type { Layout, LayoutField } from "../../../host/base/layout.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import * as X from "../../../host/uapi/vfio.ts";
import * as C from "../../../host/uapi/vfio-container.ts";
import { machine, name, type User } from "../../host/kernel/machine.ts";
import { Dice } from "../attachments/dice.ts";

export const STEPS = 400;
const MAX_ERRNO = 4095;
const RID = 0x0108;
const PLATFORM = ["edu0", "edu1"];
const DEVICES = [name(RID), ...PLATFORM];
const INDEXES = [0, 0, 0, 1, 2, 3, 4, 7, 8, 9, 0x7fff_ffff, 0xffff_ffff];
const SIZES = [0, 1, 2, 3, 4, 8, 12, 64, 4096, 70_000];
const FLAG_BITS = [1, 2, 4, 8, 16, 32];

interface Opened {
  readonly fd: number;
  readonly device: string;
}

interface Mapped extends Opened {
  readonly user: User;
  readonly registers: MmioPort;
}

class Round {
  readonly #dice: Dice;
  readonly #host = machine({
    iommus: [{}],
    devices: [{ rid: RID, options: { pasidBits: 8, ats: true, dmaLogging: true } }],
    platform: PLATFORM.map((platform, index) => ({ name: platform, deviceId: 0x500 + index })),
  });
  readonly #users: readonly User[];
  readonly #opened = new Map<User, Opened[]>();
  readonly #other = new Map<User, number[]>();
  #mapped: Mapped[] = [];
  last = "";

  constructor(seed: number) {
    this.#dice = new Dice(seed);
    this.#users = [this.#host.user(), this.#host.user()];
    for (const user of this.#users) {
      this.#opened.set(user, []);
      this.#other.set(user, [user.iommufd(), user.process.eventfd(), user.open("/dev/vfio/vfio")]);
    }
    for (const device of DEVICES) this.#bind(device);
  }

  /** The first thing that is wrong, or null. */
  run(): string | null {
    for (let step = 0; step < STEPS; step++) {
      const result = this.#act(this.#dice.pick(this.#users));
      if (!(Number.isInteger(result) && result >= -MAX_ERRNO)) return `${this.last} returned ${result}`;
      const wrong = this.#wrongRegisters();
      if (wrong !== null) return `after ${this.last}: ${wrong}`;
    }
    for (const user of this.#users) user.process.exit();
    const left = this.#host.kernel.liveKinds;
    return left.length === 0 ? null : `left at the end: ${left.map(([kind, count]) => `${count} ${kind}`).join(", ")}`;
  }

  #act(user: User): number {
    const dice = this.#dice;
    const kind = dice.below(100);
    if (kind < 12) return this.#open(user);
    if (kind < 50) return this.#request(user);
    if (kind < 65) return this.#access(user);
    if (kind < 72) return this.#map(user);
    if (kind < 84) return this.#touch();
    if (kind < 90) {
      this.last = "time passes";
      this.#host.run(dice.below(5000));
      return 0;
    }
    if (kind < 96) return this.#close(user);
    return this.#rebind();
  }

  // --- opening, closing, binding ---

  #open(user: User): number {
    const dice = this.#dice;
    const device = dice.pick(DEVICES);
    const { vfio } = this.#host;
    const iommufd = this.#other.get(user)![0]!;
    if (dice.chance(60)) {
      this.last = `opening the node of ${device}`;
      const fd = user.open(vfio.nodeOf(device) ?? "/dev/nothing");
      if (fd < 0) return fd;
      this.#opened.get(user)!.push({ fd, device });
      if (dice.chance(80)) {
        user.bind(fd, dice.chance(90) ? iommufd : dice.below(20));
        if (dice.chance(70)) user.attach(fd, user.ioas(iommufd));
      }
      return 0;
    }
    this.last = `opening the group of ${device}`;
    const group = user.open(vfio.groupNodeOf(device) ?? "/dev/nothing");
    if (group < 0) return group;
    this.#other.get(user)!.push(group);
    const container = dice.chance(50) ? iommufd : this.#other.get(user)![2]!;
    user.setContainer(group, container);
    if (container !== iommufd) user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(C.VFIO_TYPE1v2_IOMMU));
    const fd = user.deviceFd(group, dice.chance(90) ? device : `${device} x`);
    if (fd >= 0) this.#opened.get(user)!.push({ fd, device });
    return fd;
  }

  #close(user: User): number {
    const opened = this.#opened.get(user)!;
    const others = this.#other.get(user)!;
    if (this.#dice.chance(70) && opened.length > 0) {
      const [{ fd }] = opened.splice(this.#dice.below(opened.length), 1) as [Opened];
      this.last = `closing device ${fd}`;
      // What was mapped through it has no registers any more: #wrongRegisters looks.
      this.#mapped = this.#mapped.map((mapping) =>
        mapping.user === user && mapping.fd === fd ? { ...mapping, fd: -1 } : mapping,
      );
      return user.process.close(fd);
    }
    // The first three are used again.
    if (others.length <= 3) return 0;
    this.last = "closing another file";
    return user.process.close(others.splice(3 + this.#dice.below(others.length - 3), 1)[0]!);
  }

  #bind(device: string): number {
    const { pci, platform } = this.#host.kernel;
    return device === DEVICES[0] ? pci.bind(device, "vfio-pci") : platform.bind(device, "vfio-platform");
  }

  #rebind(): number {
    const { kernel, interconnect, root } = this.#host;
    const device = this.#dice.pick(DEVICES);
    const isPci = device === DEVICES[0];
    this.last = `unbinding or binding ${device}`;
    if (this.#dice.chance(10)) {
      if (isPci) root.unplug(RID);
      else interconnect.unplug(device);
      return 0;
    }
    return this.#dice.chance(60) ? this.#bind(device) : (isPci ? kernel.pci : kernel.platform).unbind(device);
  }

  // --- requests ---

  #device(user: User): Opened | null {
    const opened = this.#opened.get(user)!;
    return opened.length === 0 ? null : this.#dice.pick(opened);
  }

  #request(user: User): number {
    const dice = this.#dice;
    const opened = this.#device(user);
    if (opened === null) return 0;
    if (dice.chance(30)) return this.#setIrqs(user, opened.fd);
    const [request, { layout }] = dice.pick([...X.VFIO_DEVICE_IOCTLS]);
    this.last = `request 0x${request.toString(16)} on ${opened.device}`;
    if (layout === null) return user.process.ioctl(opened.fd, request, BigInt(dice.below(2) * 4096));
    const values: Record<string, number | bigint> = {};
    const fields = layout.fields as Record<string, LayoutField>;
    for (const [field, { bytes }] of Object.entries(fields)) {
      if (bytes === 8) values[field] = dice.chance(70) ? user.scratch + 8192n : BigInt(dice.below(2 ** 31)) << 20n;
      else if (field === "flags") values[field] = dice.chance(50) ? 0 : this.#flags();
      else if (field === "index") values[field] = dice.pick(INDEXES);
      else if (field === "iommufd") values[field] = this.#other.get(user)![0]!;
      else values[field] = dice.chance(80) ? dice.below(8) : dice.below(2 ** 31);
    }
    values.argsz = dice.chance(85) ? layout.bytes + 64 : dice.below(layout.bytes + 1);
    return user.call(opened.fd, request, layout as Layout<Record<string, LayoutField>>, values as never).result;
  }

  #flags(): number {
    const { VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_PROBE } = X;
    const features = [0, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_PROBE];
    return this.#dice.pick(features) | this.#dice.below(12);
  }

  #setIrqs(user: User, fd: number): number {
    const dice = this.#dice;
    this.last = `VFIO_DEVICE_SET_IRQS on descriptor ${fd}`;
    const [dataBits, actionBits] = [FLAG_BITS.slice(0, 3), FLAG_BITS.slice(3)];
    const exotic = dice.chance(10) ? dice.below(128) : 0;
    const flags = dice.pick(dataBits) | dice.pick(actionBits) | exotic;
    const count = dice.chance(80) ? 1 : dice.pick([0, 2, 3, 0xffff_ffff]);
    const start = dice.chance(90) ? 0 : dice.pick([1, 5, 0xffff_ffff]);
    const eventfd = this.#other.get(user)![1]!;
    const descriptor = () => (dice.chance(60) ? eventfd : dice.pick([-1, -2, 999, fd]));
    const entries = Math.min(count, 4);
    const data =
      (flags & X.VFIO_IRQ_SET_DATA_EVENTFD) !== 0
        ? { fds: Array.from({ length: entries }, descriptor) }
        : { bytes: Array.from({ length: entries }, () => dice.below(2)) };
    return user.setIrqs(fd, flags, dice.chance(60) ? 0 : dice.pick(INDEXES), { start, count, ...data });
  }

  // --- registers ---

  #access(user: User): number {
    const dice = this.#dice;
    const opened = this.#device(user);
    if (opened === null) return 0;
    const length = dice.pick(SIZES.slice(0, -1));
    const at = dice.pick([0, 1, 4, 0x24, 0x64, R.DMA_COMMAND, 0x41000, R.EDU_BAR_BYTES - 4, R.EDU_BAR_BYTES]);
    const position = dice.chance(10)
      ? dice.pick([-1n, 1n << 62n, (1n << 63n) - 1n])
      : (BigInt(dice.pick(INDEXES)) << 40n) | BigInt(at);
    const write = dice.chance(40);
    this.last = `${write ? "write" : "read"} of ${length} at ${position.toString(16)} on ${opened.device}`;
    const va = dice.chance(95) ? user.scratch : 0x10n;
    return write
      ? user.process.write(opened.fd, va, length, position)
      : user.process.read(opened.fd, va, length, position);
  }

  #map(user: User): number {
    const dice = this.#dice;
    const opened = this.#device(user);
    if (opened === null) return 0;
    const offset = (BigInt(dice.pick(INDEXES)) << 40n) | BigInt(dice.pick([0, 0, 4096, 100]));
    this.last = `mmap at ${offset.toString(16)} of ${opened.device}`;
    const registers = user.process.mmapRegion(opened.fd, offset, dice.pick([4096, 8192, R.EDU_BAR_BYTES, 0]));
    if (typeof registers === "number") return registers;
    this.#mapped.push({ ...opened, user, registers });
    return 0;
  }

  #touch(): number {
    const dice = this.#dice;
    if (this.#mapped.length === 0) return 0;
    const { registers, device } = dice.pick(this.#mapped);
    this.last = `an access to the mapped registers of ${device}`;
    const at = dice.pick([
      R.LIVENESS,
      R.INTERRUPT_RAISE,
      R.INTERRUPT_ACKNOWLEDGE,
      R.DMA_SOURCE,
      R.DMA_COUNT,
      R.DMA_COMMAND,
    ]);
    registers.mmioWrite(at, dice.chance(50) ? 4 : 8, dice.below(16), 0);
    registers.mmioRead(at, 4);
    return 0;
  }

  /** A mapping that outlived its file, or its device, shows nothing. */
  #wrongRegisters(): string | null {
    const { pci, platform } = this.#host.kernel;
    for (const { fd, device, registers } of this.#mapped) {
      const known = pci.device(device) ?? platform.device(device);
      if (fd >= 0 && known !== null) continue;
      const value = registers.mmioRead(R.IDENTIFICATION, 4);
      if (value !== 0xffff_ffff) return `registers of ${device}, which is ${fd < 0 ? "closed" : "gone"}, read ${value}`;
    }
    return null;
  }
}

export function vfioRound(seed: number): string | null {
  const round = new Round(seed);
  try {
    return round.run();
  } catch (error) {
    return `${round.last} threw ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  }
}

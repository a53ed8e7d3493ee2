// A round of `nestbox fuzz ioctl` on a host with SMMUv3s: a process makes IOASes, HWPTs, vIOMMUs, vDEVICEs, vEVENTQs and fault queues of real
// devices, hands over random stream table entries and commands of a guest whose tables change under the hardware, answers faults at random, and
// lets the devices work meanwhile; allocations fail now and then. What must hold: smmuv3-host.ts, and the invariants of iommufd's objects.

import type { MmioPort } from "../../../host/base/mmio.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { NO_PASID } from "../../../host/devices/ports.ts";
import { NO_INJECTION } from "../../../host/kernel/inject.ts";
import { contextOf } from "../../../host/kernel/iommufd/in-kernel.ts";
import type { IommufdObject } from "../../../host/kernel/iommufd/object-table.ts";
import { Viommu } from "../../../host/kernel/iommufd/viommu.ts";
import { EINVAL, ENOENT, EOPNOTSUPP } from "../../../host/uapi/errno.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as S from "../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../host/uapi/vfio.ts";
import { RAM_GPA } from "../../host/kernel/guest.ts";
import { violations } from "../../host/kernel/iommufd/invariants.ts";
import { eduDma, type User } from "../../host/kernel/machine.ts";
import { Dice } from "../attachments/dice.ts";
import { ADDRESSES, HostileGuest, VIRTUAL_IDS } from "./smmuv3-guest.ts";
import { DEVICE_NAMES, FUNCTIONS, mayStopTheQueue, SmmuHost } from "./smmuv3-host.ts";
import { QueueActions } from "./smmuv3-queues.ts";

export const STEPS = 250;
const MAX_ERRNO = 4095;
/** Where structures' own data lies in the user's scratch pages. */
const DATA = 4096n;

type Pool =
  | "hw-queue"
  | "device"
  | "ioas"
  | "parent"
  | "paging"
  | "nested"
  | "viommu"
  | "vdevice"
  | "fault"
  | "veventq";

class Round {
  readonly #dice: Dice;
  readonly #host: SmmuHost;
  readonly #guest: HostileGuest;
  readonly #user: User;
  readonly #ram: bigint;
  readonly #iommufd: number;
  /** Ids by what they were made as, stale ones included. */
  readonly #pools = new Map<Pool, number[]>();
  readonly #eventFiles: number[] = [];
  readonly #faultFiles: number[] = [];
  readonly #devices: { readonly fd: number; readonly id: number; readonly bar: MmioPort }[] = [];
  /** What fitted together: a device with a vDEVICE in a vIOMMU, a nested HWPT for a device. */
  readonly #named: { readonly device: number; readonly viommu: number }[] = [];
  readonly #nestedFor: { readonly device: number; readonly hwpt: number }[] = [];
  readonly #queues: QueueActions;
  readonly #mapped = new Map<IommufdObject, number>();
  last = "setting up";

  constructor(seed: number) {
    const dice = new Dice(seed);
    this.#dice = dice;
    this.#host = new SmmuHost(dice);
    this.#guest = new HostileGuest(dice);
    this.#user = this.#host.machine.user();
    const { buffer } = this.#guest.ram;
    this.#ram = this.#user.process.memory.mapBuffer(buffer, 0, buffer.byteLength);
    this.#iommufd = this.#user.iommufd();
    this.#queues = new QueueActions(dice, this.#user, this.#iommufd, this.#guest);
  }

  /** The first thing that is wrong, or null. */
  run(): string | null {
    const { kernel } = this.#host.machine;
    // A guest as far as it goes, so that most of what follows means something.
    this.#ioas();
    this.#map();
    for (const device of DEVICE_NAMES) this.#open(device);
    for (let i = 0; i < 3; i++) this.#parent();
    for (let i = 0; i < 4; i++) this.#viommu();
    for (let i = 0; i < 8; i++) this.#vdevice();
    for (let i = 0; i < 6; i++) this.#note("viommu", this.#queues.viommu(this.#id("device"), this.#id("parent")));
    for (let i = 0; i < 8; i++) this.#note("hw-queue", this.#queues.queue(0));
    for (let i = 0; i < 4; i++) this.#mapPage();
    kernel.injector = {
      ...NO_INJECTION,
      allocation: () => this.#dice.chance(2),
      loseEvent: () => this.#dice.chance(3),
    };
    for (let step = 0; step < STEPS; step++) {
      const result = this.#act();
      if (!(Number.isInteger(result) && result >= -MAX_ERRNO)) return `${this.last} returned ${result}`;
      if (this.#dice.chance(50)) this.#host.machine.run(this.#dice.pick([1_000, 20_000]));
      const found = this.#host.check() ?? (step % 8 === 7 ? this.#violations() : null);
      if (found !== null) return `after ${this.last}: ${found}`;
    }
    kernel.injector = NO_INJECTION;
    const stands = this.#queueStands();
    if (stands !== null) return stands;
    this.last = "the end of the process";
    this.#user.process.exit();
    return this.#host.left() ?? this.#host.check();
  }

  #act(): number {
    const roll = this.#dice.below(100);
    if (roll < 5) return this.#open(this.#dice.pick(DEVICE_NAMES));
    if (roll < 6) return this.#ioas();
    if (roll < 11) return this.#map();
    if (roll < 12) return this.#dice.chance(50) ? this.#unmap() : this.#unmapUnderDma();
    if (roll < 13) return this.#parent();
    if (roll < 16) return this.#paging();
    if (roll < 19) return this.#viommu();
    if (roll < 24) return this.#vdevice();
    if (roll < 34) return this.#nested();
    if (roll < 47) return this.#attach();
    if (roll < 48) return this.#detach();
    if (roll < 50) return this.#attachPasid();
    if (roll < 60) return this.#invalidate();
    if (roll < 64) return this.#dice.chance(50) ? this.#queue() : this.#hardwareQueue();
    if (roll < 72) return this.#readAndAnswer();
    if (roll < 92) return this.#work();
    if (roll < 97) return this.#dice.chance(40) ? this.#rewrite() : this.#noted(this.#queues.scribble());
    return roll < 99 ? this.#destroy() : this.#close();
  }

  #violations(): string | null {
    const context = contextOf(this.#user.process.descriptors.lookup(this.#iommufd));
    if (typeof context === "number") return null;
    context.file.put();
    const found = violations(this.#host.machine.kernel, [context], this.#mapped);
    return found.length === 0 ? null : found.join("; ");
  }

  /** Whatever happened before, the host's queues take commands: else what is wrong. */
  #queueStands(): string | null {
    for (const viommu of this.#pools.get("viommu") ?? []) {
      const result = this.#forward(viommu, [[0x10n, 0n]]);
      // The id may be another object's by now, or nobody's.
      if (result < 0 && ![-ENOENT, -EINVAL, -EOPNOTSUPP].includes(result))
        return `TLBI_NH_ALL at the end is refused with ${result}`;
    }
    return null;
  }

  // --- ids ---

  #note(pool: Pool, id: number): number {
    if (id > 0) this.#pools.set(pool, [...(this.#pools.get(pool) ?? []), id]);
    return id;
  }

  /** One of a pool, mostly; sometimes any id at all. */
  #id(...pools: Pool[]): number {
    const dice = this.#dice;
    const from = dice.chance(95) ? pools : [...this.#pools.keys()];
    const ids = from.flatMap((pool) => this.#pools.get(pool) ?? []);
    return ids.length > 0 && dice.chance(97) ? dice.pick(ids) : dice.below(40);
  }

  #device() {
    return this.#devices.length === 0 ? null : this.#dice.pick(this.#devices);
  }

  // --- objects ---

  #open(device: string): number {
    this.last = `open of ${device}`;
    const { machine } = this.#host;
    const node = machine.vfio.nodeOf(device);
    if (node === null) return 0;
    const fd = this.#user.open(node);
    if (fd < 0) return fd;
    const id = this.#user.bind(fd, this.#iommufd);
    this.#note("device", id);
    if (id < 0) {
      this.#user.process.close(fd);
      return id;
    }
    const region = this.#user.call(fd, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, { index: 0 });
    const bar = this.#user.process.mmapRegion(fd, region.offset, R.EDU_BAR_BYTES);
    if (typeof bar === "number") {
      this.#user.process.close(fd);
      return bar;
    }
    if (DEVICE_NAMES.indexOf(device) < FUNCTIONS.length) this.#enable(fd);
    this.#devices.push({ fd, id, bar });
    return 0;
  }

  /** Memory and bus master on, where the system calls let it. */
  #enable(fd: number): void {
    const region = this.#user.call(fd, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, {
      index: X.VFIO_PCI_CONFIG_REGION_INDEX,
    });
    this.#user.process.memory.bytes(this.#user.scratch, 2).set([6, 0]);
    this.#user.process.write(fd, this.#user.scratch, 2, region.offset + 4n);
  }

  #ioas(): number {
    this.last = "IOAS_ALLOC";
    const reply = this.#user.call(this.#iommufd, I.IOMMU_IOAS_ALLOC, I.iommuIoasAlloc, {});
    return reply.result < 0 ? reply.result : this.#note("ioas", reply.out_ioas_id);
  }

  #map(): number {
    const dice = this.#dice;
    const [offset, length] = dice.chance(80) ? [0, 1 << 20] : [4096 * dice.below(64), 4096 * (1 + dice.below(64))];
    const iova = dice.chance(85) ? RAM_GPA + BigInt(offset) : dice.pick(ADDRESSES);
    this.last = `IOAS_MAP at 0x${iova.toString(16)}`;
    return this.#user.map(this.#iommufd, this.#id("ioas"), this.#ram + BigInt(offset), length, iova);
  }

  #unmap(): number {
    const all = this.#dice.chance(15);
    this.last = `IOAS_UNMAP ${all ? "of everything" : ""}`;
    const iova = all ? 0n : this.#dice.pick(ADDRESSES);
    return this.#user.unmap(this.#iommufd, this.#id("ioas"), iova, all ? (1n << 64n) - 1n : 1n << 20n);
  }

  #parent(): number {
    this.last = "HWPT_ALLOC of a nest parent";
    const flags = I.IOMMU_HWPT_ALLOC_NEST_PARENT;
    return this.#note("parent", this.#user.hwpt(this.#iommufd, this.#id("device"), this.#id("ioas"), { flags }));
  }

  #paging(): number {
    const flags = this.#dice.pick([0, 0, 8, 8, 2, 3, 4, 9, 16]);
    this.last = `HWPT_ALLOC with flags ${flags}`;
    const fault = this.#dice.chance(30) ? { fault: this.#id("fault") } : {};
    const hwpt = this.#user.hwpt(this.#iommufd, this.#id("device"), this.#id("ioas"), { flags, ...fault });
    return this.#note("paging", hwpt);
  }

  #viommu(): number {
    if (this.#dice.chance(40)) {
      const withQueues = this.#queues.viommu(this.#id("device"), this.#id("parent"));
      return this.#note("viommu", this.#noted(withQueues));
    }
    const type = this.#dice.pick([1, 1, 1, 1, 1, 1, 2, 0, 77]);
    this.last = `VIOMMU_ALLOC of type ${type}`;
    return this.#note("viommu", this.#user.viommu(this.#iommufd, this.#id("device"), this.#id("parent"), type));
  }

  #hardwareQueue(): number {
    if (this.#dice.chance(40)) return this.#noted(this.#mapPage());
    return this.#note("hw-queue", this.#noted(this.#queues.queue(this.#id("viommu"))));
  }

  /** A mapping holds the vIOMMU whose page it is: the one that has a user more. */
  #mapPage(): number {
    const viommus = this.#viommus();
    const users = viommus.map((viommu) => viommu.users);
    const result = this.#queues.map();
    const owner = viommus.find((viommu, index) => viommu.users !== users[index]);
    if (owner !== undefined) this.#mapped.set(owner, (this.#mapped.get(owner) ?? 0) + 1);
    return result;
  }

  #viommus(): IommufdObject[] {
    const context = contextOf(this.#user.process.descriptors.lookup(this.#iommufd));
    if (typeof context === "number") return [];
    context.file.put();
    return [...context.objects].filter((object) => object instanceof Viommu);
  }

  #noted(result: number): number {
    this.last = this.#queues.last;
    return result;
  }

  #vdevice(): number {
    const virtualId = this.#dice.pick(VIRTUAL_IDS);
    this.last = `VDEVICE_ALLOC of 0x${virtualId.toString(16)}`;
    const [viommu, device] = [this.#id("viommu"), this.#id("device")];
    const vdevice = this.#user.vdevice(this.#iommufd, viommu, device, virtualId);
    if (vdevice > 0) this.#named.push({ device, viommu });
    return this.#note("vdevice", vdevice);
  }

  #nested(): number {
    const dice = this.#dice;
    const [ste0, ste1] = this.#guest.entry();
    this.last = `HWPT_ALLOC with STE 0x${ste0.toString(16)} 0x${ste1.toString(16)}`;
    const whole = S.iommuHwptArmSmmuv3.encode({ ste0, ste1 });
    const data = dice.chance(95) ? whole : whole.subarray(0, dice.pick([8, 4, 15]));
    const named = dice.chance(75) ? this.#named.slice(-dice.pick([1, 4, 40])) : [];
    const { device, viommu } =
      named.length > 0 ? dice.pick(named) : { device: this.#id("device"), viommu: this.#id("viommu") };
    const nested = this.#user.hwpt(this.#iommufd, device, viommu, {
      type: dice.chance(95) ? S.IOMMU_HWPT_DATA_ARM_SMMUV3 : dice.below(4),
      flags: dice.chance(95) ? 0 : dice.pick([8, 1, 16]),
      data,
      ...(dice.chance(60) ? { fault: this.#id("fault") } : {}),
    });
    if (nested > 0) this.#nestedFor.push({ device, hwpt: nested });
    return this.#note("nested", nested);
  }

  #attach(): number {
    const device = this.#device();
    const dice = this.#dice;
    const fitting = this.#nestedFor.filter((one) => one.device === device?.id).slice(-3);
    let id = dice.chance(70) ? this.#id("nested") : this.#id("parent", "paging", "ioas");
    if (fitting.length > 0 && dice.chance(65)) id = dice.pick(fitting).hwpt;
    this.last = `attach of ${id} to ${device?.fd}`;
    return device === null ? 0 : this.#user.attach(device.fd, id);
  }

  #detach(): number {
    const device = this.#device();
    this.last = `detach of ${device?.fd}`;
    return device === null ? 0 : this.#user.detach(device.fd);
  }

  #attachPasid(): number {
    const device = this.#device();
    if (device === null) return 0;
    const pasid = this.#dice.pick([1, 3, 15, 16]);
    this.last = `PASID ${pasid} of ${device.fd}`;
    if (this.#dice.chance(30)) {
      const values = { flags: X.VFIO_DEVICE_DETACH_PASID, pasid };
      const { VFIO_DEVICE_DETACH_IOMMUFD_PT, vfioDeviceDetachIommufdPt } = X;
      return this.#user.call(device.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, vfioDeviceDetachIommufdPt, values).result;
    }
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pt_id: this.#id("paging", "nested"), pasid };
    const { VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfioDeviceAttachIommufdPt } = X;
    return this.#user.call(device.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfioDeviceAttachIommufdPt, values).result;
  }

  // --- invalidation ---

  #invalidate(): number {
    const dice = this.#dice;
    const count = dice.pick([1, 1, 2, 5, 63, 64, 130]);
    const commands = Array.from({ length: count }, () => this.#guest.command());
    this.last = `HWPT_INVALIDATE of ${commands.map((words) => words.map((word) => word.toString(16))).join(" ")}`;
    return this.#forward(this.#id("viommu"), commands);
  }

  #forward(viommu: number, commands: readonly (readonly [bigint, bigint])[]): number {
    for (const [word0, word1] of commands) if (mayStopTheQueue(word0, word1)) this.#host.mayStop = true;
    const type = S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3;
    const { result, done } = this.#user.invalidate(this.#iommufd, viommu, commands, type);
    // Everything or up to the one refused, and never more than there was.
    return (result === 0 ? done === commands.length : done < commands.length) ? result : -MAX_ERRNO - 1;
  }

  // --- events and faults ---

  #queue(): number {
    if (this.#dice.chance(50)) {
      this.last = "FAULT_QUEUE_ALLOC";
      const reply = this.#user.call(this.#iommufd, I.IOMMU_FAULT_QUEUE_ALLOC, I.iommuFaultAlloc, {});
      if (reply.result < 0) return reply.result;
      this.#faultFiles.push(reply.out_fault_fd);
      return this.#note("fault", reply.out_fault_id);
    }
    const type = this.#dice.pick([1, 1, 1, 2, 5]);
    this.last = `VEVENTQ_ALLOC of type ${type}`;
    const values = { viommu_id: this.#id("viommu"), type, veventq_depth: this.#dice.pick([1, 4, 64]) };
    const reply = this.#user.call(this.#iommufd, I.IOMMU_VEVENTQ_ALLOC, I.iommuVeventqAlloc, values);
    if (reply.result < 0) return reply.result;
    this.#eventFiles.push(reply.out_veventq_fd);
    return this.#note("veventq", reply.out_veventq_id);
  }

  #readAndAnswer(): number {
    const dice = this.#dice;
    const files = [...this.#eventFiles, ...this.#faultFiles];
    if (files.length === 0) return 0;
    const fd = dice.pick(files);
    const { process, scratch } = this.#user;
    this.last = `read and answer of ${fd}`;
    const result = process.read(fd, scratch, dice.pick([400, 40, 80, 8]), -1n);
    if (!this.#faultFiles.includes(fd)) return result;
    for (let cookie = 1; cookie < 6; cookie++) {
      if (dice.chance(40)) continue;
      process.memory
        .bytes(scratch + DATA, 8)
        .set(I.iommuHwptPageResponse.encode({ cookie, code: dice.pick([0, 0, 1, 2]) }));
      process.write(fd, scratch + DATA, 8, -1n);
    }
    return result;
  }

  // --- devices and the guest's memory ---

  #work(): number {
    const dice = this.#dice;
    const address = dice.pick(ADDRESSES) + BigInt(dice.below(3)) * 0x1000n;
    if (dice.chance(50)) {
      const rid = dice.pick(FUNCTIONS);
      this.last = `DMA of 0x${rid.toString(16)} at 0x${address.toString(16)}`;
      const { dma } = this.#host.machine.root.slot(rid)!;
      const pasid = dice.pick([-1, -1, 0, 1, 3, 15]);
      const pfn = Number(address >> 12n);
      if (dice.chance(50)) dma.read(pfn, 0, new Uint8Array(8), 0, 8, pasid);
      else dma.write(pfn, 0, new Uint8Array(8), 0, 8, pasid);
      return 0;
    }
    const device = this.#device();
    if (device === null) return 0;
    this.last = `transfer of ${device.fd} at 0x${address.toString(16)}`;
    device.bar.mmioWrite(R.TRANSLATION_MODE, 4, dice.pick([0, R.MODE_ATS, R.MODE_ATS | R.MODE_PRI]), 0);
    eduDma(device.bar, address, 64, dice.chance(50));
    this.#host.machine.run(5_000);
    return 0;
  }

  /** What devices and hardware hold of a page is gone when its unmap returns. */
  #unmapUnderDma(): number {
    const device = this.#device();
    const busy = () => {
      for (const address of ADDRESSES.slice(0, 4)) {
        for (const rid of FUNCTIONS) {
          this.#host.machine.root.slot(rid)!.dma.read(Number(address >> 12n), 0, new Uint8Array(8), 0, 8, NO_PASID);
        }
        if (device === null) continue;
        device.bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
        eduDma(device.bar, address, 64, false);
        this.#host.machine.run(5_000);
      }
    };
    busy();
    const ioas = this.#id("ioas");
    const result = this.#user.unmap(this.#iommufd, ioas, 0n, (1n << 64n) - 1n);
    busy();
    this.#user.map(this.#iommufd, ioas, this.#ram, 1 << 20, RAM_GPA);
    this.last = `IOAS_UNMAP of ${ioas} under DMA`;
    return result;
  }

  #rewrite(): number {
    this.last = "a guest's tables rewritten";
    this.#guest.rewrite();
    return 0;
  }

  // --- ends ---

  #destroy(): number {
    const id = this.#id("hw-queue", "nested", "vdevice", "veventq", "viommu", "parent", "paging", "fault", "ioas");
    this.last = `DESTROY of ${id}`;
    return this.#user.destroy(this.#iommufd, id);
  }

  #close(): number {
    const dice = this.#dice;
    const list = dice.pick([this.#eventFiles, this.#faultFiles]);
    if (dice.chance(60) && list.length > 0) {
      const [fd] = list.splice(dice.below(list.length), 1);
      this.last = `close of ${fd}`;
      return this.#user.process.close(fd!);
    }
    if (this.#devices.length === 0) return 0;
    const [device] = this.#devices.splice(dice.below(this.#devices.length), 1);
    this.last = `close of the device ${device!.fd}`;
    return this.#user.process.close(device!.fd);
  }
}

/** One round: null, or what is wrong with it. */
export function smmuv3Round(seed: number): string | null {
  const round = new Round(seed);
  try {
    return round.run();
  } catch (error) {
    return `${round.last} threw ${error instanceof Error ? error.stack : String(error)}`;
  }
}

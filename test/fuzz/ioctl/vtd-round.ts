// A round of `nestbox fuzz ioctl` on a host with VT-d units: a process makes IOASes, HWPTs, nested HWPTs and fault queues of real devices, hands over random
// first stages and invalidations of a guest whose tables change under the hardware, answers page requests at random, and lets the devices work meanwhile;
// allocations fail now and then.
//
// What must hold: every frame that a device of user space's reaches is pinned; no call gives anything but an id or an errno; the queue of the kernel's
// never stands at an error, for no word of user space's comes into it; at the end nothing is left; iommufd's invariants.

import { PAGE_SIZE } from "../../../host/base/address.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import type { TracedEvent } from "../../../host/base/trace.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { NO_INJECTION } from "../../../host/kernel/inject.ts";
import { contextOf } from "../../../host/kernel/iommufd/in-kernel.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as X from "../../../host/uapi/vfio.ts";
import * as V from "../../../host/uapi/vtd-nesting.ts";
import { GuestRam, RAM_GPA } from "../../host/kernel/guest.ts";
import { GuestFirstStage, USER, WRITABLE } from "../../host/kernel/guest-vtd.ts";
import { vtdMachine } from "../../host/kernel/iommu/vtd/guest-machine.ts";
import { violations } from "../../host/kernel/iommufd/invariants.ts";
import { eduDma, type Machine, name, type User } from "../../host/kernel/machine.ts";
import { Dice } from "../attachments/dice.ts";

export const STEPS = 250;
const MAX_ERRNO = 4095;
const DATA = 4096n;
const ALL = (1n << 64n) - 1n;
const FUNCTIONS = [0x0108, 0x0110, 0x0118];
const IOVAS = [0x1000n, 0x4000_0000n, RAM_GPA, RAM_GPA + 0x2_0000n, 0xfee0_0000n, (1n << 47n) - 0x1000n, 1n << 48n];
const PASIDS = [1, 3, 15, 16, 63, 64];
/** FSTS: IQE, ICE, ITE. */
const QUEUE_ERRORS = 0x70;

type Pool = "device" | "ioas" | "parent" | "paging" | "nested" | "fault";

class Round {
  readonly #dice: Dice;
  readonly #host: Machine;
  readonly #user: User;
  readonly #ram = new GuestRam();
  readonly #stages: GuestFirstStage[];
  /** Addresses of entries that are rewritten: leaves mostly, tables above them. */
  readonly #entries: bigint[];
  readonly #va: bigint;
  readonly #iommufd: number;
  readonly #framesAtFirst: number;
  /** Ids by what they were made as, stale ones included. */
  readonly #pools = new Map<Pool, number[]>();
  readonly #faultFiles: number[] = [];
  readonly #devices: { readonly fd: number; readonly id: number; readonly bar: MmioPort }[] = [];
  #problem: string | null = null;
  last = "setting up";

  constructor(seed: number) {
    const dice = new Dice(seed);
    this.#dice = dice;
    const ats = { ats: true, pri: true, pasidBits: 6 };
    const features = dice.pick([
      {},
      { CM: true },
      { PSI: false },
      { FS5LP: false, SAGAW: 4, MGAW: 47 },
      { SRS: false, SC: false },
    ]);
    // The second unit is another kind of machine in some rounds: domains do not go to both.
    const other = dice.pick([features, { SMTS: false }, { NEST: false }, { PASID: false }, { PRS: false }]);
    this.#host = vtdMachine({
      units: [{ features }, { features: other }],
      devices: [
        { rid: FUNCTIONS[0]!, options: ats },
        { rid: FUNCTIONS[1]! },
        { rid: FUNCTIONS[2]!, iommu: 1, options: ats },
      ],
    });
    this.#host.assign();
    this.#framesAtFirst = this.#host.kernel.frames.usedPages;
    this.#host.trace.addSink({ event: (event) => this.#see(event) });
    this.#user = this.#host.user();
    this.#stages = [4, 4, 5].map((levels) => new GuestFirstStage(this.#ram, levels));
    const leaves = this.#stages.flatMap((stage) => [0x1000n, 0x2000n, 0x4000_0000n].map((iova) => stage.entry(iova)));
    this.#entries = [...leaves, ...leaves, ...leaves, ...this.#stages.map((stage) => stage.entry(0x1000n, 2n))];
    const { buffer } = this.#ram;
    this.#va = this.#user.process.memory.mapBuffer(buffer, 0, buffer.byteLength);
    this.#iommufd = this.#user.iommufd();
  }

  #see(event: TracedEvent): void {
    if (event.type !== "dma" || event.result !== "ok" || event.spa === undefined || this.#problem !== null) return;
    const { kernel } = this.#host;
    if (kernel.iommu.deviceNamed(event.device)?.attachments.requester?.domain.kind === "identity") return;
    const frame = Number(event.spa / BigInt(PAGE_SIZE));
    if (kernel.frames.pins.countOf(frame) > 0) return;
    this.#problem = `${event.device} reached frame 0x${frame.toString(16)}, which is not pinned, at IOVA 0x${event.iova.toString(16)}`;
  }

  /** The first thing that is wrong, or null. */
  run(): string | null {
    const { kernel } = this.#host;
    // A guest as far as it goes, so that most of what follows means something.
    this.#ioas();
    this.#map();
    for (const rid of FUNCTIONS) this.#open(rid);
    for (let i = 0; i < 3; i++) this.#hwpt("parent");
    for (let i = 0; i < 4; i++) this.#nested();
    kernel.injector = {
      ...NO_INJECTION,
      allocation: () => this.#dice.chance(2),
      loseEvent: () => this.#dice.chance(3),
    };
    for (let step = 0; step < STEPS; step++) {
      const result = this.#act();
      if (!(Number.isInteger(result) && result >= -MAX_ERRNO)) return `${this.last} returned ${result}`;
      if (this.#dice.chance(50)) this.#host.run(this.#dice.pick([1_000, 20_000]));
      const found = this.#check() ?? (step % 8 === 7 ? this.#violations() : null);
      if (found !== null) return `after ${this.last}: ${found}`;
    }
    kernel.injector = NO_INJECTION;
    this.last = "the end of the process";
    this.#user.process.exit();
    return this.#left() ?? this.#check();
  }

  #check(): string | null {
    for (const unit of this.#host.iommus) {
      const status = unit.registers.mmioRead(0x34, 4) & QUEUE_ERRORS;
      if (status !== 0) return `FSTS of ${unit.name} shows 0x${status.toString(16)}`;
    }
    return this.#problem;
  }

  #violations(): string | null {
    const context = contextOf(this.#user.process.descriptors.lookup(this.#iommufd));
    if (typeof context === "number") return null;
    context.file.put();
    const found = violations(this.#host.kernel, [context], new Map());
    return found.length === 0 ? null : found.join("; ");
  }

  #left(): string | null {
    this.#host.run(1_000_000);
    const { kernel } = this.#host;
    const kinds = kernel.liveKinds.map(([kind, count]) => `${count} ${kind}`);
    const frames = kernel.frames.usedPages - this.#framesAtFirst;
    // A device's first PASID table is made when something stands in it first, and stays.
    if (frames < 0 || frames > FUNCTIONS.length) kinds.push(`${frames} frames`);
    return kinds.length === 0 ? null : `left at the end: ${kinds.join(", ")}`;
  }

  #act(): number {
    const roll = this.#dice.below(100);
    if (roll < 5) return this.#open(this.#dice.pick(FUNCTIONS));
    if (roll < 7) return this.#ioas();
    if (roll < 12) return this.#map();
    if (roll < 15) return this.#unmap();
    if (roll < 17) return this.#hwpt("parent");
    if (roll < 20) return this.#hwpt("paging");
    if (roll < 30) return this.#nested();
    if (roll < 43) return this.#attach();
    if (roll < 45) return this.#detach();
    if (roll < 53) return this.#attachPasid();
    if (roll < 63) return this.#invalidate();
    if (roll < 66) return this.#faultQueue();
    if (roll < 72) return this.#readAndAnswer();
    if (roll < 90) return this.#work();
    if (roll < 94) return this.#rewrite();
    if (roll < 96) return this.#track();
    return roll < 99 ? this.#destroy() : this.#close();
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

  #open(rid: number): number {
    this.last = `open of ${name(rid)}`;
    const node = this.#host.vfio.nodeOf(name(rid));
    if (node === null) return 0;
    const fd = this.#user.open(node);
    if (fd < 0) return fd;
    const id = this.#user.bind(fd, this.#iommufd);
    if (id < 0) {
      this.#user.process.close(fd);
      return id;
    }
    this.#note("device", id);
    const regionOf = (index: number) =>
      this.#user.call(fd, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, { index }).offset;
    const bar = this.#user.process.mmapRegion(fd, regionOf(0), R.EDU_BAR_BYTES);
    if (typeof bar === "number") {
      this.#user.process.close(fd);
      return bar;
    }
    this.#user.process.memory.bytes(this.#user.scratch, 2).set([6, 0]);
    this.#user.process.write(fd, this.#user.scratch, 2, regionOf(X.VFIO_PCI_CONFIG_REGION_INDEX) + 4n);
    this.#devices.push({ fd, id, bar });
    return 0;
  }

  #ioas(): number {
    this.last = "IOAS_ALLOC";
    const reply = this.#user.call(this.#iommufd, I.IOMMU_IOAS_ALLOC, I.iommuIoasAlloc, {});
    return reply.result < 0 ? reply.result : this.#note("ioas", reply.out_ioas_id);
  }

  #map(): number {
    const dice = this.#dice;
    const [offset, length] = dice.chance(70) ? [0, 1 << 20] : [4096 * dice.below(64), 4096 * (1 + dice.below(64))];
    const iova = dice.chance(80) ? RAM_GPA + BigInt(offset) : dice.pick(IOVAS);
    const readOnly = dice.chance(10);
    this.last = `IOAS_MAP at 0x${iova.toString(16)}${readOnly ? ", read only" : ""}`;
    return this.#user.call(this.#iommufd, I.IOMMU_IOAS_MAP, I.iommuIoasMap, {
      flags: I.IOMMU_IOAS_MAP_FIXED_IOVA | I.IOMMU_IOAS_MAP_READABLE | (readOnly ? 0 : I.IOMMU_IOAS_MAP_WRITEABLE),
      ...{ ioas_id: this.#id("ioas"), user_va: this.#va + BigInt(offset), length: BigInt(length), iova },
    }).result;
  }

  /** What devices and hardware hold of a page is gone when its unmap returns. */
  #unmap(): number {
    const dice = this.#dice;
    const ioas = this.#id("ioas");
    this.last = `IOAS_UNMAP of ${ioas}`;
    this.#busy();
    const result = dice.chance(30)
      ? this.#user.unmap(this.#iommufd, ioas, 0n, ALL)
      : this.#user.unmap(this.#iommufd, ioas, dice.pick(IOVAS), 1n << 20n);
    this.#busy();
    if (dice.chance(70)) this.#user.map(this.#iommufd, ioas, this.#va, 1 << 20, RAM_GPA);
    return result;
  }

  #hwpt(pool: "parent" | "paging"): number {
    const flags = pool === "parent" ? this.#dice.pick([1, 1, 3, 9, 11]) : this.#dice.pick([0, 0, 8, 8, 2, 10, 4, 16]);
    this.last = `HWPT_ALLOC with flags ${flags}`;
    const fault = this.#dice.chance(30) ? { fault: this.#id("fault") } : {};
    return this.#note(pool, this.#user.hwpt(this.#iommufd, this.#id("device"), this.#id("ioas"), { flags, ...fault }));
  }

  #nested(): number {
    const dice = this.#dice;
    const table = dice.chance(80)
      ? dice.pick(this.#stages).root
      : dice.pick([...IOVAS, ALL, 0n]) + BigInt(dice.below(4096));
    const flags = dice.pick([0n, 0n, 0n, 1n, 2n, 4n, 7n, ALL]);
    const addr_width = dice.pick([48, 48, 48, 57, 39, 0, 0xffffffff]);
    this.last = `HWPT_ALLOC of a first stage at 0x${table.toString(16)}, ${addr_width} bits, flags ${flags}`;
    const whole = V.iommuHwptVtdS1.encode({ flags, pgtbl_addr: table, addr_width });
    const nested = this.#user.hwpt(this.#iommufd, this.#id("device"), this.#id("parent"), {
      type: dice.chance(95) ? V.IOMMU_HWPT_DATA_VTD_S1 : dice.below(4),
      flags: dice.pick([0, 0, 8, 8, 8, 1]),
      data: dice.chance(95) ? whole : whole.subarray(0, dice.pick([8, 23])),
      ...(dice.chance(50) ? { fault: this.#id("fault") } : {}),
    });
    return this.#note("nested", nested);
  }

  #attach(): number {
    const device = this.#device();
    const id = this.#dice.chance(70) ? this.#id("nested") : this.#id("parent", "paging", "ioas");
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
    const pasid = this.#dice.pick(PASIDS);
    this.last = `PASID ${pasid} of ${device.fd}`;
    if (this.#dice.chance(30)) {
      const values = { flags: X.VFIO_DEVICE_DETACH_PASID, pasid };
      return this.#user.call(device.fd, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, values).result;
    }
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pt_id: this.#id("paging", "nested", "nested"), pasid };
    return this.#user.call(device.fd, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values).result;
  }

  #track(): number {
    const values = { hwpt_id: this.#id("parent", "paging"), flags: this.#dice.pick([1, 1, 0, 2]) };
    this.last = `HWPT_SET_DIRTY_TRACKING of ${values.hwpt_id}`;
    return this.#user.call(this.#iommufd, I.IOMMU_HWPT_SET_DIRTY_TRACKING, I.iommuHwptSetDirtyTracking, values).result;
  }

  #invalidate(): number {
    const dice = this.#dice;
    const entry_num = dice.pick([0, 1, 1, 2, 5, 60]);
    const hwpt_id = this.#id("nested");
    this.last = `HWPT_INVALIDATE of ${entry_num} on ${hwpt_id}`;
    const bytes = this.#user.process.memory.bytes(this.#user.scratch + DATA, 24 * 60);
    for (let i = 0; i < entry_num; i++) {
      bytes.set(
        V.iommuHwptVtdS1Invalidate.encode({
          addr: dice.chance(40) ? 0n : dice.pick(IOVAS) + BigInt(dice.chance(5) ? 1 : 0),
          npages: dice.pick([1n, 2n, 3n, 512n, 0n, ALL, ALL, 1n << 51n, 1n << 52n, 1n << 60n]),
          flags: dice.pick([0, 1, 1, 0, 0, 1, 2]),
          __reserved: dice.chance(2) ? 1 : 0,
        }),
        24 * i,
      );
    }
    const reply = this.#user.call(this.#iommufd, I.IOMMU_HWPT_INVALIDATE, I.iommuHwptInvalidate, {
      ...{ hwpt_id, data_uptr: this.#user.scratch + DATA, entry_num },
      data_type: dice.chance(95) ? V.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 : dice.below(4),
      entry_len: dice.chance(95) ? 24 : dice.pick([8, 23, 32]),
    });
    const { result, entry_num: done } = reply;
    // Everything or up to the one refused, and never more than there was.
    return (result === 0 ? done === entry_num : done <= entry_num) ? result : -MAX_ERRNO - 1;
  }

  // --- page requests ---

  #faultQueue(): number {
    this.last = "FAULT_QUEUE_ALLOC";
    const reply = this.#user.call(this.#iommufd, I.IOMMU_FAULT_QUEUE_ALLOC, I.iommuFaultAlloc, {});
    if (reply.result < 0) return reply.result;
    this.#faultFiles.push(reply.out_fault_fd);
    return this.#note("fault", reply.out_fault_id);
  }

  #readAndAnswer(): number {
    const dice = this.#dice;
    if (this.#faultFiles.length === 0) return 0;
    const fd = dice.pick(this.#faultFiles);
    const { process, scratch } = this.#user;
    this.last = `read and answer of ${fd}`;
    const result = process.read(fd, scratch, dice.pick([400, 40, 80, 8]), -1n);
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

  #busy(): void {
    const device = this.#device();
    for (const address of IOVAS) {
      for (const rid of FUNCTIONS) {
        const { dma } = this.#host.root.slot(rid)!;
        for (const pasid of [-1, 1, 3]) dma.read(Number(address >> 12n), 0, new Uint8Array(8), 0, 8, pasid);
      }
      if (device === null) continue;
      device.bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
      eduDma(device.bar, address, 64, false);
      this.#host.run(5_000);
    }
  }

  #work(): number {
    const dice = this.#dice;
    const address = dice.pick(IOVAS) + BigInt(dice.below(3)) * 0x1000n;
    if (dice.chance(50)) {
      const rid = dice.pick(FUNCTIONS);
      this.last = `DMA of 0x${rid.toString(16)} at 0x${address.toString(16)}`;
      const { dma } = this.#host.root.slot(rid)!;
      const pasid = dice.pick([-1, -1, 0, ...PASIDS]);
      const pfn = Number(address >> 12n);
      if (dice.chance(50)) dma.read(pfn, 0, new Uint8Array(8), 0, 8, pasid, dice.chance(20));
      else dma.write(pfn, 0, new Uint8Array(8), 0, dice.pick([4, 8]), pasid, dice.chance(20));
      return 0;
    }
    const device = this.#device();
    if (device === null) return 0;
    this.last = `transfer of ${device.fd} at 0x${address.toString(16)}`;
    device.bar.mmioWrite(R.TRANSLATION_MODE, 4, dice.pick([0, R.MODE_ATS, R.MODE_ATS | R.MODE_PRI]), 0);
    eduDma(device.bar, address, 64, dice.chance(50));
    this.#host.run(5_000);
    return 0;
  }

  #rewrite(): number {
    const dice = this.#dice;
    this.last = "a guest's tables rewritten";
    const target = dice.chance(80) ? RAM_GPA + 4096n * BigInt(dice.below(256)) : dice.pick(IOVAS);
    this.#ram.store(
      dice.pick(this.#entries),
      target | dice.pick([1n, 1n | USER, 1n | USER | WRITABLE, 1n | USER | WRITABLE, 0n, ALL & 0xfffn, 1n << 62n]),
    );
    return 0;
  }

  // --- ends ---

  #destroy(): number {
    const id = this.#id("nested", "parent", "paging", "fault", "ioas");
    this.last = `DESTROY of ${id}`;
    return this.#user.destroy(this.#iommufd, id);
  }

  #close(): number {
    const dice = this.#dice;
    if (dice.chance(60) && this.#faultFiles.length > 0) {
      const [fd] = this.#faultFiles.splice(dice.below(this.#faultFiles.length), 1);
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
export function vtdRound(seed: number): string | null {
  const round = new Round(seed);
  try {
    return round.run();
  } catch (error) {
    return `${round.last} threw ${error instanceof Error ? error.stack : String(error)}`;
  }
}

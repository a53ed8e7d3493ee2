// A guest machine whose vIOMMU has a VINTF of a Tegra241 CMDQV, its page mapped, and verbs for what a VMM and its guest do with it.

import { type CommandName, encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import type { MmioPort } from "../../../../../host/base/mmio.ts";
import type { CmdqvOptions } from "../../../../../host/hw/iommu/smmuv3/cmdqv/options.ts";
import type { Smmuv3 } from "../../../../../host/hw/iommu/smmuv3/smmu.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import { eduDma, eduOutcome, type Machine } from "../../machine.ts";
import { A, B, GuestMachine, must } from "./guest-machine.ts";

export const SMALL: CmdqvOptions = { log2vcmdqs: 3, log2vintfs: 2, log2vsids: 1 };
export const PAGE_BYTES = 0x10000;
export const CONS = 0;
export const PROD = 4;
export const CONFIG = 8;
export const STATUS = 0xc;
export const GERROR = 0x10;
export const GERRORN = 0x14;

/** A register of the CMDQV of the first SMMU, as the kernel sees it. */
export const register = ({ iommus }: Machine, offset: number): number =>
  (iommus[0] as Smmuv3).cmdqv!.mmioRead(offset, 4);
export const vintf = (index: number, offset: number): number => 0x1000 + 0x100 * index + offset;

/** A guest machine whose vIOMMU has a VINTF; `page` is mapped. */
export class QueueMachine extends GuestMachine {
  readonly cmdqvIommu: number;
  readonly page: MmioPort;

  constructor(cmdqv: CmdqvOptions = SMALL, host: Machine | null = null) {
    super({ smmus: [{ cmdqv }], devices: [{ rid: A, options: { ats: true } }, { rid: B }] }, host);
    const { id, offset, length } = this.newQueueViommu();
    this.cmdqvIommu = id;
    this.page = this.map(offset, length);
  }

  /** VIOMMU_ALLOC of type 2: a negated errno, or what it replied. */
  tryViommu(length = 16, parent = this.parent): { result: number; id: number; offset: bigint; length: bigint } {
    const at = this.user.scratch + 4096n;
    this.user.process.memory.bytes(at, 16).fill(0);
    const reply = this.user.call(this.iommufd, I.IOMMU_VIOMMU_ALLOC, I.iommuViommuAlloc, {
      type: S.IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
      dev_id: this.a.device,
      hwpt_id: parent,
      data_len: length,
      data_uptr: length === 0 ? 0n : at,
    });
    const data = S.iommuViommuTegra241Cmdqv.decode(this.user.process.memory.bytes(at, 16));
    const { out_vintf_mmap_offset: offset, out_vintf_mmap_length } = data;
    return { result: reply.result, id: reply.out_viommu_id, offset, length: out_vintf_mmap_length };
  }

  newQueueViommu(parent = this.parent): { id: number; offset: bigint; length: number } {
    const reply = this.tryViommu(16, parent);
    must(reply.result);
    return { id: reply.id, offset: reply.offset, length: Number(reply.length) };
  }

  map(offset: bigint, length = PAGE_BYTES): MmioPort {
    const page = this.user.process.mmapRegion(this.iommufd, offset, length);
    if (typeof page === "number") throw new Error(`mmap: ${page}`);
    return page;
  }

  /** HW_QUEUE_ALLOC: its id or a negated errno. */
  queue(index: number, gpa: bigint, length: bigint, options: { type?: number; viommu?: number } = {}): number {
    const reply = this.user.call(this.iommufd, I.IOMMU_HW_QUEUE_ALLOC, I.iommuHwQueueAlloc, {
      viommu_id: options.viommu ?? this.cmdqvIommu,
      type: options.type ?? S.IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV,
      index,
      nesting_parent_iova: gpa,
      length,
    });
    return reply.result < 0 ? reply.result : reply.out_hw_queue_id;
  }

  read(queue: number, offset: number): number {
    return this.page.mmioRead(queue * 0x80 + offset, 4);
  }

  write(queue: number, offset: number, value: number): void {
    this.page.mmioWrite(queue * 0x80 + offset, 4, value, 0);
  }

  /** The guest stores a command in its queue at `gpa` and moves PROD; nothing else. */
  give(queue: number, gpa: bigint, name: CommandName, fields: Readonly<Record<string, bigint | number>> = {}): void {
    const prod = this.read(queue, PROD);
    const [word0, word1] = encodeCommand(name, fields);
    this.ram.store(gpa + BigInt(prod * 16), word0);
    this.ram.store(gpa + BigInt(prod * 16 + 8), word1);
    this.write(queue, PROD, prod + 1);
    this.host.run(1_000_000);
  }

  /** Queue events since the last call. */
  errorMaps(fd: number): (readonly [bigint, bigint])[] {
    this.host.run(10_000);
    const bytes = this.user.readAll(fd);
    const maps: (readonly [bigint, bigint])[] = [];
    for (let at = 8; at + 16 <= bytes.length; at += 24) {
      const event = S.iommuVeventTegra241Cmdqv.decode(bytes.slice(at, at + 16));
      maps.push([event.lvcmdq_err_map0, event.lvcmdq_err_map1]);
    }
    return maps;
  }

  dma(address: bigint): number {
    const bar = this.user.bar0(this.a.vfio);
    eduDma(bar, address, 64, false);
    this.host.run(100_000);
    return eduOutcome(bar);
  }
}

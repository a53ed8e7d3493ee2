// A Tegra241 CMDQV by system calls: the kernel's own VINTF, and vIOMMUs whose guests have queues that the hardware reads (Linux: tegra241-cmdqv.c).

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { CmdqvRegisters } from "../../../../../host/arch/smmuv3/parts/cmdqv-registers.ts";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { PhysicalMemory } from "../../../../../host/base/memory.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import type { CommandQueue } from "../../../../../host/kernel/iommu/smmuv3/command-queue.ts";
import { Tegra241Cmdqv } from "../../../../../host/kernel/iommu/smmuv3/tegra241-cmdqv.ts";
import { EBUSY, EEXIST, EINVAL, EIO, ENOENT, ENOSPC, EOPNOTSUPP, ETIMEDOUT } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import { machine } from "../../machine.ts";
import { A, ASID, B, GuestMachine, IOVA, must } from "./guest-machine.ts";
import {
  CONFIG,
  CONS,
  GERROR,
  GERRORN,
  PAGE_BYTES,
  PROD,
  QueueMachine,
  register,
  SMALL,
  STATUS,
  vintf,
} from "./queue-machine.ts";

describe("the kernel's own VINTF", () => {
  it("is the hypervisor's, with all of its queues running; the other VINTFs' are named, and not allocated", () => {
    const host = machine({ smmus: [{ cmdqv: SMALL }] });
    expect(host.problems).toEqual([]);
    expect(register(host, 8)).toBe(1);
    expect(register(host, vintf(0, 0)) & 0x20001).toBe(0x20001);
    expect(register(host, vintf(0, 4)) >>> 16).toBe(2);
    const allocations = [0, 1, 2, 3, 4, 5, 6, 7].map((queue) => register(host, 0x200 + 4 * queue));
    expect(allocations).toEqual([1, 3, 0x8000, 0x8002, 0x10000, 0x10002, 0x18000, 0x18002]);
    expect([register(host, 0x30000 + STATUS), register(host, 0x30080 + STATUS)]).toEqual([1, 1]);
    expect(register(host, vintf(1, 0))).toBe(0);
  });

  it("takes the kernel's commands from then on", () => {
    const queues = new QueueMachine();
    queues.host.record();
    const { entry } = queues.stage1();
    must(queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, queues.a.device, 0x30n));
    queues.install(entry, 0n, { viommu: queues.cmdqvIommu });
    const commands = queues.host.events.flatMap((event) => (event.type === "command" ? [event] : []));
    expect(commands.map(({ name }) => name)).toContain("CFGI_STE");
    expect(new Set(commands.map(({ iommu }) => iommu))).toEqual(new Set(["iommu0 vintf0 lvcmdq0"]));
    // A prefetch at the end is nobody's to wait for.
    queues.host.run(10_000);
    expect(register(queues.host, 0x30000 + CONS)).toBe(register(queues.host, 0x30000 + PROD));
  });

  it("goes on past a command that the hardware does not take", () => {
    const queues = new QueueMachine();
    must(queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, queues.a.device, 0x30n));
    queues.host.record();
    const commands = [encodeCommand("ATC_INV", { SID: 0x30, Size: 53 }), encodeCommand("TLBI_NH_ALL", {})];
    expect(queues.invalidate(commands, queues.cmdqvIommu)).toEqual({ result: 0, done: 2 });
    const names = queues.host.events.flatMap((event) => (event.type === "command" ? [event.name] : []));
    expect(names, "made a CMD_SYNC, which the queue fetched anew").toEqual(["ATC_INV", "SYNC", "TLBI_NH_ALL", "SYNC"]);
    expect(register(queues.host, 0x30000 + GERROR)).toBe(register(queues.host, 0x30000 + GERRORN));
    expect(queues.globalErrors()).toEqual([0, 0]);
    queues.host.run(10_000);
    expect(register(queues.host, 0x14), "the interrupt that follows finds nothing").toBe(0);
  });

  it("stays unused where HYP_OWN reads 0, as in a virtual machine: the SMMU's own queue takes everything", () => {
    const shape = { version: 1, log2vcmdqs: 1, log2vintfs: 0, log2vsids: 2 };
    const registers = new CmdqvRegisters(shape, false);
    registers.queues = {
      ...{ read: () => 0, write: () => {}, readPage1: () => 0, writePage1: () => {}, errors: () => 0 },
      ...{ setOn: () => {}, conditionsChanged: () => {} },
    };
    const commands: bigint[] = [];
    const main = { push: ([word0]: readonly [bigint, bigint]) => commands.push(word0), sync: () => 0 };
    const cmdqv = new Tegra241Cmdqv({
      name: "smmu",
      cmdqv: registers,
      hardware: { drain: () => {} },
      wait: (_hardware, done) => done(),
      memory: new PhysicalMemory<HpaPfn>(),
      ring: () => ({ base: 1 as HpaPfn, log2: 4 }),
      defer: () => {},
    });
    expect(cmdqv.prepare()).toBe(true);
    expect(cmdqv.start(main as unknown as CommandQueue)).toBe(0);
    expect([cmdqv.queues.length, registers.vintfs.enabled(0), registers.allocation.count(0)]).toEqual([0, true, 0]);
  });

  it("that does not answer is -ETIMEDOUT", () => {
    const dead = { high: 0, registerBytes: 0x50000, mmioRead: () => 0, mmioWrite: () => {} };
    const cmdqv = new Tegra241Cmdqv({
      name: "smmu",
      cmdqv: dead,
      hardware: { drain: () => {} },
      wait: (_hardware, done) => done(),
      memory: new PhysicalMemory<HpaPfn>(),
      ring: () => null,
      defer: () => {},
    });
    expect(cmdqv.prepare(), "no memory for its queues").toBe(false);
    expect(cmdqv.start(null as unknown as CommandQueue)).toBe(-ETIMEDOUT);
  });

  it("is not there without a CMDQV: neither info nor vIOMMU of its type", () => {
    const plain = new GuestMachine();
    const reply = plain.user.call(plain.iommufd, I.IOMMU_VIOMMU_ALLOC, I.iommuViommuAlloc, {
      type: S.IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
      dev_id: plain.a.device,
      hwpt_id: plain.parent,
    });
    expect(reply.result).toBe(-EOPNOTSUPP);
    expect(info(plain).result).toBe(-EOPNOTSUPP);
  });
});

/** GET_HW_INFO of type 3. */
function info(of: GuestMachine) {
  const at = of.user.scratch + 4096n;
  const reply = of.user.call(of.iommufd, I.IOMMU_GET_HW_INFO, I.iommuHwInfo, {
    flags: I.IOMMU_HW_INFO_FLAG_INPUT_TYPE,
    dev_id: of.a.device,
    data_type: S.IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV,
    data_len: 8,
    data_uptr: at,
  });
  const { version, log2vcmdqs, log2vsids } = S.iommuHwInfoTegra241Cmdqv.decode(of.user.process.memory.bytes(at, 8));
  return { result: reply.result, type: reply.data_type, version, log2vcmdqs, log2vsids };
}

describe("a vIOMMU with queues", () => {
  it("says what a VINTF has, only when asked for that type", () => {
    expect(info(new QueueMachine())).toEqual({ result: 0, type: 3, version: 1, log2vcmdqs: 1, log2vsids: 1 });
  });

  it("has a VINTF of its own under the parent's VMID, without HYP_OWN and without queues", () => {
    const { host } = new QueueMachine();
    const config = register(host, vintf(1, 0));
    expect(config & 0x20001).toBe(1);
    expect((config >>> 1) & 0xffff).toBeGreaterThan(0);
    expect(register(host, vintf(1, 4))).toBe(1);
  });

  it("needs room for the reply, of exactly its size", () => {
    const queues = new QueueMachine();
    expect([0, 8, 15, 17].map((length) => queues.tryViommu(length).result)).toEqual([
      -EINVAL,
      -EINVAL,
      -EINVAL,
      -EINVAL,
    ]);
  });

  it("there are as many as VINTFs but the kernel's, and a destroyed one's is free again", () => {
    const queues = new QueueMachine();
    const second = queues.newQueueViommu();
    queues.newQueueViommu();
    expect(queues.tryViommu().result).toBe(-ENOSPC);
    expect(queues.user.destroy(queues.iommufd, second.id)).toBe(0);
    expect(register(queues.host, vintf(2, 0)) & 1).toBe(0);
    queues.newQueueViommu();
    expect(register(queues.host, vintf(2, 0)) & 1).toBe(1);
  });

  it("still takes invalidations that its queues do not", () => {
    const queues = new QueueMachine();
    const commands = [encodeCommand("TLBI_NH_ALL", {}), encodeCommand("TLBI_NSNH_ALL", {})];
    expect(queues.invalidate(commands, queues.cmdqvIommu)).toEqual({ result: 0, done: 2 });
  });
});

describe("HW_QUEUE_ALLOC", () => {
  it("is in ascending order, destroying in descending order", () => {
    const queues = new QueueMachine();
    const [first, second] = [queues.ram.page(), queues.ram.page()];
    expect(queues.queue(1, second, 4096n)).toBe(-EIO);
    expect(queues.queue(2, second, 4096n)).toBe(-EINVAL);
    const [one, two] = [must(queues.queue(0, first, 4096n)), must(queues.queue(1, second, 4096n))];
    expect(queues.queue(0, first, 4096n)).toBe(-EEXIST);
    expect(queues.user.destroy(queues.iommufd, one)).toBe(-EBUSY);
    expect(queues.user.destroy(queues.iommufd, two)).toBe(0);
    expect(queues.user.destroy(queues.iommufd, one)).toBe(0);
    expect(register(queues.host, vintf(1, 4)) >>> 16).toBe(0);
  });

  it.each([
    ["not a power of two", 0, 4096n + 32n, EINVAL],
    ["less than two commands", 0, 16n, EINVAL],
    ["more than IDR1.CMDQS", 0, 1n << 20n, ENOENT],
    ["not aligned to its size", 2048, 4096n, EINVAL],
  ])("refuses a length or place that is %s", (_what, offset, length, errno) => {
    const queues = new QueueMachine();
    // A page follows, so that what is not aligned is at least mapped.
    const gpa = queues.ram.page();
    queues.ram.page();
    expect(queues.queue(0, gpa + BigInt(offset), length)).toBe(-errno);
  });

  it("refuses another type, and a vIOMMU without queues", () => {
    const queues = new QueueMachine();
    const gpa = queues.ram.page();
    expect(queues.queue(0, gpa, 4096n, { type: 2 })).toBe(-EOPNOTSUPP);
    expect(queues.queue(0, gpa, 4096n, { viommu: queues.viommu })).toBe(-EOPNOTSUPP);
  });

  it("locks the guest's memory, and resets what an earlier user left: indexes, base, errors; it does not enable", () => {
    const queues = new QueueMachine();
    const gpa = queues.ram.page();
    const id = must(queues.queue(0, gpa, 4096n));
    expect(queues.user.unmap(queues.iommufd, queues.ioas, 0x8000_0000n, 1n << 20n)).toBe(-EBUSY);
    expect(queues.read(0, STATUS)).toBe(0);
    queues.write(0, CONFIG, 1);
    expect(queues.read(0, STATUS)).toBe(1);
    queues.give(0, gpa, "TLBI_NSNH_ALL");
    expect(queues.read(0, GERROR) ^ queues.read(0, GERRORN)).toBe(1);
    must(queues.user.destroy(queues.iommufd, id));
    must(queues.queue(0, gpa, 64n));
    expect([CONS, PROD, CONFIG, STATUS].map((offset) => queues.read(0, offset))).toEqual([0, 0, 0, 0]);
    expect(queues.read(0, GERROR) ^ queues.read(0, GERRORN)).toBe(0);
    expect(register(queues.host, 0x60000) & 0x1f, "log2 of 4 entries").toBe(2);
  });
});

describe("mmap of VINTF page 0", () => {
  it("is the whole page of that VINTF and no other, and holds the vIOMMU", () => {
    const queues = new QueueMachine();
    const { id, offset, length } = queues.newQueueViommu();
    expect(length).toBe(PAGE_BYTES);
    for (const [at, size] of [
      [offset, 4096],
      [offset + 4096n, PAGE_BYTES],
      [offset, 2 * PAGE_BYTES],
    ] as const) {
      expect(queues.user.process.mmapRegion(queues.iommufd, at, size)).toBeLessThan(0);
    }
    const page = queues.map(offset);
    expect(queues.user.destroy(queues.iommufd, id)).toBe(-EBUSY);
    // Beyond the page is the next VINTF's, or page 1.
    const gpa = queues.ram.page();
    must(queues.queue(0, gpa, 4096n));
    page.mmioWrite(PAGE_BYTES, 8, 0x1000, 0);
    page.mmioWrite(-0x20000, 4, 1, 0);
    page.mmioWrite(PAGE_BYTES - 4, 8, 0xffff_ffff, 0xffff_ffff);
    expect(queues.read(0, CONFIG)).toBe(0);
  });
});

describe("a guest's own commands", () => {
  /** A device nested on the vIOMMU with queues, one page mapped and read once, queue 0 running. */
  const running = () => {
    const queues = new QueueMachine();
    must(queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, queues.a.device, 0x30n));
    const { stage, entry } = queues.stage1();
    const source = queues.ram.page();
    stage.map(IOVA, source);
    queues.install(entry, 0n, { viommu: queues.cmdqvIommu });
    expect(queues.dma(IOVA)).toBe(R.OUTCOME_DONE);
    const gpa = queues.ram.page();
    must(queues.queue(0, gpa, 4096n));
    queues.write(0, CONFIG, 1);
    return { queues, stage, gpa };
  };

  it("reach the hardware by PROD alone: the kernel is not called", () => {
    const { queues, stage, gpa } = running();
    stage.unmap(IOVA);
    expect(queues.dma(IOVA), "cached").toBe(R.OUTCOME_DONE);
    queues.host.record();
    queues.give(0, gpa, "TLBI_NH_VA", { VMID: 0x77, ASID, Address: IOVA >> 12n });
    expect(queues.read(0, CONS)).toBe(1);
    expect(queues.host.events).toMatchObject([
      { type: "command", iommu: "iommu0 vintf1 lvcmdq0", name: "TLBI_NH_VA", where: "host" },
    ]);
    expect(queues.dma(IOVA)).toBe(R.OUTCOME_REFUSED);
  });

  it("name devices by the guest's ids; those of no vDEVICE stop the queue and nothing else", () => {
    const { queues, gpa } = running();
    const fd = queues.user.veventq(queues.iommufd, queues.cmdqvIommu, 8, S.IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV)[1];
    queues.give(0, gpa, "ATC_INV", { SID: 0x30, Size: 52 });
    queues.give(0, gpa, "SYNC");
    expect(queues.read(0, CONS)).toBe(2);
    expect(queues.errorMaps(fd)).toEqual([]);
    queues.give(0, gpa, "ATC_INV", { SID: queues.a.rid, Size: 52 });
    expect(queues.read(0, CONS)).toBe((4 << 24) | 2);
    expect(queues.errorMaps(fd)).toEqual([[1n, 0n]]);
    const [gerror, gerrorn] = queues.globalErrors();
    expect(gerror).toBe(gerrorn);
    // Nothing was acknowledged for it: the guest does, by its page.
    queues.ram.store(gpa + 32n, 0x46n);
    queues.write(0, GERRORN, queues.read(0, GERROR));
    queues.host.run(10_000);
    expect(queues.read(0, CONS)).toBe(3);
  });

  it("are what the hardware lets through whatever the guest stores: another guest and the host go on", () => {
    const { queues, gpa } = running();
    const b = queues.take(B);
    const other = queues.newQueueViommu(queues.newParent(b));
    must(queues.user.vdevice(queues.iommufd, other.id, b.device, 0x30n));
    const page = queues.map(other.offset);
    for (let offset = 0; offset < PAGE_BYTES; offset += 4) page.mmioWrite(offset, 4, 0xffff_ffff, 0);
    queues.host.run(100_000);
    queues.give(0, gpa, "SYNC");
    expect(queues.read(0, CONS)).toBe(1);
    expect(queues.dma(IOVA)).toBe(R.OUTCOME_DONE);
    expect(queues.invalidate([encodeCommand("TLBI_NH_ALL", {})], queues.cmdqvIommu).result).toBe(0);
  });

  it("vDEVICEs are pairs of registers: so many, with ids of 20 bits, free again when destroyed", () => {
    const queues = new QueueMachine({ log2vcmdqs: 3, log2vintfs: 2, log2vsids: 0 });
    const b = queues.take(B);
    const vdevice = (device: number, id: bigint) => queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, device, id);
    expect(vdevice(queues.a.device, 1n << 20n)).toBe(-EINVAL);
    const first = must(vdevice(queues.a.device, 0x30n));
    expect([register(queues.host, vintf(1, 0x40)), register(queues.host, vintf(1, 0x80))]).toEqual([0x61, A]);
    expect(vdevice(b.device, 0x31n)).toBe(-ENOSPC);
    must(queues.user.destroy(queues.iommufd, first));
    expect([register(queues.host, vintf(1, 0x40)), register(queues.host, vintf(1, 0x80))]).toEqual([0, 0]);
    must(vdevice(b.device, 0x31n));
    expect(register(queues.host, vintf(1, 0x40))).toBe(0x63);
  });
});

describe("the end", () => {
  it("of the process frees VINTF, queues and pairs, whatever was running", () => {
    const queues = new QueueMachine();
    must(queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, queues.a.device, 0x30n));
    const gpas = [queues.ram.page(), queues.ram.page()];
    for (const [index, gpa] of gpas.entries()) {
      must(queues.queue(index, gpa, 4096n));
      queues.write(index, CONFIG, 1);
    }
    queues.write(0, PROD, 5);
    expect(queues.end()).toEqual([]);
    expect(register(queues.host, vintf(1, 0))).toBe(0);
    expect(register(queues.host, vintf(1, 4))).toBe(0);
    expect(register(queues.host, vintf(1, 0x40))).toBe(0);
    expect([0x208, 0x20c].map((offset) => register(queues.host, offset) & 1)).toEqual([0, 0]);
  });

  it("ends with its process: the VINTF is the next one's, and what the first has left of the mapping does not reach it", () => {
    const { user, host, page } = new QueueMachine();
    user.process.exit();
    const next = new QueueMachine(SMALL, host);
    must(next.queue(0, next.ram.page(), 4096n));
    page.mmioWrite(PROD, 4, 3, 0);
    page.mmioWrite(CONFIG, 4, 1, 0);
    expect([PROD, CONFIG, STATUS].map((offset) => next.read(0, offset))).toEqual([0, 0, 0]);
    next.write(0, CONFIG, 1);
    expect(next.read(0, STATUS)).toBe(1);
    expect(page.mmioRead(STATUS, 4)).toBe(0xffff_ffff);
  });
});

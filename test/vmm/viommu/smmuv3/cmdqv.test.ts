// A guest's CMDQV (Tegra241), whose queues are the hardware's: from the guest's store of PROD on no part of the VMM or the kernel is called.

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import { RAM_BASE, VIOMMU_BASE } from "../../../../vmm/memory-map.ts";
import { MEMORY, OTHER_SID, QueueVm, SID } from "./cmdqv-vm.ts";

const IOVA = 0x4000_0000n;
const PAGE0 = 0x30000;
const PAGE1 = 0x40000;
const [CONS, PROD, CONFIG, STATUS, GERROR, GERRORN] = [0, 4, 8, 0xc, 0x10, 0x14];
/** SMALL: two logical queues a VINTF. */
const SMALL = { log2vcmdqs: 3, log2vintfs: 2, log2vsids: 1 };

/** The device nested over a page that it has read once. */
function nested(vm: QueueVm) {
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  vm.ram.write(page, Uint8Array.of(42));
  stage1.map(IOVA, page, 4096n);
  vm.driver.installTranslation(SID, { whole: stage1, pasids: new Map(), ats: false, pageRequests: false });
  expect(vm.read(IOVA)).toBe(42);
  return { stage1, page };
}

/** What a guest does to enable queue 0, by hand. */
function enable(vm: QueueVm, queue: number, base: bigint): void {
  vm.put(0x1000, 1);
  vm.put(0x200 + 4 * queue, 1 | (queue << 1));
  vm.put64(PAGE1 + 0x80 * queue, base);
  vm.put(PAGE0 + 0x80 * queue + CONFIG, 1);
}

describe("the guest's CMDQV", () => {
  it("is there where the host has one and the machine does not turn it off; it is one VINTF of the host's", () => {
    const vm = new QueueVm({ cmdqv: SMALL, driver: false });
    expect(vm.viommu.hardwareQueues).toBe(true);
    expect(vm.get(4)).toBe(1 | (1 << 4) | (0 << 8) | (1 << 12));
    expect(vm.get(8)).toBe(1);
    for (const other of [new QueueVm({ cmdqv: null }), new QueueVm({ configuration: { hardwareQueues: false } })]) {
      expect(other.viommu.hardwareQueues).toBe(false);
      expect(other.get(4), "nothing answers").toBe(0xffffffff);
      expect(other.calls.counts.IOMMU_HW_QUEUE_ALLOC ?? 0).toBe(0);
      expect(other.end()).toBe(0);
    }
    expect(vm.end()).toBe(0);
  });

  it("shows in the capabilities with reasons; IDR1.CMDQS is one page of commands", () => {
    const { capabilitySheet } = new QueueVm({ cmdqv: SMALL, driver: false }).viommu;
    const rows = capabilitySheet.rows.filter(({ register }) => register === "CMDQV_PARAM");
    expect(rows.map(({ name, host, guest }) => [name, host, guest])).toEqual([
      ["VER", 1, 1],
      ["NUM_VCMDQ_LOG2", 1, 1],
      ["NUM_VINTF_LOG2", null, 0],
      ["NUM_SID_PER_VM_LOG2", 1, 1],
    ]);
    expect(capabilitySheet.registers.CMDQV_PARAM).toBe(0x1011n);
    expect((capabilitySheet.registers.IDR1! >> 21n) & 0x1fn).toBe(8n);
  });

  it("never lets the guest be the hypervisor", () => {
    const vm = new QueueVm({ driver: false });
    vm.put(0x1000, (1 << 17) | 1);
    expect(vm.get(0x1000)).toBe(1);
  });

  it("comes up as Linux brings it up", () => {
    const vm = new QueueVm({ cmdqv: SMALL });
    expect(vm.driver.ownQueues!.count).toBe(2);
    expect(vm.calls.counts).toMatchObject({ IOMMU_HW_QUEUE_ALLOC: 2 });
    expect([vm.get(PAGE0 + STATUS), vm.get(PAGE0 + 0x80 + STATUS)]).toEqual([1, 1]);
    expect(vm.reports).toEqual([]);
    const ranges = vm.machine.machine.bus.ranges.filter(({ name }) => name.startsWith("viommu0"));
    expect(ranges.map(({ name, base, size }) => [name, base - VIOMMU_BASE, size])).toEqual([
      ["viommu0", 0, 0x20000],
      ["viommu0-cmdqv", 0x20000, 0x30000],
      ["viommu0-cmdqv-page", 0x50000, 0x10000],
      ["viommu0-cmdqv-page1", 0x60000, 0x10000],
    ]);
    expect(vm.end()).toBe(0);
  });
});

describe("a command of the guest's own queue", () => {
  it("goes from the guest's store to the hardware's fetch: no call of the VMM's, no system call", () => {
    const vm = new QueueVm();
    const { stage1 } = nested(vm);
    stage1.unmap(IOVA, 4096n);
    expect(vm.read(IOVA), "stale").toBe(42);
    vm.driver.invalidate({ stage1, iova: IOVA });
    const before = { ...vm.calls.counts };
    const commands = vm.viommu.commandsExecuted;
    const events = vm.during(() => {
      vm.driver.ownQueues!.ringDoorbell();
      vm.pass();
    });
    expect(events).toMatchObject([
      { type: "mmio", device: "viommu0-cmdqv-page", register: "VINTF0 LVCMDQ0 PROD", write: true },
      { type: "command", where: "host", iommu: "smmu0 vintf1 lvcmdq0", name: "TLBI_NH_VA" },
    ]);
    expect(events[1]!.cause, "the store's doing").toBe(events[0]!.seq);
    expect(vm.calls.counts).toEqual(before);
    expect(vm.viommu.commandsExecuted).toBe(commands);
    expect(vm.read(IOVA)).toBeNull();
    expect(vm.end()).toBe(0);
  });

  it("names devices by the guest's StreamIDs", () => {
    const vm = new QueueVm();
    nested(vm);
    vm.driver.invalidateDevice(SID);
    vm.driver.fence();
    vm.driver.invalidateDevice(SID + 1);
    expect(() => vm.driver.fence()).toThrow(/CERROR_ILL_ACCESS at CMD_ATC_INV SID=0x11/);
    vm.driver.ownQueues!.skipCommand();
    vm.pass();
    expect(vm.driver.ownQueues!.error).toBeNull();
    expect(vm.end()).toBe(0);
  });

  it("that it may not give stops the queue: the CMDQV's interrupt, its error maps; the SMMU's own queue goes on", () => {
    const vm = new QueueVm({ configuration: { interrupts: "wired" } });
    nested(vm);
    vm.takeInterrupts();
    vm.driver.ownQueues!.push(...encodeCommand("TLBI_NSNH_ALL"));
    vm.driver.ownQueues!.ringDoorbell();
    vm.pass();
    expect(vm.driver.ownQueues!.error).toBe("CERROR_ILL_ACCESS at CMD_TLBI_NSNH_ALL");
    // Component machines number wires from 32, 16 a vIOMMU.
    expect(vm.takeInterrupts()).toContain(32 + 4);
    expect([vm.get(0x14), vm.get(0x24), vm.get(0x10c0)]).toEqual([1, 1, 1]);
    vm.driver.writeCommand(...encodeCommand("TLBI_NSNH_ALL"));
    vm.driver.ringDoorbell();
    expect(vm.driver.read32(REG.CMDQ_CONS)).toBe(vm.driver.read32(REG.CMDQ_PROD));
    expect(vm.driver.commandError).toBeNull();
    vm.driver.ownQueues!.skipCommand();
    vm.pass();
    expect([vm.get(0x14), vm.driver.ownQueues!.error]).toEqual([0, null]);
    expect(vm.end()).toBe(0);
  });

  it("is silent when the guest masks it", () => {
    const vm = new QueueVm({ configuration: { interrupts: "wired" } });
    vm.put(0x1c, 1);
    vm.takeInterrupts();
    vm.driver.ownQueues!.push(0n, 0n);
    vm.driver.ownQueues!.ringDoorbell();
    vm.pass();
    expect([vm.get(0x14), vm.takeInterrupts()]).toEqual([1, []]);
  });

  it("is not heard by another guest, nor by the host", () => {
    const vm = new QueueVm();
    const other = new QueueVm({}, vm);
    nested(vm);
    const mine = nested(other);
    for (let offset = 0; offset < 0x10000; offset += 4) vm.put(PAGE0 + offset, 0xffffffff);
    vm.pass(1_000_000);
    mine.stage1.unmap(IOVA, 4096n);
    expect(other.read(IOVA), "nobody but its guest invalidates").toBe(42);
    other.driver.invalidate({ stage1: mine.stage1, iova: IOVA });
    other.driver.fence();
    expect(other.read(IOVA)).toBeNull();
    other.end();
    expect(vm.end()).toBe(0);
  });
});

describe("when a queue is the hardware's", () => {
  it("once BASE, ALLOC and all enables hold, in any order; traps before, and what was written goes along", () => {
    const vm = new QueueVm({ cmdqv: SMALL, driver: false });
    const allocated = () => vm.calls.counts.IOMMU_HW_QUEUE_ALLOC ?? 0;
    const ring = vm.ram.allocate();
    vm.put(0, 0);
    vm.put(PAGE0 + CONFIG, 1);
    vm.put(0x10000 + CONFIG, 1);
    vm.put(0x10000 + PROD, 3);
    vm.put(0x10000 + CONS, 3);
    vm.put64(0x20000, ring | 8n);
    vm.put(0x200, 1);
    vm.put(0x1000, 1);
    expect([allocated(), vm.get(PAGE0 + STATUS), vm.get(PAGE0 + PROD)]).toEqual([0, 0, 3]);
    vm.put(0, 1);
    expect(allocated()).toBe(1);
    expect([CONS, PROD, CONFIG, STATUS].map((offset) => vm.get(PAGE0 + offset))).toEqual([3, 3, 1, 1]);
    expect(vm.get(0x10000 + PROD), "the direct view, too").toBe(3);
    expect(vm.end()).toBe(0);
  });

  it("it is freed when one of them ends, and comes back with its indexes", () => {
    const vm = new QueueVm({ cmdqv: SMALL, driver: false });
    enable(vm, 0, vm.ram.allocate() | 8n);
    const events = vm.during(() => vm.put(PAGE0 + PROD, 0));
    expect(events[0]).toMatchObject({ device: "viommu0-cmdqv-page" });
    vm.ram.write64(vm.ram.allocate(), 0n);
    vm.put(0x1000, 0);
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(0);
    expect(vm.during(() => vm.get(PAGE0 + PROD))[0]).toMatchObject({ device: "viommu0-cmdqv-trap" });
    expect(vm.get(PAGE0 + STATUS)).toBe(0);
    vm.put(0x1000, 1);
    expect([vm.viommu.cmdqv!.queues.hosted, vm.get(PAGE0 + STATUS)]).toEqual([1, 1]);
    expect(vm.end()).toBe(0);
  });

  it("a queue waits for the one before it, whatever the guest's order; the page is shown when all are there", () => {
    const vm = new QueueVm({ cmdqv: SMALL, driver: false });
    vm.put(0x1000, 1);
    vm.put(0x200, 1);
    vm.put(0x204, 3);
    const [first, second] = [vm.ram.allocate(), vm.ram.allocate()];
    vm.put64(PAGE1 + 0x80, second | 8n);
    vm.put(PAGE0 + 0x80 + CONFIG, 1);
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(0);
    vm.put64(PAGE1, first | 8n);
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(0);
    vm.put(PAGE0 + CONFIG, 1);
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(2);
    expect([vm.get(PAGE0 + STATUS), vm.get(PAGE0 + 0x80 + STATUS)]).toEqual([1, 1]);
    // Another base for the first takes both away and brings both back.
    vm.put(PAGE0 + CONFIG, 0);
    vm.put64(PAGE1, second | 7n);
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(0);
    vm.put(PAGE0 + CONFIG, 1);
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(2);
    expect(vm.end()).toBe(0);
  });

  it.each([
    ["outside guest RAM", BigInt(RAM_BASE + MEMORY) | 8n],
    ["of more commands than IDR1.CMDQS", BigInt(RAM_BASE) | 9n],
    ["of one command", BigInt(RAM_BASE) | 0n],
  ])("one %s is an initialization error, and tried anew when it is enabled anew", (_what, base) => {
    const vm = new QueueVm({ configuration: { interrupts: "wired" }, driver: false });
    vm.takeInterrupts();
    enable(vm, 0, base);
    expect([vm.get(PAGE0 + STATUS), vm.get(PAGE0 + GERROR) ^ vm.get(PAGE0 + GERRORN)]).toEqual([0, 4]);
    expect(vm.takeInterrupts()).toContain(32 + 4);
    const asked = vm.calls.counts.IOMMU_HW_QUEUE_ALLOC ?? 0;
    for (let i = 0; i < 5; i++) vm.put(0x1040, 1);
    expect(vm.calls.counts.IOMMU_HW_QUEUE_ALLOC ?? 0).toBe(asked);
    vm.put(PAGE0 + GERRORN, 4);
    vm.put(PAGE0 + CONFIG, 0);
    vm.put64(PAGE1, vm.ram.allocate() | 8n);
    vm.put(PAGE0 + CONFIG, 1);
    expect(vm.get(PAGE0 + STATUS)).toBe(1);
    expect(vm.end()).toBe(0);
  });

  it("a reset of the vIOMMU gives all back", () => {
    const vm = new QueueVm({ cmdqv: SMALL });
    vm.viommu.reset();
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(0);
    expect([vm.get(0x1000), vm.get(PAGE0 + CONFIG), vm.get(0x200)]).toEqual([0, 0, 0]);
    vm.bringUp();
    expect(vm.viommu.cmdqv!.queues.hosted).toBe(2);
    expect(vm.end()).toBe(0);
  });
});

describe("devices behind it", () => {
  it("that are models see what the guest's own queue invalidates, although nobody here hears of it", () => {
    const vm = new QueueVm();
    const model = { handle: 999, guestId: 0x20, name: "00:04.0", ats: false, pri: false, emulated: true };
    expect(vm.viommu.plug(model)).toBe(0);
    const dma = vm.viommu.emulatedDma(() => 0x20);
    const stage1 = vm.stage1();
    stage1.map(IOVA, vm.ram.allocate(), 4096n);
    vm.driver.installTranslation(0x20, { whole: stage1, pasids: new Map(), ats: false, pageRequests: false });
    const read = () => dma.read(Number(IOVA >> 12n), 0, new Uint8Array(1), 0, 1, -1);
    expect(read()).toBe(0);
    stage1.unmap(IOVA, 4096n);
    vm.driver.invalidate({ stage1, iova: IOVA });
    vm.driver.ownQueues!.fence();
    expect(read()).not.toBe(0);
    expect(vm.end()).toBe(0);
  });

  it("are as many as pairs of StreamIDs: the next is refused, with the host's word", () => {
    const vm = new QueueVm({ cmdqv: { log2vcmdqs: 3, log2vintfs: 2, log2vsids: 0 }, driver: false });
    expect(() => vm.assign("0000:00:02.0", OTHER_SID)).toThrow(/ENOSPC/);
    expect(vm.reports.join()).toMatch(/IOMMU_VDEVICE_ALLOC/);
    expect(vm.end()).toBe(0);
  });
});

import { describe, expect, it } from "vitest";
import { MemoryBlockStore } from "../../../../host/devices/nvme/block-store.ts";
import { ADMIN_SUBMISSION, DATA, kind, NvmeTestDriver, ScriptedStore } from "./test-driver.ts";

const READY = 1;
const FATAL = 2;

function driver(...args: ConstructorParameters<typeof NvmeTestDriver>): NvmeTestDriver {
  const nvme = new NvmeTestDriver(...args);
  expect(nvme.enable()).toBe(READY);
  return nvme;
}

describe("registers of the controller (NVMe 1.4 §3.1)", () => {
  it("say what it can do", () => {
    const nvme = new NvmeTestDriver();
    expect(nvme.controller.configRead(8, 4) >>> 8).toBe(0x010802);
    const low = nvme.controller.mmioRead(0, 8);
    const { high } = nvme.controller;
    // MQES, CQR; the NVM command set (bit 37), doorbell stride 0 (35:32), 4 KiB pages only (51:48, 55:52).
    expect(low & 0x1ffff).toBe(0x10000 | 1023);
    expect(high).toBe(1 << 5);
    expect(nvme.read(8)).toBe(0x00010400);
  });

  it("become ready some time after CC.EN, not at once", () => {
    const nvme = new NvmeTestDriver();
    nvme.write(0x24, 0x000f000f);
    nvme.write(0x14, 0x00460001);
    expect(nvme.read(0x1c)).toBe(0);
    nvme.bus.run(1_000_000);
    expect(nvme.read(0x1c)).toBe(READY);
  });

  it.each([
    ["a page size it does not have", 0x00460081],
    ["a command set it does not have", 0x00460011],
    ["an arbitration it does not have", 0x00460801],
  ])("show a fatal status when enabled with %s", (_, configuration) => {
    const nvme = new NvmeTestDriver();
    expect(nvme.enable(16, configuration)).toBe(FATAL);
  });

  it("show a fatal status when an admin queue has one entry", () => {
    const nvme = new NvmeTestDriver();
    expect(nvme.enable(1)).toBe(FATAL);
  });

  it("keep admin queue registers over a controller reset, not over a function-level reset", () => {
    const nvme = driver();
    nvme.write(0x14, 0);
    expect(nvme.read(0x1c)).toBe(0);
    expect(nvme.read(0x28)).toBe(ADMIN_SUBMISSION);
    nvme.controller.reset();
    expect(nvme.read(0x28)).toBe(0);
    expect(nvme.read(0x24)).toBe(0);
  });

  it("drop the page offset of admin queue addresses", () => {
    const nvme = new NvmeTestDriver();
    nvme.write(0x28, 0x12345fff);
    expect(nvme.read(0x28)).toBe(0x12345000);
  });

  it("report a complete shutdown after flushing the store", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    nvme.write(0x14, 0x00464001);
    expect(nvme.read(0x1c)).toBe(READY | (1 << 2));
    nvme.bus.run(1_000_000);
    expect(nvme.read(0x1c)).toBe(READY | (2 << 2));
    expect(store.calls).toEqual(["flush"]);
  });

  it("do not report a complete shutdown when the store could not be flushed", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    store.failWrites = true;
    nvme.write(0x14, 0x00464001);
    nvme.bus.run(1_000_000);
    expect(nvme.read(0x1c)).toBe(READY | FATAL | (1 << 2));
  });

  it("do not begin a shutdown twice", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    for (const configuration of [0x00464001, 0x00460001, 0x00468001]) nvme.write(0x14, configuration);
    nvme.bus.run(1_000_000);
    expect(store.calls).toEqual(["flush"]);
  });

  it("work again after a reset, with no queues and default features", () => {
    const nvme = driver();
    nvme.createIoQueue(1);
    nvme.admin(0x09, { 10: 6, 11: 0 });
    nvme.write(0x14, 0);
    expect(nvme.enable()).toBe(READY);
    expect(nvme.admin(0x0a, { 10: 6 }).result).toBe(1);
    nvme.createIoQueue(1);
    expect(nvme.transfer(false, 0, 1).status).toBe(0);
  });

  it("have commands in flight forgotten by a reset", () => {
    const nvme = driver();
    nvme.createIoQueue(1);
    nvme.place(1, 2, { 1: 1, 6: DATA });
    nvme.ring(1);
    nvme.bus.run(1_000);
    nvme.write(0x14, 0);
    const before = nvme.bus.transfers.length;
    nvme.bus.run(1_000_000);
    expect(nvme.bus.transfers).toHaveLength(before);
    expect(nvme.bus.clock.pending).toBe(0);
  });
});

describe("queues (NVMe 1.4 §4.1)", () => {
  it("wrap around with their phase toggling", () => {
    const nvme = driver();
    for (let i = 0; i < 50; i++) expect(nvme.admin(0x0a, { 10: 7 }).result).toBe(0x000f000f);
  });

  it("report the submission queue's head and id in completions", () => {
    const nvme = driver();
    nvme.createIoQueue(2);
    nvme.createIoQueue(1);
    const completion = nvme.transfer(false, 0, 1);
    expect(completion).toMatchObject({ submissionQueue: 1, submissionHead: 1 });
  });

  it("stop when the host does not take completions, and go on when it does", () => {
    const nvme = driver();
    nvme.createIoQueue(1, 4);
    for (let i = 0; i < 3; i++) nvme.place(1, 0, { 1: 1 });
    nvme.ring(1);
    nvme.bus.run(1_000_000);
    nvme.place(1, 0, { 1: 1 });
    nvme.place(1, 0, { 1: 1 });
    nvme.ring(1);
    nvme.bus.run(1_000_000);
    // Three entries of four: a full queue keeps one free.
    expect(nvme.view.getUint32(nvme.queues.get(1)!.completionAt + 3 * 16 + 12, true)).toBe(0);
    const ids = nvme.takeAll(1).map(({ commandId }) => commandId);
    nvme.bus.run(1_000_000);
    expect(ids).toHaveLength(3);
    expect(nvme.takeAll(1)).toHaveLength(2);
  });

  it("keep the admin queue alive when an I/O queue is stuck", () => {
    const nvme = driver();
    nvme.createIoQueue(1, 64);
    for (let i = 0; i < 63; i++) nvme.place(1, 0, { 1: 1 });
    nvme.ring(1);
    nvme.bus.run(10_000_000);
    for (let i = 0; i < 40; i++) nvme.place(1, 0, { 1: 1 });
    nvme.ring(1);
    nvme.bus.run(10_000_000);
    expect(nvme.admin(0x0a, { 10: 7 }).status).toBe(0);
  });

  it("leave the admin queue room when I/O has taken all the commands it may", () => {
    const nvme = driver();
    nvme.createIoQueue(1, 256);
    for (let i = 0; i < 200; i++) nvme.place(1, 0, { 1: 1 });
    nvme.ring(1);
    nvme.bus.run(1_000);
    nvme.place(0, 0x0a, { 10: 7 });
    nvme.ring(0);
    // Far less than the first flush needs.
    nvme.bus.run(10_000);
    expect(nvme.take(0)?.status).toBe(0);
    nvme.bus.run(200 * 20_000);
    expect(nvme.takeAll(1)).toHaveLength(200);
  });

  it("are not looked at before the controller is ready", () => {
    const nvme = new NvmeTestDriver();
    nvme.write(0x24, 0x000f000f);
    nvme.write(0x28, ADMIN_SUBMISSION);
    nvme.write(0x14, 0x00460001);
    nvme.write(0x1000, 3);
    nvme.bus.run(1_000_000);
    expect(nvme.bus.transfers).toEqual([]);
  });

  it("take turns: a long queue does not starve a short one (§4.13.1)", () => {
    const nvme = driver();
    nvme.createIoQueue(1);
    nvme.createIoQueue(2);
    for (let i = 0; i < 40; i++) nvme.place(1, 0, { 1: 1 });
    nvme.place(2, 0, { 1: 1 });
    nvme.ring(1);
    nvme.ring(2);
    // Eight of the first queue's flushes (the arbitration burst), then the second's: 9 * 20 µs.
    nvme.bus.run(200 + 9 * 20_000 + 5_000);
    expect(nvme.takeAll(2)).toHaveLength(1);
    expect(nvme.takeAll(1).length).toBeLessThan(10);
  });

  it.each([
    ["id 0", { 10: 0x000f0000, 11: 1 }, 0x101],
    ["an id beyond those given", { 10: 0x000f0011, 11: 1 }, 0x101],
    ["an id in use", { 10: 0x000f0001, 11: 1 }, 0x101],
    ["one entry", { 10: 0x00000002, 11: 1 }, 0x102],
    ["more entries than CAP.MQES", { 10: 0x04000002, 11: 1 }, 0x102],
    ["scattered memory", { 10: 0x000f0002, 11: 0 }, 0x002],
    ["an address within a page", { 10: 0x000f0002, 11: 1, 6: DATA + 8 }, 0x013],
    ["a vector that does not exist", { 10: 0x000f0002, 11: (1 << 16) | 3 }, 0x108],
  ])("are refused as completion queue with %s (§5.3)", (_, dwords, status) => {
    const nvme = driver();
    nvme.createIoQueue(1);
    expect(kind(nvme.admin(0x05, { 6: DATA, ...dwords }))).toBe(status);
  });

  it.each([
    ["id 0", { 10: 0x000f0000, 11: 0x00010001 }, 0x101],
    ["an id in use", { 10: 0x000f0001, 11: 0x00010001 }, 0x101],
    ["one entry", { 10: 0x00000002, 11: 0x00010001 }, 0x102],
    ["the admin completion queue", { 10: 0x000f0002, 11: 0x00000001 }, 0x101],
    ["a completion queue that cannot exist", { 10: 0x000f0002, 11: 0x7fff0001 }, 0x101],
    ["a completion queue that does not exist", { 10: 0x000f0002, 11: 0x00030001 }, 0x100],
    ["scattered memory", { 10: 0x000f0002, 11: 0x00010000 }, 0x002],
  ])("are refused as submission queue with %s (§5.4)", (_, dwords, status) => {
    const nvme = driver();
    nvme.createIoQueue(1);
    expect(kind(nvme.admin(0x01, { 6: DATA, ...dwords }))).toBe(status);
  });

  it("are refused while the entry sizes in CC are not 64 and 16 bytes", () => {
    const nvme = new NvmeTestDriver();
    nvme.enable(16, 1);
    expect(kind(nvme.admin(0x05, { 6: DATA, 10: 0x000f0001, 11: 1 }))).toBe(0x102);
  });

  it("are deleted in order: submission before completion (§5.5, §5.6)", () => {
    const nvme = driver();
    nvme.createIoQueue(1);
    expect(kind(nvme.admin(0x04, { 10: 1 }))).toBe(0x10c);
    expect(nvme.admin(0x00, { 10: 1 }).status).toBe(0);
    expect(nvme.admin(0x04, { 10: 1 }).status).toBe(0);
    expect(kind(nvme.admin(0x04, { 10: 1 }))).toBe(0x101);
    expect(kind(nvme.admin(0x00, { 10: 1 }))).toBe(0x101);
    expect(kind(nvme.admin(0x00, { 10: 0 }))).toBe(0x101);
  });

  it("abort what is in flight when they are deleted", () => {
    const nvme = driver();
    nvme.createIoQueue(1);
    for (let i = 0; i < 3; i++) nvme.place(1, 0, { 1: 1 });
    nvme.ring(1);
    nvme.bus.run(300);
    nvme.place(0, 0x00, { 10: 1 });
    nvme.ring(0);
    nvme.bus.run(1_000_000);
    expect(nvme.take(0)?.status).toBe(0);
    expect(nvme.takeAll(1).map(({ status }) => status)).toEqual([0x008, 0x008, 0x008]);
  });
});

describe("Abort (NVMe 1.4 §5.1)", () => {
  it("says that a command it does not find was not aborted", () => {
    expect(driver().admin(0x08, { 10: 0x12340001 })).toMatchObject({ status: 0, result: 1 });
  });

  it("ends a waiting Asynchronous Event Request", () => {
    const nvme = driver();
    const id = nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    nvme.place(0, 0x08, { 10: id << 16 });
    nvme.ring(0);
    nvme.bus.run(100_000);
    const [aborted, abort] = nvme.takeAll(0);
    expect(aborted).toMatchObject({ commandId: id, status: 0x007 });
    expect(abort).toMatchObject({ status: 0, result: 0 });
  });

  it("ends a command in flight, which then does nothing", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    nvme.createIoQueue(1);
    // Admin commands overtake I/O, so the flushes are still in flight when the abort is carried out.
    nvme.place(1, 0, { 1: 1 });
    const victim = nvme.place(1, 0, { 1: 1 });
    nvme.place(0, 0x08, { 10: (victim << 16) | 1 });
    nvme.ring(0);
    nvme.ring(1);
    nvme.bus.run(1_000_000);
    expect(nvme.take(0)).toMatchObject({ status: 0, result: 0 });
    expect(nvme.takeAll(1).map(({ commandId, status }) => [commandId === victim, status])).toEqual([
      [true, 0x007],
      [false, 0],
    ]);
    expect(store.calls).toEqual(["flush"]);
  });
});

describe("interrupts of the controller (NVMe 1.4 §7.5)", () => {
  it("send the completion queue's MSI-X vector", () => {
    const nvme = driver();
    nvme.enableMessages();
    nvme.createIoQueue(1, 16, 5);
    nvme.bus.messages.length = 0;
    nvme.transfer(false, 0, 1);
    expect(nvme.bus.messages.map(({ data }) => data)).toEqual([5]);
  });

  it("hold the pin while a queue has completions that were not taken, unless masked", () => {
    const nvme = driver();
    nvme.place(0, 0x0a, { 10: 7 });
    nvme.ring(0);
    nvme.bus.run(100_000);
    expect(nvme.bus.pins).toEqual([true]);
    nvme.write(0x0c, 1);
    expect(nvme.bus.pins).toEqual([true, false]);
    nvme.write(0x10, 1);
    expect(nvme.bus.pins).toEqual([true, false, true]);
    nvme.take(0);
    expect(nvme.bus.pins).toEqual([true, false, true, false]);
  });
});

describe("asynchronous events (NVMe 1.4 §5.2)", () => {
  it("tell of a doorbell that does not exist, once until the error log was read", () => {
    const nvme = driver();
    nvme.place(0, 0x0c);
    nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    nvme.write(0x1000 + 8 * 5, 1);
    nvme.bus.run(100_000);
    expect(nvme.takeAll(0)).toMatchObject([{ status: 0, result: 0x00010000 }]);
    nvme.write(0x1000 + 8 * 6, 1);
    nvme.bus.run(100_000);
    expect(nvme.takeAll(0)).toEqual([]);
    nvme.place(0, 0x02, { 6: DATA, 10: (15 << 16) | 1 });
    nvme.ring(0);
    nvme.bus.run(100_000);
    expect(nvme.takeAll(0).map(({ result }) => result)).toEqual([0, 0x00010000]);
  });

  it("tell of a doorbell value outside the queue", () => {
    const nvme = driver();
    nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    nvme.write(0x1000, 16);
    nvme.bus.run(100_000);
    expect(nvme.takeAll(0)).toMatchObject([{ result: 0x00010100 }]);
  });

  it("tell of a completion queue head beyond what was completed", () => {
    const nvme = driver();
    nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    nvme.write(0x1004, 9);
    nvme.bus.run(100_000);
    expect(nvme.takeAll(0)).toMatchObject([{ result: 0x00010100 }]);
  });

  it("hold no completion entry while their requests wait", () => {
    const nvme = new NvmeTestDriver();
    nvme.enable(5);
    for (let i = 0; i < 4; i++) nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    for (let i = 0; i < 10; i++) expect(nvme.admin(0x0a, { 10: 7 }).status).toBe(0);
  });

  it("are limited to as many requests as Identify says", () => {
    const nvme = driver();
    for (let i = 0; i < 4; i++) nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    expect(kind(nvme.admin(0x0c))).toBe(0x105);
  });

  it("tell of a media error if asked to", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    nvme.createIoQueue(1);
    nvme.admin(0x09, { 10: 0x0b, 11: 4 });
    nvme.place(0, 0x0c);
    nvme.ring(0);
    nvme.bus.run(100_000);
    store.failReads = true;
    expect(kind(nvme.transfer(false, 0, 1))).toBe(0x281);
    expect(nvme.takeAll(0)).toMatchObject([{ result: 0x00020001 }]);
  });
});

describe("a hostile guest", () => {
  it("gets a fatal status when its commands cannot be fetched", () => {
    const nvme = driver();
    nvme.bus.refuse = () => true;
    nvme.ring(0);
    nvme.write(0x1000, 3);
    nvme.bus.run(100_000);
    expect(nvme.read(0x1c)).toBe(READY | FATAL);
    nvme.write(0x14, 0);
    nvme.bus.refuse = () => false;
    expect(nvme.enable()).toBe(READY);
  });

  it("gets a fatal status when a completion cannot be written", () => {
    const nvme = driver();
    nvme.place(0, 0x0a, { 10: 7 });
    nvme.bus.refuse = (address) => address >= 0x12000n && address < 0x13000n;
    nvme.ring(0);
    nvme.bus.run(100_000);
    expect(nvme.read(0x1c)).toBe(READY | FATAL);
  });

  it("gets no work done while bus mastering is off or the function sleeps", () => {
    const nvme = driver();
    nvme.controller.configWrite(nvme.bus.findCapability(0x01) + 4, 2, 3);
    nvme.ring(0);
    nvme.write(0x1000, 1);
    nvme.bus.run(100_000);
    nvme.controller.configWrite(nvme.bus.findCapability(0x01) + 4, 2, 0);
    expect(nvme.read(0x1c)).toBe(READY | FATAL);
  });
});

describe("several drives", () => {
  it("differ in their identifiers, and one drive always has the same", () => {
    const identity = (serial: string) => {
      const nvme = driver(new MemoryBlockStore(1 << 20), { serial });
      nvme.identify(0, 1);
      return nvme.bus.memory.slice(DATA + 104, DATA + 128).join();
    };
    expect(identity("A")).toBe(identity("A"));
    expect(identity("A")).not.toBe(identity("B"));
  });
});

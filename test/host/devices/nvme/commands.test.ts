import { describe, expect, it } from "vitest";
import { MemoryBlockStore } from "../../../../host/devices/nvme/block-store.ts";
import { DATA, kind, NvmeTestDriver, ScriptedStore } from "./test-driver.ts";

const LIST = DATA + 0x200000;

function driver(store: MemoryBlockStore = new MemoryBlockStore(8 << 20)): NvmeTestDriver {
  const nvme = new NvmeTestDriver(store);
  nvme.enable();
  nvme.createIoQueue(1);
  return nvme;
}

function text(nvme: NvmeTestDriver, at: number, length: number): string {
  return String.fromCharCode(...nvme.bus.memory.subarray(DATA + at, DATA + at + length));
}

/** Fills DATA with bytes that differ from place to place. */
function pattern(nvme: NvmeTestDriver, at: number, length: number, salt = 0): Uint8Array {
  for (let i = 0; i < length; i++) nvme.bus.memory[at + i] = (i * 31 + (i >> 8) + salt) & 0xff;
  return nvme.bus.memory.slice(at, at + length);
}

describe("Identify (NVMe 1.4 §5.15)", () => {
  it("describes the controller", () => {
    const nvme = new NvmeTestDriver(undefined, { serial: "SN42" });
    nvme.enable();
    expect(nvme.identify(1).status).toBe(0);
    const { memory } = nvme.bus;
    expect(text(nvme, 4, 20)).toBe("SN42                ");
    expect(text(nvme, 24, 40).trimEnd()).toBe("nestbox NVMe");
    expect(nvme.view.getUint32(DATA + 80, true)).toBe(0x00010400);
    expect(memory[DATA + 77]).toBe(8);
    expect([memory[DATA + 512], memory[DATA + 513]]).toEqual([0x66, 0x44]);
    expect(nvme.view.getUint32(DATA + 516, true)).toBe(1);
    // Compare, dataset management, write zeroes, save and select.
    expect(nvme.view.getUint16(DATA + 520, true)).toBe(0b11101);
    expect(text(nvme, 768, 69)).toMatch(
      /^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\0$/,
    );
  });

  it.each([512, 4096] as const)("describes a namespace of %i-byte blocks", (blockBytes) => {
    const nvme = new NvmeTestDriver(new MemoryBlockStore(8 << 20, blockBytes));
    nvme.enable();
    expect(nvme.identify(0, 1).status).toBe(0);
    expect(nvme.view.getBigUint64(DATA, true)).toBe(BigInt((8 << 20) / blockBytes));
    expect(nvme.view.getBigUint64(DATA + 8, true)).toBe(BigInt((8 << 20) / blockBytes));
    expect(2 ** nvme.bus.memory[DATA + 130]!).toBe(blockBytes);
    expect([nvme.bus.memory[DATA + 25], nvme.bus.memory[DATA + 26]]).toEqual([0, 0]);
  });

  it("lists active namespaces above the one given", () => {
    const nvme = driver();
    nvme.identify(2, 0);
    expect([nvme.view.getUint32(DATA, true), nvme.view.getUint32(DATA + 4, true)]).toEqual([1, 0]);
    nvme.identify(2, 1);
    expect(nvme.view.getUint32(DATA, true)).toBe(0);
    expect(kind(nvme.identify(2, 0xfffffffe))).toBe(0x00b);
  });

  it("gives identification descriptors that end with a zero type", () => {
    const nvme = driver();
    nvme.identify(3, 1);
    const { memory } = nvme.bus;
    const found: number[][] = [];
    let at = DATA;
    for (; memory[at] !== 0; at += 4 + memory[at + 1]!) found.push([memory[at]!, memory[at + 1]!]);
    expect(found).toEqual([
      [1, 8],
      [2, 16],
      [3, 16],
    ]);
  });

  it("refuses a namespace that does not exist and a structure it does not have", () => {
    const nvme = driver();
    expect(kind(nvme.identify(0, 2))).toBe(0x00b);
    expect(kind(nvme.identify(0, 0))).toBe(0x00b);
    expect(kind(nvme.identify(0x7f))).toBe(0x002);
  });

  it("takes a data pointer that crosses a page", () => {
    const nvme = driver();
    expect(nvme.admin(0x06, { 6: DATA + 0x800, 8: DATA + 0x3000, 10: 1 }).status).toBe(0);
    expect(nvme.view.getUint32(DATA + 0x800 + 80, true)).toBe(0x00010400);
    expect(nvme.bus.memory[DATA + 0x3000]).toBe(500 & 0xff);
  });
});

describe("features (NVMe 1.4 §5.21)", () => {
  it.each([
    ["arbitration", 0x01, 0x01020302],
    ["volatile write cache", 0x06, 0],
    ["interrupt coalescing", 0x08, 0x0a05],
    ["interrupt vector configuration", 0x09, 0x10003],
    ["write atomicity", 0x0a, 1],
    ["asynchronous event configuration", 0x0b, 0x04],
    ["temperature threshold", 0x04, 300],
    ["error recovery", 0x05, 10],
  ])("keep %s", (_, feature, value) => {
    const nvme = driver();
    expect(nvme.admin(0x09, { 10: feature, 11: value }).status).toBe(0);
    const selector = feature === 0x09 || feature === 0x04 ? value & 0xffff : 0;
    const which = feature === 0x04 ? 0 : selector;
    expect(nvme.admin(0x0a, { 10: feature, 11: which }).result).toBe(value);
  });

  it("start with each interrupt vector configured for itself, again after a reset", () => {
    const nvme = driver();
    nvme.admin(0x09, { 10: 9, 11: 0x10003 });
    nvme.write(0x14, 0);
    nvme.enable();
    expect(nvme.admin(0x0a, { 10: 9, 11: 3 }).result).toBe(3);
  });

  it("give the default and the capabilities when selected", () => {
    const nvme = driver();
    nvme.admin(0x09, { 10: 6, 11: 0 });
    expect(nvme.admin(0x0a, { 10: 6 | (1 << 8) }).result).toBe(1);
    expect(nvme.admin(0x0a, { 10: 6 | (3 << 8) }).result).toBe(4);
    expect(nvme.admin(0x0a, { 10: 5 | (3 << 8) }).result).toBe(6);
    expect(kind(nvme.admin(0x0a, { 10: 6 | (4 << 8) }))).toBe(0x002);
  });

  it("tell how many queues there are, which cannot change once some exist", () => {
    const nvme = new NvmeTestDriver(undefined, { ioQueues: 4 });
    nvme.enable();
    expect(nvme.admin(0x09, { 10: 7, 11: 0x00070007 })).toMatchObject({ status: 0, result: 0x00030003 });
    expect(kind(nvme.admin(0x09, { 10: 7, 11: 0xffff0001 }))).toBe(0x002);
    nvme.createIoQueue(1);
    expect(kind(nvme.admin(0x09, { 10: 7, 11: 0x00010001 }))).toBe(0x00c);
  });

  it("refuse saving, unknown features, and values that mean nothing", () => {
    const nvme = driver();
    expect(kind(nvme.admin(0x09, { 10: 0x80000006, 11: 0 }))).toBe(0x10d);
    expect(kind(nvme.admin(0x09, { 10: 0x7e }))).toBe(0x002);
    expect(kind(nvme.admin(0x0a, { 10: 0x7e }))).toBe(0x002);
    expect(kind(nvme.admin(0x09, { 10: 2, 11: 1 }))).toBe(0x002);
    expect(kind(nvme.admin(0x0a, { 10: 9, 11: 17 }))).toBe(0x002);
  });
});

describe("log pages (NVMe 1.4 §5.14)", () => {
  const log = (nvme: NvmeTestDriver, page: number, bytes: number, offset = 0) =>
    nvme.admin(0x02, { 1: 0xffffffff, 6: DATA, 10: ((bytes / 4 - 1) << 16) | page, 12: offset });

  it("record errors, the newest first", () => {
    const nvme = driver();
    nvme.admin(0x7f);
    const second = nvme.transfer(false, 0x7fff_ffff_ffff, 1);
    expect(log(nvme, 1, 128).status).toBe(0);
    const { view } = nvme;
    expect(view.getBigUint64(DATA, true)).toBe(2n);
    expect(view.getUint16(DATA + 8, true)).toBe(1);
    expect(view.getUint16(DATA + 10, true)).toBe(second.commandId);
    expect(view.getUint16(DATA + 12, true) >> 1).toBe(second.status);
    expect(view.getBigUint64(DATA + 16, true)).toBe(0x7fff_ffff_ffffn);
    expect(view.getUint32(DATA + 24, true)).toBe(1);
    expect(view.getBigUint64(DATA + 64, true)).toBe(1n);
  });

  it("count what was read and written", () => {
    const nvme = driver();
    for (let i = 0; i < 5; i++) nvme.transfer(true, 8 * i, 8);
    for (let i = 0; i < 3; i++) nvme.transfer(false, 8 * i, 8);
    expect(log(nvme, 2, 512).status).toBe(0);
    const { view } = nvme;
    expect(view.getUint16(DATA + 1, true)).toBe(310);
    // Units of 1000 * 512 bytes, rounded up.
    expect(view.getBigUint64(DATA + 32, true)).toBe(1n);
    expect(view.getBigUint64(DATA + 64, true)).toBe(3n);
    expect(view.getBigUint64(DATA + 80, true)).toBe(5n);
  });

  it("tell the firmware revision, also from an offset", () => {
    const nvme = driver();
    expect(log(nvme, 3, 8, 8).status).toBe(0);
    expect(text(nvme, 0, 8)).toBe("1.0     ");
  });

  it("refuse pages that do not exist, offsets past the end, and more than a transfer", () => {
    const nvme = driver();
    expect(kind(log(nvme, 0x7e, 512))).toBe(0x109);
    expect(kind(log(nvme, 2, 512, 516))).toBe(0x002);
    expect(kind(nvme.admin(0x02, { 6: DATA, 10: 0xffff0002, 11: 0xffff }))).toBe(0x002);
  });
});

describe("reading and writing (NVMe 1.4 §6)", () => {
  it("brings back what was written", () => {
    const nvme = driver();
    const written = pattern(nvme, DATA, 4096);
    expect(nvme.transfer(true, 100, 8).status).toBe(0);
    expect(nvme.transfer(false, 100, 8, DATA + 0x4000).status).toBe(0);
    expect(nvme.bus.memory.slice(DATA + 0x4000, DATA + 0x5000)).toEqual(written);
    expect(nvme.transfer(false, 101, 1, DATA + 0x6000).status).toBe(0);
    expect(nvme.bus.memory.slice(DATA + 0x6000, DATA + 0x6200)).toEqual(written.slice(512, 1024));
  });

  it("follows a PRP list, starting within a page", () => {
    const nvme = driver();
    const written = pattern(nvme, DATA + 0x100, 5 * 4096);
    // From offset 0x100, 20 KiB touch six pages: PRP1 and five list entries.
    for (let i = 0; i < 5; i++) nvme.view.setBigUint64(LIST + 8 * i, BigInt(DATA + 0x1000 * (i + 1)), true);
    expect(nvme.transfer(true, 0, 40, DATA + 0x100, LIST).status).toBe(0);
    nvme.bus.memory.fill(0, DATA, DATA + 0x10000);
    expect(nvme.transfer(false, 0, 40, DATA + 0x100, LIST).status).toBe(0);
    expect(nvme.bus.memory.slice(DATA + 0x100, DATA + 0x100 + 5 * 4096)).toEqual(written);
  });

  it("follows a chain of PRP lists: the last entry of a full page leads on (§4.3)", () => {
    const nvme = driver();
    // The list starts two entries before its page ends: one page, then the link.
    const start = LIST + 4096 - 16;
    nvme.view.setBigUint64(start, BigInt(DATA + 0x5000), true);
    nvme.view.setBigUint64(start + 8, BigInt(LIST + 0x2000), true);
    nvme.view.setBigUint64(LIST + 0x2000, BigInt(DATA + 0x9000), true);
    nvme.view.setBigUint64(LIST + 0x2008, BigInt(DATA + 0x7000), true);
    const pages = [0x1000, 0x5000, 0x9000, 0x7000].map((at, i) => pattern(nvme, DATA + at, 4096, i));
    expect(nvme.transfer(true, 0, 32, DATA + 0x1000, start).status).toBe(0);
    nvme.bus.memory.fill(0, DATA, DATA + 0x10000);
    for (let i = 0; i < 4; i++) nvme.transfer(false, 8 * i, 8, DATA + 0x1000 * i);
    expect([0, 1, 2, 3].map((i) => nvme.bus.memory.slice(DATA + 0x1000 * i, DATA + 0x1000 * (i + 1)))).toEqual(pages);
  });

  it("uses a list that just fills its page without taking the last entry for a link", () => {
    const nvme = driver();
    const start = LIST + 4096 - 16;
    nvme.view.setBigUint64(start, BigInt(DATA + 0x1000), true);
    nvme.view.setBigUint64(start + 8, BigInt(DATA + 0x2000), true);
    const written = pattern(nvme, DATA, 3 * 4096);
    expect(nvme.transfer(true, 0, 24, DATA, start).status).toBe(0);
    expect(nvme.transfer(false, 16, 8, DATA + 0x8000).status).toBe(0);
    expect(nvme.bus.memory.slice(DATA + 0x8000, DATA + 0x9000)).toEqual(written.slice(8192));
  });

  it.each([
    ["a first page that is not dword aligned", DATA + 2, 0, 8],
    ["a second page with an offset", DATA, DATA + 0x1004, 16],
    ["a list that is not qword aligned", DATA, LIST + 4, 24],
  ])("refuses %s with PRP Offset Invalid", (_, prp1, prp2, blocks) => {
    expect(kind(driver().transfer(false, 0, blocks, prp1, prp2))).toBe(0x013);
  });

  it("refuses a list entry with an offset", () => {
    const nvme = driver();
    nvme.view.setBigUint64(LIST, BigInt(DATA + 0x1000), true);
    nvme.view.setBigUint64(LIST + 8, BigInt(DATA + 0x2008), true);
    expect(kind(nvme.transfer(false, 0, 24, DATA, LIST))).toBe(0x013);
  });

  it("refuses a chain that leads to itself at an offset, and ends on one that leads to its own page", () => {
    const nvme = driver();
    const last = LIST + 4096 - 8;
    nvme.view.setBigUint64(last, BigInt(last), true);
    expect(kind(nvme.transfer(false, 0, 24, DATA, last))).toBe(0x013);
    nvme.view.setBigUint64(last, BigInt(LIST), true);
    for (let i = 0; i < 511; i++) nvme.view.setBigUint64(LIST + 8 * i, BigInt(DATA), true);
    expect(nvme.transfer(false, 0, 2048, DATA, last).status).toBe(0);
  });

  it("does not look at PRP2 when the data ends with the first page", () => {
    expect(driver().transfer(false, 0, 8, DATA, 0x1234_5677).status).toBe(0);
    expect(driver().transfer(false, 0, 1, DATA + 0xe00, 0x1234_5677).status).toBe(0);
  });

  it("answers a refused data page with Data Transfer Error", () => {
    const nvme = driver();
    nvme.bus.refuse = (address) => address === BigInt(DATA + 0x1000);
    expect(kind(nvme.transfer(false, 0, 16, DATA, DATA + 0x1000))).toBe(0x004);
    expect(kind(nvme.transfer(true, 0, 16, DATA, DATA + 0x1000))).toBe(0x004);
  });

  it("answers an unreadable PRP list with Data Transfer Error", () => {
    expect(kind(driver().transfer(false, 0, 24, DATA, 0x7000_0000))).toBe(0x004);
  });

  it.each([
    ["one past the end", 16384, 1],
    ["across the end", 16383, 2],
    ["beyond 2^53", 2 ** 63, 1],
  ])("refuses blocks %s with LBA Out of Range", (_, first, blocks) => {
    expect(kind(driver().transfer(false, first, blocks))).toBe(0x080);
  });

  it("refuses more than the maximum transfer with Invalid Field", () => {
    expect(kind(driver().transfer(false, 0, 2049))).toBe(0x002);
  });

  it("refuses other namespaces, SGLs, fused commands and unknown opcodes", () => {
    const nvme = driver();
    expect(kind(nvme.run(1, 2, { 1: 2, 6: DATA }))).toBe(0x00b);
    expect(kind(nvme.run(1, 2, { 1: 0xffffffff, 6: DATA }))).toBe(0x00b);
    expect(kind(nvme.run(1, 2, { 0: 0x4000, 1: 1, 6: DATA }))).toBe(0x002);
    expect(kind(nvme.run(1, 2, { 0: 0x0100, 1: 1, 6: DATA }))).toBe(0x002);
    expect(kind(nvme.run(1, 0x7f, { 1: 1 }))).toBe(0x001);
    expect(kind(nvme.admin(0x7f))).toBe(0x001);
  });

  it("reads zeroes from what was never written", () => {
    const nvme = driver();
    pattern(nvme, DATA, 4096);
    nvme.transfer(false, 5000, 8);
    expect(nvme.bus.memory.slice(DATA, DATA + 4096).every((byte) => byte === 0)).toBe(true);
  });

  it("writes zeroes to exactly the blocks named", () => {
    const nvme = driver();
    pattern(nvme, DATA, 4096, 1);
    nvme.bus.memory.fill(0xff, DATA, DATA + 4096);
    nvme.transfer(true, 0, 8);
    expect(nvme.run(1, 8, { 1: 1, 10: 2, 12: 2 }).status).toBe(0);
    nvme.transfer(false, 0, 8);
    const blocks = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => nvme.bus.memory[DATA + 512 * i]);
    expect(blocks).toEqual([0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0xff]);
    expect(kind(nvme.run(1, 8, { 1: 1, 10: 16383, 12: 1 }))).toBe(0x080);
  });

  it("compares", () => {
    const nvme = driver();
    pattern(nvme, DATA, 4096);
    nvme.transfer(true, 0, 8);
    expect(nvme.run(1, 5, { 1: 1, 6: DATA, 12: 7 }).status).toBe(0);
    nvme.bus.memory[DATA + 4000]! ^= 1;
    expect(kind(nvme.run(1, 5, { 1: 1, 6: DATA, 12: 7 }))).toBe(0x285);
  });

  it("deallocates ranges, and refuses all of them if one is outside", () => {
    const nvme = driver();
    nvme.bus.memory.fill(0xff, DATA, DATA + 4096);
    nvme.transfer(true, 0, 8);
    const range = (index: number, first: number, count: number) => {
      nvme.view.setUint32(DATA + 0x8000 + 16 * index + 4, count, true);
      nvme.view.setBigUint64(DATA + 0x8000 + 16 * index + 8, BigInt(first), true);
    };
    range(0, 0, 4);
    range(1, 16384, 1);
    expect(kind(nvme.run(1, 9, { 1: 1, 6: DATA + 0x8000, 10: 1, 11: 4 }))).toBe(0x080);
    nvme.transfer(false, 0, 8);
    expect(nvme.bus.memory[DATA]).toBe(0xff);
    expect(nvme.run(1, 9, { 1: 1, 6: DATA + 0x8000, 10: 0, 11: 4 }).status).toBe(0);
    nvme.transfer(false, 0, 8);
    expect([nvme.bus.memory[DATA], nvme.bus.memory[DATA + 2048]]).toEqual([0, 0xff]);
  });
});

describe("the store behind the namespace", () => {
  it("is flushed before a Flush completes, and for every namespace too", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    expect(nvme.run(1, 0, { 1: 1 }).status).toBe(0);
    expect(nvme.run(1, 0, { 1: 0xffffffff }).status).toBe(0);
    expect(store.calls).toEqual(["flush", "flush"]);
  });

  it("is flushed with a write that forces unit access, and with every write while the write cache is off", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    nvme.transfer(true, 0, 1);
    nvme.transfer(true, 1, 1, DATA, 0, 1 << 30);
    nvme.admin(0x09, { 10: 6, 11: 0 });
    nvme.transfer(true, 2, 1);
    expect(store.calls).toEqual(["write 0 1", "write 1 1", "flush", "write 2 1", "flush"]);
  });

  it("turns failures into media errors: Unrecovered Read Error and Write Fault", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    store.failReads = store.failWrites = true;
    expect(kind(nvme.transfer(false, 0, 1))).toBe(0x281);
    expect(kind(nvme.transfer(true, 0, 1))).toBe(0x280);
    expect(kind(nvme.run(1, 0, { 1: 1 }))).toBe(0x280);
    expect(nvme.admin(0x02, { 6: DATA, 10: (127 << 16) | 2 }).status).toBe(0);
    expect(nvme.bus.memory[DATA]! & 4).toBe(4);
    expect(nvme.view.getBigUint64(DATA + 160, true)).toBe(3n);
  });

  it("does not see a write whose data could not be fetched", () => {
    const store = new ScriptedStore(1 << 20);
    const nvme = driver(store);
    nvme.bus.refuse = (address) => address === BigInt(DATA);
    nvme.transfer(true, 0, 1);
    expect(store.calls).toEqual([]);
  });
});

// Bringing a unit up as Linux does, its queue with its errors, interrupt remapping, and legacy mode. Register positions and codes: VT-d §6.5.2, §9, §11.4.

import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { EINVAL, ENODEV, ENOMEM, ENOSPC, ETIMEDOUT } from "../../../../../host/uapi/errno.ts";
import { bench } from "./bench.ts";

const RID = 0x0108;
const [TE, SRTP, QIE, IRE, SIRTP, WBF] = [2 ** 31, 1 << 30, 1 << 26, 1 << 25, 1 << 24, 1 << 27];
const [RTADDR, IQA, IRTA, PQA, GSTS] = [0x20, 0x90, 0xb8, 0xd0, 0x1c];
const READ_WRITE = 3;

describe("probing", () => {
  it("goes from the queue over interrupts and the root table to translation, a bit of GCMD a step", () => {
    const b = bench();
    expect(b.hardware[0]!.commands.map((bits) => bits >>> 0)).toEqual([QIE, SIRTP, IRE, SRTP, TE]);
    expect(b.hardware[0]!.register(IQA) & 0xfffn, "256 descriptors of 256 bits").toBe(0x801n);
    expect(b.hardware[0]!.register(RTADDR) & 0xfffn, "scalable mode").toBe(0x400n);
    expect(b.hardware[0]!.register(IRTA) & 0xfffn, "65536 entries, x2APIC ids").toBe(0x80fn);
    expect(b.hardware[0]!.register(PQA) & 0xfffn, "2048 page requests").toBe(4n);
    expect(b.hardware[0]!.take(), "ESRTPS, ESIRTPS: nothing was cached").toEqual([]);
  });

  it("drops everything itself where the hardware does not: context, PASID, IOTLB, in that order", () => {
    const b = bench({ ESRTPS: false, ESIRTPS: false });
    const granularity = b.hardware[0]!.take().map(({ type, words }) => [type, (words[0] >> 4n) & 3n]);
    expect(granularity).toEqual([
      [4, 0n],
      [1, 1n],
      [7, 3n],
      [2, 1n],
    ]);
  });

  it("refuses a unit that is not there, has no queue, or no width that Linux uses", () => {
    expect(bench({ SAGAW: 0 }).added).toEqual([-ENODEV]);
    expect(bench({ QI: false }).added).toEqual([-ENODEV]);
    expect(bench({ FRO: 0x1ff }).added, "fault records outside of its registers").toEqual([-EINVAL]);
    expect(bench({ SAGAW: 0, SSTS: false, NEST: false, SSADS: false }).added[0], "a first stage needs none").toBeTypeOf(
      "object",
    );
  });

  it("gives back what it took when it fails", () => {
    const b = bench({ SAGAW: 0 });
    expect(b.frames.usedPages).toBe(0);
    const used = bench().frames.usedPages;
    expect(used).toBeGreaterThan(256);
  });

  it("waits for write buffers to be flushed where there are any", () => {
    const b = bench({ RWBF: true });
    b.hardware[0]!.commands.length = 0;
    const device = b.device({ rid: RID });
    device.attach(b.paging(device));
    expect(b.hardware[0]!.commands.every((bits) => bits === WBF)).toBe(true);
    expect(b.hardware[0]!.commands.length).toBeGreaterThan(0);
  });
});

describe("devices", () => {
  it("of another segment, or with somebody else's source id, are not taken", () => {
    const b = bench();
    b.device({ rid: RID });
    expect(() => b.device({ rid: 0x1_0108 })).toThrow("-34");
    expect(() => b.device({ rid: RID })).toThrow(`-${ENODEV}`);
  });

  it("leave nothing behind", () => {
    const b = bench();
    b.device({ rid: RID }).remove();
    const used = b.frames.usedPages;
    const device = b.device({ rid: RID, ats: true, pri: true, maxPasids: 1024 });
    device.remove();
    expect(b.frames.usedPages).toBe(used);
    expect(b.context(RID)).toEqual([0n, 0n, 0n, 0n]);
    expect(device.switched.slice(-2)).toEqual(["PRI false", "ATS false"]);
  });

  it("are not half there when there is no memory", () => {
    let allowed = 0;
    const b = bench(
      {},
      {
        injector: { ioctl: () => 0, allocation: () => allowed-- <= 0, loseEvent: () => false },
      },
    );
    const used = b.frames.usedPages;
    expect(() => b.device({ rid: RID })).toThrow(`-${ENOMEM}`);
    expect(b.frames.usedPages).toBe(used);
    allowed = 1;
    expect(() => b.device({ rid: RID }), "no table for its PASID 0").toThrow(`-${ENOMEM}`);
    allowed = 10;
    b.device({ rid: RID });
  });
});

describe("the invalidation queue", () => {
  const unmap = (b: ReturnType<typeof bench>) => {
    const device = b.device({ rid: RID, ats: true });
    const domain = b.paging(device);
    device.attach(domain);
    domain.map(0x1000n, 0x5000n, 0x1000n, READ_WRITE);
    b.hardware[0]!.take();
    return { device, domain };
  };

  it("goes on past a descriptor that the hardware does not take", () => {
    const b = bench();
    const { domain } = unmap(b);
    b.hardware[0]!.meddle = ({ type }) => (type === 6 ? "bad" : null);
    domain.unmap(0x1000n, 0x1000n);
    domain.sync(0x1000n, 0x1000n);
    expect(
      b.hardware[0]!.take().map(({ type }) => type),
      "the device's was still executed",
    ).toEqual([3]);
    expect(b.unit.queue.errors).toBe(1);
    b.unit.queue.pushHalves(6, 0, 0, 0);
    expect(b.unit.queue.sync(), "whoever submits hears of it").toBe(-EINVAL);
    b.hardware[0]!.meddle = () => null;
    b.unit.queue.pushHalves(1, 0, 0, 0);
    expect(b.unit.queue.sync()).toBe(0);
  });

  it("submits again what was in flight when a device did not answer", () => {
    const b = bench();
    const { domain } = unmap(b);
    let silent = 1;
    b.hardware[0]!.blamed = RID;
    b.hardware[0]!.meddle = ({ type }) => (type === 3 && silent-- > 0 ? "silent" : null);
    domain.unmap(0x1000n, 0x1000n);
    domain.sync(0x1000n, 0x1000n);
    expect(b.hardware[0]!.take().map(({ type }) => type)).toEqual([6, 3, 6, 3]);
  });

  it("gives up a device that is gone at once, one that is there after the third time", () => {
    for (const [blamed, times] of [
      [0x0f00, 1],
      [RID, 3],
    ] as const) {
      const b = bench();
      unmap(b);
      b.hardware[0]!.blamed = blamed;
      b.hardware[0]!.meddle = ({ type }) => (type === 3 ? "silent" : null);
      b.unit.queue.pushHalves(3, RID, 0, 0);
      expect(b.unit.queue.sync()).toBe(-ETIMEDOUT);
      expect(b.hardware[0]!.take().length).toBe(times);
      b.hardware[0]!.meddle = () => null;
      b.unit.queue.pushHalves(1, 0, 0, 0);
      expect(b.unit.queue.sync(), "and is itself alive").toBe(0);
    }
  });

  it("that answers nothing costs a second once, and nothing hangs", () => {
    const b = bench();
    unmap(b);
    b.hardware[0]!.stuck = true;
    const before = b.clock.now;
    b.unit.queue.pushHalves(1, 0, 0, 0);
    expect(b.unit.queue.sync()).toBe(-ETIMEDOUT);
    expect(b.clock.now - before).toBeGreaterThanOrEqual(1e9);
    const after = b.clock.now;
    for (let i = 0; i < 1000; i++) b.unit.queue.pushHalves(1, 0, 0, 0);
    expect(b.unit.queue.sync()).toBe(-ETIMEDOUT);
    expect(b.clock.now).toBe(after);
  });

  it("holds any number of descriptors, sixteen and a wait at a time, and wraps around", () => {
    const b = bench();
    b.hardware[0]!.take();
    for (let i = 0; i < 1000; i++) b.unit.queue.pushHalves(1 | (i << 16), 0, 0, 0);
    expect(b.unit.queue.sync()).toBe(0);
    expect(b.hardware[0]!.take().map(({ words }) => Number(words[0] >> 16n))).toEqual(
      Array.from({ length: 1000 }, (_, i) => i),
    );
  });
});

describe("interrupt remapping", () => {
  const FILE = 0xfee0_2000n;

  it("gives a device the name of an entry that nobody else may use", () => {
    const b = bench();
    const { device } = b.device({ rid: RID });
    b.hardware[0]!.take();
    const messages = b.driver.remapMessages(device, [{ address: FILE, data: 0x31 }]);
    if (messages === null || typeof messages === "number") throw new Error("not remapped");
    expect([messages[0]!.address, messages[0]!.data], "index 0, SHV, remappable").toEqual([0xfee0_0018n, 0]);
    const table = b.hardware[0]!.register(IRTA) & ~0xfffn;
    // P, RH, vector 0x31, destination 2; SVT 1 with the source id.
    expect(b.load(table)).toBe(1n | 8n | (0x31n << 16n) | (2n << 32n));
    expect(b.load(table + 8n)).toBe(BigInt(RID) | (1n << 18n));
    expect(
      b.hardware[0]!.take().map(({ words }) => words[0]),
      "that index was told of",
    ).toEqual([4n | 16n]);
    messages[0]!.free();
    expect([b.load(table), b.load(table + 8n)]).toEqual([0n, 0n]);
    expect(b.unit.remapping!.entries).toBe(0);
  });

  it("gives a block consecutive entries, aligned, by one address and subhandles", () => {
    const b = bench();
    const { device } = b.device({ rid: RID });
    b.driver.remapMessages(device, [{ address: FILE, data: 1 }]);
    const block = [4, 5, 6, 7].map((data) => ({ address: FILE, data }));
    const messages = b.driver.remapMessages(device, block);
    if (messages === null || typeof messages === "number") throw new Error("not remapped");
    expect(messages.map(({ address, data }) => [address, data])).toEqual(
      [0, 1, 2, 3].map((i) => [0xfee0_0018n | (4n << 5n), i]),
    );
    const table = b.hardware[0]!.register(IRTA) & ~0xfffn;
    expect([4n, 7n].map((index) => (b.load(table + 16n * index) >> 16n) & 0xffn)).toEqual([4n, 7n]);
  });

  it("writes destinations as xAPIC has them where there is no EIM", () => {
    const b = bench({ EIM: false });
    expect(b.hardware[0]!.register(IRTA) & 0xfffn).toBe(0xfn);
    b.driver.remapMessages(b.device({ rid: RID }).device, [{ address: FILE, data: 1 }]);
    expect(b.load(b.hardware[0]!.register(IRTA) & ~0xfffn) >> 32n).toBe(2n << 8n);
  });

  it("runs out", () => {
    const b = bench();
    const { device } = b.device({ rid: RID });
    for (let i = 0; i < 65536 / 32; i++) {
      const block = Array.from({ length: 32 }, (_, data) => ({ address: FILE, data }));
      expect(b.driver.remapMessages(device, block)).toHaveLength(32);
    }
    expect(b.driver.remapMessages(device, [{ address: FILE, data: 1 }])).toBe(-ENOSPC);
  });

  it("isolates messages; without it they are not", () => {
    const b = bench();
    expect(b.driver.isolatesMsi(b.device({ rid: RID }).device)).toBe(true);
    const without = bench({ IR: false, EIM: false });
    const { device } = without.device({ rid: RID });
    expect(without.driver.isolatesMsi(device)).toBe(false);
    expect(without.driver.remapMessages(device, [{ address: FILE, data: 1 }])).toBeNull();
    expect(Number(without.hardware[0]!.register(GSTS)) & IRE).toBe(0);
  });
});

describe("legacy mode", () => {
  const context = (b: ReturnType<typeof bench>): bigint[] => {
    const root = b.hardware[0]!.register(RTADDR) & ~0xfffn;
    const table = b.load(root + BigInt((RID >> 8) * 16)) & ~0xfffn;
    return [0n, 8n].map((word) => b.load(table + BigInt((RID & 0xff) * 16) + word));
  };

  it("has the second stage in the context entry, ATS while a device is on one", () => {
    const b = bench({ SMTS: false });
    expect(b.hardware[0]!.register(RTADDR) & 0xfffn).toBe(0n);
    expect(b.hardware[0]!.register(IQA) & 0xfffn, "128-bit descriptors").toBe(0n);
    const device = b.device({ rid: RID, ats: true });
    expect(context(b)[0]! & 1n, "blocked").toBe(0n);
    const domain = b.paging(device);
    device.attach(domain);
    const [q0, q1] = context(b);
    expect(q0! & 0xfffn, "P, TT 1").toBe(1n | (1n << 2n));
    expect(q1, "AW 48 bits, domain id 2").toBe(2n | (2n << 8n));
    expect(device.switched).toEqual(["ATS true"]);
    b.hardware[0]!.take();
    device.detach();
    expect(b.hardware[0]!.take().map(({ type }) => type)).toEqual([1, 2, 3]);
    expect(context(b)).toEqual([0n, 0n]);
    expect(device.switched).toEqual(["ATS true", "ATS false"]);
    b.core.groupOf(device.device)!.release();
    expect(context(b), "pass-through, TT 2").toEqual([1n | (2n << 2n), 2n | (1n << 8n)]);
  });

  it("has neither nesting nor a first stage nor PASIDs", () => {
    const b = bench({ SMTS: false });
    const device = b.device({ rid: RID });
    const domain = b.paging(device);
    const bytes = new Uint8Array(24);
    expect(b.driver.allocNested(device.device, domain, 0, { type: 1, bytes, copy: () => bytes })).toBe(-95);
  });
});

it("what a unit without pass-through gives the kernel is an entry that is not there", () => {
  const b = bench({ PT: false });
  const device = b.device({ rid: RID });
  b.core.groupOf(device.device)!.release();
  expect(b.pasidEntry(RID)?.[0] ?? 0n).toBe(0n);
  expect(b.memory.isStoreTarget(0 as HpaPfn)).toBe(false);
});

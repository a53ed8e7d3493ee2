// The guest-visible VT-d unit by itself: what it asks of its host, what it tells its guest, and what no guest or host may bring it to.

import { describe, expect, it } from "vitest";
import { restoreTree, saveTree } from "../../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../../host/base/state-text.ts";
import { DMA_ABORTED, DMA_OK } from "../../../../host/devices/ports.ts";
import { Random } from "../../../fuzz/viommu/operations.ts";
import { build, RAM } from "./guest.ts";

const ALL = (1n << 64n) - 1n;

describe("what is promised", () => {
  it("is a first stage alone, with what the hardware can walk", () => {
    const { viommu } = build();
    const { registers, rows } = viommu.capabilitySheet;
    const bit = (register: "CAP" | "ECAP", at: bigint): bigint => (registers[register]! >> at) & 1n;
    // SMTS, FSTS, QI, IR; no SSTS, NEST; what the host does not have: PASID, DT, PRS.
    expect([43n, 47n, 1n, 3n].map((at) => bit("ECAP", at))).toEqual([1n, 1n, 1n, 1n]);
    expect([46n, 26n, 40n, 2n, 29n].map((at) => bit("ECAP", at))).toEqual([0n, 0n, 0n, 0n, 0n]);
    expect([bit("CAP", 7n), bit("CAP", 56n), bit("CAP", 60n)], "CM, and the host's FS1GP and FS5LP").toEqual([
      1n,
      1n,
      1n,
    ]);
    expect(rows.every(({ rule }) => rule.length > 0)).toBe(true);
    expect(build({ cachingMode: false }).viommu.capabilitySheet.registers.CAP! & 0x80n).toBe(0n);
  });
});

describe("invalidations", () => {
  it("go to the host a call a device, when the guest waits", () => {
    const unit = build();
    const driver = unit.bringUp();
    for (const id of [1, 2]) unit.plug(id);
    const stages = [unit.stage1(5), unit.stage1(6)];
    for (const [i, id] of [1, 2].entries()) {
      driver.installTranslation(id, { whole: stages[i]!, pasids: new Map(), ats: false, pageRequests: false });
      expect(unit.installed(id)).toMatchObject({ pgtbl_addr: stages[i]!.root, addr_width: 48, flags: 0n });
    }
    unit.host.ranges.length = 0;
    driver.invalidate({ stage1: stages[0]!, iova: 0x5000n });
    driver.invalidate({ stage1: stages[0]!, iova: 0x7000n });
    driver.descriptor("pasidIotlb", { G: 3, DID: 6, PASID: 0, AM: 4, ADDR: 0x123 });
    driver.descriptor("iotlb", { G: 2, DID: 6 });
    expect(unit.host.ranges, "not before the doorbell").toEqual([]);
    driver.fence();
    expect(unit.host.ranges).toEqual([
      {
        device: 101,
        entries: [
          [0x5000n, 1n, 1],
          [0x7000n, 1n, 1],
        ],
      },
      {
        device: 102,
        entries: [
          [0x12_0000n, 16n, 0],
          [0n, ALL, 0],
        ],
      },
    ]);
  });

  it("of more pages than there are take no wrong turn", () => {
    const unit = build();
    const driver = unit.bringUp();
    unit.plug(1);
    const stage = unit.stage1(5);
    driver.installTranslation(1, { whole: stage, pasids: new Map(), ats: false, pageRequests: false });
    unit.host.ranges.length = 0;
    driver.descriptor("pasidIotlb", { G: 3, DID: 5, PASID: 0, AM: 40, ADDR: (1n << 52n) - 1n });
    driver.fence();
    expect(unit.host.ranges[0]!.entries).toEqual([[((1n << 52n) - (1n << 40n)) << 12n, 1n << 40n, 0]]);
    driver.descriptor("pasidIotlb", { G: 3, DID: 5, PASID: 0, AM: 49, ADDR: 0 });
    driver.ringDoorbell();
    expect(driver.queueError, "past MAMV").toMatch(/^IQE/);
  });

  it("that the host refuses are asked for once more, all at once; then the device is blocked", () => {
    const unit = build();
    const driver = unit.bringUp();
    unit.plug(1);
    const stage = unit.stage1(5);
    driver.installTranslation(1, { whole: stage, pasids: new Map(), ats: false, pageRequests: false });
    unit.host.ranges.length = 0;
    unit.host.replies = [{ done: 0, errno: -22 }];
    driver.invalidate({ stage1: stage, iova: 0x5000n });
    driver.fence();
    expect(unit.host.ranges.map(({ entries }) => entries)).toEqual([[[0x5000n, 1n, 1]], [[0n, ALL, 0]]]);
    expect(unit.installed(1)).toMatchObject({ pgtbl_addr: stage.root });
    unit.host.replies = [
      { done: 0, errno: -22 },
      { done: 0, errno: -22 },
    ];
    driver.invalidate({ stage1: stage });
    driver.fence();
    expect(unit.installed(1)).toBe("setBlocked");
    expect(unit.reports).toHaveLength(1);
  });
});

describe("entries", () => {
  it("that the host refuses block the device, and the guest is told", () => {
    const unit = build();
    const driver = unit.bringUp();
    unit.plug(1);
    unit.host.refuse = { setNested: -22 };
    driver.installTranslation(1, { whole: unit.stage1(5), pasids: new Map(), ats: false, pageRequests: false });
    expect(driver.takeFaults().map(({ reason, sourceId }) => [reason, sourceId])).toEqual([[0x30, 1]]);
    expect(unit.messages, "by a message").toEqual([40]);
    driver.invalidate();
    driver.fence();
    expect(driver.takeFaults(), "once").toEqual([]);
  });

  it("with FPD are silent", () => {
    const unit = build();
    const driver = unit.bringUp();
    unit.plug(1);
    driver.installContext(1, { pasid: { PGTT: 2, DID: 5, FPD: 1 } });
    expect(driver.takeFaults()).toEqual([]);
    driver.installContext(1, { pasid: { PGTT: 0, DID: 5 } });
    expect(driver.takeFaults().map(({ reason }) => reason)).toEqual([0x5b]);
  });
});

describe("a device model", () => {
  it("goes through the guest's tables, keeps what it found until told, and every fault is recorded", () => {
    const unit = build();
    const driver = unit.bringUp();
    unit.plug(3, { emulated: true });
    const dma = unit.viommu.emulatedDma(() => 3);
    const byte = new Uint8Array(1);
    const read = (iova: bigint) => dma.read(Number(iova >> 12n), 0, byte, 0, 1, -1);
    expect(read(0x4000n)).toBe(DMA_ABORTED);
    expect(
      driver.takeFaults().map(({ reason }) => reason),
      "no root entry",
    ).toEqual([0x39]);
    const stage = unit.stage1(5);
    const page = unit.ram.allocate();
    stage.map(0x4000n, page, 4096n);
    unit.ram.write(page, Uint8Array.of(77));
    driver.installTranslation(3, { whole: stage, pasids: new Map(), ats: false, pageRequests: false });
    expect(read(0x4000n)).toBe(DMA_OK);
    expect(byte[0]).toBe(77);
    stage.unmap(0x4000n, 4096n);
    expect(read(0x4000n), "cached").toBe(DMA_OK);
    driver.invalidate({ stage1: stage, iova: 0x4000n });
    driver.fence();
    expect(read(0x4000n)).toBe(DMA_ABORTED);
    expect(driver.takeFaults().map(({ reason, address }) => [reason, address])).toEqual([[0x71, 0x4000n]]);
    expect(
      unit.host.calls.filter(({ device }) => device === 103),
      "the host knows nothing of it",
    ).toEqual([]);
  });
});

describe("state", () => {
  it("of a unit that is taken back goes on as it was", () => {
    const unit = build();
    const driver = unit.bringUp();
    unit.plug(1);
    unit.plug(3, { emulated: true });
    const stage = unit.stage1(5);
    const page = unit.ram.allocate();
    stage.map(0x4000n, page, 4096n);
    for (const id of [1, 3]) {
      driver.installTranslation(id, { whole: stage, pasids: new Map(), ats: false, pageRequests: false });
    }
    const dma = unit.viommu.emulatedDma(() => 3);
    expect(dma.read(4, 0, new Uint8Array(1), 0, 1, -1)).toBe(DMA_OK);
    const twin = build();
    twin.plug(1);
    twin.plug(3, { emulated: true });
    new Uint8Array(twin.view.buffer).set(new Uint8Array(unit.view.buffer));
    const saved = encodeState(saveTree(unit.viommu));
    restoreTree(twin.viommu, decodeState(saved));
    expect(encodeState(saveTree(twin.viommu))).toEqual(saved);
    stage.unmap(0x4000n, 4096n);
    new Uint8Array(twin.view.buffer).set(new Uint8Array(unit.view.buffer));
    const other = twin.viommu.emulatedDma(() => 3);
    expect(other.read(4, 0, new Uint8Array(1), 0, 1, -1), "what was cached is").toBe(DMA_OK);
    expect(twin.viommu.activity).toEqual(unit.viommu.activity);
    twin.host.ranges.length = 0;
    // The queue stands where it stood: the next descriptor is a global IOTLB invalidation.
    const iqt = twin.viommu.mmioRead(0x88, 4);
    const at = RAM + Number((BigInt(twin.viommu.mmioRead(0x90, 4) & 0xfffff000) & 0xffffffffn) - BigInt(RAM)) + iqt;
    twin.ram.write64(BigInt(at), 0x12n);
    for (const word of [8, 16, 24]) twin.ram.write64(BigInt(at + word), 0n);
    twin.viommu.mmioWrite(0x88, 8, (iqt + 32) % 8192, 0);
    expect(twin.host.ranges).toEqual([{ device: 101, entries: [[0n, ALL, 0]] }]);
    expect(other.read(4, 0, new Uint8Array(1), 0, 1, -1)).toBe(DMA_ABORTED);
  });
});

describe("a hostile guest", () => {
  it("writes anything anywhere; nothing throws, nothing hangs, and the host gets nothing but sound calls", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      const below = (limit: number) => random.next() % limit;
      const unit = build();
      const driver = seed % 3 === 0 ? null : unit.bringUp();
      unit.plug(1);
      unit.plug(3, { emulated: true });
      const dma = unit.viommu.emulatedDma(() => 3);
      const words = unit.view;
      for (let step = 0; step < 400; step++) {
        const roll = below(10);
        if (roll < 3) {
          // RAM: entries and descriptors that mean something, mostly.
          const at = below(2) === 0 ? below(64) * 8 : below(0x3_0000 / 8) * 8;
          const pointer = BigInt(RAM + below(48) * 4096);
          const value = [pointer | BigInt(below(4096)), BigInt(random.next()), 0n, ALL, BigInt(below(16))][below(5)]!;
          words.setBigUint64(at, BigInt.asUintN(64, value), true);
        } else if (roll < 7) {
          const offset =
            [0x18, 0x20, 0x34, 0x38, 0x40, 0x80, 0x88, 0x88, 0x88, 0x90, 0x9c, 0xa0][below(12)]! + 4 * below(2);
          const low = below(3) === 0 ? random.next() : RAM + below(48) * 4096 + below(0xc00);
          const size = below(2) === 0 ? 4 : 8;
          unit.viommu.mmioWrite(offset & ~(size - 1), size, low >>> 0, below(4) === 0 ? random.next() >>> 0 : 0);
        } else if (roll < 8 && driver !== null) {
          unit.viommu.mmioWrite(0x88, 8, below(256) * 32, 0);
        } else {
          dma.write(below(2) === 0 ? below(64) : random.next(), 0, new Uint8Array(8), 0, 8, below(3) - 1);
          unit.viommu.messagePage(1, below(1 << 20));
        }
        unit.viommu.mmioRead(below(1024) * 4, 4);
      }
      for (const { entries } of unit.host.ranges) {
        for (const [addr, npages, flags] of entries) {
          expect([seed, addr & 0xfffn, flags & ~1, npages === ALL && addr !== 0n]).toEqual([seed, 0n, 0, false]);
        }
      }
      unit.viommu.reset();
      expect(unit.viommu.unplug(1)).toBe(0);
    }
  });
});

// What the caches keep, and what each invalidation makes them forget (VT-d §6.2, §6.5.2): a missing one shows as a stale answer.

import { describe, expect, it } from "vitest";
import { GCMD_SRTP, REG } from "../../../../../host/arch/vtd/registers.ts";
import type { VtdOptions } from "../../../../../host/hw/iommu/vtd/options.ts";
import { D, FS_LEAF, Machine, R, SS_A, SS_D, W, WRITE } from "./machine.ts";

const IOVA = 0x40000n << 12n;
const OLD = 0x80800;
const NEW = 0x80900;
const at = (frame: number): bigint => BigInt(frame) << 12n;

/** A first-stage device whose page has been used, then moved in the tables. */
function moved(options: VtdOptions = {}, pasid = 0) {
  const machine = new Machine(options);
  machine.start();
  const root = machine.makeFirstStage(0x108, {}, { RID_PASID: pasid }, pasid);
  const leaf = machine.map(root, 0x40000, OLD, FS_LEAF);
  expect(machine.request(0x108, IOVA)).toBe(at(OLD));
  machine.store(leaf.frame, leaf.offset, at(NEW) | FS_LEAF);
  return { machine, root, leaf };
}

describe("translations of a first stage", () => {
  it("stay until a PASID-based IOTLB invalidation of their domain id and PASID comes", () => {
    const { machine } = moved({}, 3);
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("pasidIotlb", { G: 2, DID: 6, PASID: 3 });
    machine.invalidate("pasidIotlb", { G: 2, DID: 5, PASID: 4 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("pasidIotlb", { G: 2, DID: 5, PASID: 3 });
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });

  it("by page: only the range, 2^AM pages around the address", () => {
    const { machine } = moved();
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, ADDR: 0x40001 });
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, ADDR: 0x40010, AM: 3 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, ADDR: 0x40007, AM: 3 });
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });

  it("a page-selective IOTLB invalidation drops all of them of its domain, whatever the address", () => {
    const { machine } = moved();
    machine.invalidate("iotlb", { G: 3, DID: 6, ADDR: 0 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("iotlb", { G: 3, DID: 5, ADDR: 0 });
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });

  it.each([
    ["domain", { G: 2, DID: 5 }],
    ["global", { G: 1 }],
  ])("so does a %s one", (_, fields) => {
    const { machine } = moved();
    machine.invalidate("iotlb", fields);
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });

  it("SRTP forgets everything with ESRTPS, nothing without", () => {
    const { machine } = moved();
    machine.command(GCMD_SRTP);
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
    const keeping = moved({ features: { ESRTPS: false } });
    keeping.machine.command(GCMD_SRTP);
    expect(keeping.machine.request(0x108, IOVA)).toBe(at(OLD));
  });

  it("a write that the cached translation does not know to be dirty goes to the tables, and marks", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(0x108);
    const leaf = machine.map(root, 0x40000, OLD, FS_LEAF & ~D);
    machine.request(0x108, IOVA);
    expect(machine.load(leaf.frame, leaf.offset) & D).toBe(0n);
    expect(machine.request(0x108, IOVA, { access: WRITE })).toBe(at(OLD));
    expect(machine.load(leaf.frame, leaf.offset) & D).toBe(D);
  });

  it("what is not present is never cached: a page mapped later is found at once", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(0x108);
    expect(machine.reason(0x108, IOVA)).toBe(0x71);
    machine.map(root, 0x40000, OLD, FS_LEAF);
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
  });

  it("large pages go whole, whichever page of them is named", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(0x108);
    const leaf = machine.map(root, 0x40000, 0x90000, FS_LEAF, { level: 1 });
    expect(machine.request(0x108, IOVA)).toBe(at(0x90000));
    machine.store(leaf.frame, leaf.offset, at(0x90200) | FS_LEAF | 0x80n);
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, ADDR: 0x401ff });
    expect(machine.request(0x108, IOVA)).toBe(at(0x90200));
  });
});

describe("translations of a second stage", () => {
  function second(options: VtdOptions = {}) {
    const machine = new Machine(options);
    machine.start();
    const root = machine.makeSecondStage(0x108, { SSADE: 1 });
    const all = R | W | SS_A | SS_D;
    const leaf = machine.map(root, 0x40000, OLD, all, { table: all });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.store(leaf.frame, leaf.offset, at(NEW) | all);
    return machine;
  }

  it("are the domain's: PASID-based invalidations leave them alone", () => {
    const machine = second();
    machine.invalidate("pasidIotlb", { G: 2, DID: 5, PASID: 0 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("iotlb", { G: 3, DID: 5, ADDR: 0x40001 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("iotlb", { G: 3, DID: 5, ADDR: 0x40001, AM: 1 });
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });
});

describe("nested translations", () => {
  it("go with an IOTLB invalidation of any page of the domain: their second stage may have changed anywhere", () => {
    const machine = new Machine();
    machine.start();
    const { first, second } = machine.makeNested(0x108);
    machine.mapAll(second);
    machine.map(first, 0x40000, 0x90000, FS_LEAF);
    const page = machine.map(second, 0x90000, OLD, R | W, { table: R | W });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.store(page.frame, page.offset, at(NEW) | R | W);
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, PASID: 0, ADDR: 0x40001 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("iotlb", { G: 3, DID: 5, ADDR: 0x90000 });
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });
});

describe("pointers to tables", () => {
  /** A page whose table has been replaced by another. */
  function replaced() {
    const machine = new Machine({ caches: { translations: 0 } });
    machine.start();
    const root = machine.makeFirstStage(0x108);
    machine.map(root, 0x40000, OLD, FS_LEAF);
    machine.map(root, 0x40001, OLD + 1, FS_LEAF);
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    // The level-1 table, three pointers down.
    const third = Number((machine.load(root, 0) >> 12n) & 0xfffffffn);
    const second = Number((machine.load(third, 8) >> 12n) & 0xfffffffn);
    const fresh = machine.allocate();
    machine.store(fresh, 8, at(NEW) | FS_LEAF);
    machine.store(second, 0, at(fresh) | FS_LEAF);
    return machine;
  }

  it("stay with IH = 1, go without", () => {
    const machine = replaced();
    expect(machine.request(0x108, IOVA + 0x1000n)).toBe(at(OLD + 1));
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, ADDR: 0x40001, IH: 1 });
    expect(machine.request(0x108, IOVA + 0x1000n)).toBe(at(OLD + 1));
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, ADDR: 0x40001 });
    expect(machine.request(0x108, IOVA + 0x1000n)).toBe(at(NEW));
  });

  it("are not kept below tables that restrict: rights are those of every level, each time", () => {
    const machine = new Machine({ caches: { translations: 0 } });
    machine.start();
    const root = machine.makeFirstStage(0x108);
    machine.map(root, 0x40000, OLD, FS_LEAF);
    // The root's entry gives no right to write.
    machine.store(root, 0, machine.load(root, 0) & ~2n);
    expect(machine.reason(0x108, IOVA)).toBe(0);
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x85);
  });
});

describe("context and PASID entries", () => {
  function two() {
    const machine = new Machine({ caches: { translations: 0, tables: 0 } });
    machine.start();
    const old = machine.allocate();
    const other = machine.allocate();
    machine.map(old, 0x40000, OLD, FS_LEAF);
    machine.map(other, 0x40000, NEW, FS_LEAF);
    const directory = machine.setScalableContext(0x108);
    machine.setPasid(directory, 0, { PGTT: 1, DID: 5, FSPTPTR: old });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    return { machine, directory, other };
  }

  it.each([
    ["by domain id", { G: 0, DID: 5 }, { G: 0, DID: 6 }],
    ["by domain id and PASID", { G: 1, DID: 5, PASID: 0 }, { G: 1, DID: 5, PASID: 1 }],
    ["all", { G: 3 }, { G: 1, DID: 6, PASID: 0 }],
  ])("a PASID entry stays until the PASID cache is told: %s", (_, meant, notMeant) => {
    const { machine, directory, other } = two();
    machine.setPasid(directory, 0, { PGTT: 1, DID: 5, FSPTPTR: other });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("pasidCache", notMeant);
    machine.invalidate("context", { G: 1 });
    machine.invalidate("iotlb", { G: 1 });
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("pasidCache", meant);
    expect(machine.request(0x108, IOVA)).toBe(at(NEW));
  });

  it("a context stays until the context cache is told, by source id with the functions that FM leaves out", () => {
    const { machine } = two();
    machine.setScalableContext(0x108, { P: 0 });
    machine.invalidate("pasidCache", { G: 3 });
    machine.invalidate("context", { G: 3, SID: 0x109 });
    machine.invalidate("context", { G: 3, SID: 0x10c, FM: 0 });
    machine.invalidate("context", { G: 3, SID: 0x109, FM: 2 });
    // The PASID table was reached through the context that is still cached.
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.invalidate("context", { G: 3, SID: 0x10c, FM: 1 });
    expect(machine.reason(0x108, IOVA)).toBe(0x41);
  });

  it("legacy contexts go by their domain too", () => {
    const machine = new Machine({ caches: { translations: 0 } });
    machine.start({ ttm: 0, wide: false });
    machine.makeLegacy(0x108);
    expect(machine.reason(0x108, IOVA)).toBe(0x06);
    machine.setContext(0x108, { P: 0 });
    machine.invalidate("context", { G: 2, DID: 6 });
    expect(machine.reason(0x108, IOVA)).toBe(0x06);
    machine.invalidate("context", { G: 2, DID: 5 });
    expect(machine.reason(0x108, IOVA)).toBe(0x02);
  });

  it("what is absent, or unfit, is not cached", () => {
    const machine = new Machine();
    machine.start();
    const directory = machine.setScalableContext(0x108, { P: 0 });
    expect(machine.reason(0x108, IOVA)).toBe(0x41);
    machine.setScalableContext(0x108, { PASIDDIRPTR: directory });
    expect(machine.reason(0x108, IOVA)).toBe(0x51);
    machine.setPasid(directory, 0, { PGTT: 7 });
    expect(machine.reason(0x108, IOVA)).toBe(0x5b);
    machine.setPasid(directory, 0, { PGTT: 4 });
    expect(machine.request(0x108, IOVA)).toBe(IOVA);
  });
});

it("registers invalidate too while the queue is off, below version 6", () => {
  const run = (version: number) => {
    const machine = new Machine({ version, caches: { tables: 0 } });
    machine.start({ ttm: 0, wide: false });
    const root = machine.makeLegacy(0x108);
    const leaf = machine.map(root, 0x40000, OLD, R | W, { table: R | W });
    machine.request(0x108, IOVA);
    machine.store(leaf.frame, leaf.offset, at(NEW) | R | W);
    const iotlb = (value: bigint) => {
      machine.write64(0xf8, value);
      return machine.read64(0xf8);
    };
    // The queue is on: nothing is done, which IAIG says.
    expect(iotlb((1n << 63n) | (2n << 60n) | (5n << 32n)) >> 57n).toBe(2n << 3n);
    expect(machine.request(0x108, IOVA)).toBe(at(OLD));
    machine.write32(REG.GCMD, 0x80000000);
    expect(machine.read32(REG.GSTS) >>> 26).toBe(0b110000);
    const answer = iotlb((1n << 63n) | (2n << 60n) | (5n << 32n));
    return [(answer >> 57n) & 3n, answer >> 63n, machine.request(0x108, IOVA)];
  };
  expect(run(0x50)).toEqual([2n, 0n, at(NEW)]);
  expect(run(0x60)).toEqual([0n, 0n, at(OLD)]);
});

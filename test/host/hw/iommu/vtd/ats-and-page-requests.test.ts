// ATS translation requests (VT-d §4.1), page requests and their answers (§7.4, §7.5), and a unit's state written down and read back.

import { describe, expect, it } from "vitest";
import { decodePageRequest } from "../../../../../host/arch/vtd/page-requests.ts";
import { REG } from "../../../../../host/arch/vtd/registers.ts";
import { restoreTree, saveTree } from "../../../../../host/base/state.ts";
import { ATS_COMPLETER_ABORT, ATS_SUCCESS, ATS_UNSUPPORTED_REQUEST } from "../../../../../host/devices/ports.ts";
import { A, D, FS_LEAF, Machine, R, RW, US, W, WRITE } from "./machine.ts";

const IOVA = 0x40000n << 12n;
const PAGE = 0x40000;

const ask = (machine: Machine, noWrite = false, pasid = -1, privileged = false) => {
  machine.takeFaults();
  const status = machine.unit.translateForDevice(0x108, pasid, PAGE, noWrite, privileged, false);
  const { read, write, pfn, sizeLog2 } = machine.unit.atsTranslation;
  return { status, read, write, pfn, sizeLog2, reasons: machine.takeReasons() };
};

describe("translation requests", () => {
  it("answer with the page and its rights; a writable page is marked dirty unless No Write is asked", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(0x108);
    const leaf = machine.map(root, PAGE, 0x90000, FS_LEAF & ~D & ~A, { level: 1 });
    const expected = { status: ATS_SUCCESS, read: true, pfn: 0x90000, sizeLog2: 21, reasons: [] };
    expect(ask(machine, true)).toEqual({ ...expected, write: false });
    expect(machine.load(leaf.frame, leaf.offset) & (A | D)).toBe(A);
    expect(ask(machine)).toEqual({ ...expected, write: true });
    expect(machine.load(leaf.frame, leaf.offset) & (A | D)).toBe(A | D);
  });

  it("what is absent or not allowed is success without rights, and no record", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(0x108);
    expect(ask(machine)).toMatchObject({ status: ATS_SUCCESS, read: false, write: false, reasons: [] });
    machine.map(root, PAGE, 0x80800, FS_LEAF & ~US);
    expect(ask(machine)).toMatchObject({ status: ATS_SUCCESS, read: false, write: false, reasons: [] });
  });

  it("structures: DTE 0 and what is absent are Unsupported Requests, what is unfit Completer Aborts, with records", () => {
    const machine = new Machine();
    machine.start();
    expect(ask(machine)).toMatchObject({ status: ATS_UNSUPPORTED_REQUEST, reasons: [0x39] });
    machine.setScalableContext(0x108, { DTE: 0 });
    expect(ask(machine)).toMatchObject({ status: ATS_UNSUPPORTED_REQUEST, reasons: [0x44] });
    machine.invalidate("context", { G: 1 });
    const directory = machine.setScalableContext(0x108);
    machine.setPasid(directory, 0, { PGTT: 1, CD: 1 });
    expect(ask(machine)).toMatchObject({ status: ATS_COMPLETER_ABORT, reasons: [0x5a] });
    const root = machine.allocate();
    machine.setPasid(directory, 0, { PGTT: 1, FSPTPTR: root });
    machine.map(root, PAGE, 0x80800, FS_LEAF | (1n << 46n));
    expect(ask(machine)).toMatchObject({ status: ATS_COMPLETER_ABORT, reasons: [0x72] });
  });

  it("nested: the smaller page, rights of both stages", () => {
    const machine = new Machine();
    machine.start();
    const { first, second } = machine.makeNested(0x108);
    machine.mapAll(second);
    machine.map(first, PAGE, 0x90000, FS_LEAF, { level: 1 });
    machine.map(second, 0x90000, 0x80800, R, { table: R | W });
    expect(ask(machine)).toMatchObject({ status: ATS_SUCCESS, read: true, write: false, pfn: 0x80800, sizeLog2: 12 });
  });

  it("pass-through answers one to one", () => {
    const machine = new Machine();
    machine.start();
    machine.setPasid(machine.setScalableContext(0x108), 0, { PGTT: 4 });
    expect(ask(machine)).toMatchObject({ status: ATS_SUCCESS, read: true, write: true, pfn: PAGE, sizeLog2: 12 });
  });

  it("legacy mode needs TT = 1; translation off answers Unsupported Request", () => {
    const machine = new Machine();
    machine.start({ ttm: 0, wide: false });
    const root = machine.makeLegacy(0x108, { TT: 1 });
    machine.map(root, PAGE, 0x80800, R | W, { table: R | W });
    expect(ask(machine)).toMatchObject({ status: ATS_SUCCESS, read: true, write: true, pfn: 0x80800 });
    machine.makeLegacy(0x108);
    machine.invalidate("context", { G: 1 });
    expect(ask(machine)).toMatchObject({ status: ATS_UNSUPPORTED_REQUEST, reasons: [0x0d] });
    const off = new Machine();
    off.start({ enable: false });
    expect(ask(off)).toMatchObject({ status: ATS_UNSUPPORTED_REQUEST, reasons: [] });
  });
});

describe("page requests", () => {
  const requesting = (log2 = 0, context = {}) => {
    const machine = new Machine();
    machine.start();
    const answers: [number, number, number][] = [];
    machine.unit.findTarget = () => ({
      invalidate: () => true,
      pageResponse: (pasid, group, code) => void answers.push([pasid, group, code]),
    });
    const root = machine.makeFirstStage(0x108, {}, context);
    const ring = machine.allocate(2);
    machine.write64(REG.PQA, (BigInt(ring) << 12n) | BigInt(log2));
    machine.write32(REG.PEDATA, 0x51);
    machine.write32(REG.PEADDR, 0xfee05000);
    machine.write32(REG.PECTL, 0);
    const at = (index: number) => decodePageRequest([0, 8].map((word) => machine.load(ring, index * 32 + word)));
    return { machine, answers, at, root };
  };

  it("are written with all they say; the first raises the event", () => {
    const { machine, at } = requesting();
    machine.unit.pageRequest(0x108, 9, PAGE, 0x1ab, 1 | 2 | 4 | 16);
    machine.unit.pageRequest(0x108, -1, PAGE + 1, 5, 1);
    expect([machine.read32(REG.PQT), machine.read32(REG.PRS)]).toEqual([64, 1]);
    expect(at(0)).toEqual({
      ...{ requesterId: 0x108, pasid: 9, address: IOVA, group: 0x1ab, read: true, write: true, execute: false },
      ...{ privileged: true, last: true },
    });
    expect(at(1)).toMatchObject({ pasid: -1, group: 5, last: false, privileged: false });
    expect(machine.messages).toEqual([[0xfee05000, 0x51]]);
    machine.write32(REG.PRS, 1);
    machine.unit.pageRequest(0x108, -1, PAGE, 5, 1);
    expect(machine.messages).toHaveLength(2);
  });

  it("a full queue overflows: PRO, and the last of a group is answered with success so that it is asked again", () => {
    const { machine, answers } = requesting();
    // 128 entries, one of which stays free.
    for (let i = 0; i < 127; i++) machine.unit.pageRequest(0x108, -1, PAGE + i, 1, 1);
    expect(machine.read32(REG.PRS)).toBe(1);
    machine.unit.pageRequest(0x108, -1, PAGE, 1, 1);
    machine.unit.pageRequest(0x108, 4, PAGE, 2, 1 | 4);
    expect([machine.read32(REG.PRS), answers]).toEqual([3, [[4, 2, 0]]]);
    // While PRO is set nothing is queued, even where there is room.
    machine.write32(REG.PQH, 64);
    machine.unit.pageRequest(0x108, -1, PAGE, 3, 1 | 4);
    expect([machine.read32(REG.PQT), answers.length]).toEqual([127 * 32, 2]);
    machine.write32(REG.PRS, 3);
    machine.unit.pageRequest(0x108, -1, PAGE, 3, 1 | 4);
    expect(machine.read32(REG.PQT)).toBe(0);
  });

  it("without PRE it is a fault (47), and an invalid request to the last of a group; Stop Markers have no answer", () => {
    const { machine, answers } = requesting(0, { PRE: 0 });
    machine.unit.pageRequest(0x108, 9, PAGE, 2, 1);
    machine.unit.pageRequest(0x108, 9, PAGE, 2, 5);
    machine.unit.stopMarker(0x108, 9);
    expect(machine.takeFaults()).toMatchObject([{ reason: 0x47, type: 1, pasid: 9 }]);
    expect(answers).toEqual([[9, 2, 1]]);
  });

  it("a page request makes the unit forget its page", () => {
    const { machine, root } = requesting();
    const leaf = machine.map(root, PAGE, 0x80800, FS_LEAF & ~RW);
    expect(machine.request(0x108, IOVA)).toBe(0x80800n << 12n);
    machine.store(leaf.frame, leaf.offset, (0x80900n << 12n) | FS_LEAF);
    machine.unit.pageRequest(0x108, -1, PAGE, 1, 3);
    expect(machine.request(0x108, IOVA)).toBe(0x80900n << 12n);
  });

  it("group responses go to their function", () => {
    const { machine, answers } = requesting();
    machine.invalidate("pageGroupResponse", { PP: 1, PASID: 9, RID: 0x108, PRGI: 5, code: 1 });
    machine.invalidate("pageGroupResponse", { RID: 0x108, PRGI: 6 });
    expect(answers).toEqual([
      [9, 5, 1],
      [-1, 6, 0],
    ]);
  });
});

it("a unit's state, read back into another, goes on as the first", () => {
  const make = () => new Machine({}, 256);
  const first = make();
  first.start();
  const root = first.makeFirstStage(0x108);
  const leaf = first.map(root, PAGE, 0x80800, FS_LEAF);
  first.request(0x108, IOVA);
  first.status(0x209, IOVA);
  first.store(leaf.frame, leaf.offset, 0n);
  first.queue("iotlb", { G: 1 });
  const second = make();
  const saved = saveTree(first.unit);
  second.memory.banks[0]!.bytes.set(first.memory.banks[0]!.bytes);
  restoreTree(second.unit, saved);
  for (const machine of [first, second]) {
    // Cached, though the tables have lost it.
    expect(machine.request(0x108, IOVA, { access: WRITE })).toBe(0x80800n << 12n);
    expect(machine.takeFaults()).toMatchObject([{ reason: 0x39, sourceId: 0x209 }]);
    machine.unit.drain();
    expect(machine.reason(0x108, IOVA)).toBe(0x71);
    expect(machine.read32(REG.IQH)).toBe(32);
  }
  expect(saveTree(second.unit)).toEqual(saveTree(first.unit));
});

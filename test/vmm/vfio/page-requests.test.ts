// PASIDs, ATS and page requests of an assigned device, end to end: device → hardware → kernel → guest's queues → guest → device.

import { describe, expect, it } from "vitest";
import { decodePageRequest } from "../../../host/arch/riscv/page-requests.ts";
import { REG } from "../../../host/arch/riscv/registers.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { eduDma, eduOutcome } from "../../host/kernel/machine.ts";
import { TC } from "../viommu/guest.ts";
import { DATA, type Plugged, Vm } from "./vm.ts";

const IOVA = 0x4000_0000n;
const FIRST = 0x0108;
const SECOND = 0x0110;
const FULL = { pasidBits: 20, ats: true, pri: true, misbehaviour: true };
const PD8 = 1n << 60n;
const PD17 = 2n << 60n;
const PD20 = 3n << 60n;
/** Process directories, in guest memory below the tables. */
const DIRECTORY = DATA - 0x1_0000n;

function pair(): { vm: Vm; a: Plugged; b: Plugged } {
  const vm = new Vm({
    devices: [
      { rid: FIRST, options: FULL },
      { rid: SECOND, options: FULL },
    ],
  });
  const a = vm.assign(FIRST, 0x10);
  const b = vm.assign(SECOND, 0x08);
  vm.guest.enableDirectory();
  vm.guest.enableQueues({ pageRequests: true });
  return { vm, a, b };
}

function finish(vm: Vm): void {
  vm[Symbol.dispose]();
  expect(vm.process.openFiles).toBe(0);
  vm.process.exit();
  expect(vm.machine.kernel.liveKinds).toEqual([]);
}

/** Stores a process context; `entry` is the address of its 16 bytes. */
function processContext(vm: Vm, entry: bigint, pscid: bigint, fsc: bigint): void {
  vm.guest.store64(entry + 8n, fsc);
  vm.guest.store64(entry, 1n | (pscid << 12n));
}

const withPasid = (plugged: Plugged, pasid: number) =>
  plugged.bar.mmioWrite(R.PASID, 4, (R.PASID_VALID | pasid) >>> 0, 0);
const translateFirst = (plugged: Plugged, pri = false) =>
  plugged.bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | (pri ? R.MODE_PRI : 0), 0);

function takePageRequests(vm: Vm) {
  const { guest } = vm;
  const taken = [];
  for (let head = guest.read32(REG.pqh); head !== guest.read32(REG.pqt); head = (head + 1) & 15) {
    const at = guest.place.pages + BigInt(16 * head);
    taken.push(decodePageRequest([guest.load64(at), guest.load64(at + 8n)]));
    guest.write32(REG.pqh, (head + 1) & 15);
  }
  return taken;
}

describe("process directories, nested through", () => {
  it.each([
    ["PD8", PD8, 0x7f, (directory: bigint) => directory + 16n * 0x7fn, () => {}],
    [
      "PD17",
      PD17,
      0x1_2345,
      (directory: bigint) => directory + 0x1000n + 16n * 0x45n,
      (vm: Vm) => vm.guest.store64(DIRECTORY + 8n * 0x123n, (((DIRECTORY + 0x1000n) >> 12n) << 10n) | 1n),
    ],
    [
      "PD20",
      PD20,
      0xa_2345,
      (directory: bigint) => directory + 0x2000n + 16n * 0x45n,
      (vm: Vm) => {
        vm.guest.store64(DIRECTORY + 8n * 5n, (((DIRECTORY + 0x1000n) >> 12n) << 10n) | 1n);
        vm.guest.store64(DIRECTORY + 0x1000n + 8n * 0x23n, (((DIRECTORY + 0x2000n) >> 12n) << 10n) | 1n);
      },
    ],
  ] as const)("%s: a PASID's DMA goes through its own first stage", (_name, mode, pasid, leaf, arrange) => {
    const { vm, a } = pair();
    const own = vm.tables([[IOVA, DATA]]);
    arrange(vm);
    // process_id bits 7:0 select the leaf entry, 16:8 and 19:17 the tables above (§3).
    processContext(vm, leaf(DIRECTORY), 9n, own.fsc);
    vm.guest.installContext(0x10, { tc: TC.V | TC.PDTV, fsc: mode | (DIRECTORY >> 12n) });
    vm.guest.store64(DATA, 0x5151n);
    withPasid(a, pasid);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    expect(vm.guest.takeFaults()).toEqual([]);
    finish(vm);
  });

  it("an entry that is not valid is 266 with the PASID; one the guest put outside its memory is 265", () => {
    const { vm, a } = pair();
    vm.guest.store64(DIRECTORY + 8n * 2n, (0x100_0000n << 10n) | 1n);
    vm.guest.installContext(0x10, { tc: TC.V | TC.PDTV, fsc: PD17 | (DIRECTORY >> 12n) });
    withPasid(a, 0x123);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_REFUSED);
    withPasid(a, 0x223);
    expect(vm.dma(a, IOVA, 64, true)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([
      expect.objectContaining({ cause: 266, processId: 0x123, iotval: IOVA, iotval2: 0n }),
      expect.objectContaining({ cause: 265, processId: 0x223, iotval: IOVA, iotval2: 0n }),
    ]);
    finish(vm);
  });

  it("a PASID without PDTV is a transaction type that is not allowed (260)", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V, fsc: vm.tables([[IOVA, DATA]]).fsc });
    withPasid(a, 1);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([expect.objectContaining({ cause: 260, processId: 1 })]);
    finish(vm);
  });

  it("while ddtp is Bare a PASID's DMA passes untranslated (§3.3 step 1)", () => {
    const { vm, a } = pair();
    vm.guest.write64(REG.ddtp, 1n);
    withPasid(a, 1);
    expect(vm.dma(a, DATA, 64, false)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a changed process context is seen after IODIR.INVAL_PDT, by the guest's ids", () => {
    const { vm, a } = pair();
    const tables = [vm.tables([[IOVA, DATA]]), vm.tables([[IOVA, DATA + 0x1000n]])];
    processContext(vm, DIRECTORY + 16n * 3n, 1n, tables[0]!.fsc);
    vm.guest.installContext(0x10, { tc: TC.V | TC.PDTV, fsc: PD8 | (DIRECTORY >> 12n) });
    withPasid(a, 3);
    vm.guest.store64(DATA, 0x77n);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    vm.guest.store64(DATA, 0n);
    processContext(vm, DIRECTORY + 16n * 3n, 2n, tables[1]!.fsc);
    vm.guest.run(
      ["IODIR.INVAL_PDT", { DV: 1, DID: 0x10, PID: 3 }],
      ["IOTINVAL.VMA", { PSCV: 1, PSCID: 1 }],
      ["IOFENCE.C", {}],
    );
    expect(vm.dma(a, IOVA, 64, true)).toBe(R.OUTCOME_DONE);
    expect([vm.guest.load32(DATA), vm.guest.load32(DATA + 0x1000n)]).toEqual([0, 0x77]);
    finish(vm);
  });
});

describe("ATS", () => {
  it("works when the guest's context turns it on", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V | TC.EN_ATS, fsc: vm.tables([[IOVA, DATA]]).fsc });
    translateFirst(a);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    expect(vm.guest.takeFaults()).toEqual([]);
    finish(vm);
  });

  it("a device that sends made-up addresses as translated stays within the guest's memory", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V | TC.EN_ATS, fsc: vm.tables([[IOVA, DATA]]).fsc });
    translateFirst(a);
    a.bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_FORGE_TRANSLATED, 0);
    // The kernel's own memory, host-physical: for this device it is an address no guest page has.
    const [kernelRam] = vm.machine.memory.banks;
    vm.dma(a, BigInt(kernelRam!.basePfn) << 12n, 64, true);
    expect(a.bar.mmioRead(R.DMA_MOVED, 4)).toBe(0);
    expect(vm.guest.takeFaults()).toEqual([
      expect.objectContaining({ cause: 7, ttyp: 7, deviceId: 0x10, iotval2: 0n }),
    ]);
    finish(vm);
  });

  it("is not there when the guest's context leaves it off", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V, fsc: vm.tables([[IOVA, DATA]]).fsc });
    translateFirst(a);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_TRANSLATION_REFUSED);
    finish(vm);
  });

  it("ATS.INVAL reaches the device under the guest's id, before the fence completes", () => {
    const { vm, a, b } = pair();
    const stage1 = vm.tables([[IOVA, DATA]]);
    for (const id of [0x10, 0x08])
      vm.guest.installContext(id, { tc: TC.V | TC.EN_ATS, ta: 4n << 12n, fsc: stage1.fsc });
    for (const device of [a, b]) {
      translateFirst(device);
      vm.dma(device, IOVA, 64, false);
    }
    const before = [a, b].map(({ bar }) => bar.mmioRead(R.INVALIDATIONS_TAKEN, 4));
    stage1.map(IOVA, DATA + 0x1000n);
    vm.guest.run(
      ["IOTINVAL.VMA", { PSCV: 1, PSCID: 4 }],
      ["IOFENCE.C", {}],
      ["ATS.INVAL", { DSV: 1, RID: 0x08, ADDR: IOVA >> 12n }],
      ["IOFENCE.C", {}],
    );
    const after = [a, b].map(({ bar }) => bar.mmioRead(R.INVALIDATIONS_TAKEN, 4));
    expect(after.map((count, i) => count - before[i]!)).toEqual([0, 1]);
    vm.guest.store64(DATA + 0x1000n, 0x99n);
    vm.dma(b, IOVA, 64, false);
    stage1.map(IOVA, DATA + 0x2000n);
    vm.guest.run(["IOTINVAL.VMA", {}], ["ATS.INVAL", { RID: 0x08, ADDR: IOVA >> 12n }], ["IOFENCE.C", {}]);
    vm.dma(b, IOVA, 64, true);
    expect(vm.guest.load32(DATA + 0x2000n)).toBe(0x99);
    finish(vm);
  });

  it("a device that never completes an invalidation: the fence says cmd_to, on itself", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V | TC.EN_ATS, fsc: vm.tables([[IOVA, DATA]]).fsc });
    translateFirst(a);
    vm.dma(a, IOVA, 64, false);
    a.bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    const first = vm.guest.cqh;
    vm.guest.run(["ATS.INVAL", { RID: 0x10, ADDR: IOVA >> 12n }], ["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(vm.guest.read32(REG.cqcsr) & 0x700).toBe(1 << 9);
    expect(vm.guest.cqh).toBe(first + 2);
    a.bar.mmioWrite(R.MISBEHAVIOUR, 4, 0, 0);
    vm.guest.write32(REG.cqcsr, (1 << 9) | 3);
    expect(vm.guest.cqh).toBe(first + 3);
    finish(vm);
  });
});

describe("page requests, from the device to the guest and back", () => {
  const context = (fsc: bigint) => ({ tc: TC.V | TC.EN_ATS | TC.EN_PRI, ta: 6n << 12n, fsc });

  it("the guest maps the page, answers, and the device goes on", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables();
    vm.guest.installContext(0x10, context(stage1.fsc));
    translateFirst(a, true);
    eduDma(a.bar, IOVA, 64, false);
    vm.run(20_000);
    const [request] = takePageRequests(vm);
    expect(request).toMatchObject({ deviceId: 0x10, processId: -1, last: true, read: true, address: IOVA });
    stage1.map(IOVA, DATA);
    vm.guest.run(["ATS.PRGR", { RID: 0x10, PRGI: request!.group, code: 0 }], ["IOFENCE.C", {}]);
    vm.run();
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_DONE);
    expect(vm.guest.takeFaults()).toEqual([]);
    finish(vm);
  });

  it("a refusal by the guest reaches the device", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, context(vm.tables().fsc));
    translateFirst(a, true);
    eduDma(a.bar, IOVA, 64, false);
    vm.run(20_000);
    const [request] = takePageRequests(vm);
    vm.guest.run(["ATS.PRGR", { RID: 0x10, PRGI: request!.group, code: 1 }]);
    vm.run();
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    finish(vm);
  });

  it("two devices interleaved, with the same group indexes, get their own answers", () => {
    const { vm, a, b } = pair();
    const tables = [vm.tables(), vm.tables()];
    vm.guest.installContext(0x10, context(tables[0]!.fsc));
    vm.guest.installContext(0x08, { ...context(tables[1]!.fsc), ta: 7n << 12n });
    for (const device of [a, b]) {
      translateFirst(device, true);
      eduDma(device.bar, IOVA, 64, false);
    }
    vm.run(20_000);
    const requests = takePageRequests(vm);
    expect(requests.map(({ deviceId }) => deviceId).sort((x, y) => x - y)).toEqual([0x08, 0x10]);
    tables[1]!.map(IOVA, DATA);
    vm.guest.run(["ATS.PRGR", { RID: 0x08, PRGI: requests.find(({ deviceId }) => deviceId === 0x08)!.group }]);
    vm.run(50_000);
    expect(eduOutcome(b.bar)).toBe(R.OUTCOME_DONE);
    expect(a.bar.mmioRead(R.DMA_COMMAND, 4) & R.COMMAND_RUN).toBe(R.COMMAND_RUN);
    tables[0]!.map(IOVA, DATA + 0x1000n);
    vm.guest.run(["ATS.PRGR", { RID: 0x10, PRGI: requests.find(({ deviceId }) => deviceId === 0x10)!.group }]);
    vm.run();
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("with PASIDs and PRPR the answer goes to the PASID that asked", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables();
    processContext(vm, DIRECTORY + 16n * 5n, 3n, stage1.fsc);
    const tc = TC.V | TC.EN_ATS | TC.EN_PRI | TC.PRPR | TC.PDTV;
    vm.guest.installContext(0x10, { tc, fsc: PD8 | (DIRECTORY >> 12n) });
    withPasid(a, 5);
    translateFirst(a, true);
    eduDma(a.bar, IOVA, 64, true);
    vm.run(20_000);
    const [request] = takePageRequests(vm);
    expect(request).toMatchObject({ processId: 5, write: true });
    stage1.map(IOVA, DATA);
    vm.guest.run(["ATS.PRGR", { RID: 0x10, PV: 1, PID: 5, PRGI: request!.group }], ["IOFENCE.C", {}]);
    vm.run();
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a full queue: pqof, the device asks again and is served once there is room", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables();
    vm.guest.installContext(0x10, context(stage1.fsc));
    // Two entries: room for one request. The first device's stays in the queue.
    vm.guest.write32(REG.pqcsr, 0);
    vm.guest.write64(REG.pqb, (vm.guest.place.pages >> 12n) << 10n);
    vm.guest.write32(REG.pqcsr, 3);
    translateFirst(a, true);
    a.bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_INVENT_GROUPS, 0);
    a.bar.mmioWrite(R.PAGE_REQUEST_LIMIT, 4, 200, 0);
    eduDma(a.bar, IOVA, 64, false);
    vm.run(20_000);
    expect(vm.guest.read32(REG.pqcsr) & (1 << 9)).toBe(1 << 9);
    a.bar.mmioWrite(R.MISBEHAVIOUR, 4, 0, 0);
    stage1.map(IOVA, DATA);
    const at = vm.guest.place.pages;
    const [queued] = [decodePageRequest([vm.guest.load64(at), vm.guest.load64(at + 8n)])];
    vm.guest.write32(REG.pqh, vm.guest.read32(REG.pqt));
    vm.guest.write32(REG.pqcsr, (1 << 9) | 3);
    vm.guest.run(["ATS.PRGR", { RID: 0x10, PRGI: queued.group }], ["IOFENCE.C", {}]);
    vm.run();
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a guest that never answers: the other device goes on, and everything can be taken down", () => {
    const { vm, a, b } = pair();
    vm.guest.installContext(0x10, context(vm.tables().fsc));
    vm.guest.installContext(0x08, { tc: TC.V });
    translateFirst(a, true);
    eduDma(a.bar, IOVA, 64, false);
    vm.run(20_000);
    expect(vm.dma(b, DATA, 64, true)).toBe(R.OUTCOME_DONE);
    expect(vm.guest.viommu.pageRequests.unanswered).toBe(1);
    finish(vm);
  });

  it("hot-unplug in between: the answer that comes too late does no harm", () => {
    const { vm, a, b } = pair();
    vm.guest.installContext(0x10, context(vm.tables().fsc));
    translateFirst(a, true);
    eduDma(a.bar, IOVA, 64, false);
    vm.run(20_000);
    const [request] = takePageRequests(vm);
    vm.unplug(a);
    vm.guest.run(["ATS.PRGR", { RID: 0x10, PRGI: request!.group }], ["IOFENCE.C", {}]);
    expect(vm.guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    vm.guest.installContext(0x08, { tc: TC.V });
    expect(vm.dma(b, DATA, 64, true)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a device whose context does not allow page requests has none to send: its DMA ends without one", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V | TC.EN_ATS, fsc: vm.tables().fsc });
    translateFirst(a, true);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(a.bar.mmioRead(R.PAGE_REQUESTS_SENT, 4)).toBe(0);
    expect(takePageRequests(vm)).toEqual([]);
    finish(vm);
  });
});

import { describe, expect, it } from "vitest";
import { IOHPMEVT, IPSR_PMIP, REG, TR_REQ_CTL } from "../../../../../host/arch/riscv/registers.ts";
import { type Fields, Machine, USER_RW, USER_RWX, WRITE } from "./machine.ts";

const select = (machine: Machine, counter: number, fields: Fields) => {
  const words = [0n];
  for (const [name, value] of Object.entries(fields)) {
    IOHPMEVT.set(words, name as keyof typeof IOHPMEVT.fields, BigInt(value));
  }
  machine.write64(REG.iohpmevt1 + 8 * (counter - 1), words[0]!);
};
const count = (machine: Machine, counter: number): bigint => machine.read64(REG.iohpmctr1 + 8 * (counter - 1));

const build = (options = {}) => {
  const machine = new Machine(options, 2048);
  machine.enableFaultQueue();
  machine.enableCommandQueue();
  machine.useDirectory(3);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3);
  const root = machine.makeRoot();
  machine.map(root, 3, 0x10, 0x80100, USER_RW);
  machine.map(root, 3, 0x11, 0x80100, USER_RW);
  machine.setDevice(0x108, {
    fsc_MODE: 8,
    fsc_PPN: root,
    PSCID: 5,
    iohgatp_MODE: 8,
    iohgatp_PPN: guest,
    GSCID: 3,
    EN_ATS: 1,
  });
  return { machine, root };
};

describe("the performance monitor (§6.19 to §6.23)", () => {
  it.each([
    // Requests 2, 1, 1; two went to the tables; 3 directory loads; each walk 3 first-stage and (3 + 1) x 3 second-stage loads.
    [0, [2n, 1n, 1n, 2n, 3n, 0n, 6n, 24n]],
    // The second walk loads the leaves alone: pointers are remembered.
    [64, [2n, 1n, 1n, 2n, 3n, 0n, 4n, 13n]],
  ])("counts requests, misses and loads of table entries, with %i pointers remembered", (tables, counts) => {
    const { machine } = build({ caches: { tables } });
    for (let event = 1; event <= 8; event++) select(machine, event, { eventID: event });
    machine.request(0x108, 0x10000n);
    machine.request(0x108, 0x10000n);
    machine.request(0x108, 0x1000n, { translated: true });
    machine.iommu.translateForDevice(0x108, -1, 0x11, true, false, false);
    expect([1, 2, 3, 4, 5, 6, 7, 8].map((counter) => count(machine, counter))).toEqual(counts);
  });

  it("an inhibited counter stands still", () => {
    const { machine } = build();
    select(machine, 1, { eventID: 1 });
    select(machine, 2, { eventID: 1 });
    machine.write32(REG.iocountinh, 1 << 1);
    machine.request(0x108, 0x10000n);
    expect([count(machine, 1), count(machine, 2)]).toEqual([0n, 1n]);
  });

  const filters: readonly [string, Fields, bigint][] = [
    ["device_id equal", { eventID: 1, DV_GSCV: 1, DID_GSCID: 0x108 }, 1n],
    ["device_id different", { eventID: 1, DV_GSCV: 1, DID_GSCID: 0x109 }, 0n],
    [
      "device_id under DMASK: the lowest 0 bit and all below are ignored",
      { eventID: 1, DV_GSCV: 1, DMASK: 1, DID_GSCID: 0x10b },
      1n,
    ],
    ["device_id under DMASK, different above", { eventID: 1, DV_GSCV: 1, DMASK: 1, DID_GSCID: 0x123 }, 0n],
    ["a process_id the request has not", { eventID: 1, PV_PSCV: 1, PID_PSCID: 0 }, 0n],
    ["GSCID equal (IDT)", { eventID: 4, IDT: 1, DV_GSCV: 1, DID_GSCID: 3 }, 1n],
    ["GSCID different (IDT)", { eventID: 4, IDT: 1, DV_GSCV: 1, DID_GSCID: 4 }, 0n],
    ["PSCID equal (IDT)", { eventID: 7, IDT: 1, PV_PSCV: 1, PID_PSCID: 5 }, 3n],
    ["IDT on an event that has none never counts", { eventID: 1, IDT: 1 }, 0n],
  ];
  for (const [name, fields, expected] of filters) {
    it(`filters: ${name}`, () => {
      const { machine } = build();
      select(machine, 1, fields);
      machine.request(0x108, 0x10000n);
      expect(count(machine, 1)).toBe(expected);
    });
  }

  it("an overflow sets OF and raises pmip once; writing OF raises nothing", () => {
    const { machine } = build();
    select(machine, 1, { eventID: 1 });
    machine.write64(REG.iohpmctr1, (1n << 64n) - 1n);
    machine.request(0x108, 0x10000n);
    expect(count(machine, 1)).toBe(0n);
    expect(machine.read64(REG.iohpmevt1) >> 63n).toBe(1n);
    expect(machine.read32(REG.iocountovf)).toBe(2);
    expect(machine.read32(REG.ipsr)).toBe(IPSR_PMIP);
    machine.write32(REG.ipsr, IPSR_PMIP);
    machine.write64(REG.iohpmctr1, (1n << 64n) - 1n);
    machine.request(0x108, 0x10000n);
    expect(machine.read32(REG.ipsr)).toBe(0);
    select(machine, 2, { eventID: 1, OF: 1 });
    expect(machine.read32(REG.iocountovf)).toBe(6);
    expect(machine.read32(REG.ipsr)).toBe(0);
  });

  it("counters are as wide as configured, and events that do not exist read back as none", () => {
    const { machine } = build({ counterBits: 40, lastEvent: 6 });
    machine.write64(REG.iohpmctr1, (1n << 64n) - 1n);
    expect(count(machine, 1)).toBe((1n << 40n) - 1n);
    select(machine, 1, { eventID: 7 });
    expect(machine.read64(REG.iohpmevt1) & 0x7fffn).toBe(0n);
    select(machine, 1, { eventID: 1 });
    machine.request(0x108, 0x10000n);
    expect(machine.read32(REG.iocountovf)).toBe(2);
  });

  it("cycles are virtual time, stop when inhibited, and overflow by a clock event", () => {
    const { machine } = build({ cycleNs: 2 });
    machine.clock.advance(2000);
    expect(machine.read64(REG.iohpmcycles)).toBe(1000n);
    machine.write32(REG.iocountinh, 1);
    machine.clock.advance(500);
    expect(machine.read64(REG.iohpmcycles)).toBe(1000n);
    machine.write32(REG.iocountinh, 0);
    machine.write64(REG.iohpmcycles, (1n << 63n) - 10n);
    machine.clock.advance(20);
    machine.clock.fireDue();
    expect(machine.read32(REG.ipsr)).toBe(IPSR_PMIP);
    expect(machine.read64(REG.iohpmcycles)).toBe(1n << 63n);
    expect(machine.read32(REG.iocountovf)).toBe(1);
  });
});

describe("the debug translation interface (§5)", () => {
  const ask = (machine: Machine, pfn: number, fields: Fields) => {
    machine.write64(REG.tr_req_iova, BigInt(pfn) << 12n);
    const words = [0n];
    for (const [name, value] of Object.entries({ go_busy: 1, ...fields })) {
      TR_REQ_CTL.set(words, name as keyof typeof TR_REQ_CTL.fields, BigInt(value));
    }
    machine.write64(REG.tr_req_ctl, words[0]!);
  };

  it("is busy until worked on, then answers with the page", () => {
    const { machine } = build();
    ask(machine, 0x10, { DID: 0x108 });
    expect(machine.read64(REG.tr_req_ctl) & 1n).toBe(1n);
    machine.write64(REG.tr_req_ctl, 0n);
    expect(machine.read64(REG.tr_req_ctl) & 1n).toBe(1n);
    machine.iommu.drain();
    expect(machine.read64(REG.tr_req_ctl) & 1n).toBe(0n);
    expect(machine.read64(REG.tr_response)).toBe(0x80100n << 10n);
  });

  it("says the size of a superpage by the lowest 0 bit of the PPN, and the memory type", () => {
    const { machine } = build({ capabilities: { MSI_FLAT: false, MSI_MRIF: false } });
    const root = machine.makeRoot();
    machine.map(root, 3, 0x400, 0x80200, (2n << 61n) | BigInt(USER_RWX), { level: 1 });
    machine.setDevice(0x7, { fsc_MODE: 8, fsc_PPN: root });
    ask(machine, 0x405, { DID: 7, NW: 1, Exe: 1 });
    machine.iommu.drain();
    expect(machine.read64(REG.tr_response)).toBe((0x802ffn << 10n) | (1n << 9n) | (2n << 7n));
  });

  it("reports faults in the fault queue as an untranslated request and answers fault", () => {
    const { machine } = build();
    ask(machine, 0x999, { DID: 0x108, NW: 1 });
    machine.iommu.drain();
    expect(machine.read64(REG.tr_response)).toBe(1n);
    expect(machine.takeFaults()).toEqual([
      { cause: 13, deviceId: 0x108, processId: -1, privileged: false, ttyp: 2, iotval: 0x999000n, iotval2: 0n },
    ]);
  });

  it("without NW asks for a write too", () => {
    const { machine, root } = build();
    machine.map(root, 3, 0x12, 0x80100, USER_RW & ~0x84);
    ask(machine, 0x12, { DID: 0x108 });
    machine.iommu.drain();
    ask(machine, 0x12, { DID: 0x108, NW: 1 });
    machine.iommu.drain();
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.ttyp])).toEqual([[15, 3]]);
    expect(machine.read64(REG.tr_response)).toBe(0x80100n << 10n);
  });

  it("an interrupt file in memory is 260", () => {
    const { machine } = build();
    const table = machine.allocate();
    machine.store(table, 0, (0x80100n << 10n) | 3n);
    const guest = machine.makeSecondStageRoot();
    machine.setDevice(0x20, {
      iohgatp_MODE: 8,
      iohgatp_PPN: guest,
      msiptp_MODE: 1,
      msiptp_PPN: table,
      msi_addr_pattern: 0x28000,
    });
    ask(machine, 0x28000, { DID: 0x20 });
    machine.iommu.drain();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([260]);
  });

  it("is done by the clock when the IOMMU is told to work by itself", () => {
    const { machine } = build({ automaticDelayNs: 100 });
    ask(machine, 0x10, { DID: 0x108 });
    machine.queue("IOFENCE.C");
    machine.clock.advance(100);
    machine.clock.fireDue();
    expect(machine.read64(REG.tr_req_ctl) & 1n).toBe(0n);
    expect(machine.read32(REG.cqh)).toBe(1);
  });
});

describe("QoS ids (§6.27, §3.1.3.4)", () => {
  it("are the register's in Bare mode and the device's once a context was located", () => {
    const { machine } = build({ capabilities: { QOSID: true }, resetMode: "bare" });
    machine.write32(REG.iommu_qosid, 7 | (9 << 16));
    machine.setDevice(0x30, { RCID: 3, MCID: 4 });
    expect(machine.request(0x30, 0x1000n, { access: WRITE })).toBe(0x1000n);
    expect(machine.iommu.resultQos).toEqual({ rcid: 3, mcid: 4 });
    machine.write64(REG.ddtp, 1n);
    machine.request(0x30, 0x1000n);
    expect(machine.iommu.resultQos).toEqual({ rcid: 7, mcid: 9 });
  });
});

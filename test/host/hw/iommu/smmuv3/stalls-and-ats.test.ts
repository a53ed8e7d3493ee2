// Transactions that stall (IHI 0070 §3.12.2, §4.6), ATS and page requests (§3.9, §8, §13.6), and a machine's state written down and read back.

import { describe, expect, it } from "vitest";
import {
  F_BAD_ATS_TREQ,
  F_PERMISSION,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
} from "../../../../../host/arch/smmuv3/event-records.ts";
import {
  CERROR_ATC_INV_SYNC,
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_PRIQEN,
  REG,
} from "../../../../../host/arch/smmuv3/registers.ts";
import { restoreTree, saveTree } from "../../../../../host/base/state.ts";
import {
  ATS_COMPLETER_ABORT,
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsTarget,
} from "../../../../../host/devices/ports.ts";
import {
  REFUSED,
  STALL_ABORT,
  STALL_DISCARD,
  STALL_RETRY,
  STALLED,
  TRANSLATED,
} from "../../../../../host/hw/iommu/port.ts";
import { AF, DBM, EL0, Machine, NG, READ_ONLY, S2_NORMAL, S2_R, S2_RW, USER_RW, WRITE } from "./machine.ts";

describe("stalled transactions", () => {
  const stalling = (options = {}, start = {}) => {
    const machine = new Machine(options);
    machine.start(start);
    const root = machine.makeFirstStage(1, { S: 1, R: 0 });
    const ended: [number, number, number][] = [];
    machine.smmu.onStallEnded = (sid, tag, end) => ended.push([sid, tag, end]);
    return { machine, root, ended };
  };

  it("are always recorded, with STAG and Stall, and retried by RESUME as newly arrived", () => {
    const { machine, root, ended } = stalling();
    expect(machine.status(1, 0x10008n, { access: WRITE })).toBe(STALLED);
    const tag = machine.smmu.stallTag;
    const [event] = machine.takeEvents();
    expect(event).toMatchObject({ number: F_TRANSLATION, stall: true, stag: tag, read: false, inputAddress: 0x10008n });
    machine.map(root, 0x10, 0x80500, USER_RW);
    machine.command("RESUME", { SID: 1, STAG: tag, Ac: 1 });
    expect(ended).toEqual([[1, tag, STALL_RETRY]]);
    expect(machine.status(1, 0x10008n, { access: WRITE })).toBe(TRANSLATED);
  });

  it("RESUME with another SID or STAG does nothing; Ab aborts, and so does TERM_MODEL", () => {
    const { machine, ended } = stalling();
    machine.status(1, 0x10000n);
    const tag = machine.smmu.stallTag;
    machine.command("RESUME", { SID: 2, STAG: tag, Ac: 1 });
    machine.command("RESUME", { SID: 1, STAG: tag + 1, Ac: 1 });
    expect(ended).toEqual([]);
    machine.command("RESUME", { SID: 1, STAG: tag });
    expect(ended).toEqual([[1, tag, STALL_ABORT]]);
    machine.command("RESUME", { SID: 1, STAG: tag });
    expect(ended).toHaveLength(1);
    const lenient = stalling({ features: { TERM_MODEL: false } });
    lenient.machine.status(1, 0n);
    lenient.machine.status(1, 0n);
    lenient.machine.command("RESUME", { SID: 1, STAG: 0 });
    lenient.machine.command("RESUME", { SID: 1, STAG: 1, Ab: 1 });
    expect(lenient.ended).toEqual([
      [1, 0, STALL_DISCARD],
      [1, 1, STALL_ABORT],
    ]);
  });

  it("STALL_TERM aborts all of a stream; so does SMMUEN going off, of every stream", () => {
    const { machine, ended } = stalling();
    machine.makeFirstStage(2, { S: 1, ASID: 2 });
    machine.status(1, 0n);
    machine.status(2, 0n);
    machine.status(1, 0n);
    machine.command("STALL_TERM", { SID: 1 });
    expect(ended).toEqual([
      [1, 0, STALL_ABORT],
      [1, 2, STALL_ABORT],
    ]);
    machine.write32(REG.CR0, CR0_EVENTQEN | CR0_CMDQEN);
    expect(ended[2]).toEqual([2, 1, STALL_ABORT]);
    expect(machine.smmu.stalledTransactions).toBe(0);
  });

  it("no more than STALL_MAX stall; the next finds no room", () => {
    const { machine } = stalling({ features: { STALL_MAX: 2 } });
    for (const tag of [0, 1, -1]) {
      expect(machine.status(1, 0n)).toBe(STALLED);
      expect(machine.smmu.stallTag).toBe(tag);
    }
    expect(machine.takeEvents()).toHaveLength(2);
  });

  it("a full queue keeps their records for later, without overflow; RESUME before that does nothing", () => {
    const { machine, ended } = stalling({}, { eventLog2: 1 });
    for (let i = 0; i < 3; i++) machine.status(1, BigInt(i) << 12n);
    expect(machine.read32(REG.EVENTQ_PROD)).toBe(2);
    machine.command("RESUME", { SID: 1, STAG: 2, Ac: 1 });
    expect(ended).toEqual([]);
    expect(machine.takeEvents().map(({ stag }) => stag)).toEqual([0, 1]);
    expect(machine.takeEvents().map(({ stag, inputAddress }) => [stag, inputAddress])).toEqual([[2, 0x2000n]]);
  });

  it("without a record yet, they are made anew when a SYNC follows an invalidation (§4.6.3)", () => {
    const { machine, ended } = stalling({}, { eventLog2: 1 });
    for (let i = 0; i < 3; i++) machine.status(1, 0n);
    machine.command("TLBI_NSNH_ALL");
    expect(ended).toEqual([[1, 2, STALL_RETRY]]);
  });

  it("S of stage 2 stalls too (S2S)", () => {
    const machine = new Machine();
    machine.start();
    machine.makeSecondStage(1, { S2S: 1 });
    expect(machine.status(1, 0x10000n)).toBe(STALLED);
    expect(machine.takeEvents()[0]).toMatchObject({ stall: true, stage2: true, address: 0x10000n });
  });
});

const target = (machine: Machine, answers = true) => {
  const log: unknown[] = [];
  const endpoint: AtsTarget = {
    invalidate: (...args) => {
      log.push(args.slice(0, 4));
      return answers;
    },
    pageResponse: (...args) => log.push(args),
  };
  machine.smmu.findTarget = (sid) => (sid === 1 ? endpoint : undefined);
  return log;
};

describe("ATS translation requests (§3.9.1)", () => {
  const ask = (machine: Machine, pfn: number, options: { noWrite?: boolean; ssid?: number } = {}) => [
    machine.smmu.translateForDevice(1, options.ssid ?? -1, pfn, options.noWrite ?? false, false, false),
    { ...machine.smmu.atsTranslation },
  ];

  it("answer what both stages grant, with the leaf's size", () => {
    const machine = new Machine();
    machine.start({ cr0: CR0_ATSCHK });
    const root = machine.makeFirstStage(1, {}, { EATS: 1 });
    machine.map(root, 0x10, 0x80500, USER_RW);
    machine.map(root, 0x400, 0x80600, USER_RW | READ_ONLY, { level: 2 });
    expect(ask(machine, 0x10)).toMatchObject([ATS_SUCCESS, { pfn: 0x80500, sizeLog2: 12, read: true, write: true }]);
    expect(ask(machine, 0x433)).toMatchObject([ATS_SUCCESS, { pfn: 0x80600, sizeLog2: 21, read: true, write: false }]);
    expect(ask(machine, 0x11)).toMatchObject([ATS_SUCCESS, { read: false, write: false }]);
    expect(machine.takeEvents()).toEqual([]);
  });

  it("mark dirty unless No-Write is set", () => {
    const machine = new Machine();
    machine.start({ cr0: CR0_ATSCHK });
    const root = machine.makeFirstStage(1, { HA: 1, HD: 1 }, { EATS: 1 });
    const place = machine.map(root, 0x10, 0x80500, EL0 | NG | READ_ONLY | DBM);
    expect(ask(machine, 0x10, { noWrite: true })).toMatchObject([ATS_SUCCESS, { read: true, write: false }]);
    expect(machine.load(place.frame, place.offset) & (AF | READ_ONLY)).toBe(AF | READ_ONLY);
    expect(ask(machine, 0x10)).toMatchObject([ATS_SUCCESS, { read: true, write: true }]);
    expect(machine.load(place.frame, place.offset) & (AF | READ_ONLY)).toBe(AF);
  });

  it("are Unsupported where there is no ATS, silently for an aborting stream; configuration errors are Completer Abort", () => {
    const machine = new Machine();
    machine.start({ cr0: CR0_ATSCHK });
    machine.makeFirstStage(1);
    expect(ask(machine, 0x10)[0]).toBe(ATS_UNSUPPORTED_REQUEST);
    machine.setStream(1, { Config: 4, EATS: 1 });
    machine.command("CFGI_STE", { SID: 1 });
    expect(ask(machine, 0x10)[0]).toBe(ATS_UNSUPPORTED_REQUEST);
    expect(machine.takeEvents().map(({ number }) => number)).toEqual([F_BAD_ATS_TREQ, F_BAD_ATS_TREQ]);
    machine.setStream(1, { Config: 0 });
    machine.command("CFGI_STE", { SID: 1 });
    expect(ask(machine, 0x10)[0]).toBe(ATS_UNSUPPORTED_REQUEST);
    machine.setStream(1, { V: 0 });
    machine.command("CFGI_STE", { SID: 1 });
    expect(ask(machine, 0x10)[0]).toBe(ATS_COMPLETER_ABORT);
    expect(machine.takeEvents()).toEqual([]);
  });

  it("translated transactions pass by EATS under ATSCHK, and go through stage 2 when split (EATS 2)", () => {
    const machine = new Machine();
    machine.start({ cr0: CR0_ATSCHK });
    const root = machine.makeFirstStage(1);
    machine.map(root, 0x10, 0x80500, USER_RW);
    expect(machine.status(1, 0x80500000n, { translated: true })).toBe(REFUSED);
    expect(machine.takeEvents().map(({ number }) => number)).toEqual([F_TRANSL_FORBIDDEN]);
    const second = machine.allocate(2);
    for (let i = 0; i < 1024; i++) machine.map(second, 0x80000 + i, 0x80000 + i, S2_RW, { startLevel: 1 });
    machine.map(second, 0x30, 0x80501, AF | S2_R | S2_NORMAL, { startLevel: 1 });
    const table = machine.makeContextTable();
    machine.setContext(table, 0, { V: 1, T0SZ: 16, EPD1: 1, IPS: 5, AA64: 1, R: 1, A: 1, ASID: 1, TTB0: root * 256 });
    machine.map(root, 0x11, 0x30, USER_RW);
    machine.setStream(1, {
      Config: 7,
      EATS: 2,
      S1ContextPtr: table * 64,
      S2VMID: 1,
      S2T0SZ: 24,
      S2SL0: 1,
      S2PS: 5,
      S2AA64: 1,
      S2R: 1,
      S2TTB: second * 256,
    });
    machine.command("CFGI_STE", { SID: 1 });
    expect(ask(machine, 0x11)).toMatchObject([ATS_SUCCESS, { pfn: 0x30, read: true, write: false }]);
    expect(machine.request(1, 0x30123n, { translated: true })).toBe(0x80501123n);
    expect(machine.request(1, 0x30123n, { translated: true, access: WRITE })).toBeNull();
    expect(machine.takeEvents().map(({ number, stage2 }) => [number, stage2])).toEqual([[F_PERMISSION, true]]);
  });
});

describe("ATC_INV and CMD_SYNC (§4.5.1, §4.6.3)", () => {
  it("aligns to its size, 52 is everything, and a SYNC behind one that timed out is CERROR_ATC_INV_SYNC", () => {
    const machine = new Machine({ atsTimeoutNs: 1000 });
    machine.start();
    const log = target(machine);
    machine.command("ATC_INV", { SID: 1, Size: 2, Address: 0x13 });
    machine.command("ATC_INV", { SID: 1, SSV: 1, SSID: 5, Global: 1, Size: 52, Address: 0x13 });
    expect(log).toEqual([
      [0x10, 4, -1, false],
      [0, Number.POSITIVE_INFINITY, 5, true],
    ]);
    machine.command("ATC_INV", { SID: 9, Size: 0 });
    const cons = machine.read32(REG.CMDQ_CONS);
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS), "it waits").toBe(cons);
    machine.clock.advance(1001);
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS)).toBe((CERROR_ATC_INV_SYNC << 24) | cons);
    machine.write32(REG.GERRORN, machine.read32(REG.GERROR));
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS) & 0xffff).toBe(cons + 1);
  });
});

describe("page requests (§8)", () => {
  const start = (log2: number) => {
    const machine = new Machine();
    machine.start();
    const ring = machine.allocate();
    machine.write64(REG.PRIQ_BASE, (BigInt(ring) << 12n) | BigInt(log2));
    machine.write32(REG.CR0, machine.read32(REG.CR0) | CR0_PRIQEN);
    return { machine, ring, log: target(machine) };
  };

  it("stand in the queue as §8.2 says, and PRI_RESP answers them", () => {
    const { machine, ring, log } = start(3);
    machine.smmu.pageRequest(1, 7, 0x123, 0x45, 1 | 2 | 4 | 16);
    expect(machine.read32(REG.PRIQ_PROD)).toBe(1);
    expect(machine.load(ring, 0)).toBe((1n << 63n) | (1n << 62n) | (3n << 60n) | (1n << 58n) | (7n << 32n) | 1n);
    expect(machine.load(ring, 8)).toBe(0x123045n);
    machine.command("PRI_RESP", { SID: 1, SSV: 1, SSID: 7, PRGIndex: 0x45, Resp: 2 });
    machine.command("PRI_RESP", { SID: 1, PRGIndex: 0x45, Resp: 0 });
    expect(log).toEqual([
      [7, 0x45, 0],
      [-1, 0x45, 15],
    ]);
  });

  it("in overflow the last of a group is told Success, others nothing, until it is acknowledged (§8.1)", () => {
    const { machine, log } = start(0);
    machine.smmu.pageRequest(1, -1, 0x1, 1, 5);
    machine.smmu.pageRequest(1, -1, 0x2, 2, 1);
    machine.smmu.pageRequest(1, -1, 0x2, 2, 5);
    expect(machine.read32(REG.PRIQ_PROD)).toBe(0x80000001);
    expect(log).toEqual([[-1, 2, 0]]);
    machine.write32(REG.PRIQ_CONS, 1);
    machine.smmu.pageRequest(1, -1, 0x3, 3, 5);
    expect(log, "room, but not acknowledged").toHaveLength(2);
    machine.write32(REG.PRIQ_CONS, 0x80000001);
    machine.smmu.pageRequest(1, -1, 0x3, 3, 5);
    expect(machine.read32(REG.PRIQ_PROD)).toBe(0x80000000);
  });

  it("without PRIQEN all are told Failure, without PASID; Stop Markers nothing", () => {
    const { machine, log } = start(0);
    machine.write32(REG.CR0, CR0_CMDQEN);
    machine.smmu.pageRequest(1, 9, 0x1, 1, 5);
    machine.smmu.stopMarker(1, 9);
    expect(log).toEqual([[-1, 1, 15]]);
  });
});

describe("state", () => {
  it("goes over whole: stale translations, stalled transactions and queues go on as they were", () => {
    const build = () => {
      const machine = new Machine();
      machine.start();
      const root = machine.makeFirstStage(1);
      machine.map(root, 0x10, 0x80500, USER_RW);
      machine.makeFirstStage(2, { S: 1, ASID: 2 });
      return { machine, root };
    };
    const first = build();
    expect(first.machine.request(1, 0x10000n)).toBe(0x80500000n);
    expect(first.machine.status(2, 0x5000n)).toBe(STALLED);
    const saved = saveTree(first.machine.smmu);
    const { machine, root } = build();
    restoreTree(machine.smmu, saved);
    machine.map(root, 0x10, 0x80600, USER_RW);
    expect(machine.request(1, 0x10000n), "from the restored TLB").toBe(0x80500000n);
    const ended: unknown[] = [];
    machine.smmu.onStallEnded = (...args) => ended.push(args);
    machine.command("RESUME", { SID: 2, STAG: 0, Ac: 1 });
    expect(ended).toEqual([[2, 0, STALL_RETRY]]);
    expect(saveTree(machine.smmu)).not.toEqual(saved);
    restoreTree(machine.smmu, saved);
    expect(saveTree(machine.smmu)).toEqual(saved);
  });
});

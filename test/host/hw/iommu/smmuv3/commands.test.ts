// The command queue: order, errors, CMD_SYNC, what each command invalidates (IHI 0070 §3.17, §4, §7.1).

import { describe, expect, it } from "vitest";
import { C_BAD_STE, F_TRANSLATION } from "../../../../../host/arch/smmuv3/event-records.ts";
import type { SmmuFeatures } from "../../../../../host/arch/smmuv3/identification.ts";
import {
  CERROR_ABT,
  CERROR_ILL,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  GERROR_CMDQ_ERR,
  REG,
} from "../../../../../host/arch/smmuv3/registers.ts";
import { AF, CONTEXT, EL0, type Fields, Machine, READ_ONLY, S2_RW, SECOND_STAGE, USER_RW } from "./machine.ts";

/** Error code, or 0 with the command consumed. */
function outcome(machine: Machine, word0: bigint, word1 = 0n): number {
  const cons = machine.read32(REG.CMDQ_CONS) & 0xffff;
  machine.queueWords(word0, word1);
  machine.smmu.drain();
  const error = (machine.read32(REG.GERROR) ^ machine.read32(REG.GERRORN)) & GERROR_CMDQ_ERR;
  expect((machine.read32(REG.CMDQ_CONS) & 0xffff) === cons).toBe(error !== 0);
  return error === 0 ? 0 : machine.read32(REG.CMDQ_CONS) >>> 24;
}

const RANGE_4K = 1n << 10n;
const ALL = [
  1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44, 0x45,
];

describe("what is CERROR_ILL (§4, §7.1)", () => {
  it.each([
    ["an opcode there is not", {}, 0x99n, 0n],
    ["opcode 0", {}, 0n, 0n],
    ["SSec", {}, 0x46n | (1n << 10n), 0n],
    ["EL3 on the Non-secure queue", {}, 0x18n, 0n],
    ["a Secure command", {}, 0x50n, 0n],
    ["CFGI_CD without S1P", { S1P: false }, 0x05n, 0n],
    ["NH_ALL without S1P", { S1P: false }, 0x10n, 0n],
    ["NH_VA without S1P", { S1P: false }, 0x12n, 0n],
    ["EL2_ALL without Hyp", { Hyp: false }, 0x20n, 0n],
    ["S12_VMALL without S2P", { S2P: false }, 0x28n, 0n],
    ["S2_IPA without S2P", { S2P: false }, 0x2an, 0n],
    ["ATC_INV without ATS", { ATS: false }, 0x40n, 0n],
    ["ATC_INV of 2^53 pages", {}, 0x40n, 53n],
    ["PRI_RESP without PRI", { PRI: false }, 0x41n, 0n],
    ["PRI_RESP 3", {}, 0x41n, 3n << 12n],
    ["RESUME where nothing stalls", { STALL_MODEL: 1 }, 0x44n, 0n],
    ["STALL_TERM where nothing stalls", { STALL_MODEL: 1 }, 0x45n, 0n],
    ["SYNC CS 3", {}, 0x46n | (3n << 12n), 0n],
    ["a range with NUM, SCALE and TTL 0", {}, 0x12n, RANGE_4K],
    ["the same of S2_IPA", {}, 0x2an, RANGE_4K],
    ["the same of EL2_VA", {}, 0x22n, RANGE_4K],
  ] as const)("%s", (_name, features, word0, word1) => {
    const machine = new Machine({ features: features as Partial<SmmuFeatures> });
    machine.start();
    expect(outcome(machine, word0, word1)).toBe(CERROR_ILL);
  });

  it.each(ALL)("not opcode %i, with every feature", (code) => {
    const machine = new Machine();
    machine.start();
    expect(outcome(machine, BigInt(code))).toBe(0);
  });

  it("TG is nothing without RIL", () => {
    const machine = new Machine({ features: { RIL: false } });
    machine.start();
    expect(outcome(machine, 0x12n, RANGE_4K)).toBe(0);
  });
});

describe("errors and order (§7.1)", () => {
  it("CONS stays on the bad command; acknowledging fetches it anew without a PROD write", () => {
    const machine = new Machine();
    machine.start();
    machine.queue("CFGI_STE", { SID: 1 });
    machine.queueWords(0xffn, 0n);
    machine.queue("SYNC");
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS)).toBe((CERROR_ILL << 24) | 1);
    const ring = Number((machine.read64(REG.CMDQ_BASE) >> 12n) & 0xfffffffffn);
    machine.store(ring, 16, 0x46n);
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS) & 0xffff, "not before it is acknowledged").toBe(1);
    machine.write32(REG.GERRORN, machine.read32(REG.GERROR));
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS) & 0xffff).toBe(3);
  });

  it("a command that cannot be fetched is CERROR_ABT", () => {
    const machine = new Machine();
    machine.start();
    machine.write32(REG.CR0, CR0_EVENTQEN);
    machine.write64(REG.CMDQ_BASE, 0x1004n);
    machine.write32(REG.CR0, CR0_EVENTQEN | CR0_CMDQEN);
    machine.write32(REG.CMDQ_PROD, 1);
    machine.smmu.drain();
    expect(machine.read32(REG.CMDQ_CONS) >>> 24).toBe(CERROR_ABT);
  });

  it("CMD_SYNC signals by message once CONS has passed it, even into its own slot; by wire without an address", () => {
    const machine = new Machine();
    machine.start();
    const ring = Number((machine.read64(REG.CMDQ_BASE) >> 12n) & 0xfffffffffn);
    machine.queue("SYNC", { CS: 1, MSIData: 0, MSIAddress: (ring * 4096) / 4 });
    machine.smmu.drain();
    expect(machine.load(ring, 0) & 0xffffffffn).toBe(0n);
    expect(machine.read32(REG.CMDQ_CONS)).toBe(1);
    expect(machine.pulses).toEqual([]);
    machine.queue("SYNC", { CS: 1 });
    machine.queue("SYNC", { CS: 2 });
    machine.smmu.drain();
    expect(machine.pulses).toEqual([2]);
  });
});

describe("configuration caches (§4.3)", () => {
  it("an entry changes only once it is invalidated", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1);
    machine.map(root, 0x10, 0x80500, USER_RW);
    expect(machine.request(1, 0x10000n)).toBe(0x80500000n);
    machine.setStream(1, { V: 0 });
    expect(machine.request(1, 0x10000n)).toBe(0x80500000n);
    machine.command("CFGI_STE", { SID: 2, Leaf: 1 });
    expect(machine.request(1, 0x10000n)).toBe(0x80500000n);
    machine.command("CFGI_STE", { SID: 1, Leaf: 1 });
    expect(machine.request(1, 0x10000n)).toBeNull();
    expect(machine.takeEvents().map(({ number }) => number)).toEqual([C_BAD_STE]);
  });

  it.each([
    ["CFGI_CD", { SID: 1, SSID: 0, Leaf: 1 }, true],
    ["CFGI_CD", { SID: 1, SSID: 1, Leaf: 1 }, false],
    ["CFGI_CD_ALL", { SID: 1 }, true],
    ["CFGI_CD_ALL", { SID: 2 }, false],
    ["CFGI_STE", { SID: 1 }, true],
    ["CFGI_STE_RANGE", { SID: 0, Range: 0 }, true],
    ["CFGI_STE_RANGE", { SID: 2, Range: 0 }, false],
    ["CFGI_STE_RANGE", { SID: 0, Range: 31 }, true],
    ["TLBI_NSNH_ALL", {}, false],
  ] as const)("%s %j drops stream 1's descriptor: %s", (name, fields, drops) => {
    const machine = new Machine();
    machine.start();
    const table = machine.makeContextTable();
    const roots = [machine.allocate(), machine.allocate()];
    for (const [i, root] of roots.entries()) machine.map(root, 0x10, 0x80500 + i, USER_RW);
    const context = (i: number) => ({ ...CONTEXT, ASID: 1 + i, TTB0: roots[i]! * 256 });
    machine.setContext(table, 0, context(0));
    machine.setStream(1, { Config: 5, S1ContextPtr: table * 64 });
    expect(machine.request(1, 0x10000n)).toBe(0x80500000n);
    machine.setContext(table, 0, context(1));
    machine.command(name, fields as Fields);
    expect(machine.request(1, 0x10000n)).toBe(drops ? 0x80501000n : 0x80500000n);
  });

  it("an entry that was not valid is not remembered (what Linux's lazily linked tables rely on)", () => {
    const machine = new Machine();
    machine.start();
    machine.setStream(1, { V: 0 });
    machine.request(1, 0n);
    machine.setStream(1, { Config: 4 });
    expect(machine.request(1, 0x1000n)).toBe(0x1000n);
  });
});

describe("TLB invalidation scopes (§3.17, §4.4)", () => {
  /** Streams 1 to 3 of (VMID, ASID) with a page and a global page, 4 in EL2, 5 of stage 2; all cached, then changed in memory. */
  const machineWith = () => {
    const machine = new Machine();
    machine.start();
    const change: (() => void)[] = [];
    for (const [sid, vmid, asid] of [
      [1, 1, 1],
      [2, 1, 2],
      [3, 2, 1],
    ] as const) {
      const root = machine.makeFirstStage(sid, { ASID: asid, ASET: 0 }, { S2VMID: vmid });
      machine.map(root, 0x10, 0x80400 + sid, USER_RW);
      // Global pages are one translation for all ASIDs of a VMID.
      machine.map(root, 0x20, 0x80500 + vmid, AF | EL0);
      change.push(() => {
        machine.map(root, 0x10, 0x80600 + sid, USER_RW);
        machine.map(root, 0x20, 0x80700 + vmid, AF | EL0);
      });
    }
    const el2 = machine.makeFirstStage(4, { ASID: 1 }, { STRW: 2 });
    machine.map(el2, 0x10, 0x80404, USER_RW);
    change.push(() => machine.map(el2, 0x10, 0x80604, USER_RW));
    const second = machine.makeSecondStage(5, { S2VMID: 1 });
    machine.map(second, 0x10, 0x80405, S2_RW, { startLevel: 1 });
    change.push(() => machine.map(second, 0x10, 0x80605, S2_RW, { startLevel: 1 }));
    const requests = [
      [1, 0x10000n, "1"],
      [2, 0x10000n, "2"],
      [3, 0x10000n, "3"],
      [4, 0x10000n, "4"],
      [5, 0x10000n, "5"],
      [1, 0x20000n, "g1"],
      [3, 0x20000n, "g2"],
    ] as const;
    const stale = () =>
      requests
        .filter(([sid, address]) => (machine.request(sid, address) ?? 0n) < 0x80600000n)
        .map(([, , name]) => name)
        .join(" ");
    expect(stale()).toBe("1 2 3 4 5 g1 g2");
    for (const each of change) each();
    return { machine, stale };
  };

  it.each([
    ["1 2 3 4 5 g1 g2", "CFGI_STE_RANGE", { Range: 31 }],
    ["3 4 5 g2", "TLBI_NH_ALL", { VMID: 1 }],
    ["2 3 4 5 g1 g2", "TLBI_NH_ASID", { VMID: 1, ASID: 1 }],
    ["2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, Address: 0x10 }],
    ["1 2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, Address: 0x11 }],
    ["1 2 3 4 5 g2", "TLBI_NH_VA", { VMID: 1, ASID: 9, Address: 0x20 }],
    ["3 4 5 g1 g2", "TLBI_NH_VAA", { VMID: 1, Address: 0x10 }],
    ["1 2 3 4 g1 g2", "TLBI_S2_IPA", { VMID: 1, Address: 0x10 }],
    ["1 2 3 4 5 g1 g2", "TLBI_S2_IPA", { VMID: 2, Address: 0x10 }],
    ["3 4 g2", "TLBI_S12_VMALL", { VMID: 1 }],
    ["4", "TLBI_NSNH_ALL", {}],
    ["1 2 3 5 g1 g2", "TLBI_EL2_ALL", {}],
    ["1 2 3 5 g1 g2", "TLBI_EL2_VA", { Address: 0x10 }],
    ["1 2 3 4 5 g1 g2", "TLBI_EL2_VA", { Address: 0x11 }],
    ["2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, TG: 1, NUM: 15, Address: 0x8 }],
    ["1 2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, TG: 1, NUM: 7, Address: 0x8 }],
    ["1 2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, TG: 2, NUM: 15, Address: 0 }],
    ["2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, TG: 1, TTL: 3, Address: 0x10 }],
    ["1 2 3 4 5 g1 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, TG: 1, TTL: 2, Address: 0x10 }],
    ["2 3 4 5 g2", "TLBI_NH_VA", { VMID: 1, ASID: 1, TG: 1, SCALE: 12, Address: 0 }],
  ] as const)("leaves %s: %s %j", (expected, command, fields) => {
    const { machine, stale } = machineWith();
    machine.command(command, fields as Fields);
    expect(stale()).toBe(expected);
  });

  it("an address anywhere in a block drops it, also what stage 2 cut into pages", () => {
    const machine = new Machine();
    machine.start();
    const second = machine.allocate(2);
    for (let i = 0; i < 1024; i++) machine.map(second, 0x80000 + i, 0x80000 + i, S2_RW, { startLevel: 1 });
    const root = machine.allocate();
    const table = machine.makeContextTable();
    machine.setContext(table, 0, { ...CONTEXT, TTB0: root * 256 });
    machine.setStream(1, { ...SECOND_STAGE, Config: 7, S1ContextPtr: table * 64, S2TTB: second * 256 });
    const place = machine.map(root, 0x200, 0x80200, USER_RW, { level: 2 });
    expect(machine.request(1, 0x20_0000n)).toBe(0x8020_0000n);
    machine.store(place.frame, place.offset, 0n);
    machine.command("TLBI_NH_VA", { VMID: 1, ASID: 1, Address: 0x400 });
    expect(machine.request(1, 0x20_0000n)).toBe(0x8020_0000n);
    machine.command("TLBI_NH_VA", { VMID: 1, ASID: 1, Address: 0x3ff });
    expect(machine.request(1, 0x20_0000n)).toBeNull();
    expect(machine.takeEvents().map(({ number }) => number)).toEqual([F_TRANSLATION]);
  });

  it("a right that a cached translation lacks is looked up anew", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1);
    machine.map(root, 0x10, 0x80500, USER_RW | READ_ONLY);
    expect(machine.request(1, 0x10000n)).toBe(0x80500000n);
    machine.map(root, 0x10, 0x80500, USER_RW);
    expect(machine.request(1, 0x10000n, { access: 2 })).toBe(0x80500000n);
  });
});

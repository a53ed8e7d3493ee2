// What a CMDQV's queues execute: a guest's TLBI_NH_ASID, TLBI_NH_VA, ATC_INV and CMD_SYNC under its VMID and stream ids, and nothing else; the
// hypervisor's everything (tegra241-cmdqv.c: tegra241_guest_vcmdq_supports_cmd, HYP_OWN).

import { describe, expect, it } from "vitest";
import type { CommandName } from "../../../../../host/arch/smmuv3/commands.ts";
import { CERROR_ATC_INV_SYNC, CERROR_ILL } from "../../../../../host/arch/smmuv3/registers.ts";
import { Clock } from "../../../../../host/base/clock.ts";
import type { AtsTarget } from "../../../../../host/devices/ports.ts";
import { AtsInvalidations } from "../../../../../host/hw/iommu/ats-invalidations.ts";
import { CMDQV_WIRE, CmdqvMachine, VCMDQ } from "./cmdqv-machine.ts";
import type { Fields } from "./machine.ts";

const ILL_ACCESS = 4;

/** Functions with an ATC each: what they were sent; `answers` off: an invalidation is never completed. */
function targets(machine: CmdqvMachine): {
  sent: [sid: number, first: number, pages: number][];
  responses: number;
  answers: boolean;
} {
  const log = { sent: [] as [number, number, number][], responses: 0, answers: true };
  machine.smmu.findTarget = (sid) =>
    ({
      invalidate: (first: number, pages: number) => {
        log.sent.push([sid, first, pages]);
        return log.answers;
      },
      pageResponse: () => log.responses++,
    }) as unknown as AtsTarget;
  return log;
}

describe("a guest's queue", () => {
  const withStreams = () => {
    const machine = new CmdqvMachine();
    machine.start();
    const stale = {
      mine: machine.staleStream(1, 5, 1),
      "mine, other ASID": machine.staleStream(2, 5, 2),
      "another VM's": machine.staleStream(3, 6, 1),
      "the host's": machine.staleStream(4, 0, 1),
    };
    machine.enableVintf(1, { vmid: 5, queues: 2 });
    machine.enableVintf(2, { vmid: 6 });
    const left = () =>
      Object.entries(stale)
        .filter(([, isStale]) => isStale())
        .map(([name]) => name);
    return { machine, left };
  };

  it.each([0, 5, 6])("TLBI_NH_ASID with VMID %i drops its own VMID's", (VMID) => {
    const { machine, left } = withStreams();
    machine.give(1, "TLBI_NH_ASID", { VMID, ASID: 1 });
    expect(machine.cons(1)).toEqual({ index: 1, error: 0 });
    expect(left()).toEqual(["mine, other ASID", "another VM's", "the host's"]);
  });

  it.each([0, 5, 6])("TLBI_NH_VA with VMID %i drops its own VMID's", (VMID) => {
    const { machine, left } = withStreams();
    machine.give(1, "TLBI_NH_VA", { VMID, ASID: 2, Address: 0x10 });
    expect(left()).toEqual(["mine", "another VM's", "the host's"]);
  });

  it("a range, too, stays in its VMID; a Reserved one is illegal, here and not at the SMMU", () => {
    const { machine, left } = withStreams();
    machine.give(1, "TLBI_NH_VA", { ASID: 1, TG: 1, NUM: 31, SCALE: 31 });
    expect(left()).toEqual(["mine, other ASID", "another VM's", "the host's"]);
    machine.give(1, "TLBI_NH_VA", { ASID: 2, TG: 1, Address: 0x10 });
    expect(machine.cons(1)).toEqual({ index: 1, error: CERROR_ILL });
    expect(machine.globalErrors).toBe(0);
  });

  it("ATC_INV reaches the stream that SID_MATCH names, also under the id of another's, and no other", () => {
    const { machine } = withStreams();
    const log = targets(machine);
    // The guest calls its stream 9 what the host calls 4.
    machine.nameStream(1, 2, 4, 9);
    machine.nameStream(2, 0, 9, 4);
    machine.give(1, "ATC_INV", { SID: 4, Address: 0x40, Size: 1 });
    expect(log.sent).toEqual([[9, 0x40, 2]]);
    machine.give(1, "SYNC");
    expect(machine.cons(1)).toEqual({ index: 2, error: 0 });
  });

  it.each([
    ["that nothing names", 9],
    ["of another VINTF", 7],
    ["beyond 20 bits", 0x100004],
    ["whose pair is off", 6],
    ["0 while no pair is on", 0],
  ])("ATC_INV to a stream %s is an illegal access", (_what, SID) => {
    const { machine } = withStreams();
    const log = targets(machine);
    machine.nameStream(1, 2, 4, 9);
    machine.nameStream(2, 0, 7, 4);
    machine.put(machine.vintf(1, 0x40), 6 << 1);
    machine.give(1, "ATC_INV", { SID, Size: 52 });
    expect(machine.cons(1)).toEqual({ index: 0, error: ILL_ACCESS });
    expect(log.sent).toEqual([]);
  });

  const FORBIDDEN: readonly (readonly [CommandName, Fields])[] = [
    ["PREFETCH_CONFIG", { SID: 1 }],
    ["PREFETCH_ADDR", { SID: 1 }],
    ["CFGI_STE", { SID: 1, Leaf: 1 }],
    ["CFGI_STE_RANGE", { Range: 31 }],
    ["CFGI_CD", { SID: 1 }],
    ["CFGI_CD_ALL", { SID: 1 }],
    ["TLBI_NH_ALL", { VMID: 5 }],
    ["TLBI_NH_VAA", { VMID: 5, Address: 0x10 }],
    ["TLBI_EL2_ALL", {}],
    ["TLBI_EL2_ASID", { ASID: 1 }],
    ["TLBI_EL2_VA", { ASID: 1, Address: 0x10 }],
    ["TLBI_EL2_VAA", { Address: 0x10 }],
    ["TLBI_S12_VMALL", { VMID: 5 }],
    ["TLBI_S2_IPA", { VMID: 5, Address: 0x10 }],
    ["TLBI_NSNH_ALL", {}],
    ["PRI_RESP", { SID: 1, PRGIndex: 3, Resp: 2 }],
    ["RESUME", { SID: 7, STAG: 0, Ac: 1 }],
    ["STALL_TERM", { SID: 7 }],
    ["SYNC", { CS: 1 }],
    ["SYNC", { CS: 1, MSIAddress: 0x20000000, MSIData: 1 }],
    ["SYNC", { CS: 2 }],
    ["SYNC", { CS: 3 }],
  ];

  it.each(FORBIDDEN)(
    "%s %j is an illegal access: ERR 4 and the error maps, and nothing else in the SMMU changes",
    (name, fields) => {
      const { machine } = withStreams();
      const log = targets(machine);
      // Something for each of them to act on: a stalled transaction, stage 2 and EL2 translations, their configurations.
      machine.makeFirstStage(7, { S: 1, R: 0, ASID: 7 }, { S2VMID: 5 });
      machine.status(7, 0n);
      const el2 = machine.makeFirstStage(8, { ASID: 1 }, { STRW: 2 });
      machine.map(el2, 0x10, 0x80404, (1n << 10n) | (1n << 6n));
      machine.request(8, 0x10000n);
      machine.makeSecondStage(9, { S2VMID: 5 });
      machine.request(9, 0x10000n);
      machine.takeEvents();
      const before = machine.smmuState();
      machine.give(1, name, fields);
      expect(machine.cons(1)).toEqual({ index: 0, error: ILL_ACCESS });
      expect(machine.active(1)).toBe(1);
      expect([machine.get(0x14), machine.get(0x24), machine.get64(machine.vintf(1, 0xc0))]).toEqual([2, 1 << 2, 1n]);
      expect(machine.pulses).toEqual([CMDQV_WIRE]);
      expect(machine.smmuState()).toEqual(before);
      expect([log.sent, log.responses, machine.smmu.stalledTransactions]).toEqual([[], 0, 1]);
      // Its other queue, and other VINTFs, go on.
      machine.queueIn(1, 1, "SYNC");
      machine.give(2, "SYNC");
      expect([machine.cons(1, 1), machine.cons(2)]).toEqual([
        { index: 1, error: 0 },
        { index: 1, error: 0 },
      ]);
    },
  );

  it.each([
    ["opcode 0", 0n],
    ["an opcode there is not", 0x99n],
    ["EL3", 0x18n],
    ["a Secure command", 0x50n],
    ["SSec", 0x46n | (1n << 10n)],
    ["SSec on an invalidation", 0x11n | (1n << 10n)],
  ])("%s is illegal", (_what, word0) => {
    const { machine, left } = withStreams();
    const all = left();
    machine.storeCommand(1, 0, word0, 0n);
    machine.pass();
    expect(machine.cons(1)).toEqual({ index: 0, error: CERROR_ILL });
    expect(left()).toEqual(all);
  });

  it("does not become the hypervisor's by anything that its page 0 takes", () => {
    const { machine } = withStreams();
    for (let offset = 0; offset < 0x10000; offset += 4) machine.put(machine.logical(1, 0, offset), 0xffffffff);
    expect(machine.get(machine.vintf(1, 0))).toBe(1 | (5 << 1));
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 0);
    machine.acknowledge(1);
    for (const register of [VCMDQ.PROD, VCMDQ.CONS]) machine.put(machine.logical(1, 0, register), 0);
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 1);
    machine.give(1, "TLBI_NSNH_ALL");
    expect(machine.cons(1)).toEqual({ index: 0, error: ILL_ACCESS });
  });
});

describe("the hypervisor's queue", () => {
  it("executes what the SMMU's own does", () => {
    const machine = new CmdqvMachine();
    machine.start();
    const stale = [machine.staleStream(1, 5, 1), machine.staleStream(2, 6, 1)];
    machine.enableVintf(0, { hypervisor: true, vmid: 7 });
    machine.queueIn(0, 0, "TLBI_NH_ALL", { VMID: 5 });
    machine.queueIn(0, 0, "CFGI_STE", { SID: 1 });
    machine.queueIn(0, 0, "SYNC");
    machine.smmu.drain();
    expect(machine.cons(0)).toEqual({ index: 3, error: 0 });
    expect(stale.map((each) => each())).toEqual([false, true]);
  });

  it("knows no CMD_SYNC with a signal (Linux: CS none on a VCMDQ)", () => {
    const machine = new CmdqvMachine();
    machine.start();
    machine.enableVintf(0, { hypervisor: true });
    machine.queueIn(0, 0, "SYNC", { CS: 1 });
    machine.smmu.drain();
    expect(machine.cons(0)).toEqual({ index: 0, error: CERROR_ILL });
    expect(machine.pulses).toEqual([CMDQV_WIRE]);
  });
});

describe("ATS invalidations of several queues", () => {
  const NS = 60_000_000;

  it("a timeout is told to the queue that sent it, by its CMD_SYNC, and to no other", () => {
    const machine = new CmdqvMachine();
    machine.start();
    const log = targets(machine);
    log.answers = false;
    machine.enableVintf(1);
    machine.enableVintf(2);
    machine.nameStream(1, 0, 4, 9);
    machine.queueIn(1, 0, "ATC_INV", { SID: 4, Size: 52 });
    machine.queueIn(1, 0, "SYNC");
    machine.give(2, "SYNC");
    machine.command("SYNC");
    expect([machine.cons(1).index, machine.cons(2).index, machine.read32(0x9c)], "nobody else waits").toEqual([
      1, 1, 2,
    ]);
    machine.pass(NS);
    expect(machine.cons(1)).toEqual({ index: 1, error: CERROR_ATC_INV_SYNC });
    machine.give(2, "SYNC");
    machine.command("SYNC");
    expect([machine.cons(2).error, machine.globalErrors]).toEqual([0, 0]);
  });

  it("a completion lets the waiting queue go on at once", () => {
    const machine = new CmdqvMachine();
    machine.start();
    const log = targets(machine);
    log.answers = false;
    machine.enableVintf(1);
    machine.nameStream(1, 0, 4, 9);
    machine.queueIn(1, 0, "ATC_INV", { SID: 4, Size: 52 });
    machine.give(1, "SYNC");
    expect(machine.cons(1).index).toBe(1);
    machine.smmu.invalidationCompleted(9, 0);
    machine.pass(1000);
    expect(machine.cons(1)).toEqual({ index: 2, error: 0 });
  });

  it.each([
    [false, CERROR_ATC_INV_SYNC],
    [true, 0],
  ])(
    "a queue that is given on reports the timeout of the one before, unless the SMMU's own CMD_SYNC came between: %s",
    (flush, error) => {
      const machine = new CmdqvMachine();
      machine.start();
      const log = targets(machine);
      log.answers = false;
      machine.enableVintf(1);
      machine.nameStream(1, 0, 4, 9);
      machine.give(1, "ATC_INV", { SID: 4, Size: 52 });
      machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 0);
      if (flush) {
        machine.queue("SYNC");
        machine.smmu.drain();
        expect(machine.read32(0x9c), "waits for what was left").toBe(0);
      }
      machine.pass(NS);
      machine.smmu.drain();
      expect([machine.read32(0x9c), machine.globalErrors]).toEqual([flush ? 1 : 0, 0]);
      machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 1);
      machine.give(1, "SYNC");
      expect(machine.cons(1).error).toBe(error);
    },
  );

  it("guests together hold half of the tags, so that the SMMU's own queue always finds one", () => {
    const clock = new Clock();
    const ats = new AtsInvalidations(clock, 4, NS, 3);
    ats.findTarget = () => ({ invalidate: () => false }) as unknown as AtsTarget;
    expect([1, 2, 1].map((requester) => ats.invalidate(9, -1, 0, 1, false, requester))).toEqual([true, true, false]);
    expect([0, 0, 0].map(() => ats.invalidate(8, -1, 0, 1, false))).toEqual([true, true, false]);
    clock.advance(NS);
    expect(ats.invalidate(9, -1, 0, 1, false, 2)).toBe(true);
  });
});

describe("a trace", () => {
  it("names the queue, and each command once", () => {
    const machine = new CmdqvMachine();
    machine.start();
    const log = targets(machine);
    log.answers = false;
    machine.enableVintf(1, { vmid: 5 });
    machine.nameStream(1, 0, 4, 9);
    const seen: unknown[] = [];
    machine.trace.addSink({
      event: (event) => void (event.type === "command" && seen.push([event.iommu, event.name])),
    });
    machine.queueIn(1, 0, "ATC_INV", { SID: 4, Size: 52 });
    machine.give(1, "SYNC");
    machine.smmu.invalidationCompleted(9, 0);
    machine.pass();
    expect(machine.cons(1).index).toBe(2);
    expect(seen).toEqual([
      ["smmu0 vintf1 lvcmdq0", "ATC_INV"],
      ["smmu0 vintf1 lvcmdq0", "SYNC"],
    ]);
  });
});

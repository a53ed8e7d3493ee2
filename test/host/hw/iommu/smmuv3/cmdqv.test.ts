// A CMDQV's registers: views of one queue, allocation, what a queue needs to run, errors and their maps, interrupt, state (tegra241-cmdqv.c; QEMU's model).

import { describe, expect, it } from "vitest";
import { REG } from "../../../../../host/arch/smmuv3/registers.ts";
import { cmdqvRegisterAt } from "../../../../../host/arch/smmuv3/tegra241-cmdqv.ts";
import { restoreTree, saveTree } from "../../../../../host/base/state.ts";
import { Smmuv3 } from "../../../../../host/hw/iommu/smmuv3/smmu.ts";
import { machineOf, saved } from "../../../saved-machine.ts";
import { CMDQV_WIRE, CmdqvMachine, VCMDQ } from "./cmdqv-machine.ts";

describe("what it is", () => {
  it("is as large as Tegra241's by default: 64 VINTFs, 128 VCMDQs, 16 stream ids a VINTF, version 1", () => {
    const machine = new CmdqvMachine({});
    expect(machine.get(4)).toBe(1 | (7 << 4) | (6 << 8) | (4 << 12));
    // The size of its node in tegra264.dtsi.
    expect(machine.smmu.cmdqv!.registerBytes).toBe(0x830000);
    expect([machine.get(0), machine.get(8)], "enabled at reset").toEqual([0x00020083, 1]);
  });

  it("is not there unless asked for", () => {
    const { smmu } = new CmdqvMachine();
    expect(smmu.cmdqv).not.toBeNull();
    expect(new Smmuv3({ ...partsOf(new CmdqvMachine()) }).cmdqv).toBeNull();
  });

  it.each([
    [{ log2vcmdqs: 8 }, /log2vcmdqs must be 0 to 7/],
    [{ log2vintfs: 7 }, /log2vintfs must be 0 to 6/],
    [{ log2vsids: 5 }, /log2vsids must be 0 to 4/],
    [{ log2vcmdqs: 1, log2vintfs: 2 }, /a VINTF without a queue/],
  ])("%j is refused", (cmdqv, message) => {
    expect(() => new CmdqvMachine(cmdqv)).toThrow(message);
  });

  it("names its registers", () => {
    expect(cmdqvRegisterAt(0x204).name).toBe("CMDQ_ALLOC1");
    expect(cmdqvRegisterAt(0x1144).name).toBe("VINTF1 SID_MATCH1");
    expect(cmdqvRegisterAt(0x10084).name).toBe("VCMDQ1 PROD");
    expect(cmdqvRegisterAt(0x30004).name).toBe("VINTF0 LVCMDQ0 PROD");
    expect(cmdqvRegisterAt(0x60080).name).toBe("VINTF1 LVCMDQ1 BASE");
  });
});

describe("views", () => {
  it("the direct one and the VINTF's show one queue", () => {
    const machine = new CmdqvMachine();
    machine.allocateQueue(5, 1, 0);
    machine.put(machine.logical(1, 0, VCMDQ.PROD), 0);
    machine.put64(0x20000 + 5 * 0x80, 0x8000_1008n);
    expect(machine.get64(machine.logical(1, 0, 0x10000))).toBe(0x8000_1008n);
    machine.put(machine.logical(1, 0, VCMDQ.PROD), 7);
    expect(machine.get(0x10000 + 5 * 0x80 + VCMDQ.PROD)).toBe(7);
    machine.put(0x10000 + 5 * 0x80 + VCMDQ.CONS, 3);
    expect(machine.get(machine.logical(1, 0, VCMDQ.CONS))).toBe(3);
  });

  it("a logical queue that is not allocated is not there, and neither are odd accesses", () => {
    const machine = new CmdqvMachine();
    machine.put(machine.logical(1, 0, VCMDQ.PROD), 7);
    machine.put(machine.logical(1, 200, VCMDQ.PROD), 7);
    for (let queue = 0; queue < 8; queue++) expect(machine.get(0x10000 + queue * 0x80 + VCMDQ.PROD)).toBe(0);
    const { cmdqv } = machine.smmu;
    for (const [offset, size] of [
      [1, 4],
      [4, 2],
      [4, 8],
      [0x830000, 4],
    ] as const) {
      cmdqv!.mmioWrite(offset, size, 0, 0);
      expect(cmdqv!.mmioRead(offset, size)).toBe(0);
    }
  });

  it("indexes read as wide as the queue", () => {
    const machine = new CmdqvMachine();
    machine.put64(0x20000, 4n);
    machine.put(0x10000 + VCMDQ.PROD, 0xffffffff);
    expect(machine.get(0x10000 + VCMDQ.PROD)).toBe(0x1f);
  });
});

describe("CMDQ_ALLOC", () => {
  const allocated = (machine: CmdqvMachine, queue: number) => machine.get(0x200 + 4 * queue) & 1;

  it("takes logical queues in ascending order and gives them back in descending order", () => {
    const machine = new CmdqvMachine();
    machine.allocateQueue(0, 1, 1);
    expect(allocated(machine, 0), "the second before the first").toBe(0);
    machine.allocateQueue(0, 1, 0);
    machine.allocateQueue(1, 1, 1);
    expect([allocated(machine, 0), allocated(machine, 1)]).toEqual([1, 1]);
    expect(machine.get(machine.vintf(1, 4)) >>> 16, "VI_NUM_LVCMDQ").toBe(2);
    machine.put(0x200, 1 << 15);
    expect(allocated(machine, 0), "the first before the second").toBe(1);
    machine.put(0x204, (1 << 1) | (1 << 15));
    machine.put(0x200, 1 << 15);
    expect([allocated(machine, 0), allocated(machine, 1)]).toEqual([0, 0]);
  });

  it("never gives a logical queue twice, nor a queue to a VINTF that is not there, nor moves one that is given", () => {
    const machine = new CmdqvMachine();
    machine.allocateQueue(0, 1, 0);
    machine.allocateQueue(1, 1, 0);
    machine.allocateQueue(2, 4, 0);
    expect([allocated(machine, 1), allocated(machine, 2)]).toEqual([0, 0]);
    machine.allocateQueue(0, 2, 0);
    expect(machine.get(0x200) >>> 15).toBe(1);
  });
});

describe("what a queue needs to run", () => {
  const status = (machine: CmdqvMachine) => machine.get(machine.logical(1, 0, VCMDQ.STATUS));

  it("CMDQV, VINTF, allocation and its own CONFIG, in any order; it stops with any of them", () => {
    const machine = new CmdqvMachine();
    machine.put(0, 0);
    expect(machine.get(8)).toBe(0);
    machine.allocateQueue(0, 1, 0);
    machine.put64(0x20000, 0x8000_0004n);
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 1);
    expect(status(machine)).toBe(0);
    machine.put(machine.vintf(1, 0), 1);
    expect(status(machine)).toBe(0);
    machine.put(0, 1);
    expect(status(machine)).toBe(1);
    machine.put(machine.vintf(1, 0), 0);
    expect(status(machine)).toBe(0);
    machine.put(machine.vintf(1, 0), 1);
    expect(status(machine)).toBe(1);
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 0);
    expect(status(machine)).toBe(0);
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 1);
    machine.put(0x200, 1 << 15);
    expect(machine.get(0x10000 + VCMDQ.STATUS)).toBe(0);
  });

  it("while it runs, where it stands and CONS are the hardware's", () => {
    const machine = new CmdqvMachine();
    machine.enableVintf(1);
    const base = machine.get64(machine.logical(1, 0, 0x10000));
    machine.put64(machine.logical(1, 0, 0x10000), 0n);
    machine.put(machine.logical(1, 0, VCMDQ.CONS), 5);
    expect(machine.get64(machine.logical(1, 0, 0x10000))).toBe(base);
    expect(machine.cons(1)).toEqual({ index: 0, error: 0 });
  });

  it("whose a VINTF is cannot change while it is enabled", () => {
    const machine = new CmdqvMachine();
    machine.enableVintf(1, { vmid: 3 });
    machine.put(machine.vintf(1, 0), 1 | (4 << 1) | (1 << 17));
    expect(machine.get(machine.vintf(1, 0))).toBe(1 | (3 << 1));
  });

  it.each([
    ["more entries than IDR1.CMDQS", 0x8000_0010n],
    ["beyond OAS", 0x1_0000_0000_0004n],
  ])("a base with %s is an initialization error", (_what, base) => {
    const machine = new CmdqvMachine({}, { features: { OAS: 1 } });
    machine.put(machine.vintf(1, 0), 1);
    machine.allocateQueue(0, 1, 0);
    machine.put64(0x20000, base === 0x8000_0010n ? base : 0x10_0000_0004n);
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 1);
    expect([status(machine), machine.active(1)]).toEqual([0, 1 << 2]);
    expect(machine.pulses).toEqual([CMDQV_WIRE]);
  });
});

describe("errors", () => {
  it("show in the maps, by VINTF, logical and global index, until they are acknowledged; the queue goes on from CONS", () => {
    const machine = new CmdqvMachine();
    machine.start();
    machine.enableVintf(1, { queues: 2 });
    machine.enableVintf(2);
    machine.queueIn(1, 1, "SYNC");
    machine.storeCommand(1, 1, 0xffn, 0n);
    machine.queueIn(1, 1, "SYNC");
    machine.pass();
    expect(machine.cons(1, 1)).toEqual({ index: 1, error: 1 });
    expect(machine.active(1, 1)).toBe(1);
    const maps = () => [
      machine.get(0x14),
      machine.get(0x24),
      machine.get64(machine.vintf(1, 0xc0)),
      machine.get64(machine.vintf(2, 0xc0)),
    ];
    expect(maps()).toEqual([1 << 1, 1 << 3, 2n, 0n]);
    expect((machine.get(machine.vintf(1, 4)) >>> 1) & 7, "STATUS: VCMDQ_ERROR").toBe(1);
    expect(machine.pulses).toEqual([CMDQV_WIRE]);
    machine.pass();
    expect(machine.cons(1, 1).index, "stopped").toBe(1);
    const ring = Number(machine.get64(machine.logical(1, 1, 0x10000)) >> 12n);
    machine.store(ring, 16, 0x46n);
    machine.acknowledge(1, 1);
    machine.pass();
    expect(machine.cons(1, 1)).toEqual({ index: 3, error: 0 });
    expect(maps()).toEqual([0, 0, 0n, 0n]);
    expect(machine.globalErrors, "the SMMU's own have nothing to do with it").toBe(0);
  });

  it("of a masked VINTF are silent, and no other's", () => {
    const machine = new CmdqvMachine();
    machine.start();
    machine.enableVintf(1);
    machine.enableVintf(2);
    machine.put(0x1c, 1 << 1);
    machine.storeCommand(1, 0, 0n, 0n);
    machine.pass();
    expect([machine.get(0x14), machine.pulses]).toEqual([2, []]);
    machine.storeCommand(2, 0, 0n, 0n);
    machine.pass();
    expect([machine.get(0x14), machine.pulses]).toEqual([6, [CMDQV_WIRE]]);
  });

  it("a command that cannot be fetched is CERROR_ABT", () => {
    const machine = new CmdqvMachine();
    machine.put(machine.vintf(1, 0), 1);
    machine.allocateQueue(0, 1, 0);
    machine.put64(0x20000, 0x1004n);
    machine.put(machine.logical(1, 0, VCMDQ.CONFIG), 1);
    machine.put(machine.logical(1, 0, VCMDQ.PROD), 1);
    machine.pass();
    expect(machine.cons(1)).toEqual({ index: 0, error: 2 });
  });

  it("indexes that no queue can have fetch nothing", () => {
    const machine = new CmdqvMachine();
    machine.enableVintf(1, { log2: 2 });
    machine.put(machine.logical(1, 0, VCMDQ.PROD), 5);
    machine.pass();
    expect(machine.cons(1)).toEqual({ index: 0, error: 0 });
  });
});

describe("turns", () => {
  it("a full queue does not keep the others waiting for its end", () => {
    const machine = new CmdqvMachine();
    machine.start();
    machine.enableVintf(1, { log2: 10 });
    machine.enableVintf(2);
    for (let i = 0; i < 1024; i++) machine.queueIn(1, 0, "SYNC");
    machine.queueIn(2, 0, "SYNC");
    machine.clock.advance(100);
    machine.clock.fireDue();
    expect(machine.cons(1).index).toBeLessThan(128);
    expect(machine.cons(2).index).toBe(1);
    machine.pass();
    expect(machine.cons(1).index, "index 0, wrapped").toBe(1024);
  });

  it("waiting for the hardware drains the hypervisor's queues, not a guest's", () => {
    const machine = new CmdqvMachine();
    machine.start();
    machine.enableVintf(0, { hypervisor: true });
    machine.enableVintf(1);
    machine.queueIn(0, 0, "SYNC");
    machine.queueIn(1, 0, "SYNC");
    machine.smmu.drain();
    expect([machine.cons(0).index, machine.cons(1).index]).toEqual([1, 0]);
  });
});

describe("state", () => {
  it("written down with work to do, an error and a wait, and read back, goes on like its twin", () => {
    const make = () => {
      const machine = new CmdqvMachine();
      machine.start();
      machine.enableVintf(1, { vmid: 1, queues: 2 });
      machine.enableVintf(2, { vmid: 2 });
      machine.nameStream(1, 1, 0x30, 5);
      machine.storeCommand(2, 0, 0n, 0n);
      machine.pass();
      for (let i = 0; i < 10; i++) machine.queueIn(1, 1, "TLBI_NH_ASID", { ASID: i });
      return machine;
    };
    const [first, twin] = [make(), make()];
    const whole = machineOf(first.clock, { smmu: first.smmu });
    const document = saved(whole);
    first.pass();
    first.smmu.reset();
    first.enableVintf(3);
    restoreTree(whole, document);
    expect(saved(whole)).toEqual(document);
    for (const machine of [first, twin]) {
      machine.acknowledge(2);
      machine.pass();
    }
    expect(saveTree(first.smmu)).toEqual(saveTree(twin.smmu));
    expect(first.cons(1, 1).index).toBe(10);
    expect(first.read32(REG.GERROR)).toBe(0);
  });

  it("is as at power-on after a reset", () => {
    const machine = new CmdqvMachine();
    const fresh = saveTree(machine.smmu.cmdqv!);
    machine.enableVintf(1, { vmid: 1, queues: 2 });
    machine.nameStream(1, 1, 0x30, 5);
    machine.storeCommand(1, 0, 0n, 0n);
    machine.pass();
    machine.put(0x1c, 5);
    machine.smmu.reset();
    expect(saveTree(machine.smmu.cmdqv!)).toEqual(fresh);
  });
});

function partsOf({ memory, clock, trace }: CmdqvMachine) {
  return { name: "smmu1", memory, clock, trace };
}

// Registers: what they say at reset, what software can change and when, interrupts and global errors (IHI 0070 §3.18, §6.2, §6.3, §7.4, §7.5).

import { describe, expect, it } from "vitest";
import { decodeIdentification } from "../../../../../host/arch/smmuv3/identification.ts";
import {
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_PRIQEN,
  CR0_SMMUEN,
  GERROR_CMDQ_ERR,
  GERROR_EVENTQ_ABT_ERR,
  GERROR_MSI_EVENTQ_ABT_ERR,
  IRQ_EVENTQ,
  IRQ_GERROR,
  REG,
} from "../../../../../host/arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { configure, DEFAULT_FEATURES } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import { Machine } from "./machine.ts";

const ON = CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN;

describe("identification", () => {
  it("says what the options said, in the encodings of §6.3.1 to §6.3.8", () => {
    const machine = new Machine({ features: { SIDSIZE: 16, STALL_MODEL: 1, OAS: 4 } });
    expect(machine.read32(REG.IDR0) & 0xf).toBe(0b1011);
    expect((machine.read32(REG.IDR0) >>> 24) & 3).toBe(1);
    expect(machine.read32(REG.IDR1) & 0x3f).toBe(16);
    expect(machine.read32(REG.IDR5)).toBe(0x74);
    expect(machine.read32(REG.AIDR)).toBe(3);
    const word = (name: "IDR0" | "IDR1" | "IDR3" | "IDR5" | "AIDR") => BigInt(machine.read32(REG[name]));
    const read = decodeIdentification({
      IDR0: word("IDR0"),
      IDR1: word("IDR1"),
      IDR3: word("IDR3"),
      IDR5: word("IDR5"),
      AIDR: word("AIDR"),
    });
    expect(read).toMatchObject({ ...DEFAULT_FEATURES, SIDSIZE: 16, STALL_MODEL: 1, STALL_MAX: 0, OAS: 4 });
    machine.write32(REG.IDR0, 0);
    expect(machine.read32(REG.IDR0) & 3).toBe(3);
  });

  it.each([
    [{ S1P: false, S2P: false }, "S1P or S2P"],
    [{ SIDSIZE: 7, ST_LEVEL: 0 }, "ST_LEVEL"],
    [{ ATS: false, PRI: true }, "PRI needs ATS"],
    [{ S2P: false, Hyp: true }, "Hyp needs"],
    [{ GRAN4K: false, GRAN16K: false, GRAN64K: false }, "granule"],
    [{ TTENDIAN: 1 }, "TTENDIAN"],
    [{ OAS: 6 }, "OAS"],
    [{ SSIDSIZE: 21 }, "SSIDSIZE"],
  ])("refuses %j", (features, message) => {
    expect(() => configure({ features })).toThrow(message);
  });
});

describe("control (§6.3.9)", () => {
  it("CR0ACK shows what was written of what there is", () => {
    const machine = new Machine();
    machine.write32(REG.CR0, 0xffffffff);
    expect(machine.read32(REG.CR0ACK)).toBe(ON | CR0_PRIQEN | CR0_ATSCHK);
    machine.write32(REG.CR0ACK, 0);
    expect(machine.read32(REG.CR0ACK)).toBe(ON | CR0_PRIQEN | CR0_ATSCHK);
    const plain = new Machine({ features: { ATS: false } });
    plain.write32(REG.CR0, 0xffffffff);
    expect(plain.read32(REG.CR0ACK)).toBe(ON);
  });

  it("a guarded register keeps its value while its guard is on", () => {
    const machine = new Machine();
    machine.start();
    const wide = [REG.STRTAB_BASE, REG.CMDQ_BASE, REG.EVENTQ_BASE];
    const narrow = [REG.STRTAB_BASE_CFG, REG.CR2, REG.CMDQ_CONS, REG.EVENTQ_PROD];
    const before = [wide.map((offset) => machine.read64(offset)), narrow.map((offset) => machine.read32(offset))];
    for (const offset of wide) machine.write64(offset, 0x1234_5678_0040n);
    for (const offset of narrow) machine.write32(offset, ~machine.read32(offset));
    expect([wide.map((offset) => machine.read64(offset)), narrow.map((offset) => machine.read32(offset))]).toEqual(
      before,
    );
    machine.write32(REG.CR1, 0xd75);
    expect(machine.read32(REG.CR1), "TABLE_* are SMMUEN's").toBe(0x35);
    machine.write32(REG.CR0, 0);
    machine.write64(REG.STRTAB_BASE, 0x4012_3456_789a_bcffn);
    expect(machine.read64(REG.STRTAB_BASE)).toBe(0x4012_3456_789a_bcc0n);
    machine.write32(REG.CR1, 0xd75);
    expect(machine.read32(REG.CR1)).toBe(0xd75);
  });

  it("odd sizes, misaligned accesses and offsets without a register read 0 and write nothing (§6.2)", () => {
    const machine = new Machine();
    machine.smmu.registers.mmioWrite(REG.CR1, 2, 0x35, 0);
    machine.smmu.registers.mmioWrite(REG.CR1 + 2, 4, 0x35, 0);
    expect(machine.read32(REG.CR1)).toBe(0);
    expect(machine.smmu.registers.mmioRead(1, 4)).toBe(0);
    for (const offset of [0xa8, 0x200, 0xfffc, 0x10000, 0x100b0, 0x1fffc, 0x20000]) {
      machine.write32(offset, 0xffffffff);
      expect(machine.read32(offset)).toBe(0);
    }
  });

  it("indexes are as wide as their queue (§3.5)", () => {
    const machine = new Machine();
    machine.write64(REG.CMDQ_BASE, 4n);
    machine.write32(REG.CMDQ_PROD, 0xffffffff);
    expect(machine.read32(REG.CMDQ_PROD)).toBe(0x1f);
    machine.write64(REG.CMDQ_BASE, 0x1fn);
    expect(machine.read64(REG.CMDQ_BASE), "LOG2SIZE reads back as written").toBe(0x1fn);
    expect(machine.read32(REG.CMDQ_PROD), "it counts as CMDQS").toBe(0xffff);
  });
});

describe("interrupts (§3.18)", () => {
  it("the event queue's is for the first record of an empty queue, when enabled then", () => {
    const machine = new Machine();
    machine.start();
    machine.request(63, 0n);
    machine.write32(REG.IRQ_CTRL, IRQ_EVENTQ);
    expect(machine.read32(REG.IRQ_CTRLACK)).toBe(IRQ_EVENTQ);
    machine.request(63, 0n);
    expect(machine.pulses, "it was not empty").toEqual([]);
    machine.takeEvents();
    machine.request(63, 0n);
    machine.request(63, 0n);
    expect(machine.pulses).toEqual([0]);
  });

  it("goes out as a 32-bit store where an address is set; configuration is guarded by the enable", () => {
    const machine = new Machine();
    machine.start();
    const page = machine.allocate();
    machine.write64(REG.EVENTQ_IRQ_CFG0, (BigInt(page) << 12n) | 8n);
    machine.write32(REG.EVENTQ_IRQ_CFG1, 0xcafe);
    machine.write32(REG.IRQ_CTRL, IRQ_EVENTQ);
    machine.write32(REG.EVENTQ_IRQ_CFG1, 0xbad);
    machine.request(63, 0n);
    expect(machine.load(page, 8)).toBe(0xcafen);
    expect(machine.pulses).toEqual([]);
  });

  it("a message that is aborted is an error of its own, with the error interrupt", () => {
    const machine = new Machine();
    machine.start();
    machine.write64(REG.EVENTQ_IRQ_CFG0, 0x1000n);
    machine.write32(REG.IRQ_CTRL, IRQ_EVENTQ | IRQ_GERROR);
    machine.request(63, 0n);
    expect(machine.read32(REG.GERROR)).toBe(GERROR_MSI_EVENTQ_ABT_ERR);
    expect(machine.pulses).toEqual([3]);
  });

  it("what a handler raises inside a message's store waits for its end", () => {
    const machine = new Machine();
    machine.start();
    const order: string[] = [];
    machine.memory.addStoreTarget(0x10 as HpaPfn, {
      store32: () => {
        order.push("begin");
        machine.takeEvents();
        if (order.length < 4) machine.request(63, 0n);
        order.push("end");
      },
    });
    machine.write64(REG.EVENTQ_IRQ_CFG0, 0x10000n);
    machine.write32(REG.IRQ_CTRL, IRQ_EVENTQ);
    machine.request(63, 0n);
    expect(order).toEqual(["begin", "end", "begin", "end", "begin", "end"]);
  });
});

describe("global errors (§7.5)", () => {
  it("toggle only while inactive, and are acknowledged by making GERRORN equal", () => {
    const machine = new Machine();
    machine.start();
    machine.queueWords(0xffn, 0n);
    machine.smmu.drain();
    expect(machine.read32(REG.GERROR)).toBe(GERROR_CMDQ_ERR);
    machine.write32(REG.GERROR, 0);
    expect(machine.read32(REG.GERROR)).toBe(GERROR_CMDQ_ERR);
    machine.write32(REG.GERRORN, GERROR_CMDQ_ERR);
    machine.smmu.drain();
    expect(machine.read32(REG.GERROR), "the command is illegal still").toBe(0);
  });

  it("a record that cannot be stored leaves PROD and stops the queue until it is acknowledged", () => {
    const machine = new Machine();
    machine.start();
    machine.inject(machine.eventRing, 0, true);
    machine.request(63, 0n);
    expect(machine.read32(REG.EVENTQ_PROD)).toBe(0);
    expect(machine.read32(REG.GERROR)).toBe(GERROR_EVENTQ_ABT_ERR);
    machine.memory.faults = null;
    machine.request(63, 0n);
    expect(machine.takeEvents(), "records are lost meanwhile").toEqual([]);
    machine.write32(REG.GERRORN, GERROR_EVENTQ_ABT_ERR);
    machine.request(63, 0n);
    expect(machine.takeEvents()).toHaveLength(1);
  });
});

describe("event queue overflow (§7.4)", () => {
  it("flags the first lost record; records go in again as soon as there is room", () => {
    const machine = new Machine();
    machine.start({ eventLog2: 1 });
    for (let i = 0; i < 4; i++) machine.request(60, 0n);
    expect(machine.read32(REG.EVENTQ_PROD)).toBe(0x80000002);
    // One is consumed without acknowledging: in overflow still, and there is room.
    machine.write32(REG.EVENTQ_CONS, 1);
    machine.request(61, 0n);
    expect(machine.read32(REG.EVENTQ_PROD)).toBe(0x80000003);
    machine.request(61, 0n);
    expect(machine.read32(REG.EVENTQ_PROD), "the flag toggles only when acknowledged").toBe(0x80000003);
    expect(machine.takeEvents()).toHaveLength(2);
    for (let i = 0; i < 3; i++) machine.request(60, 0n);
    expect(machine.read32(REG.EVENTQ_PROD) >>> 31).toBe(0);
  });
});

// Fault recording and its event (VT-d §7.2, §7.3), and what software may do to registers (§11.4).

import { describe, expect, it } from "vitest";
import {
  EVENT_IM,
  EVENT_IP,
  FSTS_PFO,
  FSTS_PPF,
  GCMD_WBF,
  REG,
  registersOf,
} from "../../../../../host/arch/vtd/registers.ts";
import { Machine } from "./machine.ts";

const IOVA = 0x40000n << 12n;
/** Of the first fault record's fourth word. */
const F0 = 0x22c;

function started(options = {}) {
  const machine = new Machine(options);
  machine.start();
  machine.write32(REG.FEDATA, 0x42);
  machine.write32(REG.FEADDR, 0xfee05000);
  machine.write32(REG.FECTL, 0);
  return machine;
}

describe("fault records", () => {
  it("are used in turn; FRI is the first that was pending", () => {
    const machine = started();
    for (const source of [0x108, 0x109, 0x10a]) machine.status(source, IOVA);
    expect(machine.read32(REG.FSTS)).toBe(FSTS_PPF);
    expect(machine.takeFaults().map(({ sourceId }) => sourceId)).toEqual([0x108, 0x109, 0x10a]);
    expect(machine.read32(REG.FSTS) & 0xff).toBe(0);
    machine.status(0x10b, IOVA);
    expect(machine.read32(REG.FSTS)).toBe(FSTS_PPF | (3 << 8));
    expect(machine.takeFaults().map(({ sourceId }) => sourceId)).toEqual([0x10b]);
  });

  it("a pending record of the same source takes in what follows", () => {
    const machine = started();
    for (let i = 0; i < 20; i++) machine.status(0x108, IOVA + BigInt(i * 4096));
    expect(machine.takeFaults()).toHaveLength(1);
  });

  it("a full set overflows; while PFO is set nothing is recorded, even where a record is free", () => {
    const machine = started();
    for (let source = 0; source < 9; source++) machine.status(0x200 + source, IOVA);
    expect(machine.read32(REG.FSTS) & 0xff).toBe(FSTS_PFO | FSTS_PPF);
    machine.write32(F0, 0x80000000);
    machine.status(0x300, IOVA);
    expect(machine.read32(F0) >>> 31).toBe(0);
    machine.write32(REG.FSTS, FSTS_PFO);
    machine.status(0x300, IOVA);
    expect(machine.read32(F0) >>> 31).toBe(1);
    expect(machine.read32(REG.FSTS) & FSTS_PFO).toBe(0);
  });

  it("PPF is the OR of all F, and read-only", () => {
    const machine = started();
    machine.status(0x108, IOVA);
    machine.status(0x109, IOVA);
    machine.write32(REG.FSTS, 0xffffffff);
    expect(machine.read32(REG.FSTS)).toBe(FSTS_PPF);
    machine.write32(F0, 0);
    machine.write32(F0, 0x80000000);
    expect(machine.read32(REG.FSTS)).toBe(FSTS_PPF);
    machine.write32(F0 + 16, 0x80000000);
    expect(machine.read32(REG.FSTS) & FSTS_PPF).toBe(0);
  });
});

describe("the fault event", () => {
  it("is sent for the first of all conditions, again when none is left", () => {
    const machine = started();
    machine.status(0x108, IOVA);
    machine.status(0x109, IOVA);
    machine.queueWords(0n, 0n);
    machine.unit.drain();
    expect(machine.messages).toEqual([[0xfee05000, 0x42]]);
    machine.takeFaults();
    machine.status(0x10a, IOVA);
    // IQE is set still.
    expect(machine.messages).toHaveLength(1);
    machine.write32(REG.FSTS, 0x10);
    machine.takeFaults();
    machine.status(0x10b, IOVA);
    expect(machine.messages).toHaveLength(2);
  });

  it("masked it waits as IP, and is forgotten when all is acknowledged", () => {
    const machine = started();
    machine.write32(REG.FECTL, EVENT_IM);
    machine.status(0x108, IOVA);
    expect([machine.messages, machine.read32(REG.FECTL)]).toEqual([[], (EVENT_IM | EVENT_IP) >>> 0]);
    machine.takeFaults();
    machine.write32(REG.FECTL, 0);
    expect(machine.messages).toEqual([]);
  });
});

describe("registers", () => {
  it("at reset: events masked, everything else off", () => {
    const machine = new Machine();
    const values = registersOf(machine.unit.configuration.features)
      .filter(({ name }) => !/^(VER|E?CAP)$/.test(name))
      .map(({ name, offset }) => [name, machine.read32(offset)] as const)
      .filter(([, value]) => value !== 0);
    expect(values).toEqual([
      ["FECTL", EVENT_IM],
      ["IECTL", EVENT_IM],
      ["PECTL", EVENT_IM],
    ]);
  });

  it("read-only and absent ones stay, reserved bits read 0", () => {
    const machine = new Machine({ features: { PRS: false } });
    const before = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c, 0x80, 0xb0].map((offset) => machine.read32(offset));
    for (let offset = 0; offset < 0x1000; offset += 4) if (offset !== REG.GCMD) machine.write32(offset, 0xffffffff);
    expect([0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c, 0x80, 0xb0].map((offset) => machine.read32(offset))).toEqual(before);
    expect(machine.read32(REG.RTADDR)).toBe(0xfffffc00);
    expect(machine.read32(REG.IQT)).toBe(0x7fff0);
    expect(machine.read32(REG.IQA)).toBe(0xfffff807);
    expect(machine.read32(REG.IRTA)).toBe(0xfffff80f);
    expect(machine.read32(REG.FEDATA)).toBe(0xffff);
    expect(machine.read32(REG.FEADDR)).toBe(0xfffffffc);
    for (const absent of [REG.PQH, REG.PQT, REG.PQA, REG.PRS, REG.PECTL, REG.PEDATA, REG.PMEN, REG.AFLOG, 0x100, 0x108])
      expect(machine.read32(absent), absent.toString(16)).toBe(0);
    // Write-only.
    expect(machine.read64(0xf0)).toBe(0n);
  });

  it("upper message addresses need EIM", () => {
    const machine = new Machine({ features: { EIM: false } });
    machine.write32(REG.FEUADDR, 1);
    expect(machine.read32(REG.FEUADDR)).toBe(0);
  });

  it("WBF is seen done at once: drivers wait for WBFS to be 0", () => {
    const machine = new Machine();
    machine.command(GCMD_WBF);
    expect(machine.read32(REG.GSTS)).toBe(0);
  });

  it("memory types are state with MTS", () => {
    const machine = new Machine({ features: { MTS: true } });
    machine.write32(0x108, 0xffffffff);
    expect(machine.read32(0x108)).toBe(0xcff);
  });

  it("features that contradict each other are refused in words", () => {
    const refused = (features: object): string => {
      try {
        new Machine({ features });
        return "";
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
        return (error as Error).message;
      }
    };
    expect(refused({ NEST: true, SSTS: false })).toBe("NEST needs SSTS");
    expect(refused({ PI: true })).toBe("posted interrupts (PI) are not there");
    expect(refused({ FRO: 5 })).toBe("FRO puts the fault records over other registers");
    expect(refused({ IRO: 0x22 })).toBe("IRO and FRO put registers over each other");
    expect(refused({ SAGAW: 1 })).toBe("SAGAW bit 0 is reserved");
    expect(refused({ SMTS: false })).toBe("");
  });
});

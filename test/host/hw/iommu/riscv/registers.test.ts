import { describe, expect, it } from "vitest";
import { encodeCapabilities } from "../../../../../host/arch/riscv/capabilities.ts";
import {
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_ON,
  IPSR_CIP,
  IPSR_FIP,
  REG,
} from "../../../../../host/arch/riscv/registers.ts";
import { configure, DEFAULT_CAPABILITIES } from "../../../../../host/hw/iommu/riscv/options.ts";
import { Machine } from "./machine.ts";

const every = (1n << 64n) - 1n;

describe("accesses to the register page (§6)", () => {
  it("show capabilities, whole and by halves", () => {
    const machine = new Machine();
    const value = encodeCapabilities(DEFAULT_CAPABILITIES);
    expect(machine.read64(REG.capabilities)).toBe(value);
    expect(machine.read32(REG.capabilities)).toBe(Number(value & 0xffffffffn));
    expect(machine.read32(REG.capabilities + 4)).toBe(Number(value >> 32n));
    machine.write64(REG.capabilities, every);
    expect(machine.read64(REG.capabilities)).toBe(value);
  });

  it("read 0 and write nothing where they span registers, are misaligned or of another width", () => {
    const machine = new Machine();
    machine.write32(REG.cqt, 1);
    expect(machine.read64(REG.cqh)).toBe(0n);
    machine.write64(REG.cqh, every);
    expect(machine.read32(REG.cqt)).toBe(1);
    expect(machine.iommu.registers.mmioRead(REG.cqb + 2, 4)).toBe(0);
    expect(machine.iommu.registers.mmioRead(REG.cqb + 4, 8)).toBe(0);
    expect(machine.iommu.registers.mmioRead(REG.capabilities, 1)).toBe(0);
    expect(machine.iommu.registers.mmioRead(REG.capabilities, 2)).toBe(0);
    machine.iommu.registers.mmioWrite(REG.cqt, 2, 0, 0);
    expect(machine.read32(REG.cqt)).toBe(1);
    expect(machine.read32(640)).toBe(0);
    expect(machine.iommu.registers.mmioRead(4096, 4)).toBe(0);
  });

  it("an 8-byte register is written by halves too", () => {
    const machine = new Machine();
    machine.write32(REG.cqb + 4, 0xffffffff);
    machine.write32(REG.cqb, (0x123 << 10) | 7);
    expect(machine.read64(REG.cqb)).toBe((((1n << 44n) - 0x400000n) << 10n) | (0x123n << 10n) | 7n);
  });

  it("reset as §6.2 says", () => {
    const machine = new Machine({ resetMode: "bare" });
    machine.enableCommandQueue();
    machine.enableFaultQueue();
    machine.useDirectory(2);
    machine.iommu.reset();
    for (const offset of [REG.cqcsr, REG.fqcsr, REG.pqcsr, REG.ipsr]) expect(machine.read32(offset)).toBe(0);
    expect(machine.read64(REG.ddtp)).toBe(1n);
    expect(new Machine().read64(REG.ddtp)).toBe(0n);
  });
});

describe("WARL fields", () => {
  it("ddtp takes the modes it has and keeps its own for the others (§6.5)", () => {
    const machine = new Machine({ directoryLevels: 2 });
    const readBack = (mode: number): number => {
      machine.write64(REG.ddtp, (0x77n << 10n) | BigInt(mode));
      return Number(machine.read64(REG.ddtp) & 0xfn);
    };
    expect([0, 1, 2, 3].map(readBack)).toEqual([0, 1, 2, 3]);
    machine.write64(REG.ddtp, 0n);
    expect([4, 5, 13, 14, 15].map(readBack)).toEqual([0, 0, 0, 0, 0]);
    expect(machine.read64(REG.ddtp) >> 10n).toBe(0x77n);
  });

  it("queue sizes are clamped to the largest, and indexes to the size (§6.6, §6.8)", () => {
    const machine = new Machine({ queueSizeLog2: 13 });
    machine.write64(REG.cqb, 31n);
    expect(machine.read64(REG.cqb)).toBe(12n);
    machine.write32(REG.cqt, 0xffffffff);
    expect(machine.read32(REG.cqt)).toBe(0x1fff);
    machine.write64(REG.cqb, 0n);
    expect(machine.read32(REG.cqt)).toBe(1);
  });

  it("head of the command queue and tails of the others are read-only", () => {
    const machine = new Machine();
    for (const offset of [REG.cqh, REG.fqt, REG.pqt]) {
      machine.write32(offset, 1);
      expect(machine.read32(offset)).toBe(0);
    }
  });

  it("icvec has as many bits a field as there are vectors, and none for what does not exist (§6.28)", () => {
    const machine = new Machine({ vectorBits: 2 });
    machine.write64(REG.icvec, every);
    expect(machine.read64(REG.icvec)).toBe(0x3333n);
    const small = new Machine({ vectorBits: 1, capabilities: { HPM: false, ATS: false, T2GPA: false } });
    small.write64(REG.icvec, every);
    expect(small.read64(REG.icvec)).toBe(0x0011n);
  });

  it("MSI table entries beyond the vectors read 0, as all do under IGS = WSI (§6.29)", () => {
    const machine = new Machine({ vectorBits: 1 });
    for (const vector of [0, 1, 2]) {
      machine.write64(REG.msi_cfg_tbl + 16 * vector, every);
      machine.write32(REG.msi_cfg_tbl + 16 * vector + 8, 0xffffffff);
      machine.write32(REG.msi_cfg_tbl + 16 * vector + 12, 0xffffffff);
    }
    expect(machine.read64(REG.msi_cfg_tbl + 16)).toBe(0x00ff_ffff_ffff_fffcn);
    expect(machine.read32(REG.msi_cfg_tbl + 28)).toBe(1);
    expect(machine.read64(REG.msi_cfg_tbl + 32)).toBe(0n);
    const wired = new Machine({ capabilities: { IGS: 1 } });
    wired.write64(REG.msi_cfg_tbl, every);
    expect(wired.read64(REG.msi_cfg_tbl)).toBe(0n);
  });

  it("fctl changes only where the implementation lets it (§6.4)", () => {
    const machine = new Machine();
    machine.write32(REG.fctl, 7);
    expect(machine.read32(REG.fctl)).toBe(2);
    const flexible = new Machine({ capabilities: { END: true, Sv32: true, Sv32x4: true }, gxlWritable: true });
    flexible.write32(REG.fctl, 7);
    expect(flexible.read32(REG.fctl)).toBe(7);
    const fixed = new Machine({ capabilities: { IGS: 1 } });
    expect(fixed.read32(REG.fctl)).toBe(2);
    fixed.write32(REG.fctl, 0);
    expect(fixed.read32(REG.fctl)).toBe(2);
  });

  it("optional registers that are absent read 0 and ignore writes", () => {
    const machine = new Machine({ capabilities: { ATS: false, T2GPA: false, HPM: false, DBG: false, QOSID: false } });
    for (const offset of [REG.pqb, REG.iohpmcycles, REG.iohpmctr1, REG.iohpmevt1, REG.tr_req_iova, REG.tr_req_ctl]) {
      machine.write64(offset, every);
      expect(machine.read64(offset)).toBe(0n);
    }
    for (const offset of [REG.pqh, REG.pqcsr, REG.iocountinh, REG.iommu_qosid]) {
      machine.write32(offset, 0xffffffff);
      expect(machine.read32(offset)).toBe(0);
    }
  });

  it("QoS ids have the widths chosen (§6.27)", () => {
    const machine = new Machine({ capabilities: { QOSID: true }, rcidBits: 4, mcidBits: 6 });
    machine.write32(REG.iommu_qosid, 0xffffffff);
    expect(machine.read32(REG.iommu_qosid)).toBe(0x003f000f);
  });
});

describe("configurations the specification rules out (§6.3)", () => {
  const cases: readonly [string, Parameters<typeof configure>[0]][] = [
    ["Sv48 without Sv39", { capabilities: { Sv39: false } }],
    ["T2GPA without ATS", { capabilities: { ATS: false } }],
    ["MSI_MRIF without MSI_FLAT", { capabilities: { MSI_FLAT: false } }],
    ["a PAS of 57 bits", { capabilities: { PAS: 57 } }],
    ["wires without wired interrupts", { capabilities: { IGS: 0 }, wiredInterrupts: true }],
    ["32 event counters", { counters: 32 }],
  ];
  for (const [name, options] of cases)
    it(`${name} are refused`, () => expect(() => configure(options)).toThrow(RangeError));
});

describe("interrupts (§6.18, §6.28, §6.29)", () => {
  const withTable = (): Machine => {
    const machine = new Machine();
    machine.enableFaultQueue(7, true);
    machine.write64(REG.icvec, 0x3210n);
    return machine;
  };
  const messages = (machine: Machine, vector: number): { log: number[]; page: number } => {
    const log: number[] = [];
    const page = 0x24000 + vector;
    machine.memory.addStoreTarget(page as never, { store32: (offset, value) => log.push(offset, value) });
    machine.write64(REG.msi_cfg_tbl + 16 * vector, BigInt(page) << 12n);
    machine.write32(REG.msi_cfg_tbl + 16 * vector + 8, 0x40 + vector);
    return { log, page };
  };

  it("a fault sends the message of its vector, once while fip stays 1", () => {
    const machine = withTable();
    const { log } = messages(machine, 1);
    machine.request(1, 0n);
    machine.request(1, 0n);
    expect(log).toEqual([0, 0x41]);
    machine.write32(REG.ipsr, IPSR_FIP);
    machine.request(1, 0n);
    expect(log).toEqual([0, 0x41, 0, 0x41]);
  });

  it("a masked message is held back and sent when its mask is cleared", () => {
    const machine = withTable();
    const { log } = messages(machine, 1);
    machine.write32(REG.msi_cfg_tbl + 28, 1);
    machine.request(1, 0n);
    expect(log).toEqual([]);
    machine.write32(REG.msi_cfg_tbl + 28, 0);
    expect(log).toEqual([0, 0x41]);
    machine.write32(REG.msi_cfg_tbl + 28, 0);
    expect(log).toEqual([0, 0x41]);
  });

  it("a message nobody takes is a fault of cause 273 with the address, no device", () => {
    const machine = withTable();
    machine.write64(REG.msi_cfg_tbl + 16, 0x1234_5000n);
    machine.request(9, 0n);
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.ttyp, fault.deviceId, fault.iotval])).toEqual([
      [256, 2, 9, 0n],
      [273, 0, 0, 0x1234_5000n],
    ]);
  });

  it("with fctl.WSI the bit drives its wire as a level", () => {
    const machine = withTable();
    machine.write32(REG.fctl, 2);
    machine.request(1, 0n);
    expect(machine.wires[1]).toBe(true);
    machine.write32(REG.ipsr, IPSR_FIP);
    expect(machine.wires[1]).toBe(false);
  });

  it("causes that share a vector share its wire", () => {
    const machine = new Machine({ wiredInterrupts: true });
    machine.enableFaultQueue(7, true);
    machine.enableCommandQueue(4, true);
    machine.request(1, 0n);
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    expect(machine.read32(REG.ipsr)).toBe(IPSR_CIP | IPSR_FIP);
    machine.write32(REG.ipsr, IPSR_FIP);
    expect(machine.wires[0]).toBe(true);
  });

  it("a condition that still holds sets the bit again at once", () => {
    const machine = new Machine();
    machine.enableCommandQueue(4, true);
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    machine.write32(REG.ipsr, IPSR_CIP);
    expect(machine.read32(REG.ipsr)).toBe(IPSR_CIP);
    machine.write32(REG.cqcsr, CSR_ENABLE | CSR_INTERRUPT_ENABLE | 0x400);
    machine.write32(REG.ipsr, IPSR_CIP);
    expect(machine.read32(REG.ipsr)).toBe(0);
  });

  it("a handler that clears another cause from within its wire's callback leaves every wire as ipsr says", () => {
    const machine = new Machine({ wiredInterrupts: true });
    machine.write64(REG.icvec, 0x10n);
    machine.enableCommandQueue(4, true);
    machine.enableFaultQueue(7, true);
    machine.iommu.onWire = (vector, asserted) => {
      machine.wires[vector] = asserted;
      if (vector === 0 && asserted) machine.write32(REG.ipsr, IPSR_FIP);
    };
    machine.request(1, 0n);
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    expect(machine.read32(REG.ipsr)).toBe(IPSR_CIP);
    expect(machine.wires.slice(0, 2)).toEqual([true, false]);
  });

  it("a handler that clears its bit while the condition holds does not recurse, and the wire stays asserted", () => {
    const machine = new Machine({ wiredInterrupts: true });
    machine.enableCommandQueue(4, true);
    let calls = 0;
    machine.iommu.onWire = (vector, asserted) => {
      machine.wires[vector] = asserted;
      if (asserted && calls++ < 1000) machine.write32(REG.ipsr, IPSR_CIP);
    };
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    expect(calls).toBeLessThan(10);
    expect(machine.wires[0]).toBe(true);
  });

  it("a handler that clears the bit from within the message's store does not recurse", () => {
    const machine = new Machine();
    machine.enableCommandQueue(4, true);
    let calls = 0;
    machine.memory.addStoreTarget(0x24000 as never, {
      store32: () => {
        calls++;
        machine.write32(REG.ipsr, IPSR_CIP);
      },
    });
    machine.write64(REG.msi_cfg_tbl, 0x2400_0000n);
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    expect(calls).toBeGreaterThan(0);
    expect(calls).toBeLessThan(10);
  });
});

describe("the fault queue (§4.2, §6.16)", () => {
  it("enabling empties it and shows fqon", () => {
    const machine = new Machine();
    machine.enableFaultQueue();
    machine.request(1, 0n);
    expect(machine.read32(REG.fqt)).toBe(1);
    machine.write32(REG.fqcsr, 0);
    expect(machine.read32(REG.fqcsr)).toBe(0);
    machine.write32(REG.fqcsr, CSR_ENABLE);
    expect(machine.read32(REG.fqt)).toBe(0);
    expect(machine.read32(REG.fqcsr)).toBe(CSR_ENABLE | CSR_ON);
  });

  it("holds one record less than entries; the next sets fqof and all are dropped until it is cleared", () => {
    const machine = new Machine();
    machine.enableFaultQueue(2);
    for (let i = 0; i < 5; i++) machine.request(i, 0n);
    expect(machine.read32(REG.fqt)).toBe(3);
    expect(machine.read32(REG.fqcsr) & 0x200).toBe(0x200);
    expect(machine.takeFaults().map((fault) => fault.deviceId)).toEqual([0, 1, 2]);
    machine.request(7, 0n);
    expect(machine.takeFaults()).toEqual([]);
    machine.write32(REG.fqcsr, CSR_ENABLE | 0x200);
    machine.request(8, 0n);
    expect(machine.takeFaults().map((fault) => fault.deviceId)).toEqual([8]);
  });

  it("a record that cannot be written sets fqmf", () => {
    const machine = new Machine();
    machine.write64(REG.fqb, (0x10n << 10n) | 3n);
    machine.write32(REG.fqcsr, CSR_ENABLE);
    machine.request(1, 0n);
    expect(machine.read32(REG.fqcsr) & 0x100).toBe(0x100);
    expect(machine.read32(REG.fqt)).toBe(0);
  });
});

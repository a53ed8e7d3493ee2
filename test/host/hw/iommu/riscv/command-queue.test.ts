import { describe, expect, it } from "vitest";
import {
  CQCSR_CMD_ILL,
  CQCSR_FENCE_W_IP,
  CSR_MEMORY_FAULT,
  CSR_ON,
  IPSR_CIP,
  REG,
} from "../../../../../host/arch/riscv/registers.ts";
import { Machine, USER_RW, WRITE } from "./machine.ts";

const mapped = (options = {}) => {
  const machine = new Machine(options);
  machine.enableFaultQueue();
  machine.enableCommandQueue(8, true);
  machine.useDirectory(2);
  const root = machine.makeRoot();
  machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root, PSCID: 5 });
  return { machine, root };
};

describe("the command queue (§4.1, §6.15)", () => {
  it("does nothing on a tail write; step executes one command, drain the rest", () => {
    const { machine } = mapped();
    machine.queue("IOTINVAL.VMA");
    machine.queue("IOFENCE.C");
    expect(machine.read32(REG.cqh)).toBe(0);
    expect(machine.iommu.step()).toBe(true);
    expect(machine.read32(REG.cqh)).toBe(1);
    machine.iommu.drain();
    expect(machine.read32(REG.cqh)).toBe(2);
    expect(machine.iommu.step()).toBe(false);
  });

  it("stores the data of an IOFENCE.C at its address", () => {
    const { machine } = mapped();
    const frame = machine.allocate();
    machine.command("IOFENCE.C", { AV: 1, DATA: 0xcafe1234, ADDR: (BigInt(frame) << 10n) | 2n, PR: 1, PW: 1 });
    expect(machine.load(frame, 8)).toBe(0xcafe1234n);
  });

  it("stops at an illegal command and goes on with the same one once cmd_ill is cleared", () => {
    const { machine } = mapped();
    machine.queueWords(0x05n, 0n);
    machine.queue("IOFENCE.C");
    machine.iommu.drain();
    expect(machine.read32(REG.cqcsr) & CQCSR_CMD_ILL).toBe(CQCSR_CMD_ILL);
    expect(machine.read32(REG.cqh)).toBe(0);
    expect(machine.read32(REG.ipsr) & IPSR_CIP).toBe(IPSR_CIP);
    const ring = Number((machine.read64(REG.cqb) >> 10n) & ((1n << 44n) - 1n));
    machine.store(ring, 0, 0x02n);
    machine.write32(REG.cqcsr, 3 | CQCSR_CMD_ILL);
    machine.iommu.drain();
    expect(machine.read32(REG.cqh)).toBe(2);
  });

  it("sets cqmf when a command cannot be fetched, and when an IOFENCE.C cannot store", () => {
    const { machine } = mapped();
    machine.command("IOFENCE.C", { AV: 1, ADDR: 0x1000n });
    expect(machine.read32(REG.cqcsr) & CSR_MEMORY_FAULT).toBe(CSR_MEMORY_FAULT);
    expect(machine.read32(REG.cqh)).toBe(0);
    const other = mapped().machine;
    other.write32(REG.cqcsr, 0);
    other.write64(REG.cqb, 0x1000n << 10n);
    other.write32(REG.cqcsr, 1);
    other.write32(REG.cqt, 1);
    other.iommu.drain();
    expect(other.read32(REG.cqcsr) & CSR_MEMORY_FAULT).toBe(CSR_MEMORY_FAULT);
  });

  it("enabling clears cqh and the error bits but not cqt, and shows cqon", () => {
    const { machine } = mapped();
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    machine.write32(REG.cqcsr, 0);
    expect(machine.read32(REG.cqcsr) & CSR_ON).toBe(0);
    machine.write32(REG.cqcsr, 1);
    expect(machine.read32(REG.cqcsr)).toBe(CSR_ON | 1);
    expect(machine.read32(REG.cqt)).toBe(1);
  });

  it("an IOFENCE.C with WSI sets fence_w_ip and does not stop the queue, but only with wired interrupts", () => {
    const { machine } = mapped({ wiredInterrupts: true });
    machine.queue("IOFENCE.C", { WSI: 1 });
    machine.queue("IOFENCE.C");
    machine.iommu.drain();
    expect(machine.read32(REG.cqcsr) & CQCSR_FENCE_W_IP).toBe(CQCSR_FENCE_W_IP);
    expect(machine.read32(REG.cqh)).toBe(2);
    expect(machine.wires[0]).toBe(true);
    const messages = mapped().machine;
    messages.command("IOFENCE.C", { WSI: 1 });
    expect(messages.read32(REG.cqcsr) & CQCSR_CMD_ILL).toBe(CQCSR_CMD_ILL);
  });
});

describe("handlers that run inside a command", () => {
  it("an IOFENCE.C whose store reaches a handler that steps the queue executes once", () => {
    const { machine } = mapped();
    let stores = 0;
    machine.memory.addStoreTarget(0x24000 as never, {
      store32: () => {
        stores++;
        machine.iommu.step();
        machine.iommu.drain();
      },
    });
    machine.queue("IOFENCE.C", { AV: 1, ADDR: 0x24000n << 10n });
    machine.iommu.step();
    expect(stores).toBe(1);
    expect(machine.read32(REG.cqh)).toBe(1);
  });

  it("a handler that switches the queue off and on leaves it empty-headed", () => {
    const { machine } = mapped();
    machine.memory.addStoreTarget(0x24000 as never, {
      store32: () => {
        machine.write32(REG.cqcsr, 0);
        machine.write32(REG.cqcsr, 1);
      },
    });
    machine.queue("IOTINVAL.VMA");
    machine.queue("IOFENCE.C", { AV: 1, ADDR: 0x24000n << 10n });
    machine.iommu.step();
    machine.iommu.step();
    expect(machine.read32(REG.cqh)).toBe(0);
  });
});

describe("invalidation (§3.8, §4.1.1)", () => {
  it("a cached translation is used until its page is invalidated", () => {
    const { machine, root } = mapped();
    const place = machine.map(root, 3, 0x10, 0x80100, USER_RW);
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBe(0x80100000n);
    machine.store(place.frame, place.offset, (0x80200n << 10n) | BigInt(USER_RW));
    expect(machine.request(1, 0x10000n)).toBe(0x80100000n);
    machine.command("IOTINVAL.VMA", { AV: 1, ADDR: 0x11n, PSCV: 1, PSCID: 5 });
    expect(machine.request(1, 0x10000n)).toBe(0x80100000n);
    machine.command("IOTINVAL.VMA", { AV: 1, ADDR: 0x10n, PSCV: 1, PSCID: 5 });
    expect(machine.request(1, 0x10000n)).toBe(0x80200000n);
  });

  it("a cached device context is used until IODIR.INVAL_DDT", () => {
    const { machine, root } = mapped();
    machine.map(root, 3, 0x10, 0x80100, USER_RW);
    expect(machine.request(1, 0x10000n)).toBe(0x80100000n);
    machine.setDevice(1, { V: 0 });
    expect(machine.request(1, 0x10000n)).toBe(0x80100000n);
    machine.command("IODIR.INVAL_DDT", { DV: 1, DID: 1 });
    expect(machine.request(1, 0x10000n)).toBeNull();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([258]);
  });
});

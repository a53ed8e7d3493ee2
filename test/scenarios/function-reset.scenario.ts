// A guest resets its device, or puts it to sleep: what the guest then reads of it is what the host's function does. PCIe 6.0 §6.6.2: after
// a function-level reset Bus Master Enable is 0 and the function makes no requests; PCI PM §5.4.1: nor does one in D3hot.

import { scenario } from "nestbox";

const COMMAND = 4;
const BAR0 = 0x10;
const EXPRESS = 0x10;
const POWER = 0x01;

export const functionReset = scenario.each(
  "after a function-level reset a device does no DMA until the guest lets it",
  (t, kind) => {
    const vm = t.vm({ kind, services: true, assign: ["0000:00:01.0@00:02.0"] });
    const device = vm.device("00:02.0");
    const page = vm.ram.allocate();
    const stage1 = vm.stage1();
    stage1.map(0x1000n, page, 4096n);
    device.installContext(stage1);
    const read = (at: number, size: 1 | 2 | 4) => device.entry.device.configRead(at, size);
    const host = vm.host.functionOf(device.hostName);
    const express = findCapability(read, EXPRESS);
    device.configWrite32(BAR0, 0x4000_0000);
    device.configWrite16(express + 8, 0x201f);
    const atFirst = read(0x0c, 1);
    device.entry.device.configWrite(0x0c, 1, 0x20);
    t.expect(device.dmaWrite(0x1000n, Uint8Array.of(5)).ok, "DMA before");

    t.step("Initiate Function Level Reset");
    device.configWrite16(express + 8, 0xa01f);
    t.advance(1_000_000);
    t.equal(read(COMMAND, 2), 0, "the guest's command register");
    t.equal(host.configRead(COMMAND, 2) & 6, 0, "the host function's bus mastering and memory decoding");
    t.equal(device.configRead32(BAR0) >>> 4, 0, "the BAR");
    t.equal(read(0x0c, 1), atFirst, "the cache line size");
    t.equal(read(express + 8, 2), 0x2810, "device control (§7.5.3.4: relaxed ordering, no snoop, 512 byte requests)");
    t.expect(!device.dmaWrite(0x1000n, Uint8Array.of(9)).ok, "DMA without Bus Master Enable");
    t.equal(vm.ram.read(page, 1)[0], 5, "memory is as it was");
    t.equal(device.disposition, "nested", "the vIOMMU keeps its context");
    vm.expectNoFault();

    t.step("Bus Master Enable");
    device.configWrite16(COMMAND, 6);
    t.expect(device.dmaWrite(0x1000n, Uint8Array.of(7)).ok, "DMA again, through the same first stage");
    t.equal(vm.ram.read(page, 1)[0], 7, "memory");
    vm.expectNoFault();
  },
);

export const asleep = scenario.each(
  "a device in D3hot has no registers and does no DMA; back in D0 it goes on",
  (t, kind) => {
    const vm = t.vm({ kind, services: true, assign: ["0000:00:01.0@00:02.0"] });
    const device = vm.device("00:02.0");
    const page = vm.ram.allocate();
    const stage1 = vm.stage1();
    stage1.map(0x1000n, page, 4096n);
    device.installContext(stage1);
    const registers = device.entry.device.bars[0]!.registers;
    const power = findCapability((at, size) => device.entry.device.configRead(at, size), POWER);
    device.configWrite32(BAR0, 0x4000_0000);
    t.equal(device.entry.device.barBase(0), 0x4000_0000, "the BAR decodes");
    t.equal(registers.mmioRead(0, 4) >>> 0, 0x0100_00ed, "the edu's identification");

    t.step("D3hot");
    device.configWrite16(power + 4, 3);
    t.equal(device.entry.device.configRead(power + 4, 2) & 3, 3, "power state");
    t.equal(device.entry.device.barBase(0), -1, "the BAR decodes nowhere");
    t.equal(registers.mmioRead(0, 4) >>> 0, 0xffff_ffff, "its registers");
    t.equal(device.entry.device.configRead(COMMAND, 2) & 6, 6, "the command register keeps its value");
    t.expect(!device.dmaWrite(0x1000n, Uint8Array.of(9)).ok, "DMA");

    t.step("D0");
    device.configWrite16(power + 4, 0);
    t.equal(device.entry.device.barBase(0), 0x4000_0000, "the BAR decodes again");
    t.equal(registers.mmioRead(0, 4) >>> 0, 0x0100_00ed, "its registers");
    t.expect(device.dmaWrite(0x1000n, Uint8Array.of(7)).ok, "DMA");
    t.equal(vm.ram.read(page, 1)[0], 7, "memory");

    t.step("a reset wakes it, too");
    device.configWrite16(power + 4, 3);
    device.configWrite16(findCapability((at, size) => device.entry.device.configRead(at, size), EXPRESS) + 8, 0x8000);
    t.equal(device.entry.device.configRead(power + 4, 2) & 3, 0, "power state");
    device.configWrite32(BAR0, 0x4000_0000);
    device.configWrite16(COMMAND, 6);
    t.equal(registers.mmioRead(0, 4) >>> 0, 0x0100_00ed, "its registers");
    vm.expectNoFault();
  },
);

function findCapability(read: (at: number, size: 1 | 2 | 4) => number, id: number): number {
  let at = read(0x34, 1);
  while (at !== 0 && read(at, 1) !== id) at = read(at + 1, 1);
  return at;
}

// What the PCI side of the hardware has in hand when its state is taken: pins, logs of pages written, invalidations that a slow function has not
// begun, interrupts that have arrived and wait for the run loop.

import { expect, it } from "vitest";
import type { HpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../host/base/memory.ts";
import { restoreTree } from "../../../../host/base/state.ts";
import { Trace } from "../../../../host/base/trace.ts";
import { Edu } from "../../../../host/devices/edu/edu.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { DMA_OK, NO_PASID } from "../../../../host/devices/ports.ts";
import { InterruptFiles } from "../../../../host/hw/interrupt-files.ts";
import { AilingFunction } from "../../../../host/hw/pci/ailing-function.ts";
import { BarWindow } from "../../../../host/hw/pci/bar-window.ts";
import { DmaWriteLog } from "../../../../host/hw/pci/dma-write-log.ts";
import { RootComplex } from "../../../../host/hw/pci/root-complex.ts";
import { machineOf, memoryPart, saved } from "../../saved-machine.ts";
import { FakeIommu } from "./fake-iommu.ts";

const RAM = 0x80000 as HpaPfn;
const DOORBELL = 0x28000 as HpaPfn;
const RID = 0x0108;

function bench() {
  const clock = new Clock();
  const trace = new Trace(clock);
  const memory = new PhysicalMemory<HpaPfn>();
  const ram = memory.addBank(RAM, new ArrayBuffer(16 * 4096));
  const interrupts = new InterruptFiles({ memory, clock, trace, basePfn: DOORBELL, files: 2 });
  const window32 = new BarWindow(0x4000_0000, 0x1000_0000);
  const window64 = new BarWindow(0x4_0000_0000, 0x1_0000_0000);
  const root = new RootComplex({ segment: 0, memory, clock, trace, window32, window64 });
  const iommu = new FakeIommu();
  const ailing = new AilingFunction(new Edu({ ats: true }), (ns) => clock.advance(ns));
  const slot = root.plug(RID, ailing, iommu);
  root.configWrite(RID, 4, 2, 6);
  const machine = machineOf(clock, { interrupts, root, ram: memoryPart(ram.bytes) });
  const pass = (ns: number) => {
    const end = clock.now + ns;
    while (clock.nextDeadline <= end) {
      clock.advanceTo(clock.nextDeadline);
      clock.fireDue();
    }
    clock.advanceTo(end);
  };
  return { clock, memory, interrupts, root, iommu, ailing, slot, machine, pass, base: ailing.barBase(0) };
}

it("a raised pin is lowered, and its wire with it, by another machine that was given the state", () => {
  const one = bench();
  one.root.mmioWrite(one.base + R.INTERRUPT_RAISE, 4, 1, 0);
  expect(one.slot.pin).toBe(true);
  const other = bench();
  const wires: [number, boolean][] = [];
  other.root.onWire = (wire, level) => wires.push([wire, level]);
  restoreTree(other.machine, saved(one.machine));
  expect(other.slot.pin).toBe(true);
  other.root.mmioWrite(other.base + R.INTERRUPT_ACKNOWLEDGE, 4, 1, 0);
  // Device 1's INTA# is wire 1 (PCIe 6.0 §2.2.8.1).
  expect([other.slot.pin, wires]).toEqual([false, [[1, false]]]);
});

it("a log of written pages says the same after the restore, and goes on", () => {
  const one = bench();
  one.slot.dma.writeLog = new DmaWriteLog([{ firstPfn: 0x10, lastPfn: 0x1f }]);
  const write = ({ slot }: typeof one, pfn: number) => slot.dma.write(pfn, 0, Uint8Array.of(1), 0, 1, NO_PASID);
  one.iommu.map = (pfn) => RAM + (pfn & 7);
  for (const pfn of [0x12, 0x15, 0x30]) expect(write(one, pfn)).toBe(DMA_OK);
  const other = bench();
  other.iommu.map = one.iommu.map;
  restoreTree(other.machine, saved(one.machine));
  expect(write(other, 0x11)).toBe(DMA_OK);
  const written: number[] = [];
  other.slot.dma.writeLog!.take(0, 0x40, (pfn) => written.push(pfn));
  expect(written.sort()).toEqual([0x11, 0x12, 0x15]);
  expect(other.slot.dma.counters.transfers).toBe(4);
});

it("an invalidation that a slow function had not begun is begun after the restore, with its tag", () => {
  const one = bench();
  one.ailing.ailment.delayNs = 500;
  for (const itag of [4, 9]) expect(one.ailing.atsTarget!.invalidate(0x10, 1, NO_PASID, false, itag)).toBe(false);
  const other = bench();
  restoreTree(other.machine, saved(one.machine));
  other.pass(499);
  expect(other.iommu.messages).toEqual([]);
  other.pass(1);
  expect(other.iommu.messages).toEqual([`completed ${RID} 4`, `completed ${RID} 9`]);
});

it("an interrupt that has arrived is delivered after the restore, once; a masked one stays pending", () => {
  const one = bench();
  const other = bench();
  const delivered: string[] = [];
  for (const { interrupts } of [one, other]) {
    const first = interrupts.allocate(0, "first")!;
    interrupts.setHandler(first, () => delivered.push("first"));
    interrupts.allocate(0, "second");
  }
  one.memory.store32(DOORBELL, 0, 1);
  one.memory.store32(DOORBELL, 0, 2);
  const document = saved(one.machine);
  restoreTree(other.machine, document);
  other.pass(0);
  expect(delivered).toEqual(["first"]);
  expect(other.interrupts.isPending({ pfn: DOORBELL, data: 2 })).toBe(true);
  other.interrupts.setHandler({ pfn: DOORBELL, data: 2 }, () => delivered.push("second"));
  other.pass(0);
  expect(delivered).toEqual(["first", "second"]);
});

it("an interrupt that arrived after the state was taken arrives anew", () => {
  const { interrupts, memory, machine, pass } = bench();
  let delivered = 0;
  interrupts.setHandler(interrupts.allocate(0, "first")!, () => delivered++);
  const document = saved(machine);
  memory.store32(DOORBELL, 0, 1);
  restoreTree(machine, document);
  pass(0);
  expect(delivered).toBe(0);
  memory.store32(DOORBELL, 0, 1);
  pass(0);
  expect(delivered).toBe(1);
});

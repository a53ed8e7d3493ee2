// A device on no bus: registers, wires, DMA under its own id, and what becomes of its command while an IOMMU stalls it. The IOMMU does as it is
// told; the SMMUv3's own stalls are test/host/hw/iommu/smmuv3/stalls-and-ats.test.ts (IHI 0070 §3.12.2).

import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../host/base/memory.ts";
import { restoreTree } from "../../../../host/base/state.ts";
import { Trace, type TracedEvent } from "../../../../host/base/trace.ts";
import { PlatformEdu } from "../../../../host/devices/edu/platform-edu.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, DMA_OK, DMA_STALLED, NO_PASID } from "../../../../host/devices/ports.ts";
import {
  type HardwareIommu,
  STALL_ABORT,
  STALL_DISCARD,
  STALL_RETRY,
  type StallEnd,
} from "../../../../host/hw/iommu/port.ts";
import { BarWindow } from "../../../../host/hw/pci/bar-window.ts";
import { Interconnect } from "../../../../host/hw/platform/interconnect.ts";
import { eduDma, eduOutcome } from "../../kernel/machine.ts";
import { machineOf, memoryPart, saved } from "../../saved-machine.ts";
import { FakeIommu } from "../pci/fake-iommu.ts";

const RAM = 0x80000 as HpaPfn;
const ADDRESS = BigInt(RAM) << 12n;
const DEVICE_ID = 0x777;

class StallingIommu extends FakeIommu implements HardwareIommu {
  stallTag = 0;
  onStallEnded?: (deviceId: number, tag: number, end: StallEnd) => void;
}

function bench(canStall = true) {
  const clock = new Clock();
  const trace = new Trace(clock);
  const memory = new PhysicalMemory<HpaPfn>();
  const ram = memory.addBank(RAM, new ArrayBuffer(16 * 4096));
  const interconnect = new Interconnect({ memory, clock, trace, window: new BarWindow(0x3000_0000, 0x20_0000) });
  const iommu = new StallingIommu();
  const slot = interconnect.plug(new PlatformEdu(), { name: "edu0", iommu, deviceId: DEVICE_ID, canStall });
  const { registers } = slot.endpoint.regions[0]!;
  const machine = machineOf(clock, { interconnect, ram: memoryPart(ram.bytes) });
  const pass = (ns: number) => {
    const end = clock.now + ns;
    while (clock.nextDeadline <= end) {
      clock.advanceTo(clock.nextDeadline);
      clock.fireDue();
    }
    clock.advanceTo(end);
  };
  const running = () => (registers.mmioRead(R.DMA_COMMAND, 4) & R.COMMAND_RUN) !== 0;
  const moved = () => registers.mmioRead(R.DMA_MOVED, 4);
  /** A command of 256 bytes at `at`, whose page stalls. */
  const stallAt = (at: bigint, toRam = false) => {
    iommu.stalls = Number(at >> 12n);
    eduDma(registers, at, 256, toRam, true);
    pass(10_000);
  };
  return { clock, trace, ram, interconnect, iommu, slot, registers, machine, pass, running, moved, stallAt };
}

describe("the interconnect", () => {
  it("places registers in its window, page-aligned, and has no room for more than fit", () => {
    const { interconnect, iommu } = bench();
    const second = { name: "edu1", iommu, deviceId: 1, canStall: false };
    expect(interconnect.plug(new PlatformEdu(), second).bases).toEqual([0x3010_0000]);
    const third = { name: "edu2", iommu: null, deviceId: 0, canStall: false };
    expect(() => interconnect.plug(new PlatformEdu(), third)).toThrow(/edu2: no room/);
    interconnect.unplug("edu0");
    expect(interconnect.plug(new PlatformEdu(), third).bases).toEqual([0x3000_0000]);
  });

  it("takes no second device of a name, and no second device id at an IOMMU", () => {
    const { interconnect, iommu } = bench();
    const plug = (name: string, deviceId: number) =>
      interconnect.plug(new PlatformEdu(), { name, iommu, deviceId, canStall: false });
    expect(() => plug("edu0", 1)).toThrow(/two devices edu0/);
    expect(() => plug("edu1", DEVICE_ID)).toThrow(/edu1: edu0 has its device id/);
  });

  it("tells of a wire's every change, and lowers the wires of a device that goes", () => {
    const { interconnect, slot, registers } = bench();
    const told: [number, boolean][] = [];
    slot.onWire = (index, asserted) => told.push([index, asserted]);
    registers.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    registers.mmioWrite(R.INTERRUPT_RAISE, 4, 2, 0);
    registers.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 3, 0);
    registers.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    interconnect.unplug("edu0");
    expect(told).toEqual([
      [0, true],
      [0, false],
      [0, true],
      [0, false],
    ]);
    registers.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    expect(told).toHaveLength(4);
  });

  it("sends a device's DMA under its own id, without a PASID; nothing of it gets through once it has gone", () => {
    const { interconnect, iommu, slot, ram } = bench();
    expect(slot.dma.write(RAM, 8, Uint8Array.of(5), 0, 1, NO_PASID)).toBe(DMA_OK);
    expect(ram.bytes[8]).toBe(5);
    expect(iommu.seen.at(-1)).toMatchObject({ deviceId: DEVICE_ID, pasid: NO_PASID, translated: false });
    interconnect.unplug("edu0");
    expect(slot.dma.write(RAM, 8, Uint8Array.of(6), 0, 1, NO_PASID)).toBe(DMA_ABORTED);
  });
});

describe("a stalled transaction", () => {
  it("keeps the command running; retried, the burst is made anew and the command ends", () => {
    const { iommu, ram, registers, stallAt, pass, running, moved } = bench();
    ram.bytes.fill(0xab, 4096 - 128, 4096 + 128);
    stallAt(ADDRESS + 4096n - 128n);
    iommu.stalls = Number((ADDRESS >> 12n) + 1n);
    registers.mmioWrite(R.DMA_COUNT, 4, 1, 0);
    expect([running(), moved()]).toEqual([true, 0]);
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_RETRY);
    pass(10_000);
    expect([running(), moved()], "the second page stalls too").toEqual([true, 128]);
    iommu.stalls = -1;
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_RETRY);
    pass(10_000);
    expect([running(), moved(), eduOutcome(registers)]).toEqual([false, 256, R.OUTCOME_DONE]);
    expect(registers.mmioRead(R.INTERRUPT_STATUS, 4)).toBe(R.INTERRUPT_DMA);
  });

  it("aborted, ends the command as refused, with what went before it moved", () => {
    const { iommu, registers, stallAt, pass, running, moved } = bench();
    stallAt(ADDRESS);
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_ABORT);
    expect(running(), "not within the IOMMU's message").toBe(true);
    pass(10_000);
    expect([running(), moved(), eduOutcome(registers)]).toEqual([false, 0, R.OUTCOME_REFUSED]);
  });

  it("completed without memory reads zeros, ignores what is written, and the command goes on", () => {
    const { iommu, ram, registers, stallAt, pass, moved } = bench();
    ram.bytes.fill(0xab, 0, 256);
    stallAt(ADDRESS);
    iommu.stalls = -1;
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_DISCARD);
    pass(10_000);
    expect([moved(), eduOutcome(registers)]).toEqual([256, R.OUTCOME_DONE]);
    eduDma(registers, ADDRESS + 4096n, 256, true);
    pass(10_000);
    expect([...ram.bytes.subarray(4096 + 63, 4096 + 66)]).toEqual([0, 0xab, 0xab]);
    iommu.stalls = Number(ADDRESS >> 12n);
    ram.bytes.fill(0x11, 0, 256);
    eduDma(registers, ADDRESS, 64, true);
    pass(10_000);
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_DISCARD);
    pass(10_000);
    expect([moved(), ram.bytes[0]]).toEqual([64, 0x11]);
  });

  it("that found no room is made anew when some other has ended", () => {
    const { iommu, stallAt, pass, running } = bench();
    iommu.stallTag = -1;
    stallAt(ADDRESS);
    pass(1_000_000);
    const before = iommu.seen.length;
    iommu.stalls = -1;
    iommu.onStallEnded?.(0x123, 7, STALL_ABORT);
    pass(10_000);
    expect(iommu.seen.length).toBeGreaterThan(before);
    expect(running()).toBe(false);
  });

  it("is nobody's after a reset: its end changes nothing, though a new command stalls meanwhile", () => {
    const { iommu, slot, stallAt, pass, running, registers } = bench();
    stallAt(ADDRESS);
    slot.endpoint.reset();
    expect([running(), eduOutcome(registers)]).toEqual([false, R.OUTCOME_RESET]);
    iommu.stallTag = 1;
    stallAt(ADDRESS);
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_ABORT);
    pass(10_000);
    expect(running(), "the first one's end").toBe(true);
    iommu.onStallEnded?.(DEVICE_ID, 1, STALL_ABORT);
    pass(10_000);
    expect(running()).toBe(false);
  });

  it("of a device that went is nobody's either", () => {
    const { iommu, interconnect, ram, stallAt, pass } = bench();
    stallAt(ADDRESS, true);
    interconnect.unplug("edu0");
    ram.bytes.fill(0x22, 0, 256);
    iommu.stalls = -1;
    iommu.onStallEnded?.(DEVICE_ID, 0, STALL_RETRY);
    pass(10_000);
    expect(ram.bytes[0]).toBe(0x22);
  });

  it("is an abort for a device that firmware does not call able to wait", () => {
    const { registers, running, stallAt, slot } = bench(false);
    stallAt(ADDRESS);
    expect([running(), eduOutcome(registers)]).toEqual([false, R.OUTCOME_REFUSED]);
    expect(slot.dma.counters.aborted).toBe(1);
  });

  it("is in the trace, once, and in no counter", () => {
    const { trace, slot, stallAt } = bench();
    const events: TracedEvent[] = [];
    trace.addSink({ event: (event) => events.push(event) });
    stallAt(ADDRESS);
    expect(events.filter(({ type }) => type === "dma")).toMatchObject([
      { device: "edu0", deviceId: DEVICE_ID, iova: ADDRESS, length: 64, write: false, result: "stalled" },
    ]);
    expect(slot.dma.counters).toEqual({ transfers: 0, bytes: 0, aborted: 0, messages: 0, faults: 0 });
    expect(slot.dma.write(RAM, 0, Uint8Array.of(1), 0, 1, NO_PASID)).toBe(DMA_STALLED);
  });

  it.each([0, -1])("goes over into a restored machine (tag %i)", (tag) => {
    const one = bench();
    one.iommu.stallTag = tag;
    one.stallAt(ADDRESS);
    one.registers.mmioWrite(R.INTERRUPT_RAISE, 4, 2, 0);
    const other = bench();
    restoreTree(other.machine, saved(one.machine));
    expect([other.running(), other.slot.wires]).toEqual([true, [true]]);
    other.iommu.onStallEnded?.(tag < 0 ? 1 : DEVICE_ID, Math.max(tag, 0), STALL_RETRY);
    other.pass(10_000);
    expect([other.running(), other.moved()]).toEqual([false, 256]);
  });
});

import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace, type TracedEvent } from "../../../../host/base/trace.ts";
import { Edu } from "../../../../host/devices/edu/edu.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, DMA_OK, NO_PASID } from "../../../../host/devices/ports.ts";
import { InterruptFiles } from "../../../../host/hw/interrupt-files.ts";
import { BarWindow } from "../../../../host/hw/pci/bar-window.ts";
import { FunctionDma } from "../../../../host/hw/pci/function-dma.ts";
import { EnhancedConfigurationAccess, RootComplex } from "../../../../host/hw/pci/root-complex.ts";
import { FakeIommu } from "./fake-iommu.ts";

const RAM = 0x80000 as HpaPfn;
const DOORBELL = 0x28000 as HpaPfn;
const RID = 0x0108;

function machine() {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const memory = new PhysicalMemory<HpaPfn>();
  const ram = memory.addBank(RAM, new ArrayBuffer(16 * 4096));
  const interrupts = new InterruptFiles({ memory, clock, trace, basePfn: DOORBELL, files: 2 });
  const root = new RootComplex({
    segment: 0,
    memory,
    clock,
    trace,
    window32: new BarWindow(0x4000_0000, 0x1000_0000),
    window64: new BarWindow(0x4_0000_0000, 0x1_0000_0000),
    messages: interrupts,
  });
  const iommu = new FakeIommu();
  const run = (ns: number) => {
    for (const end = clock.now + ns; clock.nextDeadline <= end; ) {
      clock.advanceTo(clock.nextDeadline);
      clock.fireDue();
    }
  };
  return { clock, trace, memory, ram, interrupts, root, iommu, run };
}

type Machine = ReturnType<typeof machine>;

function pluggedEdu(parts: Machine, iommu: FakeIommu | null = parts.iommu, rid = RID) {
  const edu = new Edu({ pasidBits: 20, ats: true, pri: true });
  const slot = parts.root.plug(rid, edu, iommu);
  parts.root.configWrite(rid, 4, 2, 6);
  const base = edu.barBase(0);
  return { edu, slot, base };
}

/** Copies `count` bytes of the edu buffer to DMA address `address`. */
function eduToRam({ root }: Machine, base: number, address: number, count: number): void {
  root.mmioWrite(base + R.DMA_SOURCE, 8, R.BUFFER, 0);
  root.mmioWrite(base + R.DMA_DESTINATION, 8, address >>> 0, 0);
  root.mmioWrite(base + R.DMA_COUNT, 8, count, 0);
  root.mmioWrite(base + R.DMA_COMMAND, 8, R.COMMAND_RUN | R.COMMAND_TO_RAM, 0);
}

describe("functions on the root complex", () => {
  it("answer configuration accesses at their address only", () => {
    const parts = machine();
    pluggedEdu(parts);
    expect(parts.root.configRead(RID, 0, 4)).toBe(0x11e81234);
    expect(parts.root.configRead(RID + 8, 0, 4)).toBe(0xffffffff);
    expect(parts.root.configRead(RID + 8, 0, 2)).toBe(0xffff);
    expect(parts.root.slots.map(({ name }) => name)).toEqual(["0000:01:01.0"]);
  });

  it("answer through ECAM at bus, device, function and register (PCIe 6.0 §7.2.2)", () => {
    const parts = machine();
    pluggedEdu(parts);
    const ecam = new EnhancedConfigurationAccess(parts.root);
    expect(ecam.mmioRead((RID << 12) | 0, 4)).toBe(0x11e81234);
    expect(ecam.mmioRead((RID << 12) | 2, 2)).toBe(0x11e8);
    expect(ecam.mmioRead(0x0200 << 12, 4)).toBe(0xffffffff);
  });

  it("have their BARs placed, naturally aligned and apart, when plugged in", () => {
    const parts = machine();
    const first = pluggedEdu(parts);
    const second = pluggedEdu(parts, null, 0x0110);
    expect(first.base % R.EDU_BAR_BYTES).toBe(0);
    expect(Math.abs(first.base - second.base)).toBeGreaterThanOrEqual(R.EDU_BAR_BYTES);
    expect(parts.root.mmioRead(first.base, 4)).toBe(R.IDENTIFICATION_VALUE);
    expect(parts.root.mmioRead(second.base, 4)).toBe(R.IDENTIFICATION_VALUE);
    expect(parts.root.mmioRead(second.base + R.EDU_BAR_BYTES, 4)).toBe(0xffffffff);
  });

  it("get their BARs back after a reset", () => {
    const parts = machine();
    const { edu, base } = pluggedEdu(parts);
    edu.reset();
    expect(parts.root.mmioRead(base, 4)).toBe(0xffffffff);
    parts.root.restoreBars(RID);
    parts.root.configWrite(RID, 4, 2, 2);
    expect(parts.root.mmioRead(base, 4)).toBe(R.IDENTIFICATION_VALUE);
  });

  it("cannot take a place twice", () => {
    const parts = machine();
    pluggedEdu(parts);
    expect(() => parts.root.plug(RID, new Edu(), null)).toThrow(RangeError);
  });

  it("are gone after an unplug: no DMA, no registers, no pin, no messages", () => {
    const parts = machine();
    const { edu, base } = pluggedEdu(parts);
    const wires: [number, boolean][] = [];
    parts.root.onWire = (wire, asserted) => wires.push([wire, asserted]);
    parts.root.mmioWrite(base + R.INTERRUPT_RAISE, 4, 1, 0);
    eduToRam(parts, base, 0x80000000, 4096);
    parts.run(2_000);
    const before = parts.iommu.seen.length;
    const gone: string[] = [];
    parts.root.onUnplug = (slot) => gone.push(slot.name);
    parts.root.unplug(RID);
    edu.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    parts.run(100_000);
    expect(before).toBe(2);
    expect(parts.iommu.seen).toHaveLength(before);
    expect(parts.root.mmioRead(base, 4)).toBe(0xffffffff);
    expect(parts.root.configRead(RID, 0, 4)).toBe(0xffffffff);
    expect(parts.iommu.findTarget(RID)).toBeUndefined();
    expect(gone).toEqual(["0000:01:01.0"]);
    expect(wires).toEqual([
      [1, true],
      [1, false],
    ]);
    expect(parts.clock.pending).toBe(0);
  });

  it("leave nothing behind when there is no room for their BARs", () => {
    const parts = machine();
    // The window holds 256 BARs of an edu; the last place is taken by somebody else.
    for (let rid = 0; rid < 256; rid++) parts.root.plug(rid, new Edu(), parts.iommu);
    expect(() => parts.root.plug(0x1000, new Edu({ ats: true }), parts.iommu)).toThrow(/no room for BAR 0/);
    expect(parts.root.slot(0x1000)).toBeUndefined();
    expect(parts.iommu.findTarget(0x1000)).toBeUndefined();
    parts.root.unplug(7);
    expect(parts.root.plug(0x1000, new Edu(), parts.iommu).name).toBe("0000:10:00.0");
  });

  it("can be plugged in and pulled out for ever", () => {
    const parts = machine();
    // The window holds 256 BARs of an edu.
    for (let i = 0; i < 300; i++) {
      pluggedEdu(parts);
      parts.root.unplug(RID);
    }
    expect(parts.root.slots).toEqual([]);
  });

  it("give back the address space of their BARs", () => {
    const window = new BarWindow(0x1000, 0x3000);
    const [a, b] = [{}, {}];
    expect([window.place(a, 0x1000), window.place(b, 0x1000), window.place(a, 0x1000)]).toEqual([
      0x1000, 0x2000, 0x3000,
    ]);
    expect(window.place(b, 0x1000)).toBe(-1);
    window.release(a);
    expect(window.place(b, 0x2000)).toBe(-1);
    expect(window.place(b, 0x1000)).toBe(0x1000);
  });

  it("are placed at multiples of their size whatever the window's start", () => {
    const window = new BarWindow(0x1800, 0x8000);
    expect(window.place({}, 0x1000)).toBe(0x2000);
    expect(window.place({}, 0x4000)).toBe(0x4000);
    expect(window.place({}, 0x1000)).toBe(0x3000);
  });

  it("share a wire between devices four apart, asserted while one of them asserts its pin", () => {
    const parts = machine();
    const first = pluggedEdu(parts, null, 0x0108);
    const second = pluggedEdu(parts, null, 0x0128);
    const wires: [number, boolean][] = [];
    parts.root.onWire = (wire, asserted) => wires.push([wire, asserted]);
    parts.root.mmioWrite(first.base + R.INTERRUPT_RAISE, 4, 1, 0);
    parts.root.mmioWrite(second.base + R.INTERRUPT_RAISE, 4, 1, 0);
    parts.root.mmioWrite(first.base + R.INTERRUPT_ACKNOWLEDGE, 4, 1, 0);
    expect(wires).toEqual([[1, true]]);
    expect([first.slot.pin, second.slot.pin]).toEqual([false, true]);
  });
});

describe("a function's DMA", () => {
  it("goes through its IOMMU with its device id and lands at the translated page", () => {
    const parts = machine();
    parts.iommu.map = (pfn) => (pfn === 0x10 ? RAM + 3 : undefined);
    const { edu, base } = pluggedEdu(parts);
    parts.ram.bytes.set([1, 2, 3, 4], 3 * 4096 + 8);
    parts.root.mmioWrite(base + R.DMA_SOURCE, 8, 0x10008, 0);
    parts.root.mmioWrite(base + R.DMA_DESTINATION, 8, R.BUFFER, 0);
    parts.root.mmioWrite(base + R.DMA_COUNT, 8, 4, 0);
    parts.root.mmioWrite(base + R.DMA_COMMAND, 8, R.COMMAND_RUN, 0);
    parts.run(1_000);
    eduToRam(parts, base, 0x10010, 4);
    parts.run(1_000);
    expect(edu.mmioRead(R.DMA_OUTCOME, 4)).toBe(R.OUTCOME_DONE);
    expect([...parts.ram.bytes.subarray(3 * 4096 + 16, 3 * 4096 + 20)]).toEqual([1, 2, 3, 4]);
    expect(parts.iommu.seen.map(({ deviceId, access, pfn, offset }) => [deviceId, access, pfn, offset])).toEqual([
      [RID, 1, 0x10, 8],
      [RID, 2, 0x10, 0x10],
    ]);
  });

  it("carries its PASID, and privilege only where the PASID capability enables it", () => {
    const parts = machine();
    const { edu, base } = pluggedEdu(parts);
    let pasidCapability = 0x100;
    while ((edu.configRead(pasidCapability, 4) & 0xffff) !== 0x1b) {
      pasidCapability = edu.configRead(pasidCapability, 4) >>> 20;
    }
    parts.root.mmioWrite(base + R.PASID, 4, (R.PASID_VALID | R.PASID_PRIVILEGED | 9) >>> 0, 0);
    for (const control of [1, 5]) {
      edu.configWrite(pasidCapability + 6, 2, control);
      eduToRam(parts, base, 0x80000000, 64);
      parts.run(1_000);
    }
    expect(parts.iommu.seen.map(({ pasid, privileged }) => [pasid, privileged])).toEqual([
      [9, false],
      [9, true],
    ]);
  });

  it("is refused where the IOMMU refuses, and the device sees it", () => {
    const parts = machine();
    parts.iommu.map = () => undefined;
    const { edu, base } = pluggedEdu(parts);
    eduToRam(parts, base, 0x80000000, 64);
    parts.run(1_000);
    expect(edu.mmioRead(R.DMA_OUTCOME, 4)).toBe(R.OUTCOME_REFUSED);
  });

  it("is refused where there is no memory", () => {
    const parts = machine();
    const { edu, base } = pluggedEdu(parts);
    eduToRam(parts, base, 0x1000, 64);
    parts.run(1_000);
    expect(edu.mmioRead(R.DMA_OUTCOME, 4)).toBe(R.OUTCOME_REFUSED);
  });

  it("never reaches the IOMMU while bus mastering is off", () => {
    const parts = machine();
    const { edu, base } = pluggedEdu(parts);
    parts.root.configWrite(RID, 4, 2, 2);
    eduToRam(parts, base, 0x80000000, 64);
    parts.run(1_000);
    expect(parts.iommu.seen).toEqual([]);
    expect(edu.mmioRead(R.DMA_OUTCOME, 4)).toBe(R.OUTCOME_REFUSED);
  });

  it("goes straight to memory without an IOMMU", () => {
    const parts = machine();
    const { edu, base } = pluggedEdu(parts, null);
    eduToRam(parts, base, 0x80000000, 64);
    parts.run(1_000);
    expect(edu.mmioRead(R.DMA_OUTCOME, 4)).toBe(R.OUTCOME_DONE);
  });

  it("is translated page by page and stops at the first refused page, keeping what was done", () => {
    const { memory, trace, iommu, ram } = machine();
    const edu = new Edu();
    edu.configWrite(4, 2, 4);
    iommu.map = (pfn) => (pfn === 0x30 ? RAM + 5 : pfn === 0x31 ? RAM + 1 : undefined);
    const dma = new FunctionDma({ function: edu, name: "edu", deviceId: 7, iommu, memory, trace });
    const bytes = new Uint8Array(10_000).fill(0xaa);
    expect(dma.write(0x30, 0xf00, bytes, 0, 0x1100, NO_PASID)).toBe(DMA_OK);
    expect(iommu.seen.map(({ pfn, offset }) => [pfn, offset])).toEqual([
      [0x30, 0xf00],
      [0x31, 0],
    ]);
    expect(dma.write(0x31, 0, bytes, 0, 0x1001, NO_PASID)).toBe(DMA_ABORTED);
    expect(ram.bytes[4096 + 4095]).toBe(0xaa);
    expect(ram.bytes[2 * 4096]).toBe(0);
  });

  it("does not wrap past the end of the address space", () => {
    const { memory, trace, iommu } = machine();
    const edu = new Edu();
    edu.configWrite(4, 2, 4);
    iommu.map = () => RAM;
    const dma = new FunctionDma({ function: edu, name: "edu", deviceId: 7, iommu, memory, trace });
    const bytes = new Uint8Array(64);
    expect(dma.read(2 ** 52 - 1, 4096 - 64, bytes, 0, 64, NO_PASID)).toBe(DMA_OK);
    expect(dma.read(2 ** 52 - 1, 4096 - 32, bytes, 0, 64, NO_PASID)).toBe(DMA_ABORTED);
  });

  it("carries ATS and page-request messages both ways", () => {
    const parts = machine();
    const { edu } = pluggedEdu(parts);
    const dma = new FunctionDma({
      function: edu,
      name: "edu",
      deviceId: 9,
      iommu: parts.iommu,
      memory: parts.memory,
      trace: parts.trace,
    });
    parts.iommu.map = (pfn) => pfn + RAM;
    expect(dma.ats.translate(2, NO_PASID, false, false, false)).toBe(0);
    expect(dma.ats.translation.pfn).toBe(RAM + 2);
    dma.ats.pageRequest(5, 3, 2, 6);
    dma.ats.stopMarker(3);
    dma.ats.invalidationCompleted(1);
    expect(parts.iommu.messages).toEqual(["request 9 3 5 2 6", "stop 9 3", "completed 9 1"]);
    expect(parts.iommu.findTarget(RID)).toBe(edu.atsTarget);
  });

  it("asks the IOMMU about translated requests, and obeys", () => {
    const parts = machine();
    const { edu } = pluggedEdu(parts);
    const { iommu, memory, trace } = parts;
    const dma = new FunctionDma({ function: edu, name: "edu", deviceId: 9, iommu, memory, trace });
    const bytes = new Uint8Array(4);
    expect(dma.ats.writeTranslated(RAM, 0, bytes, 0, 4, NO_PASID)).toBe(DMA_OK);
    expect(iommu.seen.at(-1)?.translated).toBe(true);
    iommu.allowTranslated = false;
    expect(dma.ats.readTranslated(RAM, 0, bytes, 0, 4, NO_PASID)).toBe(DMA_ABORTED);
  });
});

describe("message-signalled interrupts of the host", () => {
  function withMessage(parts: Machine) {
    const { edu, base } = pluggedEdu(parts);
    const message = parts.interrupts.allocate(1, "edu");
    if (message === null) throw new Error("no id left");
    const at = 0x40 + 8 + 0x3c;
    expect(edu.configRead(at, 1)).toBe(0x05);
    edu.configWrite(at + 4, 4, (message.pfn * 4096) >>> 0);
    edu.configWrite(at + 12, 2, message.data);
    edu.configWrite(at + 2, 2, 1);
    return { edu, base, message };
  }

  it("reach their handler when the run loop fires events, not inside the store", () => {
    const parts = machine();
    const { base, message } = withMessage(parts);
    let count = 0;
    parts.interrupts.setHandler(message, () => count++);
    parts.root.mmioWrite(base + R.INTERRUPT_RAISE, 4, 1, 0);
    expect(count).toBe(0);
    expect(parts.interrupts.isPending(message)).toBe(true);
    parts.clock.fireDue();
    expect(count).toBe(1);
    expect(parts.interrupts.isPending(message)).toBe(false);
  });

  it("show the IOMMU the 4-byte payload", () => {
    const parts = machine();
    const { base, message } = withMessage(parts);
    parts.root.mmioWrite(base + R.INTERRUPT_RAISE, 4, 1, 0);
    expect(parts.iommu.seen.at(-1)).toMatchObject({ pfn: message.pfn, offset: 0, data: message.data });
  });

  it("stay pending without a handler and are delivered once there is one", () => {
    const parts = machine();
    const { base, message } = withMessage(parts);
    parts.root.mmioWrite(base + R.INTERRUPT_RAISE, 4, 1, 0);
    parts.clock.fireDue();
    expect(parts.interrupts.isPending(message)).toBe(true);
    let count = 0;
    parts.interrupts.setHandler(message, () => count++);
    parts.clock.fireDue();
    expect(count).toBe(1);
  });

  it("are lost when their id is released", () => {
    const parts = machine();
    const { base, message } = withMessage(parts);
    parts.interrupts.setHandler(message, () => expect.unreachable());
    parts.root.mmioWrite(base + R.INTERRUPT_RAISE, 4, 1, 0);
    parts.interrupts.release(message);
    parts.clock.fireDue();
    expect(parts.interrupts.allocated).toBe(0);
  });

  it("cannot be sent by a function that they do not belong to, nor by any if they are an IOMMU's", () => {
    const parts = machine();
    const { memory, trace, interrupts } = parts;
    const { edu } = pluggedEdu(parts);
    const dma = (name: string) =>
      new FunctionDma({ function: edu, name, deviceId: 9, iommu: null, memory, trace, messages: interrupts });
    const send = (name: string, data: number, length = 4, offset = 0) =>
      dma(name).write(DOORBELL, offset, new Uint8Array([data, 0, 0, 0, data, 0, 0, 0]), 0, length, NO_PASID);
    const own = interrupts.allocate(0, "edu", "0000:01:01.0");
    const iommus = interrupts.allocate(0, "iommu0", null);
    if (own === null || iommus === null) throw new Error("no id left");
    expect(send("0000:01:01.0", own.data)).toBe(DMA_OK);
    expect(interrupts.isPending(own)).toBe(true);
    parts.clock.fireDue();
    expect(send("0000:01:01.0", iommus.data)).toBe(DMA_ABORTED);
    expect(send("0000:01:02.0", own.data)).toBe(DMA_ABORTED);
    // Neither an id in nobody's use, nor a longer write that holds an own id.
    expect(send("0000:01:01.0", 77)).toBe(DMA_ABORTED);
    expect(send("0000:01:01.0", own.data, 8)).toBe(DMA_ABORTED);
    expect(send("0000:01:01.0", own.data, 4, 8)).toBe(DMA_ABORTED);
    expect(interrupts.isPending(iommus)).toBe(false);
    expect(memory.store32(iommus.pfn, 0, iommus.data)).toBe(0);
    expect(interrupts.isPending(iommus)).toBe(true);
  });

  it("of an id that nobody uses leave nothing behind for its next owner", () => {
    const { interrupts, memory } = machine();
    memory.store32(DOORBELL, 0, 1);
    const message = interrupts.allocate(0, "edu");
    expect(message?.data).toBe(1);
    expect(message !== null && interrupts.isPending(message)).toBe(false);
  });

  it("merge while pending, and run out of ids at 255 a file", () => {
    const { interrupts, memory, clock } = machine();
    let count = 0;
    const first = interrupts.allocate(0, "x");
    if (first === null) throw new Error("no id left");
    interrupts.setHandler(first, () => count++);
    memory.store32(first.pfn, 0, first.data);
    clock.fireDue();
    expect(count).toBe(1);
    for (let i = 0; i < 5; i++) memory.store32(first.pfn, 0, first.data);
    memory.store32(first.pfn, 4, first.data);
    memory.store32(first.pfn, 0, 0);
    memory.store32(first.pfn, 0, 0xffffffff);
    clock.fireDue();
    expect(count).toBe(2);
    for (let i = 0; i < 254; i++) expect(interrupts.allocate(0, "x")).not.toBeNull();
    expect(interrupts.allocate(0, "x")).toBeNull();
    expect(interrupts.allocate(1, "x")).not.toBeNull();
  });

  it("are traced as a dma event with result msi that causes the irq event, which causes what the handler does", () => {
    const parts = machine();
    const { base, message } = withMessage(parts);
    const events: TracedEvent[] = [];
    parts.trace.addSink({ event: (event) => events.push(event) });
    parts.interrupts.setHandler(message, () =>
      parts.trace.emit({ type: "irq", where: "vfio", source: "handler", vector: 0 }),
    );
    parts.root.mmioWrite(base + R.INTERRUPT_RAISE, 4, 1, 0);
    parts.clock.fireDue();
    const [dma, irq, handled] = events;
    expect(dma).toMatchObject({ type: "dma", device: "0000:01:01.0", result: "msi", write: true, length: 4 });
    expect(dma).toMatchObject({ iova: BigInt(message.pfn) << 12n, spa: BigInt(message.pfn) << 12n });
    expect(irq).toMatchObject({ type: "irq", where: "host", source: "edu", vector: message.data, cause: dma?.seq });
    expect(handled?.cause).toBe(irq?.seq);
  });

  it("that the IOMMU stores itself count as done", () => {
    const parts = machine();
    parts.iommu.consumes = 0x55;
    const { edu } = pluggedEdu(parts);
    const { iommu, memory, trace } = parts;
    const dma = new FunctionDma({ function: edu, name: "edu", deviceId: 9, iommu, memory, trace });
    expect(dma.write(0x55, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_OK);
  });
});

describe("a transaction that the IOMMU", () => {
  it("completes without memory reads as zeros and writes nothing; one that stalls is refused to a function", () => {
    const parts = machine();
    parts.iommu.discards = 0x55;
    parts.iommu.stalls = 0x56;
    const { edu } = pluggedEdu(parts);
    const { iommu, memory, trace } = parts;
    const dma = new FunctionDma({ function: edu, name: "edu", deviceId: 9, iommu, memory, trace });
    const bytes = new Uint8Array(8).fill(7);
    expect(dma.write(0x55, 0, bytes, 0, 8, NO_PASID)).toBe(DMA_OK);
    expect(dma.read(0x55, 0, bytes, 2, 4, NO_PASID)).toBe(DMA_OK);
    expect([...bytes]).toEqual([7, 7, 0, 0, 0, 0, 7, 7]);
    expect(dma.read(0x56, 0, bytes, 0, 8, NO_PASID)).toBe(DMA_ABORTED);
  });
});

describe("the dma trace event", () => {
  it("names IOVA and physical address of a transfer, and none where it was refused", () => {
    const parts = machine();
    parts.iommu.map = (pfn) => (pfn === 0x10 ? RAM : undefined);
    const { base } = pluggedEdu(parts);
    const events: TracedEvent[] = [];
    parts.trace.addSink({ event: (event) => events.push(event) });
    eduToRam(parts, base, 0x10fc0, 128);
    parts.run(2_000);
    expect(events[0]).toMatchObject({ iova: 0x10fc0n, spa: 0x80000fc0n, length: 64, write: true, result: "ok" });
    expect(events[0]).not.toHaveProperty("pasid");
    expect(events[1]).toMatchObject({ iova: 0x11000n, result: "aborted" });
    expect(events[1]).not.toHaveProperty("spa");
  });
});

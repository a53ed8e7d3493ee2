// Interrupts of component machines as guest-fixtures/wit/guest.wit promises them (interface interrupts, interface time).

import { describe, expect, it } from "vitest";
import type { GpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { PhysicalMemory } from "../../host/base/memory.ts";
import { Trace, type TracedEvent } from "../../host/base/trace.ts";
import { ComponentInterrupts } from "../../vmm/component-interrupts.ts";
import { MSI_BASE } from "../../vmm/memory-map.ts";

describe("interrupts of a component machine", () => {
  it("nothing pending gives -1", () => {
    expect(new ComponentInterrupts(new Clock()).take()).toBe(-1);
  });

  it("a message is taken once", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    interrupts.raise(700);
    expect([interrupts.take(), interrupts.take()]).toEqual([700, -1]);
  });

  it("two messages of one number that meet are one", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    interrupts.raise(5);
    interrupts.raise(5);
    expect([interrupts.take(), interrupts.take()]).toEqual([5, -1]);
  });

  it("the lowest pending number comes first, whatever the order of arrival", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    for (const number of [1023, 31, 32, 63, 0, 500]) interrupts.raise(number);
    const taken = Array.from({ length: 7 }, () => interrupts.take());
    expect(taken).toEqual([0, 31, 32, 63, 500, 1023, -1]);
  });

  it("a wire stays pending while it is asserted", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    interrupts.setWire(9, true);
    expect([interrupts.take(), interrupts.take()]).toEqual([9, 9]);
    interrupts.setWire(9, false);
    expect(interrupts.take()).toBe(-1);
  });

  it("a wire that falls before it is taken was never pending", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    interrupts.setWire(31, true);
    interrupts.setWire(31, false);
    expect(interrupts.take()).toBe(-1);
  });

  it("numbers past 1023 are dropped", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    interrupts.raise(1024);
    interrupts.raise(0xffff_ffff);
    interrupts.setWire(1024, true);
    expect(interrupts.take()).toBe(-1);
  });

  it("a DMA store to the MSI page is a message", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    const memory = new PhysicalMemory<GpaPfn>();
    memory.addStoreTarget((MSI_BASE >>> 12) as GpaPfn, interrupts);
    memory.store32((MSI_BASE >>> 12) as GpaPfn, 0, 42);
    expect(interrupts.take()).toBe(42);
  });

  it("a 32-bit store on the bus is a message, other sizes are not", () => {
    const interrupts = new ComponentInterrupts(new Clock());
    interrupts.mmioWrite(0, 8, 1, 0);
    interrupts.mmioWrite(0, 2, 2, 0);
    interrupts.mmioWrite(0, 4, 3, 0);
    expect([interrupts.take(), interrupts.take()]).toEqual([3, -1]);
  });

  it("an alarm raises its number when its time comes", () => {
    const clock = new Clock();
    const interrupts = new ComponentInterrupts(clock);
    interrupts.setAlarm(100, 64);
    clock.advance(99);
    clock.fireDue();
    expect(interrupts.take()).toBe(-1);
    clock.advance(1);
    clock.fireDue();
    expect(interrupts.take()).toBe(64);
  });

  it("a second alarm replaces the first", () => {
    const clock = new Clock();
    const interrupts = new ComponentInterrupts(clock);
    interrupts.setAlarm(100, 1);
    interrupts.setAlarm(200, 2);
    clock.advance(1000);
    clock.fireDue();
    expect([interrupts.take(), interrupts.take()]).toEqual([2, -1]);
  });

  it("a taken interrupt is in the trace with its number and kind", () => {
    const clock = new Clock();
    const trace = new Trace(clock);
    const seen: TracedEvent[] = [];
    trace.addSink({ event: (event) => void seen.push(event) });
    const interrupts = new ComponentInterrupts(clock, trace);
    interrupts.raise(40);
    interrupts.setWire(41, true);
    interrupts.take();
    interrupts.take();
    expect(seen).toMatchObject([
      { type: "irq", where: "guest", source: "message", vector: 40 },
      { type: "irq", where: "guest", source: "wire", vector: 41 },
    ]);
  });
});

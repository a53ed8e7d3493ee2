// The GICv2 by IHI 0048B, driven as a CPU's driver does.
import { beforeEach, describe, expect, it } from "vitest";
import { GicV2, VIRTUAL_TIMER } from "../../../vmm/platform/gicv2.ts";
import { GicV2mFrame } from "../../../vmm/platform/gicv2m.ts";

const SPI = 40;
const OTHER = 41;
const SPURIOUS = 1023;

let running: number;
let timer: boolean[];
let irq: boolean[];
let routed: boolean[];
let gic: GicV2;

const distributor = (offset: number, value: number): void => gic.distributor.mmioWrite(offset, 4, value, 0);
const cpu = (offset: number, value: number): void => gic.cpuInterface.mmioWrite(offset, 4, value, 0);
const acknowledge = (): number => gic.cpuInterface.mmioRead(0x0c, 4);
const end = (id: number): void => cpu(0x10, id);

function enable(id: number, priority: number, targets = 1): void {
  distributor(0x100 + Math.floor(id / 32) * 4, 2 ** (id % 32));
  gic.distributor.mmioWrite(0x400 + id, 1, priority, 0);
  gic.distributor.mmioWrite(0x800 + id, 1, targets, 0);
}

function make(cpus: number): void {
  running = 0;
  timer = Array.from({ length: cpus }, () => false);
  irq = Array.from({ length: cpus }, () => false);
  routed = Array.from({ length: cpus }, () => false);
  gic = new GicV2(cpus, 160, {
    running: () => running,
    signal: (target, level, viaTimer) => {
      irq[target] = level;
      routed[target] = viaTimer;
    },
    timerLevel: (target) => timer[target]!,
  });
  distributor(0, 1);
  for (running = cpus - 1; running >= 0; running--) {
    cpu(0x04, 0xf0);
    cpu(0x00, 1);
  }
  running = 0;
}

beforeEach(() => make(2));

describe("GICv2", () => {
  it("says what it is (§4.3.2, §4.4.15)", () => {
    expect(gic.distributor.mmioRead(4, 4)).toBe(4 | (1 << 5));
    expect((gic.distributor.mmioRead(0xfe8, 4) >> 4) & 15).toBe(2);
    expect((gic.cpuInterface.mmioRead(0xfc, 4) >>> 16) & 15).toBe(2);
  });

  it("a level wire is signalled, acknowledged, active, and pending again while it is high", () => {
    enable(SPI, 0xa0);
    gic.setWire(SPI, true);
    expect(irq).toEqual([true, false]);
    expect(acknowledge()).toBe(SPI);
    expect(irq[0]).toBe(false); // active, not signalled
    expect(acknowledge()).toBe(SPURIOUS);
    end(SPI);
    expect(irq[0]).toBe(true);
    gic.setWire(SPI, false);
    expect([irq[0], acknowledge()]).toEqual([false, SPURIOUS]);
  });

  it("an edge is kept until it is acknowledged, and a second one while it is active comes later", () => {
    distributor(0xc00 + Math.floor(SPI / 16) * 4, 2 << ((SPI % 16) * 2));
    enable(SPI, 0xa0);
    gic.setWire(SPI, true);
    gic.setWire(SPI, false);
    expect(acknowledge()).toBe(SPI);
    gic.setWire(SPI, true);
    expect(acknowledge()).toBe(SPURIOUS);
    end(SPI);
    expect(acknowledge()).toBe(SPI);
    end(SPI);
    expect(acknowledge()).toBe(SPURIOUS);
  });

  it("the mask is a threshold, the higher priority comes first and preempts (§3.3)", () => {
    enable(SPI, 0xa0);
    enable(OTHER, 0x40);
    cpu(0x04, 0xa0);
    gic.setWire(SPI, true);
    expect(irq[0]).toBe(false);
    cpu(0x04, 0xf0);
    expect(acknowledge()).toBe(SPI);
    gic.setWire(OTHER, true);
    expect([irq[0], gic.cpuInterface.mmioRead(0x14, 4)]).toEqual([true, 0xa0]);
    expect(acknowledge()).toBe(OTHER);
    expect(gic.cpuInterface.mmioRead(0x14, 4)).toBe(0x40);
    end(OTHER);
    expect(gic.cpuInterface.mmioRead(0x14, 4)).toBe(0xa0);
  });

  it("goes to the CPUs it is targeted at", () => {
    enable(SPI, 0xa0, 2);
    gic.setWire(SPI, true);
    expect(irq).toEqual([false, true]);
    expect(acknowledge()).toBe(SPURIOUS);
    running = 1;
    expect(acknowledge()).toBe(SPI);
  });

  it("SGIs carry who sent them, one from each (§4.3.15)", () => {
    running = 1;
    distributor(0xf00, (1 << 16) | 5); // to CPU 0
    running = 0;
    distributor(0xf00, (2 << 24) | 5); // to itself
    expect(acknowledge()).toBe(5);
    end(5);
    expect(acknowledge()).toBe(5 | (1 << 10));
    end(5 | (1 << 10));
    expect(acknowledge()).toBe(SPURIOUS);
    distributor(0xf00, (1 << 24) | 3); // all but oneself
    expect(irq).toEqual([false, true]);
  });

  it("tells the core whether the virtual timer would be signalled, and leaves its level to it", () => {
    expect(routed).toEqual([false, false]);
    enable(VIRTUAL_TIMER, 0xa0);
    expect(routed).toEqual([true, false]);
    timer[0] = true;
    expect(acknowledge()).toBe(VIRTUAL_TIMER);
    expect(routed[0]).toBe(false);
    end(VIRTUAL_TIMER);
    expect(routed[0]).toBe(true);
    timer[0] = false;
    expect(acknowledge()).toBe(SPURIOUS);
  });

  it("a timer interrupt that software makes pending is signalled whatever the timer's level (§4.3.7)", () => {
    enable(VIRTUAL_TIMER, 0xa0);
    distributor(0x200, 2 ** VIRTUAL_TIMER);
    expect(irq[0]).toBe(true);
    expect(acknowledge()).toBe(VIRTUAL_TIMER);
    end(VIRTUAL_TIMER);
    expect([irq[0], acknowledge()]).toEqual([false, SPURIOUS]);
  });

  it("says that no interrupt runs by the lowest priority there is (§4.4.6)", () => {
    expect(gic.cpuInterface.mmioRead(0x14, 4)).toBe(0xff);
  });

  it("EOImode 1 drops the priority and leaves the interrupt active until DIR (§4.4.5)", () => {
    cpu(0x00, 0x201);
    enable(SPI, 0xa0);
    gic.pulse(SPI);
    expect(acknowledge()).toBe(SPI);
    end(SPI);
    gic.pulse(SPI);
    expect([acknowledge(), gic.cpuInterface.mmioRead(0x14, 4)]).toEqual([SPURIOUS, 0xff]); // §4.4.6: idle
    cpu(0x1000, SPI);
    expect(acknowledge()).toBe(SPI);
  });

  it("nothing is signalled with the distributor or the interface off", () => {
    enable(SPI, 0xa0);
    gic.setWire(SPI, true);
    distributor(0, 0);
    expect(irq[0]).toBe(false);
    distributor(0, 1);
    expect(irq[0]).toBe(true);
    cpu(0, 0);
    expect(irq[0]).toBe(false);
  });

  it("bears any access", () => {
    for (let offset = 0; offset < 0x2000; offset += 4) {
      for (const value of [0, 0xffffffff, 0x12345678]) {
        if (offset < 0x1000) {
          distributor(offset, value);
          gic.distributor.mmioRead(offset, 4);
        }
        cpu(offset, value);
        gic.cpuInterface.mmioRead(offset, 4);
      }
    }
    for (let i = 0; i < 2000; i++) end(i);
    expect(gic.cpuInterface.mmioRead(0xfc, 4)).toBe(0x0202143b);
  });
});

describe("GICv2m", () => {
  it("pulses the interrupts it says it has, and no other", () => {
    const pulses: number[] = [];
    const frame = new GicV2mFrame(128, 32, (id) => pulses.push(id));
    expect(frame.mmioRead(8, 4)).toBe((128 << 16) | 32);
    for (const id of [127, 128, 159, 160, 0xffffffff]) frame.store32(0x40, id);
    frame.store32(0x44, 130);
    expect(pulses).toEqual([128, 159]);
  });
});

// What holds for the configuration space of every model: software cannot break its structure, whatever it writes.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Edu } from "../../../host/devices/edu/edu.ts";
import { MemoryBlockStore } from "../../../host/devices/nvme/block-store.ts";
import { NvmeController } from "../../../host/devices/nvme/controller.ts";
import type { PciFunction } from "../../../host/devices/ports.ts";
import { BenchBus } from "./bench-bus.ts";

const MODELS: readonly [string, () => PciFunction][] = [
  ["edu", () => new Edu()],
  ["edu with all extensions", () => new Edu({ pasidBits: 20, ats: true, pri: true, misbehaviour: true })],
  ["nvme", () => new NvmeController({ store: new MemoryBlockStore(1 << 20) })],
];

/** Capabilities as [offset, id], both lists, walked as software walks them. */
function capabilities(device: PciFunction): [number, number][] {
  const found: [number, number][] = [];
  for (let at = device.configRead(0x34, 1); at !== 0 && found.length < 64; at = device.configRead(at + 1, 1)) {
    found.push([at, device.configRead(at, 1)]);
  }
  for (let at = 0x100; at !== 0 && found.length < 64; at = device.configRead(at, 4) >>> 20) {
    if (device.configRead(at, 4) !== 0) found.push([at, device.configRead(at, 4) & 0xffff]);
  }
  return found;
}

const snapshot = (device: PciFunction) => Array.from({ length: 1024 }, (_, i) => device.configRead(4 * i, 4));

const write = fc.record({
  // Where something is: header, capabilities, the first extended ones; rarely anywhere.
  offset: fc.oneof({ weight: 8, arbitrary: fc.nat(0x15f) }, { weight: 1, arbitrary: fc.nat(4095) }),
  size: fc.constantFrom<1 | 2 | 4>(1, 2, 4),
  value: fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 0xffffffff)),
});

describe.each(MODELS)("configuration space of %s", (_, make) => {
  it("starts as a type 0 header with memory decoding and bus mastering off", () => {
    const device = make();
    expect(device.configRead(0x0e, 1) & 0x7f).toBe(0);
    expect(device.configRead(0x04, 2)).toBe(0);
    for (let index = 0; index < 6; index++) expect(device.barBase(index)).toBe(-1);
  });

  it("lists its capabilities once each, without overlap", () => {
    const found = capabilities(make());
    expect(new Set(found.map(([, id]) => id)).size).toBe(found.length);
    expect(new Set(found.map(([at]) => at)).size).toBe(found.length);
    expect(found.every(([at]) => at % 4 === 0)).toBe(true);
  });

  it("keeps identity, capability lists and everything read-only under any writes, and a reset puts all back", () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 40 }), (writes) => {
        const device = make();
        new BenchBus(device);
        const before = snapshot(device);
        const listed = capabilities(device);
        for (const { offset, size, value } of writes) device.configWrite(offset - (offset % size), size, value);
        expect(capabilities(device)).toEqual(listed);
        for (const at of [0x00, 0x08, 0x2c, 0x34]) expect(device.configRead(at, 4)).toBe(before[at / 4]);
        device.reset();
        expect(snapshot(device)).toEqual(before);
      }),
      { numRuns: 60 },
    );
  });

  it("sizes every BAR to its description, and leaves type bits alone", () => {
    const device = make();
    device.bars.forEach((bar, index) => {
      if (bar === null) return;
      const at = 0x10 + 4 * index;
      const type = device.configRead(at, 4) & 0xf;
      expect(type).toBe((bar.kind === "memory64" ? 4 : 0) | (bar.prefetchable ? 8 : 0));
      device.configWrite(at, 4, 0xffffffff);
      if (bar.kind === "memory64") device.configWrite(at + 4, 4, 0xffffffff);
      const low = device.configRead(at, 4);
      expect(low & 0xf).toBe(type);
      const base = BigInt((low & ~0xf) >>> 0);
      const size =
        bar.kind === "memory64"
          ? (1n << 64n) - ((BigInt(device.configRead(at + 4, 4)) << 32n) | base)
          : (1n << 32n) - base;
      expect(size).toBe(BigInt(bar.size));
    });
  });

  it("reads bytes and words of the same registers as doublewords", () => {
    const device = make();
    for (let at = 0; at < 0x140; at += 4) {
      const whole = device.configRead(at, 4);
      expect(((device.configRead(at + 2, 2) << 16) | device.configRead(at, 2)) >>> 0).toBe(whole);
      expect(device.configRead(at + 1, 1)).toBe((whole >>> 8) & 0xff);
    }
  });
});

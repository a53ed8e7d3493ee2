import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../host/base/address.ts";
import { ACCESS_FAULT, ACCESS_OK, DATA_CORRUPTION, PhysicalMemory } from "../../../host/base/memory.ts";

const pfn = (value: number) => value as HpaPfn;

function memory() {
  const it = new PhysicalMemory<HpaPfn>();
  const first = new ArrayBuffer(3 * 4096);
  it.addBank(pfn(0x100), first, 4096, 8192);
  it.addBank(pfn(0x200), new ArrayBuffer(4096));
  return { it, first };
}

describe("banked physical memory", () => {
  it("shows a window of a larger buffer at its physical base", () => {
    const { it: ram, first } = memory();
    expect(ram.store64(pfn(0x101), 8, 0x11223344, 0x55667788)).toBe(ACCESS_OK);
    expect(new DataView(first).getBigUint64(8192 + 8, true)).toBe(0x5566778811223344n);
  });

  it("answers an access outside every bank with an access fault", () => {
    const { it: ram } = memory();
    expect(ram.load64(pfn(0xff), 0)).toBe(ACCESS_FAULT);
    expect(ram.load64(pfn(0x102), 0)).toBe(ACCESS_FAULT);
    expect(ram.load64(pfn(2 ** 52 - 1), 0)).toBe(ACCESS_FAULT);
    expect(ram.store32(pfn(0x300), 0, 1)).toBe(ACCESS_FAULT);
  });

  it("copies across pages of one bank, all or nothing at its end", () => {
    const { it: ram } = memory();
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => i & 0xff);
    expect(ram.write(pfn(0x100), 4000, bytes, 0, 300)).toBe(ACCESS_OK);
    const back = new Uint8Array(300);
    expect(ram.read(pfn(0x100), 4000, back, 0, 300)).toBe(ACCESS_OK);
    expect(back).toEqual(bytes);
    expect(ram.write(pfn(0x101), 4000, bytes, 0, 300)).toBe(ACCESS_FAULT);
    expect(ram.load32(pfn(0x101), 4000)).toBe(ACCESS_OK);
    expect(ram.lo).toBe(0);
  });

  it("exchanges only when the expectation holds, and says what was there", () => {
    const { it: ram } = memory();
    ram.store64(pfn(0x100), 0, 1, 2);
    expect(ram.compareExchange64(pfn(0x100), 0, 9, 9, 3, 4)).toBe(ACCESS_OK);
    expect([ram.lo, ram.hi]).toEqual([1, 2]);
    expect(ram.compareExchange64(pfn(0x100), 0, 1, 2, 3, 4)).toBe(ACCESS_OK);
    expect([ram.lo, ram.hi]).toEqual([1, 2]);
    ram.load64(pfn(0x100), 0);
    expect([ram.lo, ram.hi]).toEqual([3, 4]);
  });

  it("stores an entry of a queue as four words, through the faults and devices that stand there", () => {
    const { it: ram } = memory();
    const entry = new Uint8Array(16);
    const stores: [number, number][] = [];
    expect(ram.storeEntry(pfn(0x101), 32, -1, 2, 0x80000000 | 0, 4)).toBe(ACCESS_OK);
    ram.read(pfn(0x101), 32, entry, 0, 16);
    expect([...new Uint32Array(entry.buffer)]).toEqual([0xffffffff, 2, 0x80000000, 4]);
    expect(ram.storeEntry(pfn(0x300), 0, 1, 2, 3, 4)).toBe(ACCESS_FAULT);
    ram.addStoreTarget(pfn(0x300), { store32: (offset, value) => stores.push([offset, value]) });
    expect(ram.storeEntry(pfn(0x300), 16, -1, 2, 3, 4)).toBe(ACCESS_OK);
    expect(stores).toEqual([
      [16, 0xffffffff],
      [20, 2],
      [24, 3],
      [28, 4],
    ]);
    ram.faults = { at: (_pfn, offset) => (offset === 40 ? DATA_CORRUPTION : ACCESS_OK) };
    expect(ram.storeEntry(pfn(0x101), 32, 5, 6, 7, 8)).toBe(DATA_CORRUPTION);
    ram.faults = null;
    ram.read(pfn(0x101), 32, entry, 0, 16);
    expect([...new Uint32Array(entry.buffer)]).toEqual([5, 6, 0x80000000, 4]);
  });

  it("returns unsigned halves", () => {
    const { it: ram } = memory();
    ram.store64(pfn(0x100), 0, -1, -1);
    ram.load64(pfn(0x100), 0);
    expect([ram.lo, ram.hi]).toEqual([0xffffffff, 0xffffffff]);
  });

  it("hands 4-byte stores at a device page to the device, also as DMA bytes, and reads zero there", () => {
    const { it: ram } = memory();
    const stores: [number, number][] = [];
    ram.addStoreTarget(pfn(0x500), { store32: (offset, value) => stores.push([offset, value]) });
    ram.store32(pfn(0x500), 4, -1);
    ram.write(pfn(0x500), 0, Uint8Array.of(0x78, 0x56, 0x34, 0x12), 0, 4);
    expect(stores).toEqual([
      [4, 0xffffffff],
      [0, 0x12345678],
    ]);
    expect(ram.load32(pfn(0x500), 0)).toBe(ACCESS_OK);
    expect(ram.lo).toBe(0);
  });

  it("reports injected faults and changes nothing then", () => {
    const { it: ram } = memory();
    ram.faults = {
      at: (_page, offset, _length, store) => (offset === 8 ? (store ? ACCESS_FAULT : DATA_CORRUPTION) : ACCESS_OK),
    };
    expect(ram.load64(pfn(0x100), 8)).toBe(DATA_CORRUPTION);
    expect(ram.store64(pfn(0x100), 8, 5, 5)).toBe(ACCESS_FAULT);
    ram.faults = null;
    ram.load64(pfn(0x100), 8);
    expect(ram.lo).toBe(0);
  });

  it("refuses overlapping and misaligned banks as bugs of whoever adds them", () => {
    const { it: ram } = memory();
    expect(() => ram.addBank(pfn(0x101), new ArrayBuffer(4096))).toThrow(RangeError);
    expect(() => ram.addBank(pfn(0x900), new ArrayBuffer(100))).toThrow(RangeError);
  });
});

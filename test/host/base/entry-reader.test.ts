import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../host/base/address.ts";
import { EntryReader } from "../../../host/base/entry-reader.ts";
import { ACCESS_FAULT, ACCESS_OK, DATA_CORRUPTION, PhysicalMemory } from "../../../host/base/memory.ts";

const BASE = 0x80000 as HpaPfn;
const at = (page: number) => (BASE + page) as HpaPfn;

function machine() {
  const memory = new PhysicalMemory<HpaPfn>();
  const buffer = new ArrayBuffer(2 * 4096);
  memory.addBank(BASE, buffer);
  new Uint32Array(buffer).forEach((_, index, words) => {
    words[index] = 0x8000_0000 + index;
  });
  const reader = new EntryReader(memory);
  const words = () => [reader.w0, reader.w1, reader.w2, reader.w3].map((word) => word >>> 0);
  return { memory, reader, words };
}

describe("entries of a queue", () => {
  it("are four words, wherever in memory they stand", () => {
    const { reader, words } = machine();
    for (const [page, offset] of [
      [0, 0],
      [0, 4080],
      [1, 16],
      [1, 0],
    ] as const) {
      expect(reader.load(at(page), offset)).toBe(ACCESS_OK);
      const first = 0x8000_0000 + page * 1024 + offset / 4;
      expect(words()).toEqual([first, first + 1, first + 2, first + 3]);
    }
    expect(reader.load(at(2), 0)).toBe(ACCESS_FAULT);
    expect(reader.load((BASE - 1) as HpaPfn, 0)).toBe(ACCESS_FAULT);
  });

  it("are found as a run where all of it stands in one piece of memory", () => {
    const { memory, reader } = machine();
    for (const [page, offset, count] of [
      [0, 0, 512],
      [0, 4080, 257],
      [1, 16, 255],
    ] as const) {
      const first = reader.find(at(page), offset, count);
      expect(reader.words[first]! >>> 0).toBe(0x8000_0000 + page * 1024 + offset / 4);
    }
    expect(reader.find(at(1), 16, 256)).toBe(-1);
    expect(reader.find(at(2), 0, 1)).toBe(-1);
    memory.addBank(at(2), new ArrayBuffer(4096));
    expect(reader.find(at(1), 16, 256)).toBe(-1);
    const moved = reader.find(at(2), 0, 256);
    expect(reader.words[moved]).toBe(0);
    memory.faults = { at: () => ACCESS_OK };
    expect(reader.find(at(0), 0, 1)).toBe(-1);
  });

  it("meet faults that are injected after they have been read, in either half", () => {
    const { memory, reader, words } = machine();
    reader.load(at(0), 16);
    memory.faults = {
      at: (_pfn, offset) => (offset === 24 ? DATA_CORRUPTION : offset === 0 ? ACCESS_FAULT : ACCESS_OK),
    };
    expect(reader.load(at(0), 0)).toBe(ACCESS_FAULT);
    expect(reader.load(at(0), 16)).toBe(DATA_CORRUPTION);
    expect(reader.load(at(0), 32)).toBe(ACCESS_OK);
    expect(words()[0]).toBe(0x8000_0008);
    memory.faults = null;
    expect(reader.load(at(0), 0)).toBe(ACCESS_OK);
  });

  it("are not read from memory that is gone or has been exchanged", () => {
    const { memory, reader, words } = machine();
    reader.load(at(0), 0);
    memory.removeBank(BASE);
    expect(reader.load(at(0), 0)).toBe(ACCESS_FAULT);
    memory.addBank(BASE, new ArrayBuffer(4096));
    expect(reader.load(at(0), 0)).toBe(ACCESS_OK);
    expect(words()).toEqual([0, 0, 0, 0]);
  });
});

import { describe, expect, it } from "vitest";
import { UserBatch } from "../../../../host/kernel/iommufd/user-copy.ts";
import { E2BIG, EFAULT } from "../../../../host/uapi/errno.ts";
import { MockHost } from "./mock-host.ts";

const PAGE = 4096;

/** Entries of `length` bytes in a process's memory: entry n is filled with the byte n + 1. */
function batchOf(length: number, count: number, pages = Math.ceil((length * count) / PAGE)) {
  const { memory } = new MockHost().process().process;
  const va = memory.allocate(pages * PAGE);
  const bytes = memory.bytes(va, pages * PAGE);
  for (let entry = 0; entry < count; entry++) bytes.fill(entry + 1, entry * length, (entry + 1) * length);
  const batch = new UserBatch();
  batch.begin(memory, 0, va, length, count);
  return { batch, bytes };
}

const word = (byte: number): number => Math.imul(byte, 0x01010101);

describe("a batch of entries from user space", () => {
  it("comes in one run where entries have the length that is asked for", () => {
    const { batch } = batchOf(16, 3);
    expect(batch.load(0, 16)).toBe(3);
    expect([...batch.words.subarray(0, 12)]).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3].map(word));
    expect(batch.load(2, 16)).toBe(1);
    expect(batch.words[0]).toBe(word(3));
  });

  it("has zeros for what shorter entries do not say", () => {
    const { batch } = batchOf(8, 3);
    expect(batch.load(0, 16)).toBe(3);
    expect([...batch.words.subarray(0, 12)]).toEqual([1, 1, 0, 0, 2, 2, 0, 0, 3, 3, 0, 0].map(word));
    expect(batch.load(1, 12)).toBe(2);
    expect([...batch.words.subarray(0, 6)]).toEqual([2, 2, 0, 3, 3, 0].map(word));
  });

  it("ends before the first longer entry that says more than is understood", () => {
    const { batch, bytes } = batchOf(20, 4);
    for (const entry of [0, 1, 3]) bytes.fill(0, entry * 20 + 16, (entry + 1) * 20);
    expect(batch.load(0, 16)).toBe(2);
    expect([...batch.words.subarray(0, 8)]).toEqual([1, 1, 1, 1, 2, 2, 2, 2].map(word));
    expect(batch.load(2, 16)).toBe(-E2BIG);
    expect(batch.load(3, 16)).toBe(1);
    expect(batch.words[0]).toBe(word(4));
  });

  it("comes one by one where not all of it can be read, up to the entry that cannot", () => {
    const { batch } = batchOf(24, 171, 1);
    expect(batch.load(0, 24)).toBe(1);
    expect(batch.load(169, 24)).toBe(1);
    expect(batch.words[0]).toBe(word(170));
    expect(batch.load(170, 24)).toBe(-EFAULT);
  });

  it("of odd entries is read byte by byte", () => {
    const { batch } = batchOf(5, 3);
    expect(batch.load(0, 8)).toBe(3);
    expect([...batch.words.subarray(0, 6)]).toEqual([word(1), 1, word(2), 2, word(3), 3]);
  });

  it("hands out an entry that stays what it was", () => {
    const { batch } = batchOf(16, 2);
    const first = batch.fetch(0, 16);
    batch.load(1, 16);
    expect(first).toEqual(new Uint8Array(16).fill(1));
  });
});

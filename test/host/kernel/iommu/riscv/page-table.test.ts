import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { PhysicalMemory } from "../../../../../host/base/memory.ts";
import { HostFrames } from "../../../../../host/kernel/host-frames.ts";
import { IOMMU_NOEXEC, IOMMU_READ, IOMMU_WRITE } from "../../../../../host/kernel/iommu/driver.ts";
import { PageTable } from "../../../../../host/kernel/iommu/page-table.ts";
import { type RiscvTable, riscvTableShape } from "../../../../../host/kernel/iommu/riscv/table-shape.ts";
import { EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP, ERANGE } from "../../../../../host/uapi/errno.ts";

const RAM = 0x10_0000 as HpaPfn;
const RW = IOMMU_READ | IOMMU_WRITE;
const MEGA = 512;
const GIGA = 512 * 512;

function table(shape: Partial<RiscvTable> = {}, ramPages = 512) {
  const memory = new PhysicalMemory<HpaPfn>();
  memory.addBank(RAM, new ArrayBuffer(ramPages * 4096));
  const frames = new HostFrames(memory, { base: RAM, pages: ramPages });
  let alive = 0;
  const accounting = { created: () => alive++, destroyed: () => alive--, fails: () => false };
  const made = PageTable.create(
    riscvTableShape({ levels: 4, secondStage: true, tracksDirty: false, physicalBits: 56, ...shape }),
    frames,
    accounting,
  );
  if (typeof made === "number") throw new Error(`no table: ${made}`);
  return { table: made, frames, memory, alive: () => alive };
}

/** Leaves of [input, +pages) read from memory by the specification's own walk: [level, low half]. */
function leafAt({ table: t, memory }: ReturnType<typeof table>, input: number): { level: number; lo: number } | null {
  let frame: number = t.root;
  for (let level = t.shape.levels - 1; level >= 0; level--) {
    const index = Math.floor(input / 512 ** level) % (level === t.shape.levels - 1 ? 2048 : 512);
    memory.load64((frame + Math.floor(index / 512)) as HpaPfn, (index % 512) * 8);
    const { lo, hi } = memory;
    if ((lo & 1) === 0) return null;
    if ((lo & 0xe) !== 0) return { level, lo };
    frame = (lo >>> 10) + hi * 2 ** 22;
  }
  return null;
}

describe("a page table", () => {
  it("uses the largest leaf that address, frame and length allow", () => {
    const parts = table();
    const { table: t } = parts;
    expect(t.map(GIGA, 4 * GIGA, GIGA, RW)).toBe(0);
    expect(leafAt(parts, GIGA + 5)?.level).toBe(2);
    expect(t.map(0, 8 * GIGA, 3 * MEGA + 1, RW)).toBe(0);
    expect([leafAt(parts, 0)?.level, leafAt(parts, 2 * MEGA)?.level, leafAt(parts, 3 * MEGA)?.level]).toEqual([
      1, 1, 0,
    ]);
    // A frame out of step with the address leaves only small leaves.
    expect(t.map(3 * GIGA, 9 * GIGA + 1, MEGA, RW)).toBe(0);
    expect(leafAt(parts, 3 * GIGA)?.level).toBe(0);
  });

  it("maps a gigabyte out of step with its frames with a table for every 512 pages", () => {
    const parts = table({}, 2048);
    expect(parts.table.map(0, 1, GIGA, RW)).toBe(0);
    expect(parts.table.tables).toBeLessThanOrEqual(512 + 3);
  });

  it("maps an aligned gigabyte with the tables of its path only, and with few stores", () => {
    const parts = table();
    let stores = 0;
    parts.memory.onStore = () => stores++;
    expect(parts.table.map(GIGA, GIGA * 3 + MEGA, GIGA, RW)).toBe(0);
    expect(parts.table.tables).toBe(3);
    expect(stores).toBeLessThanOrEqual(GIGA / MEGA + 8);
  });

  // Privileged specification, Sv39: V 0, R 1, W 2, X 3, U 4, A 6, D 7; W without R is reserved.
  it.each([
    ["read", IOMMU_READ, 0b0101_1011],
    ["read and write", RW, 0b1101_1111],
    ["write only", IOMMU_WRITE, 0b1101_1111],
    ["neither, as Linux has it: execute only", 0, 0b0101_1001],
    ["no execute", RW | IOMMU_NOEXEC, 0b1101_0111],
  ])("writes leaves for %s", (_name, prot, bits) => {
    const parts = table();
    parts.table.map(5, 9, 1, prot);
    expect(leafAt(parts, 5)!.lo & 0x3ff).toBe(bits);
  });

  it("refuses what is mapped, what is outside, and what grants nothing, and changes nothing", () => {
    const parts = table();
    const { table: t } = parts;
    expect(t.map(10, 100, 4, RW)).toBe(0);
    expect(t.map(8, 200, 4, RW)).toBe(-EADDRINUSE);
    expect([t.lookup(8), t.lookup(9), t.lookup(10)]).toEqual([-1, -1, 100]);
    expect(t.map(t.inputPages - 1, 0, 2, RW)).toBe(-EINVAL);
    expect(t.map(0, 0, 1, IOMMU_NOEXEC)).toBe(-EOPNOTSUPP);
    t.unmap(0, t.inputPages);
    t.sync();
    expect(t.tables).toBe(1);
    const narrow = table({ physicalBits: 32 }).table;
    expect(narrow.map(0, 2 ** 20, 1, RW)).toBe(-ERANGE);
    expect(narrow.map(0, 2 ** 20 - 1, 1, RW)).toBe(0);
  });

  it("gives back all of a map that runs out of memory half-way", () => {
    const parts = table({}, 16);
    const used = parts.frames.usedPages;
    expect(parts.table.map(0, 1, 20 * MEGA, RW)).toBe(-ENOMEM);
    expect(parts.frames.usedPages).toBe(used);
    expect(parts.table.lookup(0)).toBe(-1);
  });

  it("keeps tables taken out until the domain has invalidated", () => {
    const parts = table();
    parts.table.map(0, 1, 4, RW);
    const used = parts.frames.usedPages;
    expect(parts.table.unmap(0, 4)).toBe(4);
    expect(parts.table.hasTakenOut).toBe(true);
    expect(parts.frames.usedPages).toBe(used);
    parts.table.sync();
    expect(parts.frames.usedPages).toBeLessThan(used);
  });

  it("splits a large leaf that is unmapped in part; the rest maps as before, dirty bits included", () => {
    const parts = table({ tracksDirty: true });
    const { table: t, memory } = parts;
    t.map(0, 7 * MEGA, MEGA, RW);
    // The hardware wrote through it.
    const at = (frame: number, index: number) => {
      memory.load64(frame as HpaPfn, index * 8);
      return [memory.lo, memory.hi] as const;
    };
    let frame: number = t.root;
    for (let level = 3; level > 1; level--) {
      const [lo, hi] = at(frame, 0);
      frame = (lo >>> 10) + hi * 2 ** 22;
    }
    const [lo, hi] = at(frame, 0);
    memory.store64(frame as HpaPfn, 0, lo | 0x80, hi);
    expect(t.unmap(100, 1)).toBe(1);
    expect([t.lookup(99), t.lookup(100), t.lookup(101)]).toEqual([7 * MEGA + 99, -1, 7 * MEGA + 101]);
    const dirty: number[] = [];
    t.readDirty(98, 4, true, (first, pages) => dirty.push(first, pages));
    expect(dirty).toEqual([98, 1, 99, 1, 101, 1]);
  });

  it.each([
    [3, true],
    [4, true],
    [5, true],
    [3, false],
    [5, false],
  ])(
    "of %s levels (second stage: %s) holds what a plain map holds, through any maps and unmaps",
    (levels, secondStage) => {
      const step = fc.record({
        map: fc.boolean(),
        input: fc.oneof(fc.nat(40), fc.nat(4 * MEGA), fc.constantFrom(GIGA - 3, GIGA, MEGA, 3 * MEGA - 1)),
        pages: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(MEGA, MEGA + 1, 2 * MEGA, GIGA)),
        skew: fc.constantFrom(0, 0, 1, MEGA),
      });
      fc.assert(
        fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
          const parts = table({ levels, secondStage }, 4096);
          const { table: t } = parts;
          // Runs of the model: disjoint [input, pages, output].
          let model: [number, number, number][] = [];
          for (const { map, input, pages, skew } of steps) {
            const overlaps = model.some(([at, count]) => at < input + pages && input < at + count);
            if (map) {
              const output = 16 * GIGA + input + skew;
              expect(t.map(input, output, pages, RW)).toBe(overlaps ? -EADDRINUSE : 0);
              if (!overlaps) model.push([input, pages, output]);
            } else {
              const covered = model.map(([at, count]) => Math.min(at + count, input + pages) - Math.max(at, input));
              expect(t.unmap(input, pages)).toBe(covered.reduce((sum, count) => sum + Math.max(0, count), 0));
              model = model.flatMap(([at, count, output]) => {
                const left = Math.min(count, Math.max(0, input - at));
                const right = Math.min(count, Math.max(0, at + count - (input + pages)));
                if (left + right >= count) return [[at, count, output]];
                const rest: [number, number, number][] = [];
                if (left > 0) rest.push([at, left, output]);
                if (right > 0) rest.push([at + count - right, right, output + count - right]);
                return rest;
              });
              t.sync();
            }
            const probes = model.flatMap(([at, count]) => [at - 1, at, at + count - 1, at + count]);
            for (const probe of [...probes, input, input + pages - 1]) {
              const run = model.find(([at, count]) => probe >= at && probe < at + count);
              expect(t.lookup(probe)).toBe(run === undefined ? -1 : run[2] + probe - run[0]);
            }
          }
          t.unmap(0, t.inputPages);
          t.sync();
          expect(t.tables).toBe(1);
          t.free();
          expect(parts.alive()).toBe(0);
          expect(parts.frames.usedPages).toBe(0);
        }),
        { numRuns: 60 },
      );
    },
  );
});

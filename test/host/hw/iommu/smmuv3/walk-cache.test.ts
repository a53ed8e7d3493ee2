// Pointers to translation tables that are remembered (§3.17): used until a command without the Leaf hint, or of a whole space, drops them.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../../../host/base/trace.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import { CONTEXT, type Fields, Machine, S2_RW, SECOND_STAGE, USER_RW } from "./machine.ts";

const BITS = 0xffff_ffff_f000n;

/**
 * Stream 1, four levels of stage 1 over three of stage 2 (IPA = PA): pages of a 2 MiB block in one last-level table, each to the frame of its own number.
 * `swap` leads the pointer to that table to another one, where pages go 0x100 frames further. Stream 2 goes through stage 2 alone.
 */
const build = (options: Smmuv3Options = {}) => {
  const machine = new Machine(options);
  machine.start();
  const root2 = machine.allocate(2);
  for (let i = 0; i < 2048; i++) machine.map(root2, 0x80000 + i, 0x80000 + i, S2_RW, { startLevel: 1 });
  const roots = [machine.allocate(), machine.allocate()];
  const contexts = machine.makeContextTable();
  machine.setContext(contexts, 0, { ...CONTEXT, TTB0: roots[0]! * 256 });
  machine.setStream(1, { ...SECOND_STAGE, Config: 7, S2TTB: root2 * 256, S1ContextPtr: contexts * 64 });
  machine.setStream(2, { ...SECOND_STAGE, Config: 6, S2TTB: root2 * 256 });
  for (let i = 0; i < 16; i++) {
    machine.map(roots[0]!, 0x10 + i, 0x80400 + i, USER_RW);
    machine.map(roots[1]!, 0x10 + i, 0x80500 + i, USER_RW);
  }
  const below = (frame: number): number => Number((machine.load(frame, 0) & BITS) >> 12n);
  const swap = () => machine.store(below(below(roots[0]!)), 0, machine.load(below(below(roots[1]!)), 0));
  const frameOf = (pfn: number, sid = 1): number | null => {
    const address = machine.request(sid, BigInt(pfn) << 12n);
    return address === null ? null : Number(address >> 12n);
  };
  return { machine, swap, frameOf, root2 };
};

describe("a remembered pointer of stage 1", () => {
  const commands: readonly [string, Parameters<Machine["command"]>[0], Fields, boolean][] = [
    ["stays under NH_VA of leaves", "TLBI_NH_VA", { VMID: 1, ASID: 1, Leaf: 1, Address: 0x10 }, true],
    ["goes with NH_VA without Leaf", "TLBI_NH_VA", { VMID: 1, ASID: 1, Leaf: 0, Address: 0x1f0 }, false],
    ["stays under NH_VA beside it", "TLBI_NH_VA", { VMID: 1, ASID: 1, Leaf: 0, Address: 0x200 }, true],
    ["stays under NH_VA of another ASID", "TLBI_NH_VA", { VMID: 1, ASID: 2, Leaf: 0, Address: 0x10 }, true],
    ["goes with NH_VAA without Leaf", "TLBI_NH_VAA", { VMID: 1, Leaf: 0, Address: 0x10 }, false],
    ["goes with its ASID", "TLBI_NH_ASID", { VMID: 1, ASID: 1 }, false],
    ["stays with another ASID", "TLBI_NH_ASID", { VMID: 1, ASID: 2 }, true],
    ["goes with its VMID", "TLBI_NH_ALL", { VMID: 1 }, false],
    ["stays with another VMID", "TLBI_NH_ALL", { VMID: 2 }, true],
    ["goes with both stages of its VMID", "TLBI_S12_VMALL", { VMID: 1 }, false],
    ["goes with everything", "TLBI_NSNH_ALL", {}, false],
    ["stays under S2_IPA: it combines both stages", "TLBI_S2_IPA", { VMID: 1, Leaf: 0, Address: 0x80400 }, true],
    ["stays when contexts are invalidated", "CFGI_STE", { SID: 1, Leaf: 1 }, true],
  ];
  for (const [name, command, fields, stays] of commands) {
    it(name, () => {
      const { machine, swap, frameOf } = build();
      expect(frameOf(0x10)).toBe(0x80400);
      swap();
      machine.command(command, fields);
      expect(frameOf(0x11)).toBe(stays ? 0x80401 : 0x80501);
    });
  }

  it("is not there with caches.tables = 0", () => {
    const { swap, frameOf } = build({ caches: { tables: 0 } });
    frameOf(0x10);
    swap();
    expect(frameOf(0x11)).toBe(0x80501);
  });
});

describe("a remembered pointer of stage 2", () => {
  it.each([
    ["stays under S2_IPA of leaves", "TLBI_S2_IPA", { VMID: 1, Leaf: 1, Address: 0x80401 }, true],
    ["goes with S2_IPA without Leaf", "TLBI_S2_IPA", { VMID: 1, Leaf: 0, Address: 0x80401 }, false],
    ["stays under S2_IPA beside it", "TLBI_S2_IPA", { VMID: 1, Leaf: 0, Address: 0x80800 }, true],
    ["stays under NH_ALL, which is stage 1's", "TLBI_NH_ALL", { VMID: 1 }, true],
    ["goes with its VMID's both stages", "TLBI_S12_VMALL", { VMID: 1 }, false],
  ] as const)("%s", (_, command, fields, stays) => {
    const { machine, root2, frameOf } = build();
    expect(frameOf(0x80400, 2)).toBe(0x80400);
    const table = machine.allocate();
    for (let i = 0; i < 512; i++) machine.store(table, 8 * i, (BigInt(0x80500 + i) << 12n) | S2_RW | 3n);
    const upper = Number((machine.load(root2, 8 * 2) & BITS) >> 12n);
    machine.store(upper, 8 * 2, (BigInt(table) << 12n) | 3n);
    machine.command(command, fields);
    expect(frameOf(0x80401, 2)).toBe(stays ? 0x80401 : 0x80501);
  });
});

describe("a traced walk", () => {
  const traced = (options: Smmuv3Options = {}) => {
    const { machine, frameOf } = build(options);
    const events: TracedEvent[] = [];
    machine.trace.addSink({ event: (event) => events.push(event) });
    const steps = (pfn: number): string[] => {
      events.length = 0;
      frameOf(pfn);
      return events.flatMap((event) =>
        event.type === "walk" ? [`${event.table} ${event.level}${event.cached ? " cached" : ""}`] : [],
      );
    };
    return { machine, steps };
  };

  it("is whole the first time; the second one begins at what is remembered, and says so", () => {
    const { steps } = traced();
    const first = steps(0x10);
    expect(first.filter((step) => step.endsWith("cached"))).toEqual([]);
    // Context descriptor, four tables and the address itself, each behind three levels.
    expect(first.filter((step) => step.startsWith("stage2"))).toHaveLength(18);
    expect(steps(0x11)).toEqual(["stage1 2 cached", "stage1 3", "stage2 2 cached", "stage2 3"]);
  });

  it("is the same step by step as at once", () => {
    const [plain, careful] = [traced(), traced()].map(({ machine, steps }, which) => {
      if (which === 1) machine.inject(0x80000 + 4000, 0);
      return [0x10, 0x11, 0x12].map(steps);
    });
    expect(careful).toEqual(plain);
  });
});

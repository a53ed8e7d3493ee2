// Pointers to page tables that are remembered (§3.8): used until a command drops them, seen in traces and counters.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../../../host/base/trace.ts";
import type { RiscvIommuOptions } from "../../../../../host/hw/iommu/riscv/options.ts";
import { type Fields, G, Machine, USER_RW, USER_RWX, V } from "./machine.ts";

/**
 * Device 1, Sv39 over Sv39x4: IOVAs of a 2 MiB block in one last-level table, each page to the frame of its own number. `swap` leads the pointer to
 * that table to another one, where pages go 0x100 frames further.
 */
const build = (options: RiscvIommuOptions = {}) => {
  const machine = new Machine(options, 2048);
  machine.enableFaultQueue();
  machine.enableCommandQueue();
  machine.useDirectory(1);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3, USER_RWX);
  const root = machine.makeRoot();
  const other = machine.makeRoot();
  for (let i = 0; i < 16; i++) {
    machine.map(root, 3, 0x10 + i, 0x80400 + i, USER_RW);
    machine.map(other, 3, 0x10 + i, 0x80500 + i, USER_RW);
  }
  machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root, PSCID: 5, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: 1 });
  const pointer = (from: number) => {
    const upper = Number((machine.load(from, 0) >> 10n) & 0xfffffffffffn);
    return { frame: upper, offset: 0 };
  };
  const swap = () => {
    const place = pointer(root);
    const next = pointer(other);
    machine.store(place.frame, place.offset, machine.load(next.frame, next.offset));
  };
  const frameOf = (pfn: number): number | null => {
    const address = machine.request(1, BigInt(pfn) << 12n);
    return address === null ? null : Number(address >> 12n);
  };
  return { machine, swap, frameOf, root, guest, pointer };
};

describe("a remembered pointer of the first stage", () => {
  it("is used for pages that were never asked for, whatever memory says by now", () => {
    const { swap, frameOf } = build();
    expect(frameOf(0x10)).toBe(0x80400);
    swap();
    expect(frameOf(0x11)).toBe(0x80401);
  });

  const commands: readonly [string, "IOTINVAL.VMA" | "IOTINVAL.GVMA" | "IODIR.INVAL_DDT", Fields, boolean][] = [
    ["stays when a page's leaf is invalidated", "IOTINVAL.VMA", { GV: 1, GSCID: 1, AV: 1, ADDR: 0x10 }, true],
    ["goes with NL, by any address below it", "IOTINVAL.VMA", { GV: 1, GSCID: 1, AV: 1, NL: 1, ADDR: 0x1f0 }, false],
    [
      "goes with NL and its PSCID",
      "IOTINVAL.VMA",
      { GV: 1, GSCID: 1, PSCV: 1, PSCID: 5, AV: 1, NL: 1, ADDR: 0x10 },
      false,
    ],
    ["stays with NL and an address beside it", "IOTINVAL.VMA", { GV: 1, GSCID: 1, AV: 1, NL: 1, ADDR: 0x200 }, true],
    [
      "stays with NL and another PSCID",
      "IOTINVAL.VMA",
      { GV: 1, GSCID: 1, PSCV: 1, PSCID: 6, AV: 1, NL: 1, ADDR: 0x10 },
      true,
    ],
    ["goes with its whole address space", "IOTINVAL.VMA", { GV: 1, GSCID: 1, PSCV: 1, PSCID: 5 }, false],
    ["stays with another", "IOTINVAL.VMA", { GV: 1, GSCID: 1, PSCV: 1, PSCID: 6 }, true],
    ["goes with its machine's second stage, in which its table lies", "IOTINVAL.GVMA", { GV: 1, GSCID: 1 }, false],
    ["stays when contexts are invalidated", "IODIR.INVAL_DDT", {}, true],
  ];
  for (const [name, command, fields, stays] of commands) {
    it(name, () => {
      const { machine, swap, frameOf } = build();
      frameOf(0x10);
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

  it("makes no fault of a page that was not there when it was remembered", () => {
    const { machine, root, frameOf } = build();
    frameOf(0x10);
    machine.map(root, 3, 0x40, 0x80440, USER_RW);
    expect(frameOf(0x40)).toBe(0x80440);
  });

  it("is none if it is global: what lies under it is global whatever its leaf says", () => {
    const { machine, root, pointer, frameOf } = build();
    const place = pointer(root);
    machine.store(place.frame, place.offset, machine.load(place.frame, place.offset) | BigInt(G));
    frameOf(0x10);
    frameOf(0x11);
    // Cached under the global mappings, which PSCV = 1 spares.
    const leaf = machine.map(root, 3, 0x11, 0x80600, USER_RW);
    expect(machine.load(leaf.frame, leaf.offset) & BigInt(V)).toBe(1n);
    machine.command("IOTINVAL.VMA", { GV: 1, GSCID: 1, PSCV: 1, PSCID: 5 });
    expect(frameOf(0x11)).toBe(0x80401);
  });
});

describe("a remembered pointer of the second stage", () => {
  // The last-level table for 2 MiB of guest memory around frame 0x80400.
  const replace = (machine: Machine, guest: number): void => {
    const table = machine.allocate();
    for (let i = 0; i < 512; i++) {
      const frame = BigInt(0x80400 + i + (i < 32 ? 0x100 : 0));
      machine.store(table, 8 * i, (frame << 10n) | BigInt(USER_RWX));
    }
    const upper = Number((machine.load(guest, 8 * 2) >> 10n) & 0xfffffffffffn);
    machine.store(upper, 8 * 2, (BigInt(table) << 10n) | BigInt(V));
  };

  it.each([
    [{ GV: 1, GSCID: 1 }, 0x80501],
    [{ GV: 1, GSCID: 1, AV: 1, NL: 1, ADDR: 0x80401 }, 0x80501],
    [{}, 0x80501],
    [{ GV: 1, GSCID: 2 }, 0x80401],
  ])("goes with IOTINVAL.GVMA %o of its machine, and no other's", (fields, frame) => {
    const { machine, guest, frameOf } = build();
    frameOf(0x10);
    replace(machine, guest);
    expect(frameOf(0x12)).toBe(0x80402);
    machine.command("IOTINVAL.GVMA", fields);
    expect(frameOf(0x11)).toBe(frame);
  });
});

describe("a traced walk", () => {
  const traced = (options: RiscvIommuOptions = {}) => {
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
    return { machine, events, steps };
  };

  it("is whole the first time; the second one begins at what is remembered, and says so", () => {
    const { events, steps } = traced();
    const first = steps(0x10);
    expect(first.filter((step) => step.startsWith("stage2"))).toHaveLength(12);
    expect(first.filter((step) => step.endsWith("cached"))).toEqual([]);
    const pointer = events.find((event) => event.type === "walk" && event.table === "stage1" && event.level === 1);
    expect(steps(0x11)).toEqual(["stage1 1 cached", "stage1 0", "stage2 1 cached", "stage2 0"]);
    // As it was read then: the same entry, from the same place.
    expect(events.find((event) => event.type === "walk" && event.cached)).toMatchObject({
      address: pointer?.type === "walk" ? pointer.address : 0n,
      entry: pointer?.type === "walk" ? pointer.entry : 0n,
    });
  });

  it("is whole every time with caches.tables = 0", () => {
    const { steps } = traced({ caches: { tables: 0 } });
    const first = steps(0x10).slice(1);
    expect(steps(0x11)).toEqual(first);
  });

  it("is the same step by step as at once", () => {
    // An access fault injected far away keeps the walker from looking at memory through a window.
    const [plain, careful] = [traced(), traced()].map(({ machine, steps }, which) => {
      if (which === 1) machine.inject(0x80000 + 2000, 0, 1);
      return [0x10, 0x11, 0x12].map(steps);
    });
    expect(careful).toEqual(plain);
  });
});

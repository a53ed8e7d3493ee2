// An SMMUv3's walks, events and tables in words: what a person reads must be what the hardware did. Walks come from the hardware model, expectations from
// the formats (IHI 0070 §5, §7.3; DDI 0487 D8.3).

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../../host/base/trace.ts";
import { TRACE_VERSION, traceLine } from "../../../../host/base/trace-json.ts";
import { eventProblem } from "../../../../host/base/trace-shape.ts";
import type { WalkFault, WalkStep } from "../../../../vmm/viommu/explainer.ts";
import { SMMUV3_EXPLAINER } from "../../../../vmm/viommu/smmuv3/explainer.ts";
import {
  CONTEXT,
  DBM,
  Machine,
  READ_ONLY,
  S2_RW,
  SECOND_STAGE,
  USER_RW,
  WRITE,
} from "../../../host/hw/iommu/smmuv3/machine.ts";

const SID = 5;
/** First frame of the machine's memory, and of what stage 2 maps one to one in blocks of 2 MiB. */
const MEMORY = 0x80000;

class Nested {
  readonly machine = new Machine({ caches: { streams: 0, contexts: 0, translations: 0, tables: 0 } });
  readonly events: TracedEvent[] = [];
  readonly root: number;
  readonly secondRoot: number;

  constructor(context: Record<string, number> = {}) {
    const { machine } = this;
    machine.start();
    this.secondRoot = machine.allocate(2);
    for (let block = 0; block < 8; block++) {
      const frame = MEMORY + 512 * block;
      machine.map(this.secondRoot, frame, frame, S2_RW, { startLevel: 1, level: 2 });
    }
    this.root = machine.allocate();
    const contexts = machine.makeContextTable();
    machine.setContext(contexts, 0, { ...CONTEXT, TTB0: this.root * 256, ...context });
    const S2TTB = this.secondRoot * 256;
    machine.setStream(SID, { ...SECOND_STAGE, Config: 7, S1ContextPtr: contexts * 64, S2TTB });
    machine.trace.addSink({ event: (event) => this.events.push(event) });
  }

  get steps(): WalkStep[] {
    return this.events.filter((event): event is WalkStep => event.type === "walk");
  }

  get fault(): WalkFault {
    return this.events.find((event): event is WalkFault => event.type === "fault")!;
  }
}

describe("a nested walk's loads", () => {
  it("say what each entry covers and which address its tables are for, and make a trace that is read back", () => {
    const nested = new Nested();
    nested.machine.map(nested.root, 0x1_2345, MEMORY + 0x800, USER_RW);
    nested.machine.request(SID, 0x1_2345_678n);
    const said = nested.steps.map(({ table, level, serves, covers }) => [table, level, serves, covers]);
    // STE; the descriptor through stage 2; four levels, each through stage 2; the address through stage 2.
    expect(said).toEqual([
      ["STE", 0, undefined, undefined],
      ["stage2", 1, undefined, 30],
      ["stage2", 2, undefined, 21],
      ["CD", 0, undefined, undefined],
      ...[0, 1, 2, 3].flatMap((level) => [
        ["stage2", 1, level, 30],
        ["stage2", 2, level, 21],
        ["stage1", level, undefined, 39 - 9 * level],
      ]),
      ["stage2", 1, undefined, 30],
      ["stage2", 2, undefined, 21],
    ]);
    expect(nested.steps.at(-1)).toMatchObject({ input: BigInt(MEMORY + 0x800) << 12n });
    for (const event of nested.events) expect(eventProblem(JSON.parse(traceLine(event)), TRACE_VERSION)).toBeNull();
  });

  it.each([
    ["from its first load", 0],
    ["with configurations cached", 4],
  ])("belong to one walk, and the next walk of the same device begins anew, %s", (_name, cached) => {
    const nested = new Nested();
    nested.machine.map(nested.root, 0x10, MEMORY + 0x800, USER_RW);
    nested.machine.request(SID, 0x10_000n);
    const walk = nested.steps.slice(cached);
    for (let i = 1; i < walk.length; i++)
      expect(SMMUV3_EXPLAINER.beginsAnew(walk.slice(0, i), walk[i]!), `load ${i}`).toBe(false);
    expect(SMMUV3_EXPLAINER.beginsAnew(walk, walk[0]!)).toBe(true);
    // Also behind a walk that stage 1 ended, and one that ended in the middle of stage 2.
    const stage1 = walk.findLastIndex(({ table }) => table === "stage1");
    expect(SMMUV3_EXPLAINER.beginsAnew(walk.slice(0, stage1 + 1), walk[0]!)).toBe(true);
    expect(SMMUV3_EXPLAINER.beginsAnew(walk.slice(0, -1), walk[0]!)).toBe(true);
  });

  it("belong to one walk where hardware marks a descriptor on the way (§3.13)", () => {
    const nested = new Nested({ HA: 1, HD: 1 });
    nested.machine.map(nested.root, 0x10, MEMORY + 0x800, USER_RW | READ_ONLY | DBM);
    nested.machine.request(SID, 0x10_000n, { access: WRITE });
    const walk = nested.steps;
    expect(walk.filter(({ serves }) => serves === 3)).toHaveLength(4);
    for (let i = 1; i < walk.length; i++)
      expect(SMMUV3_EXPLAINER.beginsAnew(walk.slice(0, i), walk[i]!), `load ${i}`).toBe(false);
  });

  it("give the addresses: of the leaf, blocks too; of what stage 2 translated", () => {
    const nested = new Nested();
    nested.machine.map(nested.root, 0x200, MEMORY + 0x800, USER_RW, { level: 2 });
    nested.machine.request(SID, 0x234_567n);
    const leaf = nested.steps.findLast(({ table }) => table === "stage1")!;
    expect(SMMUV3_EXPLAINER.stage1Output(leaf, 0x234_567n)).toBe(0x8083_4567n);
    expect(SMMUV3_EXPLAINER.stage1Output(nested.steps[6]!, 0n)).toBeNull();
    const served = nested.steps.filter(({ serves }) => serves === 0);
    const entry = nested.steps.find(({ table, level }) => table === "stage1" && level === 0)!;
    expect(SMMUV3_EXPLAINER.stage2Input(served, entry.address)).toBe(BigInt(nested.root) << 12n);
  });

  it.each([
    ["16K", { TG0: 2, T0SZ: 17 }, 14, 11, 0x8080_1234n],
    ["64K", { TG0: 1, T0SZ: 22 }, 16, 13, 0x8080_1234n],
  ] as const)("of %s granules, too", (_name, context, granule, stride, output) => {
    const nested = new Nested(context);
    const size = 1 << (granule - 12);
    const root = nested.machine.allocate(size);
    const contexts = nested.machine.makeContextTable();
    nested.machine.setContext(contexts, 0, { ...CONTEXT, TTB0: root * 256, ...context });
    nested.machine.setStream(SID, {
      ...{ ...SECOND_STAGE, Config: 7, S1ContextPtr: contexts * 64, S2TTB: nested.secondRoot * 256 },
    });
    const startLevel = 4 - Math.ceil((64 - context.T0SZ - granule) / stride);
    nested.machine.map(root, 0x40, MEMORY + 0x800, USER_RW, { granule, startLevel });
    nested.machine.request(SID, 0x4_1234n);
    const leaf = nested.steps.findLast(({ table }) => table === "stage1")!;
    expect(leaf).toMatchObject({ level: 3, covers: granule });
    expect(SMMUV3_EXPLAINER.stage1Output(leaf, 0x4_1234n)).toBe(output);
  });
});

describe("what a walk that ended was for", () => {
  it.each([
    ["a stage-1 table", (nested: Nested) => nested.machine.store(nested.root, 0, 0x9000_0003n), 0x9000_0000n, "stage1"],
    [
      "the address that stage 1 gave",
      (nested: Nested) => nested.machine.map(nested.root, 0x10, 0x9_0000, USER_RW),
      0x9000_0000n,
      "final",
    ],
    [
      "a context descriptor",
      (nested: Nested) =>
        nested.machine.setStream(SID, {
          ...SECOND_STAGE,
          Config: 7,
          S1ContextPtr: 0x9_0000 * 64,
          S2TTB: nested.secondRoot * 256,
        }),
      0x9000_0000n,
      "CD",
    ],
    [
      "an upper table of context descriptors",
      (nested: Nested) =>
        nested.machine.setStream(SID, {
          ...{ ...SECOND_STAGE, Config: 7, S2TTB: nested.secondRoot * 256 },
          ...{ S1ContextPtr: 0x9_0000 * 64, S1Fmt: 2, S1CDMax: 12, S1DSS: 2 },
        }),
      0x9000_0000n,
      "L1CD",
    ],
  ])("is told: %s", (_what, damage, address, table) => {
    const nested = new Nested();
    damage(nested);
    nested.machine.request(SID, 0x10_000n, { access: WRITE });
    const before = nested.steps.findLast((step) => step.table !== "stage2") ?? null;
    const last = nested.steps.at(-1)!;
    expect(last.table).toBe("stage2");
    expect(SMMUV3_EXPLAINER.servedTable(before, nested.fault, last.serves)).toBe(table);
    expect(SMMUV3_EXPLAINER.faultAddress(nested.fault)! & ~0xfffn).toBe(address);
    expect(SMMUV3_EXPLAINER.faultWrites(nested.fault)).toBe(true);
    expect(eventProblem(JSON.parse(traceLine(nested.fault)), TRACE_VERSION)).toBeNull();
  });

  it("is for a descriptor or an address by the stream's entry, where there was no fault", () => {
    const entry = (Config: bigint): WalkStep => ({
      ...({ seq: 1, time: 0, cause: 0, type: "walk", where: "host", iommu: "i", deviceId: 1, table: "STE" } as const),
      ...({ level: 0, space: "spa", address: 0n, entry: 1n | (Config << 1n), cached: false } as const),
    });
    expect(SMMUV3_EXPLAINER.servedTable(entry(7n), null, undefined)).toBe("CD");
    expect(SMMUV3_EXPLAINER.servedTable(entry(6n), null, undefined)).toBe("final");
  });
});

describe("entries in words", () => {
  const step = (table: string, level: number, entry: bigint, covers?: number): WalkStep => ({
    ...({ seq: 1, time: 0, cause: 0, type: "walk", where: "host", iommu: "i", deviceId: 1, space: "spa" } as const),
    ...{ address: 0n, cached: false, table, level, entry },
    ...(covers === undefined ? {} : { covers }),
  });
  it.each([
    ["STE", 0, 0xbn, undefined, "V=1 Config=S1"],
    ["STE", 0, 0n, undefined, "V=0"],
    ["L1STD", 0, 0x8000_0009n, undefined, "Span=0x9 L2Ptr=0x2000000"],
    ["CD", 0, 0x8000_0010n, undefined, "T0SZ=0x10 V=1"],
    ["stage1", 1, 0x8000_1003n, undefined, "table 0x80001000"],
    ["stage1", 3, 0x8000_1f47n, undefined, "page 0x80001000 RW Attr=1 nG AF"],
    ["stage1", 3, 0x8000_1783n, undefined, "page 0x80001000 RO EL1 Attr=0 AF"],
    ["stage1", 2, 0x8020_0f45n, 21, "block 0x80200000 RW Attr=1 nG AF"],
    ["stage1", 3, 0x8000_1001n, undefined, "invalid"],
    ["stage2", 2, 0x8020_04fdn, 21, "block 0x80200000 RW AF"],
    ["stage2", 3, 0x40_0000_8000_143fn, undefined, "page 0x80001000 none XN AF"],
  ] as const)("%s, level %i, 0x%x", (table, level, entry, covers, text) => {
    expect(SMMUV3_EXPLAINER.describeEntry(step(table, level, entry, covers))).toBe(text);
  });

  it("of a hostile trace throw nothing", () => {
    for (const covers of [undefined, 0, 64])
      for (const level of [0, 4])
        for (const table of ["L1STD", "STE", "L1CD", "CD", "stage1", "stage2", "DDT"])
          expect(() => SMMUV3_EXPLAINER.describeEntry(step(table, level, (1n << 64n) - 1n, covers))).not.toThrow();
  });
});

describe("events", () => {
  it("have an explanation with a section each, and those there are not say so", () => {
    for (const number of [1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x24, 0x25])
      expect(SMMUV3_EXPLAINER.explainFault(number).section).toMatch(/^§7\.3\.\d+$/);
    expect(SMMUV3_EXPLAINER.explainFault(0x77).why).toMatch(/not one that the specification defines/);
  });

  it("have the sections of their records in IHI 0070", () => {
    const section = (number: number) => SMMUV3_EXPLAINER.explainFault(number).section;
    expect([2, 4, 9, 0xa, 0xb, 0x10, 0x13].map(section)).toEqual([
      "§7.3.3",
      "§7.3.5",
      "§7.3.10",
      "§7.3.11",
      "§7.3.12",
      "§7.3.13",
      "§7.3.16",
    ]);
  });
});

describe("registers", () => {
  it("are all read, by name, with their fields, and reading changes nothing", () => {
    const { machine } = new Nested();
    const before = SMMUV3_EXPLAINER.registers(machine.smmu.registers);
    expect(before.CR0).toBe("0xd (SMMUEN=1 EVENTQEN=1 CMDQEN=1)");
    expect(before.IDR5).toMatch(/OAS=48 GRAN4K=1/);
    expect(SMMUV3_EXPLAINER.registers(machine.smmu.registers)).toEqual(before);
  });
});

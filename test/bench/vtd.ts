// How fast a VT-d unit translates and invalidates, by the same measures as translate.ts: an IOTLB hit, walks that miss an IOTLB of four entries with context and
// PASID entry cached, a million pages in random order, and invalidations with a wait behind a queueful of them. Hits and nested walks are measured in turns with those of the RISC-V IOMMU, the same pages and as
// many levels: `relativeToRiscv` is the median of the turns' ratios, at most 1.5 by the project's goal.

import { encodeDescriptor } from "../../host/arch/vtd/invalidation-descriptors.ts";
import { REG } from "../../host/arch/vtd/registers.ts";
import { TRANSLATED } from "../../host/base/transaction.ts";
import { FS_LEAF, Machine, R, W } from "../host/hw/iommu/vtd/machine.ts";
import { GOALS, mapMillion, nextRandom } from "./beside/million-pages.ts";
import { build as buildRiscv, measure, translate as translateRiscv } from "./translate.ts";

type Emit = (line: Record<string, unknown>) => void;

const FIRST = 0x100000;
const PAGES = 4096;
/** Frames that a million pages go to: guest-physical, and physical. */
const MIDDLE = 0x1000000;
const LAST = 0x2000000;
const SOURCE = 8;
const PASID = 5;
const STRIDE = 7;
const HIT_PAGES = 256;
const TURNS = 9;
const TURN_MS = 100;
const RATIO_GOAL = 1.5;

/** Where results go, so that nothing is optimised away. */
let sink = 0;

interface Source {
  readonly machine: Machine;
  /** Maps a page of the first stage, and of the second; as Machine.map. */
  readonly mapFirst: (page: number, frame: number) => { frame: number; offset: number };
  readonly mapSecond: (page: number, frame: number) => { frame: number; offset: number };
}

/** A machine with one device, whose first stage has tables of four levels (there are none of three), and the second of as many as said, with memory mapped one to one. */
function source(levels: 0 | 3 | 4, translations: number, pasid = -1): Source {
  const machine = new Machine({ features: { SAGAW: 14 }, caches: { translations } }, 8192);
  machine.start();
  const second = machine.allocate();
  const first = machine.allocate();
  const directory = machine.setScalableContext(SOURCE);
  const stages = levels === 0 ? { PGTT: 1 } : { PGTT: 3, AW: levels - 2, SSPTPTR: second };
  machine.setPasid(directory, Math.max(pasid, 0), { DID: 5, FSPTPTR: first, ...stages });
  const mapFirst: Source["mapFirst"] = (page, frame) => machine.map(first, page, frame, FS_LEAF);
  const mapSecond: Source["mapSecond"] = (page, frame) =>
    machine.map(second, page, frame, R | W, { levels, table: R | W });
  for (let i = 0; levels !== 0 && i < 8192; i++) mapSecond(0x80000 + i, 0x80000 + i);
  return { machine, mapFirst, mapSecond };
}

/** A fault would be timed as gladly. */
function mustTranslate({ unit }: Machine, pasid = -1): void {
  if (unit.translate(SOURCE, pasid, false, 1, FIRST, 0, false, 0) !== TRANSLATED)
    throw new Error("nothing is translated");
}

/** The same with pages FIRST.. mapped, that go to memory. */
export function build(levels: 0 | 3 | 4, translations: number, pasid = -1): Machine {
  const { machine, mapFirst } = source(levels, translations, pasid);
  for (let i = 0; i < PAGES; i++) mapFirst(FIRST + i, 0x80000 + i);
  mustTranslate(machine, pasid);
  return machine;
}

/** A million pages, four levels over three, in random order. */
export function randomMillion(): (count: number) => void {
  const { machine, mapFirst, mapSecond } = source(3, 1024);
  mapMillion(machine.memory, (page) => mapFirst(FIRST + page, MIDDLE + page), 12);
  mapMillion(machine.memory, (page) => mapSecond(MIDDLE + page, LAST + page), 12);
  mustTranslate(machine);
  const { unit } = machine;
  let state = 1;
  return (count) => {
    let sum = 0;
    for (let i = 0; i < count; i++) {
      state = nextRandom(state);
      sum += unit.translate(SOURCE, -1, false, 1, FIRST + (state >>> 12), 0, false, 0);
    }
    sink += sum;
  };
}

export function translate({ unit }: Machine, pages: number, pasid = -1): (count: number) => void {
  let page = 0;
  return (count) => {
    let at = page;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      at += STRIDE;
      if (at >= pages) at -= pages;
      sum += unit.translate(SOURCE, pasid, false, 1 + (i & 1), FIRST + at, 0x40, false, 0);
      sum += unit.resultPfn;
    }
    page = at;
    sink += sum;
  };
}

/** Descriptors one by one, a whole queue of them between writes of the tail. */
function descriptors(machine: Machine, words: readonly [bigint, bigint]): (count: number) => void {
  for (let i = 0; i < 256; i++) machine.storeWords(machine.ring + (i >> 7), (i & 127) * 32, [...words, 0n, 0n]);
  let tail = 0;
  return (count) => {
    for (let left = count; left > 0; left -= 255) {
      tail = (tail + Math.min(left, 255) * 32) & 0x1fff;
      machine.write32(REG.IQT, tail);
      machine.unit.drain();
    }
  };
}

export const about = "how fast VT-d translates and invalidates";
const rounded = (value: number): number => Math.round(value * 10) / 10;

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** A case in turns with the same of the RISC-V IOMMU. */
function besideRiscv(vtd: (count: number) => void, riscv: (count: number) => void): Record<string, number> {
  const turns = Array.from({ length: TURNS }, () => {
    const [ours, theirs] = [measure(vtd, TURN_MS), measure(riscv, TURN_MS)];
    return { ns: ours.median, best: ours.best, riscv: theirs.median, ratio: ours.median / theirs.median };
  });
  return {
    nsPerOp: rounded(median(turns.map(({ ns }) => ns))),
    nsBest: rounded(Math.min(...turns.map(({ best }) => best))),
    riscvNsPerOp: rounded(median(turns.map((turn) => turn.riscv))),
    relativeToRiscv: Math.round(median(turns.map(({ ratio }) => ratio)) * 100) / 100,
    goal: RATIO_GOAL,
  };
}

export async function bench(emit: Emit): Promise<void> {
  const report = (name: string, { median, best }: { median: number; best: number }, goalNs?: number): void =>
    emit({
      bench: `vtd/${name}`,
      nsPerOp: rounded(median),
      nsBest: rounded(best),
      ...(goalNs === undefined ? {} : { goalNs }),
      opsPerSecond: Math.round(1e9 / median),
    });
  const riscv = (translations: number, pages: number) =>
    translateRiscv(buildRiscv({ first: 4, second: 4, pages }, { caches: { translations } }), pages, STRIDE);
  emit({
    bench: "vtd/iotlb-hit",
    goalNs: GOALS.hit,
    ...besideRiscv(translate(build(4, 1024), HIT_PAGES), riscv(1024, HIT_PAGES)),
  });
  report("iotlb-hit-of-pasid", measure(translate(build(4, 1024, PASID), HIT_PAGES, PASID)), GOALS.hit);
  report("walk-4", measure(translate(build(0, 4), PAGES)));
  report("walk-4-over-3", measure(translate(build(3, 4), PAGES)), GOALS.threeOverThree);
  emit({
    bench: "vtd/walk-4-over-4",
    goalNs: GOALS.fourOverFour,
    ...besideRiscv(translate(build(4, 4), PAGES), riscv(4, PAGES)),
  });
  report("random-million", measure(randomMillion(), 1500), GOALS.randomMillion);
  const invalidate = (name: "pasidIotlb" | "iotlb", title: string, fields: Record<string, number>) => {
    const machine = build(4, 1024);
    translate(machine, HIT_PAGES)(10 * HIT_PAGES);
    report(title, measure(descriptors(machine, encodeDescriptor(name, fields))));
  };
  invalidate("pasidIotlb", "PASID-IOTLB-page", { G: 3, DID: 5, PASID: 0, IH: 1, ADDR: FIRST + 1 });
  invalidate("iotlb", "IOTLB-domain", { G: 2, DID: 5 });
  if (sink === 0.5) throw new Error("unreachable");
}

// How fast the SMMUv3 translates and invalidates, by the same measures as translate.ts: a TLB hit, walks of both stages that miss a TLB of four
// entries with the context cached, a million pages in random order, and TLB invalidations with their CMD_SYNC.

import { encodeCommand } from "../../host/arch/smmuv3/commands.ts";
import { REG } from "../../host/arch/smmuv3/registers.ts";
import { TRANSLATED } from "../../host/base/transaction.ts";
import { CONTEXT, Machine, S2_RW, SECOND_STAGE, USER_RW } from "../host/hw/iommu/smmuv3/machine.ts";
import { GOALS, mapMillion, nextRandom } from "./beside/million-pages.ts";
import { measure } from "./translate.ts";

type Emit = (line: Record<string, unknown>) => void;

const FIRST = 0x100000;
const PAGES = 4096;
/** Frames that a million pages go to: guest-physical, and physical. */
const MIDDLE = 0x1000000;
const LAST = 0x2000000;
const STREAM = 8;
const SSID = 5;

/** Where results go, so that nothing is optimised away. */
let sink = 0;

/** Input bits of stages with tables of three and four levels: T0SZ, S2T0SZ with its start level (S2SL0). */
const SHAPES = { 3: { T0SZ: 25, S2T0SZ: 25, S2SL0: 1 }, 4: { T0SZ: 16, S2T0SZ: 16, S2SL0: 2 } } as const;

interface Stream {
  readonly machine: Machine;
  /** Maps a page of the first stage, and of the second; as Machine.map. */
  readonly mapFirst: (page: number, frame: number) => { frame: number; offset: number };
  readonly mapSecond: (page: number, frame: number) => { frame: number; offset: number };
}

/** A machine with one stream, whose stages have tables of 4 KiB of that many levels, the second 0 or as many as the first; memory is mapped one to one there. */
function stream(first: 3 | 4, second: 0 | 3 | 4, translations: number, ssid = -1): Stream {
  const machine = new Machine({ caches: { translations } }, 8192);
  machine.start();
  const roots = { first: machine.allocate(), second: machine.allocate() };
  const contexts = machine.makeContextTable();
  machine.setContext(contexts, Math.max(ssid, 0), { ...CONTEXT, T0SZ: SHAPES[first].T0SZ, TTB0: roots.first * 256 });
  const shape = SHAPES[second === 0 ? 3 : second];
  const stages =
    second === 0
      ? { Config: 5 }
      : { ...SECOND_STAGE, S2T0SZ: shape.S2T0SZ, S2SL0: shape.S2SL0, S2TTB: roots.second * 256, Config: 7 };
  machine.setStream(STREAM, { ...stages, S1ContextPtr: contexts * 64, S1CDMax: ssid < 0 ? 0 : 4 });
  const mapFirst: Stream["mapFirst"] = (page, frame) =>
    machine.map(roots.first, page, frame, USER_RW, { startLevel: 4 - first });
  const mapSecond: Stream["mapSecond"] = (page, frame) =>
    machine.map(roots.second, page, frame, S2_RW, { startLevel: second === 3 ? 1 : 0 });
  for (let i = 0; second !== 0 && i < 8192; i++) mapSecond(0x80000 + i, 0x80000 + i);
  return { machine, mapFirst, mapSecond };
}

/** A fault would be timed as gladly. */
function mustTranslate({ smmu }: Machine, ssid = -1): void {
  if (smmu.translate(STREAM, ssid, false, 1, FIRST, 0, false, 0) !== TRANSLATED)
    throw new Error("nothing is translated");
}

/** The same with pages FIRST.. mapped, that go to memory. */
export function build(first: 3 | 4, second: 0 | 3 | 4, translations: number, ssid = -1): Machine {
  const { machine, mapFirst } = stream(first, second, translations, ssid);
  for (let i = 0; i < PAGES; i++) mapFirst(FIRST + i, 0x80000 + i);
  mustTranslate(machine, ssid);
  return machine;
}

export function translate({ smmu }: Machine, pages: number, ssid = -1): (count: number) => void {
  let page = 0;
  return (count) => {
    let at = page;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      at += 7;
      if (at >= pages) at -= pages;
      sum += smmu.translate(STREAM, ssid, false, 1 + (i & 1), FIRST + at, 0x40, false, 0);
      sum += smmu.resultPfn;
    }
    page = at;
    sink += sum;
  };
}

/** A million pages, three levels over three, in random order. */
export function randomMillion(): (count: number) => void {
  const { machine, mapFirst, mapSecond } = stream(3, 3, 1024);
  mapMillion(machine.memory, (page) => mapFirst(FIRST + page, MIDDLE + page), 12);
  mapMillion(machine.memory, (page) => mapSecond(MIDDLE + page, LAST + page), 12);
  mustTranslate(machine);
  const { smmu } = machine;
  let state = 1;
  return (count) => {
    let sum = 0;
    for (let i = 0; i < count; i++) {
      state = nextRandom(state);
      sum += smmu.translate(STREAM, -1, false, 1, FIRST + (state >>> 12), 0, false, 0);
    }
    sink += sum;
  };
}

/** Commands one by one, a whole queue of them between PROD writes. */
function commands(machine: Machine, words: readonly [bigint, bigint]): (count: number) => void {
  const ring = Number((machine.read64(REG.CMDQ_BASE) >> 12n) & 0xfffffffffn);
  for (let i = 0; i < 256; i++) machine.storeWords(ring, i * 16, words);
  let prod = 0;
  return (count) => {
    for (let left = count; left > 0; left -= 256) {
      prod = (prod + Math.min(left, 256)) & 511;
      machine.write32(REG.CMDQ_PROD, prod);
      machine.smmu.drain();
    }
  };
}

export const about = "how fast the SMMUv3 translates and invalidates";
export async function bench(emit: Emit): Promise<void> {
  const report = (name: string, { median, best }: { median: number; best: number }, goalNs?: number): void =>
    emit({
      bench: `smmuv3/${name}`,
      nsPerOp: Math.round(median * 10) / 10,
      nsBest: Math.round(best * 10) / 10,
      ...(goalNs === undefined ? {} : { goalNs }),
      opsPerSecond: Math.round(1e9 / median),
    });
  report("tlb-hit", measure(translate(build(4, 4, 1024), 256)), GOALS.hit);
  report("tlb-hit-of-substream", measure(translate(build(4, 4, 1024, SSID), 256, SSID)), GOALS.hit);
  report("walk-4", measure(translate(build(4, 0, 4), PAGES)));
  report("walk-3-over-3", measure(translate(build(3, 3, 4), PAGES)), GOALS.threeOverThree);
  report("walk-4-over-4", measure(translate(build(4, 4, 4), PAGES)), GOALS.fourOverFour);
  report("random-million", measure(randomMillion(), 1500), GOALS.randomMillion);
  const invalidate = (name: "TLBI_NH_VA" | "TLBI_NH_ASID", fields: Record<string, number>) => {
    const machine = build(4, 4, 1024);
    translate(machine, 256)(2560);
    report(name, measure(commands(machine, encodeCommand(name, fields))));
  };
  invalidate("TLBI_NH_VA", { VMID: 1, ASID: 1, Leaf: 1, Address: FIRST + 1 });
  invalidate("TLBI_NH_ASID", { VMID: 1, ASID: 2 });
  if (sink === 0.5) throw new Error("unreachable");
}

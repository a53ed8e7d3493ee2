// How fast the RISC-V IOMMU translates, invalidates and reports: one line per case.
//
// `nsPerOp` is the median over short rounds, `nsBest` the best round. `relativeToPointerChase` compares a case with a chain of dependent loads over the same memory in the same process, so that figures
// from different machines can be set side by side. Walk cases miss an IOTLB of four entries, keep the device context cached,
// and have all checks on. Cases with a goal say it (`goalNs`); smmuv3.ts and vtd.ts have the same cases of the other kinds.

import { encodeCommand } from "../../host/arch/riscv/commands.ts";
import { REG } from "../../host/arch/riscv/registers.ts";
import { TRANSLATED } from "../../host/base/transaction.ts";
import type { RiscvIommuOptions } from "../../host/hw/iommu/riscv/options.ts";
import { Machine, USER_RW, USER_RWX } from "../host/hw/iommu/riscv/machine.ts";
import { GOALS, mapMillion, nextRandom, twoLoads } from "./beside/million-pages.ts";

type Emit = (line: Record<string, unknown>) => void;

/** Nanoseconds per operation: median over short rounds, and the best of them. */
interface Timing {
  readonly median: number;
  readonly best: number;
}

function timing(samples: number[]): Timing {
  samples.sort((a, b) => a - b);
  return { median: samples[samples.length >> 1]!, best: samples[0]! };
}

/** Times `run(n)`, which does n operations: rounds of about a millisecond, so that other work of the machine spoils few. */
export function measure(run: (count: number) => void, budgetMs = 600): Timing {
  run(20_000);
  run(20_000);
  let count = 1_000;
  const samples: number[] = [];
  const end = performance.now() + budgetMs;
  while (performance.now() < end) {
    const start = performance.now();
    run(count);
    const elapsed = performance.now() - start;
    if (elapsed < 0.7) count *= 2;
    else samples.push((elapsed * 1e6) / count);
  }
  return timing(samples);
}

/** As `measure` for operations that need preparing each time: `run` does some and says how many. */
function measurePrepared(prepare: () => void, run: () => number, budgetMs = 500): Timing {
  const samples: number[] = [];
  const end = performance.now() + budgetMs;
  while (performance.now() < end || samples.length < 20) {
    prepare();
    const start = performance.now();
    const count = run();
    samples.push(((performance.now() - start) * 1e6) / count);
  }
  return timing(samples.slice(samples.length >> 2));
}

/** Dependent loads over `pages` pages, as a walk's would be: one doubleword a page, each holding the index of the next. */
function pointerChase(pages: number): Timing {
  const words = new Uint32Array(pages * 1024);
  const order = Array.from({ length: pages }, (_, i) => i);
  let seed = 12345;
  for (let i = pages - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const slot = (page: number) => page * 1024 + ((page * 37) % 512) * 2;
  for (let i = 0; i < pages; i++) words[slot(order[i]!)] = slot(order[(i + 1) % pages]!);
  let at = slot(0);
  return measure((count) => {
    let cursor = at;
    for (let i = 0; i < count; i++) cursor = words[cursor]!;
    at = cursor;
  }, 300);
}

/** Where a case's result goes, so that nothing is optimised away. */
let sink = 0;

interface Shape {
  readonly first: 0 | 3 | 4 | 5;
  readonly second: 0 | 3 | 4 | 5;
  /** Pages mapped. */
  readonly pages: number;
  /** They are those of process PROCESS. */
  readonly process?: boolean;
}

const PROCESS = 5;

/** A machine with one device whose pages 0x100000.. are mapped in order through the given stages. */
export function build(shape: Shape, options: RiscvIommuOptions): Machine {
  const machine = new Machine(options, 8192);
  machine.useDirectory(3);
  machine.enableFaultQueue();
  let guest = 0;
  if (shape.second !== 0) {
    guest = machine.makeSecondStageRoot();
    machine.mapMemoryOneToOne(guest, shape.second, USER_RWX);
  }
  const root = machine.makeRoot();
  for (let i = 0; i < shape.pages; i++) {
    if (shape.first !== 0) machine.map(root, shape.first, FIRST + i, 0x80000 + (i % 8192), USER_RW);
  }
  const first = { fsc_MODE: shape.first === 0 ? 0 : shape.first + 5, fsc_PPN: shape.first === 0 ? 0 : root, PSCID: 1 };
  const directory = shape.process === true ? machine.makeProcessDirectory(1) : 0;
  if (directory !== 0) machine.setProcess(directory, PROCESS, first);
  machine.setDevice(0x108, {
    ...(directory === 0 ? first : { PDTV: 1, fsc_MODE: 1, fsc_PPN: directory }),
    iohgatp_MODE: shape.second === 0 ? 0 : shape.second + 5,
    iohgatp_PPN: guest,
    GSCID: shape.second === 0 ? 0 : 1,
  });
  mustTranslate(machine, shape.process === true ? PROCESS : -1);
  return machine;
}

const FIRST = 0x100000;
/** Frames that a million pages go to: guest-physical, and physical. */
const MIDDLE = 0x1000000;
const LAST = 0x2000000;

/** A fault would be timed as gladly. */
function mustTranslate({ iommu }: Machine, process = -1): void {
  if (iommu.translate(0x108, process, false, 1, FIRST, 0, false, 0) !== TRANSLATED)
    throw new Error("nothing is translated");
}

/** Translates pages FIRST + (i * stride) % pages, alternating reads and writes. */
export function translate(machine: Machine, pages: number, stride: number, process = -1): (count: number) => void {
  const iommu = machine.iommu;
  let next = 0;
  return (count) => {
    let page = next;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      page += stride;
      if (page >= pages) page -= pages;
      sum += iommu.translate(0x108, process, false, 1 + (i & 1), FIRST + page, 0x40, false, 0);
      sum += iommu.resultPfn;
    }
    next = page;
    sink += sum;
  };
}

const RING_LOG2 = 12;
const RING = 2 ** RING_LOG2;

/** Fills the whole command ring with `commands`, over and over. */
function fillRing(machine: Machine, ring: number, commands: readonly (readonly [bigint, bigint])[]): void {
  for (let i = 0; i < RING; i++) {
    const [word0, word1] = commands[i % commands.length]!;
    const frame = ring + ((i * 16) >> 12);
    machine.store(frame, (i * 16) & 0xfff, word0);
    machine.store(frame, ((i * 16) & 0xfff) + 8, word1);
  }
}

/** Lets the IOMMU execute the next `count` commands of the ring. */
function runCommands(machine: Machine, count: number): number {
  const tail = (machine.read32(REG.cqt) + count) % RING;
  machine.write32(REG.cqt, tail);
  machine.iommu.drain();
  if (machine.read32(REG.cqh) !== tail) throw new Error("the command queue stopped");
  return count;
}

export const about = "how fast the RISC-V IOMMU translates, invalidates and reports";
export async function bench(emit: Emit): Promise<void> {
  const chase = pointerChase(64);
  const report = (name: string, { median, best }: Timing, goalNs?: number): void =>
    emit({
      bench: `translate/${name}`,
      nsPerOp: Math.round(median * 10) / 10,
      nsBest: Math.round(best * 10) / 10,
      ...(goalNs === undefined ? {} : { goalNs }),
      opsPerSecond: Math.round(1e9 / median),
      relativeToPointerChase: Math.round((median / chase.median) * 10) / 10,
    });
  report("pointer-chase", chase);

  report("bare", measure(translate(new Machine({ resetMode: "bare" }), 1024, 7)));
  report("iotlb-hit", measure(translate(build({ first: 3, second: 3, pages: 256 }, {}), 256, 7)), GOALS.hit);
  const process = build({ first: 3, second: 3, pages: 256, process: true }, {});
  report("iotlb-hit-of-process", measure(translate(process, 256, 7, PROCESS)), GOALS.hit);

  // So small that nothing is found again: a miss pays for its look-up and for being kept. 4096 pages: the leaf tables of both stages
  // are 64 KiB, in L2.
  const tiny = { caches: { translations: 4 } };
  const walks: readonly [string, Shape, number?][] = [
    ["walk-sv39", { first: 3, second: 0, pages: 4096 }],
    ["walk-sv39-sv39x4", { first: 3, second: 3, pages: 4096 }, GOALS.threeOverThree],
    ["walk-sv48-sv48x4", { first: 4, second: 4, pages: 4096 }, GOALS.fourOverFour],
    ["walk-sv57-sv57x4", { first: 5, second: 5, pages: 4096 }],
  ];
  for (const [name, shape, goal] of walks) report(name, measure(translate(build(shape, tiny), shape.pages, 7)), goal);
  report("random-million", measure(randomMillion(), 1500), GOALS.randomMillion);
  const loads = twoLoads();
  report(
    "random-million-two-loads",
    measure((count) => void (sink += loads(count)), 1500),
  );
  invalidations(report);
  faults(report);
  if (sink === 0.5) throw new Error("unreachable");
}

/** A million pages, Sv39 over Sv39x4, in random order. */
export function randomMillion(): (count: number) => void {
  const machine = new Machine({}, 8192);
  machine.useDirectory(3);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3, USER_RWX);
  const root = machine.makeRoot();
  const { memory } = machine;
  mapMillion(memory, (page) => machine.map(root, 3, FIRST + page, MIDDLE + page, USER_RW), 10);
  const extraRootBits = 2;
  mapMillion(memory, (page) => machine.map(guest, 3, MIDDLE + page, LAST + page, USER_RW, { extraRootBits }), 10);
  machine.setDevice(0x108, { fsc_MODE: 8, fsc_PPN: root, PSCID: 1, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: 1 });
  mustTranslate(machine);
  const iommu = machine.iommu;
  let state = 1;
  return (count) => {
    let sum = 0;
    for (let i = 0; i < count; i++) {
      state = nextRandom(state);
      sum += iommu.translate(0x108, -1, false, 1, FIRST + (state >>> 12), 0, false, 0);
    }
    sink += sum;
  };
}

type Report = (name: string, timing: Timing) => void;

/** Commands through the queue, their effect on a full IOTLB included. */
function invalidations(report: Report): void {
  const SPACES = 64;
  const PAGES = 16;
  // 64 machines of one process each, 16 pages each: 1024 translations.
  const machine = new Machine({ caches: { translations: 1024, devices: 64 } }, 8192);
  machine.useDirectory(3);
  const ring = machine.enableCommandQueue(RING_LOG2);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3, USER_RWX);
  const root = machine.makeRoot();
  for (let i = 0; i < PAGES; i++) machine.map(root, 3, FIRST + i, 0x80000 + i, USER_RW);
  for (let n = 0; n < SPACES; n++) {
    machine.setDevice(n, { fsc_MODE: 8, fsc_PPN: root, PSCID: n, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: n });
  }
  const fill = (): void => {
    for (let n = 0; n < SPACES; n++) {
      for (let i = 0; i < PAGES; i++) sink += machine.iommu.translate(n, -1, false, 1, FIRST + i, 0, false, 0);
    }
  };
  const spaces = Array.from({ length: SPACES }, (_, n) => n);
  const cases: readonly [string, number, (readonly [bigint, bigint])[]][] = [
    [
      "iotinval-page",
      SPACES * PAGES,
      spaces.flatMap((n) =>
        Array.from({ length: PAGES }, (_, i) =>
          encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: n, PSCV: 1, PSCID: n, AV: 1, ADDR: FIRST + i }),
        ),
      ),
    ],
    [
      "iotinval-pscid",
      SPACES,
      spaces.map((n) => encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: n, PSCV: 1, PSCID: n })),
    ],
    ["iotinval-gscid", SPACES, spaces.map((n) => encodeCommand("IOTINVAL.GVMA", { GV: 1, GSCID: n }))],
    ["iotinval-global", 1, [encodeCommand("IOTINVAL.GVMA")]],
    ["iodir-device", SPACES, spaces.map((n) => encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: n }))],
  ];
  for (const [name, count, commands] of cases) {
    fillRing(machine, ring, commands);
    report(
      name,
      measurePrepared(fill, () => runCommands(machine, count)),
    );
  }
  fillRing(machine, ring, [encodeCommand("IOFENCE.C", { PR: 1, PW: 1 })]);
  report(
    "iofence",
    measurePrepared(
      () => {},
      () => runCommands(machine, RING - 1),
    ),
  );
  fillRing(machine, ring, [
    encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: 1, PSCV: 1, PSCID: 1, AV: 1, ADDR: FIRST }),
    encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: 1 }),
    encodeCommand("IOTINVAL.GVMA", { GV: 1, GSCID: 2 }),
    encodeCommand("IOFENCE.C", { PR: 1, PW: 1 }),
  ]);
  report(
    "commands",
    measurePrepared(
      () => {},
      () => runCommands(machine, RING - 1),
    ),
  );
}

/** Faults of requests that no context answers for, with software keeping up. */
function faults(report: Report): void {
  const machine = new Machine({});
  machine.useDirectory(1);
  machine.enableFaultQueue(12);
  report(
    "fault-records",
    measure((count) => {
      for (let i = 0; i < count; i++) {
        sink += machine.iommu.translate(5, -1, false, 1, i, 0, false, 0);
        if ((i & 0x7ff) === 0) machine.write32(REG.fqh, machine.read32(REG.fqt));
      }
      machine.write32(REG.fqh, machine.read32(REG.fqt));
    }),
  );
}

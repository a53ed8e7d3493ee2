// How fast the RISC-V IOMMU translates, invalidates and reports: one line per case.
//
// `relativeToPointerChase` compares a case with a chain of dependent loads over the same memory in the same process, so that figures
// from different machines can be set side by side. Walk cases miss an IOTLB of four entries, keep the device context cached,
// and have all checks on.

import type { RiscvIommuOptions } from "../../host/hw/iommu/riscv/options.ts";
import { Machine, USER_RW, USER_RWX } from "../host/hw/iommu/riscv/machine.ts";

type Emit = (line: Record<string, unknown>) => void;

/**
 * Nanoseconds per operation: the best of many rounds, each long enough to time and short enough to fit between other work of the
 * machine. `run(n)` does n operations.
 */
function measure(run: (count: number) => void, budgetMs = 600): number {
  run(20_000);
  run(20_000);
  let count = 2_000;
  let best = Number.POSITIVE_INFINITY;
  const end = performance.now() + budgetMs;
  while (performance.now() < end) {
    const start = performance.now();
    run(count);
    const elapsed = performance.now() - start;
    best = Math.min(best, (elapsed * 1e6) / count);
    if (elapsed < 1) count *= 2;
  }
  return best;
}

/** Dependent loads over `pages` pages, as a walk's would be: one doubleword a page, each holding the index of the next. */
function pointerChase(pages: number): number {
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
}

/** A machine with one device whose pages 0x100000.. are mapped in order through the given stages. */
function build(shape: Shape, options: RiscvIommuOptions): Machine {
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
  machine.setDevice(0x108, {
    fsc_MODE: shape.first === 0 ? 0 : shape.first + 5,
    fsc_PPN: shape.first === 0 ? 0 : root,
    PSCID: 1,
    iohgatp_MODE: shape.second === 0 ? 0 : shape.second + 5,
    iohgatp_PPN: guest,
    GSCID: shape.second === 0 ? 0 : 1,
  });
  return machine;
}

const FIRST = 0x100000;

/** Translates pages FIRST + (i * stride) % pages, alternating reads and writes. */
function translate(machine: Machine, pages: number, stride: number): (count: number) => void {
  const iommu = machine.iommu;
  let next = 0;
  return (count) => {
    let page = next;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      page += stride;
      if (page >= pages) page -= pages;
      sum += iommu.translate(0x108, -1, false, 1 + (i & 1), FIRST + page, 0x40, false, 0);
      sum += iommu.resultPfn;
    }
    next = page;
    sink += sum;
  };
}

export async function bench(emit: Emit): Promise<void> {
  const chaseL2 = pointerChase(64);
  const report = (name: string, nsPerOp: number, more: Record<string, unknown> = {}): void =>
    emit({
      bench: `translate/${name}`,
      nsPerOp: Math.round(nsPerOp * 10) / 10,
      opsPerSecond: Math.round(1e9 / nsPerOp),
      relativeToPointerChase: Math.round((nsPerOp / chaseL2) * 10) / 10,
      ...more,
    });
  report("pointer-chase", chaseL2);

  {
    const machine = new Machine({ resetMode: "bare" });
    report("bare", measure(translate(machine, 1024, 7)));
  }
  {
    const machine = build({ first: 3, second: 3, pages: 256 }, {});
    report("iotlb-hit", measure(translate(machine, 256, 7)));
  }
  // So small that nothing is found again, so that a miss pays for its look-up and for being kept.
  const none = { caches: { translations: 4 } };
  const walks: readonly [string, Shape][] = [
    ["walk-sv39", { first: 3, second: 0, pages: 256 }],
    ["walk-sv39-sv39x4", { first: 3, second: 3, pages: 256 }],
    ["walk-sv48-sv48x4", { first: 4, second: 4, pages: 256 }],
    ["walk-sv57-sv57x4", { first: 5, second: 5, pages: 256 }],
  ];
  for (const [name, shape] of walks) report(name, measure(translate(build(shape, none), shape.pages, 7)));
  if (sink === 0.5) throw new Error("unreachable");
}

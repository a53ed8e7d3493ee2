// How fast a VT-d unit translates and invalidates, by the same measures as translate.ts: an IOTLB hit, walks that miss an IOTLB of four entries with context and
// PASID entry cached, and invalidations with a wait behind a queueful of them.

import { encodeDescriptor } from "../../host/arch/vtd/invalidation-descriptors.ts";
import { REG } from "../../host/arch/vtd/registers.ts";
import { FS_LEAF, Machine, R, W } from "../host/hw/iommu/vtd/machine.ts";
import { measure } from "./translate.ts";

type Emit = (line: Record<string, unknown>) => void;

const FIRST = 0x100000;
const PAGES = 1024;
const SOURCE = 8;

/** Where results go, so that nothing is optimised away. */
let sink = 0;

/** A machine with one device whose pages FIRST.. go through 4 KiB tables of four levels, and with `nested` through four more of the second stage. */
function build(nested: boolean, translations: number): Machine {
  const machine = new Machine({ caches: { translations } }, 8192);
  machine.start();
  const second = machine.allocate();
  const first = machine.allocate();
  const directory = machine.setScalableContext(SOURCE);
  const stages = nested ? { PGTT: 3, AW: 2, SSPTPTR: second } : { PGTT: 1 };
  machine.setPasid(directory, 0, { DID: 5, FSPTPTR: first, ...stages });
  for (let i = 0; nested && i < 8192; i++) machine.map(second, 0x80000 + i, 0x80000 + i, R | W, { table: R | W });
  for (let i = 0; i < PAGES; i++) machine.map(first, FIRST + i, 0x80000 + i, FS_LEAF);
  return machine;
}

function translate({ unit }: Machine, pages: number): (count: number) => void {
  let page = 0;
  return (count) => {
    let at = page;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      at += 7;
      if (at >= pages) at -= pages;
      sum += unit.translate(SOURCE, -1, false, 1 + (i & 1), FIRST + at, 0x40, false, 0);
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
export async function bench(emit: Emit): Promise<void> {
  const report = (name: string, { median, best }: { median: number; best: number }): void =>
    emit({
      bench: `vtd/${name}`,
      nsPerOp: Math.round(median * 10) / 10,
      nsBest: Math.round(best * 10) / 10,
      opsPerSecond: Math.round(1e9 / median),
    });
  report("iotlb-hit", measure(translate(build(true, 1024), 256)));
  report("walk-4", measure(translate(build(false, 4), PAGES)));
  report("walk-4-over-4", measure(translate(build(true, 4), PAGES)));
  const invalidate = (name: "pasidIotlb" | "iotlb", title: string, fields: Record<string, number>) => {
    const machine = build(true, 1024);
    translate(machine, 256)(2560);
    report(title, measure(descriptors(machine, encodeDescriptor(name, fields))));
  };
  invalidate("pasidIotlb", "PASID-IOTLB-page", { G: 3, DID: 5, PASID: 0, IH: 1, ADDR: FIRST + 1 });
  invalidate("iotlb", "IOTLB-domain", { G: 2, DID: 5 });
  if (sink === 0.5) throw new Error("unreachable");
}

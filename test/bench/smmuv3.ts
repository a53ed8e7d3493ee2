// How fast the SMMUv3 translates and invalidates, by the same measures as translate.ts: a TLB hit, walks of both stages that miss a TLB of four
// entries with the context cached, and TLB invalidations with their CMD_SYNC.

import { encodeCommand } from "../../host/arch/smmuv3/commands.ts";
import { REG } from "../../host/arch/smmuv3/registers.ts";
import { CONTEXT, Machine, S2_RW, SECOND_STAGE, USER_RW } from "../host/hw/iommu/smmuv3/machine.ts";
import { measure } from "./translate.ts";

type Emit = (line: Record<string, unknown>) => void;

const FIRST = 0x100000;
const PAGES = 1024;
const STREAM = 8;

/** Where results go, so that nothing is optimised away. */
let sink = 0;

/** A machine with one stream whose pages FIRST.. go through 4 KiB tables of four levels, and with `nested` through four more of stage 2. */
function build(nested: boolean, translations: number): Machine {
  const machine = new Machine({ caches: { translations } }, 8192);
  machine.start();
  const second = machine.allocate();
  const first = machine.allocate();
  const contexts = machine.makeContextTable();
  machine.setContext(contexts, 0, { ...CONTEXT, TTB0: first * 256 });
  const stages = nested ? { ...SECOND_STAGE, S2T0SZ: 16, S2SL0: 2, S2TTB: second * 256, Config: 7 } : { Config: 5 };
  machine.setStream(STREAM, { ...stages, S1ContextPtr: contexts * 64 });
  for (let i = 0; nested && i < 8192; i++) machine.map(second, 0x80000 + i, 0x80000 + i, S2_RW);
  for (let i = 0; i < PAGES; i++) machine.map(first, FIRST + i, 0x80000 + i, USER_RW);
  return machine;
}

function translate({ smmu }: Machine, pages: number): (count: number) => void {
  let page = 0;
  return (count) => {
    let at = page;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      at += 7;
      if (at >= pages) at -= pages;
      sum += smmu.translate(STREAM, -1, false, 1 + (i & 1), FIRST + at, 0x40, false, 0);
      sum += smmu.resultPfn;
    }
    page = at;
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
  const report = (name: string, { median, best }: { median: number; best: number }): void =>
    emit({
      bench: `smmuv3/${name}`,
      nsPerOp: Math.round(median * 10) / 10,
      nsBest: Math.round(best * 10) / 10,
      opsPerSecond: Math.round(1e9 / median),
    });
  report("tlb-hit", measure(translate(build(true, 1024), 256)));
  report("walk-4", measure(translate(build(false, 4), PAGES)));
  report("walk-4-over-4", measure(translate(build(true, 4), PAGES)));
  const invalidate = (name: "TLBI_NH_VA" | "TLBI_NH_ASID", fields: Record<string, number>) => {
    const machine = build(true, 1024);
    translate(machine, 256)(2560);
    report(name, measure(commands(machine, encodeCommand(name, fields))));
  };
  invalidate("TLBI_NH_VA", { VMID: 1, ASID: 1, Leaf: 1, Address: FIRST + 1 });
  invalidate("TLBI_NH_ASID", { VMID: 1, ASID: 2 });
  if (sink === 0.5) throw new Error("unreachable");
}

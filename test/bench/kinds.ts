// What a guest driver waits for at its IOMMU, kind by kind, over the whole host model: the same guest verbs (vmm/viommu/guest-driver.ts) on each kind's
// own driver, registers by traps. One line a case and kind: a register access is `register-read`; `fence-N` is N invalidations of a page and a fence;
// `switch` bypass and back to a first stage; `fault` a DMA that stage 1 refuses, until its record has been taken. What a kind's guest does not
// have is left out, and its line says why.
//
// Kinds take turns, round by round, so that a busy machine is busy for all.

import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { type AnyVm, ScenarioContext } from "../../vmm/scenario/context.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../../vmm/viommu/kinds.ts";

const ROUNDS = 31;
const ROUND_MS = 5;
const IOVA = 0x4000_0000n;

type Emit = (line: Record<string, unknown>) => void;

interface Case {
  readonly name: string;
  readonly run: () => void;
  /** Why there is nothing to time; null: there is. */
  readonly leftOut?: string | null;
}

function casesOf(kind: ViommuKindName): { readonly cases: readonly Case[]; readonly close: () => void } {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const findHost = (name: string) => builtInHosts.find((host) => host.name === name)!;
  const t = new ScenarioContext({
    ...{ clock, trace, seed: 0, sweepValue: undefined, defaultHost: findHost(DEFAULT_HOST), findHost },
    ...{ onStep: () => {}, report: () => {} },
  });
  const vm: AnyVm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  stage1.map(IOVA, vm.ram.allocate(16), 0x10000n);
  device.installContext(stage1);
  const fence = (count: number) => () => {
    for (let i = 0; i < count; i++) vm.iommu.invalidate({ stage1, iova: IOVA + BigInt(i & 15) * 4096n });
    vm.iommu.fence();
  };
  const heard = VIOMMU_KINDS[kind].guest.hears("not mapped", false);
  const cases: readonly Case[] = [
    { name: "register-read", run: () => void vm.iommu.read32(0) },
    ...[1, 16, 63].map((count) => ({ name: `fence-${count}`, run: fence(count) })),
    {
      name: "switch",
      run: () => {
        device.installContext("bypass");
        device.installContext(stage1);
      },
    },
    {
      name: "fault",
      leftOut:
        heard.code === null
          ? `its guest hears nothing of what an assigned device's stage 1 refuses (${heard.section})`
          : null,
      run: () => {
        device.dmaRead(0x9000n, 4);
        if (vm.takeFaults().length !== 1) throw new Error(`${kind}: the fault was not heard`);
      },
    },
  ];
  return { cases, close: () => void t.close() };
}

/** ns of one operation over a round. */
function round(run: () => void): number {
  const start = performance.now();
  let count = 0;
  do {
    run();
    count++;
  } while (performance.now() - start < ROUND_MS);
  return ((performance.now() - start) * 1e6) / count;
}

export const about = "what a guest driver waits for at its IOMMU, kind by kind";
export async function bench(emit: Emit): Promise<void> {
  const kinds = (Object.keys(VIOMMU_KINDS) as ViommuKindName[]).map((kind) => ({ kind, ...casesOf(kind) }));
  for (let at = 0; at < kinds[0]!.cases.length; at++) {
    const taken = kinds.filter(({ cases }) => (cases[at]!.leftOut ?? null) === null);
    const samples = taken.map((): number[] => []);
    for (let turn = 0; turn < 2 * ROUNDS; turn++) {
      taken.forEach(({ cases }, i) => {
        const ns = round(cases[at]!.run);
        // The first half warms up.
        if (turn >= ROUNDS) samples[i]!.push(ns);
      });
    }
    for (const { kind, cases } of kinds) {
      const { name, leftOut = null } = cases[at]!;
      if (leftOut !== null) emit({ bench: `kinds/${name}`, kind, leftOut });
    }
    taken.forEach(({ kind, cases }, i) => {
      const sorted = samples[i]!.sort((a, b) => a - b);
      const nsPerOp = Math.round(sorted[ROUNDS >> 1]!);
      emit({ bench: `kinds/${cases[at]!.name}`, kind, nsPerOp, nsBest: Math.round(sorted[0]!) });
    });
  }
  for (const { close } of kinds) close();
}

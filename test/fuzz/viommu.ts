// `nestbox fuzz viommu`: hostile guests on the guest-visible IOMMU and everything below it (viommu/hostile-guest.ts). On a finding the run
// is shortened and made a test, for test/fuzz/found/.

import type { Trace, TracedEvent } from "../../host/base/trace.ts";
import type { Count, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { HostileGuest } from "./viommu/hostile-guest.ts";
import { makeOperations, type Operation, Random } from "./viommu/operations.ts";

const STEPS = 2_000;
/** One guest in so many is run twice, traced, and the traces compared. */
const REPLAY_EVERY = 25;

/** A guest that does operations; `problem` is what went wrong, in one line. */
export interface Hostile {
  readonly vm: { readonly machine: { readonly trace: Trace } };
  readonly problem: string | null;
  /** What DMA was compared with the oracle, by how it ended. */
  readonly compared?: ReadonlyMap<string, number>;
  step(operation: Operation): void;
  finish(): void;
}

/** A kind of IOMMU's hostile guests. */
export interface HostileKind {
  /** As in `nestbox fuzz NAME`, and where in test/fuzz it stands. */
  readonly fuzzer: string;
  make(seed: number): Hostile;
}

const RISCV: HostileKind = { fuzzer: "viommu", make: (seed) => new HostileGuest(seed) };

/** Runs operations on a fresh machine; the problem found and after how many steps, or null. */
export function runOperations(
  seed: number,
  operations: readonly Operation[],
  observe?: (event: TracedEvent) => void,
  kind: HostileKind = RISCV,
  count?: Count,
): { problem: string; steps: number } | null {
  const guest = kind.make(seed);
  if (observe !== undefined) guest.vm.machine.trace.addSink({ event: observe });
  let steps = 0;
  for (const operation of operations) {
    guest.step(operation);
    steps++;
    if (guest.problem !== null) return { problem: guest.problem, steps };
  }
  for (const [how, times] of guest.compared ?? []) count?.(`DMA compared: ${how}`, times);
  guest.finish();
  return guest.problem === null ? null : { problem: guest.problem, steps };
}

/** A number that two runs share exactly if their traces are the same. */
function traceHash(seed: number, operations: readonly Operation[], kind: HostileKind): string {
  let low = 0x811c9dc5;
  let high = 0x01000193;
  let count = 0;
  const observe = (event: TracedEvent): void => {
    const text = JSON.stringify(event, (_key, value) => (typeof value === "bigint" ? `${value}n` : value));
    for (let i = 0; i < text.length; i++) {
      low = Math.imul(low ^ text.charCodeAt(i), 0x01000193);
      high = Math.imul(high ^ text.charCodeAt(i), 0x85ebca6b);
    }
    count++;
  };
  runOperations(seed, operations, observe, kind);
  return `${count} events, ${(low >>> 0).toString(16)}${(high >>> 0).toString(16)}`;
}

/** Leaves out what the problem does not need: chunks of halving size, as long as some problem of the same kind remains. */
export function shrink(
  seed: number,
  operations: readonly Operation[],
  problem: string,
  tries = 400,
  run: (seed: number, operations: readonly Operation[]) => { problem: string; steps: number } | null = runOperations,
): readonly Operation[] {
  const kind = (text: string) => text.replace(/0x[0-9a-f]+|\d+/g, "#");
  let current = operations;
  for (let chunk = current.length >> 1; chunk >= 1; chunk >>= 1) {
    for (let at = 0; at < current.length && tries > 0; ) {
      const shorter = [...current.slice(0, at), ...current.slice(at + chunk)];
      tries--;
      const result = run(seed, shorter);
      if (result !== null && kind(result.problem) === kind(problem)) current = shorter.slice(0, result.steps);
      else at += chunk;
    }
  }
  return current;
}

function testText(seed: number, operations: readonly Operation[], problem: string, { fuzzer }: HostileKind): string {
  const lines = operations.map((operation) => `  [${operation.join(", ")}],`).join("\n");
  const own = fuzzer !== RISCV.fuzzer;
  return `// Found by \`nestbox fuzz ${fuzzer}\`, seed ${seed}: ${problem.replace(/\n.*/s, "")}
import { expect, it } from "vitest";
${own ? `import { KIND } from "../${fuzzer}.ts";\n` : ""}import type { Operation } from "../viommu/operations.ts";
import { runOperations } from "../viommu.ts";

const OPERATIONS: readonly Operation[] = [
${lines}
];

it("a hostile guest finds nothing with what it found once (seed ${seed})", () => {
  expect(runOperations(${seed}, OPERATIONS${own ? ", undefined, KIND" : ""})).toBeNull();
});
`;
}

/** The fuzzer of a kind. */
export function fuzzerOf(kind: HostileKind, about: string): Fuzzer {
  return {
    about,
    round: (seed, count) => {
      const operations = makeOperations(new Random(seed), STEPS);
      count("operations", STEPS);
      const run = (of: number, shorter: readonly Operation[]) => runOperations(of, shorter, undefined, kind);
      const result = runOperations(seed, operations, undefined, kind, count);
      if (result !== null) {
        const shortest = shrink(seed, operations.slice(0, result.steps), result.problem, 400, run);
        const problem = `${result.problem}\nat operation ${result.steps}; ${shortest.length} operations suffice`;
        const text = testText(seed, shortest, result.problem, kind);
        return { problem, test: { file: `${kind.fuzzer}-${seed}.test.ts`, text } };
      }
      if (seed % REPLAY_EVERY !== 0) return null;
      const [first, second] = [traceHash(seed, operations, kind), traceHash(seed, operations, kind)];
      return first === second ? null : { problem: `two runs, two traces: ${first} and ${second}` };
    },
  };
}

export const fuzzer: Fuzzer = fuzzerOf(RISCV, "hostile guests on the vIOMMU: no DMA their tables do not allow");

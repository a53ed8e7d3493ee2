/**
 * Runs seeds and reports a disagreement with its seed, its minimal scenario and the text that makes it a test.
 */
import type { Count, Finding } from "../../../../vmm/cli/fuzzer.ts";
import type { MakeSubject } from "../adapter.ts";
import { randomSequence } from "../generate/sequence.ts";
import { randomWorld } from "../generate/world.ts";
import { describeScenario, emptyTally, run, type Scenario, scenarioText, type Tally } from "./scenario.ts";
import { shrink } from "./shrink.ts";

/** Requests of a random world. */
const REQUESTS = 24;

/** Changes of a random sequence. */
const CHANGES = 20;

/** Worlds without caches, where every answer must be fresh, or sequences of changes and invalidations. */
export type Kind = "worlds" | "sequences";

export function scenarioOfSeed(kind: Kind, seed: number): Scenario {
  return kind === "worlds" ? randomWorld(seed, REQUESTS) : randomSequence(seed, CHANGES);
}

/** True if the seed agrees. */
export function huntSeed(
  kind: Kind,
  seed: number,
  make: MakeSubject,
  log: (line: string) => void,
  tally?: Tally,
): boolean {
  const scenario = scenarioOfSeed(kind, seed);
  if (run(scenario, make, tally) === null) return true;
  const minimal = shrink(scenario, (candidate) => run(candidate, make) !== null);
  const found = run(minimal, make)!;
  log(`disagreement: ${kind} seed ${seed}, step ${found.step} of the minimal scenario`);
  log(`  ${found.why}`);
  for (const line of describeScenario(minimal)) log(line);
  log(`as a test: ${scenarioText(minimal)}`);
  return false;
}

/** One round of a fuzzer: what the seed finds, or null. */
export function hunt(kind: Kind, seed: number, make: MakeSubject, count: Count): Finding | null {
  const tally = emptyTally();
  const lines: string[] = [];
  const agrees = huntSeed(kind, seed, make, (line) => lines.push(line), tally);
  count("translations compared", tally.requests);
  count("with more than one permitted outcome", tally.several);
  count("left open", tally.open);
  return agrees ? null : { problem: lines.join("\n") };
}

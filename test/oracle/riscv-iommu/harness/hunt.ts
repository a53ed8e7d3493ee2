/**
 * Runs seeds and reports a disagreement with its seed, its minimal scenario and the text that makes it a test.
 */
import type { Count, Finding } from "../../../../vmm/cli/fuzzer.ts";
import { randomConfiguration } from "../generate/configuration.ts";
import { randomSequence } from "../generate/sequence.ts";
import {
  describeScenario,
  run,
  type Scenario,
  STOPPED,
  scenarioOfConfiguration,
  scenarioOfSequence,
  scenarioText,
  type Tally,
} from "./scenario.ts";
import { shrink } from "./shrink.ts";
import type { MakeSubject } from "./subject.ts";

/** Requests of a random configuration. */
const REQUESTS = 24;
/** Changes of a random sequence. */
const CHANGES = 24;

export type Kind = "configurations" | "sequences";

export function scenarioOfSeed(kind: Kind, seed: number): Scenario {
  return kind === "configurations"
    ? scenarioOfConfiguration(randomConfiguration(seed, REQUESTS))
    : scenarioOfSequence(randomSequence(seed, CHANGES));
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
  const first = run(scenario, make, tally);
  if (first === null) return true;
  const minimal = shrink(scenario, (candidate) => {
    const still = run(candidate, make);
    return still !== null && (still.why === STOPPED) === (first.why === STOPPED);
  });
  const found = run(minimal, make)!;
  log(`disagreement: ${kind} seed ${seed}, step ${found.step} of the minimal scenario`);
  log(`  ${found.why}`);
  for (const line of describeScenario(minimal)) log(line);
  log(`as a test: ${scenarioText(minimal)}`);
  return false;
}

/** One round of a fuzzer: what the seed finds, or null. */
export function hunt(kind: Kind, seed: number, make: MakeSubject, count: Count): Finding | null {
  const tally: Tally = { requests: 0, open: 0, stale: 0 };
  const lines: string[] = [];
  const agrees = huntSeed(kind, seed, make, (line) => lines.push(line), tally);
  count("translations compared", tally.requests);
  count("with more than one permitted outcome", tally.stale);
  count("left open", tally.open);
  return agrees ? null : { problem: lines.join("\n") };
}

// A round of a CPU's fuzzer, whatever its instruction set: a stream of random instructions, or a program that fences what it changes, interpreted and as the
// engine is told to run it by configurations that are drawn.
import { isDeepStrictEqual } from "node:util";
import type { Finding, Fuzzer } from "../../../../vmm/cli/fuzzer.ts";
import type { EngineCore, EngineExports } from "../../../../vmm/vcpu/engine/core.ts";
import { generator } from "../riscv64/reference/integer.ts";
import { type Configuration, INTERPRETED, randomConfiguration } from "./configurations.ts";
import { type FencingGuest, runGuest } from "./fencing-program.ts";

/** Each is run once more interpreted, so that a second configuration costs less than a second round. */
const CONFIGURATIONS_A_ROUND = 2;

/** `stream`: runs the stream of a seed, and says how it ended. Every other seed is a program's. */
export function cpuRounds<Core extends EngineCore<EngineExports>>(
  stream: (seed: number, configuration: Configuration) => string,
  guest: FencingGuest<Core>,
): Fuzzer["round"] {
  return (seed) => (seed % 2 === 0 ? streamRound(stream, seed) : programRound(guest, seed));
}

function* drawn(seed: number, fences: boolean): Generator<Configuration> {
  const next = generator(seed ^ 0x3c6ef372);
  for (let n = 0; n < CONFIGURATIONS_A_ROUND; n++) yield randomConfiguration((bound) => next() % bound, fences);
}

function streamRound(stream: (seed: number, configuration: Configuration) => string, seed: number): Finding | null {
  const first = stream(seed, INTERPRETED);
  if (seed % 16 === 0 && stream(seed, INTERPRETED) !== first) return { problem: "run twice, it ends in two states" };
  for (const configuration of drawn(seed, false)) {
    if (stream(seed, configuration) !== first)
      return { problem: `interpreted and as ${configuration.name}, the stream ends in two states` };
  }
  return null;
}

function programRound<Core extends EngineCore<EngineExports>>(guest: FencingGuest<Core>, seed: number): Finding | null {
  const { told: _, ...first } = runGuest(guest, seed, INTERPRETED);
  for (const configuration of drawn(seed, true)) {
    const { told: __, ...second } = runGuest(guest, seed, configuration);
    if (isDeepStrictEqual(first, second)) continue;
    const run = first.runs.findIndex((one, at) => one !== second.runs[at]);
    const where = run < 0 ? "after all runs" : `run ${run}: ${first.runs[run]} and ${second.runs[run]}`;
    return { problem: `interpreted and as ${configuration.name}, the program is two: ${where}` };
  }
  return null;
}

// What a benchmark is: a module in test/bench that exports these. main.ts finds them, and makes the command line of them.

import { InvalidArgumentError, Option } from "commander";

export interface Benchmark {
  /** One line: what is timed. */
  readonly about: string;
  /** Options of its own; those that several have are the same object (SHORT, STORE). */
  readonly options?: readonly Option[];
  /** Names of its rows that `--work` chooses from; it has WORK then. */
  readonly works?: readonly string[];
  /** It takes long, or needs what is not everywhere: only who names it gets it. */
  readonly onRequest?: true;
  /** Gives a line a figure to `emit`. `given`: its options by their names. */
  readonly bench: (emit: (line: Record<string, unknown>) => void, given: Given) => Promise<void>;
}

export interface Given {
  readonly short?: boolean;
  readonly store?: boolean;
  readonly arch?: string;
  readonly work?: readonly string[];
  readonly pairs?: number;
}

export const SHORT = new Option("--short", "a look that takes little time, no measurement");
export const STORE = new Option("--store", "keep the rows in test/bench/results");
export const WORK = new Option("--work <name,…>", "rows alone").argParser((text: string) => text.split(","));
export const PAIRS = new Option("--pairs <n>", "of runs; default 3").argParser(pairsOf);

function pairsOf(text: string): number {
  if (!/^[1-9]\d?$/.test(text)) throw new InvalidArgumentError("Expected a whole number from 1 to 99.");
  return Number(text);
}

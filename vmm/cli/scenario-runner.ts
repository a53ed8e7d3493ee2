// Loads and runs scenario files in a worker, a thread that can be ended: at the wall limit it is, and the next one starts afresh.

import { Worker } from "node:worker_threads";
import type { ScenarioResult } from "../scenario/run-scenario.ts";
import { describeThrown } from "../scenario/thrown.ts";
import { EXIT_TIME_LIMIT, UsageError } from "./exit-codes.ts";
import { exportsNone, ScenarioBundles, type ScenarioModule } from "./scenario-files.ts";
import type { ProbeOptions, ProbeResult } from "./scenario-probe.ts";
import type { ListedScenario, RunRequest, WorkerAnswer, WorkerRequest, WorkerSettings } from "./scenario-worker.ts";

/** What came of a request: an answer, or no answer because the thread is gone. */
type Outcome =
  | Exclude<WorkerAnswer, { kind: "step" | "begun" }>
  | { readonly kind: "wall-limit" }
  | { readonly kind: "ended"; readonly why: string };

/** How a run went: what the scenario came to, or why there is no result. `steps` are those it got to. */
export type RunOutcome =
  | { readonly kind: "result"; readonly result: ScenarioResult }
  | { readonly kind: "wall-limit" | "ended"; readonly message: string; readonly steps: readonly string[] };

export interface RunnerOptions extends WorkerSettings {
  /** Wall time for each run and, if that is longer than `LEAST_TO_LOAD`, for loading a file, ns. */
  readonly wallLimit: number;
}

/** ms that a file has to load, however short the limit for its scenarios is. */
const LEAST_TO_LOAD = 2000;
/** ms of Node's longest timer: 24 days. */
const LONGEST_TIMER = 2 ** 31 - 1;
const ENDLESS = "within the wall limit (--wall-limit); an endless loop, or a wait for what never comes?";

/** Runs `act` with what it takes to run scenario files; the thread and the bundles are gone after it. */
export async function withRunner<T>(
  options: RunnerOptions,
  act: (runner: ScenarioRunner, bundles: ScenarioBundles) => Promise<T>,
): Promise<T> {
  const bundles = new ScenarioBundles();
  const runner = new ScenarioRunner(options);
  try {
    return await act(runner, bundles);
  } finally {
    await runner[Symbol.asyncDispose]();
    bundles[Symbol.dispose]();
  }
}

export class ScenarioRunner {
  readonly #options: RunnerOptions;
  #worker: Worker | null = null;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** The scenarios of a file. Throws UsageError for a file that has none or does not load. */
  async load(module: ScenarioModule): Promise<readonly ListedScenario[]> {
    const { outcome } = await this.#ask({ kind: "load", url: module.url });
    const place = `scenario ${module.file}`;
    if (outcome.kind === "loaded") {
      if (outcome.scenarios.length === 0) throw new UsageError(exportsNone(module.file));
      return outcome.scenarios;
    }
    if (outcome.kind === "thrown") {
      const at = module.positions.frames(outcome.thrown.stack)[0]?.position ?? module.file;
      throw new UsageError(`scenario ${at}: ${outcome.thrown.message}`);
    }
    if (outcome.kind === "wall-limit") {
      throw new UsageError(`${place}: its top level did not end ${ENDLESS}`, EXIT_TIME_LIMIT);
    }
    if (outcome.kind === "ended") throw new UsageError(`${place}: ${outcome.why} while it was loaded`);
    throw unexpected(outcome);
  }

  async run(request: Omit<RunRequest, "kind">): Promise<RunOutcome> {
    const { outcome, steps } = await this.#ask({ kind: "run", ...request });
    if (outcome.kind === "result") return outcome;
    if (outcome.kind === "wall-limit") {
      return { kind: "wall-limit", message: `did not end ${ENDLESS}`, steps };
    }
    if (outcome.kind === "ended") return { kind: "ended", message: outcome.why, steps };
    throw unexpected(outcome);
  }

  /** Lets a device of the file's first scenario access an address at a step. */
  async probe(module: ScenarioModule, options: ProbeOptions): Promise<ProbeResult> {
    const { outcome } = await this.#ask({ kind: "probe", url: module.url, file: module.file, options });
    if (outcome.kind === "probed") return outcome.result;
    if (outcome.kind === "wall-limit") {
      throw new UsageError(`scenario ${module.file}: did not end ${ENDLESS}`, EXIT_TIME_LIMIT);
    }
    if (outcome.kind === "ended") throw new UsageError(`scenario ${module.file}: ${outcome.why}`);
    throw unexpected(outcome);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = null;
  }

  #start(): Worker {
    const url = new URL("./scenario-worker.js", import.meta.url);
    const { printTo } = this.#options;
    this.#worker = new Worker(url, { workerData: { printTo } satisfies WorkerSettings });
    return this.#worker;
  }

  /** ms. Starting a thread takes nothing off it. */
  #limit(what: "load" | "run"): number {
    const ms = Math.ceil(this.#options.wallLimit / 1e6);
    return Math.min(what === "load" ? Math.max(ms, LEAST_TO_LOAD) : ms, LONGEST_TIMER);
  }

  /** One request, until its answer, the thread's end or the limit. */
  async #ask(request: WorkerRequest): Promise<{ outcome: Outcome; steps: readonly string[] }> {
    const worker = this.#worker ?? this.#start();
    const steps: string[] = [];
    let timer: NodeJS.Timeout | undefined;
    const outcome = await new Promise<Outcome>((resolve) => {
      worker.on("message", (answer: WorkerAnswer) => {
        if (answer.kind === "step") {
          steps.push(answer.name);
        } else if (answer.kind === "begun") {
          clearTimeout(timer);
          timer = setTimeout(() => resolve({ kind: "wall-limit" }), this.#limit(answer.what));
        } else {
          resolve(answer);
        }
      });
      worker.on("error", (error: NodeJS.ErrnoException) => {
        const memory = error.code === "ERR_WORKER_OUT_OF_MEMORY";
        resolve({ kind: "ended", why: memory ? "ran out of memory" : describeThrown(error).message });
      });
      worker.on("exit", (code) => {
        resolve({ kind: "ended", why: `ended with process.exit(${code})` });
      });
      worker.postMessage(request);
    });
    clearTimeout(timer);
    for (const event of ["message", "error", "exit"]) worker.removeAllListeners(event);
    if (outcome.kind === "wall-limit" || outcome.kind === "ended") {
      this.#worker = null;
      // What it throws on its way down is of no interest.
      worker.on("error", () => {});
      await worker.terminate();
    }
    return { outcome, steps };
  }
}

/** A mistake in what was asked for, or a bug of ours. */
function unexpected(outcome: Outcome): Error {
  if (outcome.kind === "refused") return new UsageError(outcome.message, outcome.exitCode);
  if (outcome.kind !== "broken") return new Error(`the scenario worker answered "${outcome.kind}"`);
  const error = new Error(outcome.thrown.message);
  error.stack = outcome.thrown.stack;
  return error;
}

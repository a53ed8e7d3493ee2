// Runs users' scenario files in a thread that can be ended: whoever started it does so at the wall limit, whatever the file is doing. One
// request at a time comes in, one answer goes out; in between, a message when the file's code begins to run, and for each step.
//
// What a file or a body has started is its own: timers that throw, promises that nobody catches, and whatever still runs when it has
// returned. An answer goes out when all that is over.

import { Console } from "node:console";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { JsonLinesSink } from "../../host/base/trace-json.ts";
import { runName, runScenario, type ScenarioResult } from "../scenario/run-scenario.ts";
import { exportedScenarios, type Scenario } from "../scenario/scenario.ts";
import { describeThrown, type Thrown } from "../scenario/thrown.ts";
import { writeAll } from "./console.ts";
import { UsageError } from "./exit-codes.ts";
import { findHost } from "./hosts.ts";
import { type ProbeOptions, type ProbeResult, probeScenario } from "./scenario-probe.ts";
import { TraceFile } from "./trace-output.ts";

export interface WorkerSettings {
  /** Descriptor for what scenarios print: standard output may be for JSON alone. */
  readonly printTo: 1 | 2;
}

/** One run of a scenario: the scenarios of a module are numbered from 0, and so are the values of a sweep. */
export interface RunRequest {
  readonly kind: "run";
  readonly url: string;
  readonly scenario: number;
  readonly sweep: number;
  readonly host: string | undefined;
  readonly seed: number;
  /** File for the whole trace. */
  readonly trace: string | null;
}

export interface ProbeRequest {
  readonly kind: "probe";
  readonly url: string;
  readonly file: string;
  readonly options: ProbeOptions;
}

export type WorkerRequest = { readonly kind: "load"; readonly url: string } | RunRequest | ProbeRequest;

export interface ListedScenario {
  readonly name: string;
  /** Names of its runs: one, or one for each value of the sweep. */
  readonly runs: readonly string[];
  readonly declared: string;
}

export type WorkerAnswer =
  /** The file's own code runs from now on. */
  | { readonly kind: "begun"; readonly what: "load" | "run" }
  | { readonly kind: "step"; readonly name: string }
  | { readonly kind: "loaded"; readonly scenarios: readonly ListedScenario[] }
  | { readonly kind: "result"; readonly result: ScenarioResult }
  | { readonly kind: "probed"; readonly result: ProbeResult }
  /** The file's own code threw when it was loaded, or in the background. */
  | { readonly kind: "thrown"; readonly thrown: Thrown }
  /** A mistake in what was asked for. */
  | { readonly kind: "refused"; readonly message: string; readonly exitCode: number }
  /** A bug of ours. */
  | { readonly kind: "broken"; readonly thrown: Thrown };

const port = parentPort!;
const settings = workerData as WorkerSettings;

Error.stackTraceLimit = 100;
// Printed at once, in order with the lines about the scenarios.
const printed = (fd: number) => ({
  write: (text: string) => writeAll(fd, Buffer.from(text)),
  on: () => {},
  once: () => {},
  removeListener: () => {},
  listenerCount: () => 0,
});
globalThis.console = new Console(
  printed(settings.printTo) as unknown as NodeJS.WritableStream,
  printed(2) as unknown as NodeJS.WritableStream,
);

/** What was thrown in the background since the last look. */
let stray: Thrown | null = null;
const keepStray = (error: unknown): void => {
  stray ??= describeThrown(error);
};
process.on("uncaughtException", keepStray);
process.on("unhandledRejection", keepStray);

/** ms between two looks at what still runs. */
const POLL = 2;

/** What keeps a thread alive that has nothing to do: Node's own names. */
const OWN_RESOURCES = new Set(["MessagePort", "CloseReq"]);

const somethingRuns = (): boolean => process.getActiveResourcesInfo().some((name) => !OWN_RESOURCES.has(name));

/** Lets what was started come to its end. What came of it is in `stray`. */
async function settled(): Promise<void> {
  await setImmediate();
  while (somethingRuns()) await sleep(POLL);
  await setImmediate();
}

function takeStray(): Thrown | null {
  const taken = stray;
  stray = null;
  return taken;
}

const tell = (message: WorkerAnswer): void => port.postMessage(message);

async function scenariosOf(url: string): Promise<Scenario[]> {
  tell({ kind: "begun", what: "load" });
  return exportedScenarios((await import(url)) as Record<string, unknown>);
}

async function load(url: string): Promise<WorkerAnswer> {
  let listed: ListedScenario[];
  try {
    listed = (await scenariosOf(url)).map((scenario) => ({
      name: scenario.name,
      runs: (scenario.options.sweep ?? [undefined]).map((value) => runName(scenario, value)),
      declared: scenario.declared,
    }));
  } catch (error) {
    await settled();
    takeStray();
    return { kind: "thrown", thrown: describeThrown(error) };
  }
  await settled();
  const thrown = takeStray();
  return thrown === null ? { kind: "loaded", scenarios: listed } : { kind: "thrown", thrown };
}

async function run(request: RunRequest): Promise<WorkerAnswer> {
  const scenario = (await scenariosOf(request.url))[request.scenario]!;
  const file = request.trace === null ? null : new TraceFile(request.trace);
  tell({ kind: "begun", what: "run" });
  const sink = file === null ? null : new JsonLinesSink((text) => file.write(text));
  let result = runScenario(scenario, {
    seed: request.seed,
    defaultHost: findHost(request.host),
    findHost,
    sweepValue: scenario.options.sweep?.[request.sweep],
    onStep: (name) => tell({ kind: "step", name: String(name) }),
    ...(sink === null ? {} : { sink }),
  });
  sink?.end();
  file?.close();
  await settled();
  const thrown = takeStray();
  if (thrown !== null && result.passed) result = { ...result, passed: false, kind: "error", ...thrown };
  return { kind: "result", result };
}

async function answer(request: WorkerRequest): Promise<WorkerAnswer> {
  try {
    if (request.kind === "load") return await load(request.url);
    if (request.kind === "run") return await run(request);
    const { filter } = request.options;
    const named = (scenario: Scenario) =>
      filter === undefined || scenario.name.toLowerCase().includes(filter.toLowerCase());
    const scenario = (await scenariosOf(request.url)).find(named);
    if (scenario === undefined)
      throw new UsageError(`--filter: no scenario of ${request.file} has "${filter}" in its name`);
    tell({ kind: "begun", what: "run" });
    return { kind: "probed", result: probeScenario(request.file, scenario, request.options) };
  } catch (error) {
    if (error instanceof UsageError) return { kind: "refused", message: error.message, exitCode: error.exitCode };
    return { kind: "broken", thrown: describeThrown(error) };
  }
}

port.on("message", async (request: WorkerRequest) => {
  tell(await answer(request));
});

// `nestbox scenario FILES…`: runs scenario files and prints a line for each scenario.

import { closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { JsonLinesSink } from "../../../host/base/trace-json.ts";
import { runScenario, type ScenarioResult } from "../../scenario/run-scenario.ts";
import { lastCauses } from "../../view/trace-text.ts";
import { verdictPending } from "../closed-output.ts";
import { writeAll } from "../console.ts";
import { EXIT_FAILED, EXIT_PASS, UsageError } from "../exit-codes.ts";
import { findHost } from "../hosts.ts";
import { fileProblem } from "../input-file.ts";
import { type FileResult, junitXml } from "../junit.ts";
import { duration, wholeNumber } from "../options.ts";
import { type LoadedScenario, loadScenarios } from "../scenario-files.ts";
import { runGuarded } from "../wall-limit.ts";

interface ScenarioCommandOptions {
  readonly host?: string;
  readonly junit?: string;
  readonly shard?: Shard;
  readonly seed: number;
  readonly trace?: string;
  readonly json?: true;
  /** ns. */
  readonly wallLimit: number;
}

interface Shard {
  readonly index: number;
  readonly count: number;
}

export function scenarioCommand(): Command {
  return new Command("scenario")
    .description("run scenario files (TypeScript)")
    .argument("<files...>", "files that export scenarios")
    .option("--host <name|file>", "host for scenarios that name none")
    .option("--junit <file>", "write results as JUnit XML")
    .option("--shard <i/n>", "run the i-th of n parts", shard)
    .option("--seed <n>", "seed of everything random", wholeNumber, 0)
    .option("--trace <folder>", "write each scenario's trace there; failing ones write theirs in any case")
    .addOption(
      new Option("--wall-limit <time>", "give a scenario up after this much wall time, such as 90s")
        .argParser(duration)
        .default(60e9, "60s"),
    )
    .option("--json", "one JSON object a scenario instead of text")
    .action(async (files: string[], options: ScenarioCommandOptions) => {
      verdictPending();
      const runs = (await loadScenarios(files)).flatMap(expandSweep);
      const mine = runs.filter(
        (_, index) => options.shard === undefined || index % options.shard.count === options.shard.index - 1,
      );
      const taken = new Set<string>();
      const results = mine.map((run) => runOne(run, options, taken));
      if (options.junit !== undefined) writeText(options.junit, junitXml(results), "--junit");
      const failed = results.filter(({ result }) => !result.passed).length;
      if (options.json !== true) {
        console.log(`${results.length - failed} passed, ${failed} failed`);
      }
      process.exitCode = failed === 0 ? EXIT_PASS : EXIT_FAILED;
    });
}

interface Run extends LoadedScenario {
  readonly sweepValue?: unknown;
}

function expandSweep(loaded: LoadedScenario): Run[] {
  const { sweep } = loaded.scenario.options;
  return sweep === undefined ? [loaded] : sweep.map((sweepValue) => ({ ...loaded, sweepValue }));
}

/** `taken`: trace files of the runs before, which this one's must not overwrite. */
function runOne(run: Run, options: ScenarioCommandOptions, taken: Set<string>): FileResult {
  const started = performance.now();
  const name = `${run.scenario.name}${run.sweepValue === undefined ? "" : ` ${String(run.sweepValue)}`}`;
  const traceFile = traceFileName(options.trace ?? ".", name, taken);
  const execute = (sink?: JsonLinesSink): ScenarioResult =>
    runGuarded(
      () =>
        runScenario(run.scenario, {
          seed: options.seed,
          defaultHost: findHost(options.host),
          findHost,
          sweepValue: run.sweepValue,
          ...(sink === undefined ? {} : { sink }),
        }),
      options.wallLimit / 1e6,
    ) ?? givenUp(name);
  let result = options.trace === undefined ? execute() : traced(traceFile, execute);
  let written = options.trace === undefined ? null : traceFile;
  if (!result.passed && written === null && result.kind !== "wall-limit") {
    // Runs are deterministic: the failing one is repeated with the trace on.
    result = traced(traceFile, execute);
    written = traceFile;
  }
  const wallMs = performance.now() - started;
  if (options.json === true) {
    const { recent: _recent, stack: _stack, ...shown } = result;
    console.log(JSON.stringify({ file: run.file, ...shown, ...(written === null ? {} : { trace: written }) }));
  } else {
    console.log(`${result.passed ? "ok  " : "FAIL"} ${result.name}`);
    if (!result.passed) {
      console.log(`     ${run.file}: ${result.message}`);
      const place = /scenario\.mjs|\.scenario\.ts/.exec(result.stack);
      if (result.kind === "error" || place === null)
        console.log(indent(result.stack.split("\n").slice(1, 4).join("\n")));
      for (const message of result.messages.slice(-5)) console.log(`     reported: ${message}`);
      console.log("     what happened last:");
      for (const line of lastCauses(result.recent, 12)) console.log(`     ${line}`);
      if (written !== null) console.log(`     trace: ${written}`);
    }
  }
  return { file: run.file, result, wallMs };
}

/** A scenario that did not end: whatever it was doing is lost. */
function givenUp(name: string): ScenarioResult {
  const message = "did not end within the wall limit (--wall-limit); an endless loop?";
  return {
    name,
    passed: false,
    kind: "wall-limit",
    message,
    stack: "",
    virtualNs: 0,
    steps: [],
    messages: [],
    recent: [],
  };
}

function traced<T>(file: string, execute: (sink: JsonLinesSink) => T): T {
  let fd: number;
  try {
    mkdirSync(join(file, ".."), { recursive: true });
    fd = openSync(file, "w");
  } catch (error) {
    throw new UsageError(`--trace: ${fileProblem(error)}`);
  }
  // A full disk is not the scenario's fault: it runs on, and the command says so afterwards.
  let problem: Error | null = null;
  const sink = new JsonLinesSink((text) => {
    if (problem !== null) return;
    try {
      writeAll(fd, Buffer.from(text));
    } catch (error) {
      problem = error as Error;
    }
  });
  let result: T;
  try {
    result = execute(sink);
  } finally {
    sink.end();
    closeSync(fd);
  }
  if (problem !== null) throw new UsageError(`--trace ${file}: ${(problem as Error).message}`);
  return result;
}

function traceFileName(folder: string, name: string, taken: Set<string>): string {
  const plain = name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")
    .slice(0, 80);
  const stem = plain || "scenario";
  let file = join(folder, `${stem}.trace.jsonl`);
  for (let n = 2; taken.has(file); n++) file = join(folder, `${stem}-${n}.trace.jsonl`);
  taken.add(file);
  return file;
}

function shard(text: string): Shard {
  const match = /^(\d+)\/(\d+)$/.exec(text);
  const parsed = match === null ? null : { index: Number(match[1]), count: Number(match[2]) };
  if (parsed === null || parsed.index < 1 || parsed.index > parsed.count) {
    throw new InvalidArgumentError("expected i/n with 1 <= i <= n, such as 1/4");
  }
  return parsed;
}

function writeText(file: string, text: string, option: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new UsageError(`${option} ${file}: ${fileProblem(error)}`);
  }
}

function indent(text: string): string {
  return text
    .split("\n")
    .map((line) => `     ${line.trim()}`)
    .join("\n");
}

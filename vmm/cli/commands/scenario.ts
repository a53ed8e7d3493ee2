// `nestbox scenario PATHS…`: runs scenario files and prints a line for each scenario.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import type { ScenarioResult } from "../../scenario/run-scenario.ts";
import { verdictPending } from "../closed-output.ts";
import { EXIT_FAILED, EXIT_PASS, UsageError } from "../exit-codes.ts";
import { findHost } from "../hosts.ts";
import { fileProblem } from "../input-file.ts";
import { junitXml } from "../junit.ts";
import { wallLimitOption, wholeNumber } from "../options.ts";
import { ResultFile } from "../result-file.ts";
import { findScenarioFiles, foldersOf, type ScenarioModule } from "../scenario-files.ts";
import { reportJson, reportText, type ScenarioReport, testCase } from "../scenario-report.ts";
import { type RunOutcome, type ScenarioRunner, withRunner } from "../scenario-runner.ts";
import type { ListedScenario } from "../scenario-worker.ts";
import { type Shard, shardOption } from "../shard.ts";
import { colours, Progress } from "../terminal.ts";
import { makeTraceFolder } from "../trace-output.ts";
import { version } from "../version.ts";
import { watchFolders } from "../watch-folders.ts";

interface ScenarioCommandOptions {
  readonly host?: string;
  readonly filter?: string;
  readonly junit?: string;
  readonly shard: Shard;
  readonly result?: string;
  readonly seed: number;
  readonly trace?: string;
  readonly traceDir: string;
  readonly watch?: true;
  readonly json?: true;
  /** ns. */
  readonly wallLimit: number;
}

export function scenarioCommand(): Command {
  return new Command("scenario")
    .description("run scenario files (TypeScript)")
    .argument("<paths...>", "files that export scenarios; folders: all *.scenario.ts below them")
    .option("--filter <text>", "run only scenarios whose name contains this")
    .option("--watch", "run again whenever one of the files changes")
    .option("--host <name|file>", "host for scenarios that name none")
    .option("--junit <file>", "write results as JUnit XML")
    .addOption(shardOption())
    .option("--result <file|folder>", "write what came of it there, for nestbox report merge")
    .option("--seed <n>", "seed of everything random", wholeNumber, 0)
    .option("--trace-dir <folder>", "scenarios that fail leave their traces there", "nestbox-traces")
    .option("--trace <folder>", "write every scenario's trace there, not only of those that fail")
    .addOption(wallLimitOption("give a scenario up after this much wall time"))
    .option("--json", "one JSON object a scenario instead of text")
    .action(async (paths: string[], options: ScenarioCommandOptions) => {
      verdictPending();
      // A mistake in it is the command line's, not the scenarios'.
      findHost(options.host);
      if (options.watch === true) return await watch(paths, options);
      process.exitCode = await runPaths(paths, options);
    });
}

/** Runs again and again, until the process is ended. Mistakes in the files are said and waited for to be mended. */
async function watch(paths: readonly string[], options: ScenarioCommandOptions): Promise<void> {
  const watched = watchFolders(foldersOf(paths, []));
  for (;;) {
    try {
      await runPaths(paths, options, (modules) => watched.add(foldersOf(paths, modules)));
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      console.error(`nestbox: ${error.message}`);
    }
    if (options.json !== true) console.log(colours.dim("waiting for a change (Ctrl-C ends)"));
    await watched.change();
  }
}

/** One run of a scenario: all there is to know before it. */
interface PlannedRun {
  readonly module: ScenarioModule;
  readonly listed: ListedScenario;
  readonly name: string;
  readonly scenario: number;
  readonly sweep: number;
}

/** The exit status. */
function runPaths(
  paths: readonly string[],
  options: ScenarioCommandOptions,
  loaded: (modules: readonly ScenarioModule[]) => void = () => {},
): Promise<number> {
  const { json, wallLimit } = options;
  return withRunner({ printTo: json === true ? 2 : 1, wallLimit }, async (runner, bundles) => {
    const modules: ScenarioModule[] = [];
    for (const file of findScenarioFiles(paths)) modules.push(await bundles.bundle(file));
    loaded(modules);
    const resultFile = options.result === undefined ? null : new ResultFile(options.result, options.shard);
    try {
      return await runModules(modules, runner, options, resultFile);
    } finally {
      resultFile?.discard();
    }
  });
}

async function runModules(
  modules: readonly ScenarioModule[],
  runner: ScenarioRunner,
  options: ScenarioCommandOptions,
  resultFile: ResultFile | null,
): Promise<number> {
  const progress = new Progress();
  const runs: PlannedRun[] = [];
  for (const module of modules) {
    progress.show(`loading ${module.file}`);
    runs.push(...plannedRuns(module, await runner.load(module), options.filter));
  }
  progress.clear();
  if (runs.length === 0) throw new UsageError(`--filter ${options.filter}: no scenario's name contains that`);
  const { shard } = options;
  const mine = runs.filter((_, index) => index % shard.count === shard.index - 1);
  const started = performance.now();
  const taken = new Set<string>();
  const reports: ScenarioReport[] = [];
  for (const run of mine) {
    progress.show(`${reports.length + 1} of ${mine.length}: ${run.name}`);
    const report = await runOne(run, runner, options, taken);
    progress.clear();
    console.log(options.json === true ? reportJson(report) : reportText(report));
    reports.push(report);
  }
  const cases = reports.map(testCase);
  if (options.junit !== undefined) writeText(options.junit, junitXml(cases), "--junit");
  resultFile?.write({
    format: 1,
    nestbox: version(),
    campaign: {
      verb: "scenario",
      files: modules.map(({ file }) => file),
      filter: options.filter ?? null,
      host: options.host ?? null,
      seed: options.seed,
      tests: runs.length,
    },
    shard,
    // A signal ends the process, and no result is written.
    interrupted: false,
    seconds: (performance.now() - started) / 1000,
    counts: {},
    cases,
  });
  const failed = reports.filter(({ result }) => !result.passed).length;
  if (options.json !== true) {
    const verdict = `${reports.length - failed} passed, ${failed} failed`;
    console.log(failed === 0 ? colours.green(verdict) : colours.red(verdict));
  }
  return failed === 0 ? EXIT_PASS : EXIT_FAILED;
}

function plannedRuns(module: ScenarioModule, scenarios: readonly ListedScenario[], filter = ""): PlannedRun[] {
  return scenarios
    .flatMap((listed, scenario) => listed.runs.map((name, sweep) => ({ module, listed, name, scenario, sweep })))
    .filter(({ name }) => name.toLowerCase().includes(filter.toLowerCase()));
}

/** `taken`: trace files of the runs before, which this one's must not overwrite. */
async function runOne(
  run: PlannedRun,
  runner: ScenarioRunner,
  options: ScenarioCommandOptions,
  taken: Set<string>,
): Promise<ScenarioReport> {
  const { module, listed, name, scenario, sweep } = run;
  const { host, seed } = options;
  const started = performance.now();
  const traceFile = traceFileName(options.trace ?? options.traceDir, name, taken);
  const execute = (trace: string | null): Promise<RunOutcome> =>
    runner.run({ url: module.url, scenario, sweep, host, seed, trace });
  let trace = options.trace === undefined ? null : traceFile;
  let outcome = await execute(trace);
  if (outcome.kind === "result" && !outcome.result.passed && trace === null) {
    // Runs are deterministic: the failing one is repeated with the trace on.
    makeTraceFolder(options.traceDir);
    const again = await execute(traceFile);
    if (again.kind === "result") {
      outcome = again.result.passed ? outcome : again;
      trace = traceFile;
    }
  }
  const result = outcome.kind === "result" ? outcome.result : withoutResult(name, outcome);
  const frames = result.passed ? [] : module.positions.frames(result.stack);
  if (!result.passed && frames.length === 0) frames.push(...module.positions.frames(listed.declared).slice(0, 1));
  return { file: module.file, result, wallMs: performance.now() - started, trace, frames };
}

/** Of a scenario that did not end, or ended its thread: whatever it was doing is lost. */
function withoutResult(
  name: string,
  { kind, message, steps }: Exclude<RunOutcome, { kind: "result" }>,
): ScenarioResult {
  return {
    name,
    passed: false,
    kind: kind === "wall-limit" ? "wall-limit" : "error",
    message,
    stack: "",
    virtualNs: 0,
    steps,
    messages: [],
    recent: [],
  };
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

function writeText(file: string, text: string, option: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new UsageError(`${option} ${file}: ${fileProblem(error)}`);
  }
}

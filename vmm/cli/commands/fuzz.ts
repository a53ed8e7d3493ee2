// `nestbox fuzz NAME`: runs one fuzzer for a while, alone or as one shard of a campaign.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { DEFAULT_KIND } from "../../viommu/kinds.ts";
import { verdictPending } from "../closed-output.ts";
import { EXIT_FAILED, EXIT_PASS, UsageError } from "../exit-codes.ts";
import { type CampaignResult, runCampaign, type SeedFinding } from "../fuzz-campaign.ts";
import { knownFuzzers, loadFuzzer } from "../fuzzer.ts";
import { fileProblem } from "../input-file.ts";
import type { TestCase } from "../junit.ts";
import { duration, wholeNumber } from "../options.ts";
import { ResultFile, type ShardResult } from "../result-file.ts";
import { type Shard, shardOption } from "../shard.ts";
import { Progress } from "../terminal.ts";
import { Termination } from "../termination.ts";
import { version } from "../version.ts";

interface FuzzOptions {
  readonly kind?: string;
  readonly seed: number;
  readonly seconds?: number;
  readonly rounds?: number;
  readonly shard: Shard;
  readonly keepGoing?: true;
  readonly found?: string;
  /** ns. */
  readonly roundLimit: number;
  readonly result?: string;
  readonly json?: true;
}

/** Without --seconds and --rounds. */
const DEFAULT_SECONDS = 10;
/** Under --keep-going. */
const MOST_FINDINGS = 100;

export function fuzz(): Command {
  return new Command("fuzz")
    .description("run one of nestbox's own fuzzers")
    .argument("[name]", "which one (below)")
    .option("--kind <kind>", `the fuzzer of that name for another kind of IOMMU than ${DEFAULT_KIND}`)
    .option("--seed <n>", "first seed; the same seed does the same", seed, 1)
    .option(
      "--seconds <s>",
      `wall time of this process (default: ${DEFAULT_SECONDS}, unless --rounds is given)`,
      seconds,
    )
    .option("--rounds <n>", "seeds of the whole campaign, from the first one on", rounds)
    .addOption(shardOption())
    .option("--keep-going", `go on after a finding (${MOST_FINDINGS} at most)`)
    .option("--found <folder>", "write what reproduces a finding there, as a test, if the fuzzer makes one")
    .addOption(
      new Option("--round-limit <time>", "wall time after which one round is a finding")
        .argParser(duration)
        .default(600e9, "10m"),
    )
    .option("--result <file|folder>", "write what came of it there, for nestbox report merge")
    .option("--json", "one JSON object a finding, and one at the end, instead of text")
    .addHelpText("after", () => `\nFuzzers:\n${listed()}\n\n${EXAMPLES}`)
    .action(async (name: string | undefined, options: FuzzOptions) => {
      verdictPending();
      process.exitCode = await run(name === undefined ? name : ofKind(name, options.kind), options);
    });
}

/** Fuzzers of the default kind have plain names, those of another begin with it. */
function ofKind(name: string, kind: string = DEFAULT_KIND): string {
  return kind === DEFAULT_KIND ? name : `${kind}-${name}`;
}

const EXAMPLES = `Examples:
  nestbox fuzz viommu --seconds 60             a minute, from seed 1
  nestbox fuzz viommu --kind smmuv3            the same of an SMMUv3: smmuv3-viommu
  nestbox fuzz ioctl --seed 4711 --rounds 1    one seed again
  nestbox fuzz caches --rounds 100000 --shard 2/8 --result results/

Exit status: 0 no finding, 1 a finding or ended by a signal, 2 usage.`;

function listed(): string {
  const fuzzers = [...knownFuzzers()];
  const width = Math.max(...fuzzers.map(([name]) => name.length));
  return fuzzers.map(([name, about]) => `  ${name.padEnd(width)}  ${about}`).join("\n");
}

async function run(name: string | undefined, options: FuzzOptions): Promise<number> {
  const known = knownFuzzers();
  if (name === undefined || !known.has(name)) {
    const wrong = name === undefined ? "fuzz: which fuzzer?" : `fuzz ${name}: no such fuzzer;`;
    throw new UsageError(`${wrong} there are ${[...known.keys()].join(", ")} (nestbox fuzz --help)`);
  }
  const fuzzer = await loadFuzzer(name);
  const termination = new Termination();
  const progress = new Progress();
  let file: ResultFile | null = null;
  try {
    if (options.result !== undefined) file = new ResultFile(options.result, options.shard);
    const result = await runCampaign(fuzzer, {
      seed: options.seed,
      rounds: options.rounds ?? Number.POSITIVE_INFINITY,
      seconds: options.seconds ?? (options.rounds === undefined ? DEFAULT_SECONDS : Number.POSITIVE_INFINITY),
      shard: options.shard,
      mostFindings: options.keepGoing === true ? MOST_FINDINGS : 1,
      roundLimit: options.roundLimit,
      interrupted: () => termination.signal !== null,
      found: (finding) => {
        progress.clear();
        report(name, finding, options);
      },
      progress: (done, at) => progress.show(`${done.toLocaleString("en")} rounds, now seed ${at}`),
    });
    progress.clear();
    file?.write(shardResult(name, result, options));
    summarise(name, result, options);
    // As with `boot`: what a signal ended has not passed.
    return result.findings.length === 0 && !result.interrupted ? EXIT_PASS : EXIT_FAILED;
  } finally {
    file?.discard();
    termination.close();
  }
}

function report(name: string, finding: SeedFinding, options: FuzzOptions): void {
  const test =
    finding.test !== undefined && options.found !== undefined ? keep(finding.test, options.found) : undefined;
  const again = repeat(name, finding.seed);
  if (options.json === true) {
    const { seed, problem } = finding;
    console.log(
      JSON.stringify({ fuzzer: name, seed, problem, repeat: again, ...(test === undefined ? {} : { test }) }),
    );
    return;
  }
  console.log(`fuzz ${name}: seed ${finding.seed}: ${finding.problem}`);
  console.log(`  again: ${again}`);
  if (test !== undefined) console.log(`  as a test: ${test}`);
  else if (finding.test !== undefined) console.log("  as a test: with --found FOLDER");
}

function keep(test: { readonly file: string; readonly text: string }, folder: string): string {
  const path = join(folder, test.file);
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(path, test.text);
  } catch (error) {
    throw new UsageError(`--found ${path}: ${fileProblem(error)}`);
  }
  return path;
}

function summarise(name: string, result: CampaignResult, options: FuzzOptions): void {
  const { rounds: done, findings, counts, interrupted, wallMs } = result;
  const { seed: first, shard } = options;
  if (options.json === true) {
    const summary = { rounds: done, findings: findings.length, interrupted, wallSeconds: wallMs / 1000, counts };
    console.log(JSON.stringify({ fuzzer: name, seed: first, shard, ...summary }));
    return;
  }
  const part = shard.count === 1 ? "" : `, shard ${shard.index}/${shard.count}`;
  const details = Object.entries(counts).map(([what, number]) => `${number.toLocaleString("en")} ${what}`);
  const found =
    findings.length === 0 ? "no finding" : `${findings.length} ${findings.length === 1 ? "FINDING" : "FINDINGS"}`;
  const early = interrupted ? ", interrupted" : "";
  console.log(
    `fuzz ${name}: ${found} in ${[`${done.toLocaleString("en")} rounds from seed ${first}${part}`, ...details].join(", ")}; ` +
      `${(wallMs / 1000).toFixed(1)} s${early}`,
  );
}

function shardResult(name: string, result: CampaignResult, options: FuzzOptions): ShardResult {
  const { seed: first, rounds: wanted, shard } = options;
  const seconds = result.wallMs / 1000;
  const whole: TestCase = {
    classname: `fuzz ${name}`,
    name: `shard ${shard.index}/${shard.count} from seed ${first}`,
    seconds,
  };
  const found = result.findings.map(
    ({ seed, problem }): TestCase => ({
      classname: `fuzz ${name}`,
      name: `seed ${seed}`,
      seconds: 0,
      failure: {
        kind: "finding",
        message: problem.split("\n")[0]!,
        text: `${problem}\nagain: ${repeat(name, seed)}`,
      },
    }),
  );
  return {
    format: 1,
    nestbox: version(),
    campaign: { verb: "fuzz", fuzzer: name, seed: first, rounds: wanted ?? null },
    shard,
    interrupted: result.interrupted,
    seconds,
    counts: { rounds: result.rounds, ...result.counts },
    cases: [whole, ...found],
  };
}

function repeat(name: string, seed: number): string {
  return `nestbox fuzz ${name} --seed ${seed} --rounds 1`;
}

function seed(text: string): number {
  const value = wholeNumber(text);
  if (value >= 2 ** 32) throw new InvalidArgumentError("a seed is below 2^32");
  return value;
}

function rounds(text: string): number {
  const value = wholeNumber(text);
  if (value < 1 || value > Number.MAX_SAFE_INTEGER) throw new InvalidArgumentError("expected a whole number above 0");
  return value;
}

function seconds(text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text) || !(Number(text) > 0)) throw new InvalidArgumentError("expected a number above 0");
  return Number(text);
}

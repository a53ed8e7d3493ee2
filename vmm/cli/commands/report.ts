// `nestbox report merge PATHS…`: one report of the result files that the shards of a campaign wrote.

import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { printable } from "../../../host/base/printable.ts";
import { EXIT_FAILED, EXIT_PASS, UsageError } from "../exit-codes.ts";
import { fileProblem } from "../input-file.ts";
import { junitXml } from "../junit.ts";
import { type MergedResult, mergeResults } from "../merge-results.ts";
import { type Campaign, readResult, type ShardResult } from "../result-file.ts";
import { colours, fitted } from "../terminal.ts";

interface MergeOptions {
  readonly junit?: string;
  readonly json?: true;
}

export function report(): Command {
  const command = new Command("report").description("put results together");
  command
    .command("merge")
    .description("merge the results of a campaign's shards; fails if one is missing, was ended early, or failed")
    .argument("<paths...>", "files written by --result, or folders of them")
    .option("--junit <file>", "write everything as one JUnit XML document")
    .option("--json", "print the summary as JSON")
    .action((paths: string[], options: MergeOptions) => {
      const files = new Map<string, ShardResult>();
      for (const path of paths.flatMap(resultFiles)) files.set(path, readResult(path));
      const merged = mergeResults(files);
      if (options.junit !== undefined) writeText(options.junit, junitXml(merged.cases));
      console.log(options.json === true ? JSON.stringify(summaryOf(merged)) : summaryText(merged));
      process.exitCode = merged.cases.some(({ failure }) => failure !== undefined) ? EXIT_FAILED : EXIT_PASS;
    });
  return command;
}

/** The file, or the folder's `*.json` files, at any depth. */
function resultFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const names = readdirSync(path, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".json"));
    if (names.length === 0) throw new UsageError(`${path}: no result (*.json) in this folder`);
    return names.sort().map((name) => join(path, name));
  } catch (error) {
    throw error instanceof UsageError ? error : new UsageError(`${path}: ${fileProblem(error)}`);
  }
}

function summaryOf(merged: MergedResult) {
  const { campaign, shards, missing, interrupted, cases, seconds, counts } = merged;
  const failures = cases.flatMap(({ classname, name, failure }) =>
    failure === undefined ? [] : [{ classname, name, kind: failure.kind, message: failure.message }],
  );
  return {
    ...{ campaign, shards, missing, interrupted },
    ...{ tests: cases.length, passed: cases.length - failures.length, failed: failures.length },
    ...{ wallSeconds: seconds, counts: Object.fromEntries(counts), failures },
  };
}

/** Failures that are listed; the JUnit document has them all. */
const LISTED = 50;

function summaryText(merged: MergedResult): string {
  const { passed, failed, failures } = summaryOf(merged);
  const lines = failures
    .slice(0, LISTED)
    .map(({ classname, name, message }) => `${colours.red("FAIL")} ${printable(`${classname}: ${name}: ${message}`)}`);
  if (failures.length > LISTED) lines.push(`… and ${failures.length - LISTED} more (--junit FILE, --json)`);
  const counts = [...merged.counts].map(([what, number]) => `${number.toLocaleString("en")} ${what}`);
  const shards = `${merged.shards - merged.missing.length} of ${merged.shards} shards`;
  lines.push(printable([`${campaignName(merged.campaign)}: ${shards}`, ...counts].join(", ")));
  const verdict = `${passed} passed, ${failed} failed`;
  lines.push(failed === 0 ? colours.green(verdict) : colours.red(verdict));
  return lines.map((line) => fitted(line)).join("\n");
}

function campaignName(campaign: Campaign): string {
  if (campaign.verb === "fuzz") return `fuzz ${campaign.fuzzer} from seed ${campaign.seed}`;
  return `scenario ${campaign.files.join(" ")}`;
}

function writeText(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new UsageError(`--junit ${file}: ${fileProblem(error)}`);
  }
}

// What is said of a scenario that was run: as text for a person, as JSON, or as a test case for CI systems.

import type { ScenarioResult } from "../scenario/run-scenario.ts";
import { lastCauses } from "../view/trace-text.ts";
import type { TestCase } from "./junit.ts";
import type { SourceFrame } from "./source-positions.ts";
import { colours, fitted } from "./terminal.ts";

export interface ScenarioReport {
  readonly file: string;
  readonly result: ScenarioResult;
  readonly wallMs: number;
  /** File with its trace. */
  readonly trace: string | null;
  /** Where it failed in the user's source, innermost first; or where the scenario was declared. */
  readonly frames: readonly SourceFrame[];
}

/** Columns under which everything about a scenario stands. */
const INDENT = "     ";

/** "file:line:column, in step "name"": where a scenario failed. */
export function failurePlace({ file, result, frames }: ScenarioReport): string {
  const step = result.steps.at(-1);
  return `${frames[0]?.position ?? file}${step === undefined ? "" : `, in step "${step}"`}`;
}

/** A line for each function of the user's on the way there. */
export function stackLines(report: ScenarioReport): string[] {
  const lines = report.frames.map(({ name, position }) =>
    name === "" ? `at ${position}` : `at ${name} (${position})`,
  );
  // Recursion says the same over and over.
  return lines.filter((line, index) => line !== lines[index - 1]);
}

export function reportText(report: ScenarioReport): string {
  const { result, trace } = report;
  const head = (word: string) => fitted(`${word} ${result.name.replace(/\s+/g, " ")}`, INDENT.length);
  if (result.passed) return head(colours.green("ok  "));
  const lines = [`${failurePlace(report)}: ${result.message}`];
  // The first frame is in the line above.
  lines.push(...stackLines(report).slice(1, 4));
  lines.push(...result.messages.slice(-5).map((message) => `reported: ${message}`));
  const causes = lastCauses(result.recent, 12);
  if (causes.length > 0) lines.push("what happened last:", ...causes);
  if (trace !== null) lines.push(`trace: ${trace}`);
  return [head(colours.red("FAIL")), ...lines.map((line) => fitted(`${INDENT}${line}`))].join("\n");
}

export function reportJson(report: ScenarioReport): string {
  const { recent: _recent, stack: _stack, ...shown } = report.result;
  const { file, trace, frames } = report;
  const failure = shown.passed ? {} : { at: frames[0]?.position ?? file, step: shown.steps.at(-1) ?? null };
  return JSON.stringify({ file, ...shown, ...failure, ...(trace === null ? {} : { trace }) });
}

export function testCase(report: ScenarioReport): TestCase {
  const { file, result, wallMs, frames } = report;
  const place = frames[0] === undefined ? {} : { file: frames[0].file, line: frames[0].line };
  const about = { classname: file, name: result.name, seconds: wallMs / 1000, ...place };
  if (result.passed) return about;
  const text = [`${failurePlace(report)}: ${result.message}`, ...stackLines(report)].join("\n");
  return { ...about, failure: { kind: result.kind, message: result.message, text } };
}

/**
 * A scenario is everything that a comparison needs: implementation, memory, and steps (requests, stores by software, invalidations). It runs on a
 * subject and the oracle side by side, and has a text form, so that a finding can be kept as a test.
 */

import { copyMemory, type Injected, type Memory } from "../../memory.ts";
import { storedWords } from "../../stores.ts";
import { allowedOutcomes, allowedOutcomesWithCaches, allowedPageRequestOutcomes } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
import type { Configuration } from "../generate/configuration.ts";
import type { CacheSize, Sequence, Step } from "../generate/sequence.ts";
import type { Implementation } from "../implementation.ts";
import type { DirectoryPointer, Outcome, Request } from "../outcome.ts";
import type { PageRequest } from "../page-request.ts";
import { compare, MESSAGE_IDENTITY, type Verdict } from "./compare.ts";
import { compareDebug, wrongPageRequest } from "./compare-interfaces.ts";
import type { MakeSubject, Observed, Subject } from "./subject.ts";

export interface Scenario {
  readonly implementation: Implementation;
  readonly ddtp: DirectoryPointer;
  readonly memory: Memory;
  readonly steps: readonly Step[];
  /** With "none" every answer must be fresh. */
  readonly caches: CacheSize;
}

/** Every fourth untranslated request goes to the debug interface; page requests come last. */
export function scenarioOfConfiguration({ requests, pageRequests, ...rest }: Configuration): Scenario {
  const steps = requests.map((request, index): Step => {
    if (request.type !== "untranslated" || index % 4 !== 0) return { kind: "request", request };
    return { kind: "debug", request: { ...request, iova: request.iova & ~0xfffn } };
  });
  for (const pageRequest of pageRequests) steps.push({ kind: "page-request", pageRequest });
  return { ...rest, caches: "none", steps };
}

export function scenarioOfSequence(sequence: Sequence): Scenario {
  return sequence;
}

/** The reason of a disagreement that is no wrong answer. */
export const STOPPED = "the command queue stopped";

export interface Disagreement {
  readonly step: number;
  readonly why: string;
}

export interface Tally {
  requests: number;
  /** Requests with too many permitted outcomes to enumerate; they were not compared. */
  open: number;
  /** Requests for which more than one outcome was permitted. */
  stale: number;
}

/** Runs a scenario; the first disagreement, or null. A scenario the subject cannot be configured for agrees. */
export function run(scenario: Scenario, make: MakeSubject, tally?: Tally): Disagreement | null {
  const { implementation, ddtp, steps, caches } = scenario;
  const subject = make(implementation, ddtp, scenario.memory, caches);
  if (subject === null) return null;
  const memory = copyMemory(scenario.memory);
  const history = new MemoryHistory(memory);
  for (const [index, step] of steps.entries()) {
    if (step.kind === "change") {
      subject.store(step.words);
      history.change(step.words);
      for (const command of step.must) {
        if (!subject.invalidate(command)) return { step: index, why: STOPPED };
        history.invalidate(command);
      }
      continue;
    }
    if (step.kind === "invalidate") {
      if (!subject.invalidate(step.command)) return { step: index, why: STOPPED };
      history.invalidate(step.command);
      continue;
    }
    if (step.kind === "page-request") {
      const { pageRequest } = step;
      const past = caches === "none" ? memory : history;
      const outcomes = allowedPageRequestOutcomes(implementation, ddtp, past, pageRequest);
      const observed = subject.pageRequest(pageRequest);
      const why = outcomes === null ? null : wrongPageRequest(observed, pageRequest, outcomes);
      if (why !== null) return { step: index, why };
      continue;
    }
    const { request } = step;
    const outcomes =
      caches === "none"
        ? allowedOutcomes(implementation, ddtp, memory, request)
        : allowedOutcomesWithCaches(implementation, ddtp, history, request);
    if (tally !== undefined) {
      tally.requests++;
      if (outcomes === null) tally.open++;
      else if (outcomes.length > 1) tally.stale++;
    }
    const asked = step.kind === "debug" ? askDebug(subject, memory, request) : askPlainly(subject, memory, request);
    if (outcomes === null) {
      history.change(storedWords(subject, memory, asked.observed));
      continue;
    }
    const verdict = asked.judge(outcomes);
    if (!verdict.agrees) return { step: index, why: verdict.why };
    history.change(verdict.changed);
  }
  return null;
}

interface Asked {
  readonly observed: Observed;
  readonly judge: (outcomes: readonly Outcome[]) => Verdict;
}

function askPlainly(subject: Subject, memory: Memory, request: Request): Asked {
  const observed = subject.request(request, MESSAGE_IDENTITY);
  return { observed, judge: (outcomes) => compare(subject, memory, request, observed, outcomes) };
}

function askDebug(subject: Subject, memory: Memory, request: Request): Asked {
  const observed = subject.debug(request);
  return { observed, judge: (outcomes) => compareDebug(subject, memory, observed, outcomes) };
}

/** Text of a scenario: JSON with bigints as hexadecimal strings. */
export function scenarioText(scenario: Scenario): string {
  const { implementation, ddtp, memory, steps, caches } = scenario;
  const plain = {
    implementation,
    ddtp,
    pages: [...memory.pages],
    words: [...memory.words],
    injected: [...memory.injected],
    steps,
    caches,
  };
  return JSON.stringify(plain, (_key, value) => (typeof value === "bigint" ? `0x${value.toString(16)}` : value));
}

export function scenarioFromText(text: string): Scenario {
  const plain = JSON.parse(text, (_key, value) =>
    typeof value === "string" && /^0x[0-9a-f]+$/.test(value) ? BigInt(value) : value,
  ) as {
    implementation: Implementation;
    ddtp: DirectoryPointer;
    pages: bigint[];
    words: [bigint, bigint][];
    injected: [bigint, Injected][];
    steps: Step[];
    caches: CacheSize;
  };
  const { pages, words, injected, ...rest } = plain;
  return { ...rest, memory: { pages: new Set(pages), words: new Map(words), injected: new Map(injected) } };
}

/** A scenario for people: one line a step, one line a word. */
export function describeScenario(scenario: Scenario): string[] {
  const hex = (value: bigint) => `0x${value.toString(16)}`;
  const { implementation, ddtp, memory } = scenario;
  const lines = [
    `capabilities ${hex(implementation.capabilities)} be ${implementation.be} gxl ${implementation.gxl} ddtp ${ddtp.mode} ${hex(ddtp.ppn << 12n)} caches ${scenario.caches}`,
  ];
  for (const [at, value] of [...memory.words].sort(([a], [b]) => (a < b ? -1 : 1)))
    lines.push(`  [${hex(at)}] = ${hex(value)}`);
  for (const [at, what] of memory.injected) lines.push(`  [${hex(at)}]: ${what}`);
  for (const step of scenario.steps) {
    if (step.kind === "debug") lines.push(`  debug ${describeRequest(step.request)}`);
    else if (step.kind === "page-request") lines.push(`  page request ${describePageRequest(step.pageRequest)}`);
    else if (step.kind === "request") lines.push(`  ask ${describeRequest(step.request)}`);
    else if (step.kind === "invalidate") lines.push(`  command ${hex(step.command[0])} ${hex(step.command[1])}`);
    else {
      lines.push(`  store ${step.words.map(([at, value]) => `[${hex(at)}] = ${hex(value)}`).join(", ")}`);
      for (const [low, high] of step.must) lines.push(`    with command ${hex(low)} ${hex(high)}`);
    }
  }
  return lines;
}

function describeRequest(request: Request): string {
  const { type, access, deviceId, processId, privileged, iova, noWrite, executeRequested } = request;
  const what =
    type === "ats" ? `ATS${noWrite ? " no-write" : ""}${executeRequested ? " exe" : ""}` : `${type} ${access}`;
  const who = `device 0x${deviceId.toString(16)}${processId === null ? "" : ` process 0x${processId.toString(16)}`}`;
  return `${what} ${who}${privileged ? " privileged" : ""} at 0x${iova.toString(16)}`;
}

function describePageRequest(request: PageRequest): string {
  const shown = Object.entries(request).map(
    ([name, value]) => `${name} ${typeof value === "bigint" ? `0x${value.toString(16)}` : value}`,
  );
  return shown.join(", ");
}

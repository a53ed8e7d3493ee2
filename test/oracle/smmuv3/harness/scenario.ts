/**
 * A scenario is everything that a comparison needs: an SMMU, its programming, memory, and steps (requests, stores by software, invalidations). It runs on a
 * subject and the oracle side by side, and has a text form, so that a finding can be kept as a test.
 */
import { copyMemory, type Injected, type Memory } from "../../memory.ts";
import { hex, storedWords } from "../../stores.ts";
import type { CacheSize, MakeSubject } from "../adapter.ts";
import { allowedOutcomes, allowedOutcomesWithCaches } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
import type { Step } from "../generate/sequence.ts";
import type { World } from "../generate/world.ts";
import type { Identification, Programming } from "../identification.ts";
import type { Request } from "../outcome.ts";
import { compare } from "./compare.ts";

export interface Scenario {
  readonly identification: Identification;
  readonly programming: Programming;
  readonly memory: Memory;
  readonly steps: readonly Step[];
  /** With "none" every answer must be fresh. */
  readonly caches: CacheSize;
}

export function scenarioOfWorld({ requests, ...rest }: World): Scenario {
  return { ...rest, caches: "none", steps: requests.map((request) => ({ kind: "request", request })) };
}

export interface Disagreement {
  readonly step: number;
  readonly why: string;
}

export interface Tally {
  requests: number;
  /** Requests with too many permitted outcomes to enumerate; they were not compared. */
  open: number;
  /** Requests for which more than one outcome was permitted. */
  several: number;
  /** What the oracle expected, by kind of answer or event number. */
  readonly answers: Map<string, number>;
}

export function emptyTally(): Tally {
  return { requests: 0, open: 0, several: 0, answers: new Map() };
}

/** Runs a scenario; the first disagreement, or null. A scenario the subject cannot be configured for agrees. */
export function run(scenario: Scenario, make: MakeSubject, tally?: Tally): Disagreement | null {
  const { identification, programming, steps, caches } = scenario;
  const subject = make(identification, programming, scenario.memory, caches);
  if (subject === null) return null;
  const memory = copyMemory(scenario.memory);
  const history = new MemoryHistory(memory);
  for (const [index, step] of steps.entries()) {
    if (step.kind === "store") {
      subject.store(step.words);
      history.change(step.words);
      continue;
    }
    if (step.kind === "command") {
      if (!subject.invalidate(step.command)) return { step: index, why: "the command queue stopped" };
      history.invalidate(step.command);
      continue;
    }
    const outcomes =
      caches === "none"
        ? allowedOutcomes(identification, programming, memory, step.request)
        : allowedOutcomesWithCaches(identification, programming, history, step.request);
    const observed = subject.request(step.request);
    if (tally !== undefined) {
      tally.requests++;
      if (outcomes === null) tally.open++;
      else {
        if (outcomes.length > 1) tally.several++;
        const { record, result } = outcomes[0]!;
        const what = record === null ? result.kind : `event 0x${(record.doublewords[0]! & 0xffn).toString(16)}`;
        tally.answers.set(what, (tally.answers.get(what) ?? 0) + 1);
      }
    }
    if (outcomes === null) {
      history.change(storedWords(subject, memory, observed));
      continue;
    }
    const verdict = compare(subject, memory, observed, outcomes);
    if (!verdict.agrees) return { step: index, why: verdict.why };
    history.change(verdict.changed);
  }
  return null;
}

/** Text of a scenario: JSON with bigints as hexadecimal strings. */
export function scenarioText({ memory, ...rest }: Scenario): string {
  const { pages, words, injected } = memory;
  const plain = { ...rest, pages: [...pages], words: [...words], injected: [...injected] };
  return JSON.stringify(plain, (_key, value) => (typeof value === "bigint" ? hex(value) : value));
}

export function scenarioFromText(text: string): Scenario {
  const plain = JSON.parse(text, (_key, value) =>
    typeof value === "string" && /^0x[0-9a-f]+$/.test(value) ? BigInt(value) : value,
  ) as Omit<Scenario, "memory"> & { pages: bigint[]; words: [bigint, bigint][]; injected: [bigint, Injected][] };
  const { pages, words, injected, ...rest } = plain;
  return { ...rest, memory: { pages: new Set(pages), words: new Map(words), injected: new Map(injected) } };
}

/** A scenario for people: one line a step, one line a doubleword. */
export function describeScenario({ identification, programming, memory, steps, caches }: Scenario): string[] {
  const registers = Object.entries({ ...identification, ...programming }).map(
    ([name, value]) => `${name} ${hex(value)}`,
  );
  const lines = [`${registers.join(" ")} caches ${caches}`];
  for (const [at, value] of [...memory.words].sort(([a], [b]) => (a < b ? -1 : 1)))
    if (value !== 0n) lines.push(`  [${hex(at)}] = ${hex(value)}`);
  for (const [at, what] of memory.injected) lines.push(`  [${hex(at)}]: ${what}`);
  for (const step of steps) {
    if (step.kind === "store")
      lines.push(`  store ${step.words.map(([at, value]) => `[${hex(at)}] = ${hex(value)}`).join(", ")}`);
    else if (step.kind === "command") lines.push(`  command ${hex(step.command[0])} ${hex(step.command[1])}`);
    else lines.push(`  ask ${describeRequest(step.request)}`);
  }
  return lines;
}

function describeRequest({ kind, sid, ssid, privileged, instruction, write, iova }: Request): string {
  const flags = [write && "write", instruction && "instruction", privileged && "privileged"].filter(Boolean);
  const who = `SID ${hex(sid)}${ssid === null ? "" : ` SSID ${hex(ssid)}`}`;
  return `${[kind, ...flags].join(" ")} ${who} at ${hex(iova)}`;
}

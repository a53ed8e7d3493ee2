/**
 * A scenario is everything that a comparison needs: a unit, its programming, memory, and steps (requests, interrupts, stores by software, invalidations). It
 * runs on a subject and the oracle side by side, and has a text form, so that a finding can be kept as a test.
 */
import { copyMemory, type Injected, type Memory } from "../../memory.ts";
import { hex, storedWords } from "../../stores.ts";
import type { CacheSize, MakeSubject } from "../adapter.ts";
import { allowedInterrupts, allowedOutcomes, allowedOutcomesWithCaches } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
import type { Identification, Programming } from "../capabilities.ts";
import type { InterruptRequest } from "../interrupt.ts";
import type { Descriptor } from "../invalidation.ts";
import type { Request } from "../outcome.ts";
import { compare, wrongInterrupt } from "./compare.ts";

export type Step =
  | { readonly kind: "request"; readonly request: Request }
  | { readonly kind: "interrupt"; readonly request: InterruptRequest }
  | { readonly kind: "store"; readonly words: readonly (readonly [bigint, bigint])[] }
  /** Followed by a wait. */
  | { readonly kind: "descriptor"; readonly descriptor: Descriptor };

export interface Scenario {
  readonly identification: Identification;
  readonly programming: Programming;
  readonly memory: Memory;
  readonly steps: readonly Step[];
  /** With "none" every answer must be fresh. */
  readonly caches: CacheSize;
}

export interface Disagreement {
  readonly step: number;
  readonly why: string;
}

export interface Tally {
  requests: number;
  /** Scenarios that the subject cannot be configured for. */
  notMade: number;
  /** Requests with too many permitted outcomes to enumerate; they were not compared. */
  open: number;
  /** Requests for which more than one outcome was permitted. */
  several: number;
  /** What the oracle expected, by kind of answer or fault reason. */
  readonly answers: Map<string, number>;
}

export function emptyTally(): Tally {
  return { requests: 0, notMade: 0, open: 0, several: 0, answers: new Map() };
}

/** Runs a scenario; the first disagreement, or null. A scenario the subject cannot be configured for agrees. */
export function run(scenario: Scenario, make: MakeSubject, tally: Tally = emptyTally()): Disagreement | null {
  const { identification, programming, steps, caches } = scenario;
  const subject = make(identification, programming, scenario.memory, caches);
  if (subject === null) {
    tally.notMade++;
    return null;
  }
  const memory = copyMemory(scenario.memory);
  const history = new MemoryHistory(memory);
  const note = (outcomes: readonly unknown[] | null, what: string) => {
    tally.requests++;
    if (outcomes === null) tally.open++;
    else if (outcomes.length > 1) tally.several++;
    tally.answers.set(what, (tally.answers.get(what) ?? 0) + 1);
  };
  for (const [index, step] of steps.entries()) {
    if (step.kind === "store") {
      subject.store(step.words);
      history.change(step.words);
      continue;
    }
    if (step.kind === "descriptor") {
      if (!subject.invalidate(step.descriptor)) return { step: index, why: "the invalidation queue stopped" };
      history.invalidate(step.descriptor);
      continue;
    }
    if (step.kind === "interrupt") {
      const from = caches === "none" ? memory : history;
      const outcomes = allowedInterrupts(identification, programming, from, step.request);
      const observed = subject.interrupt(step.request);
      note(outcomes, `interrupt ${outcomes?.[0]?.result.kind}`);
      const why = outcomes === null ? null : wrongInterrupt(observed, outcomes);
      if (why !== null) return { step: index, why };
      continue;
    }
    const outcomes =
      caches === "none"
        ? allowedOutcomes(identification, programming, memory, step.request)
        : allowedOutcomesWithCaches(identification, programming, history, step.request);
    const observed = subject.request(step.request);
    if (outcomes === null) {
      note(null, "open");
      history.change(storedWords(subject, memory, observed));
      continue;
    }
    const { record, result } = outcomes[0]!;
    note(outcomes, record === null ? result.kind : `fault ${hex((record.quadwords[1] >> 32n) & 0xffn)}`);
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

/** A scenario for people: one line a step, one line a quadword. */
export function describeScenario({ identification, programming, memory, steps, caches }: Scenario): string[] {
  const registers = Object.entries({ ...identification, ...programming }).map(
    ([name, value]) => `${name} ${typeof value === "bigint" ? hex(value) : value}`,
  );
  const lines = [`${registers.join(" ")} caches ${caches}`];
  for (const [at, value] of [...memory.words].sort(([a], [b]) => (a < b ? -1 : 1)))
    if (value !== 0n) lines.push(`  [${hex(at)}] = ${hex(value)}`);
  for (const [at, what] of memory.injected) lines.push(`  [${hex(at)}]: ${what}`);
  for (const step of steps) {
    if (step.kind === "store")
      lines.push(`  store ${step.words.map(([at, value]) => `[${hex(at)}] = ${hex(value)}`).join(", ")}`);
    else if (step.kind === "descriptor") lines.push(`  descriptor ${step.descriptor.map(hex).join(" ")}`);
    else if (step.kind === "interrupt") {
      const { sid, address, data } = step.request;
      lines.push(`  interrupt of ${hex(sid)}: ${hex(address)} ${hex(data)}`);
    } else lines.push(`  ask ${describeRequest(step.request)}`);
  }
  return lines;
}

function describeRequest({ kind, sid, pasid, privileged, access, address }: Request): string {
  const who = `SID ${hex(sid)}${pasid === null ? "" : ` PASID ${hex(pasid)}`}`;
  return `${kind} ${access}${privileged ? " privileged" : ""} ${who} at ${hex(address)}`;
}

/** The harness itself: it accepts the oracle, finds planted faults, and makes them small. */
import { describe, expect, it } from "vitest";
import { CAPABILITY } from "../implementation.ts";
import { decodeInvalidation } from "../invalidation.ts";
import { huntSeed, type Kind, scenarioOfSeed } from "./hunt.ts";
import { type Mutation, oracleSubject } from "./oracle-subject.ts";
import { run, scenarioFromText, scenarioText, type Tally } from "./scenario.ts";

/** Seeds tried until one disagrees; what was logged then. */
function firstFinding(kind: Kind, mutation: Mutation, seeds: number): string[] | null {
  const lines: string[] = [];
  for (let seed = 1; seed <= seeds; seed++) {
    if (!huntSeed(kind, seed, oracleSubject(mutation), (line) => lines.push(line))) return lines;
  }
  return null;
}

describe("the harness", () => {
  it("accepts the oracle as an implementation, without caches", () => {
    for (let seed = 1; seed <= 15; seed++)
      expect(huntSeed("configurations", seed, oracleSubject(), console.log)).toBe(true);
  });

  it("accepts the most stale legal implementation, and never finds too many outcomes to enumerate", () => {
    const tally: Tally = { requests: 0, open: 0, stale: 0 };
    for (let seed = 1; seed <= 15; seed++)
      expect(huntSeed("sequences", seed, oracleSubject(), console.log, tally)).toBe(true);
    expect(tally.open).toBeLessThan(tally.requests / 100);
    expect(tally.stale).toBeGreaterThan(tally.requests / 20);
  });

  const wrong: [string, Kind, Mutation][] = [
    [
      "bit 54 of entries is not checked as long as PBMT is unknown",
      "configurations",
      { implementation: (actual) => ({ ...actual, capabilities: actual.capabilities & ~(1n << CAPABILITY.Svpbmt) }) },
    ],
    [
      "supervisor requests are taken for user ones",
      "configurations",
      { request: (request) => ({ ...request, privileged: false }) },
    ],
    ["A and D are not written", "configurations", { outcome: (outcome) => ({ ...outcome, writes: [] }) }],
    [
      "iotval2 lacks its bit 0",
      "configurations",
      {
        outcome: (outcome) =>
          outcome.record === null
            ? outcome
            : { ...outcome, record: { ...outcome.record, iotval2: outcome.record.iotval2 & ~1n } },
      },
    ],
    ["INVAL_PDT does nothing", "sequences", { obeys: (command) => decodeInvalidation(command)?.kind !== "pdt" }],
    ["GVMA does nothing", "sequences", { obeys: (command) => decodeInvalidation(command)?.kind !== "gvma" }],
    [
      "VMA by address does nothing",
      "sequences",
      {
        obeys(command) {
          const decoded = decodeInvalidation(command);
          return decoded?.kind !== "vma" || decoded.range === null;
        },
      },
    ],
  ];
  it.each(wrong)("finds that %s, and makes it small", (_name, kind, mutation) => {
    const lines = firstFinding(kind, mutation, 400);
    expect(lines).not.toBeNull();
    const minimal = scenarioFromText(lines!.at(-1)!.replace("as a test: ", ""));
    expect(run(minimal, oracleSubject(mutation))).not.toBeNull();
    expect(run(minimal, oracleSubject())).toBeNull();
    expect(minimal.steps.length).toBeLessThanOrEqual(6);
    expect(minimal.memory.words.size).toBeLessThanOrEqual(28);
  });

  it("writes scenarios as text and reads them back", () => {
    for (const kind of ["configurations", "sequences"] as const) {
      const scenario = scenarioOfSeed(kind, 3);
      expect(scenarioFromText(scenarioText(scenario))).toEqual({
        ...scenario,
        memory: { ...scenario.memory, words: new Map(scenario.memory.words) },
      });
    }
  });
});

/** What the harness must be able to see: the oracle as a unit is made wrong in one way after the other. */
import { describe, expect, it } from "vitest";
import { huntSeed, type Kind, scenarioOfSeed } from "./hunt.ts";
import { type Mutation, oracleSubject } from "./oracle-subject.ts";
import { emptyTally, run, scenarioFromText, scenarioText } from "./scenario.ts";

function firstFinding(kind: Kind, mutation: Mutation, seeds: number): string[] | null {
  for (let seed = 1; seed <= seeds; seed++) {
    const lines: string[] = [];
    if (!huntSeed(kind, seed, oracleSubject(mutation), (line) => lines.push(line))) return lines;
  }
  return null;
}

describe("the harness on the oracle itself", () => {
  it("agrees, and worlds reach most fault reasons", () => {
    const tally = emptyTally();
    for (let seed = 1; seed <= 400; seed++)
      expect(huntSeed("worlds", seed, oracleSubject(), console.log, tally)).toBe(true);
    expect(tally.open).toBe(0);
    const missing = [
      ...[0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x0b, 0x0c, 0x0d, 0x30, 0x39, 0x41, 0x42, 0x44, 0x45, 0x46],
      ...[0x51, 0x59, 0x5a, 0x5b, 0x5d, 0x71, 0x72, 0x77, 0x79, 0x7a, 0x7c, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x90],
    ].filter((code) => !tally.answers.has(`fault 0x${code.toString(16)}`));
    expect(missing.map((code) => code.toString(16))).toEqual([]);
  }, 120_000);

  it("agrees on sequences", () => {
    const tally = emptyTally();
    for (let seed = 1; seed <= 40; seed++)
      expect(huntSeed("sequences", seed, oracleSubject(), console.log, tally)).toBe(true);
    expect(tally.several).toBeGreaterThan(tally.requests / 20);
    expect(tally.open).toBeLessThan(tally.requests / 50);
  }, 120_000);

  const wrong: readonly (readonly [string, Mutation])[] = [
    ["writes are reads", { request: (request) => ({ ...request, access: "read" }) }],
    ["PASIDs do not count", { request: (request) => ({ ...request, pasid: null }) }],
    ["no privilege", { request: (request) => ({ ...request, privileged: false }) }],
    ["records are lost", { outcome: (outcome) => ({ ...outcome, record: null }) }],
    ["flags are not set", { outcome: (outcome) => ({ ...outcome, updates: [] }) }],
    ["no nesting", { identification: (id) => ({ ...id, ECAP: id.ECAP & ~(1n << 26n) }) }],
    ["SNP is reserved", { identification: (id) => ({ ...id, ECAP: id.ECAP & ~(1n << 7n) }) }],
    ["CFIS does not count", { programming: (registers) => ({ ...registers, CFIS: true }) }],
    ["SHV does not count", { interrupt: (request) => ({ ...request, address: request.address & ~8n }) }],
  ];
  it.each(wrong)(
    "finds that %s",
    (_name, mutation) => {
      expect(firstFinding("worlds", mutation, 200)).not.toBeNull();
    },
    120_000,
  );

  /** Types 1 2 4 6 7, and granularities of the two that matter most. */
  const deaf: readonly (readonly [string, bigint, bigint | null])[] = [
    ["context-cache invalidation", 1n, null],
    ["device-selective context-cache invalidation", 1n, 3n],
    ["IOTLB invalidation", 2n, null],
    ["page-selective IOTLB invalidation", 2n, 3n],
    ["interrupt entry cache invalidation", 4n, null],
    ["PASID-based IOTLB invalidation", 6n, null],
    ["page-selective PASID-based IOTLB invalidation", 6n, 3n],
    ["PASID-cache invalidation", 7n, null],
    ["PASID-cache invalidation of one PASID", 7n, 1n],
  ];
  it.each(deaf)(
    "finds that %s does nothing",
    (_name, type, granularity) => {
      const mutation: Mutation = {
        obeys: ([q0]) => (q0! & 0xfn) !== type || (granularity !== null && ((q0! >> 4n) & 3n) !== granularity),
      };
      const seeds = Array.from({ length: 200 }, (_, index) => index + 1);
      expect(seeds.some((seed) => run(scenarioOfSeed("sequences", seed), oracleSubject(mutation)) !== null)).toBe(true);
    },
    120_000,
  );

  it("makes a disagreement of caches small", () => {
    const lines = firstFinding("sequences", { obeys: ([q0]) => (q0! & 0xfn) !== 2n }, 80)!;
    const text = lines.find((line) => line.startsWith("as a test: "))!.slice("as a test: ".length);
    expect(scenarioFromText(text).steps.length).toBeLessThan(6);
  }, 120_000);

  it.each(["worlds", "sequences"] as const)("makes the same %s of a seed every time", (kind) => {
    expect(scenarioText(scenarioOfSeed(kind, 77))).toBe(scenarioText(scenarioOfSeed(kind, 77)));
  });
});

/** The harness itself: it accepts the oracle, finds planted faults, and makes them small. */
import { describe, expect, it } from "vitest";
import type { Outcome } from "../outcome.ts";
import { huntSeed, type Kind, scenarioOfSeed } from "./hunt.ts";
import { type Mutation, oracleSubject } from "./oracle-subject.ts";
import { emptyTally, run, scenarioFromText, scenarioText } from "./scenario.ts";

/** Seeds tried until one disagrees; what was logged then. */
function firstFinding(kind: Kind, mutation: Mutation, seeds: number): string[] | null {
  const lines: string[] = [];
  for (let seed = 1; seed <= seeds; seed++) {
    if (run(scenarioOfSeed(kind, seed), oracleSubject(mutation)) === null) continue;
    huntSeed(kind, seed, oracleSubject(mutation), (line) => lines.push(line));
    return lines;
  }
  return null;
}

/** An outcome whose record, if it has one, lacks some bits of a doubleword. */
function without(doubleword: number, mask: bigint): (outcome: Outcome) => Outcome {
  return (outcome) => {
    if (outcome.record === null) return outcome;
    const doublewords = outcome.record.doublewords.map((value, index) =>
      index === doubleword ? value & ~mask : value,
    );
    return { ...outcome, record: { ...outcome.record, doublewords } };
  };
}

describe("the harness", () => {
  it("accepts the oracle as an SMMU, in worlds where every event occurs and most requests get somewhere", () => {
    const tally = emptyTally();
    for (let seed = 1; seed <= 120; seed++)
      expect(huntSeed("worlds", seed, oracleSubject(), console.log, tally)).toBe(true);
    expect(tally.open).toBe(0);
    expect([...tally.answers.keys()].sort()).toEqual(
      [
        ...["0x2", "0x3", "0x4", "0x5", "0x6", "0x7", "0x8", "0x9", "0xa", "0xb", "0x10", "0x11", "0x12", "0x13"].map(
          (number) => `event ${number}`,
        ),
        ...["aborted", "ats", "raz-wi", "translated"],
      ].sort(),
    );
    expect(tally.answers.get("translated")).toBeGreaterThan(tally.requests / 10);
  });

  const wrong: [string, Mutation][] = [
    ["stage 2 knows one XN bit only", { identification: (id) => ({ ...id, IDR3: id.IDR3 & ~(1n << 4n) }) }],
    ["small translation tables are refused", { identification: (id) => ({ ...id, IDR3: id.IDR3 & ~(1n << 9n) }) }],
    ["split-stage ATS is taken for absent", { identification: (id) => ({ ...id, IDR0: id.IDR0 | (1n << 11n) }) }],
    ["CR2.E2H is ignored", { programming: (registers) => ({ ...registers, CR2: registers.CR2 & ~1n }) }],
    ["RECINVSID is ignored", { programming: (registers) => ({ ...registers, CR2: registers.CR2 | 2n }) }],
    ["privileged requests are taken for unprivileged ones", { request: (asked) => ({ ...asked, privileged: false }) }],
    [
      "the top byte is always ignored",
      { request: (asked) => ({ ...asked, iova: BigInt.asUintN(64, BigInt.asIntN(56, asked.iova)) }) },
    ],
    ["descriptors are not updated", { outcome: (outcome) => ({ ...outcome, updates: [] }) }],
    [
      "the dirty state is not updated",
      {
        outcome: (outcome) => ({
          ...outcome,
          updates: outcome.updates.filter(({ mask }) => (mask & ((1n << 7n) | (1n << 63n))) === 0n),
        }),
      },
    ],
    ["events lack PnU", { outcome: without(1, 1n << 33n) }],
    ["events lack CLASS", { outcome: without(1, 3n << 40n) }],
    ["events lack TTRnW", { outcome: without(1, 1n << 44n) }],
    ["events of stage 2 lack the IPA's lowest page bit", { outcome: without(3, 1n << 12n) }],
    [
      "requests stall without a record",
      { outcome: (outcome) => (outcome.result.kind === "stalled" ? { ...outcome, record: null } : outcome) },
    ],
    [
      "an abort is answered with zeros",
      {
        outcome: (outcome) =>
          outcome.result.kind === "aborted" && outcome.record !== null
            ? { ...outcome, result: { kind: "raz-wi" } }
            : outcome,
      },
    ],
  ];
  it.each(wrong)("finds that %s, and says how to repeat it in few lines", (_what, mutation) => {
    const lines = firstFinding("worlds", mutation, 600);
    expect(lines).not.toBeNull();
    const text = lines!.find((line) => line.startsWith("as a test: "))!.slice("as a test: ".length);
    const minimal = scenarioFromText(text);
    expect(minimal.steps).toHaveLength(1);
    expect(minimal.memory.words.size).toBeLessThan(24);
    expect(run(minimal, oracleSubject(mutation))).not.toBeNull();
    expect(run(minimal, oracleSubject())).toBeNull();
    expect(scenarioText(minimal)).toBe(text);
  });

  it("accepts the most stale SMMU that is legal, and never finds too many outcomes to enumerate", () => {
    const tally = emptyTally();
    for (let seed = 1; seed <= 25; seed++)
      expect(huntSeed("sequences", seed, oracleSubject(), console.log, tally)).toBe(true);
    expect(tally.open).toBe(0);
    expect(tally.several).toBeGreaterThan(tally.requests / 8);
  });

  const deaf: [string, number][] = [
    ["CFGI_STE", 0x03],
    ["CFGI_STE_RANGE", 0x04],
    ["CFGI_CD", 0x05],
    ["CFGI_CD_ALL", 0x06],
    ["TLBI_NH_ALL", 0x10],
    ["TLBI_NH_ASID", 0x11],
    ["TLBI_NH_VA", 0x12],
    ["TLBI_NH_VAA", 0x13],
    ["TLBI_EL2_VA", 0x22],
    ["TLBI_S2_IPA", 0x2a],
    ["TLBI_S12_VMALL", 0x28],
    ["TLBI_NSNH_ALL", 0x30],
  ];
  it.each(deaf)("finds that %s does nothing", (_name, opcode) => {
    const mutation: Mutation = { obeys: ([dw0]) => Number(dw0 & 0xffn) !== opcode };
    const seeds = Array.from({ length: 150 }, (_, index) => index + 1);
    expect(seeds.some((seed) => run(scenarioOfSeed("sequences", seed), oracleSubject(mutation)) !== null)).toBe(true);
  });

  it("makes a disagreement of caches small", () => {
    const lines = firstFinding("sequences", { obeys: ([dw0]) => (dw0 & 0xffn) !== 0x03n }, 50)!;
    const text = lines.find((line) => line.startsWith("as a test: "))!.slice("as a test: ".length);
    // A question that fills the cache is not even needed: the oracle as an SMMU has always cached everything.
    expect(scenarioFromText(text).steps.map(({ kind }) => kind)).toEqual(["store", "command", "request"]);
  });

  it.each(["worlds", "sequences"] as const)("makes the same %s of a seed every time", (kind) => {
    expect(scenarioText(scenarioOfSeed(kind, 77))).toBe(scenarioText(scenarioOfSeed(kind, 77)));
  });
});

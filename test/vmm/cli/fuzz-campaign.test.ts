// Which seeds a shard runs, and what becomes of rounds that find, throw or never end; with fuzzers of the test's own.

import { describe, expect, it } from "vitest";
import { type CampaignOptions, runCampaign, type SeedFinding } from "../../../vmm/cli/fuzz-campaign.ts";
import type { Fuzzer } from "../../../vmm/cli/fuzzer.ts";

function options(changes: Partial<CampaignOptions>): CampaignOptions {
  return {
    seed: 10,
    rounds: 7,
    seconds: Number.POSITIVE_INFINITY,
    shard: { index: 1, count: 1 },
    mostFindings: 1,
    roundLimit: 60e9,
    interrupted: () => false,
    found: () => {},
    progress: () => {},
    ...changes,
  };
}

function fuzzerOf(round: Fuzzer["round"]): Fuzzer {
  return { about: "a test", round };
}

describe("a campaign", () => {
  it("runs every seed in exactly one of its shards", async () => {
    const seeds: number[][] = [];
    for (const index of [1, 2, 3]) {
      const mine: number[] = [];
      const result = await runCampaign(
        fuzzerOf((seed, count) => {
          mine.push(seed);
          count("rounds", 1);
          return null;
        }),
        options({ shard: { index, count: 3 } }),
      );
      expect(result.rounds).toBe(mine.length);
      expect(result.counts).toEqual({ rounds: mine.length });
      seeds.push(mine);
    }
    expect(seeds).toEqual([
      [10, 13, 16],
      [11, 14],
      [12, 15],
    ]);
  });

  it("goes on after the last seed with the first", async () => {
    const seeds: number[] = [];
    const fuzzer = fuzzerOf((seed) => {
      seeds.push(seed);
      return null;
    });
    await runCampaign(fuzzer, options({ seed: 2 ** 32 - 2, rounds: 4 }));
    expect(seeds).toEqual([2 ** 32 - 2, 2 ** 32 - 1, 0, 1]);
  });

  it("runs one round however little time it has, and ends when the time is up", async () => {
    const none = await runCampaign(
      fuzzerOf(() => null),
      options({ seconds: 1e-9 }),
    );
    expect(none.rounds).toBe(1);
  });

  it("ends at the first finding, or at as many as it is told to take", async () => {
    const fuzzer = fuzzerOf((seed) => (seed % 2 === 1 ? { problem: `odd ${seed}` } : null));
    const reported: SeedFinding[] = [];
    const first = await runCampaign(fuzzer, options({ found: (finding) => reported.push(finding) }));
    expect(first.findings).toEqual([{ seed: 11, problem: "odd 11" }]);
    expect(reported).toEqual(first.findings);
    expect(first.rounds).toBe(2);
    const all = await runCampaign(fuzzer, options({ mostFindings: 100 }));
    expect(all.findings.map(({ seed }) => seed)).toEqual([11, 13, 15]);
  });

  it.each<[string, Fuzzer["round"], string, number?]>([
    [
      "throws",
      () => {
        throw new Error("a wild exception");
      },
      "a wild exception",
    ],
    ["rejects", () => Promise.reject(new Error("a late exception")), "a late exception"],
    [
      "throws what cannot be shown",
      () => {
        throw { toString: () => ({}) };
      },
      "cannot be shown",
    ],
    [
      "never ends",
      () => {
        for (;;);
      },
      "--round-limit",
      50e6,
    ],
  ])("takes a round that %s for a finding", async (_what, round, words, roundLimit = 600e9) => {
    const result = await runCampaign(fuzzerOf(round), options({ roundLimit }));
    expect(result.findings.map(({ seed }) => seed)).toEqual([10]);
    expect(result.findings[0]!.problem).toContain(words);
  });

  it("ends between two rounds when it is interrupted, and says so", async () => {
    let interrupted = false;
    const fuzzer = fuzzerOf(() => {
      interrupted = true;
      return null;
    });
    const result = await runCampaign(
      fuzzer,
      options({ rounds: Number.POSITIVE_INFINITY, interrupted: () => interrupted }),
    );
    expect(result.interrupted).toBe(true);
    expect(result.findings).toEqual([]);
  });
});

// Which results belong together, and what is said of shards that are missing, cut short or there twice.

import { describe, expect, it } from "vitest";
import { mergeResults } from "../../../vmm/cli/merge-results.ts";
import type { Campaign, ShardResult } from "../../../vmm/cli/result-file.ts";

const FUZZ: Campaign = { verb: "fuzz", fuzzer: "cpu", seed: 1, rounds: 30 };
const SCENARIOS: Campaign = { verb: "scenario", files: ["a.ts"], filter: null, host: null, seed: 0, tests: 3 };

function shard(index: number, changes: Partial<ShardResult> = {}): ShardResult {
  return {
    format: 1,
    nestbox: "1.0.0",
    campaign: FUZZ,
    shard: { index, count: 3 },
    interrupted: false,
    seconds: 2,
    counts: { rounds: 10, [`only in ${index}`]: 1 },
    cases: [{ classname: "fuzz cpu", name: `shard ${index}/3`, seconds: 2 }],
    ...changes,
  };
}

function merge(...results: ShardResult[]) {
  return mergeResults(new Map(results.map((result, at) => [`${at}.json`, result])));
}

const failures = (merged: ReturnType<typeof merge>) =>
  merged.cases.filter(({ failure }) => failure !== undefined).map(({ name, failure }) => [name, failure!.kind]);

describe("merging", () => {
  it("adds up what the shards counted and keeps their cases in the shards' order", () => {
    const merged = merge(shard(3), shard(1), shard(2));
    expect(merged.cases.map(({ name }) => name)).toEqual(["shard 1/3", "shard 2/3", "shard 3/3"]);
    expect(Object.fromEntries(merged.counts)).toEqual({
      rounds: 30,
      "only in 1": 1,
      "only in 2": 1,
      "only in 3": 1,
    });
    expect(merged).toMatchObject({ shards: 3, missing: [], interrupted: [], seconds: 6 });
    expect(failures(merged)).toEqual([]);
  });

  it("makes a failed case of a shard that is missing, and of one that was interrupted", () => {
    const merged = merge(shard(3, { interrupted: true }), shard(1));
    expect(merged).toMatchObject({ missing: [2], interrupted: [3] });
    expect(failures(merged)).toEqual([
      ["shard 2/3", "missing"],
      ["shard 3/3", "interrupted"],
    ]);
  });

  it("keeps what failed", () => {
    const failure = { kind: "finding", message: "m", text: "t" };
    const bad = shard(2, { cases: [{ classname: "fuzz cpu", name: "seed 5", seconds: 0, failure }] });
    expect(failures(merge(shard(1), bad, shard(3)))).toEqual([["seed 5", "finding"]]);
  });

  it("sees that the shards together ran fewer scenarios than each of them counted", () => {
    const cases = [{ classname: "a.ts", name: "one", seconds: 0 }];
    const [one, two, three] = [1, 2, 3].map((index) => shard(index, { campaign: SCENARIOS, cases }));
    expect(failures(merge(one!, two!, three!))).toEqual([]);
    const merged = merge(one!, two!, { ...three!, cases: [] });
    expect(failures(merged)).toEqual([["all shards", "incomplete"]]);
  });

  it.each<[string, Partial<ShardResult>, string]>([
    ["of another version", { nestbox: "1.0.1" }, 'nestbox is "1.0.0" in one and "1.0.1" in the other'],
    ["of another count", { shard: { index: 2, count: 4 } }, "shards is 3 in one and 4 in the other"],
    ["of another seed", { campaign: { ...FUZZ, seed: 2 } }, "seed is 1 in one and 2 in the other"],
    ["of another fuzzer", { campaign: { ...FUZZ, fuzzer: "nvme" } }, 'fuzzer is "cpu" in one and "nvme" in the other'],
    ["of another verb", { campaign: SCENARIOS }, 'verb is "fuzz" in one and "scenario" in the other'],
    [
      "without a number of rounds",
      { campaign: { ...FUZZ, rounds: null } },
      "rounds is 30 in one and null in the other",
    ],
    ["of the same shard", { shard: { index: 1, count: 3 } }, "0.json and 1.json are both shard 1/3"],
  ])("refuses a result %s", (_what, changes, words) => {
    expect(() => merge(shard(1), shard(2, changes))).toThrow(words);
  });

  it("refuses nothing at all", () => {
    expect(() => merge()).toThrow("no results");
  });
});

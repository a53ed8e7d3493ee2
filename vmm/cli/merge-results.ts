// Puts the results of all shards together: what was run, what failed, and which shards are missing or were ended early.

import { UsageError } from "./exit-codes.ts";
import type { TestCase } from "./junit.ts";
import type { Campaign, ShardResult } from "./result-file.ts";

export interface MergedResult {
  readonly campaign: Campaign;
  readonly shards: number;
  /** Numbers of shards that left no result. */
  readonly missing: readonly number[];
  /** Numbers of shards that a signal ended. */
  readonly interrupted: readonly number[];
  /** By shard; a missing or interrupted shard is a case that failed. */
  readonly cases: readonly TestCase[];
  /** Wall time of all shards together. */
  readonly seconds: number;
  readonly counts: ReadonlyMap<string, number>;
}

/** Throws UsageError for results that do not belong together; `files` are the results by the names of their files. */
export function mergeResults(files: ReadonlyMap<string, ShardResult>): MergedResult {
  const [first, ...others] = [...files];
  if (first === undefined) throw new UsageError("no results");
  const byIndex = new Map([[first[1].shard.index, first]]);
  for (const [file, result] of others) {
    const difference = differenceOf(first[1], result);
    if (difference !== null) throw new UsageError(`${first[0]} and ${file} are of different campaigns: ${difference}`);
    const { index, count } = result.shard;
    const same = byIndex.get(index);
    if (same !== undefined) throw new UsageError(`${same[0]} and ${file} are both shard ${index}/${count}`);
    byIndex.set(index, [file, result]);
  }
  const { campaign, shard } = first[1];
  const missing: number[] = [];
  const interrupted: number[] = [];
  const cases: TestCase[] = [];
  const counts = new Map<string, number>();
  let seconds = 0;
  for (let index = 1; index <= shard.count; index++) {
    const name = `shard ${index}/${shard.count}`;
    const result = byIndex.get(index)?.[1];
    if (result === undefined) {
      missing.push(index);
      cases.push(shardFailure(campaign, name, "missing", "left no result"));
      continue;
    }
    cases.push(...result.cases);
    seconds += result.seconds;
    for (const [what, number] of Object.entries(result.counts)) counts.set(what, (counts.get(what) ?? 0) + number);
    if (!result.interrupted) continue;
    interrupted.push(index);
    cases.push(shardFailure(campaign, name, "interrupted", "was ended by a signal before it was through"));
  }
  // The same files may hold other scenarios on another machine.
  if (campaign.verb === "scenario" && missing.length + interrupted.length === 0 && cases.length !== campaign.tests) {
    const message = `the shards ran ${cases.length} of ${campaign.tests} scenarios`;
    cases.push(shardFailure(campaign, "all shards", "incomplete", message));
  }
  return { campaign, shards: shard.count, missing, interrupted, cases, seconds, counts };
}

function shardFailure({ verb }: Campaign, name: string, kind: string, what: string): TestCase {
  return { classname: `nestbox ${verb}`, name, seconds: 0, failure: { kind, message: what, text: `${name}: ${what}` } };
}

/** The first thing in which two results show that they are not of one campaign. */
function differenceOf(one: ShardResult, other: ShardResult): string | null {
  const said = ({ nestbox, campaign, shard }: ShardResult): Record<string, unknown> => ({
    ...{ nestbox, ...campaign },
    shards: shard.count,
  });
  const [left, right] = [said(one), said(other)];
  for (const key of new Set([...Object.keys(left), ...Object.keys(right)])) {
    const [a, b] = [left[key], right[key]].map((value) => JSON.stringify(value) ?? "nothing");
    if (a !== b) return `${key} is ${a} in one and ${b} in the other`;
  }
  return null;
}

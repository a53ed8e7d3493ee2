// Runs a fuzzer over seeds: `first`, `first + 1`, … of which a shard takes every `count`-th. Ends after so many rounds or seconds, at a
// finding, or when a signal asks for it.

import { setImmediate } from "node:timers/promises";
import type { Finding, Fuzzer } from "./fuzzer.ts";
import type { Shard } from "./shard.ts";
import { runGuarded } from "./wall-limit.ts";

export interface CampaignOptions {
  readonly seed: number;
  /** Of the whole campaign, over all shards. */
  readonly rounds: number;
  /** Wall time of this shard; it runs one round at least. */
  readonly seconds: number;
  readonly shard: Shard;
  /** Findings after which it ends. */
  readonly mostFindings: number;
  /** Wall time of one round, in ns. */
  readonly roundLimit: number;
  /** Looked at a few times a second. */
  readonly interrupted: () => boolean;
  readonly found: (finding: SeedFinding) => void;
  readonly progress: (rounds: number, seed: number) => void;
}

export interface SeedFinding extends Finding {
  readonly seed: number;
}

export interface CampaignResult {
  /** Seeds run by this shard. */
  readonly rounds: number;
  readonly findings: readonly SeedFinding[];
  readonly counts: Readonly<Record<string, number>>;
  readonly interrupted: boolean;
  readonly wallMs: number;
}

const SEEDS = 2 ** 32;
/** ms: how often signals get their turn. */
const PAUSE = 200;

export async function runCampaign(fuzzer: Fuzzer, options: CampaignOptions): Promise<CampaignResult> {
  const started = performance.now();
  const end = started + options.seconds * 1000;
  const counts: Record<string, number> = Object.create(null) as Record<string, number>;
  const count = (what: string, by: number): void => {
    counts[what] = (counts[what] ?? 0) + by;
  };
  const findings: SeedFinding[] = [];
  let rounds = 0;
  let paused = started;
  let interrupted = false;
  for (let at = options.shard.index - 1; at < options.rounds; at += options.shard.count) {
    const now = performance.now();
    if (rounds > 0 && now >= end) break;
    if (now - paused >= PAUSE) {
      options.progress(rounds, (options.seed + at) % SEEDS);
      await setImmediate();
      paused = now;
      interrupted = options.interrupted();
      if (interrupted) break;
    }
    const seed = (options.seed + at) % SEEDS;
    const outcome = await runRound(fuzzer, seed, count, options.roundLimit);
    rounds++;
    if (outcome === null) continue;
    findings.push({ ...outcome.finding, seed });
    options.found({ ...outcome.finding, seed });
    // What a terminated round left behind is anybody's guess.
    if (findings.length >= options.mostFindings || outcome.terminated) break;
  }
  return { rounds, findings, counts, interrupted, wallMs: performance.now() - started };
}

async function runRound(
  fuzzer: Fuzzer,
  seed: number,
  count: (what: string, by: number) => void,
  limit: number,
): Promise<{ finding: Finding; terminated: boolean } | null> {
  try {
    // An endless loop traps nowhere and looks at no flag: only the engine can end it.
    const result = runGuarded(() => ({ finding: fuzzer.round(seed, count) }), limit / 1e6);
    if (result === undefined) {
      return { finding: { problem: "the round did not end within --round-limit" }, terminated: true };
    }
    const finding = result.finding instanceof Promise ? await result.finding : result.finding;
    return finding === null ? null : { finding, terminated: false };
  } catch (error) {
    return { finding: { problem: `threw ${thrownText(error)}` }, terminated: false };
  }
}

function thrownText(error: unknown): string {
  try {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } catch {
    return "something that cannot be shown";
  }
}

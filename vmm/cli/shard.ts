// One part of a campaign that runs on several machines: `--shard 2/4`, or `--shard auto`, the place of a Kubernetes indexed job or of a
// CI system's parallel job.

import { InvalidArgumentError, Option } from "commander";

export interface Shard {
  /** From 1. */
  readonly index: number;
  readonly count: number;
}

const WHOLE: Shard = { index: 1, count: 1 };

interface Engine {
  readonly index: string;
  readonly count?: string;
  /** What the engine calls its first part. */
  readonly first: 0 | 1;
}

/** Variables that engines set; Kubernetes tells a pod its index, not how many there are. */
const ENGINES: readonly Engine[] = [
  { index: "JOB_COMPLETION_INDEX", first: 0 },
  { index: "CI_NODE_INDEX", count: "CI_NODE_TOTAL", first: 1 },
  { index: "CIRCLE_NODE_INDEX", count: "CIRCLE_NODE_TOTAL", first: 0 },
  { index: "BUILDKITE_PARALLEL_JOB", count: "BUILDKITE_PARALLEL_JOB_COUNT", first: 0 },
];

export function shardOption(): Option {
  const help = "run one part: 2/4; auto/4 takes the index from Kubernetes or a CI system, auto the count, too";
  return new Option("--shard <i/n>", help).argParser((text) => parseShard(text)).default(WHOLE, "all of it");
}

export function parseShard(text: string, environment: NodeJS.ProcessEnv = process.env): Shard {
  const match = /^(auto|\d{1,5})(?:\/(\d{1,5}))?$/.exec(text);
  if (match === null || (match[1] !== "auto" && match[2] === undefined)) {
    throw new InvalidArgumentError("expected i/n such as 1/4, auto/n or auto");
  }
  const stated = match[2] === undefined ? undefined : Number(match[2]);
  const shard = match[1] === "auto" ? shardOf(environment, stated) : { index: Number(match[1]), count: stated ?? 0 };
  if (shard.index < 1 || shard.index > shard.count) {
    throw new InvalidArgumentError(`there is no part ${shard.index} of ${shard.count}: parts are 1 to n`);
  }
  return shard;
}

function shardOf(environment: NodeJS.ProcessEnv, stated: number | undefined): Shard {
  const engine = ENGINES.find(({ index }) => environment[index] !== undefined);
  if (engine === undefined) {
    const names = ENGINES.map(({ index }) => index).join(", ");
    throw new InvalidArgumentError(`auto needs one of ${names} in the environment; say i/n instead`);
  }
  const index = numberIn(environment, engine.index) - engine.first + 1;
  const told = engine.count === undefined ? undefined : numberIn(environment, engine.count);
  if (stated !== undefined && told !== undefined && told !== stated) {
    throw new InvalidArgumentError(`auto/${stated}, but ${engine.count} is ${told}`);
  }
  const count = stated ?? told;
  if (count === undefined) throw new InvalidArgumentError(`${engine.index} comes without a count; say auto/n`);
  return { index, count };
}

function numberIn(environment: NodeJS.ProcessEnv, name: string): number {
  const text = environment[name] ?? "";
  if (!/^\d{1,5}$/.test(text)) throw new InvalidArgumentError(`${name} is "${text}", not a whole number`);
  return Number(text);
}

// What one shard of a campaign found, as a JSON document (`--result`): everything `nestbox report merge` needs. A shard that does not come to
// its end leaves none, so whatever it was is missed.

import { closeSync, mkdirSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import * as z from "zod";
import { writeAll } from "./console.ts";
import { UsageError } from "./exit-codes.ts";
import { fileProblem, readInput } from "./input-file.ts";
import type { Shard } from "./shard.ts";

const shard = z
  .strictObject({ index: z.int().min(1), count: z.int().min(1).max(99_999) })
  .refine(({ index, count }) => index <= count, "index is above count");

const testCase = z.strictObject({
  classname: z.string(),
  name: z.string(),
  seconds: z.number().min(0),
  file: z.string().optional(),
  line: z.int().min(0).optional(),
  failure: z.strictObject({ kind: z.string(), message: z.string(), text: z.string() }).optional(),
});

const result = z.strictObject({
  /** Of this document's form. */
  format: z.literal(1),
  /** Version. */
  nestbox: z.string(),
  /** What all shards have in common: results of different campaigns are not merged. */
  campaign: z.discriminatedUnion("verb", [
    z.strictObject({
      verb: z.literal("scenario"),
      files: z.array(z.string()),
      filter: z.string().nullable(),
      host: z.string().nullable(),
      seed: z.int(),
      /** Scenarios of all shards. */
      tests: z.int().min(0),
    }),
    z.strictObject({
      verb: z.literal("fuzz"),
      fuzzer: z.string(),
      seed: z.int(),
      /** Of all shards; null: as many as there was time for. */
      rounds: z.int().min(1).nullable(),
    }),
  ]),
  shard,
  /** A signal ended it early. */
  interrupted: z.boolean(),
  /** Wall time. */
  seconds: z.number().min(0),
  counts: z.record(z.string(), z.number()),
  cases: z.array(testCase),
});

export type ShardResult = z.infer<typeof result>;
export type Campaign = ShardResult["campaign"];

/** A result file takes shape beside its place and is moved there whole. */
export class ResultFile {
  readonly #path: string;
  readonly #draft: string;
  readonly #fd: number;
  #open = true;

  /** `place`: a file, or a folder, where it is named after the shard. Throws UsageError: better now than after an hour. */
  constructor(place: string, { index, count }: Shard) {
    try {
      const isFolder = /[\\/]$/.test(place) || statSync(place, { throwIfNoEntry: false })?.isDirectory() === true;
      this.#path = isFolder ? join(place, `shard-${index}-of-${count}.json`) : place;
      this.#draft = `${this.#path}.partial`;
      mkdirSync(dirname(this.#path), { recursive: true });
      this.#fd = openSync(this.#draft, "w");
    } catch (error) {
      throw new UsageError(`--result ${place}: ${fileProblem(error)}`);
    }
  }

  write(document: ShardResult): void {
    try {
      writeAll(this.#fd, Buffer.from(`${JSON.stringify(document)}\n`));
      this.#close();
      renameSync(this.#draft, this.#path);
    } catch (error) {
      throw new UsageError(`--result ${this.#path}: ${fileProblem(error)}`);
    }
  }

  /** Leaves nothing behind, unless it is written. */
  discard(): void {
    if (!this.#open) return;
    this.#close();
    rmSync(this.#draft, { force: true });
  }

  #close(): void {
    this.#open = false;
    closeSync(this.#fd);
  }
}

/** Bytes: a shard of a hundred thousand scenarios has some twenty million. */
const LONGEST = 512 * 2 ** 20;

/** Throws UsageError for what is no result. */
export function readResult(path: string): ShardResult {
  const text = readInput(path, LONGEST).toString("utf8");
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw new UsageError(`${path}: no JSON, so no result of a shard (was it cut off?)`);
  }
  const parsed = result.safeParse(document);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new UsageError(`${path}: no result of a shard: ${["result", ...issue.path].join(".")}: ${issue.message}`);
}

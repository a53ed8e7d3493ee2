// What comes between a kernel machine's slices, written down and given again at the same turns.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Answers, ReplayDifference } from "../../../host/adapters/recording/expected-records.ts";
import { RecordingReader } from "../../../host/adapters/recording/recording-reader.ts";
import { RecordingWriter } from "../../../host/adapters/recording/recording-writer.ts";
import type { KernelPace, OutsideEnd } from "../../../vmm/cli/kernel-pace.ts";
import { RecordedPace, ReplayedPace } from "../../../vmm/cli/recorded-pace.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-pace-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A terminal at which somebody types at certain turns, and ends it at one. */
class Typist implements KernelPace {
  readonly interactive = true;
  onBytes: (bytes: Uint8Array) => void = () => {};
  #turn = 0;
  readonly #types: Readonly<Record<number, string>>;
  readonly #ends: Readonly<Record<number, OutsideEnd>>;

  constructor(types: Readonly<Record<number, string>>, ends: Readonly<Record<number, OutsideEnd>>) {
    this.#types = types;
    this.#ends = ends;
  }

  async between(): Promise<OutsideEnd | null> {
    this.#look();
    return this.#ends[this.#turn] ?? null;
  }

  async hold(): Promise<OutsideEnd | null> {
    return null;
  }

  async idle(now: number, until: number): Promise<number> {
    this.#look();
    return (now + until) / 2;
  }

  #look(): void {
    const text = this.#types[++this.#turn];
    if (text !== undefined) for (const key of text) this.onBytes(Buffer.from(key));
  }
}

/** What a machine sees of its pace. */
async function use(pace: KernelPace): Promise<string[]> {
  const seen: string[] = [];
  pace.onBytes = (bytes) => seen.push(`types ${Buffer.from(bytes)}`);
  for (let slice = 1; slice < 20; slice++) {
    const end = await pace.between();
    seen.push(`slice ${slice}: ${JSON.stringify(end)}`);
    if (end !== null) break;
    if (slice % 3 === 0) seen.push(`idle until ${await pace.idle(1000 * slice, 1000 * slice + 700)}`);
  }
  return seen;
}

async function record(pace: KernelPace): Promise<{ seen: string[]; bytes: Buffer }> {
  const path = join(folder, "run");
  const writer = new RecordingWriter(path, { kind: "test", version: 1, nestbox: "", run: null }, () => {});
  const seen = await use(new RecordedPace(pace, writer));
  writer.close(null);
  return { seen, bytes: readFileSync(path) };
}

const replayed = (bytes: Buffer): ReplayedPace =>
  new ReplayedPace(new Answers(RecordingReader.of("run", bytes)), true, () => null);

describe("the pace of a kernel machine", () => {
  it.each([
    ["a signal", { kind: "signal", signal: "SIGTERM" }],
    ["Ctrl-A x", { kind: "quit" }],
    ["the wall limit", { kind: "wall-limit" }],
  ] as [string, OutsideEnd][])(
    "is the same when it is given again: input, waits, and an end by %s",
    async (_what, end) => {
      const { seen, bytes } = await record(new Typist({ 1: "root", 4: "\n", 5: "ls\n", 11: "x" }, { 17: end }));
      expect(seen.filter((line) => /types/.test(line))).toHaveLength(9);
      expect(seen.at(-1)).toMatch(JSON.stringify(end));
      expect(await use(replayed(bytes))).toEqual(seen);
    },
  );

  it("differs where a machine is idle that was not", async () => {
    const { bytes } = await record(new Typist({}, { 2: { kind: "quit" } }));
    const pace = replayed(bytes);
    await pace.between();
    await expect(pace.idle(0, 1)).rejects.toThrow(ReplayDifference);
  });

  it("is refused where it would turn time back", async () => {
    const { bytes } = await record(new Typist({}, { 12: { kind: "quit" } }));
    const pace = replayed(bytes);
    for (let turn = 1; turn <= 3; turn++) await pace.between();
    await expect(pace.idle(9_000_000, 9_000_001)).rejects.toThrow(/instant/);
  });
});

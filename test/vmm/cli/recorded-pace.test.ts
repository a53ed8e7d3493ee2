// What comes between a kernel machine's slices, written down and given again at the same places of the run, however that is sliced.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Answers, ReplayDifference } from "../../../host/adapters/recording/expected-records.ts";
import { TYPED, writePlace } from "../../../host/adapters/recording/machine-records.ts";
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
  readonly budget = Number.POSITIVE_INFINITY;
  readonly moves = 0;
  isIdle = false;
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

const SLICE = 1000;
const LAST = 20;

/** A machine that executes up to 1000 instructions a slice, fewer where its pace says so, and is idle after every 3000: what it sees of its pace. */
class Paced {
  #instructions = 0;
  #ns = 0;
  settled = 0;
  readonly run = {
    place: () => ({ instructions: this.#instructions, ns: this.#ns }),
    settle: () => {
      this.settled++;
    },
  };

  async use(pace: KernelPace): Promise<string[]> {
    const seen: string[] = [];
    const here = () => `${this.#instructions} at ${this.#ns}`;
    pace.onBytes = (bytes) => seen.push(`types ${Buffer.from(bytes)} after ${here()}`);
    while (this.#instructions < LAST * SLICE) {
      const end = await pace.between();
      if (end !== null) {
        seen.push(`ends after ${here()}: ${JSON.stringify(end)}`);
        break;
      }
      const ran = Math.min(SLICE - (this.#instructions % SLICE), pace.budget);
      this.#instructions += ran;
      this.#ns += 10 * ran;
      if (this.#instructions % (3 * SLICE) !== 0) continue;
      pace.isIdle = true;
      const between = await pace.between();
      if (between === null) this.#ns = await pace.idle(this.#ns, this.#ns + 700);
      pace.isIdle = false;
      seen.push(between === null ? `idle until ${here()}` : `ends idle: ${JSON.stringify(between)}`);
      if (between !== null) break;
    }
    return seen;
  }
}

async function record(pace: KernelPace): Promise<{ seen: string[]; bytes: Buffer; settled: number }> {
  const path = join(folder, "run");
  const writer = new RecordingWriter(path, { kind: "test", version: 1, nestbox: "", run: null }, () => {});
  const machine = new Paced();
  const seen = await machine.use(new RecordedPace(pace, writer, machine.run));
  writer.close(null);
  return { seen, bytes: readFileSync(path), settled: machine.settled };
}

const replayed = (bytes: Buffer, run = new Paced().run): ReplayedPace =>
  new ReplayedPace(new Answers(RecordingReader.of("run", bytes)), true, run, () => {});

describe("the pace of a kernel machine", () => {
  it.each([
    ["a signal", { kind: "signal", signal: "SIGTERM" }],
    ["Ctrl-A x", { kind: "quit" }],
    ["the wall limit", { kind: "wall-limit" }],
  ] as [string, OutsideEnd][])(
    "is the same when it is given again: input, waits, and an end by %s",
    async (_what, end) => {
      const typist = new Typist({ 1: "root", 4: "\n", 5: "ls\n", 11: "x" }, { 17: end });
      const { seen, bytes, settled } = await record(typist);
      expect(seen.filter((line) => /types/.test(line))).toHaveLength(9);
      expect(seen.at(-1)).toMatch(JSON.stringify(end));
      // What was due had been done before each of them: nine keys, the waits and the end.
      expect(settled).toBe(9 + seen.filter((line) => /idle until/.test(line)).length + 1);
      const machine = new Paced();
      expect(await machine.use(replayed(bytes, machine.run))).toEqual(seen);
    },
  );

  it("does not let a slice run past what came within it", async () => {
    const path = join(folder, "within");
    const writer = new RecordingWriter(path, { kind: "test", version: 1, nestbox: "", run: null }, () => {});
    for (const instructions of [1, 1500, 1501]) {
      writer.begin(TYPED, 1);
      writePlace(writer, { instructions, ns: 10 * instructions, idle: false });
      writer.bytes(Buffer.from("x"));
    }
    writer.close(null);
    const machine = new Paced();
    const pace = replayed(readFileSync(path), machine.run);
    // Nobody has recorded its waits: it is never idle.
    pace.idle = async (_now, until) => until;
    const seen = await machine.use(pace);
    expect(seen.filter((line) => /types/.test(line))).toEqual([
      ...["types x after 1 at 10", "types x after 1500 at 15000", "types x after 1501 at 15010"],
    ]);
  });

  it("differs where a machine is idle that was not", async () => {
    const { bytes } = await record(new Typist({}, { 2: { kind: "quit" } }));
    const pace = replayed(bytes);
    await pace.between();
    pace.isIdle = true;
    await expect(pace.idle(0, 1)).rejects.toThrow(ReplayDifference);
  });

  it("differs where a machine has run past a place that is none of its own", async () => {
    const { bytes } = await record(new Typist({ 2: "x" }, {}));
    const run = { place: () => ({ instructions: 1000, ns: 10_001 }), settle: () => {} };
    await expect(replayed(bytes, run).between()).rejects.toThrow(
      /instruction 1000 at 10000 ns, which this run has not/,
    );
  });

  it("is refused where it would turn time back", async () => {
    const { bytes } = await record(new Typist({}, { 12: { kind: "quit" } }));
    const run = { place: () => ({ instructions: 3000, ns: 30_000 }), settle: () => {} };
    const pace = replayed(bytes, run);
    pace.isIdle = true;
    await expect(pace.idle(9_000_000, 9_000_001)).rejects.toThrow(/instant/);
  });
});

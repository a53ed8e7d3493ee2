// What comes from outside between a kernel machine's slices, written down, and given again: each at its place in the run, wherever slices end.

import type { Answers } from "../../host/adapters/recording/expected-records.ts";
import {
  CHANGED,
  ENDED_BY,
  OUTSIDE_ENDS,
  type PlacedRecord,
  type RunPlace,
  TYPED,
  WAITED,
  writePlace,
} from "../../host/adapters/recording/machine-records.ts";
import type { RecordingWriter } from "../../host/adapters/recording/recording-writer.ts";
import { RequestError } from "../monitor/request.ts";
import type { KernelPace, OutsideEnd } from "./kernel-pace.ts";

/** Where a run stands. */
export interface PacedRun {
  /** Instructions so far and virtual time. */
  place(): Omit<RunPlace, "idle">;
  /** Does what is due there: before anything comes from outside, so that it does not matter whether a slice has ended there. */
  settle(): void;
}

export class RecordedPace implements KernelPace {
  readonly interactive: boolean;
  readonly moves = 0;
  isIdle = false;
  onBytes: (bytes: Uint8Array) => void = () => {};
  readonly #pace: KernelPace;
  readonly #writer: RecordingWriter;
  readonly #run: PacedRun;

  constructor(pace: KernelPace, writer: RecordingWriter, run: PacedRun) {
    this.interactive = pace.interactive;
    this.#pace = pace;
    this.#writer = writer;
    this.#run = run;
    pace.onBytes = (bytes) => {
      this.#begin(TYPED, bytes.length);
      writer.bytes(bytes);
      this.onBytes(bytes);
    };
  }

  get budget(): number {
    return this.#pace.budget;
  }

  async between(): Promise<OutsideEnd | null> {
    const end = await this.#pace.between();
    if (end === null || end.kind === "event") return end;
    const signal = Buffer.from(end.kind === "signal" ? end.signal : "");
    this.#begin(ENDED_BY, signal.length);
    this.#writer.number(OUTSIDE_ENDS.indexOf(end.kind));
    this.#writer.bytes(signal);
    return end;
  }

  async idle(now: number, until: number): Promise<number> {
    const then = await this.#pace.idle(now, until);
    this.#begin(WAITED);
    this.#writer.double(then);
    return then;
  }

  /** A monitor is about to change the machine. */
  changed(change: string): void {
    writeChange(this.#writer, this.#run, this.isIdle, change);
  }

  #begin(type: number, payload = 0): void {
    this.#run.settle();
    this.#writer.begin(type, payload);
    writePlace(this.#writer, { ...this.#run.place(), idle: this.isIdle });
  }
}

/** A monitor is about to do this to the machine (JSON). */
export function writeChange(writer: RecordingWriter, run: PacedRun, idle: boolean, change: string): void {
  run.settle();
  const bytes = Buffer.from(change);
  writer.begin(CHANGED, bytes.length);
  writePlace(writer, { ...run.place(), idle });
  writer.bytes(bytes);
}

/** Looks at the world outside between two of which it is let in: a machine that runs for long can still be ended. */
const TURNS = 16;

export class ReplayedPace implements KernelPace {
  readonly interactive: boolean;
  readonly moves = 0;
  isIdle = false;
  onBytes: (bytes: Uint8Array) => void = () => {};
  /** Does what a monitor did. */
  readonly #change: (change: string) => void;
  readonly #answers: Answers;
  readonly #run: PacedRun;
  #turn = 0;

  constructor(answers: Answers, interactive: boolean, run: PacedRun, change: (change: string) => void) {
    this.#answers = answers;
    this.interactive = interactive;
    this.#run = run;
    this.#change = change;
  }

  /** Instructions until something comes from outside. */
  get budget(): number {
    const { placed } = this.#answers;
    return placed === null
      ? Number.POSITIVE_INFINITY
      : Math.max(1, placed.instructions - this.#run.place().instructions);
  }

  async between(): Promise<OutsideEnd | null> {
    if (++this.#turn % TURNS === 0) await new Promise((resume) => setImmediate(resume));
    this.take();
    if (this.#due(ENDED_BY) === null) return null;
    const { reader } = this.#answers;
    this.#run.settle();
    this.#answers.take();
    const kind = OUTSIDE_ENDS[reader.number()];
    const signal = reader.bytes().toString("latin1");
    if (kind === undefined) throw reader.malformed("end");
    return kind === "signal" ? { kind, signal: signal as NodeJS.Signals } : { kind };
  }

  async idle(now: number, until: number): Promise<number> {
    this.take();
    if (this.#due(WAITED) === null) {
      throw this.#answers.different("the machine is idle, where the recorded one was not");
    }
    this.#run.settle();
    this.#answers.take();
    const then = this.#answers.reader.double();
    // Neither back nor past what the machine waits for.
    if (!(then >= now && then <= until)) throw this.#answers.reader.malformed("instant");
    return then;
  }

  /** Whether something came here. */
  get due(): boolean {
    return this.#due(TYPED, CHANGED) !== null;
  }

  /** Gives what came here. */
  take(): void {
    const { reader } = this.#answers;
    for (let record = this.#due(TYPED, CHANGED); record !== null; record = this.#due(TYPED, CHANGED)) {
      this.#run.settle();
      this.#answers.take();
      const bytes = Uint8Array.from(reader.bytes());
      if (record.type === TYPED) this.onBytes(bytes);
      else this.#changed(Buffer.from(bytes).toString());
    }
  }

  #changed(change: string): void {
    try {
      this.#change(change);
    } catch (error) {
      if (error instanceof RequestError) throw this.#answers.reader.malformed("change");
      throw error;
    }
  }

  /** The next record, if it is of these types and its place is here, where what is due has then been done. */
  #due(...types: readonly number[]): PlacedRecord | null {
    const { placed } = this.#answers;
    if (placed === null) return null;
    const { instructions, ns } = this.#run.place();
    if (placed.instructions < instructions || (placed.instructions === instructions && placed.ns < ns)) {
      const where = `instruction ${placed.instructions} at ${placed.ns} ns`;
      throw this.#answers.different(`the recording has something that came at ${where}, which this run has not met`);
    }
    if (placed.instructions !== instructions || placed.ns !== ns || placed.idle !== this.isIdle) return null;
    return types.includes(placed.type) ? placed : null;
  }
}

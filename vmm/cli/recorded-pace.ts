// The pace of a kernel machine, written down, and given again.

import type { Answers } from "../../host/adapters/recording/expected-records.ts";
import { ENDED_BY, OUTSIDE_ENDS, TYPED, WAITED } from "../../host/adapters/recording/machine-records.ts";
import type { RecordingWriter } from "../../host/adapters/recording/recording-writer.ts";
import { held, type KernelPace, type OutsideEnd, type RunGate } from "./kernel-pace.ts";

export class RecordedPace implements KernelPace {
  readonly interactive: boolean;
  onBytes: (bytes: Uint8Array) => void = () => {};
  readonly #pace: KernelPace;
  readonly #writer: RecordingWriter;
  #turn = 0;

  constructor(pace: KernelPace, writer: RecordingWriter) {
    this.interactive = pace.interactive;
    this.#pace = pace;
    this.#writer = writer;
    pace.onBytes = (bytes) => {
      this.#begin(TYPED, bytes.length);
      writer.bytes(bytes);
      this.onBytes(bytes);
    };
  }

  async between(): Promise<OutsideEnd | null> {
    this.#turn++;
    const end = await this.#pace.between();
    if (end === null || end.kind === "event") return end;
    const signal = Buffer.from(end.kind === "signal" ? end.signal : "");
    this.#begin(ENDED_BY, signal.length);
    this.#writer.number(OUTSIDE_ENDS.indexOf(end.kind));
    this.#writer.bytes(signal);
    return end;
  }

  hold(): Promise<OutsideEnd | null> {
    return this.#pace.hold();
  }

  async idle(now: number, until: number): Promise<number> {
    this.#turn++;
    const then = await this.#pace.idle(now, until);
    this.#begin(WAITED);
    this.#writer.double(then);
    return then;
  }

  #begin(type: number, payload = 0): void {
    this.#writer.begin(type, payload);
    this.#writer.number(this.#turn);
  }
}

/** Looks at the world outside between two of which it is let in: a machine that runs for long can still be ended. */
const TURNS = 16;

export class ReplayedPace implements KernelPace {
  readonly interactive: boolean;
  onBytes: (bytes: Uint8Array) => void = () => {};
  /** Whether the replay is to end here. */
  readonly #stop: () => OutsideEnd | null;
  readonly #answers: Answers;
  readonly #gate: RunGate | null;
  #turn = 0;

  /** `gate`: who may hold the machine. */
  constructor(answers: Answers, interactive: boolean, stop: () => OutsideEnd | null, gate: RunGate | null = null) {
    this.#answers = answers;
    this.interactive = interactive;
    this.#stop = stop;
    this.#gate = gate;
  }

  async between(): Promise<OutsideEnd | null> {
    this.#turn++;
    if (this.#turn % TURNS === 0) await new Promise((resume) => setImmediate(resume));
    const stop = await this.hold();
    if (stop !== null) return stop;
    this.#type();
    const { reader } = this.#answers;
    if (this.#answers.upcoming(ENDED_BY) !== this.#turn) return null;
    this.#answers.take();
    const kind = OUTSIDE_ENDS[reader.number()];
    const signal = reader.bytes().toString("latin1");
    if (kind === undefined) throw reader.malformed("end");
    return kind === "signal" ? { kind, signal: signal as NodeJS.Signals } : { kind };
  }

  async hold(): Promise<OutsideEnd | null> {
    return this.#stop() ?? (this.#gate === null ? null : held(this.#gate));
  }

  async idle(now: number, until: number): Promise<number> {
    this.#turn++;
    this.#type();
    if (this.#answers.upcoming(WAITED) !== this.#turn) {
      throw this.#answers.different("the machine is idle, where the recorded one was not");
    }
    this.#answers.take();
    const then = this.#answers.reader.double();
    // Neither back nor past what the machine waits for.
    if (!(then >= now && then <= until)) throw this.#answers.reader.malformed("instant");
    return then;
  }

  #type(): void {
    while (this.#answers.upcoming(TYPED) === this.#turn) {
      this.#answers.take();
      this.onBytes(Uint8Array.from(this.#answers.reader.bytes()));
    }
  }
}

// What the outside brings a kernel machine between its slices: console input, signals, the wall clock. A machine is a function of what it began from, of
// this, and of the drives that it reads; `--record` writes this down (record-machine.ts).

import { setTimeout as sleep } from "node:timers/promises";
import type { RunControl } from "../monitor/run-control.ts";
import type { ConsoleInput } from "./console.ts";
import type { Termination } from "./termination.ts";

/** Why a run is over, though its machine is not. */
export type OutsideEnd =
  | { readonly kind: "wall-limit" | "quit" | "event" }
  | { readonly kind: "signal"; readonly signal: NodeJS.Signals };

export interface KernelPace {
  /** Somebody types: an idle machine waits for real. */
  readonly interactive: boolean;
  /** Gets console input, while `between` or `idle` is waited for. */
  onBytes: (bytes: Uint8Array) => void;
  /** Before each slice: lets input and signals in; how the run ends, or null. */
  between(): Promise<OutsideEnd | null>;
  /** Within a slice, where somebody has stopped the machine: waits while it is held. Nothing that belongs to the run comes in. */
  hold(): Promise<OutsideEnd | null>;
  /** Every CPU is idle until `until`, ns; where the machine goes on, with `onBytes` maybe before. */
  idle(now: number, until: number): Promise<number>;
}

/** Those who may pause the machine and ask about it. */
export interface RunGate {
  readonly control: RunControl;
  /** Ends the run. */
  readonly quitting: boolean;
  /** Does what they ask for; called between slices. */
  serve(): void;
  /** Called when they ask for something. */
  onArrival: () => void;
}

/** Serves those who hold a machine that nothing else can reach, until it may go on; how the run ends, or null. */
export async function held(gate: RunGate): Promise<OutsideEnd | null> {
  for (;;) {
    await new Promise((resume) => setImmediate(resume));
    gate.serve();
    if (gate.quitting) return { kind: "quit" };
    if (!gate.control.paused) return null;
    await new Promise<void>((resume) => {
      gate.onArrival = resume;
      gate.control.onChange = resume;
    });
  }
}

/** Longest sleep of an idle interactive machine, in ms. */
const LONGEST_SLEEP = 1000;

export class LivePace implements KernelPace {
  readonly interactive: boolean;
  onBytes: (bytes: Uint8Array) => void = () => {};
  #wallDeadline: number;
  readonly #termination: Termination;
  readonly #gate: RunGate | null;
  #quit = false;
  #wake: AbortController | null = null;

  /** `wallDeadline`: performance.now() at which the run is over. */
  constructor(wallDeadline: number, termination: Termination, input: ConsoleInput | null, gate: RunGate | null = null) {
    this.#wallDeadline = wallDeadline;
    this.#termination = termination;
    this.#gate = gate;
    this.interactive = input !== null;
    const wake = (): void => this.#wake?.abort();
    termination.onSignal = wake;
    if (gate !== null) {
      gate.onArrival = wake;
      gate.control.onChange = wake;
    }
    if (input === null) return;
    input.onBytes = (bytes) => {
      this.onBytes(bytes);
      wake();
    };
    input.onQuit = () => {
      this.#quit = true;
      wake();
    };
  }

  async between(): Promise<OutsideEnd | null> {
    for (;;) {
      await new Promise((resume) => setImmediate(resume));
      this.#gate?.serve();
      if (this.#quit || this.#gate?.quitting === true) return { kind: "quit" };
      if (this.#termination.signal !== null) return { kind: "signal", signal: this.#termination.signal };
      if (performance.now() > this.#wallDeadline) return { kind: "wall-limit" };
      if (this.#gate?.control.paused !== true) return null;
      // While somebody holds the machine wall time does not count.
      this.#wallDeadline += await this.#sleep(LONGEST_SLEEP);
    }
  }

  hold(): Promise<OutsideEnd | null> {
    return this.between();
  }

  async idle(now: number, until: number): Promise<number> {
    const longest = Math.min(LONGEST_SLEEP, this.#wallDeadline - performance.now());
    const slept = await this.#sleep(Math.min((until - now) / 1e6, longest));
    return Math.min(until, now + slept * 1e6);
  }

  /** Until so many ms have passed, or something has come; how many it were. */
  async #sleep(ms: number): Promise<number> {
    this.#wake = new AbortController();
    const from = performance.now();
    await sleep(Math.max(0, ms), undefined, { signal: this.#wake.signal }).catch(() => {});
    this.#wake = null;
    return performance.now() - from;
  }
}

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
  /** Instructions that the next slice may have at most. */
  readonly budget: number;
  /** Set by who runs the machine: all its CPUs wait. */
  isIdle: boolean;
  /** How often the machine has been put elsewhere in its run, while `between` was waited for. */
  readonly moves: number;
  /** Gets console input, while `between` or `idle` is waited for. */
  onBytes: (bytes: Uint8Array) => void;
  /** Before each slice: lets input and signals in; how the run ends, or null. */
  between(): Promise<OutsideEnd | null>;
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

/** Sleeps until something comes from outside. */
export class Sleeper {
  #wake: AbortController | null = null;

  wake(): void {
    this.#wake?.abort();
  }

  /** Until so many ms have passed, or something has come; how many it were. */
  async sleep(ms: number): Promise<number> {
    this.#wake = new AbortController();
    const from = performance.now();
    await sleep(Math.max(0, ms), undefined, { signal: this.#wake.signal }).catch(() => {});
    this.#wake = null;
    return performance.now() - from;
  }
}

/** Longest sleep of an idle interactive machine, in ms. */
export const LONGEST_SLEEP = 1000;

export class LivePace implements KernelPace {
  readonly interactive: boolean;
  readonly budget = Number.POSITIVE_INFINITY;
  readonly moves = 0;
  isIdle = false;
  onBytes: (bytes: Uint8Array) => void = () => {};
  #wallDeadline: number;
  readonly #termination: Termination;
  readonly #gate: RunGate | null;
  #quit = false;
  readonly #sleeper = new Sleeper();

  /** `wallDeadline`: performance.now() at which the run is over. */
  constructor(wallDeadline: number, termination: Termination, input: ConsoleInput | null, gate: RunGate | null = null) {
    this.#wallDeadline = wallDeadline;
    this.#termination = termination;
    this.#gate = gate;
    this.interactive = input !== null;
    const wake = (): void => this.#sleeper.wake();
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
      this.#wallDeadline += await this.#sleeper.sleep(LONGEST_SLEEP);
    }
  }

  async idle(now: number, until: number): Promise<number> {
    const longest = Math.min(LONGEST_SLEEP, this.#wallDeadline - performance.now());
    const slept = await this.#sleeper.sleep(Math.min((until - now) / 1e6, longest));
    return Math.min(until, now + slept * 1e6);
  }
}

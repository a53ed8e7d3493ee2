// The pace of a replay that somebody watches: they are served between two slices and may hold the machine, or have it stand elsewhere in its run; what came
// from outside then comes again (recorded-pace.ts).

import { type KernelPace, LONGEST_SLEEP, type OutsideEnd, type RunGate, Sleeper } from "./kernel-pace.ts";
import type { Trip } from "./run-source.ts";
import type { Termination } from "./termination.ts";
import type { Timeline } from "./timeline.ts";

export interface WatchedParts {
  readonly pace: KernelPace;
  readonly gate: RunGate;
  readonly timeline: Timeline;
  readonly termination: Termination;
  readonly trip: Trip;
  /** Where it has arrived it stands for those who watch; else the replay ends there. */
  readonly stays: boolean;
}

export class WatchedReplay implements KernelPace {
  /** Somebody has ended it, or it has arrived where it was to end. */
  ended = false;
  readonly #parts: WatchedParts;
  readonly #pace: KernelPace;
  readonly #timeline: Timeline;
  readonly #sleeper = new Sleeper();
  /** What is next of its trip, to be done between two slices. */
  #next: (() => void) | null;

  constructor(parts: WatchedParts) {
    const { pace, gate, timeline, termination } = parts;
    this.#parts = parts;
    this.#pace = pace;
    this.#timeline = timeline;
    this.#next = () => this.#setOut();
    const wake = (): void => this.#sleeper.wake();
    termination.onSignal = wake;
    gate.onArrival = wake;
    gate.control.onChange = wake;
  }

  get interactive(): boolean {
    return this.#pace.interactive;
  }

  get budget(): number {
    return this.#pace.budget;
  }

  get moves(): number {
    return this.#timeline.moves;
  }

  get isIdle(): boolean {
    return this.#pace.isIdle;
  }

  set isIdle(idle: boolean) {
    this.#pace.isIdle = idle;
  }

  get onBytes(): (bytes: Uint8Array) => void {
    return this.#pace.onBytes;
  }

  set onBytes(take: (bytes: Uint8Array) => void) {
    this.#pace.onBytes = take;
  }

  async between(): Promise<OutsideEnd | null> {
    const { moves } = this.#timeline;
    this.#timeline.passed();
    const end = await this.#held();
    if (end !== null) return end;
    // Elsewhere nothing is known yet: a slice finds out.
    if (this.#timeline.moves !== moves) this.#pace.isIdle = false;
    return this.#pace.between();
  }

  idle(now: number, until: number): Promise<number> {
    return this.#pace.idle(now, until);
  }

  /** The run is at its end: whether it goes on, from somewhere else. */
  async goesOn(): Promise<boolean> {
    const { trip, stays, gate } = this.#parts;
    if (this.ended) return false;
    if (this.#next !== null) return true;
    if (trip.back !== undefined && trip.to === undefined && trip.until === undefined && !this.#hasTurned) {
      this.#next = () => this.#goBack(trip.back!);
      return true;
    }
    if (!stays) return false;
    for (const { moves } = this.#timeline; ; ) {
      if (!gate.control.paused) gate.control.stand({ reason: "end" });
      if ((await this.#held()) !== null) return false;
      if (this.#timeline.moves !== moves) return true;
    }
  }

  #hasTurned = false;

  #setOut(): void {
    const { trip, gate } = this.#parts;
    const { to, until, back } = trip;
    if (to === undefined && until === undefined) return;
    const arrived = (): void => {
      this.#next = back === undefined ? () => this.#arrived() : () => this.#goBack(back);
    };
    // As long as nobody has paused it, it stands at the beginning.
    gate.control.untilEvent((event) => (to !== undefined && event.seq >= to) || until?.(event) === true, 1, arrived);
  }

  #goBack(events: number): void {
    this.#hasTurned = true;
    this.#timeline.toEvent(this.#timeline.here.event - events, () => {
      this.#next = () => this.#arrived();
    });
  }

  #arrived(): void {
    if (!this.#parts.stays) this.ended = true;
  }

  /** Serves those who watch, for as long as they hold the machine; how they end it, or null. */
  async #held(): Promise<OutsideEnd | null> {
    const { gate, termination } = this.#parts;
    for (;;) {
      await new Promise((resume) => setImmediate(resume));
      const next = this.#next;
      this.#next = null;
      next?.();
      gate.serve();
      const end = this.#endOf(gate, termination);
      if (end !== null) {
        this.ended = true;
        return end;
      }
      if (this.#next === null && !gate.control.paused) return null;
      if (this.#next === null) await this.#sleeper.sleep(LONGEST_SLEEP);
    }
  }

  #endOf(gate: RunGate, { signal }: Termination): OutsideEnd | null {
    if (gate.quitting) return { kind: "quit" };
    if (signal !== null) return { kind: "signal", signal };
    return this.ended ? { kind: "event" } : null;
  }
}

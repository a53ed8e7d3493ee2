// Virtual time of a host that nothing of ours drives: the wall clock's. Whoever handled something pumps it; between requests a timer does, when
// the next event is due.
//
//     real   a device takes the time it takes
//     leap   a latency under 200 us is over at once: what a program waits for is there when it looks, and costs no timer

import type { Clock } from "../base/clock.ts";
import type { Outside } from "./outside.ts";

export type TimeMode = "real" | "leap";

const LEAP_NS = 200_000;
/** Events of one pump: a device that always has one more does not keep the requests waiting. */
const MOST_ROUNDS = 1000;

export class WallTime {
  readonly #clock: Clock;
  readonly #leap: boolean;
  readonly #outside: Outside;
  readonly #start: number;
  #timerFor = Number.POSITIVE_INFINITY;
  #lookedAt = 0;
  /** Virtual time, and the wall clock's, when the current call began. */
  #calledAt = 0;
  #calledWhen = 0;

  constructor(clock: Clock, mode: TimeMode, outside: Outside) {
    this.#clock = clock;
    this.#leap = mode === "leap";
    this.#outside = outside;
    this.#start = outside.now() - clock.now;
    outside.onWake = () => {
      this.#timerFor = Number.POSITIVE_INFINITY;
      this.pump();
    };
  }

  /** Lets happen what is due. */
  pump(): void {
    const clock = this.#clock;
    this.#lookedAt = this.#now();
    clock.advanceTo(this.#lookedAt);
    for (let round = 0; round < MOST_ROUNDS; round++) {
      if (clock.fireDue() > 0) continue;
      if (!this.#leap || clock.nextDeadline - clock.now >= LEAP_NS) break;
      clock.advanceTo(clock.nextDeadline);
    }
    this.#wait();
  }

  /** A call begins now, not when the clock was last looked at: what it takes is counted from here. */
  callBegins(): void {
    this.pump();
    this.#calledAt = this.#clock.now;
    this.#calledWhen = this.#lookedAt;
  }

  /** The call is over: milliseconds of virtual time that it took and that have not passed. What devices leap over does not count. */
  callEnds(): number {
    const took = this.#clock.now - this.#calledAt;
    if (took < LEAP_NS) return 0;
    return Math.max(0, took - (this.#now() - this.#calledWhen)) / 1e6;
  }

  close(): void {
    this.#outside.wake(null);
  }

  #now(): number {
    return this.#outside.now() - this.#start;
  }

  #wait(): void {
    const due = this.#clock.nextDeadline;
    if (due === this.#timerFor) return;
    this.#timerFor = due;
    this.#outside.wake(due === Number.POSITIVE_INFINITY ? null : (due - this.#now()) / 1e6);
  }
}

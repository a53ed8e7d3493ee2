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
    clock.advanceTo(this.#now());
    for (let round = 0; round < MOST_ROUNDS; round++) {
      if (clock.fireDue() > 0) continue;
      if (!this.#leap || clock.nextDeadline - clock.now >= LEAP_NS) break;
      clock.advanceTo(clock.nextDeadline);
    }
    this.#wait();
  }

  /** Milliseconds that virtual time is ahead of the wall clock, when a call took some; a leap does not count. */
  get aheadMs(): number {
    const ahead = this.#clock.now - this.#now();
    return ahead < LEAP_NS ? 0 : ahead / 1e6;
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

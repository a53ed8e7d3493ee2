// Virtual time of a host that nothing of ours drives: the wall clock's. Whoever handled something pumps it; between requests a timer does, when
// the next event is due.
//
//     real   a device takes the time it takes
//     leap   a latency under 200 us is over at once: what a program waits for is there when it looks, and costs no timer

import type { Clock } from "../base/clock.ts";

export type TimeMode = "real" | "leap";

const LEAP_NS = 200_000;
/** Events of one pump: a device that always has one more does not keep the requests waiting. */
const MOST_ROUNDS = 1000;

export class WallTime {
  readonly #clock: Clock;
  readonly #leap: boolean;
  readonly #start: number;
  #timer: NodeJS.Timeout | null = null;
  #immediate: NodeJS.Immediate | null = null;
  #timerFor = Number.POSITIVE_INFINITY;

  constructor(clock: Clock, mode: TimeMode) {
    this.#clock = clock;
    this.#leap = mode === "leap";
    this.#start = performance.now() - clock.now / 1e6;
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
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#immediate !== null) clearImmediate(this.#immediate);
  }

  #now(): number {
    return Math.floor((performance.now() - this.#start) * 1e6);
  }

  /** A timer has a millisecond's grain: what is due sooner is looked for again and again. */
  #wait(): void {
    const due = this.#clock.nextDeadline;
    if (due === this.#timerFor) return;
    this.close();
    this.#timer = null;
    this.#immediate = null;
    this.#timerFor = due;
    if (due === Number.POSITIVE_INFINITY) return;
    const again = () => {
      this.#timerFor = Number.POSITIVE_INFINITY;
      this.pump();
    };
    const ms = (due - this.#now()) / 1e6;
    if (ms < 1) this.#immediate = setImmediate(again);
    else this.#timer = setTimeout(again, Math.min(ms, 0x7fff_ffff));
  }
}

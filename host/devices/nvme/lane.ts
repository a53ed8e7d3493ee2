// Commands in flight: a lane carries out one after the other, in the order in which they were fetched, each at its time on the
// clock (timing.ts). The admin queue has a lane of its own, so that an Abort or a deletion overtakes I/O.

import type { DeviceClock } from "../ports.ts";
import type { Command } from "./queue.ts";
import { LATENCY_NS } from "./timing.ts";

export class Lane {
  readonly #clock: () => DeviceClock;
  readonly #carryOut: (command: Command) => void;
  readonly #served: () => void;
  readonly #ring: (Command | null)[];
  readonly #fire = (): void => this.#serve();
  #oldest = 0;
  #busyUntil = 0;
  #event = 0;
  count = 0;

  /**
   * `capacity`: most commands at once. `carryOut` gets each command when its time has come; it may stop the lane with `clear`.
   * `served`: an event has carried out all it had to.
   */
  constructor(capacity: number, clock: () => DeviceClock, carryOut: (command: Command) => void, served: () => void) {
    this.#ring = new Array<Command | null>(capacity).fill(null);
    this.#clock = clock;
    this.#carryOut = carryOut;
    this.#served = served;
  }

  /** Takes a command that needs `serviceNs`. */
  add(command: Command, serviceNs: number): void {
    const clock = this.#clock();
    this.#busyUntil = Math.max(this.#busyUntil, clock.now) + serviceNs;
    command.due = this.#busyUntil + LATENCY_NS;
    this.#ring[(this.#oldest + this.count++) % this.#ring.length] = command;
    if (this.#event === 0) this.#event = clock.schedule(command.due - clock.now, this.#fire);
  }

  /** The command number `index` in order of age. */
  at(index: number): Command {
    return this.#ring[(this.#oldest + index) % this.#ring.length]!;
  }

  /** Hands every command to `visit` and forgets them. */
  clear(visit: (command: Command) => void): void {
    if (this.#event !== 0) this.#clock().cancel(this.#event);
    this.#event = this.#busyUntil = 0;
    while (this.count > 0) visit(this.#take());
  }

  #take(): Command {
    const command = this.at(0);
    this.#ring[this.#oldest] = null;
    this.#oldest = (this.#oldest + 1) % this.#ring.length;
    this.count--;
    return command;
  }

  #serve(): void {
    this.#event = 0;
    const clock = this.#clock();
    while (this.count > 0 && this.at(0).due <= clock.now) this.#carryOut(this.#take());
    if (this.count > 0) this.#event = clock.schedule(this.at(0).due - clock.now, this.#fire);
    this.#served();
  }
}

// Commands in flight: a lane carries out one after the other, in the order in which they were fetched, each at its time on the
// clock (timing.ts). The admin queue has a lane of its own, so that an Abort or a deletion overtakes I/O.

import type { ClockEvent } from "../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { DeviceClock } from "../ports.ts";
import type { Command } from "./queue.ts";
import { LATENCY_NS } from "./timing.ts";

export interface LaneParts {
  /** Of the controller and the lane: for its event. */
  readonly name: string;
  /** Most commands at once. */
  readonly capacity: number;
  readonly clock: () => DeviceClock;
  /** Gets each command when its time has come; it may stop the lane with `clear`. */
  readonly carryOut: (command: Command) => void;
  /** An event has carried out all it had to. */
  readonly served: () => void;
  readonly save: (command: Command) => StateRecord;
  /** A command as `save` wrote it. */
  readonly restore: (state: StateReader) => Command;
}

export class Lane implements Stateful {
  readonly #parts: LaneParts;
  readonly #ring: (Command | null)[];
  readonly #due: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];
  #oldest = 0;
  #busyUntil = 0;
  #event = 0;
  count = 0;

  constructor(parts: LaneParts) {
    this.#parts = parts;
    this.#ring = new Array<Command | null>(parts.capacity).fill(null);
    this.#due = { owner: parts.name, name: "command due", fire: () => this.#serve() };
    this.clockEvents = [this.#due];
  }

  /** Takes a command that needs `serviceNs`. */
  add(command: Command, serviceNs: number): void {
    const clock = this.#parts.clock();
    this.#busyUntil = Math.max(this.#busyUntil, clock.now) + serviceNs;
    command.due = this.#busyUntil + LATENCY_NS;
    this.#ring[(this.#oldest + this.count++) % this.#ring.length] = command;
    if (this.#event === 0) this.#event = clock.schedule(command.due - clock.now, this.#due);
  }

  /** The command number `index` in order of age. */
  at(index: number): Command {
    return this.#ring[(this.#oldest + index) % this.#ring.length]!;
  }

  /** Hands every command to `visit` and forgets them. */
  clear(visit: (command: Command) => void): void {
    if (this.#event !== 0) this.#parts.clock().cancel(this.#event);
    this.#event = this.#busyUntil = 0;
    this.drain(visit);
  }

  /** As `clear`, but the clock's queue stays as it is. */
  drain(visit: (command: Command) => void): void {
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
    const clock = this.#parts.clock();
    while (this.count > 0 && this.at(0).due <= clock.now) this.#parts.carryOut(this.#take());
    if (this.count > 0) this.#event = clock.schedule(this.at(0).due - clock.now, this.#due);
    this.#parts.served();
  }

  saveState(): StateRecord {
    const commands = Array.from({ length: this.count }, (_, index) => this.#parts.save(this.at(index)));
    return { commands, busyUntil: this.#busyUntil, event: this.#event };
  }

  /** To be called with no command in it. */
  restoreState(state: StateReader): void {
    const commands = state.records("commands");
    if (commands.length > this.#ring.length) state.fail("commands", "are too many");
    this.#oldest = this.count = 0;
    for (const saved of commands) this.#ring[this.count++] = this.#parts.restore(saved);
    this.#busyUntil = state.number("busyUntil");
    this.#event = state.number("event");
  }
}

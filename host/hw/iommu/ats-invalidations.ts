// ATS invalidations under way and page responses (PCIe 6.0 §10.3, §10.4): each Invalidation Request has a tag until its completion is in or
// its time is up. A command queue's fence waits for all of them; a timeout is reported by the next one.

import type { Clock } from "../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { AtsTarget } from "../../devices/ports.ts";

export type Pending = "none" | "waiting" | "timed-out";

/** A range that covers all addresses. */
export const ALL_PAGES = Number.POSITIVE_INFINITY;

export class AtsInvalidations implements Stateful {
  findTarget: (deviceId: number) => AtsTarget | undefined = () => undefined; // not state: wiring
  readonly #clock: Clock;
  readonly #timeoutNs: number;
  /** Per tag: device id of an outstanding request, -1 free; and when it is given up. */
  readonly #devices: Float64Array;
  readonly #deadlines: Float64Array;
  #outstanding = 0;
  #timedOut = false;

  /** `tags` requests at most are outstanding, each for `timeoutNs` of virtual time. */
  constructor(clock: Clock, tags: number, timeoutNs: number) {
    this.#clock = clock;
    this.#timeoutNs = timeoutNs;
    this.#devices = new Float64Array(tags).fill(-1);
    this.#deadlines = new Float64Array(tags);
  }

  saveState(): StateRecord {
    return {
      devices: [...this.#devices],
      deadlines: [...this.#deadlines],
      outstanding: this.#outstanding,
      timedOut: this.#timedOut,
    };
  }

  restoreState(state: StateReader): void {
    state.numbers("devices", this.#devices);
    state.numbers("deadlines", this.#deadlines);
    this.#outstanding = state.number("outstanding");
    this.#timedOut = state.boolean("timedOut");
  }

  reset(): void {
    this.#devices.fill(-1);
    this.#outstanding = 0;
    this.#timedOut = false;
  }

  /** When the next outstanding request is given up; Infinity if none is. */
  get nextDeadline(): number {
    let next = Number.POSITIVE_INFINITY;
    for (let tag = 0; tag < this.#devices.length; tag++) {
      if (this.#devices[tag]! >= 0) next = Math.min(next, this.#deadlines[tag]!);
    }
    return next;
  }

  /** Sends an Invalidation Request for the pages [first, first + pages). False: no tag is free, try again. */
  invalidate(deviceId: number, pasid: number, first: number, pages: number, global: boolean): boolean {
    this.#expire();
    const tag = this.#devices.indexOf(-1);
    if (tag < 0) return false;
    // Tagged before the target sees the request: it may complete from within.
    this.#devices[tag] = deviceId;
    this.#deadlines[tag] = this.#clock.now + this.#timeoutNs;
    this.#outstanding++;
    const target = this.findTarget(deviceId);
    if (target?.invalidate(first, pages, pasid, global, tag)) this.completed(deviceId, tag);
    return true;
  }

  /** Invalidation Completion of a function; one that nobody waits for is ignored. */
  completed(deviceId: number, tag: number): void {
    if (this.#devices[tag] !== deviceId || deviceId < 0) return;
    this.#devices[tag] = -1;
    this.#outstanding--;
  }

  /** PRG Response to a function; nobody there: lost. */
  respond(deviceId: number, pasid: number, group: number, code: number): void {
    this.findTarget(deviceId)?.pageResponse(pasid, group, code);
  }

  /** For a fence. "timed-out" is said once; the requests given up are forgotten. */
  settle(): Pending {
    this.#expire();
    if (this.#outstanding > 0) return "waiting";
    if (!this.#timedOut) return "none";
    this.#timedOut = false;
    return "timed-out";
  }

  #expire(): void {
    if (this.#outstanding === 0) return;
    const now = this.#clock.now;
    for (let tag = 0; tag < this.#devices.length; tag++) {
      if (this.#devices[tag]! >= 0 && this.#deadlines[tag]! <= now) {
        this.#devices[tag] = -1;
        this.#outstanding--;
        this.#timedOut = true;
      }
    }
  }
}

// ATS invalidations under way and page responses (PCIe 6.0 §10.3, §10.4): each Invalidation Request has a tag until its completion is in or
// its time is up. A command queue's fence waits for those that the queue sent; a timeout is reported by its next one.
//
// An IOMMU with several command queues numbers them as requesters, 0 being its own. The others together have half of the tags, so that a device that
// never answers one of them leaves the first room. A queue that was closed leaves what it had outstanding, and a timeout that was not yet reported,
// to whoever opens it again, unless a fence of requester 0 comes first: it waits for these too, and forgets their timeouts.

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
  /** Per tag that is not free: which queue sent it. */
  readonly #requesters: Uint16Array;
  #outstanding = 0;
  /** Per requester: a timeout not reported yet; the queue is closed. */
  readonly #timedOut: Uint8Array;
  readonly #closed: Uint8Array;
  /** The function that did not answer last. */
  #silent = -1;

  /** `tags` requests at most are outstanding, each for `timeoutNs` of virtual time. */
  constructor(clock: Clock, tags: number, timeoutNs: number, requesters = 1) {
    this.#clock = clock;
    this.#timeoutNs = timeoutNs;
    this.#devices = new Float64Array(tags).fill(-1);
    this.#deadlines = new Float64Array(tags);
    this.#requesters = new Uint16Array(tags);
    this.#timedOut = new Uint8Array(requesters);
    this.#closed = new Uint8Array(requesters);
  }

  saveState(): StateRecord {
    return {
      devices: [...this.#devices],
      deadlines: [...this.#deadlines],
      requesters: [...this.#requesters],
      outstanding: this.#outstanding,
      timedOut: [...this.#timedOut],
      closed: [...this.#closed],
      silent: this.#silent,
    };
  }

  restoreState(state: StateReader): void {
    state.numbers("devices", this.#devices);
    state.numbers("deadlines", this.#deadlines);
    state.numbers("requesters", this.#requesters);
    this.#outstanding = state.number("outstanding");
    state.numbers("timedOut", this.#timedOut);
    state.numbers("closed", this.#closed);
    this.#silent = state.number("silent");
  }

  /** Device id of the function whose request was given up last; -1: none was. */
  get silent(): number {
    return this.#silent;
  }

  reset(): void {
    this.#devices.fill(-1);
    this.#outstanding = 0;
    this.#timedOut.fill(0);
    this.#closed.fill(0);
    this.#silent = -1;
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
  invalidate(deviceId: number, pasid: number, first: number, pages: number, global: boolean, requester = 0): boolean {
    this.#expire();
    const tag = this.#devices.indexOf(-1);
    if (tag < 0 || (requester !== 0 && this.#othersOutstanding() >= Math.ceil(this.#devices.length / 2))) return false;
    // Tagged before the target sees the request: it may complete from within.
    this.#devices[tag] = deviceId;
    this.#requesters[tag] = requester;
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

  /** Nothing is outstanding, and no fence has anything to hear of what was. */
  get idle(): boolean {
    if (this.#outstanding !== 0) return false;
    const timedOut = this.#timedOut;
    for (let requester = 0; requester < timedOut.length; requester++) if (timedOut[requester] === 1) return false;
    return true;
  }

  /** For a fence of `requester`. "timed-out" is said once; the requests given up are forgotten. */
  settle(requester = 0): Pending {
    this.#expire();
    if (this.#outstanding > 0 && this.#awaits(requester)) return "waiting";
    if (requester === 0) {
      for (let other = 1; other < this.#closed.length; other++)
        if (this.#closed[other] === 1) this.#timedOut[other] = 0;
    }
    if (this.#timedOut[requester] === 0) return "none";
    this.#timedOut[requester] = 0;
    return "timed-out";
  }

  /** A queue was switched on or off. */
  setClosed(requester: number, closed: boolean): void {
    this.#closed[requester] = closed ? 1 : 0;
  }

  #awaits(requester: number): boolean {
    for (let tag = 0; tag < this.#devices.length; tag++) {
      if (this.#devices[tag]! < 0) continue;
      const sender = this.#requesters[tag]!;
      if (sender === requester || (requester === 0 && this.#closed[sender] === 1)) return true;
    }
    return false;
  }

  /** Tags that requesters other than 0 hold. */
  #othersOutstanding(): number {
    let count = 0;
    for (let tag = 0; tag < this.#devices.length; tag++) {
      if (this.#devices[tag]! >= 0 && this.#requesters[tag] !== 0) count++;
    }
    return count;
  }

  #expire(): void {
    if (this.#outstanding === 0) return;
    const now = this.#clock.now;
    for (let tag = 0; tag < this.#devices.length; tag++) {
      if (this.#devices[tag]! >= 0 && this.#deadlines[tag]! <= now) {
        this.#silent = this.#devices[tag]!;
        this.#devices[tag] = -1;
        this.#outstanding--;
        this.#timedOut[this.#requesters[tag]!] = 1;
      }
    }
  }
}

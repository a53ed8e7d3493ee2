// ATS invalidations under way and page responses (§4.1.4): each Invalidation Request has a tag until its completion is in or its
// time is up. IOFENCE.C waits for all of them; a timeout is reported by the next one.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { AtsTarget } from "../../../devices/ports.ts";
import type { HardwareState } from "./hardware-state.ts";

export type Pending = "none" | "waiting" | "timed-out";

export class AtsInvalidations implements Stateful {
  findTarget: (deviceId: number) => AtsTarget | undefined = () => undefined; // not state: wiring
  readonly #state: HardwareState;
  /** Per tag: device id of an outstanding request, -1 free; and when it is given up. */
  readonly #devices: Int32Array;
  readonly #deadlines: Float64Array;
  #outstanding = 0;
  #timedOut = false;

  constructor(state: HardwareState) {
    this.#state = state;
    this.#devices = new Int32Array(state.configuration.atsTags).fill(-1);
    this.#deadlines = new Float64Array(state.configuration.atsTags);
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

  /**
   * Sends an Invalidation Request. False: no tag is free, try again. `range` is the S bit: the address carries a size as in PCIe
   * (lowest 0 bit at X of the frame number: 2^(X+1) pages).
   */
  invalidate(deviceId: number, pasid: number, pfn: number, range: boolean, global: boolean): boolean {
    this.#expire();
    const tag = this.#devices.indexOf(-1);
    if (tag < 0) return false;
    let first = pfn;
    let pages = 1;
    if (range) {
      let size = 0;
      while (size < 51 && Math.floor(pfn / 2 ** size) % 2 === 1) size++;
      pages = size >= 51 ? Number.POSITIVE_INFINITY : 2 ** (size + 1);
      first = size >= 51 ? 0 : pfn - (pfn % pages);
    }
    // Tagged before the target sees the request: it may complete from within.
    this.#devices[tag] = deviceId;
    this.#deadlines[tag] = this.#state.clock.now + this.#state.configuration.atsTimeoutNs;
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

  /** For IOFENCE.C. "timed-out" is said once; the requests given up are forgotten. */
  settle(): Pending {
    this.#expire();
    if (this.#outstanding > 0) return "waiting";
    if (!this.#timedOut) return "none";
    this.#timedOut = false;
    return "timed-out";
  }

  #expire(): void {
    if (this.#outstanding === 0) return;
    const now = this.#state.clock.now;
    for (let tag = 0; tag < this.#devices.length; tag++) {
      if (this.#devices[tag]! >= 0 && this.#deadlines[tag]! <= now) {
        this.#devices[tag] = -1;
        this.#outstanding--;
        this.#timedOut = true;
      }
    }
  }

  saveState(): StateRecord {
    return {
      devices: bytesOf(this.#devices),
      deadlines: bytesOf(this.#deadlines),
      outstanding: this.#outstanding,
      timedOut: this.#timedOut,
    };
  }

  restoreState(state: StateReader): void {
    state.memory("devices", this.#devices);
    state.memory("deadlines", this.#deadlines);
    this.#outstanding = state.number("outstanding");
    this.#timedOut = state.boolean("timedOut");
  }
}

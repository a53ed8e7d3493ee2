// Invalidations of the translation cache of a device model on the VM's own bus (PCIe 6.0 §10.3): under way from the guest's command until the model
// has completed, or its time is up.

import type { ClockEvent } from "../../host/base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import type { AtsTarget, DeviceClock } from "../../host/devices/ports.ts";

/** How long a model may take over an invalidation, in virtual time. */
const INVALIDATION_TIMEOUT_NS = 1_000_000;
/** Invalidations under way at most: an ITag has five bits (PCIe 6.0 §10.3.1). */
const TAGS = 32;

export class DeviceInvalidations implements Stateful {
  readonly clockEvents: readonly ClockEvent[];
  readonly #target: AtsTarget;
  readonly #clock: DeviceClock;
  readonly #completed: (timedOut: boolean) => void;
  /** Tag → the event that gives the invalidation up. */
  readonly #underWay = new Map<number, number>();
  readonly #givenUp: ClockEvent;
  #nextTag = 0;
  /** The model is being told of this one: if it completes it right then, nobody has begun to wait. */
  #beginning = -1; // not state: within a call

  /** `owner` names the device in the clock's events. `completed` is called for each invalidation that was to be waited for. */
  constructor(target: AtsTarget, clock: DeviceClock, owner: string, completed: (timedOut: boolean) => void) {
    this.#target = target;
    this.#clock = clock;
    this.#completed = completed;
    this.#givenUp = { owner, name: "ATS invalidation given up", fire: (tag) => this.#ends(tag, true) };
    this.clockEvents = [this.#givenUp];
  }

  /**
   * Arguments as `AtsTarget.invalidate`: 1 if the completion is to be waited for, 0 if it is in, -1 if no tag is free: nothing has been done, and the
   * queue waits.
   */
  begin(firstPfn: number, pages: number, pasid: number, global: boolean): number {
    if (this.#underWay.size >= TAGS) return -1;
    const tag = this.#nextTag++;
    const expire = this.#clock.schedule(INVALIDATION_TIMEOUT_NS, this.#givenUp, tag);
    this.#underWay.set(tag, expire);
    this.#beginning = tag;
    const complete = this.#target.invalidate(firstPfn, pages, pasid, global, tag);
    this.#beginning = -1;
    if (complete) {
      this.#clock.cancel(expire);
      this.#underWay.delete(tag);
      return 0;
    }
    return this.#underWay.has(tag) ? 1 : 0;
  }

  /** The model's completion. */
  completed(tag: number): void {
    this.#ends(tag, false);
  }

  /** What is under way is not waited for any more. */
  forget(): void {
    for (const event of this.#underWay.values()) this.#clock.cancel(event);
    this.#underWay.clear();
  }

  /** The device is gone: what it has not completed it never will. */
  giveUp(): void {
    for (const tag of [...this.#underWay.keys()]) {
      this.#clock.cancel(this.#underWay.get(tag)!);
      this.#ends(tag, true);
    }
  }

  #ends(tag: number, timedOut: boolean): void {
    const event = this.#underWay.get(tag);
    if (event === undefined) return;
    this.#underWay.delete(tag);
    if (!timedOut) this.#clock.cancel(event);
    if (tag !== this.#beginning) this.#completed(timedOut);
  }

  saveState(): StateRecord {
    return {
      invalidations: [...this.#underWay].map(([tag, event]) => ({ tag, event })),
      nextTag: this.#nextTag,
    };
  }

  restoreState(state: StateReader): void {
    const underWay = state.records("invalidations").map((each) => [each.number("tag"), each.number("event")] as const);
    if (underWay.length > TAGS) state.fail("invalidations", `are more than ${TAGS}`);
    this.#underWay.clear();
    for (const [tag, event] of underWay) this.#underWay.set(tag, event);
    this.#nextTag = state.number("nextTag");
  }
}

// What IOMMUs that are driven through queues in memory have in common as pieces of hardware: a register write latches work, `step` and `drain`
// do it, or the clock does `automaticDelayNs` after the write; functions are sent ATS messages; walks are told of while the trace is on.
//
//     registers ── latched writes ──▶ step()/drain() ──▶ commands, ATS invalidations ──▶ functions
//
// A kind's class says what one step of its work is, and translates.

import type { Clock, ClockEvent } from "../../base/clock.ts";
import type { MmioPort } from "../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { Trace } from "../../base/trace.ts";
import type { AtsTarget } from "../../devices/ports.ts";
import { AtsInvalidations } from "./ats-invalidations.ts";
import type { IommuParts } from "./port.ts";
import { type WalkNames, WalkTrace } from "./walk-trace.ts";

export interface QueuedIommuOptions {
  /** ATS invalidations outstanding at most, and when one is given up (virtual ns). */
  readonly atsTags: number;
  readonly atsTimeoutNs: number;
  /** null: only step() and drain() work on what is latched. */
  readonly automaticDelayNs: number | null;
  /** Queues that send ATS invalidations; absent: the IOMMU's own alone. */
  readonly commandQueues?: number;
}

export abstract class QueuedIommu implements Stateful {
  readonly name: string;
  abstract readonly registers: MmioPort;
  readonly clockEvents: readonly ClockEvent[];
  protected readonly ats: AtsInvalidations;
  readonly trace: Trace;
  protected readonly walkTrace: WalkTrace;
  /** Where wires are driven from. */
  protected abstract readonly wires: { onWire: (vector: number, asserted: boolean) => void };
  readonly #clock: Clock;
  readonly #delayNs: number | null;
  readonly #work: ClockEvent;
  #draining = false; // not state: within a call
  #scheduled = 0;

  constructor({ name, clock, trace }: IommuParts, options: QueuedIommuOptions, names: WalkNames) {
    this.name = name;
    this.trace = trace;
    this.#clock = clock;
    this.#delayNs = options.automaticDelayNs;
    this.ats = new AtsInvalidations(clock, options.atsTags, options.atsTimeoutNs, options.commandQueues);
    this.walkTrace = new WalkTrace(trace, name, names);
    this.#work = { owner: `iommu ${name}`, name: "latched work", fire: () => this.#workDue() };
    this.clockEvents = [this.#work];
  }

  /**
   * Does pieces of latched work, at most `limit`, as long as no message can fall due between them: how many, 0 when there is none, or it must wait.
   */
  protected abstract doWork(limit: number): number;
  /** Pieces of work after which `drain` stops in any case: a queueful. */
  protected abstract readonly workLimit: number;
  /** There is work, if only some that must wait. */
  protected abstract readonly hasWork: boolean;
  /** Before work is done: messages that are due are sent. */
  protected abstract sendDue(): void;
  /** Makes the walkers tell, or tell nobody. */
  protected abstract observeWalks(observer: WalkTrace | null): void;

  step(): boolean {
    this.observe(-1);
    this.sendDue();
    return this.doWork(1) > 0;
  }

  drain(): void {
    // A handler that runs inside (an interrupt's store target) may drain too: the outer call goes on with what it left.
    if (this.#draining) return;
    this.#draining = true;
    this.observe(-1);
    for (let left = this.workLimit + 1; left > 0; ) {
      this.sendDue();
      const done = this.doWork(left);
      if (done === 0) break;
      left -= done;
    }
    this.#draining = false;
  }

  /** With automaticDelayNs: lets the clock do what was latched. */
  protected scheduleWork(): void {
    if (this.#delayNs === null || this.#scheduled !== 0) return;
    this.#scheduled = this.#clock.schedule(this.#delayNs, this.#work);
  }

  #workDue(): void {
    this.#scheduled = 0;
    this.drain();
    // A fence that waits for an ATS invalidation is looked at again when that has timed out.
    const deadline = this.ats.nextDeadline;
    if (!this.hasWork || deadline === Number.POSITIVE_INFINITY || this.#scheduled !== 0) return;
    this.#scheduled = this.#clock.schedule(Math.max(0, deadline - this.#clock.now), this.#work);
  }

  /** Part of a reset: nothing is latched, nothing outstanding. */
  protected forgetWork(): void {
    this.ats.reset();
    this.#clock.cancel(this.#scheduled);
    this.#scheduled = 0;
  }

  /** Says whose walks follow, and attaches or detaches the walk observer as the trace goes on or off. */
  protected observe(deviceId: number): void {
    const on = this.trace.on;
    this.walkTrace.deviceId = deviceId;
    if (on === this.walkTrace.attached) return;
    this.walkTrace.attached = on;
    this.observeWalks(on ? this.walkTrace : null);
  }

  invalidationCompleted(deviceId: number, itag: number): void {
    this.ats.completed(deviceId, itag);
    this.scheduleWork();
  }

  get findTarget(): (deviceId: number) => AtsTarget | undefined {
    return this.ats.findTarget;
  }

  set findTarget(find: (deviceId: number) => AtsTarget | undefined) {
    this.ats.findTarget = find;
  }

  get onWire(): (vector: number, asserted: boolean) => void {
    return this.wires.onWire;
  }

  set onWire(drive: (vector: number, asserted: boolean) => void) {
    this.wires.onWire = drive;
  }

  saveState(): StateRecord {
    return { scheduled: this.#scheduled };
  }

  restoreState(state: StateReader): void {
    this.#scheduled = state.number("scheduled");
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [["ATS invalidations", this.ats]];
  }
}

// Whether a machine runs, and up to where: paused, running, or running to a goal (so many steps, an event of the trace). The loop that runs the machine
// asks before it goes on and says when it has arrived somewhere; who controls it (a monitor, a debugger) never calls into the machine.
//
//     loop:  while (control.paused) wait;  run(control.budget);  control.arrived()
//
// A step is whatever `progress` counts: instructions of a kernel machine, traps of a component guest.

import type { Trace, TracedEvent, TraceSink } from "../../host/base/trace.ts";

/** Why it stands. */
export type Stop =
  | { readonly reason: "start" | "pause" | "step" }
  /** A replay has come to the end of its run. */
  | { readonly reason: "end" }
  | { readonly reason: "event"; readonly event: TracedEvent }
  /** Someone outside the goals asked for it: a breakpoint. */
  | { readonly reason: "breakpoint"; readonly cpu: number };

export type Waiter = (stop: Stop) => void;

export interface ControlledRun {
  readonly trace: Trace;
  /** Steps done so far. */
  progress(): number;
  /** From within the run: has it return after the step that is being done. */
  interrupt(): void;
}

// Not state: who holds a run is outside of it.
export class RunControl implements TraceSink {
  /** Called when something changed: a loop that sleeps looks again. */
  onChange: () => void = () => {};
  #stop: Stop | null;
  /** What `progress` reaches when the steps are done. */
  #goal = Number.POSITIVE_INFINITY;
  #match: ((event: TracedEvent) => boolean) | null = null;
  #events = 0;
  #reached: Stop | null = null;
  readonly #run: ControlledRun;
  readonly #waiters: Waiter[] = [];

  constructor(run: ControlledRun, paused = false) {
    this.#run = run;
    this.#stop = paused ? { reason: "start" } : null;
  }

  /** Why it stands; null: it runs. */
  get stop(): Stop | null {
    return this.#stop;
  }

  get paused(): boolean {
    return this.#stop !== null;
  }

  /** Steps that the next run may do. */
  get budget(): number {
    return Math.max(1, this.#goal - this.#run.progress());
  }

  /** A goal is reached: the loop must call `arrived`. */
  get due(): boolean {
    return this.#stop === null && (this.#reached !== null || this.#run.progress() >= this.#goal);
  }

  /** Called by the loop where the machine stands between two steps. */
  arrived(): void {
    if (!this.due) return;
    this.#end(this.#reached ?? { reason: "step" });
  }

  /** From outside the run. */
  pause(): void {
    if (this.#stop === null) this.#end({ reason: "pause" });
  }

  /** It stands where it has been put; what it was to run to is forgotten. */
  stand(stop: Stop): void {
    this.#end(stop);
  }

  /** From within the run: it stops there. */
  breakAt(stop: Stop): void {
    this.#reached ??= stop;
    this.#run.interrupt();
  }

  resume(): void {
    this.#begin(Number.POSITIVE_INFINITY, null, 0);
  }

  /** Tells `waiter` once it stands again, for whatever reason. */
  step(steps: number, waiter: Waiter): void {
    this.#waiters.push(waiter);
    this.#begin(this.#run.progress() + Math.max(1, steps), null, 0);
  }

  /** Runs until `events` events that match have been traced; stops behind the last. */
  untilEvent(match: (event: TracedEvent) => boolean, events: number, waiter: Waiter): void {
    this.#waiters.push(waiter);
    this.#begin(Number.POSITIVE_INFINITY, match, Math.max(1, events));
  }

  /** Tells `waiter` when the running machine stands next. */
  whenStopped(waiter: Waiter): void {
    this.#waiters.push(waiter);
  }

  event(event: TracedEvent): void {
    if (this.#match === null || this.#reached !== null || !this.#match(event)) return;
    this.#events--;
    if (this.#events > 0) return;
    this.#reached = { reason: "event", event };
    this.#run.interrupt();
  }

  #begin(goal: number, match: ((event: TracedEvent) => boolean) | null, events: number): void {
    this.#stop = null;
    this.#reached = null;
    this.#goal = goal;
    this.#events = events;
    if ((match === null) !== (this.#match === null)) {
      if (match === null) this.#run.trace.removeSink(this);
      else this.#run.trace.addSink(this);
    }
    this.#match = match;
    this.onChange();
  }

  #end(stop: Stop): void {
    this.#stop = stop;
    this.#reached = null;
    this.#goal = Number.POSITIVE_INFINITY;
    if (this.#match !== null) this.#run.trace.removeSink(this);
    this.#match = null;
    for (const waiter of this.#waiters.splice(0)) waiter(stop);
    this.onChange();
  }
}

// Virtual time: one clock per run, in nanoseconds (a double is exact for 104 days), and its queue of events.
//
// Nothing in the core looks at a wall clock. Time moves when somebody says so (`advance`), and events fire only when the run
// loop says so (`fireDue`): an event that fell due during a trap fires at trap exit. Kernel code that waits for hardware
// advances time and fires nothing. Events at the same instant fire in the order they were scheduled. An event past the
// exact range never fires: a guest may set its alarm to the largest number there is, and time must not stand still after it.

import { StateError, type Stateful, type StateReader, type StateRecord } from "./state.ts";
import type { Trace } from "./trace.ts";

/** Names a scheduled event; 0 never does. */
export type EventId = number;

/** Virtual time beyond which whole nanoseconds are not told apart. */
const LAST_INSTANT = 2 ** 53;

/**
 * What happens at a scheduled moment, made once by its owner: a queue can then be written down by names. `argument` is whatever number it was
 * scheduled with.
 */
export interface ClockEvent {
  /** "edu 0000:00:01.0". */
  readonly owner: string;
  /** "factorial done". */
  readonly name: string;
  fire(argument: number): void;
}

interface ScheduledEvent {
  readonly at: number;
  readonly id: EventId;
  readonly cause: number;
  readonly event: ClockEvent;
  readonly argument: number;
}

export class Clock implements Stateful {
  /** Nanoseconds since the run began. */
  now = 0;
  /** When set, an event fires with the trace cause it was scheduled under. */
  trace: Trace | null = null; // not state: wiring
  readonly #heap: ScheduledEvent[] = [];
  #nextId = 1;

  /** Number of events waiting. */
  get pending(): number {
    return this.#heap.length;
  }

  /** When the next event is due, Infinity if none waits. */
  get nextDeadline(): number {
    return this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0]!.at;
  }

  /** Lets an event fire once `delay` ns from now. */
  schedule(delay: number, event: ClockEvent, argument = 0): EventId {
    const id = this.#nextId++;
    const instant = this.now + delay;
    const at = instant < LAST_INSTANT ? instant : Number.POSITIVE_INFINITY;
    const scheduled = { at, id, cause: this.trace === null ? 0 : this.trace.cause, event, argument };
    this.#heap.push(scheduled);
    this.#rise(this.#heap.length - 1, scheduled);
    return id;
  }

  /**
   * Cancels an event that has not fired; nothing happens for 0 and for one that has. The event is gone at once, so that a guest which sets
   * and cancels alarms far ahead cannot fill the queue. Looks through the queue: a few events a device.
   */
  cancel(id: EventId): void {
    const heap = this.#heap;
    for (let i = 0; i < heap.length; i++) {
      if (heap[i]!.id !== id) continue;
      const last = heap.pop()!;
      if (i < heap.length) {
        this.#sink(i, last);
        if (heap[i] === last) this.#rise(i, last);
      }
      return;
    }
  }

  /** Moves time without firing anything. */
  advance(ns: number): void {
    this.now += ns;
  }

  /** Moves time forward to `at` (never back) without firing anything. */
  advanceTo(at: number): void {
    if (at > this.now) this.now = at;
  }

  /** Fires, in order, all that is due by now. What these schedule for now or earlier fires too. Returns how many fired. */
  fireDue(): number {
    let fired = 0;
    while (this.#heap.length > 0 && this.nextDeadline <= this.now) {
      const { event, argument, cause } = this.#pop();
      fired++;
      if (this.trace === null) {
        event.fire(argument);
      } else {
        const previous = this.trace.cause;
        this.trace.cause = cause;
        event.fire(argument);
        this.trace.cause = previous;
      }
    }
    return fired;
  }

  /** Events that a restored queue may hold, by owner and name; whoever restores a machine gives those of all its parts. */
  known: ReadonlyMap<string, ClockEvent> = new Map(); // not state: wiring

  saveState(): StateRecord {
    const queue = this.#heap
      .slice()
      .sort((a, b) => (before(a, b) ? -1 : 1))
      .map(({ at, id, cause, event: { owner, name }, argument }) => ({ at, id, cause, owner, name, argument }));
    return { now: this.now, nextId: this.#nextId, queue };
  }

  restoreState(state: StateReader): void {
    const queue = state.records("queue").map((saved) => {
      const name = eventKey(saved.text("owner"), saved.text("name"));
      const event = this.known.get(name);
      if (event === undefined) throw new StateError(`${saved.path}: nothing here has an event "${name}"`);
      return {
        at: saved.number("at"),
        id: saved.number("id"),
        cause: saved.number("cause"),
        event,
        argument: saved.number("argument"),
      };
    });
    this.now = state.number("now");
    this.#nextId = state.number("nextId");
    // In order, a list is a heap.
    this.#heap.splice(0, this.#heap.length, ...queue);
  }

  #pop(): ScheduledEvent {
    const heap = this.#heap;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(0, last);
    return top;
  }

  /** Puts `event` at place i or above it, where it belongs. */
  #rise(place: number, event: ScheduledEvent): void {
    const heap = this.#heap;
    let i = place;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = event;
  }

  /** Puts `event` at place i or below it, where it belongs. */
  #sink(place: number, event: ScheduledEvent): void {
    const heap = this.#heap;
    let i = place;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, event)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = event;
  }
}

/** The name of an event in `Clock.known`. */
export function eventKey(owner: string, name: string): string {
  return `${owner}: ${name}`;
}

function before(a: ScheduledEvent, b: ScheduledEvent): boolean {
  return a.at < b.at || (a.at === b.at && a.id < b.id);
}

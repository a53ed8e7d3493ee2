// Virtual time: one clock per run, in nanoseconds (a double is exact for 104 days), and its queue of events.
//
// Nothing in the core looks at a wall clock. Time moves when somebody says so (`advance`), and events fire only when the run
// loop says so (`fireDue`): an event that fell due during a trap fires at trap exit. Kernel code that waits for hardware
// advances time and fires nothing. Events at the same instant fire in the order they were scheduled. An event past the
// exact range never fires: a guest may set its alarm to the largest number there is, and time must not stand still after it.

import type { Trace } from "./trace.ts";

/** Names a scheduled event; 0 never does. */
export type EventId = number;

/** Virtual time beyond which whole nanoseconds are not told apart. */
const LAST_INSTANT = 2 ** 53;

interface ScheduledEvent {
  readonly at: number;
  readonly id: EventId;
  readonly cause: number;
  readonly fire: () => void;
}

export class Clock {
  /** Nanoseconds since the run began. */
  now = 0;
  /** When set, an event fires with the trace cause it was scheduled under. */
  trace: Trace | null = null;
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

  /** Lets `fire` be called once `delay` ns from now. */
  schedule(delay: number, fire: () => void): EventId {
    const id = this.#nextId++;
    const instant = this.now + delay;
    const at = instant < LAST_INSTANT ? instant : Number.POSITIVE_INFINITY;
    const event = { at, id, cause: this.trace === null ? 0 : this.trace.cause, fire };
    this.#heap.push(event);
    this.#rise(this.#heap.length - 1, event);
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
      const event = this.#pop();
      fired++;
      if (this.trace === null) {
        event.fire();
      } else {
        const previous = this.trace.cause;
        this.trace.cause = event.cause;
        event.fire();
        this.trace.cause = previous;
      }
    }
    return fired;
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

function before(a: ScheduledEvent, b: ScheduledEvent): boolean {
  return a.at < b.at || (a.at === b.at && a.id < b.id);
}

// Virtual time: one clock per run, in nanoseconds (a double is exact for 104 days), and its queue of events.
//
// Nothing in the core looks at a wall clock. Time moves when somebody says so (`advance`), and events fire only when the run
// loop says so (`fireDue`): an event that fell due during a trap fires at trap exit. Kernel code that waits for hardware
// advances time and fires nothing. Events at the same instant fire in the order they were scheduled.

import type { Trace } from "./trace.ts";

/** Names a scheduled event; 0 never does. */
export type EventId = number;

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
  readonly #cancelled = new Set<EventId>();
  #nextId = 1;

  /** Number of events waiting. */
  get pending(): number {
    return this.#heap.length - this.#cancelled.size;
  }

  /** When the next event is due, Infinity if none waits. */
  get nextDeadline(): number {
    this.#dropCancelled();
    return this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0]!.at;
  }

  /** Lets `fire` be called once `delay` ns from now. */
  schedule(delay: number, fire: () => void): EventId {
    const id = this.#nextId++;
    const event = { at: this.now + delay, id, cause: this.trace === null ? 0 : this.trace.cause, fire };
    const heap = this.#heap;
    let i = heap.length;
    heap.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = event;
    return id;
  }

  /** Cancels an event that has not fired; cancelling 0 or a fired one is allowed once the caller forgets it. */
  cancel(id: EventId): void {
    if (id !== 0 && this.#heap.some((event) => event.id === id)) this.#cancelled.add(id);
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
    while (this.nextDeadline <= this.now) {
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

  #dropCancelled(): void {
    while (this.#cancelled.size > 0 && this.#heap.length > 0 && this.#cancelled.delete(this.#heap[0]!.id)) this.#pop();
  }

  #pop(): ScheduledEvent {
    const heap = this.#heap;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
        if (!before(heap[child]!, last)) break;
        heap[i] = heap[child]!;
        i = child;
      }
      heap[i] = last;
    }
    return top;
  }
}

function before(a: ScheduledEvent, b: ScheduledEvent): boolean {
  return a.at < b.at || (a.at === b.at && a.id < b.id);
}

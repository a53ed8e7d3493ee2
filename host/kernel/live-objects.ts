// How many kernel objects of each kind are alive on one host. What creates an object counts it, what destroys it uncounts it;
// tests end at zero.

import type { Stateful, StateReader, StateRecord } from "../base/state.ts";

export class LiveObjects implements Stateful {
  readonly #counts = new Map<string, number>();

  created(kind: string): void {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
  }

  /** Throws if none of the kind is alive: a bug of the kernel model. */
  destroyed(kind: string): void {
    const count = this.#counts.get(kind) ?? 0;
    if (count === 0) throw new Error(`no live ${kind} to destroy`);
    if (count === 1) this.#counts.delete(kind);
    else this.#counts.set(kind, count - 1);
  }

  of(kind: string): number {
    return this.#counts.get(kind) ?? 0;
  }

  get total(): number {
    let sum = 0;
    for (const count of this.#counts.values()) sum += count;
    return sum;
  }

  /** Kind and count of everything alive, for `inspect` and failed tests. */
  entries(): [string, number][] {
    return [...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  saveState(): StateRecord {
    return { counts: [...this.#counts].map(([kind, count]) => ({ kind, count })) };
  }

  restoreState(state: StateReader): void {
    this.#counts.clear();
    for (const saved of state.records("counts")) this.#counts.set(saved.text("kind"), saved.number("count"));
  }
}

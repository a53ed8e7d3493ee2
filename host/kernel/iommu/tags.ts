// Address-space tags, by which IOMMUs tell apart what they cache. A pool for all IOMMUs of a host gives a domain the same tag in every one that
// it is used with. 0 is never given out. A tag goes back only after it was flushed everywhere.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { ENOSPC } from "../../uapi/errno.ts";
import { numbersOf, refillSet } from "../same-objects.ts";

export class TagPool implements Stateful {
  readonly #limit: number;
  readonly #used = new Set<number>();
  #lowest = 1;

  constructor(bits: number) {
    this.#limit = 2 ** bits;
  }

  /** The lowest free tag, or -ENOSPC; of no more than `bits`, where somebody takes fewer. */
  take(bits = 32): number {
    while (this.#used.has(this.#lowest)) this.#lowest++;
    if (this.#lowest >= Math.min(this.#limit, 2 ** bits)) return -ENOSPC;
    this.#used.add(this.#lowest);
    return this.#lowest;
  }

  giveBack(tag: number): void {
    this.#used.delete(tag);
    if (tag < this.#lowest) this.#lowest = tag;
  }

  get inUse(): number {
    return this.#used.size;
  }

  saveState(): StateRecord {
    return { used: [...this.#used], lowest: this.#lowest };
  }

  restoreState(state: StateReader): void {
    refillSet(this.#used, numbersOf(state, "used"));
    this.#lowest = state.number("lowest");
  }
}

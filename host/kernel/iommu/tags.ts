// Address-space tags: PSCIDs (20 bits) of the driver's own first stages, GSCIDs (16 bits) of second stages and of vIOMMUs. One pool
// each for the whole host, so that a domain has the same tag in every IOMMU it is used with. 0 is never given out. A tag goes back
// only after it was flushed everywhere.

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

  /** The lowest free tag, or -ENOSPC. */
  take(): number {
    while (this.#used.has(this.#lowest)) this.#lowest++;
    if (this.#lowest >= this.#limit) return -ENOSPC;
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

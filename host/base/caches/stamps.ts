// Stamps: numbers never used twice, which caches put on what they keep. To forget all that carries one, its owner takes another.

import type { Stateful, StateReader, StateRecord } from "../state.ts";

/** Caches keep a stamp in 27 bits, beside a page size. 0 is never given out: it is that of empty entries. */
const STAMP_LIMIT = 2 ** 27;

export class Stamps implements Stateful {
  #next = 1;
  /** Called when stamps run out, before they start again: everything stamped must be dropped. */
  onExhausted: () => void = () => {}; // not state: wiring

  next(): number {
    if (this.#next >= STAMP_LIMIT) {
      this.#next = 1;
      this.onExhausted();
    }
    return this.#next++;
  }

  saveState(): StateRecord {
    return { next: this.#next };
  }

  restoreState(state: StateReader): void {
    this.#next = state.number("next");
  }
}

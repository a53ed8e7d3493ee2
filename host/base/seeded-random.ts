// Random numbers that depend on a seed and nothing else (SplitMix32). Everything in the core that wants chance takes one of these.

import type { Stateful, StateReader, StateRecord } from "./state.ts";

export class SeededRandom implements Stateful {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  saveState(): StateRecord {
    return { state: this.#state };
  }

  restoreState(state: StateReader): void {
    this.#state = state.number("state");
  }

  /** 32 random bits, unsigned. */
  next32(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  }

  /** A whole number in [0, bound). */
  below(bound: number): number {
    return Math.floor((this.next32() / 0x1_0000_0000) * bound);
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.next32() & 0xff);
  }
}

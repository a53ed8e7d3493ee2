// A queue in guest memory (§6.6–6.14): base, width and index registers, and the place of an entry. The command queue is read by
// the IOMMU, the fault and page-request queues are written by it.

import type { GpaPfn } from "../../../host/base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import { LOG2SZ_1_LIMIT, type RegisterFile } from "./registers.ts";

export class Ring implements Stateful {
  readonly #registers: RegisterFile;
  readonly #baseWord: number;
  readonly #headWord: number;
  readonly #tailWord: number;
  readonly #entryLog2: number;
  /** First page of the queue. */
  base = 0 as GpaPfn;
  /** Entries minus one. */
  mask = 1;

  // not state, to the blank line: what `locate` found last
  /** Place of the entry last asked for by `locate`. */
  pfn = 0 as GpaPfn;
  offset = 0;

  constructor(registers: RegisterFile, words: { base: number; head: number; tail: number }, entryLog2: number) {
    this.#registers = registers;
    this.#baseWord = words.base;
    this.#headWord = words.head;
    this.#tailWord = words.tail;
    this.#entryLog2 = entryLog2;
  }

  get head(): number {
    return this.#registers.words[this.#headWord]!;
  }
  set head(value: number) {
    this.#registers.words[this.#headWord] = value;
  }
  get tail(): number {
    return this.#registers.words[this.#tailWord]!;
  }
  set tail(value: number) {
    this.#registers.words[this.#tailWord] = value;
  }
  get full(): boolean {
    return ((this.tail + 1) & this.mask) === this.head;
  }

  /** After a write of the base register: LOG2SZ is WARL, both indexes stay valid within the new width. */
  rebase(): void {
    const words = this.#registers.words;
    const low = words[this.#baseWord]!;
    const log2 = Math.min(low & 0x1f, LOG2SZ_1_LIMIT);
    words[this.#baseWord] = ((low & ~0x1f) | log2) >>> 0;
    this.mask = 2 ** (log2 + 1) - 1;
    this.base = (words[this.#baseWord + 1]! * 0x40_0000 + (low >>> 10)) as GpaPfn;
    this.head &= this.mask;
    this.tail &= this.mask;
  }

  /** Leaves the place of entry `index` in `pfn` and `offset`; an entry never crosses a page. */
  locate(index: number): void {
    const bytes = index << this.#entryLog2;
    this.pfn = (this.base + (bytes >>> 12)) as GpaPfn;
    this.offset = bytes & 0xfff;
  }

  reset(): void {
    this.base = 0 as GpaPfn;
    this.mask = 1;
  }

  /** Taken from the base register when its low half is written: the register may say something else by now. */
  saveState(): StateRecord {
    return { base: this.base, mask: this.mask };
  }

  restoreState(state: StateReader): void {
    this.base = state.number("base") as GpaPfn;
    this.mask = state.number("mask");
  }
}

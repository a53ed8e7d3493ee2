// CMDQ_ALLOC: which VCMDQ is which logical queue of which VINTF.
//
// Linux's driver says that the hardware wants the logical queues of a VINTF allocated in ascending order and freed in descending order. Here a store
// that would break this, or give a logical queue twice, leaves ALLOCATED as it was.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import { ALLOC_ALLOCATED, ALLOC_BITS } from "../tegra241-cmdqv.ts";

/** Logical queues that a VINTF's error map has bits for. */
export const MOST_LOGICAL_QUEUES = 128;

export class QueueAllocation implements Stateful {
  readonly #words: Uint32Array;
  readonly #vintfs: number;
  /** By VINTF and logical index: the VCMDQ, or -1; and how many a VINTF has, which are the first. */
  readonly #queues: Int16Array; // not state: follows from the words
  readonly #counts: Uint8Array; // not state: follows from the words

  constructor(queues: number, vintfs: number) {
    this.#words = new Uint32Array(queues);
    this.#vintfs = vintfs;
    this.#queues = new Int16Array(vintfs * MOST_LOGICAL_QUEUES).fill(-1);
    this.#counts = new Uint8Array(vintfs);
  }

  saveState(): StateRecord {
    return { words: bytesOf(this.#words) };
  }

  restoreState(state: StateReader): void {
    state.memory("words", this.#words);
    this.#queues.fill(-1);
    this.#counts.fill(0);
    for (let queue = 0; queue < this.#words.length; queue++) {
      const vintf = this.vintfOf(queue);
      if (vintf < 0) continue;
      const at = vintf * MOST_LOGICAL_QUEUES + this.logicalOf(queue);
      if (vintf >= this.#vintfs || this.#queues[at] !== -1)
        state.fail("words", `have VCMDQ ${queue} where none can be`);
      this.#queues[at] = queue;
      this.#counts[vintf]!++;
    }
    for (let vintf = 0; vintf < this.#vintfs; vintf++)
      for (let logical = 0; logical < this.count(vintf); logical++)
        if (this.queueOf(vintf, logical) < 0)
          state.fail("words", `leave out logical queue ${logical} of VINTF ${vintf}`);
  }

  reset(): void {
    this.#words.fill(0);
    this.#queues.fill(-1);
    this.#counts.fill(0);
  }

  word(queue: number): number {
    return this.#words[queue]!;
  }

  /** VINTF that a VCMDQ is allocated to, -1 for none; and its index there. */
  vintfOf(queue: number): number {
    const word = this.#words[queue]!;
    return (word & ALLOC_ALLOCATED) === 0 ? -1 : (word >>> 15) & 0x3f;
  }

  logicalOf(queue: number): number {
    return (this.#words[queue]! >>> 1) & 0x7f;
  }

  /** VCMDQ behind a logical queue, -1 for none. */
  queueOf(vintf: number, logical: number): number {
    return logical < MOST_LOGICAL_QUEUES ? this.#queues[vintf * MOST_LOGICAL_QUEUES + logical]! : -1;
  }

  count(vintf: number): number {
    return this.#counts[vintf]!;
  }

  write(queue: number, value: number): void {
    const vintf = this.vintfOf(queue);
    const asked = (value & ALLOC_ALLOCATED) !== 0;
    if (vintf >= 0) {
      // Only the last of a VINTF is freed, and an allocated queue moves nowhere.
      if (asked || this.logicalOf(queue) !== this.#counts[vintf]! - 1) return;
      this.#counts[vintf]!--;
      this.#queues[vintf * MOST_LOGICAL_QUEUES + this.logicalOf(queue)] = -1;
      this.#words[queue] = value & ALLOC_BITS;
      return;
    }
    this.#words[queue] = value & ALLOC_BITS & ~ALLOC_ALLOCATED;
    const wanted = (value >>> 15) & 0x3f;
    if (!asked || wanted >= this.#vintfs || this.logicalOf(queue) !== this.#counts[wanted]!) return;
    this.#counts[wanted]!++;
    this.#queues[wanted * MOST_LOGICAL_QUEUES + this.logicalOf(queue)] = queue;
    this.#words[queue]! |= ALLOC_ALLOCATED;
  }
}

// How queues of 16-byte entries (command queues) are read: straight from a window of memory where the port shows one, else through the port.
//
// An entry's four words are left as signed 32-bit integers, which are never boxed. When memory changes its shape it says so, and the
// window is given up.

import { ACCESS_OK, type AccessStatus, type MemoryPort, type WindowedMemory } from "./memory.ts";

const NOTHING = new Int32Array(0);

// Not state: the entry loaded last, and a window of memory.
export class EntryReader<P extends number> {
  /** The entry loaded last, lowest word first. */
  w0 = 0;
  w1 = 0;
  w2 = 0;
  w3 = 0;
  readonly #memory: MemoryPort<P>;
  readonly #windowed: WindowedMemory | null;
  #words: Int32Array = NOTHING;
  #base = 0;
  #pages = 0;

  constructor(memory: MemoryPort<P>) {
    this.#memory = memory;
    this.#windowed = "windowAt" in memory ? (memory as MemoryPort<P> & WindowedMemory) : null;
    this.#windowed?.watchWindows(() => {
      this.#words = NOTHING;
      this.#pages = 0;
    });
  }

  /** The memory that `find` finds entries in, until it is asked again. */
  get words(): Int32Array {
    return this.#words;
  }

  /**
   * Where in `words` the entry at `offset` of a frame stands, if it and the others of a run of `count` all stand there, one behind the other; else -1:
   * they are loaded one by one.
   */
  find(pfn: P, offset: number, count: number): number {
    const page = pfn - this.#base;
    if (!(page >= 0 && page < this.#pages)) return this.#move(pfn) ? this.find(pfn, offset, count) : -1;
    const at = page * 1024 + (offset >>> 2);
    return at + 4 * count <= this.#pages * 1024 ? at : -1;
  }

  /** Loads the entry at `offset` (a multiple of 16) of a frame. */
  load(pfn: P, offset: number): AccessStatus {
    const page = pfn - this.#base;
    if (!(page >= 0 && page < this.#pages)) return this.#loadOutside(pfn, offset);
    const words = this.#words;
    const at = page * 1024 + (offset >>> 2);
    this.w0 = words[at]!;
    this.w1 = words[at + 1]!;
    this.w2 = words[at + 2]!;
    this.w3 = words[at + 3]!;
    return ACCESS_OK;
  }

  /** Through the port; the window moves here if it can. */
  #loadOutside(pfn: P, offset: number): AccessStatus {
    const memory = this.#memory;
    const first = memory.load64(pfn, offset);
    if (first !== ACCESS_OK) return first;
    this.w0 = memory.lo | 0;
    this.w1 = memory.hi | 0;
    const second = memory.load64(pfn, offset + 8);
    if (second !== ACCESS_OK) return second;
    this.w2 = memory.lo | 0;
    this.w3 = memory.hi | 0;
    this.#move(pfn);
    return ACCESS_OK;
  }

  /** Moves the window to a frame; false if there is none. */
  #move(pfn: P): boolean {
    const window = this.#windowed === null ? null : this.#windowed.windowAt(pfn);
    if (window === null) return false;
    this.#words = window.signed;
    this.#base = window.basePfn;
    this.#pages = window.pages;
    return true;
  }
}

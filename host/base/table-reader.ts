// How walkers load table entries: straight from a window of memory where the port shows one, else through the port.
//
// Frames are pairs of 32-bit integers here (bits 31:0 and the rest of a frame number), entries too, so that nothing is converted
// to a double on the way. When memory changes its shape it says so, and the window is given up. A window never reaches beyond
// the physical address width, so the fast path needs no check of its own.

import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, type MemoryPort, type WindowedMemory } from "./memory.ts";

const NOTHING = new Int32Array(0);

/** Larger windows would overflow 32-bit indexes: 2^20 pages are 4 GiB. */
const WINDOW_LIMIT = 2 ** 20;

// Not state: what one walk found, and settings that whoever owns the walker makes again.
export class TableReader<P extends number> {
  /** The window: signed words, its first frame as a pair, pages. Walkers read these fields themselves. */
  words: Int32Array = NOTHING;
  baseLow = 0;
  baseHigh = 0;
  pages = 0;
  /** What the last `load` found. */
  lo = 0;
  hi = 0;
  readonly #memory: MemoryPort<P>;
  readonly #windowed: WindowedMemory | null;
  #limit = 0;

  constructor(memory: MemoryPort<P>) {
    this.#memory = memory;
    this.#windowed = "windowAt" in memory ? (memory as MemoryPort<P> & WindowedMemory) : null;
    this.#windowed?.watchWindows(() => this.#forget());
  }

  /** First frame beyond the physical address width. */
  setLimit(limit: number): void {
    this.#limit = limit;
    this.#forget();
  }

  get limit(): number {
    return this.#limit;
  }

  /** Loads a doubleword from outside the window, and moves the window there if it can. */
  load(frameLow: number, frameHigh: number, offset: number): AccessStatus {
    const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
    if (pfn >= this.#limit) return ACCESS_FAULT;
    const window = this.#windowed === null ? null : this.#windowed.windowAt(pfn);
    if (window !== null) {
      // A bank of more than 4 GiB is seen 4 GiB at a time.
      const skipped = Math.floor((pfn - window.basePfn) / WINDOW_LIMIT) * WINDOW_LIMIT;
      const base = window.basePfn + skipped;
      this.words = skipped === 0 ? window.signed : window.signed.subarray(skipped * 1024);
      this.baseLow = base | 0;
      this.baseHigh = (base * 2 ** -32) | 0;
      this.pages = Math.min(window.pages - skipped, WINDOW_LIMIT, this.#limit - base);
      // The compare in walkers looks at the low halves only once the high ones agree.
      this.pages = Math.min(this.pages, 0x100000000 - (base % 0x100000000));
    }
    const memory = this.#memory;
    const status = memory.load64(pfn as P, offset);
    if (status !== ACCESS_OK) return status;
    this.lo = memory.lo | 0;
    this.hi = memory.hi | 0;
    return ACCESS_OK;
  }

  #forget(): void {
    this.words = NOTHING;
    this.pages = 0;
  }
}

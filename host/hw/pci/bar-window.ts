// A range of the physical address space that BARs are placed in, as firmware does at boot and hot plug: naturally aligned, first
// fit, given back per owner. Addresses are doubles below 2^53.

interface Placement {
  readonly owner: object;
  readonly base: number;
  readonly size: number;
}

// Not state: which functions are plugged in says where their BARs were placed.
export class BarWindow {
  readonly base: number;
  readonly size: number;
  /** By ascending base. */
  #placements: Placement[] = [];

  constructor(base: number, size: number) {
    this.base = base;
    this.size = size;
  }

  /** Base of `size` bytes (a power of two, at least a page is taken) for `owner`, or -1 if nothing is free. */
  place(owner: object, size: number): number {
    const bytes = Math.max(size, 4096);
    let candidate = Math.ceil(this.base / bytes) * bytes;
    let index = 0;
    for (; index < this.#placements.length; index++) {
      const taken = this.#placements[index]!;
      if (candidate + bytes <= taken.base) break;
      candidate = Math.max(candidate, Math.ceil((taken.base + taken.size) / bytes) * bytes);
    }
    if (candidate + bytes > this.base + this.size) return -1;
    this.#placements.splice(index, 0, { owner, base: candidate, size: bytes });
    return candidate;
  }

  /** Frees everything that `owner` has. */
  release(owner: object): void {
    this.#placements = this.#placements.filter((placement) => placement.owner !== owner);
  }
}

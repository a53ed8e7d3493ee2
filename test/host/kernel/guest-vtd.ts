// A guest's half of nested translation on a VT-d unit, as a test writes it into guest RAM: first-stage tables in x86's format (VT-d §9.7), 4 or 5 levels,
// in guest-physical space. Bit positions are the specification's, written out.

import type { GuestRam } from "./guest.ts";

const PRESENT = 1n;
export const WRITABLE = 1n << 1n;
export const USER = 1n << 2n;
export const ACCESSED = 1n << 5n;
export const DIRTY = 1n << 6n;
export const LARGE = 1n << 7n;
const TABLE = PRESENT | WRITABLE | USER;

export class GuestFirstStage {
  readonly #ram: GuestRam;
  readonly #levels: bigint;
  readonly root: bigint;

  constructor(ram: GuestRam, levels = 4) {
    this.#ram = ram;
    this.#levels = BigInt(levels);
    this.root = ram.page();
  }

  /** Address of the entry of `iova` at a level (1: the leaf of 4 KiB), making tables on the way. */
  entry(iova: bigint, leaf = 1n): bigint {
    let table = this.root;
    for (let level = this.#levels; level > leaf; level--) {
      const at = table + ((iova >> (3n + 9n * level)) & 511n) * 8n;
      let entry = this.#ram.load(at);
      if ((entry & PRESENT) === 0n) {
        entry = this.#ram.page() | TABLE;
        this.#ram.store(at, entry);
      }
      table = entry & 0xf_ffff_ffff_f000n;
    }
    return table + ((iova >> (3n + 9n * leaf)) & 511n) * 8n;
  }

  /** Maps one page; readable and writable unless `flags` says otherwise. */
  map(iova: bigint, gpa: bigint, flags = WRITABLE | USER): void {
    this.#ram.store(this.entry(iova), gpa | flags | PRESENT);
  }

  unmap(iova: bigint): void {
    this.#ram.store(this.entry(iova), 0n);
  }
}

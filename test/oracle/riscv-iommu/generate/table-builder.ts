/**
 * Builds page tables of either stage in the oracle's memory, the way software would: pointers and pages are made as addresses are mapped.
 */

import { type Memory, store, structureAt } from "../../memory.ts";
import { swapBytes } from "../implementation.ts";
import { leafBytes, type Shape } from "../page-table-entry.ts";

export interface TableBuilderParts {
  readonly memory: Memory;
  readonly shape: Shape;
  /** Page-frame number of the root, in the space that the tables' pointers are in. */
  readonly root: bigint;
  /** Second-stage roots are indexed by two more bits. */
  readonly wideRoot: boolean;
  readonly bigEndian: boolean;
  /** A fresh page for a table, in the space of the pointers. */
  readonly newTable: () => bigint;
  /** Where the page at `pfn` (in the space of the pointers) really lies; null if nowhere. */
  readonly physical: (pfn: bigint) => bigint | null;
  /** Bits added to a pointer, besides V. */
  readonly pointerFlags: () => bigint;
}

export class TableBuilder {
  readonly #parts: TableBuilderParts;
  /** Physical addresses of the entries written. */
  readonly entries = new Set<bigint>();
  constructor(parts: TableBuilderParts) {
    this.#parts = parts;
  }

  get shape(): Shape {
    return this.#parts.shape;
  }

  #index(address: bigint, level: number): bigint {
    const { shape, wideRoot } = this.#parts;
    const width = shape.indexBits + (wideRoot && level === shape.levels - 1 ? 2n : 0n);
    return (address >> (12n + BigInt(level) * shape.indexBits)) & ((1n << width) - 1n);
  }

  #read(address: bigint): bigint {
    const { memory, shape, bigEndian } = this.#parts;
    const raw = structureAt(memory, address, shape.entryBytes)[0]!;
    return bigEndian ? swapBytes(raw, shape.entryBytes) : raw;
  }

  #write(address: bigint, value: bigint): void {
    const { memory, shape, bigEndian } = this.#parts;
    this.entries.add(address);
    store(memory, address, shape.entryBytes, bigEndian ? swapBytes(value, shape.entryBytes) : value);
  }

  /** Physical address of the entry for `address` at `level`, making the tables above it; null if a leaf or a hole is in the way. */
  entryAddress(address: bigint, level: number): bigint | null {
    const { shape, memory, physical, newTable, pointerFlags } = this.#parts;
    let table = this.#parts.root;
    for (let at = shape.levels - 1; ; at--) {
      // The root of a second stage has four pages; the index may reach beyond the first.
      const offset = this.#index(address, at) * BigInt(shape.entryBytes);
      const page = physical(table + (offset >> 12n));
      if (page === null) return null;
      memory.pages.add(page);
      const entryAt = (page << 12n) + (offset & 0xfffn);
      if (at === level) return entryAt;
      const entry = this.#read(entryAt);
      if ((entry & 1n) === 0n) {
        const next = newTable();
        this.#write(entryAt, (next << 10n) | 1n | pointerFlags());
        table = next;
      } else {
        if ((entry & 0xen) !== 0n) return null;
        table = (entry >> 10n) & ((1n << 44n) - 1n);
      }
    }
  }

  /** Maps the leaf of `level` around `address`; `flags` are the entry without its PPN. False if something is in the way. */
  map(address: bigint, level: number, ppn: bigint, flags: bigint): boolean {
    const at = this.entryAddress(address, level);
    if (at === null || (this.#read(at) & 1n) === 1n) return false;
    this.#write(at, (ppn << 10n) | flags);
    return true;
  }

  /** Replaces whatever the entry of `level` holds. */
  replace(address: bigint, level: number, value: bigint): bigint | null {
    const at = this.entryAddress(address, level);
    if (at !== null) this.#write(at, value);
    return at;
  }

  /** The page-frame number that `address` is mapped to, ignoring rights; null if it is not. */
  lookup(address: bigint): bigint | null {
    const { shape, physical } = this.#parts;
    let table = this.#parts.root;
    for (let at = shape.levels - 1; at >= 0; at--) {
      const offset = this.#index(address, at) * BigInt(shape.entryBytes);
      const page = physical(table + (offset >> 12n));
      if (page === null) return null;
      const entry = this.#read((page << 12n) + (offset & 0xfffn));
      if ((entry & 1n) === 0n) return null;
      const ppn = (entry >> 10n) & ((1n << (shape.entryBytes === 8 ? 44n : 22n)) - 1n);
      if ((entry & 0xen) === 0n) {
        table = ppn;
        continue;
      }
      if (shape.entryBytes === 8 && entry >> 63n === 1n) return (ppn & ~0xfn) | ((address >> 12n) & 0xfn);
      return ppn + ((address % leafBytes(shape, at)) >> 12n);
    }
    return null;
  }
}

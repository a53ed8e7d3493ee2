/**
 * Builds VMSAv8-64 tables of either stage in the oracle's memory, the way software would: tables are made as addresses are mapped.
 */
import { type Memory, store, word } from "../../memory.ts";
import { swapBytes } from "../identification.ts";

export interface TableBuilderParts {
  readonly memory: Memory;
  /** log2 of the granule: 12n, 14n, 16n. */
  readonly granule: bigint;
  /** Address bits that the tables resolve. */
  readonly inputBits: bigint;
  readonly startLevel: number;
  /** The first table, in the space of the descriptors. */
  readonly root: bigint;
  readonly bigEndian: boolean;
  /** A fresh table of one granule, in the space of the descriptors. */
  readonly newTable: () => bigint;
  /** Where an address of that space really lies. */
  readonly physical: (address: bigint) => bigint;
  /** Bits 63:51 of table descriptors. */
  readonly tableFlags: () => bigint;
}

export class TableBuilder {
  readonly parts: TableBuilderParts;
  /** Physical addresses of the descriptors written. */
  readonly written = new Set<bigint>();
  constructor(parts: TableBuilderParts) {
    this.parts = parts;
  }

  shift(level: number): bigint {
    const { granule } = this.parts;
    return granule + (granule - 3n) * BigInt(3 - level);
  }

  /** Physical address of the descriptor for `address` at `level`; null if a block is in the way, or the walk starts below. */
  descriptorAt(address: bigint, level: number): bigint | null {
    const { granule, inputBits, startLevel, physical, newTable, tableFlags } = this.parts;
    if (level < startLevel) return null;
    let table = this.parts.root;
    for (let at = startLevel; ; at++) {
      const top = at === startLevel ? inputBits : this.shift(at - 1);
      const index = (address & ((1n << top) - 1n)) >> this.shift(at);
      const where = physical(table + index * 8n);
      if (at === level) return where;
      const descriptor = this.read(where);
      if ((descriptor & 3n) === 1n) return null;
      if ((descriptor & 1n) === 0n) {
        table = newTable();
        this.write(where, table | 3n | tableFlags());
      } else table = descriptor & ((1n << 48n) - (1n << granule));
    }
  }

  /** Puts a leaf, with `flags` in place of all but the address; false if something is in the way. */
  map(address: bigint, level: number, output: bigint, flags: bigint): boolean {
    const where = this.descriptorAt(address, level);
    if (where === null || (this.read(where) & 1n) === 1n) return false;
    this.write(where, leaf(level, output, flags));
    return true;
  }

  read(where: bigint): bigint {
    const raw = word(this.parts.memory, where);
    return this.parts.bigEndian ? swapBytes(raw) : raw;
  }

  write(where: bigint, descriptor: bigint): void {
    this.written.add(where);
    store(this.parts.memory, where, 8, this.parts.bigEndian ? swapBytes(descriptor) : descriptor);
  }
}

export function leaf(level: number, output: bigint, flags: bigint): bigint {
  return output | flags | (level === 3 ? 3n : 1n);
}

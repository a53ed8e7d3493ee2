/**
 * Builds paging structures of either stage in the oracle's memory, the way software would: tables are made as addresses are mapped.
 */
import { type Memory, store, word } from "../../memory.ts";

export interface TableBuilderParts {
  readonly memory: Memory;
  readonly levels: number;
  /** The first table, in the space of the entries. */
  readonly root: bigint;
  /** A fresh table, in the space of the entries. */
  readonly newTable: () => bigint;
  /** Where an address of that space really lies. */
  readonly physical: (address: bigint) => bigint;
  /** All of an entry that leads on but its address. */
  readonly tableFlags: () => bigint;
  /** Which of these bits make an entry present. */
  readonly presentMask: bigint;
}

const PS = 1n << 7n;

export class TableBuilder {
  readonly parts: TableBuilderParts;
  /** Physical addresses of the entries written. */
  readonly written = new Set<bigint>();
  constructor(parts: TableBuilderParts) {
    this.parts = parts;
  }

  shift(level: number): bigint {
    return 12n + 9n * BigInt(level - 1);
  }

  present(entry: bigint): boolean {
    return (entry & this.parts.presentMask) !== 0n;
  }

  /** Physical address of the entry for `address` at `level`; null if a large page is in the way. */
  entryAt(address: bigint, level: number): bigint | null {
    const { levels, physical, newTable, tableFlags } = this.parts;
    let table = this.parts.root;
    for (let at = levels; ; at--) {
      const where = physical(table + ((address >> this.shift(at)) & 0x1ffn) * 8n);
      if (at === level) return where;
      const entry = this.read(where);
      if (!this.present(entry)) {
        table = newTable();
        this.write(where, table | tableFlags());
      } else if (at <= 3 && (entry & PS) !== 0n) return null;
      else table = entry & ((1n << 52n) - 4096n);
    }
  }

  /** Puts a leaf, with `flags` in place of all but the address; false if something is in the way. */
  map(address: bigint, level: number, output: bigint, flags: bigint): boolean {
    const where = this.entryAt(address, level);
    if (where === null || this.present(this.read(where))) return false;
    this.write(where, this.leaf(level, output, flags));
    return true;
  }

  leaf(level: number, output: bigint, flags: bigint): bigint {
    return output | flags | (level > 1 ? PS : 0n);
  }

  read(where: bigint): bigint {
    return word(this.parts.memory, where);
  }

  write(where: bigint, entry: bigint): void {
    this.written.add(where);
    store(this.parts.memory, where, 8, entry);
  }
}

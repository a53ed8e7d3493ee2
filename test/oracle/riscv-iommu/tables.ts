/**
 * How the oracle reads and updates in-memory structures. Every load says which cached entry it could be answered from (§3.8), so that the
 * same translation code runs over plain memory here and over memory with a history in `cached-tables.ts`.
 */
import { injectedOnLoad, type Memory, RunMemory } from "../memory.ts";
import type { TableWrite } from "./outcome.ts";

/** The tags under which an entry may be cached (§3.8); `gscid` null is the host, that is, second stage Bare. */
export type EntryTag =
  | { readonly table: "ddt-non-leaf" }
  | { readonly table: "device-context"; readonly deviceId: bigint }
  | { readonly table: "pdt-non-leaf"; readonly deviceId: bigint }
  | { readonly table: "process-context"; readonly deviceId: bigint; readonly processId: bigint }
  | {
      readonly table: "first-stage";
      readonly gscid: bigint | null;
      readonly pscid: bigint;
      readonly iova: bigint;
      readonly globalPath: boolean;
    }
  | { readonly table: "second-stage"; readonly gscid: bigint; readonly gpa: bigint }
  | { readonly table: "msi"; readonly gscid: bigint; readonly gpa: bigint };

/** What a value means to a cache: whether it can be cached at all, and which addresses an entry made from it answers for. */
export interface EntryMeaning {
  readonly valid: boolean;
  readonly leaf: boolean;
  /** Bytes of address space below the entry, naturally aligned; 0 where entries are not found by address. */
  readonly span: bigint;
  /** Global by itself (the path above is in the tag). */
  readonly global: boolean;
}

export interface Loaded {
  readonly injected: "access" | "corrupt" | null;
  /** 8-byte words (or one 4-byte value) as a little-endian reader sees them. */
  readonly values: readonly bigint[];
}

export interface Tables {
  load(address: bigint, bytes: number, tag: EntryTag, meaning: (values: readonly bigint[]) => EntryMeaning): Loaded;
  /** Atomically replaces the entry if it still holds `before`; "access" if stores to it are refused (§3.4). */
  update(address: bigint, bytes: number, before: bigint, after: bigint): "done" | "access";
  /** Notes that `mask` may be found set at `address`. */
  permit(address: bigint, bytes: number, mask: bigint): void;
  readonly writes: TableWrite[];
  readonly optional: TableWrite[];
}

/** One run over tables read straight from memory: no caches. Updates stay in the run. */
export class DirectTables implements Tables {
  readonly writes: TableWrite[] = [];
  readonly optional: TableWrite[] = [];
  readonly #memory: RunMemory;
  constructor(memory: Memory) {
    this.#memory = new RunMemory(memory);
  }

  load(address: bigint, bytes: number): Loaded {
    return {
      injected: injectedOnLoad(this.#memory.base, address, bytes),
      values: this.#memory.structureAt(address, bytes),
    };
  }

  update(address: bigint, bytes: number, _before: bigint, after: bigint): "done" | "access" {
    if (this.#memory.base.injected.get(address & ~7n) === "read-only") return "access";
    this.#memory.store(address, bytes, after);
    this.writes.push({ address, bytes, value: after });
    return "done";
  }

  permit(address: bigint, bytes: number, mask: bigint): void {
    this.optional.push({ address, bytes, value: mask });
  }
}

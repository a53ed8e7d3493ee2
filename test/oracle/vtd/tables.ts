/**
 * How the oracle reads structures and notes what becomes of paging entries. Every load says which cached entry could answer it (§6.2), so that the same code
 * runs over plain memory here and over memory with a history in `cached-tables.ts`.
 */
import { injectedOnLoad, type Memory, structureAt } from "../memory.ts";
import type { Update } from "./outcome.ts";

/** Under what an entry may be cached (§6.2). */
export type EntryTag =
  /** Root and context entries go together. */
  | { readonly kind: "root" | "context"; readonly sid: bigint; readonly scalable: boolean }
  | { readonly kind: "pasid-directory" | "pasid-entry"; readonly sid: bigint; readonly pasid: bigint }
  /** Level 1 has the 4 KiB leaves. */
  | {
      readonly kind: "first-stage";
      readonly did: bigint;
      readonly pasid: bigint;
      readonly address: bigint;
      readonly level: number;
    }
  | { readonly kind: "second-stage"; readonly did: bigint; readonly address: bigint; readonly level: number }
  | { readonly kind: "interrupt"; readonly index: bigint };

/** What a value means to a cache. */
export interface EntryMeaning {
  /** It may be cached. */
  readonly cacheable: boolean;
  readonly leaf: boolean;
  /** Bytes of address space below the entry; 0 where entries are not found by address. */
  readonly span: bigint;
  /** Domain id that the entry itself holds (contexts in legacy mode, PASID entries), 0 for absent ones (§6.1, CM=1). Null: it holds none. */
  readonly did: bigint | null;
}

export interface Tables {
  /** Quadwords, or null if the access fails. */
  load(
    address: bigint,
    quadwords: number,
    tag: EntryTag,
    meaning: (values: readonly bigint[]) => EntryMeaning,
  ): readonly bigint[] | null;
  /** Notes an atomic update of the quadword that was loaded with `before`; false if memory refuses stores there. */
  update(update: Update, before: bigint): boolean;
  readonly updates: Update[];
  /** Where a walk starts: at `root`, or where one for the same domain (and PASID) started earlier, whose entries are cached still. */
  startOfWalk(kind: "first-stage" | "second-stage", did: bigint, pasid: bigint | null, root: bigint): bigint;
}

export function refusesStores(memory: Memory, address: bigint): boolean {
  return memory.injected.get(address) === "read-only";
}

/** Tables read straight from memory: no caches. */
export class DirectTables implements Tables {
  readonly updates: Update[] = [];
  readonly #memory: Memory;
  constructor(memory: Memory) {
    this.#memory = memory;
  }

  load(address: bigint, quadwords: number): readonly bigint[] | null {
    const bytes = quadwords * 8;
    return injectedOnLoad(this.#memory, address, bytes) === null ? structureAt(this.#memory, address, bytes) : null;
  }

  startOfWalk(_kind: string, _did: bigint, _pasid: bigint | null, root: bigint): bigint {
    return root;
  }

  update(update: Update): boolean {
    if (refusesStores(this.#memory, update.address)) return false;
    this.updates.push(update);
    return true;
  }
}

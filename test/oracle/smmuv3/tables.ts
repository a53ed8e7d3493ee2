/**
 * How the oracle reads structures and notes what becomes of descriptors. Every load says which cached entry could answer it (§3.17, §4.3), so that the
 * same code runs over plain memory here and over memory with a history in `cached-tables.ts`.
 */
import { injectedOnLoad, type Memory, structureAt } from "../memory.ts";
import type { Update } from "./outcome.ts";

/** Translation regime of a stage-1 entry (§3.17); VMIDs and ASIDs are null where entries have none. */
export interface Stage1Tag {
  readonly world: "EL1" | "EL2" | "EL2-E2H";
  readonly vmid: bigint | null;
  readonly asid: bigint | null;
  readonly va: bigint;
}

/** Under what an entry may be cached. */
export type EntryTag =
  | { readonly kind: "L1STD" | "STE"; readonly sid: bigint }
  | { readonly kind: "L1CD" | "CD"; readonly sid: bigint; readonly ssid: bigint }
  | ({ readonly kind: "stage-1"; readonly level: number; readonly granule: bigint } & Stage1Tag)
  | {
      readonly kind: "stage-2";
      readonly vmid: bigint | null;
      readonly ipa: bigint;
      readonly level: number;
      readonly granule: bigint;
      /** The stage-1 walk it is part of: entries that combine both stages are found by its tag. Null for stage-2-only translations. */
      readonly under: Stage1Tag | null;
      /** It translates the output of stage 1, not the address of a stage-1 descriptor. */
      readonly final: boolean;
      /** The stage-1 leaf is global. */
      readonly global: boolean;
    };

/** What a value means to a cache. */
export interface EntryMeaning {
  /** It may be cached. */
  readonly cacheable: boolean;
  readonly leaf: boolean;
  /** Bytes of address space below the entry; 0 where entries are not found by address. */
  readonly span: bigint;
  /** nG=0 of a stage-1 leaf. */
  readonly global: boolean;
}

export interface Tables {
  /** Doublewords as a little-endian reader sees them, or null for an external abort. */
  load(
    address: bigint,
    doublewords: number,
    tag: EntryTag,
    meaning: (values: readonly bigint[]) => EntryMeaning,
  ): readonly bigint[] | null;
  /** Notes an atomic update of the doubleword that was loaded with `before`. */
  update(update: Update, before: bigint): void;
  readonly updates: Update[];
}

/** Tables read straight from memory: no caches. */
export class DirectTables implements Tables {
  readonly updates: Update[] = [];
  readonly #memory: Memory;
  constructor(memory: Memory) {
    this.#memory = memory;
  }

  load(address: bigint, doublewords: number): readonly bigint[] | null {
    const bytes = doublewords * 8;
    return injectedOnLoad(this.#memory, address, bytes) === null ? structureAt(this.#memory, address, bytes) : null;
  }

  update(update: Update): void {
    this.updates.push(update);
  }
}

// A device's table of context descriptors (IHI 0070 §5.3, §5.4), the host's own: descriptor 0 is what requests without PASID use, the others
// belong to PASIDs. Linear where it is small or the hardware has no other, else of two levels with leaves of 64 KiB made on demand
// (Linux: arm_smmu_alloc_cd_tables).

import { CD, CD_BYTES } from "../../../arch/smmuv3/context-descriptor.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillMap } from "../../same-objects.ts";
import { loadDoubleword, storeDoubleword } from "../doubleword.ts";
import type { TableAccounting } from "../page-table.ts";
import { type EntryPlace, entryInMemory } from "./entry-writer.ts";
import type { ContextTablePlace } from "./stream-entries.ts";

const LEAF_BITS = 10;
const LEAF_PAGES = (2 ** LEAF_BITS * CD_BYTES) / 4096;
const FORMAT_LINEAR = 0;
const FORMAT_64K = 2;
const V = 1n;

/** PASID bits that a table can have: without two levels no more than a leaf's. */
export function contextTableBits(wanted: number, hasTwoLevels: boolean): number {
  return hasTwoLevels ? wanted : Math.min(wanted, LEAF_BITS);
}

export class ContextTable implements Stateful {
  readonly #frames: HostFrames;
  readonly #accounting: TableAccounting;
  readonly #bits: number;
  readonly #rootPages: number;
  #root: HpaPfn;
  /** Leaves by index; a linear table is its own leaf. */
  readonly #leaves = new Map<number, HpaPfn>();

  private constructor(root: HpaPfn, rootPages: number, bits: number, frames: HostFrames, accounting: TableAccounting) {
    this.#root = root;
    this.#rootPages = rootPages;
    this.#bits = bits;
    this.#frames = frames;
    this.#accounting = accounting;
  }

  /** A table for PASIDs of `bits` bits (0: one descriptor), or -ENOMEM. */
  static create(bits: number, frames: HostFrames, accounting: TableAccounting): ContextTable | number {
    if (accounting.fails()) return -ENOMEM;
    const bytes = bits > LEAF_BITS ? 2 ** (bits - LEAF_BITS) * 8 : 2 ** bits * CD_BYTES;
    const pages = Math.max(1, bytes / 4096);
    const root = frames.allocate(pages, pages);
    if (root < 0) return root;
    accounting.created();
    return new ContextTable(root as HpaPfn, pages, bits, frames, accounting);
  }

  get #twoLevels(): boolean {
    return this.#bits > LEAF_BITS;
  }

  get place(): ContextTablePlace {
    return {
      address: BigInt(this.#root) << 12n,
      format: this.#twoLevels ? FORMAT_64K : FORMAT_LINEAR,
      bits: this.#bits,
    };
  }

  /**
   * Makes room for a descriptor: 0 or -ENOMEM. `linked` is called when a new leaf is in the table, for the hardware to be told.
   */
  prepare(substream: number, linked: () => void): number {
    const index = substream >>> LEAF_BITS;
    if (!this.#twoLevels || this.#leaves.has(index)) return 0;
    if (this.#accounting.fails()) return -ENOMEM;
    const leaf = this.#frames.allocate(LEAF_PAGES, LEAF_PAGES);
    if (leaf < 0) return -ENOMEM;
    this.#accounting.created();
    this.#leaves.set(index, leaf as HpaPfn);
    const at = index * 8;
    storeDoubleword(this.#frames.memory, (this.#root + (at >> 12)) as HpaPfn, at & 4095, (BigInt(leaf) << 12n) | V);
    linked();
    return 0;
  }

  /** A descriptor that was prepared; null if it was not. */
  descriptorOf(substream: number, sync: () => void): EntryPlace | null {
    const place = this.#placeOf(substream);
    return place === null ? null : entryInMemory(this.#frames.memory, place[0], place[1], sync);
  }

  isValid(substream: number): boolean {
    const place = this.#placeOf(substream);
    return place !== null && CD.get([loadDoubleword(this.#frames.memory, place[0], place[1])], "V") !== 0n;
  }

  #placeOf(substream: number): [HpaPfn, number] | null {
    const leaf = this.#twoLevels ? this.#leaves.get(substream >>> LEAF_BITS) : this.#root;
    if (leaf === undefined) return null;
    const at = (this.#twoLevels ? substream & (2 ** LEAF_BITS - 1) : substream) * CD_BYTES;
    return [(leaf + (at >> 12)) as HpaPfn, at & 4095];
  }

  /** Only when no stream table entry leads to it. */
  free(): void {
    for (const leaf of this.#leaves.values()) {
      this.#frames.release(leaf, LEAF_PAGES);
      this.#accounting.destroyed();
    }
    this.#leaves.clear();
    this.#frames.release(this.#root, this.#rootPages);
    this.#accounting.destroyed();
  }

  /** The tables are in memory. */
  saveState(): StateRecord {
    return { root: this.#root, indexes: [...this.#leaves.keys()], leaves: [...this.#leaves.values()] };
  }

  restoreState(state: StateReader): void {
    const leaves = numbersOf(state, "leaves") as HpaPfn[];
    const indexes = numbersOf(state, "indexes");
    if (indexes.length !== leaves.length) state.fail("leaves", "are not as many as indexes");
    this.#root = state.number("root") as HpaPfn;
    refillMap(
      this.#leaves,
      indexes.map((index, at) => [index, leaves[at]!] as const),
    );
  }
}

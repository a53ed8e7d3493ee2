// The stream table (IHI 0070 §3.3, §5.1, §5.2) as Linux's driver keeps it: linear for few streams, else of two levels that are split at 8 bits,
// with second levels made when a device comes. Every entry is valid from the start and aborts, so that a stream without a device is silent.
//
// A level-1 descriptor that appears is not invalidated: the hardware may keep none that has no span (§5.1.1 would have it told; Linux does not).

import { STE_BYTES } from "../../../arch/smmuv3/stream-table-entry.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM, ERANGE } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillMap } from "../../same-objects.ts";
import { storeDoubleword } from "../doubleword.ts";
import { type EntryPlace, entryInMemory } from "./entry-writer.ts";
import { abortEntry } from "./stream-entries.ts";

const SPLIT = 8;
/** Linux: STRTAB_MAX_L1_ENTRIES. */
const MAX_LEVEL_1 = 2 ** 17;
const LEVEL_2_PAGES = (2 ** SPLIT * STE_BYTES) / 4096;
/** L1STD.Span: 2^(Span - 1) entries. */
const SPAN = BigInt(SPLIT + 1);

export class StreamTable implements Stateful {
  readonly root: HpaPfn;
  readonly #frames: HostFrames;
  readonly #log2: number;
  readonly #twoLevels: boolean;
  readonly #rootPages: number;
  /** Second levels by index of their descriptors. */
  readonly #leaves = new Map<number, HpaPfn>();

  private constructor(root: HpaPfn, rootPages: number, log2: number, twoLevels: boolean, frames: HostFrames) {
    this.root = root;
    this.#rootPages = rootPages;
    this.#log2 = log2;
    this.#twoLevels = twoLevels;
    this.#frames = frames;
    if (!twoLevels) this.#fillWithAborts(root, 2 ** log2);
  }

  /** A table for stream ids of `streamIdBits`, of two levels where the hardware has them and they are worth it; or -ENOMEM. */
  static create(streamIdBits: number, hasTwoLevels: boolean, frames: HostFrames): StreamTable | number {
    const twoLevels = hasTwoLevels && streamIdBits > SPLIT;
    const log2 = twoLevels ? Math.min(streamIdBits, Math.log2(MAX_LEVEL_1) + SPLIT) : streamIdBits;
    const bytes = twoLevels ? 2 ** (log2 - SPLIT) * 8 : 2 ** log2 * STE_BYTES;
    const pages = Math.max(1, bytes / 4096);
    const root = frames.allocate(pages, pages);
    return root < 0 ? root : new StreamTable(root as HpaPfn, pages, log2, twoLevels, frames);
  }

  /** STRTAB_BASE_CFG (§6.3.25). */
  get configuration(): number {
    return this.#twoLevels ? this.#log2 | (SPLIT << 6) | (1 << 16) : this.#log2;
  }

  /** Makes room for a stream's entry; 0, -ERANGE for a stream id outside of the table, -ENOMEM. */
  prepare(streamId: number): number {
    if (streamId >= 2 ** this.#log2) return -ERANGE;
    const index = streamId >>> SPLIT;
    if (!this.#twoLevels || this.#leaves.has(index)) return 0;
    const leaf = this.#frames.allocate(LEVEL_2_PAGES, LEVEL_2_PAGES);
    if (leaf < 0) return -ENOMEM;
    this.#fillWithAborts(leaf as HpaPfn, 2 ** SPLIT);
    this.#leaves.set(index, leaf as HpaPfn);
    const at = index * 8;
    const descriptor = (BigInt(leaf) << 12n) | SPAN;
    storeDoubleword(this.#frames.memory, (this.root + (at >> 12)) as HpaPfn, at & 4095, descriptor);
    return 0;
  }

  /** The entry of a stream that was prepared. */
  entryOf(streamId: number, sync: () => void): EntryPlace {
    const base = this.#twoLevels ? this.#leaves.get(streamId >>> SPLIT)! : this.root;
    const at = (this.#twoLevels ? streamId & (2 ** SPLIT - 1) : streamId) * STE_BYTES;
    return entryInMemory(this.#frames.memory, (base + (at >> 12)) as HpaPfn, at & 4095, sync);
  }

  /** Only when the hardware no longer reads it. */
  free(): void {
    for (const leaf of this.#leaves.values()) this.#frames.release(leaf, LEVEL_2_PAGES);
    this.#leaves.clear();
    this.#frames.release(this.root, this.#rootPages);
  }

  #fillWithAborts(frame: HpaPfn, entries: number): void {
    const [first] = abortEntry();
    for (let at = 0; at < entries * STE_BYTES; at += STE_BYTES) {
      storeDoubleword(this.#frames.memory, (frame + (at >> 12)) as HpaPfn, at & 4095, first!);
    }
  }

  /** The tables are in memory. */
  saveState(): StateRecord {
    return { indexes: [...this.#leaves.keys()], leaves: [...this.#leaves.values()] };
  }

  restoreState(state: StateReader): void {
    const leaves = numbersOf(state, "leaves") as HpaPfn[];
    const indexes = numbersOf(state, "indexes");
    if (indexes.length !== leaves.length) state.fail("leaves", "are not as many as indexes");
    refillMap(
      this.#leaves,
      indexes.map((index, at) => [index, leaves[at]!] as const),
    );
  }
}

// The root table and the context tables below it (VT-d §9.1 to §9.4): 256 root entries by bus; in scalable mode two context tables a bus, each for half
// of its functions, else one. Context tables are made when a device comes.

import { CONTEXT_BYTES, PRESENT, ROOT_BYTES, SCALABLE_CONTEXT_BYTES } from "../../../arch/vtd/root-and-context.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillMap } from "../../same-objects.ts";
import { loadDoubleword, storeDoubleword } from "../doubleword.ts";

export class RootTable implements Stateful {
  readonly root: HpaPfn;
  readonly scalable: boolean;
  readonly #frames: HostFrames;
  /** Context tables by bus, in scalable mode by bus and half. */
  readonly #tables = new Map<number, HpaPfn>();

  private constructor(root: HpaPfn, scalable: boolean, frames: HostFrames) {
    this.root = root;
    this.scalable = scalable;
    this.#frames = frames;
  }

  /** An empty table, or -ENOMEM. */
  static create(scalable: boolean, frames: HostFrames): RootTable | number {
    const root = frames.allocate();
    return root < 0 ? root : new RootTable(root as HpaPfn, scalable, frames);
  }

  /** Makes room for the entry of a function, by its requester id; 0 or -ENOMEM. */
  prepare(requesterId: number): number {
    const key = this.#key(requesterId);
    if (this.#tables.has(key)) return 0;
    const table = this.#frames.allocate();
    if (table < 0) return -ENOMEM;
    this.#tables.set(key, table as HpaPfn);
    const at = this.scalable ? key * (ROOT_BYTES / 2) : key * ROOT_BYTES;
    storeDoubleword(this.#frames.memory, this.root, at, (BigInt(table) << 12n) | BigInt(PRESENT));
    return 0;
  }

  /** Makes an entry what is wanted: 2 quadwords, in scalable mode 4; the first, which has P, is stored last. */
  write(requesterId: number, words: readonly bigint[]): void {
    const [table, at] = this.#placeOf(requesterId);
    for (let word = words.length - 1; word >= 0; word--) {
      storeDoubleword(this.#frames.memory, table, at + 8 * word, words[word]!);
    }
  }

  /** The first step of taking an entry away (Linux: context_clear_present): the hardware is told before the rest goes. */
  clearPresent(requesterId: number): void {
    const [table, at] = this.#placeOf(requesterId);
    const first = loadDoubleword(this.#frames.memory, table, at);
    storeDoubleword(this.#frames.memory, table, at, first & ~BigInt(PRESENT));
  }

  read(requesterId: number): readonly bigint[] {
    const [table, at] = this.#placeOf(requesterId);
    const bytes = this.scalable ? SCALABLE_CONTEXT_BYTES : CONTEXT_BYTES;
    return Array.from({ length: bytes / 8 }, (_, word) => loadDoubleword(this.#frames.memory, table, at + 8 * word));
  }

  /** Only when the hardware no longer reads it. */
  free(): void {
    for (const table of this.#tables.values()) this.#frames.release(table);
    this.#tables.clear();
    this.#frames.release(this.root);
  }

  #key(requesterId: number): number {
    return this.scalable ? requesterId >>> 7 : requesterId >>> 8;
  }

  #placeOf(requesterId: number): readonly [HpaPfn, number] {
    const table = this.#tables.get(this.#key(requesterId))!;
    return this.scalable
      ? [table, (requesterId & 0x7f) * SCALABLE_CONTEXT_BYTES]
      : [table, (requesterId & 0xff) * CONTEXT_BYTES];
  }

  /** The tables are in memory. */
  saveState(): StateRecord {
    return { keys: [...this.#tables.keys()], tables: [...this.#tables.values()] };
  }

  restoreState(state: StateReader): void {
    const tables = numbersOf(state, "tables") as HpaPfn[];
    const keys = numbersOf(state, "keys");
    if (keys.length !== tables.length) state.fail("tables", "are not as many as keys");
    refillMap(
      this.#tables,
      keys.map((key, index) => [key, tables[index]!] as const),
    );
  }
}

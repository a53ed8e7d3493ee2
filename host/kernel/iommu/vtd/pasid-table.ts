// A device's PASID directory and its PASID tables (VT-d §9.5, §9.6), the host's own: the entry of PASID 0 is what requests without PASID use. A table of
// 64 entries is made when one of them is wanted, and goes with its last one, but for the first (Linux, intel_pasid_get_entry, keeps them all).

import { PASID_ENTRY_BYTES, PASID_TABLE_BITS } from "../../../arch/vtd/pasid-entries.ts";
import { PRESENT } from "../../../arch/vtd/root-and-context.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillMap } from "../../same-objects.ts";
import { loadDoubleword, storeDoubleword } from "../doubleword.ts";
import type { TableAccounting } from "../page-table.ts";

/** Eight quadwords, as arch/vtd/pasid-entries.ts names them. */
export type PasidEntry = readonly bigint[];

const WORDS = PASID_ENTRY_BYTES / 8;
const ENTRIES = 2 ** PASID_TABLE_BITS;
/** Directory entries of a page. */
const DIRECTORY_BITS = 9;

export class PasidTable implements Stateful {
  #directory: HpaPfn;
  readonly #pages: number;
  readonly #frames: HostFrames;
  readonly #accounting: TableAccounting;
  /** Tables by index of their directory entries. */
  readonly #tables = new Map<number, HpaPfn>();

  private constructor(directory: HpaPfn, pages: number, frames: HostFrames, accounting: TableAccounting) {
    this.#directory = directory;
    this.#pages = pages;
    this.#frames = frames;
    this.#accounting = accounting;
  }

  /** For PASIDs of `bits` bits (0: none but 0); a directory has a page at least. -ENOMEM. */
  static create(bits: number, frames: HostFrames, accounting: TableAccounting): PasidTable | number {
    if (accounting.fails()) return -ENOMEM;
    const pages = 2 ** Math.max(0, bits - PASID_TABLE_BITS - DIRECTORY_BITS);
    const directory = frames.allocate(pages, pages);
    if (directory < 0) return directory;
    return new PasidTable(directory as HpaPfn, pages, frames, accounting);
  }

  get directory(): HpaPfn {
    return this.#directory;
  }

  /** Context.PDTS: 2^(PDTS + 7) directory entries. */
  get sizeCode(): number {
    return Math.log2(this.#pages) + DIRECTORY_BITS - 7;
  }

  /** Makes room for the entry of a PASID; 0 or -ENOMEM. */
  prepare(pasid: number): number {
    const index = pasid >>> PASID_TABLE_BITS;
    if (this.#tables.has(index)) return 0;
    if (this.#accounting.fails()) return -ENOMEM;
    const table = this.#frames.allocate();
    if (table < 0) return table;
    this.#tables.set(index, table as HpaPfn);
    // The first one is the device's as long as it is there.
    if (index > 0) this.#accounting.created();
    this.#storeDirectory(index, (BigInt(table) << 12n) | BigInt(PRESENT));
    return 0;
  }

  /** Frees the table of a PASID if no entry of it is present; `forget` makes the hardware forget directory entries. */
  freeIfEmpty(pasid: number, forget: () => void): void {
    const index = pasid >>> PASID_TABLE_BITS;
    const table = this.#tables.get(index);
    if (index === 0 || table === undefined) return;
    for (let i = 0; i < ENTRIES; i++) if ((this.#load(table, i, 0) & BigInt(PRESENT)) !== 0n) return;
    this.#storeDirectory(index, 0n);
    forget();
    this.#release(index, table);
  }

  #storeDirectory(index: number, entry: bigint): void {
    const at = index * 8;
    storeDoubleword(this.#frames.memory, (this.#directory + (at >> 12)) as HpaPfn, at & 4095, entry);
  }

  #release(index: number, table: HpaPfn): void {
    this.#tables.delete(index);
    this.#frames.release(table);
    if (index > 0) this.#accounting.destroyed();
  }

  /** The entry of a PASID, null if it is not present. */
  read(pasid: number): PasidEntry | null {
    const table = this.#tables.get(pasid >>> PASID_TABLE_BITS);
    if (table === undefined) return null;
    const words = Array.from({ length: WORDS }, (_, word) => this.#load(table, pasid, word));
    return (words[0]! & BigInt(PRESENT)) === 0n ? null : words;
  }

  /** Fills an entry that was prepared and is not present; the quadword with P goes last. */
  write(pasid: number, entry: PasidEntry): void {
    for (let word = WORDS - 1; word >= 0; word--) this.writeWord(pasid, word, entry[word]!);
  }

  writeWord(pasid: number, word: number, value: bigint): void {
    const table = this.#tables.get(pasid >>> PASID_TABLE_BITS)!;
    storeDoubleword(this.#frames.memory, table, this.#offset(pasid, word), value);
  }

  /** Only when the hardware no longer reads it. */
  free(): void {
    for (const [index, table] of [...this.#tables]) this.#release(index, table);
    this.#frames.release(this.#directory, this.#pages);
  }

  #offset(pasid: number, word: number): number {
    return (pasid & (ENTRIES - 1)) * PASID_ENTRY_BYTES + 8 * word;
  }

  #load(table: HpaPfn, pasid: number, word: number): bigint {
    return loadDoubleword(this.#frames.memory, table, this.#offset(pasid, word));
  }

  /** The tables are in memory. */
  saveState(): StateRecord {
    return {
      directory: this.#directory,
      indexes: [...this.#tables.keys()],
      tables: [...this.#tables.values()],
    };
  }

  restoreState(state: StateReader): void {
    const tables = numbersOf(state, "tables") as HpaPfn[];
    const indexes = numbersOf(state, "indexes");
    if (indexes.length !== tables.length) state.fail("tables", "are not as many as indexes");
    this.#directory = state.number("directory") as HpaPfn;
    refillMap(
      this.#tables,
      indexes.map((index, at) => [index, tables[at]!] as const),
    );
  }
}

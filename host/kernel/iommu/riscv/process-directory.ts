// A process directory of the host's own (§3.2): what a device goes through while the host has attached domains at PASIDs. (A guest's
// process directories are its own, in its memory.) Process id 0 stands for requests without PASID (tc.DPE).
//
// An entry that becomes valid is written back to front. One that is exchanged while valid differs in two doublewords: the leaf table is
// copied and hung in by one pointer store, as in the device directory; only a one-level directory has no pointer to it.

import { PDTP_PD8, PDTP_PD17, PDTP_PD20 } from "../../../arch/riscv/device-context.ts";
import { processDirectoryIndex } from "../../../arch/riscv/process-context.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillList } from "../../same-objects.ts";
import { loadDoubleword, storeDoubleword } from "../doubleword.ts";
import type { TableAccounting } from "../page-table.ts";

const V = 1n;
const ENTRY_BYTES = 16;

/** ta and fsc of a process context; null: not valid. */
export type ProcessContext = readonly [ta: bigint, fsc: bigint] | null;

export class ProcessDirectory implements Stateful {
  readonly #frames: HostFrames;
  readonly #accounting: TableAccounting;
  /** 1, 2 or 3. */
  readonly #levels: number;
  #root: HpaPfn;
  readonly #tables: HpaPfn[] = [];
  /** Leaf tables that were exchanged: freed after the next invalidation. */
  #replaced: HpaPfn[] = [];

  private constructor(frames: HostFrames, accounting: TableAccounting, levels: number, root: HpaPfn) {
    this.#frames = frames;
    this.#accounting = accounting;
    this.#levels = levels;
    this.#root = root;
    this.#tables.push(root);
  }

  /** A directory for process ids of `bits` bits (8, 17 or 20), or -ENOMEM. */
  static create(bits: number, frames: HostFrames, accounting: TableAccounting): ProcessDirectory | number {
    const root = newTable(frames, accounting);
    if (root < 0) return root;
    return new ProcessDirectory(frames, accounting, bits === 8 ? 1 : bits === 17 ? 2 : 3, root as HpaPfn);
  }

  /** fsc of a device context with PDTV. */
  get pdtp(): bigint {
    return (BigInt([PDTP_PD8, PDTP_PD17, PDTP_PD20][this.#levels - 1]!) << 60n) | BigInt(this.#root);
  }

  /** Makes the tables on the way to an entry, so that `set` cannot fail for want of them; 0 or -ENOMEM. */
  prepare(processId: number): number {
    return this.#leaf(processId, true) === null ? -ENOMEM : 0;
  }

  /** Sets an entry; the caller invalidates, then calls `freeReplaced`. 0 or -ENOMEM with nothing changed. */
  set(processId: number, context: ProcessContext): number {
    const leaf = this.#leaf(processId, context !== null);
    if (leaf === null) return context === null ? 0 : -ENOMEM;
    const at = processDirectoryIndex(processId, 0) * ENTRY_BYTES;
    if (context === null) {
      storeDoubleword(this.#frames.memory, leaf, at, 0n);
      storeDoubleword(this.#frames.memory, leaf, at + 8, 0n);
      return 0;
    }
    const [ta, fsc] = context;
    if ((loadDoubleword(this.#frames.memory, leaf, at) & V) === 0n || this.#levels === 1) {
      storeDoubleword(this.#frames.memory, leaf, at, 0n);
      storeDoubleword(this.#frames.memory, leaf, at + 8, fsc);
      storeDoubleword(this.#frames.memory, leaf, at, ta | V);
      return 0;
    }
    const copy = newTable(this.#frames, this.#accounting);
    if (copy < 0) return copy;
    this.#frames.view(copy as HpaPfn, 1).set(this.#frames.view(leaf, 1));
    storeDoubleword(this.#frames.memory, copy as HpaPfn, at, ta | V);
    storeDoubleword(this.#frames.memory, copy as HpaPfn, at + 8, fsc);
    const [table, offset] = this.#parent(processId);
    storeDoubleword(this.#frames.memory, table, offset, (BigInt(copy) << 10n) | V);
    this.#tables.splice(this.#tables.indexOf(leaf), 1, copy as HpaPfn);
    this.#replaced.push(leaf);
    return 0;
  }

  freeReplaced(): void {
    for (const frame of this.#replaced) this.#free(frame);
    this.#replaced = [];
  }

  /** Frees everything. Only when no device context refers to it. */
  free(): void {
    this.freeReplaced();
    for (const frame of this.#tables) this.#free(frame);
    this.#tables.length = 0;
  }

  #free(frame: HpaPfn): void {
    this.#frames.release(frame);
    this.#accounting.destroyed();
  }

  #parent(processId: number): [HpaPfn, number] {
    let table = this.#root;
    for (let level = this.#levels - 1; level > 1; level--) {
      table = Number(
        loadDoubleword(this.#frames.memory, table, processDirectoryIndex(processId, level) * 8) >> 10n,
      ) as HpaPfn;
    }
    return [table, processDirectoryIndex(processId, 1) * 8];
  }

  #leaf(processId: number, allocate: boolean): HpaPfn | null {
    let table = this.#root;
    for (let level = this.#levels - 1; level > 0; level--) {
      const at = processDirectoryIndex(processId, level) * 8;
      const entry = loadDoubleword(this.#frames.memory, table, at);
      if ((entry & V) !== 0n) {
        table = Number(entry >> 10n) as HpaPfn;
        continue;
      }
      const frame = allocate ? newTable(this.#frames, this.#accounting) : -1;
      if (frame < 0) return null;
      this.#tables.push(frame as HpaPfn);
      storeDoubleword(this.#frames.memory, table, at, (BigInt(frame) << 10n) | V);
      table = frame as HpaPfn;
    }
    return table;
  }

  /** The tables are in memory. */
  saveState(): StateRecord {
    return { root: this.#root, tables: [...this.#tables], replaced: [...this.#replaced] };
  }

  restoreState(state: StateReader): void {
    this.#root = state.number("root") as HpaPfn;
    refillList(this.#tables, numbersOf(state, "tables") as HpaPfn[]);
    this.#replaced = numbersOf(state, "replaced") as HpaPfn[];
  }
}

function newTable(frames: HostFrames, accounting: TableAccounting): number {
  if (accounting.fails()) return -ENOMEM;
  const frame = frames.allocate();
  if (frame >= 0) accounting.created();
  return frame;
}

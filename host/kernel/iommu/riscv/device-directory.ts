// The device directory that the driver owns (§3.1): non-leaf tables on demand, contexts found by device id, and the two ways of
// changing a context under a running device (context-switch.ts).
//
//     find     → the context's place, allocating tables on its way
//     store    → one doubleword of a context
//     replace  → a copy of the leaf table with the new context in it, hung in by one pointer store

import { deviceContextBytes, deviceDirectoryIndex, deviceIdBits } from "../../../arch/riscv/device-context.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf } from "../../same-objects.ts";
import { loadDoubleword, storeDoubleword } from "../doubleword.ts";
import type { Context } from "./context-switch.ts";

const V = 1n;

export class DeviceDirectory implements Stateful {
  readonly root: HpaPfn;
  /** 1, 2 or 3. */
  readonly levels: number;
  readonly #extended: boolean;
  readonly #frames: HostFrames;
  /** Leaf tables that were replaced and that hardware may still read: freed after the next invalidation. */
  #replaced: HpaPfn[] = [];

  constructor(root: HpaPfn, levels: number, extended: boolean, frames: HostFrames) {
    this.root = root;
    this.levels = levels;
    this.#extended = extended;
    this.#frames = frames;
  }

  /** Device ids it covers: [0, 2^bits). */
  get deviceIdBits(): number {
    return deviceIdBits(this.levels, this.#extended);
  }

  /** Makes the tables on the way to a device's context; 0 or -ENOMEM. */
  prepare(deviceId: number): number {
    const leaf = this.#leaf(deviceId, true);
    return leaf === null ? -ENOMEM : 0;
  }

  read(deviceId: number): Context {
    const leaf = this.#leaf(deviceId, false);
    if (leaf === null) return [0n, 0n, 0n, 0n];
    const at = this.#offset(deviceId);
    return [0, 1, 2, 3].map((word) => loadDoubleword(this.#frames.memory, leaf, at + word * 8)) as unknown as Context;
  }

  /** Stores one doubleword of the device's context. */
  store(deviceId: number, word: number, value: bigint): void {
    const leaf = this.#leaf(deviceId, false);
    if (leaf !== null) storeDoubleword(this.#frames.memory, leaf, this.#offset(deviceId) + word * 8, value);
  }

  /** True if a context can be exchanged as a whole: there is a pointer above the leaf table. */
  get canReplace(): boolean {
    return this.levels > 1;
  }

  /** Exchanges the leaf table for a copy with the new context; 0 or -ENOMEM with nothing changed. */
  replace(deviceId: number, context: Context): number {
    const leaf = this.#leaf(deviceId, false);
    const copy = this.#frames.allocate();
    if (leaf === null || copy < 0) return -ENOMEM;
    const frame = copy as HpaPfn;
    this.#frames.view(frame, 1).set(this.#frames.view(leaf, 1));
    const at = this.#offset(deviceId);
    for (const [word, value] of context.entries()) storeDoubleword(this.#frames.memory, frame, at + word * 8, value);
    const [table, offset] = this.#parent(deviceId)!;
    storeDoubleword(this.#frames.memory, table, offset, (BigInt(frame) << 10n) | V);
    this.#replaced.push(leaf);
    return 0;
  }

  /** Frees the tables that were replaced; only after an invalidation of the whole directory. */
  freeReplaced(): void {
    for (const frame of this.#replaced) this.#frames.release(frame);
    this.#replaced = [];
  }

  #offset(deviceId: number): number {
    return deviceDirectoryIndex(deviceId, 0, this.#extended) * deviceContextBytes(this.#extended);
  }

  /** Table and offset of the entry that points to the device's leaf table; null with one level. */
  #parent(deviceId: number): [HpaPfn, number] | null {
    let table = this.root;
    for (let level = this.levels - 1; level > 1; level--) {
      const entry = loadDoubleword(
        this.#frames.memory,
        table,
        deviceDirectoryIndex(deviceId, level, this.#extended) * 8,
      );
      if ((entry & V) === 0n) return null;
      table = Number(entry >> 10n) as HpaPfn;
    }
    return this.levels === 1 ? null : [table, deviceDirectoryIndex(deviceId, 1, this.#extended) * 8];
  }

  #leaf(deviceId: number, allocate: boolean): HpaPfn | null {
    let table = this.root;
    for (let level = this.levels - 1; level > 0; level--) {
      const at = deviceDirectoryIndex(deviceId, level, this.#extended) * 8;
      const entry = loadDoubleword(this.#frames.memory, table, at);
      if ((entry & V) !== 0n) {
        table = Number((entry >> 10n) & 0xfff_ffff_ffffn) as HpaPfn;
        continue;
      }
      if (!allocate) return null;
      const frame = this.#frames.allocate();
      if (frame < 0) return null;
      storeDoubleword(this.#frames.memory, table, at, (BigInt(frame) << 10n) | V);
      table = frame as HpaPfn;
    }
    return table;
  }

  /** The tables are in memory. */
  saveState(): StateRecord {
    return { replaced: [...this.#replaced] };
  }

  restoreState(state: StateReader): void {
    this.#replaced = numbersOf(state, "replaced") as HpaPfn[];
  }
}

// MSI-X (PCIe 6.0 §7.7.2): the capability in configuration space, and the vector table with its pending bits in a BAR. An entry
// is address low, address high, data, vector control (bit 0 masks; set after reset). A vector raised while it, or the function, is
// masked becomes pending and is sent when both are unmasked (§6.1.4.6). While MSI-X is off nothing is sent or remembered.

import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import type { ConfigSpace } from "../config-space.ts";
import { type Capability, touched } from "./capability.ts";
import type { MessageSender } from "./message.ts";

const MESSAGE_CONTROL = 0x02;
const TABLE = 0x04;
const PENDING_BIT_ARRAY = 0x08;

const ENABLE = 1 << 15;
const FUNCTION_MASK = 1 << 14;
const ENTRY_BYTES = 16;
const ENTRY_WORDS = 4;
const MASKED = 1;

export interface MsixPlace {
  /** BAR that holds the table and the pending bits. */
  readonly bar: number;
  /** Offsets in that BAR, multiples of 8. */
  readonly tableOffset: number;
  readonly pendingOffset: number;
}

export class MsixCapability implements Capability, Stateful {
  readonly id = 0x11;
  readonly bytes = 12;
  readonly vectors: number;
  readonly #place: MsixPlace;
  readonly #send: MessageSender;
  readonly #table: Uint32Array;
  readonly #pending: Uint32Array;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  constructor(vectors: number, place: MsixPlace, send: MessageSender) {
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048)
      throw new RangeError("MSI-X has 1 to 2048 vectors");
    this.vectors = vectors;
    this.#place = place;
    this.#send = send;
    this.#table = new Uint32Array(vectors * ENTRY_WORDS);
    // Whole quadwords, as the pending bit array is read in (§7.7.2.4).
    this.#pending = new Uint32Array(Math.ceil(vectors / 64) * 2);
    this.reset();
  }

  place(config: ConfigSpace, at: number): void {
    this.#config = config;
    this.#at = at;
    config.declare(at + MESSAGE_CONTROL, 2, { value: this.vectors - 1, writable: ENABLE | FUNCTION_MASK });
    config.declare(at + TABLE, 4, { value: this.#place.tableOffset | this.#place.bar });
    config.declare(at + PENDING_BIT_ARRAY, 4, { value: this.#place.pendingOffset | this.#place.bar });
  }

  get enabled(): boolean {
    return (this.#control & ENABLE) !== 0;
  }

  get #control(): number {
    return this.#config!.get16(this.#at + MESSAGE_CONTROL);
  }

  reset(): void {
    this.#table.fill(0);
    for (let vector = 0; vector < this.vectors; vector++) this.#table[vector * ENTRY_WORDS + 3] = MASKED;
    this.#pending.fill(0);
  }

  /** Sends `vector`, or makes it pending; a vector that does not exist is dropped. */
  raise(vector: number): void {
    if (vector >= this.vectors) return;
    const entry = vector * ENTRY_WORDS;
    if ((this.#control & FUNCTION_MASK) !== 0 || (this.#table[entry + 3]! & MASKED) !== 0) {
      this.#pending[vector >> 5] = this.#pending[vector >> 5]! | (1 << (vector & 31));
      return;
    }
    this.#send(this.#table[entry]!, this.#table[entry + 1]!, this.#table[entry + 2]!);
  }

  /** A vector whose cause went away before it could be sent is no longer pending (§6.1.4.6). */
  withdraw(vector: number): void {
    if (vector < this.vectors) this.#pending[vector >> 5] = this.#pending[vector >> 5]! & ~(1 << (vector & 31));
  }

  written(from: number, to: number): void {
    if (!touched(from, to, MESSAGE_CONTROL, 2)) return;
    if (!this.enabled) {
      this.#pending.fill(0);
      return;
    }
    if ((this.#control & FUNCTION_MASK) !== 0) return;
    for (let vector = 0; vector < this.vectors; vector++) this.#deliverPending(vector);
  }

  #deliverPending(vector: number): void {
    const bit = 1 << (vector & 31);
    if ((this.#pending[vector >> 5]! & bit) === 0 || (this.#table[vector * ENTRY_WORDS + 3]! & MASKED) !== 0) return;
    this.#pending[vector >> 5] = this.#pending[vector >> 5]! & ~bit;
    this.raise(vector);
  }

  /** The vector table as registers of a BAR; the device dispatches to it. */
  readonly table: MmioPort = {
    high: 0,
    mmioRead: (offset: number, size: AccessSize): number => {
      this.table.high = size === 8 ? (this.#table[(offset >> 2) + 1] ?? 0) : 0;
      return size >= 4 ? (this.#table[offset >> 2] ?? 0) : 0;
    },
    mmioWrite: (offset: number, size: AccessSize, lo: number, hi: number): void => {
      // Only whole dwords and quadwords are defined (§6.1.4.3); others change nothing.
      if (size < 4 || offset >= this.vectors * ENTRY_BYTES) return;
      this.#storeWord(offset >> 2, lo);
      if (size === 8) this.#storeWord((offset >> 2) + 1, hi);
    },
  };

  #storeWord(word: number, value: number): void {
    const field = word & 3;
    this.#table[word] = field === 3 ? value & MASKED : field === 0 ? value & ~3 : value;
    if (field === 3 && this.enabled && (this.#control & FUNCTION_MASK) === 0) this.#deliverPending(word >> 2);
  }

  /** The pending bit array as registers of a BAR: read-only. */
  readonly pendingBits: MmioPort = {
    high: 0,
    mmioRead: (offset: number, size: AccessSize): number => {
      this.pendingBits.high = size === 8 ? (this.#pending[(offset >> 2) + 1] ?? 0) : 0;
      return size >= 4 ? (this.#pending[offset >> 2] ?? 0) : 0;
    },
    mmioWrite: (): void => {},
  };

  saveState(): StateRecord {
    return { table: bytesOf(this.#table), pending: bytesOf(this.#pending) };
  }

  restoreState(state: StateReader): void {
    state.memory("table", this.#table);
    state.memory("pending", this.#pending);
  }
}

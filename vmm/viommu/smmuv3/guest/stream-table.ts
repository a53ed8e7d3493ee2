// The guest's stream table in its RAM (IHI 0070 §5.1), as Linux lays it out: linear where StreamIDs have 8 bits or fewer or there is no second
// level, else two levels split at 8 bits, whose leaves are made when first asked for. It starts out full of valid entries that abort.

import { L1STD, STE, STE_BYTES } from "../../../../host/arch/smmuv3/stream-table-entry.ts";
import type { GuestMemory } from "../../guest-driver.ts";

export type StreamFields = Readonly<Partial<Record<keyof typeof STE.fields, bigint | number>>>;

const SPLIT = 8;
/** V = 1, Config = 0 (§5.2). */
const ABORT = 1n;

export class StreamTable {
  readonly base: bigint;
  readonly log2Size: number;
  readonly twoLevel: boolean;
  readonly #ram: GuestMemory;

  constructor(ram: GuestMemory, log2Size: number, twoLevel: boolean) {
    this.#ram = ram;
    this.log2Size = log2Size;
    this.twoLevel = twoLevel;
    const bytes = twoLevel ? 8 * 2 ** (log2Size - SPLIT) : STE_BYTES * 2 ** log2Size;
    this.base = this.#allocate(bytes);
    if (!twoLevel) this.#fill(this.base, 2 ** log2Size);
  }

  /** STRTAB_BASE_CFG (§6.3.25). */
  get configuration(): number {
    return this.log2Size | (this.twoLevel ? (SPLIT << 6) | (1 << 16) : 0);
  }

  /** Guest-physical address of a stream's entry. Throws RangeError for a StreamID past the table. */
  place(streamId: number): bigint {
    if (streamId >= 2 ** this.log2Size)
      throw new RangeError(`StreamID ${streamId} is past a stream table of 2^${this.log2Size} entries`);
    if (!this.twoLevel) return this.base + BigInt(streamId * STE_BYTES);
    const at = this.base + BigInt((streamId >>> SPLIT) * 8);
    let entry = this.#ram.read64(at);
    if (L1STD.get([entry], "Span") === 0n) {
      const leaves = this.#allocate(STE_BYTES << SPLIT);
      this.#fill(leaves, 1 << SPLIT);
      const words = [0n];
      L1STD.set(words, "Span", BigInt(SPLIT + 1));
      L1STD.set(words, "L2Ptr", leaves >> 6n);
      entry = words[0]!;
      // One store of 64 bits links it, and no command: nobody may hold on to a descriptor with Span = 0.
      this.#ram.write64(at, entry);
    }
    return (L1STD.get([entry], "L2Ptr") << 6n) + BigInt((streamId & ((1 << SPLIT) - 1)) * STE_BYTES);
  }

  /** Stores an entry, V last; no command. */
  write(streamId: number, fields: StreamFields): void {
    const at = this.place(streamId);
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries({ V: 1, ...fields }))
      STE.set(words, name as keyof typeof STE.fields, BigInt(value));
    this.#ram.write64(at, 0n);
    for (let i = 7; i >= 0; i--) this.#ram.write64(at + BigInt(8 * i), words[i]!);
  }

  #fill(at: bigint, entries: number): void {
    for (let i = 0; i < entries; i++) this.#ram.write64(at + BigInt(i * STE_BYTES), ABORT);
  }

  #allocate(bytes: number): bigint {
    const pages = Math.max(1, Math.ceil(bytes / 4096));
    // Aligned to its size (§6.3.24, §5.1.1).
    return this.#ram.allocate(pages, BigInt(pages * 4096));
  }
}

// First-stage tables that a scenario's guest builds in its own RAM: x86's long mode format (VT-d §9.7), 4 or 5 levels, 4 KiB to 1 GiB leaves. Addresses are
// bigints; a table is written with plain stores, as a guest driver would.

import { FIRST_STAGE_ENTRY } from "../../../../host/arch/vtd/page-table-entry.ts";
import type { GuestMemory, GuestStage1, MapOptions } from "../../guest-driver.ts";

export type Stage1Mode = "4-level" | "5-level";

const LEVELS: Readonly<Record<Stage1Mode, number>> = { "4-level": 4, "5-level": 5 };

export interface Stage1MapOptions extends MapOptions {
  /** U/S; on by default: requests without a PASID are a user's. */
  readonly user?: boolean;
  readonly global?: boolean;
  /** A and D as the guest sets them; both on by default, hardware sets what is missing. */
  readonly accessed?: boolean;
  readonly dirty?: boolean;
}

export class Stage1 implements GuestStage1 {
  readonly mode: Stage1Mode;
  /** The domain id that PASID entries carry for this table. */
  readonly domain: number;
  readonly root: bigint;
  readonly #levels: number;
  readonly #ram: GuestMemory;

  constructor(ram: GuestMemory, mode: Stage1Mode, domain: number) {
    this.mode = mode;
    this.domain = domain;
    this.#levels = LEVELS[mode];
    this.#ram = ram;
    this.root = ram.allocate();
  }

  get tag(): number {
    return this.domain;
  }

  /** PASID entry FSPM. */
  get pagingMode(): number {
    return this.#levels - 4;
  }

  map(iova: bigint, gpa: bigint, length: bigint, options: Stage1MapOptions = {}): void {
    const { read = true, write = true, user = true, global = false } = options;
    const { accessed = true, dirty = write, pageBytes = 4096n } = options;
    const level = this.#leafLevel(pageBytes);
    if ((iova | gpa | length) % pageBytes !== 0n)
      throw new RangeError("iova, gpa and length must be multiples of the page size");
    for (let at = 0n; at < length; at += pageBytes) {
      const entry = [0n];
      const set = (field: keyof typeof FIRST_STAGE_ENTRY.fields, value: boolean | bigint): void =>
        FIRST_STAGE_ENTRY.set(entry, field, BigInt(value));
      // There is no way to say that what is present cannot be read.
      set("P", read || write);
      set("RW", write);
      set("US", user);
      set("G", global);
      set("A", accessed);
      set("D", dirty);
      set("PS", level > 0);
      set("ADDR", (gpa + at) >> 12n);
      this.#ram.write64(this.#entryAddress(iova + at, level, true)!, entry[0]!);
    }
  }

  unmap(iova: bigint, length: bigint): void {
    for (let at = 0n; at < length; ) {
      const leaf = this.leaf(iova + at);
      if (leaf === null) {
        at += 4096n;
      } else {
        this.#ram.write64(leaf.address, 0n);
        at += leaf.pageBytes;
      }
    }
  }

  /** Guest-physical address, value and reach of the leaf entry for an IOVA; null if there is none. */
  leaf(iova: bigint): { address: bigint; entry: bigint; pageBytes: bigint } | null {
    for (let level = this.#levels - 1; level >= 0; level--) {
      const address = this.#entryAddress(iova, level, false);
      if (address === null) return null;
      const entry = this.#ram.read64(address);
      if ((entry & 1n) === 0n) return null;
      const isLeaf = level === 0 || FIRST_STAGE_ENTRY.get([entry], "PS") !== 0n;
      if (isLeaf) return { address, entry, pageBytes: 1n << BigInt(12 + 9 * level) };
    }
    return null;
  }

  /** Writes a raw entry in place of the leaf for `iova` (to build what a broken guest would). */
  writeLeaf(iova: bigint, entry: bigint, pageBytes = 4096n): void {
    this.#ram.write64(this.#entryAddress(iova, this.#leafLevel(pageBytes), true)!, entry);
  }

  #leafLevel(pageBytes: bigint): number {
    for (let level = 0; level < 3; level++) if (pageBytes === 1n << BigInt(12 + 9 * level)) return level;
    throw new RangeError(`there are no pages of ${pageBytes} bytes`);
  }

  #entryAddress(iova: bigint, level: number, create: boolean): bigint | null {
    let table = this.root;
    for (let at = this.#levels - 1; ; at--) {
      const address = table + ((iova >> BigInt(12 + 9 * at)) & 0x1ffn) * 8n;
      if (at === level) return address;
      let entry = this.#ram.read64(address);
      const leads = (entry & 1n) !== 0n && FIRST_STAGE_ENTRY.get([entry], "PS") === 0n;
      if (!leads) {
        if (!create) return null;
        const words = [0n];
        for (const field of ["P", "RW", "US", "A"] as const) FIRST_STAGE_ENTRY.set(words, field, 1n);
        FIRST_STAGE_ENTRY.set(words, "ADDR", this.#ram.allocate() >> 12n);
        entry = words[0]!;
        this.#ram.write64(address, entry);
      }
      table = FIRST_STAGE_ENTRY.get([entry], "ADDR") << 12n;
    }
  }
}

// First-stage page tables that a scenario's guest builds in its own RAM: Sv39, Sv48 or Sv57 (privileged architecture), 4 KiB to 1 GiB
// leaves. Addresses are bigints; a table is written with plain stores, as a guest driver would.

import { MODE_SV39, MODE_SV48, MODE_SV57 } from "../../../../host/arch/riscv/device-context.ts";
import { PTE } from "../../../../host/arch/riscv/page-table-entry.ts";
import type { GuestMemory, GuestStage1, MapOptions } from "../../guest-driver.ts";

export type Stage1Mode = "Sv39" | "Sv48" | "Sv57";

const MODES: Readonly<Record<Stage1Mode, { satp: number; levels: number }>> = {
  Sv39: { satp: MODE_SV39, levels: 3 },
  Sv48: { satp: MODE_SV48, levels: 4 },
  Sv57: { satp: MODE_SV57, levels: 5 },
};

export interface Stage1MapOptions extends MapOptions {
  /** U bit; on by default: device requests without a PASID are user-mode. */
  readonly user?: boolean;
  readonly global?: boolean;
  /** A and D as the guest sets them; both on by default, for hardware may be told not to. */
  readonly accessed?: boolean;
  readonly dirty?: boolean;
}

export class Stage1 implements GuestStage1 {
  readonly mode: Stage1Mode;
  /** Process soft-context id that the device context carries for this table. */
  readonly pscid: number;
  readonly root: bigint;
  readonly #levels: number;
  readonly #ram: GuestMemory;

  constructor(ram: GuestMemory, mode: Stage1Mode, pscid: number) {
    this.mode = mode;
    this.pscid = pscid;
    this.#levels = MODES[mode].levels;
    this.#ram = ram;
    this.root = ram.allocate();
  }

  get tag(): number {
    return this.pscid;
  }

  /** The fsc word: MODE and root PPN (RISC-V IOMMU §3.1.3.5). */
  get fsc(): bigint {
    return (BigInt(MODES[this.mode].satp) << 60n) | (this.root >> 12n);
  }

  /** Maps [iova, +length) to [gpa, +length). Everything a multiple of `pageBytes`. Overwrites what was mapped. */
  map(iova: bigint, gpa: bigint, length: bigint, options: Stage1MapOptions = {}): void {
    const { read = true, write = true, execute = false, user = true, global = false } = options;
    const { accessed = true, dirty = write, pageBytes = 4096n } = options;
    const level = this.#leafLevel(pageBytes);
    if ((iova | gpa | length) % pageBytes !== 0n)
      throw new RangeError("iova, gpa and length must be multiples of the page size");
    for (let at = 0n; at < length; at += pageBytes) {
      const entry = [0n];
      const set = (field: "V" | "R" | "W" | "X" | "U" | "G" | "A" | "D", on: boolean): void =>
        PTE.set(entry, field, on ? 1n : 0n);
      set("V", true);
      set("R", read);
      set("W", write);
      set("X", execute);
      set("U", user);
      set("G", global);
      set("A", accessed);
      set("D", dirty);
      PTE.set(entry, "PPN", (gpa + at) >> 12n);
      this.#ram.write64(this.#entryAddress(iova + at, level, true)!, entry[0]!);
    }
  }

  /** Clears the leaves of [iova, +length); tables stay. What hardware has cached stays until it is invalidated. */
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
      if ((entry & 0xen) !== 0n) return { address, entry, pageBytes: 1n << BigInt(12 + 9 * level) };
    }
    return null;
  }

  /** Writes a raw entry in place of the leaf for `iova` (to build what a broken guest would). */
  writeLeaf(iova: bigint, entry: bigint, pageBytes = 4096n): void {
    this.#ram.write64(this.#entryAddress(iova, this.#leafLevel(pageBytes), true)!, entry);
  }

  #leafLevel(pageBytes: bigint): number {
    for (let level = 0; level < this.#levels; level++) if (pageBytes === 1n << BigInt(12 + 9 * level)) return level;
    throw new RangeError(`${this.mode} has no pages of ${pageBytes} bytes`);
  }

  #entryAddress(iova: bigint, level: number, create: boolean): bigint | null {
    let table = this.root;
    for (let at = this.#levels - 1; ; at--) {
      const address = table + ((iova >> BigInt(12 + 9 * at)) & 0x1ffn) * 8n;
      if (at === level) return address;
      let entry = this.#ram.read64(address);
      if ((entry & 1n) === 0n || (entry & 0xen) !== 0n) {
        if (!create) return null;
        const words = [1n];
        PTE.set(words, "PPN", this.#ram.allocate() >> 12n);
        entry = words[0]!;
        this.#ram.write64(address, entry);
      }
      table = PTE.get([entry], "PPN") << 12n;
    }
  }
}

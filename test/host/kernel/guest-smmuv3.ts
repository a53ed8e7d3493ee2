// A guest's half of nested translation on an SMMUv3, as a test writes it into guest RAM: context descriptors (IHI 0070 §5.4) and stage 1 tables
// of VMSAv8-64 (DDI 0487 D8.3), 4 KiB granule, 48 bits, in guest-physical space. Bit positions are the specification's, written out.

import type { GuestRam } from "./guest.ts";

const VALID = 1n;
const TABLE_OR_PAGE = 3n;
/** Bits of a page's descriptor. */
export const AF = 1n << 10n;
export const READ_ONLY = 1n << 7n;
/** AF, inner shareable, not global, for unprivileged requests too. */
const USER_PAGE = AF | (3n << 8n) | (1n << 11n) | (1n << 6n);

export class GuestStage1 {
  readonly #ram: GuestRam;
  readonly root: bigint;

  constructor(ram: GuestRam) {
    this.#ram = ram;
    this.root = ram.page();
  }

  /** Address of the page descriptor of `iova`, making tables on the way. */
  entry(iova: bigint): bigint {
    let table = this.root;
    for (let level = 3n; level > 0n; level--) {
      const at = table + ((iova >> (12n + 9n * level)) & 511n) * 8n;
      let entry = this.#ram.load(at);
      if ((entry & VALID) === 0n) {
        entry = this.#ram.page() | TABLE_OR_PAGE;
        this.#ram.store(at, entry);
      }
      table = entry & 0xffff_ffff_f000n;
    }
    return table + ((iova >> 12n) & 511n) * 8n;
  }

  /** Maps one page, readable and writable unless `more` says otherwise. */
  map(iova: bigint, gpa: bigint, more = 0n): void {
    this.#ram.store(this.entry(iova), gpa | USER_PAGE | more | TABLE_OR_PAGE);
  }

  unmap(iova: bigint): void {
    this.#ram.store(this.entry(iova), 0n);
  }
}

export interface ContextOptions {
  readonly asid?: number;
  /** CD.S: faults of this context stall. */
  readonly stalls?: boolean;
  readonly valid?: boolean;
}

/** A linear table of 64 context descriptors. */
export class GuestContexts {
  readonly #ram: GuestRam;
  readonly table: bigint;

  constructor(ram: GuestRam) {
    this.#ram = ram;
    this.table = ram.page();
  }

  /** T0SZ 16, 4 KiB, EPD1, V, IPS 48 bits, AA64, S, R, A, ASET, ASID; TTB0. */
  set(ssid: number, stage1: GuestStage1, { asid = 7, stalls = false, valid = true }: ContextOptions = {}): void {
    const at = this.table + BigInt(ssid * 64);
    const flags = (1n << 30n) | (valid ? 1n << 31n : 0n) | (5n << 32n) | (1n << 41n) | (7n << 45n);
    this.#ram.store(at, 16n | flags | (stalls ? 1n << 44n : 0n) | (BigInt(asid) << 48n));
    this.#ram.store(at + 8n, stage1.root);
  }

  /** The first doubleword of a stream table entry that leads here: V, Config 5, linear, 2^`cdMax` descriptors. */
  streamEntry(cdMax = 0): bigint {
    return 1n | (5n << 1n) | this.table | (BigInt(cdMax) << 59n);
  }
}

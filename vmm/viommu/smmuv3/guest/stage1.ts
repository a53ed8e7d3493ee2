// First-stage tables that a scenario's guest builds in its own RAM: VMSAv8-64 (DDI 0487 D8.3) with 4K, 16K or 64K granules, pages and blocks,
// the lower half (TTB0) alone, as Linux does. Addresses are bigints; a table is written with plain stores, as a guest driver would.

import type { GuestMemory, GuestStage1, MapOptions } from "../../guest-driver.ts";

/** Granule, and the bits of input addresses where they are not 48. */
export type Stage1Mode = "4K" | "4K-39" | "16K" | "16K-47" | "64K" | "64K-42";

interface Shape {
  /** log2 of the granule. */
  readonly granule: number;
  readonly inputBits: number;
  /** CD.TG0 (IHI 0070 §5.4). */
  readonly tg0: number;
}
const SHAPES: Readonly<Record<Stage1Mode, Shape>> = {
  "4K": { granule: 12, inputBits: 48, tg0: 0 },
  "4K-39": { granule: 12, inputBits: 39, tg0: 0 },
  "16K": { granule: 14, inputBits: 48, tg0: 2 },
  "16K-47": { granule: 14, inputBits: 47, tg0: 2 },
  "64K": { granule: 16, inputBits: 48, tg0: 1 },
  "64K-42": { granule: 16, inputBits: 42, tg0: 1 },
};
export const STAGE1_MODES = Object.keys(SHAPES) as Stage1Mode[];

const VALID = 1n;
/** A table at levels 0 to 2, a page at level 3; clear in a block. */
const TABLE_OR_PAGE = 2n;
/** AttrIndx 1: write-back memory under the MAIR that the driver writes. */
const NORMAL = 1n << 2n;
const EL0 = 1n << 6n;
const READ_ONLY = 1n << 7n;
const INNER_SHAREABLE = 3n << 8n;
const AF = 1n << 10n;
const NG = 1n << 11n;
const DBM = 1n << 51n;
const CONTIGUOUS = 1n << 52n;
const PXN = 1n << 53n;
const UXN = 1n << 54n;
const OUTPUT = 0xffff_ffff_f000n;

export interface Stage1MapOptions extends MapOptions {
  /** Bytes of one leaf; default the granule. */
  readonly pageBytes?: bigint;
  /** AP[1]: unprivileged requests may, too. On by default: PCIe requests without a PASID are unprivileged. */
  readonly user?: boolean;
  /** nG = 0: for every ASID. */
  readonly global?: boolean;
  /** AF; on by default, for hardware may be told not to set it. */
  readonly accessed?: boolean;
  /** False: writable, but marked clean (DBM, AP[2]) until hardware marks it. */
  readonly dirty?: boolean;
  /** The contiguous hint; the guest sees to it that the whole run has it. */
  readonly contiguous?: boolean;
}

export interface Leaf {
  readonly address: bigint;
  readonly entry: bigint;
  readonly pageBytes: bigint;
}

export class Stage1 implements GuestStage1 {
  readonly mode: Stage1Mode;
  readonly asid: number;
  /** TTB0. */
  readonly root: bigint;
  readonly #shape: Shape;
  readonly #startLevel: number;
  readonly #ram: GuestMemory;

  constructor(ram: GuestMemory, mode: Stage1Mode, asid: number) {
    this.mode = mode;
    this.asid = asid;
    this.#ram = ram;
    this.#shape = SHAPES[mode];
    const { granule, inputBits } = this.#shape;
    this.#startLevel = 4 - Math.ceil((inputBits - granule) / (granule - 3));
    this.root = this.#newTable();
  }

  get tag(): number {
    return this.asid;
  }
  /** CD.T0SZ and CD.TG0. */
  get t0sz(): number {
    return 64 - this.#shape.inputBits;
  }
  get tg0(): number {
    return this.#shape.tg0;
  }
  /** Bytes of a page. */
  get granuleBytes(): bigint {
    return 1n << BigInt(this.#shape.granule);
  }

  /** Maps [iova, +length) to [gpa, +length). Overwrites what was mapped. Throws RangeError for what the format has not. */
  map(iova: bigint, gpa: bigint, length: bigint, options: Stage1MapOptions = {}): void {
    const { read = true, write = true, pageBytes = this.granuleBytes } = options;
    const level = this.#leafLevel(pageBytes);
    if ((iova | gpa | length) % pageBytes !== 0n)
      throw new RangeError(`iova, gpa and length must be multiples of the page size, ${pageBytes} bytes here`);
    if (write && !read) throw new RangeError("VMSAv8-64 has no page that can be written and not read");
    if (iova < 0n || iova + length > 1n << BigInt(this.#shape.inputBits))
      throw new RangeError(`${this.mode} has addresses of ${this.#shape.inputBits} bits`);
    // Nothing allowed is nothing mapped.
    const attributes = read ? attributesOf(options) | VALID | (level === 3 ? TABLE_OR_PAGE : 0n) : 0n;
    for (let at = 0n; at < length; at += pageBytes)
      this.#ram.write64(this.#entryAddress(iova + at, level, true)!, read ? (gpa + at) | attributes : 0n);
  }

  /** Clears the leaves of [iova, +length); tables stay. What hardware has cached stays until it is invalidated. */
  unmap(iova: bigint, length: bigint): void {
    for (let at = 0n; at < length; ) {
      const leaf = this.leaf(iova + at);
      if (leaf !== null) this.#ram.write64(leaf.address, 0n);
      at += leaf?.pageBytes ?? this.granuleBytes;
    }
  }

  /** Guest-physical address, value and reach of the leaf descriptor for an IOVA; null if there is none. */
  leaf(iova: bigint): Leaf | null {
    for (let level = this.#startLevel; level <= 3; level++) {
      const address = this.#entryAddress(iova, level, false);
      if (address === null) return null;
      const entry = this.#ram.read64(address);
      if ((entry & VALID) === 0n) return null;
      if (level === 3 || (entry & TABLE_OR_PAGE) === 0n)
        return { address, entry, pageBytes: 1n << this.#levelShift(level) };
    }
    return null;
  }

  /** Writes a raw descriptor in place of the leaf for `iova` (to build what a broken guest would). */
  writeLeaf(iova: bigint, entry: bigint, pageBytes = this.granuleBytes): void {
    this.#ram.write64(this.#entryAddress(iova, this.#leafLevel(pageBytes), true)!, entry);
  }

  #levelShift(level: number): bigint {
    const { granule } = this.#shape;
    return BigInt(granule + (granule - 3) * (3 - level));
  }

  /** Pages at level 3, blocks at 2, and with 4K granules at 1. */
  #leafLevel(pageBytes: bigint): number {
    const first = Math.max(this.#startLevel, this.#shape.granule === 12 ? 1 : 2);
    for (let level = first; level <= 3; level++) if (pageBytes === 1n << this.#levelShift(level)) return level;
    throw new RangeError(`${this.mode} has no pages of ${pageBytes} bytes`);
  }

  #newTable(): bigint {
    return this.#ram.allocate(1 << (this.#shape.granule - 12), this.granuleBytes);
  }

  #entryAddress(iova: bigint, leafLevel: number, create: boolean): bigint | null {
    const indexes = 1n << BigInt(this.#shape.granule - 3);
    let table = this.root;
    for (let level = this.#startLevel; ; level++) {
      const address = table + ((iova >> this.#levelShift(level)) % indexes) * 8n;
      if (level === leafLevel) return address;
      let entry = this.#ram.read64(address);
      if ((entry & 3n) !== 3n) {
        if (!create) return null;
        entry = this.#newTable() | VALID | TABLE_OR_PAGE;
        this.#ram.write64(address, entry);
      }
      table = entry & OUTPUT;
    }
  }
}

/** As Linux's io-pgtable has them for a device: unprivileged, not global, no execution unless asked for. */
function attributesOf(options: Stage1MapOptions): bigint {
  const { write = true, execute = false, user = true, global = false } = options;
  const { accessed = true, dirty = true, contiguous = false } = options;
  const readOnly = !write || !dirty ? READ_ONLY : 0n;
  return (
    NORMAL |
    INNER_SHAREABLE |
    readOnly |
    (user ? EL0 : 0n) |
    (accessed ? AF : 0n) |
    (global ? 0n : NG) |
    (write && !dirty ? DBM : 0n) |
    (contiguous ? CONTIGUOUS : 0n) |
    (execute ? 0n : PXN | UXN)
  );
}

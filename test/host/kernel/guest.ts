// A guest's half of nested translation, as a test writes it into guest RAM: Sv39 page tables in guest-physical space.

export const RAM_GPA = 0x8000_0000n;

const V = 1n;
/** V, R, W, U, A, D. */
const LEAF = 0xd7n;
const PAGE = 4096n;

/** Guest RAM as the guest sees it, with a page allocator. */
export class GuestRam {
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #next = 0x10_000;

  constructor(length = 1 << 20) {
    this.buffer = new ArrayBuffer(length);
    this.bytes = new Uint8Array(this.buffer);
    this.#view = new DataView(this.buffer);
  }

  /** A fresh page: its guest-physical address. */
  page(): bigint {
    const gpa = RAM_GPA + BigInt(this.#next);
    this.#next += 4096;
    return gpa;
  }

  at(gpa: bigint, length = 4096): Uint8Array {
    const offset = Number(gpa - RAM_GPA);
    return this.bytes.subarray(offset, offset + length);
  }

  load(gpa: bigint): bigint {
    return this.#view.getBigUint64(Number(gpa - RAM_GPA), true);
  }

  store(gpa: bigint, value: bigint): void {
    this.#view.setBigUint64(Number(gpa - RAM_GPA), value, true);
  }
}

/** A first stage in Sv39 (privileged specification, "Sv39"). */
export class GuestSv39 {
  readonly #ram: GuestRam;
  readonly root: bigint;

  constructor(ram: GuestRam) {
    this.#ram = ram;
    this.root = ram.page();
  }

  /** fsc word: MODE Sv39 (8) and the root's page-frame number. */
  get fsc(): bigint {
    return (8n << 60n) | (this.root >> 12n);
  }

  /** Address of the leaf entry of `iova`, making tables on the way. */
  entry(iova: bigint): bigint {
    let table = this.root;
    for (let level = 2n; level > 0n; level--) {
      const at = table + ((iova >> (12n + 9n * level)) & 511n) * 8n;
      let entry = this.#ram.load(at);
      if ((entry & V) === 0n) {
        entry = ((this.#ram.page() >> 12n) << 10n) | V;
        this.#ram.store(at, entry);
      }
      table = ((entry >> 10n) & 0xfff_ffff_ffffn) << 12n;
    }
    return table + ((iova >> 12n) & 511n) * 8n;
  }

  /** Maps one page with V, R, W, U, A, D. */
  map(iova: bigint, gpa: bigint): void {
    this.#ram.store(this.entry(iova), ((gpa / PAGE) << 10n) | LEAF);
  }

  unmap(iova: bigint): void {
    this.#ram.store(this.entry(iova), 0n);
  }
}

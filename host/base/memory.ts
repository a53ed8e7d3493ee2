// Physical memory as banks of windows, and the port through which walkers, queues and DMA reach it.
//
// A bank is a window (offset, length) of an ArrayBuffer or a WebAssembly memory's buffer at a physical base: a VM's RAM can be
// part of a larger WebAssembly memory whose rest the vCPU core keeps to itself. Between banks there may be pages that are
// devices (interrupt files): a store there is a message, not memory. The same class is the host's physical memory (space
// "hpa") and a VM's guest-physical memory (space "gpa").
//
// Accesses return a status and never throw. Loads leave their value in `lo` and `hi` (unsigned 32-bit halves) of the port, so
// that nothing is allocated. Memory is little-endian; byte order other than that is the caller's.

/** The access was done. */
export const ACCESS_OK = 0;
/** Nothing answers at this address, or an access fault was injected there. */
export const ACCESS_FAULT = 1;
/** The memory answered with uncorrectable data (poison); nothing was returned. Only by injection. */
export const DATA_CORRUPTION = 2;
/** ACCESS_OK | ACCESS_FAULT | DATA_CORRUPTION. */
export type AccessStatus = 0 | 1 | 2;

/** What walkers, queues and DMA need of a memory. P is the branded page-frame number of its space. */
export interface MemoryPort<P extends number> {
  /** Low and high half of the last load64 / load32 / compareExchange64, unsigned. */
  lo: number;
  hi: number;
  /** Naturally aligned doubleword at pfn << 12 | offset into lo, hi. */
  load64(pfn: P, offset: number): AccessStatus;
  load32(pfn: P, offset: number): AccessStatus;
  store64(pfn: P, offset: number, lo: number, hi: number): AccessStatus;
  store32(pfn: P, offset: number, value: number): AccessStatus;
  /** Atomic compare-and-exchange; what was there before is left in lo, hi (it succeeded if that equals the expectation). */
  compareExchange64(
    pfn: P,
    offset: number,
    expectedLo: number,
    expectedHi: number,
    lo: number,
    hi: number,
  ): AccessStatus;
  /** Copies `length` bytes out of (into) physically contiguous memory; may cross pages, not banks. All or nothing. */
  read(pfn: P, offset: number, into: Uint8Array, at: number, length: number): AccessStatus;
  write(pfn: P, offset: number, from: Uint8Array, at: number, length: number): AccessStatus;
}

/**
 * A run of memory that may be read without asking the port, until the port says that windows have changed: frame basePfn + n begins
 * at signed[n * 1024].
 */
export interface MemoryWindow {
  readonly basePfn: number;
  readonly pages: number;
  readonly signed: Int32Array;
}

/** A memory port that shows its memory directly: what walkers use where they find it. */
export interface WindowedMemory {
  /** The run of memory around a frame; null if there is none or every access must go through the port. */
  windowAt(pfn: number): MemoryWindow | null;
  /** Calls `forget` whenever a window that was handed out may no longer be used. */
  watchWindows(forget: () => void): void;
}

/** A page that is a device: it sees aligned 4-byte stores (an interrupt file's doorbell) and reads as zero. */
export interface StoreTarget {
  store32(offset: number, value: number): void;
}

/** Memory that lies elsewhere (in another process): it has no window, every access copies. False: it cannot be reached. */
export interface RemoteMemory {
  /** `byte`: from the beginning of its bank. */
  read(byte: number, into: Uint8Array): boolean;
  write(byte: number, from: Uint8Array): boolean;
}

interface RemoteBank {
  readonly basePfn: number;
  readonly pages: number;
  readonly memory: RemoteMemory;
}

export interface MemoryBank {
  /** First page-frame number. */
  readonly basePfn: number;
  readonly pages: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  /** The same words, signed: what walkers read (a signed 32-bit value is never boxed). */
  readonly signed: Int32Array;
}

/** Faults injected per doubleword address (pfn * 512 + offset / 8), for tests and `--inject`. */
export interface MemoryFaults {
  at(pfn: number, offset: number, length: number, store: boolean): AccessStatus;
}

// Not state: who owns a bank's buffer saves it; banks (remote ones, too), pages that are devices, watchers and faults are wiring, the rest is the last access's.
export class PhysicalMemory<P extends number> implements MemoryPort<P>, WindowedMemory {
  lo = 0;
  hi = 0;
  /** Told of every store when set (dirty logging, decoded-code invalidation). */
  onStore: ((pfn: number, pages: number) => void) | null = null;
  #faults: MemoryFaults | null = null;
  readonly #watchers: (() => void)[] = [];
  readonly #banks: MemoryBank[] = [];
  readonly #targets = new Map<number, StoreTarget>();
  /** In ascending order. */
  readonly #remotes: RemoteBank[] = [];
  readonly #eight = new Uint8Array(8);
  readonly #eightView = new DataView(this.#eight.buffer);
  readonly #four = this.#eight.subarray(0, 4);
  // The bank of the last access: nearly all accesses stay in one bank.
  #base = 0;
  #pages = 0;
  #words: Uint32Array = new Uint32Array(0);
  #bytes: Uint8Array = new Uint8Array(0);

  /** Consulted on every access when set. */
  get faults(): MemoryFaults | null {
    return this.#faults;
  }

  set faults(faults: MemoryFaults | null) {
    this.#faults = faults;
    for (const forget of this.#watchers) forget();
  }

  windowAt(pfn: number): MemoryWindow | null {
    if (this.#faults !== null) return null;
    for (const bank of this.#banks) if (pfn >= bank.basePfn && pfn - bank.basePfn < bank.pages) return bank;
    return null;
  }

  watchWindows(forget: () => void): void {
    this.#watchers.push(forget);
  }

  /** Banks in ascending order. */
  get banks(): readonly MemoryBank[] {
    return this.#banks;
  }

  /**
   * Adds a bank at page-frame number `base`: `length` bytes of `buffer` from `offset`, both multiples of 4096.
   * Throws RangeError if it overlaps a bank or is misaligned (a bug of the caller).
   */
  addBank(base: P, buffer: ArrayBufferLike, offset = 0, length = buffer.byteLength - offset): MemoryBank {
    const pages = length / 4096;
    if (!Number.isInteger(pages) || pages === 0 || offset % 4096 !== 0)
      throw new RangeError("a memory bank must be whole pages");
    for (const bank of this.#banks) {
      if (base < bank.basePfn + bank.pages && bank.basePfn < base + pages) {
        throw new RangeError(`memory bank at page frame ${base} overlaps the one at ${bank.basePfn}`);
      }
    }
    const bank: MemoryBank = {
      basePfn: base,
      pages,
      bytes: new Uint8Array(buffer, offset, length),
      words: new Uint32Array(buffer, offset, length / 4),
      signed: new Int32Array(buffer, offset, length / 4),
    };
    this.#banks.push(bank);
    this.#banks.sort((a, b) => a.basePfn - b.basePfn);
    this.#pages = 0;
    for (const forget of this.#watchers) forget();
    return bank;
  }

  removeBank(base: P): void {
    const index = this.#banks.findIndex((bank) => bank.basePfn === base);
    if (index >= 0) this.#banks.splice(index, 1);
    this.#pages = 0;
    for (const forget of this.#watchers) forget();
  }

  /** Adds memory that lies elsewhere. It must not overlap a bank. */
  addRemote(base: P, pages: number, memory: RemoteMemory): void {
    this.#remotes.splice(this.#remoteAfter(base), 0, { basePfn: base, pages, memory });
  }

  removeRemote(base: P): void {
    const index = this.#remoteAfter(base) - 1;
    if (this.#remotes[index]?.basePfn === base) this.#remotes.splice(index, 1);
  }

  /** Number of remote banks that begin at `pfn` or before it. */
  #remoteAfter(pfn: number): number {
    let low = 0;
    let high = this.#remotes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#remotes[middle]!.basePfn <= pfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #remoteAt(pfn: number): RemoteBank | null {
    const bank = this.#remotes[this.#remoteAfter(pfn) - 1];
    return bank !== undefined && pfn - bank.basePfn < bank.pages ? bank : null;
  }

  /** What is neither a bank nor a device: remote memory, or nothing. */
  #elsewhere(pfn: number, offset: number, bytes: Uint8Array, store: boolean): AccessStatus {
    if (this.#remotes.length === 0) return ACCESS_FAULT;
    const bank = this.#remoteAt(pfn);
    if (bank === null) return ACCESS_FAULT;
    const at = (pfn - bank.basePfn) * 4096 + offset;
    if (at + bytes.length > bank.pages * 4096) return ACCESS_FAULT;
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, bytes.length, store);
      if (status !== ACCESS_OK) return status;
    }
    return (store ? bank.memory.write(at, bytes) : bank.memory.read(at, bytes)) ? ACCESS_OK : ACCESS_FAULT;
  }

  /** Makes one page a device. It must lie outside every bank. */
  addStoreTarget(pfn: P, target: StoreTarget): void {
    this.#targets.set(pfn, target);
  }

  removeStoreTarget(pfn: P): void {
    this.#targets.delete(pfn);
  }

  /** True if page `pfn` is a device. */
  isStoreTarget(pfn: P): boolean {
    return this.#targets.has(pfn);
  }

  /** True if `pages` page frames from `pfn` are memory of one bank. */
  contains(pfn: P, pages = 1): boolean {
    if (this.#select(pfn)) return pfn - this.#base + pages <= this.#pages;
    const bank = this.#remoteAt(pfn);
    return bank !== null && pfn - bank.basePfn + pages <= bank.pages;
  }

  #select(pfn: number): boolean {
    if (pfn >= this.#base && pfn - this.#base < this.#pages) return true;
    for (const bank of this.#banks) {
      if (pfn >= bank.basePfn && pfn - bank.basePfn < bank.pages) {
        this.#base = bank.basePfn;
        this.#pages = bank.pages;
        this.#words = bank.words;
        this.#bytes = bank.bytes;
        return true;
      }
    }
    return false;
  }

  load64(pfn: P, offset: number): AccessStatus {
    const relative = pfn - this.#base;
    if (!(relative >= 0 && relative < this.#pages) && !this.#select(pfn)) {
      this.lo = this.hi = 0;
      if (this.#targets.has(pfn)) return ACCESS_OK;
      const status = this.#elsewhere(pfn, offset, this.#eight, false);
      if (status !== ACCESS_OK) return status;
      this.lo = this.#eightView.getUint32(0, true);
      this.hi = this.#eightView.getUint32(4, true);
      return ACCESS_OK;
    }
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, 8, false);
      if (status !== ACCESS_OK) return status;
    }
    const index = (pfn - this.#base) * 1024 + (offset >>> 2);
    const words = this.#words;
    this.lo = words[index]!;
    this.hi = words[index + 1]!;
    return ACCESS_OK;
  }

  load32(pfn: P, offset: number): AccessStatus {
    this.hi = 0;
    if (!this.#select(pfn)) {
      this.lo = 0;
      if (this.#targets.has(pfn)) return ACCESS_OK;
      const status = this.#elsewhere(pfn, offset, this.#four, false);
      if (status === ACCESS_OK) this.lo = this.#eightView.getUint32(0, true);
      return status;
    }
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, 4, false);
      if (status !== ACCESS_OK) return status;
    }
    this.lo = this.#words[(pfn - this.#base) * 1024 + (offset >>> 2)]!;
    return ACCESS_OK;
  }

  store64(pfn: P, offset: number, lo: number, hi: number): AccessStatus {
    if (!this.#select(pfn)) {
      if (!this.#targets.has(pfn)) {
        this.#eightView.setUint32(0, lo, true);
        this.#eightView.setUint32(4, hi, true);
        return this.#elsewhere(pfn, offset, this.#eight, true);
      }
      const status = this.store32(pfn, offset, lo);
      return status === ACCESS_OK ? this.store32(pfn, offset + 4, hi) : status;
    }
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, 8, true);
      if (status !== ACCESS_OK) return status;
    }
    const index = (pfn - this.#base) * 1024 + (offset >>> 2);
    this.#words[index] = lo;
    this.#words[index + 1] = hi;
    if (this.onStore !== null) this.onStore(pfn, 1);
    return ACCESS_OK;
  }

  /** An entry of a queue: the two doublewords at a multiple of 16, lowest word first. What refuses one of them may have taken the other. */
  storeEntry(pfn: P, offset: number, w0: number, w1: number, w2: number, w3: number): AccessStatus {
    if (!this.#select(pfn) || this.#faults !== null) {
      const status = this.store64(pfn, offset, w0 >>> 0, w1 >>> 0);
      return status === ACCESS_OK ? this.store64(pfn, offset + 8, w2 >>> 0, w3 >>> 0) : status;
    }
    const index = (pfn - this.#base) * 1024 + (offset >>> 2);
    const words = this.#words;
    words[index] = w0;
    words[index + 1] = w1;
    words[index + 2] = w2;
    words[index + 3] = w3;
    if (this.onStore !== null) this.onStore(pfn, 1);
    return ACCESS_OK;
  }

  store32(pfn: P, offset: number, value: number): AccessStatus {
    if (!this.#select(pfn)) {
      const target = this.#targets.get(pfn);
      if (target === undefined) {
        this.#eightView.setUint32(0, value, true);
        return this.#elsewhere(pfn, offset, this.#four, true);
      }
      target.store32(offset, value >>> 0);
      return ACCESS_OK;
    }
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, 4, true);
      if (status !== ACCESS_OK) return status;
    }
    this.#words[(pfn - this.#base) * 1024 + (offset >>> 2)] = value;
    if (this.onStore !== null) this.onStore(pfn, 1);
    return ACCESS_OK;
  }

  compareExchange64(
    pfn: P,
    offset: number,
    expectedLo: number,
    expectedHi: number,
    lo: number,
    hi: number,
  ): AccessStatus {
    const status = this.load64(pfn, offset);
    if (status !== ACCESS_OK) return status;
    const oldLo = this.lo;
    const oldHi = this.hi;
    if (oldLo === expectedLo >>> 0 && oldHi === expectedHi >>> 0) {
      const stored = this.store64(pfn, offset, lo, hi);
      this.lo = oldLo;
      this.hi = oldHi;
      return stored;
    }
    return ACCESS_OK;
  }

  read(pfn: P, offset: number, into: Uint8Array, at: number, length: number): AccessStatus {
    if (!this.#select(pfn)) {
      if (!this.#targets.has(pfn)) return this.#elsewhere(pfn, offset, into.subarray(at, at + length), false);
      into.fill(0, at, at + length);
      return ACCESS_OK;
    }
    const start = (pfn - this.#base) * 4096 + offset;
    if (start + length > this.#bytes.length) return ACCESS_FAULT;
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, length, false);
      if (status !== ACCESS_OK) return status;
    }
    if (length <= 64) {
      for (let i = 0; i < length; i++) into[at + i] = this.#bytes[start + i]!;
    } else {
      into.set(this.#bytes.subarray(start, start + length), at);
    }
    return ACCESS_OK;
  }

  write(pfn: P, offset: number, from: Uint8Array, at: number, length: number): AccessStatus {
    if (!this.#select(pfn)) {
      const target = this.#targets.get(pfn);
      if (target === undefined) return this.#elsewhere(pfn, offset, from.subarray(at, at + length), true);
      for (let i = 0; i + 4 <= length; i += 4) {
        const value = from[at + i]! | (from[at + i + 1]! << 8) | (from[at + i + 2]! << 16) | (from[at + i + 3]! << 24);
        target.store32(offset + i, value >>> 0);
      }
      return ACCESS_OK;
    }
    const start = (pfn - this.#base) * 4096 + offset;
    if (start + length > this.#bytes.length) return ACCESS_FAULT;
    if (this.#faults !== null) {
      const status = this.#faults.at(pfn, offset, length, true);
      if (status !== ACCESS_OK) return status;
    }
    if (length <= 64) {
      for (let i = 0; i < length; i++) this.#bytes[start + i] = from[at + i]!;
    } else {
      this.#bytes.set(length === from.length ? from : from.subarray(at, at + length), start);
    }
    if (this.onStore !== null) this.onStore(pfn, ((offset + length + 4095) / 4096) | 0);
    return ACCESS_OK;
  }
}

// Ways to a device's registers: pread and pwrite on the VFIO region (always there), and what the VMM lays over a BAR: the MSI-X table
// and pending bits, which the guest must not write in the device (PCIe 6.0 §7.7.2).

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";
import type { KernelCalls } from "./kernel-calls.ts";

/** A region by system calls: one pread or pwrite an access. A refused read gives all ones, as a bus would. */
export class RegionAccess implements MmioPort {
  high = 0;
  readonly #calls: KernelCalls;
  readonly #fd: number;
  readonly #offset: bigint;

  constructor(calls: KernelCalls, fd: number, offset: bigint) {
    this.#calls = calls;
    this.#fd = fd;
    this.#offset = offset;
  }

  mmioRead(offset: number, size: AccessSize): number {
    const bytes = this.#calls.read(this.#fd, size, this.#offset + BigInt(offset));
    if (typeof bytes === "number" || bytes.length < size) {
      this.high = 0xffffffff;
      return size >= 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    }
    let low = 0;
    for (let i = Math.min(size, 4) - 1; i >= 0; i--) low = low * 256 + bytes[i]!;
    if (size === 8) this.high = new DataView(bytes.buffer, bytes.byteOffset, 8).getUint32(4, true);
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) bytes[i] = i < 4 ? lo >>> (8 * i) : hi >>> (8 * (i - 4));
    this.#calls.write(this.#fd, bytes, this.#offset + BigInt(offset));
  }
}

interface Overlay {
  readonly start: number;
  readonly end: number;
  readonly port: MmioPort;
}

/** A BAR with parts of it kept by the VMM. `touched` is called after every access that reached the device. */
export class OverlaidRegisters implements MmioPort {
  high = 0;
  readonly #device: MmioPort;
  readonly #touched: () => void;
  readonly #overlays: Overlay[] = []; // not state: wiring

  constructor(device: MmioPort, touched: () => void) {
    this.#device = device;
    this.#touched = touched;
  }

  overlay(start: number, length: number, port: MmioPort): void {
    this.#overlays.push({ start, end: start + length, port });
  }

  mmioRead(offset: number, size: AccessSize): number {
    const overlay = this.#find(offset, size);
    const port = overlay === null ? this.#device : overlay.port;
    const low = port.mmioRead(overlay === null ? offset : offset - overlay.start, size);
    if (size === 8) this.high = port.high;
    if (overlay === null) this.#touched();
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    const overlay = this.#find(offset, size);
    if (overlay !== null) {
      overlay.port.mmioWrite(offset - overlay.start, size, lo, hi);
      return;
    }
    this.#device.mmioWrite(offset, size, lo, hi);
    this.#touched();
  }

  #find(offset: number, size: number): Overlay | null {
    for (let i = 0; i < this.#overlays.length; i++) {
      const overlay = this.#overlays[i]!;
      if (offset < overlay.end && offset + size > overlay.start) return overlay;
    }
    return null;
  }
}

const MASKED = 1;

/** The guest's MSI-X table and pending bits. */
export class MsixTable implements Stateful {
  readonly vectors: number;
  onUnmasked: (vector: number) => void = () => {}; // not state: wiring
  readonly #words: Uint32Array;
  readonly #pendingWords: Uint32Array;

  constructor(vectors: number) {
    this.vectors = vectors;
    this.#words = new Uint32Array(4 * vectors);
    this.#pendingWords = new Uint32Array(Math.ceil(vectors / 64) * 2);
    this.reset();
  }

  reset(): void {
    this.#words.fill(0);
    this.#pendingWords.fill(0);
    for (let vector = 0; vector < this.vectors; vector++) this.#words[4 * vector + 3] = MASKED;
  }

  masked(vector: number): boolean {
    return (this.#words[4 * vector + 3]! & MASKED) !== 0;
  }
  addressLow(vector: number): number {
    return this.#words[4 * vector]!;
  }
  addressHigh(vector: number): number {
    return this.#words[4 * vector + 1]!;
  }
  data(vector: number): number {
    return this.#words[4 * vector + 2]!;
  }

  setPending(vector: number): void {
    this.#pendingWords[vector >> 5] = this.#pendingWords[vector >> 5]! | (1 << (vector & 31));
  }

  clearPending(vector: number): void {
    this.#pendingWords[vector >> 5] = this.#pendingWords[vector >> 5]! & ~(1 << (vector & 31));
  }

  /** Calls for every vector that is pending and not masked. */
  eachReady(visit: (vector: number) => void): void {
    for (let vector = 0; vector < this.vectors; vector++) {
      if (((this.#pendingWords[vector >> 5]! >>> (vector & 31)) & 1) === 1 && !this.masked(vector)) visit(vector);
    }
  }

  /** The table as registers; only 4- and 8-byte accesses mean anything (§6.1.4.3). */
  readonly table: MmioPort = {
    high: 0,
    mmioRead: (offset, size) => {
      this.table.high = size === 8 ? (this.#words[(offset >>> 2) + 1] ?? 0) : 0;
      return size >= 4 ? (this.#words[offset >>> 2] ?? 0) : 0;
    },
    mmioWrite: (offset, size, lo, hi) => {
      if (size < 4) return;
      this.#store(offset >>> 2, lo);
      if (size === 8) this.#store((offset >>> 2) + 1, hi);
    },
  };

  readonly pending: MmioPort = {
    high: 0,
    mmioRead: (offset, size) => {
      this.pending.high = size === 8 ? (this.#pendingWords[(offset >>> 2) + 1] ?? 0) : 0;
      return size >= 4 ? (this.#pendingWords[offset >>> 2] ?? 0) : 0;
    },
    mmioWrite: () => {},
  };

  #store(word: number, value: number): void {
    if (word >= this.#words.length) return;
    const field = word & 3;
    const wasMasked = this.masked(word >>> 2);
    this.#words[word] = field === 3 ? value & MASKED : field === 0 ? value & ~3 : value;
    if (field !== 3 || !wasMasked || (value & MASKED) !== 0) return;
    const vector = word >>> 2;
    if (((this.#pendingWords[vector >> 5]! >>> (vector & 31)) & 1) === 1) this.onUnmasked(vector);
  }

  saveState(): StateRecord {
    return { words: bytesOf(this.#words), pending: bytesOf(this.#pendingWords) };
  }

  restoreState(state: StateReader): void {
    state.memory("words", this.#words);
    state.memory("pending", this.#pendingWords);
  }
}

// The 4096 bytes of a function's configuration space (PCIe 6.0 §7.2) as a table: every byte has a reset value, a mask of bits
// that software may write and a mask of bits that writing 1 clears. What nobody declares reads zero and cannot be written
// (§7.4: reserved). Header and capabilities declare their registers once; a write is then three masks a byte, whatever its size.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../base/state.ts";

export const CONFIG_BYTES = 4096;

export interface ConfigRegister {
  /** Value after reset. */
  readonly value?: number;
  /** Bits that a write changes. */
  readonly writable?: number;
  /** Bits that writing 1 clears (RW1C). */
  readonly oneToClear?: number;
}

export class ConfigSpace implements Stateful {
  readonly bytes = new Uint8Array(CONFIG_BYTES);
  // not state, to the blank line: what was declared.
  readonly #resetValues = new Uint8Array(CONFIG_BYTES);
  readonly #writable = new Uint8Array(CONFIG_BYTES);
  readonly #oneToClear = new Uint8Array(CONFIG_BYTES);

  /** Declares one register of 1, 2 or 4 bytes. */
  declare(offset: number, size: 1 | 2 | 4, register: ConfigRegister): void {
    for (let i = 0; i < size; i++) {
      const shift = 8 * i;
      this.bytes[offset + i] = this.#resetValues[offset + i] = (register.value ?? 0) >>> shift;
      this.#writable[offset + i] = (register.writable ?? 0) >>> shift;
      this.#oneToClear[offset + i] = (register.oneToClear ?? 0) >>> shift;
    }
  }

  /** Every register at its reset value. */
  reset(): void {
    this.bytes.set(this.#resetValues);
  }

  get8(offset: number): number {
    return this.bytes[offset]!;
  }

  get16(offset: number): number {
    return this.bytes[offset]! | (this.bytes[offset + 1]! << 8);
  }

  get32(offset: number): number {
    return (this.get16(offset) | (this.get16(offset + 2) << 16)) >>> 0;
  }

  /** The device's own side: stores whatever the masks say. */
  set16(offset: number, value: number): void {
    this.bytes[offset] = value;
    this.bytes[offset + 1] = value >>> 8;
  }

  set32(offset: number, value: number): void {
    this.set16(offset, value);
    this.set16(offset + 2, value >>> 16);
  }

  /** True for an access that a bus may make: inside, naturally aligned. */
  static accepts(offset: number, size: number): boolean {
    return (
      Number.isInteger(offset) &&
      offset >= 0 &&
      offset + size <= CONFIG_BYTES &&
      (offset & (size - 1)) === 0 &&
      size <= 4
    );
  }

  /** Software's read, unsigned. */
  read(offset: number, size: 1 | 2 | 4): number {
    if (size === 1) return this.get8(offset);
    return size === 2 ? this.get16(offset) : this.get32(offset);
  }

  /** Software's write, through the masks. */
  write(offset: number, size: 1 | 2 | 4, value: number): void {
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const mask = this.#writable[at]!;
      this.bytes[at] = ((this.bytes[at]! & ~mask) | (byte & mask)) & ~(byte & this.#oneToClear[at]!);
    }
  }

  saveState(): StateRecord {
    return { bytes: bytesOf(this.bytes) };
  }

  restoreState(state: StateReader): void {
    state.memory("bytes", this.bytes);
  }
}

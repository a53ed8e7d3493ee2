// A queue the IOMMU writes and the guest reads: what the fault queue and the page-request queue share (§6.6, 6.9–6.17).
//
// en of its control register turns it on, emptied; a full queue sets the overflow bit, memory that refuses an entry the memory-fault
// bit; an entry written, or one of those bits set, raises its interrupt if ie.

import {
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  CSR_OVERFLOW,
} from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Interrupts } from "./interrupts.ts";
import type { RegisterFile } from "./registers.ts";
import { Ring } from "./ring.ts";

/** Where a queue's registers stand (word indexes), the size of its entries, and its bit of ipsr. */
export interface WrittenQueueLayout {
  readonly base: number;
  readonly head: number;
  readonly tail: number;
  readonly control: number;
  readonly entryLog2: number;
  readonly interrupt: number;
}

export class WrittenQueue implements Stateful {
  readonly ring: Ring;
  readonly #registers: RegisterFile;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #interrupts: Interrupts;
  readonly #control: number;
  readonly #interrupt: number;
  readonly #entry: Uint8Array; // not state: the entry on its way
  readonly #words: BigUint64Array; // not state: the same

  constructor(registers: RegisterFile, memory: MemoryPort<GpaPfn>, interrupts: Interrupts, layout: WrittenQueueLayout) {
    this.#registers = registers;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#control = layout.control;
    this.#interrupt = layout.interrupt;
    this.#entry = new Uint8Array(1 << layout.entryLog2);
    this.#words = new BigUint64Array(this.#entry.buffer);
    this.ring = new Ring(registers, layout, layout.entryLog2);
  }

  /** The control register. */
  protected get csr(): number {
    return this.#registers.words[this.#control]!;
  }

  /** A write of the control register's en, ie and RW1C bits has been stored: acts on en. `previous` is the register before. */
  controlWritten(previous: number): void {
    const now = this.csr;
    if ((now & CSR_ENABLE) !== 0 && (previous & CSR_ENABLE) === 0) {
      this.ring.tail = 0;
      this.#registers.words[this.#control] = ((now & ~(CSR_MEMORY_FAULT | CSR_OVERFLOW)) | CSR_ON) >>> 0;
    } else if ((now & CSR_ENABLE) === 0) {
      this.#registers.words[this.#control] = (now & ~CSR_ON) >>> 0;
    }
    this.evaluate();
  }

  /** Raises the interrupt if an error bit and ie are set. */
  evaluate(): void {
    if ((this.csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) !== 0) this.announce();
  }

  /** Stores an entry at the tail and moves it. False: memory refused it, nothing has changed. */
  protected append(words: ArrayLike<bigint>): boolean {
    const { ring } = this;
    const { tail } = ring;
    this.#words.set(words);
    ring.locate(tail);
    if (this.#memory.write(ring.pfn, ring.offset, this.#entry, 0, this.#entry.length) !== ACCESS_OK) return false;
    ring.tail = (tail + 1) & ring.mask;
    return true;
  }

  /** Raises the interrupt if ie is set. */
  protected announce(): void {
    if ((this.csr & CSR_INTERRUPT_ENABLE) !== 0) this.#interrupts.raise(this.#interrupt);
  }

  /** Sets an error bit. */
  protected fail(bit: number): void {
    this.#registers.words[this.#control] = this.csr | bit;
    this.evaluate();
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(_state: StateReader): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["ring", this.ring];
  }
}

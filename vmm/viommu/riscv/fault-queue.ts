// The guest's fault queue (§4.2, 6.9–6.11, 6.16): the vIOMMU writes 32-byte records at fqt, the guest reads up to it and moves fqh.
//
// A record that finds the queue full sets fqof, one that cannot be written sets fqmf; until the guest clears the bit all records
// are discarded. A record that was written sets ipsr.fip if fie.

import {
  describeFaultRecord,
  encodeFaultRecord,
  FAULT_RECORD_BYTES,
  type FaultRecord,
} from "../../../host/arch/riscv/fault-records.ts";
import {
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  CSR_OVERFLOW,
} from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { FIP, type Interrupts } from "./interrupts.ts";
import { type RegisterFile, WORD } from "./registers.ts";
import { Ring } from "./ring.ts";

export class FaultQueue {
  readonly ring: Ring;
  /** Records written and discarded since construction. */
  written = 0;
  discarded = 0;
  readonly #registers: RegisterFile;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #interrupts: Interrupts;
  readonly #trace: Trace;
  readonly #name: string;
  readonly #entry = new Uint8Array(FAULT_RECORD_BYTES);
  readonly #words = new BigUint64Array(this.#entry.buffer);

  constructor(registers: RegisterFile, memory: MemoryPort<GpaPfn>, interrupts: Interrupts, trace: Trace, name: string) {
    this.#registers = registers;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#trace = trace;
    this.#name = name;
    this.ring = new Ring(registers, { base: WORD.FQB, head: WORD.FQH, tail: WORD.FQT }, 5);
  }

  /** A write of fqcsr's en, ie and RW1C bits has been stored: acts on en. `previous` is the register before. */
  controlWritten(previous: number): void {
    const words = this.#registers.words;
    const now = words[WORD.FQCSR]!;
    if ((now & CSR_ENABLE) !== 0 && (previous & CSR_ENABLE) === 0) {
      words[WORD.FQT] = 0;
      words[WORD.FQCSR] = ((now & ~(CSR_MEMORY_FAULT | CSR_OVERFLOW)) | CSR_ON) >>> 0;
    } else if ((now & CSR_ENABLE) === 0) {
      words[WORD.FQCSR] = (now & ~CSR_ON) >>> 0;
    }
    this.evaluate();
  }

  /** Raises fip if an error bit and fie are set. */
  evaluate(): void {
    const csr = this.#registers.words[WORD.FQCSR]!;
    if ((csr & CSR_INTERRUPT_ENABLE) !== 0 && (csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) !== 0)
      this.#interrupts.raise(FIP);
  }

  /** Writes a record, or discards it as the specification says. */
  report(record: FaultRecord): void {
    const words = this.#registers.words;
    const csr = words[WORD.FQCSR]!;
    if ((csr & CSR_ON) === 0) {
      this.#discard(record, "fault queue off");
    } else if ((csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) !== 0) {
      this.#discard(record, (csr & CSR_OVERFLOW) !== 0 ? "fqof is set" : "fqmf is set");
    } else if (this.ring.full) {
      this.#discard(record, "fault queue full");
      this.#fail(CSR_OVERFLOW);
    } else {
      this.#write(record);
    }
  }

  /** The host lost records: the guest sees what it sees when its own queue overflowed. */
  lost(): void {
    const csr = this.#registers.words[WORD.FQCSR]!;
    if ((csr & CSR_ON) !== 0 && (csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) === 0) this.#fail(CSR_OVERFLOW);
  }

  #write(record: FaultRecord): void {
    const { ring } = this;
    this.#words.set(encodeFaultRecord(record));
    const tail = ring.tail;
    ring.locate(tail);
    if (this.#memory.write(ring.pfn, ring.offset, this.#entry, 0, FAULT_RECORD_BYTES) !== ACCESS_OK) {
      this.#discard(record, "fault queue memory refused the record");
      this.#fail(CSR_MEMORY_FAULT);
      return;
    }
    ring.tail = (tail + 1) & ring.mask;
    this.written++;
    const previous = this.#trace.cause;
    if (this.#trace.on) this.#trace.cause = this.#emit(record, `record ${tail}`);
    if ((this.#registers.words[WORD.FQCSR]! & CSR_INTERRUPT_ENABLE) !== 0) this.#interrupts.raise(FIP);
    this.#trace.leave(previous);
  }

  #fail(bit: number): void {
    const words = this.#registers.words;
    words[WORD.FQCSR] = words[WORD.FQCSR]! | bit;
    this.evaluate();
  }

  #discard(record: FaultRecord, why: string): void {
    this.discarded++;
    if (this.#trace.on) this.#emit(record, `discarded: ${why}`);
  }

  #emit(record: FaultRecord, text: string): number {
    return this.#trace.emit({
      type: "fault",
      where: "guest",
      iommu: this.#name,
      faultCause: record.cause,
      deviceId: record.deviceId,
      ...(record.processId >= 0 ? { pasid: record.processId } : {}),
      iotval: record.iotval,
      iotval2: record.iotval2,
      ttyp: record.ttyp,
      text: `${text}: ${describeFaultRecord(record)}`,
    });
  }
}

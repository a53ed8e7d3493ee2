// The guest's fault queue (§4.2, 6.9–6.11, 6.16): the vIOMMU writes 32-byte records at fqt, the guest reads up to it and moves fqh.
//
// A record that finds the queue full sets fqof, one that cannot be written sets fqmf; until the guest clears the bit all records
// are discarded. A record that was written sets ipsr.fip if fie.

import { describeFaultRecord, encodeFaultRecord, type FaultRecord } from "../../../host/arch/riscv/fault-records.ts";
import { CSR_MEMORY_FAULT, CSR_ON, CSR_OVERFLOW } from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { FIP, type Interrupts } from "./interrupts.ts";
import { type RegisterFile, WORD } from "./registers.ts";
import { WrittenQueue } from "./written-queue.ts";

export class FaultQueue extends WrittenQueue {
  /** Records written and discarded since construction. */
  written = 0;
  discarded = 0;
  readonly #trace: Trace;
  readonly #name: string;

  constructor(registers: RegisterFile, memory: MemoryPort<GpaPfn>, interrupts: Interrupts, trace: Trace, name: string) {
    super(registers, memory, interrupts, {
      base: WORD.FQB,
      head: WORD.FQH,
      tail: WORD.FQT,
      control: WORD.FQCSR,
      entryLog2: 5,
      interrupt: FIP,
    });
    this.#trace = trace;
    this.#name = name;
  }

  /** Writes a record, or discards it as the specification says. */
  report(record: FaultRecord): void {
    const { csr } = this;
    if ((csr & CSR_ON) === 0) {
      this.#discard(record, "fault queue off");
    } else if ((csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) !== 0) {
      this.#discard(record, (csr & CSR_OVERFLOW) !== 0 ? "fqof is set" : "fqmf is set");
    } else if (this.ring.full) {
      this.#discard(record, "fault queue full");
      this.fail(CSR_OVERFLOW);
    } else {
      this.#write(record);
    }
  }

  /** The host lost records: the guest sees what it sees when its own queue overflowed. */
  lost(): void {
    const { csr } = this;
    if ((csr & CSR_ON) !== 0 && (csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) === 0) this.fail(CSR_OVERFLOW);
  }

  #write(record: FaultRecord): void {
    const { tail } = this.ring;
    if (!this.append(encodeFaultRecord(record))) {
      this.#discard(record, "fault queue memory refused the record");
      this.fail(CSR_MEMORY_FAULT);
      return;
    }
    this.written++;
    const previous = this.#trace.cause;
    if (this.#trace.on) this.#trace.cause = this.#emit(record, `record ${tail}`);
    this.announce();
    this.#trace.leave(previous);
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
      words: encodeFaultRecord(record),
    });
  }

  override saveState(): StateRecord {
    return { written: this.written, discarded: this.discarded };
  }

  override restoreState(state: StateReader): void {
    this.written = state.number("written");
    this.discarded = state.number("discarded");
  }
}

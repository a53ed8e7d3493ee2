// The fault queue (§4.2, §6.9–6.11, §6.16): 32-byte records into memory, overflow and memory-fault states, the fault interrupt.

import { describeFaultRecord, encodeFaultRecord, suppressedByDtf } from "../../../arch/riscv/fault-records.ts";
import {
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  CSR_OVERFLOW,
  IPSR_FIP,
  REG,
} from "../../../arch/riscv/registers.ts";
import { addressHigh, addressLow } from "../../../base/address.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { HardwareState } from "./hardware-state.ts";
import type { Interrupts } from "./interrupts.ts";

const RECORD_BYTES = 32;

export class FaultQueue {
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;

  constructor(state: HardwareState, interrupts: Interrupts) {
    this.#state = state;
    this.#interrupts = interrupts;
  }

  /** Software wrote fqcsr. On and off are immediate; busy is never seen. */
  writeControl(value: number): void {
    const state = this.#state;
    const old = state.reg(REG.fqcsr);
    let next = (old & ~(CSR_ENABLE | CSR_INTERRUPT_ENABLE)) | (value & (CSR_ENABLE | CSR_INTERRUPT_ENABLE));
    next &= ~(value & (CSR_MEMORY_FAULT | CSR_OVERFLOW));
    if ((value & CSR_ENABLE) !== 0 && (old & CSR_ENABLE) === 0) {
      state.setReg(REG.fqt, 0);
      next = (next & ~(CSR_MEMORY_FAULT | CSR_OVERFLOW)) | CSR_ON;
    } else if ((value & CSR_ENABLE) === 0) {
      next &= ~CSR_ON;
    }
    state.setReg(REG.fqcsr, next);
    this.#interrupts.evaluate();
  }

  /**
   * Reports a fault: writes a record unless DTF suppresses it, the queue is off, or it is in an error state. Addresses are a frame and
   * the low 12 bits; `processId` -1 means PV = 0 (then PRIV is 0 too).
   */
  report(
    cause: number,
    deviceId: number,
    processId: number,
    privileged: boolean,
    ttyp: number,
    iotvalPfn: number,
    iotvalLow: number,
    iotval2Pfn: number,
    iotval2Low: number,
    dtf: boolean,
  ): void {
    if (dtf && suppressedByDtf(cause)) return;
    const state = this.#state;
    const valid = processId >= 0;
    const previous = state.trace.cause;
    if (state.trace.on) {
      const iotval = (BigInt(iotvalPfn) << 12n) | BigInt(iotvalLow);
      const iotval2 = (BigInt(iotval2Pfn) << 12n) | BigInt(iotval2Low);
      const record = { cause, deviceId, processId, privileged, ttyp, iotval, iotval2 };
      state.trace.enter({
        type: "fault",
        where: "hardware",
        iommu: state.name,
        faultCause: cause,
        deviceId,
        ...(valid ? { pasid: processId } : {}),
        iotval,
        iotval2,
        ttyp,
        text: describeFaultRecord(record),
        words: encodeFaultRecord(record),
      });
    }
    this.#write(cause, deviceId, processId, privileged, ttyp, iotvalPfn, iotvalLow, iotval2Pfn, iotval2Low);
    state.trace.leave(previous);
  }

  #write(
    cause: number,
    deviceId: number,
    processId: number,
    privileged: boolean,
    ttyp: number,
    iotvalPfn: number,
    iotvalLow: number,
    iotval2Pfn: number,
    iotval2Low: number,
  ): void {
    const state = this.#state;
    const valid = processId >= 0;
    const csr = state.reg(REG.fqcsr);
    if ((csr & CSR_ON) === 0 || (csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) !== 0) return;
    const tail = state.reg(REG.fqt);
    const next = ((tail + 1) & state.indexMask(REG.fqb)) >>> 0;
    if (next === state.reg(REG.fqh)) {
      state.setReg(REG.fqcsr, csr | CSR_OVERFLOW);
      this.#interrupts.evaluate();
      return;
    }
    const at = tail * RECORD_BYTES;
    const pfn = state.frameIn(REG.fqb) + Math.floor(at / 4096);
    const offset = at % 4096;
    const word0 = (cause & 0xfff) | (valid ? processId << 12 : 0);
    const word1 = (valid ? 1 | (privileged ? 2 : 0) : 0) | (ttyp << 2) | (deviceId << 8);
    const failed =
      state.storeDoubleword(pfn, offset, word0, word1) !== ACCESS_OK ||
      state.storeDoubleword(pfn, offset + 8, 0, 0) !== ACCESS_OK ||
      state.storeDoubleword(pfn, offset + 16, addressLow(iotvalPfn, iotvalLow), addressHigh(iotvalPfn)) !== ACCESS_OK ||
      state.storeDoubleword(pfn, offset + 24, addressLow(iotval2Pfn, iotval2Low), addressHigh(iotval2Pfn)) !==
        ACCESS_OK;
    if (failed) {
      state.setReg(REG.fqcsr, csr | CSR_MEMORY_FAULT);
      this.#interrupts.evaluate();
      return;
    }
    state.setReg(REG.fqt, next);
    if ((csr & CSR_INTERRUPT_ENABLE) !== 0) this.#interrupts.raise(IPSR_FIP);
  }
}

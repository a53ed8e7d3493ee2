// Page requests (§3.7, §4.3, §6.12–6.14, §6.17): messages of PCIe PRI into memory, and the responses the IOMMU gives itself when it
// cannot queue one.

import { PRGR_INVALID_REQUEST, PRGR_RESPONSE_FAILURE, PRGR_SUCCESS } from "../../../arch/riscv/commands.ts";
import { CAUSE_TRANSACTION_TYPE_DISALLOWED, TTYP_MESSAGE_REQUEST } from "../../../arch/riscv/fault-records.ts";
import { MESSAGE_CODE_PAGE_REQUEST } from "../../../arch/riscv/page-requests.ts";
import {
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  CSR_OVERFLOW,
  IPSR_PIP,
  REG,
} from "../../../arch/riscv/registers.ts";
import { addressHigh, addressLow } from "../../../base/address.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { AtsInvalidations } from "../ats-invalidations.ts";
import type { FaultQueue } from "./fault-queue.ts";
import type { HardwareState } from "./hardware-state.ts";
import type { Interrupts } from "./interrupts.ts";
import type { Translator } from "./translation.ts";

const RECORD_BYTES = 16;
/** Flags of a message, as AtsPort.pageRequest. */
const FLAG_LAST = 4;
const FLAG_EXECUTE = 8;
const FLAG_PRIVILEGED = 16;

export class PageRequestQueue {
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  readonly #faults: FaultQueue;
  readonly #translator: Translator;
  readonly #ats: AtsInvalidations;

  constructor(
    state: HardwareState,
    interrupts: Interrupts,
    faults: FaultQueue,
    translator: Translator,
    ats: AtsInvalidations,
  ) {
    this.#state = state;
    this.#interrupts = interrupts;
    this.#faults = faults;
    this.#translator = translator;
    this.#ats = ats;
  }

  /** Software wrote pqcsr. On and off are immediate; busy is never seen. */
  writeControl(value: number): void {
    const state = this.#state;
    const old = state.reg(REG.pqcsr);
    let next = (old & ~(CSR_ENABLE | CSR_INTERRUPT_ENABLE)) | (value & (CSR_ENABLE | CSR_INTERRUPT_ENABLE));
    next &= ~(value & (CSR_MEMORY_FAULT | CSR_OVERFLOW));
    if ((value & CSR_ENABLE) !== 0 && (old & CSR_ENABLE) === 0) {
      state.setReg(REG.pqt, 0);
      next = (next & ~(CSR_MEMORY_FAULT | CSR_OVERFLOW)) | CSR_ON;
    } else if ((value & CSR_ENABLE) === 0) {
      next &= ~CSR_ON;
    }
    state.setReg(REG.pqcsr, next);
    this.#interrupts.evaluate();
  }

  /** A Page Request, or with R = W = 0 and L = 1 a Stop Marker. */
  receive(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    const device = this.#translator.deviceFor(deviceId);
    let cause = this.#translator.deviceCause;
    let prpr = false;
    if (device !== null) {
      prpr = device.prpr;
      if (!device.enAts || !device.enPri) cause = CAUSE_TRANSACTION_TYPE_DISALLOWED;
    }
    if (cause !== 0) {
      const privileged = (flags & FLAG_PRIVILEGED) !== 0;
      const dtf = device?.dtf ?? false;
      this.#faults.report(
        cause,
        deviceId,
        pasid,
        privileged,
        TTYP_MESSAGE_REQUEST,
        0,
        MESSAGE_CODE_PAGE_REQUEST,
        0,
        0,
        dtf,
      );
      const code = cause === CAUSE_TRANSACTION_TYPE_DISALLOWED ? PRGR_INVALID_REQUEST : PRGR_RESPONSE_FAILURE;
      this.#respond(deviceId, pasid, group, flags, code, prpr);
      return;
    }
    const code = this.#queue(deviceId, pasid, pfn, group, flags);
    if (code >= 0) this.#respond(deviceId, pasid, group, flags, code, prpr);
  }

  /** Queues the message; -1 when it stands in the queue, else the code of the response it gets. */
  #queue(deviceId: number, pasid: number, pfn: number, group: number, flags: number): number {
    const state = this.#state;
    const csr = state.reg(REG.pqcsr);
    if ((csr & CSR_ON) === 0 || (csr & CSR_MEMORY_FAULT) !== 0) return PRGR_RESPONSE_FAILURE;
    if ((csr & CSR_OVERFLOW) !== 0) return PRGR_SUCCESS;
    const tail = state.reg(REG.pqt);
    const next = ((tail + 1) & state.indexMask(REG.pqb)) >>> 0;
    if (next === state.reg(REG.pqh)) {
      state.setReg(REG.pqcsr, csr | CSR_OVERFLOW);
      this.#interrupts.evaluate();
      return PRGR_SUCCESS;
    }
    const frame = state.frameIn(REG.pqb) + Math.floor((tail * RECORD_BYTES) / 4096);
    const offset = (tail * RECORD_BYTES) % 4096;
    const valid = pasid >= 0;
    const word0 = valid ? pasid << 12 : 0;
    const privileged = valid && (flags & FLAG_PRIVILEGED) !== 0;
    const execute = valid && (flags & FLAG_EXECUTE) !== 0;
    const word1 = (valid ? 1 : 0) | (privileged ? 2 : 0) | (execute ? 4 : 0) | (deviceId << 8);
    const payload = (addressLow(pfn, 0) | ((group & 0x1ff) << 3) | (flags & 7)) >>> 0;
    if (
      state.storeDoubleword(frame, offset, word0, word1) !== ACCESS_OK ||
      state.storeDoubleword(frame, offset + 8, payload, addressHigh(pfn)) !== ACCESS_OK
    ) {
      state.setReg(REG.pqcsr, csr | CSR_MEMORY_FAULT);
      this.#interrupts.evaluate();
      return PRGR_RESPONSE_FAILURE;
    }
    state.setReg(REG.pqt, next);
    if ((csr & CSR_INTERRUPT_ENABLE) !== 0) this.#interrupts.raise(IPSR_PIP);
    return -1;
  }

  /** The IOMMU's own PRG Response (§3.7): only to the last request of a group, never to a Stop Marker. */
  #respond(deviceId: number, pasid: number, group: number, flags: number, code: number, prpr: boolean): void {
    if ((flags & FLAG_LAST) === 0 || (flags & 3) === 0) return;
    const withPasid = code === PRGR_RESPONSE_FAILURE || prpr;
    this.#ats.respond(deviceId, withPasid ? pasid : -1, group, code);
  }
}

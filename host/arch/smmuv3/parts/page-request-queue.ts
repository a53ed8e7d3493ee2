// Page requests (§8): messages of PCIe PRI into memory, and the answers that the SMMU gives itself when it cannot queue one (§8.1).

import { addressHigh, addressLow } from "../../../base/address.ts";
import { CR0_PRIQEN, CR0_SMMUEN, GERROR_PRIQ_ABT_ERR, OVERFLOW_FLAG, REG } from "../registers.ts";
import { type Interrupts, WIRE_PRIQ } from "./interrupts.ts";
import type { SmmuState } from "./smmu-state.ts";

const RECORD_BYTES = 16;
/** Flags of a message, as AtsPort.pageRequest. */
const FLAG_READ = 1;
const FLAG_WRITE = 2;
const FLAG_LAST = 4;
const FLAG_EXECUTE = 8;
const FLAG_PRIVILEGED = 16;
/** PRI response codes (PCIe 6.0 §10.4.2.1). */
const SUCCESS = 0;
const FAILURE = 15;

/** Whether a stream's answers after an overflow carry the PASID (STE.PPAR); -1: its entry cannot be used. */
export type PasidInResponse = (sid: number) => 0 | 1 | -1;

/** Answers a group of a stream's page requests; `ssid` -1: without PASID. */
export type PageResponder = (sid: number, ssid: number, group: number, code: number) => void;

// Not state: the queue is in the registers
export class PageRequestQueue {
  readonly #state: SmmuState<number>;
  readonly #interrupts: Interrupts;
  readonly #respond: PageResponder;
  readonly #pasidInResponse: PasidInResponse;

  constructor(
    state: SmmuState<number>,
    interrupts: Interrupts,
    respond: PageResponder,
    pasidInResponse: PasidInResponse,
  ) {
    this.#state = state;
    this.#interrupts = interrupts;
    this.#respond = respond;
    this.#pasidInResponse = pasidInResponse;
  }

  /** A Page Request, or with R = W = 0 and L = 1 a Stop Marker: neither EATS nor ATSCHK gate it. */
  receive(sid: number, ssid: number, pfn: number, group: number, flags: number): void {
    const state = this.#state;
    const on = CR0_PRIQEN | CR0_SMMUEN;
    if ((state.reg(REG.CR0) & on) !== on || state.errorActive(GERROR_PRIQ_ABT_ERR)) {
      this.#answer(sid, -1, group, flags, FAILURE);
      return;
    }
    const log2 = state.queueLog2(REG.PRIQ_BASE, state.features.PRIQS);
    const entries = 1 << log2;
    const mask = 2 * entries - 1;
    const prod = state.reg(REG.PRIQ_PROD);
    const cons = state.reg(REG.PRIQ_CONS);
    const used = (prod - cons) & mask;
    const overflow = ((prod ^ cons) & OVERFLOW_FLAG) !== 0;
    const everyLast = (state.reg(REG.PRIQ_IRQ_CFG2) & 0x80000000) !== 0;
    const last = (flags & FLAG_LAST) !== 0;
    if (overflow || used >= entries) {
      if (!overflow) state.setReg(REG.PRIQ_PROD, (prod ^ OVERFLOW_FLAG) >>> 0);
      this.#overflowed(sid, ssid, group, flags);
      if (everyLast && last) this.#interrupts.raise(WIRE_PRIQ);
      return;
    }
    const frame = state.entryFrame(REG.PRIQ_BASE, log2, RECORD_BYTES, prod & (entries - 1));
    const offset = state.entryOffset;
    const valid = ssid >= 0;
    const word1 =
      (valid ? 0x80000000 | ssid : 0) |
      (last ? 1 << 30 : 0) |
      ((flags & FLAG_WRITE) !== 0 ? 1 << 29 : 0) |
      ((flags & FLAG_READ) !== 0 ? 1 << 28 : 0) |
      (valid && (flags & FLAG_EXECUTE) !== 0 ? 1 << 27 : 0) |
      (valid && (flags & FLAG_PRIVILEGED) !== 0 ? 1 << 26 : 0);
    const stored =
      state.storeDoubleword(frame, offset, sid, word1 >>> 0) &&
      state.storeDoubleword(frame, offset + 8, (addressLow(pfn, 0) | (group & 0x1ff)) >>> 0, addressHigh(pfn));
    if (!stored) {
      this.#interrupts.error(GERROR_PRIQ_ABT_ERR);
      this.#answer(sid, -1, group, flags, FAILURE);
      return;
    }
    state.setReg(REG.PRIQ_PROD, (((prod + 1) & mask) | (prod & OVERFLOW_FLAG)) >>> 0);
    if (used === 0 || (everyLast && last)) this.#interrupts.raise(WIRE_PRIQ);
  }

  /** Only the last request of a group is answered, so that its device asks again. */
  #overflowed(sid: number, ssid: number, group: number, flags: number): void {
    if (ssid < 0) {
      this.#answer(sid, -1, group, flags, SUCCESS);
      return;
    }
    const withPasid = this.#state.features.PPS ? 1 : this.#pasidInResponse(sid);
    if (withPasid < 0) this.#answer(sid, -1, group, flags, FAILURE);
    else this.#answer(sid, withPasid === 1 ? ssid : -1, group, flags, SUCCESS);
  }

  /** To a request: a failure always, success to the last of a group; a Stop Marker is never answered. */
  #answer(sid: number, ssid: number, group: number, flags: number, code: number): void {
    if ((flags & (FLAG_READ | FLAG_WRITE)) === 0 && (flags & FLAG_LAST) !== 0) return;
    if (code === SUCCESS && (flags & FLAG_LAST) === 0) return;
    this.#respond(sid, ssid, group, code);
  }
}

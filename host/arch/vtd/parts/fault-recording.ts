// Primary fault recording (§7.2) and fault status (§11.4): records in registers, used round-robin; overflow; the fault event.
//
//     fault ─▶ FPD? ─▶ PFO set? lost ─▶ a record of the same source pending? absorbed ─▶ next FRCD busy? PFO ─▶ filled, F last ─▶ event

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { FAULT_IR_REQUEST_INVALID, FAULT_IR_REQUEST_RESERVED, QUALIFIED } from "../fault-reasons.ts";
import { describeFaultRecord } from "../fault-records.ts";
import { FSTS_ICE, FSTS_IQE, FSTS_ITE, FSTS_PFO, FSTS_PPF, faultRecordingRegister, REG } from "../registers.ts";
import { EVENT_FAULT, type EventInterrupts } from "./event-interrupts.ts";
import type { VtdState } from "./vtd-state.ts";

/** What a record says besides reason, source, PASID and page: bits of its third word, and of its fourth. */
export const RECORD_T2 = 1 << 28;
export const RECORD_PRIVILEGED = 1 << 29;
export const RECORD_EXECUTE = 1 << 30;
export const RECORD_T1 = 1 << 30;
/** FRCD.AT within the fourth word. */
export const recordAddressType = (type: number): number => type << 28;

const CAUSES = FSTS_PFO | FSTS_PPF | FSTS_IQE | FSTS_ICE | FSTS_ITE;

export class FaultRecording implements Stateful {
  readonly #state: VtdState<number>;
  readonly #events: EventInterrupts;
  readonly #first: number;
  readonly #count: number;
  /** Which register is used next. */
  #next = 0;

  constructor(state: VtdState<number>, events: EventInterrupts) {
    this.#state = state;
    this.#events = events;
    this.#first = faultRecordingRegister(state.features, 0);
    this.#count = state.features.NFR + 1;
  }

  saveState(): StateRecord {
    return { next: this.#next };
  }

  restoreState(state: StateReader): void {
    const next = state.number("next");
    if (!(next >= 0 && next < this.#count)) state.fail("next", "is no register");
    this.#next = next;
  }

  reset(): void {
    this.#next = 0;
  }

  /** Offset of the registers, and of what is behind them. */
  get first(): number {
    return this.#first;
  }

  get end(): number {
    return this.#first + 16 * this.#count;
  }

  /**
   * A fault of a DMA request. `fpd`: some structure on its way has FPD set. `pasid` -1: the request had none. `third` and `fourth`: RECORD_* and
   * recordAddressType of those words.
   */
  report(
    reason: number,
    fpd: boolean,
    sourceId: number,
    pasid: number,
    pfn: number,
    third: number,
    fourth: number,
  ): void {
    if (fpd && QUALIFIED[reason] === 1) return;
    const high = pasid < 0 ? 0 : pasid << 8;
    const lowest = (pfn % 0x100000) * 4096;
    this.#record(
      lowest,
      Math.floor(pfn / 0x100000),
      (third | sourceId | (pasid < 0 ? 0 : 0x80000000)) >>> 0,
      (fourth | reason | high) >>> 0,
    );
  }

  /** A fault of an interrupt request for entry `index`. */
  reportInterrupt(reason: number, fpd: boolean, sourceId: number, index: number): void {
    if (fpd && QUALIFIED[reason] === 1) return;
    this.#record(0, ((index & 0xffff) << 16) >>> 0, sourceId, reason);
  }

  /** What follows, an interrupt above all, has the fault as its cause. */
  #record(w0: number, w1: number, w2: number, w3: number): void {
    const { trace } = this.#state;
    const previous = trace.cause;
    this.#trace(w0, w1, w2, w3);
    this.#fill(w0, w1, w2, w3);
    trace.leave(previous);
  }

  #fill(w0: number, w1: number, w2: number, w3: number): void {
    const state = this.#state;
    const before = state.reg(REG.FSTS);
    if ((before & FSTS_PFO) !== 0) return;
    // §7.2.1: a pending record of the same source takes in what follows.
    for (let at = this.#first; at < this.end; at += 16)
      if (state.reg(at + 12) >>> 31 !== 0 && (state.reg(at + 8) & 0xffff) === (w2 & 0xffff)) return;
    const at = this.#first + 16 * this.#next;
    if (state.reg(at + 12) >>> 31 !== 0) {
      state.setReg(REG.FSTS, before | FSTS_PFO);
      this.#signal(before);
      return;
    }
    state.setReg(at, w0);
    state.setReg(at + 4, w1);
    state.setReg(at + 8, w2);
    state.setReg(at + 12, (w3 | 0x80000000) >>> 0);
    if ((before & FSTS_PPF) === 0) state.setReg(REG.FSTS, (before & ~0xff00) | FSTS_PPF | (this.#next << 8));
    this.#next = (this.#next + 1) % this.#count;
    this.#signal(before);
  }

  /** Sets IQE, ICE or ITE. */
  queueError(bit: number): void {
    const before = this.#state.reg(REG.FSTS);
    this.#state.setReg(REG.FSTS, before | bit);
    this.#signal(before);
  }

  /** §7.3: something was set; only the first of all of them sends a message. */
  #signal(before: number): void {
    const after = this.#state.reg(REG.FSTS);
    if ((before & CAUSES) === 0 && (after & CAUSES) !== 0) this.#events.raise(EVENT_FAULT);
  }

  /** Software wrote ones to FSTS. */
  acknowledge(bits: number): void {
    const state = this.#state;
    state.setReg(REG.FSTS, state.reg(REG.FSTS) & ~(bits & (FSTS_PFO | FSTS_IQE | FSTS_ICE | FSTS_ITE)));
    this.#settle();
  }

  /** Software wrote to the fourth word of a record: F is cleared by a one. */
  clear(offset: number, value: number): void {
    const state = this.#state;
    if (value >>> 31 === 0) return;
    state.setReg(offset, state.reg(offset) & 0x7fffffff);
    let pending = false;
    for (let at = this.#first; at < this.end; at += 16) if (state.reg(at + 12) >>> 31 !== 0) pending = true;
    if (!pending) state.setReg(REG.FSTS, state.reg(REG.FSTS) & ~FSTS_PPF);
    this.#settle();
  }

  #settle(): void {
    if ((this.#state.reg(REG.FSTS) & CAUSES) === 0) this.#events.lower(EVENT_FAULT);
  }

  #trace(w0: number, w1: number, w2: number, w3: number): void {
    const { trace, name, where } = this.#state;
    if (!trace.on) return;
    const words = [(BigInt(w1) << 32n) | BigInt(w0), (BigInt(w3) << 32n) | BigInt(w2)];
    const reason = w3 & 0xff;
    const ofInterrupt = reason >= FAULT_IR_REQUEST_RESERVED && reason <= FAULT_IR_REQUEST_INVALID;
    trace.enter({
      type: "fault",
      where: where === "host" ? "hardware" : "guest",
      iommu: name,
      kind: "vtd",
      faultCause: reason,
      deviceId: w2 & 0xffff,
      ...(w2 >>> 31 === 0 ? {} : { pasid: (w3 >>> 8) & 0xfffff }),
      iotval: ofInterrupt ? BigInt(w1 >>> 16) : words[0]!,
      iotval2: 0n,
      ttyp: ((w3 >>> 30) & 1) * 2 + ((w2 >>> 28) & 1),
      text: describeFaultRecord(words),
      // As it stands once it is complete.
      words: [words[0]!, words[1]! | (1n << 63n)],
    });
  }
}

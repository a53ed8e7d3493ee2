// Page requests (§7.4): messages of PCIe PRI into memory, and the answers that the unit gives itself when it cannot queue one.

import { addressHigh, addressLow } from "../../../base/address.ts";
import { PAGE_REQUEST_BYTES, PAGE_REQUEST_TYPE, RESPONSE_INVALID, RESPONSE_SUCCESS } from "../page-requests.ts";
import { PRS_PPR, PRS_PRO, REG } from "../registers.ts";
import { frameIn } from "../structure-walk.ts";
import { EVENT_PAGE_REQUEST, type EventInterrupts } from "./event-interrupts.ts";
import type { VtdState } from "./vtd-state.ts";

/** Flags of a message, as AtsPort.pageRequest. */
const FLAG_READ = 1;
const FLAG_WRITE = 2;
const FLAG_LAST = 4;
const FLAG_EXECUTE = 8;
const FLAG_PRIVILEGED = 16;

export interface PageRequestPort {
  /** Whether a source may send page requests (§7.4.1): structures and PRE; what is wrong is recorded. `pfn`: the request's. */
  mayRequest(sourceId: number, pasid: number, pfn: number): boolean;
  /** §7.4: translations of the page that are cached go before its request is queued. */
  forget(sourceId: number, pasid: number, pfn: number): void;
  respond(sourceId: number, pasid: number, group: number, code: number): void;
}

// Not state: the queue is in the registers
export class PageRequestQueue {
  readonly #state: VtdState<number>;
  readonly #events: EventInterrupts;
  readonly #port: PageRequestPort;

  constructor(state: VtdState<number>, events: EventInterrupts, port: PageRequestPort) {
    this.#state = state;
    this.#events = events;
    this.#port = port;
  }

  /** A Page Request, or with R = W = 0 and L = 1 a Stop Marker, which nobody answers. */
  receive(sourceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    const state = this.#state;
    if (!this.#port.mayRequest(sourceId, pasid, pfn)) {
      this.#answer(sourceId, pasid, group, flags, RESPONSE_INVALID);
      return;
    }
    // What overflowed is not reported again until software has seen it (§7.4).
    const status = state.reg(REG.PRS);
    const size = 4096 << (state.reg(REG.PQA) & 7);
    const tail = state.reg(REG.PQT) & (size - 1);
    const next = (tail + PAGE_REQUEST_BYTES) & (size - 1);
    const full = next === (state.reg(REG.PQH) & (size - 1));
    if ((status & PRS_PRO) !== 0 || full || !this.#store(sourceId, pasid, pfn, group, flags, tail)) {
      this.#raise(PRS_PRO);
      this.#answer(sourceId, pasid, group, flags, RESPONSE_SUCCESS);
      return;
    }
    state.setReg(REG.PQT, next);
    this.#raise(PRS_PPR);
  }

  #store(sourceId: number, pasid: number, pfn: number, group: number, flags: number, tail: number): boolean {
    const state = this.#state;
    this.#port.forget(sourceId, pasid, pfn);
    const valid = pasid >= 0;
    const low = PAGE_REQUEST_TYPE | (valid ? 1 << 8 : 0) | (sourceId << 16);
    const high = valid
      ? pasid | ((flags & FLAG_EXECUTE) !== 0 ? 1 << 20 : 0) | ((flags & FLAG_PRIVILEGED) !== 0 ? 1 << 21 : 0)
      : 0;
    const request =
      ((flags & FLAG_READ) !== 0 ? 1 : 0) |
      ((flags & FLAG_WRITE) !== 0 ? 2 : 0) |
      ((flags & FLAG_LAST) !== 0 ? 4 : 0) |
      ((group & 0x1ff) << 3);
    const frame = frameIn(state.reg(REG.PQA), state.reg(REG.PQA + 4)) + (tail >>> 12);
    const offset = tail & 0xfff;
    return (
      state.storeDoubleword(frame, offset + 8, (addressLow(pfn, 0) | request) >>> 0, addressHigh(pfn)) &&
      state.storeDoubleword(frame, offset + 16, 0, 0) &&
      state.storeDoubleword(frame, offset + 24, 0, 0) &&
      state.storeDoubleword(frame, offset, low >>> 0, high >>> 0)
    );
  }

  /** Sets PPR or PRO; the event is for the first of both (§7.5). */
  #raise(bit: number): void {
    const state = this.#state;
    const before = state.reg(REG.PRS);
    state.setReg(REG.PRS, before | bit);
    if ((before & (PRS_PPR | PRS_PRO)) === 0) this.#events.raise(EVENT_PAGE_REQUEST);
  }

  /** To the last of a group; Stop Markers have no answer. */
  #answer(sourceId: number, pasid: number, group: number, flags: number, code: number): void {
    if ((flags & FLAG_LAST) === 0 || (flags & (FLAG_READ | FLAG_WRITE)) === 0) return;
    this.#port.respond(sourceId, pasid, group, code);
  }
}

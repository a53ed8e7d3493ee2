// The register page (§11.4) of a unit, in hardware or visible to a guest: which bits software can change, and what a write sets off.
//
// Commands are immediate: GSTS shows at once what GCMD asked for, ICC and IVT are never seen set. Misaligned accesses and widths other than 4 and 8
// read 0 and write nothing.

import type { AccessSize } from "../../../base/mmio.ts";
import { encodeCapabilities } from "../capabilities.ts";
import {
  EVENT_IM,
  GCMD_CFI,
  GCMD_IRE,
  GCMD_QIE,
  GCMD_SIRTP,
  GCMD_SRTP,
  GCMD_TE,
  GCMD_WBF,
  IQA_DW,
  invalidationRegisters,
  REG,
} from "../registers.ts";
import { EVENT_FAULT, EVENT_INVALIDATION, EVENT_PAGE_REQUEST, type EventInterrupts } from "./event-interrupts.ts";
import type { FaultRecording } from "./fault-recording.ts";
import type { VtdState } from "./vtd-state.ts";

/** What register writes set off; the unit implements it. */
export interface RegisterEffects {
  /** TE was switched, or SRTP latched a root table (`rootChanged`). */
  translationChanged(rootChanged: boolean): void;
  /** IRE or CFI were switched, or SIRTP latched a table (`tableChanged`). */
  interruptsChanged(tableChanged: boolean): void;
  queueSwitched(): void;
  /** The tail moved, or an error of the queue was cleared. */
  descriptorsQueued(): void;
  /** QIE may go off: no descriptor is left. */
  queueIsEmpty(): boolean;
  /** CCMD with ICC, IOTLB with IVT: register-based invalidation; the granularity that was done, 0 for an error. */
  invalidateContexts(low: number, high: number): number;
  invalidateTranslations(high: number, addressLow: number, addressHigh: number): number;
}

/** With MTS: no ranges are there (MTRRCAP is 0), the default type is state. */
const MTRRDEF = 0x108;

// Not state: the words are VtdState's
export class RegisterFile {
  high = 0;
  readonly #state: VtdState<number>;
  readonly #effects: RegisterEffects;
  readonly #events: EventInterrupts;
  readonly #faults: FaultRecording;
  readonly #version: number;
  readonly #iva: number;

  /** `version`: VER, major in bits 7:4. */
  constructor(
    state: VtdState<number>,
    effects: RegisterEffects,
    events: EventInterrupts,
    faults: FaultRecording,
    version: number,
  ) {
    this.#state = state;
    this.#effects = effects;
    this.#events = events;
    this.#faults = faults;
    this.#version = version;
    this.#iva = invalidationRegisters(state.features);
    this.reset();
  }

  /** Everything off, events masked. */
  reset(): void {
    const state = this.#state;
    state.reset();
    const { CAP, ECAP } = encodeCapabilities(state.features);
    state.setReg(REG.VER, this.#version);
    state.setReg(REG.CAP, Number(CAP & 0xffff_ffffn));
    state.setReg(REG.CAP + 4, Number(CAP >> 32n));
    state.setReg(REG.ECAP, Number(ECAP & 0xffff_ffffn));
    state.setReg(REG.ECAP + 4, Number(ECAP >> 32n));
    state.setReg(REG.FECTL, EVENT_IM);
    state.setReg(REG.IECTL, EVENT_IM);
    if (state.features.PRS) state.setReg(REG.PECTL, EVENT_IM);
  }

  mmioRead(offset: number, size: AccessSize): number {
    this.high = 0;
    if (size === 4 && (offset & 3) === 0) return this.#read(offset);
    if (size !== 8 || (offset & 7) !== 0) return 0;
    this.high = this.#read(offset + 4);
    return this.#read(offset);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (size === 8 && (offset & 7) === 0) {
      // What a register sets off stands in its high half.
      this.#write(offset, lo >>> 0);
      this.#write(offset + 4, hi >>> 0);
    } else if (size === 4 && (offset & 3) === 0) this.#write(offset, lo >>> 0);
  }

  #read(offset: number): number {
    if (offset < 0 || offset >= this.#state.bytes) return 0;
    return offset === REG.GCMD || offset === this.#iva || offset === this.#iva + 4 ? 0 : this.#state.reg(offset);
  }

  #write(offset: number, value: number): void {
    const effects = this.#effects;
    const state = this.#state;
    if (offset === REG.IQT) {
      // The one that a driver writes all the time.
      state.setReg(offset, value & 0x7fff0);
      effects.descriptorsQueued();
      return;
    }
    const { features } = state;
    switch (offset) {
      case REG.GCMD:
        this.#command(value);
        return;
      case REG.RTADDR:
        state.setReg(offset, (value & 0xfffffc00) >>> 0);
        return;
      case REG.RTADDR + 4:
      case REG.CCMD:
        state.setReg(offset, value);
        return;
      case REG.CCMD + 4:
        this.#contextCommand(value);
        return;
      case REG.FSTS:
        this.#faults.acknowledge(value);
        effects.descriptorsQueued();
        return;
      case REG.IQA:
        // Software must not while the queue is on.
        if (state.queueEnabled) return;
        state.setReg(offset, (value & (0xfffff007 | (features.SMTS || features.ADMS ? IQA_DW : 0))) >>> 0);
        return;
      case REG.IQA + 4:
        if (!state.queueEnabled) state.setReg(offset, value);
        return;
      case REG.ICS:
        if ((value & 1) === 0) return;
        state.setReg(offset, 0);
        this.#events.lower(EVENT_INVALIDATION);
        return;
      case REG.IRTA:
        if (features.IR) state.setReg(offset, (value & (0xfffff00f | (features.EIM ? 0x800 : 0))) >>> 0);
        return;
      case REG.IRTA + 4:
        if (features.IR) state.setReg(offset, value);
        return;
      case MTRRDEF:
        if (features.MTS) state.setReg(offset, value & 0xcff);
        return;
      default:
        if (offset >= REG.FECTL && offset <= REG.FEUADDR) this.#writeEvent(EVENT_FAULT, REG.FECTL, offset, value);
        else if (offset >= REG.IECTL && offset <= REG.IEUADDR)
          this.#writeEvent(EVENT_INVALIDATION, REG.IECTL, offset, value);
        else if (offset >= REG.PQH && offset <= REG.PEUADDR) {
          if (features.PRS) this.#writePageRequests(offset, value);
        } else this.#writeMovable(offset, value);
    }
  }

  /** GCMD (§11.4): levels that differ from GSTS are switched, one-shots done whenever they are written as 1. */
  #command(value: number): void {
    const state = this.#state;
    const effects = this.#effects;
    const { features } = state;
    const changed = (state.reg(REG.GSTS) ^ value) >>> 0;
    if ((value & GCMD_SRTP) !== 0) {
      state.latchRoot();
      this.#status(GCMD_SRTP, true);
      effects.translationChanged(true);
    }
    // There is nothing to flush: the bit is seen cleared at once, which is what software waits for.
    if ((value & GCMD_WBF) !== 0) this.#status(GCMD_WBF, false);
    if (features.QI && (changed & GCMD_QIE) !== 0) {
      if ((value & GCMD_QIE) !== 0 || effects.queueIsEmpty()) {
        this.#status(GCMD_QIE, (value & GCMD_QIE) !== 0);
        state.setReg(REG.IQH, 0);
        effects.queueSwitched();
      }
    }
    if (features.IR) {
      if ((value & GCMD_SIRTP) !== 0) {
        state.latchInterruptTable();
        this.#status(GCMD_SIRTP, true);
        effects.interruptsChanged(true);
      }
      if ((changed & (GCMD_IRE | GCMD_CFI)) !== 0) {
        this.#status(GCMD_IRE, (value & GCMD_IRE) !== 0);
        this.#status(GCMD_CFI, (value & GCMD_CFI) !== 0);
        effects.interruptsChanged(false);
      }
    }
    if ((changed & GCMD_TE) !== 0) {
      this.#status(GCMD_TE, (value & GCMD_TE) !== 0);
      effects.translationChanged(false);
    }
  }

  #status(bit: number, on: boolean): void {
    const before = this.#state.reg(REG.GSTS);
    this.#state.setReg(REG.GSTS, (on ? before | bit : before & ~bit) >>> 0);
  }

  /** CCMD's high half: CAIG (28:27) says what was done. */
  #contextCommand(value: number): void {
    const state = this.#state;
    let done = 0;
    if (value >>> 31 !== 0) done = this.#effects.invalidateContexts(state.reg(REG.CCMD), value);
    const kept = value & 0x60000003;
    state.setReg(
      REG.CCMD + 4,
      value >>> 31 !== 0 ? kept | (done << 27) : kept | (state.reg(REG.CCMD + 4) & 0x18000000),
    );
  }

  #writeEvent(event: number, control: number, offset: number, value: number): void {
    const state = this.#state;
    const extended = state.features.EIM;
    switch (offset - control) {
      case 0:
        this.#events.control(event, value);
        return;
      case 4:
        state.setReg(offset, value & 0xffff);
        return;
      case 8:
        state.setReg(offset, value & 0xfffffffc);
        return;
      case 12:
        state.setReg(offset, extended ? value : 0);
        return;
    }
  }

  #writePageRequests(offset: number, value: number): void {
    const state = this.#state;
    switch (offset) {
      case REG.PQH:
      case REG.PQT:
        state.setReg(offset, value & 0x7ffe0);
        return;
      case REG.PQA:
        state.setReg(offset, (value & 0xfffff007) >>> 0);
        return;
      case REG.PQA + 4:
        state.setReg(offset, value);
        return;
      case REG.PRS: {
        const after = state.reg(offset) & ~(value & 3);
        state.setReg(offset, after);
        if (after === 0) this.#events.lower(EVENT_PAGE_REQUEST);
        return;
      }
      default:
        if (offset >= REG.PECTL) this.#writeEvent(EVENT_PAGE_REQUEST, REG.PECTL, offset, value);
    }
  }

  /** IVA, IOTLB and fault records, which stand where the capabilities say. */
  #writeMovable(offset: number, value: number): void {
    const state = this.#state;
    const iva = this.#iva;
    switch (offset - iva) {
      case 0:
        state.setReg(offset, (value & 0xfffff07f) >>> 0);
        return;
      case 4:
      case 8:
        state.setReg(offset, offset === iva + 4 ? value : 0);
        return;
      case 12: {
        let done = 0;
        const kept = value & 0x3003ffff;
        if (value >>> 31 !== 0) done = this.#effects.invalidateTranslations(value, state.reg(iva), state.reg(iva + 4));
        const actual = value >>> 31 !== 0 ? done << 25 : state.reg(offset) & 0x06000000;
        state.setReg(offset, kept | actual);
        return;
      }
    }
    const faults = this.#faults;
    if (offset >= faults.first && offset < faults.end && ((offset - faults.first) & 15) === 12)
      faults.clear(offset, value);
  }
}

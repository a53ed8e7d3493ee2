// The hardware performance monitor (§6.19–6.23): a cycle counter and up to 31 event counters with filters and overflow interrupts.
//
// While nothing is counted (`active` false) a translation pays one test. Cycles are virtual time; they are brought up to date
// whenever software looks, and an overflow that falls due in between is a clock event.

import { IPSR_PMIP, REG } from "../../../arch/riscv/registers.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { HardwareState } from "./hardware-state.ts";
import type { Interrupts } from "./interrupts.ts";

export const EVENT_UNTRANSLATED = 1;
export const EVENT_TRANSLATED = 2;
export const EVENT_ATS_REQUEST = 3;
export const EVENT_TLB_MISS = 4;
export const EVENT_DDT_WALK = 5;
export const EVENT_PDT_WALK = 6;
export const EVENT_FIRST_STAGE_WALK = 7;
export const EVENT_SECOND_STAGE_WALK = 8;

/** Events that can be filtered by PSCID and GSCID (IDT = 1). */
const IDT_EVENTS = (1 << EVENT_TLB_MISS) | (1 << EVENT_FIRST_STAGE_WALK) | (1 << EVENT_SECOND_STAGE_WALK);

/** High-half bits of iohpmevt. */
const PV_PSCV = 1 << 28;
const DV_GSCV = 1 << 29;
const IDT = 1 << 30;

/** Event clocks further away than this are looked at again later (a double holds 2^53 exactly). */
const FARTHEST_NS = 2 ** 50;

export class PerformanceMonitor implements Stateful {
  /** True if some counter counts some event. */
  active = false; // not state: what the registers say
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  /** Counters that count each event, as bit masks of counter numbers (1 to 31). */
  readonly #counting = new Int32Array(16); // not state: what the registers say
  /** iohpmcycles and the time at which it had that value. */
  #cyclesAt = 0;
  #overflow = 0;
  readonly #overflowDue: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];

  constructor(state: HardwareState, interrupts: Interrupts) {
    this.#state = state;
    this.#interrupts = interrupts;
    this.#overflowDue = {
      owner: state.name,
      name: "cycle counter overflow",
      fire: () => {
        this.#overflow = 0;
        this.update();
      },
    };
    this.clockEvents = [this.#overflowDue];
  }

  reset(): void {
    this.#cyclesAt = this.#state.clock.now;
    this.#state.clock.cancel(this.#overflow);
    this.#overflow = 0;
    this.changed();
  }

  /** Software is about to read or has written a counter register: cycles so far are accounted under the old settings. */
  update(): void {
    const { configuration, clock } = this.#state;
    const elapsed = Math.floor((clock.now - this.#cyclesAt) / configuration.cycleNs);
    if (elapsed <= 0) return;
    this.#cyclesAt += elapsed * configuration.cycleNs;
    if (!configuration.capabilities.HPM || (this.#state.reg(REG.iocountinh) & 1) !== 0) return;
    const regs = this.#state.regs;
    const at = REG.iohpmcycles >> 2;
    const low = regs[at]! + (elapsed % 0x100000000);
    const high = (regs[at + 1]! & 0x7fffffff) + Math.floor(elapsed / 0x100000000) + (low >= 0x100000000 ? 1 : 0);
    const flag = regs[at + 1]! & 0x80000000;
    regs[at] = low >>> 0;
    regs[at + 1] = (flag | (high & 0x7fffffff)) >>> 0;
    if (high >= 0x80000000 && flag === 0) {
      regs[at + 1] = (regs[at + 1]! | 0x80000000) >>> 0;
      this.#overflowed(0);
    }
  }

  /** A counter register was written: which events count now, the overflow bits, when cycles overflow. */
  changed(): void {
    this.recount();
    if (this.#state.configuration.capabilities.HPM) this.#scheduleOverflow();
  }

  /** Works out again what the registers say. */
  recount(): void {
    const { configuration, regs } = this.#state;
    this.#counting.fill(0);
    this.active = false;
    if (!configuration.capabilities.HPM) return;
    const inhibited = this.#state.reg(REG.iocountinh);
    let overflows = regs[(REG.iohpmcycles >> 2) + 1]! >>> 31;
    for (let i = 1; i <= configuration.counters; i++) {
      const at = (REG.iohpmevt1 + 8 * (i - 1)) >> 2;
      let event = regs[at]! & 0x7fff;
      if (event > configuration.lastEvent) {
        // WARL: an event that does not exist reads back as none.
        regs[at] = regs[at]! & ~0x7fff;
        event = 0;
      }
      const high = regs[at + 1]!;
      if ((high & 0x80000000) !== 0) overflows |= 1 << i;
      if (event === 0 || (inhibited & (1 << i)) !== 0) continue;
      if ((high & IDT) !== 0 && (IDT_EVENTS & (1 << event)) === 0) continue;
      this.#counting[event] = this.#counting[event]! | (1 << i);
      this.active = true;
    }
    this.#state.setReg(REG.iocountovf, overflows >>> 0);
  }

  /**
   * Counts an event `times` for every counter whose filter matches. -1: no process_id, PSCID (first stage Bare), GSCID (second stage
   * Bare).
   */
  count(event: number, times: number, deviceId: number, processId: number, gscid: number, pscid: number): void {
    if (times <= 0) return;
    for (let left = this.#counting[event]!; left !== 0; left &= left - 1) {
      const counter = 31 - Math.clz32(left & -left);
      if (this.#matches(counter, deviceId, processId, gscid, pscid)) this.#add(counter, times);
    }
  }

  #matches(counter: number, deviceId: number, processId: number, gscid: number, pscid: number): boolean {
    const at = (REG.iohpmevt1 + 8 * (counter - 1)) >> 2;
    const low = this.#state.regs[at]!;
    const high = this.#state.regs[at + 1]!;
    const idt = (high & IDT) !== 0;
    if ((high & PV_PSCV) !== 0) {
      const wanted = (low >>> 16) | ((high & 0xf) << 16);
      if ((idt ? pscid : processId) !== wanted) return false;
    }
    if ((high & DV_GSCV) !== 0) {
      const wanted = (high >>> 4) & 0xffffff;
      const actual = idt ? gscid : deviceId;
      if (actual < 0) return false;
      let mask = 0xffffff;
      if ((low & 0x8000) !== 0) {
        // DMASK: the low bits up to and including the lowest 0 do not count.
        let ignored = 0;
        while (ignored < 24 && ((wanted >>> ignored) & 1) !== 0) ignored++;
        mask = ignored >= 23 ? 0 : 0xffffff & ~((2 << ignored) - 1);
      }
      const width = idt ? mask & 0xffff : mask;
      if (((actual ^ wanted) & width) !== 0) return false;
    }
    return true;
  }

  #add(counter: number, times: number): void {
    const { configuration, regs } = this.#state;
    const at = (REG.iohpmctr1 + 8 * (counter - 1)) >> 2;
    const low = regs[at]! + times;
    regs[at] = low >>> 0;
    if (low < 0x100000000) return;
    const limit = 2 ** (configuration.counterBits - 32);
    const high = regs[at + 1]! + 1;
    if (high < limit) {
      regs[at + 1] = high;
      return;
    }
    regs[at + 1] = 0;
    const event = (REG.iohpmevt1 + 8 * (counter - 1)) >> 2;
    if ((regs[event + 1]! & 0x80000000) !== 0) return;
    regs[event + 1] = (regs[event + 1]! | 0x80000000) >>> 0;
    this.#overflowed(counter);
  }

  /** OF went 0→1 by counting (§6.18: only that raises pmip). */
  #overflowed(counter: number): void {
    this.#state.setReg(REG.iocountovf, (this.#state.reg(REG.iocountovf) | (1 << counter)) >>> 0);
    this.#interrupts.raise(IPSR_PMIP);
  }

  #scheduleOverflow(): void {
    const { configuration, clock, regs } = this.#state;
    clock.cancel(this.#overflow);
    this.#overflow = 0;
    const at = REG.iohpmcycles >> 2;
    const high = regs[at + 1]!;
    if ((this.#state.reg(REG.iocountinh) & 1) !== 0 || (high & 0x80000000) !== 0) return;
    const left = (0x7fffffff - (high & 0x7fffffff)) * 0x100000000 + (0x100000000 - regs[at]!);
    const delay = left * configuration.cycleNs;
    if (delay > FARTHEST_NS) return;
    this.#overflow = clock.schedule(delay, this.#overflowDue);
  }

  saveState(): StateRecord {
    return {
      cyclesAt: this.#cyclesAt,
      overflow: this.#overflow,
    };
  }

  restoreState(state: StateReader): void {
    this.#cyclesAt = state.number("cyclesAt");
    this.#overflow = state.number("overflow");
  }
}

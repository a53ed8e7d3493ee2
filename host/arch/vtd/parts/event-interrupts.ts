// The unit's own interrupts (§7.3, §6.5.2.11, §7.5): fault, invalidation completion and page request events, each with control, data and address
// registers of the same shape.
//
//     event ─▶ IP := 1 ─▶ if IM = 0: one message (a dword store, never remapped), IP := 0; else held until IM is cleared
//
// A handler may run inside a message's store and touch these registers again: what is raised meanwhile waits until the first store has returned, so
// that nothing recurses.

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EVENT_IM, EVENT_IP, REG } from "../registers.ts";
import type { VtdState } from "./vtd-state.ts";

export const EVENT_FAULT = 0;
export const EVENT_INVALIDATION = 1;
export const EVENT_PAGE_REQUEST = 2;

const CONTROLS = [REG.FECTL, REG.IECTL, REG.PECTL] as const;
const NAMES = ["fault", "invalidation completion", "page request"] as const;
/** Rounds of messages that one call sends at most: a handler that never lets go is served again at the next step only. */
const ROUNDS = 4;

export class EventInterrupts implements Stateful {
  /** No wires; the machine's port has them. */
  onWire: (vector: number, asserted: boolean) => void = () => {}; // not state: wiring
  /** Takes the messages; absent receivers lose them. */
  onMessage: (pfn: number, offset: number, data: number) => void; // not state: wiring
  readonly #state: VtdState<number>;
  /** Raised while another was being delivered. */
  #due = 0;
  #sending = false; // not state: within a call

  constructor(state: VtdState<number>) {
    this.#state = state;
    this.onMessage = (pfn, offset, data) => void state.storeWord(pfn, offset, data);
  }

  saveState(): StateRecord {
    return { due: this.#due };
  }

  restoreState(state: StateReader): void {
    this.#due = state.number("due");
  }

  reset(): void {
    this.#due = 0;
  }

  /** A condition arose that sends a message. */
  raise(event: number): void {
    const state = this.#state;
    const control = CONTROLS[event]!;
    state.setReg(control, (state.reg(control) | EVENT_IP) >>> 0);
    this.#look(event);
  }

  /** All conditions of the event were acknowledged. */
  lower(event: number): void {
    const control = CONTROLS[event]!;
    this.#state.setReg(control, this.#state.reg(control) & ~EVENT_IP);
    this.#due &= ~(1 << event);
  }

  /** Software wrote the control register: a message that was held goes out when IM is cleared. */
  control(event: number, value: number): void {
    const state = this.#state;
    const control = CONTROLS[event]!;
    state.setReg(control, ((state.reg(control) & EVENT_IP) | (value & EVENT_IM)) >>> 0);
    this.#look(event);
  }

  #look(event: number): void {
    const value = this.#state.reg(CONTROLS[event]!);
    if ((value & EVENT_IP) === 0 || (value & EVENT_IM) !== 0) return;
    this.#due |= 1 << event;
    this.sendDue();
  }

  /** Sends what was raised while another was being delivered. */
  sendDue(): void {
    if (this.#sending) return;
    this.#sending = true;
    for (let round = 0; round < ROUNDS && this.#due !== 0; round++) {
      const due = this.#due;
      this.#due = 0;
      for (let event = 0; event < 3; event++) if ((due & (1 << event)) !== 0) this.#send(event);
    }
    this.#sending = false;
  }

  #send(event: number): void {
    const state = this.#state;
    const control = CONTROLS[event]!;
    const value = state.reg(control);
    // Masked, or acknowledged, meanwhile.
    if ((value & EVENT_IP) === 0 || (value & EVENT_IM) !== 0) return;
    state.setReg(control, value & ~EVENT_IP);
    const { trace, name, where } = state;
    if (trace.on) trace.emit({ type: "irq", where, source: `${name} ${NAMES[event]!}`, vector: event });
    const low = state.reg(control + 8);
    this.onMessage(state.reg(control + 12) * 0x100000 + (low >>> 12), low & 0xffc, state.reg(control + 4));
  }
}

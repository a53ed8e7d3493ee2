// The interrupt controller of component machines: wires, messages and one alarm.
//
// Interrupts are numbers below 1024. A wire is pending while it is asserted (level-triggered: a guest that does not quiet its
// device takes the same number again). A message is pending from the store that made it until it is taken; a second store of a
// number that is still pending merges with the first. `take` gives the lowest pending number, so the order depends on nothing but
// what is pending.
//
// Messages come in two ways and mean the same: a store to the MSI page in guest-physical memory (the vIOMMU's own message, an
// assigned device's after the VMM translated its address), and the guest's own store on the bus. Numbers past 1023 are dropped.

import type { ClockEvent } from "../host/base/clock.ts";
import type { AccessSize, MmioPort } from "../host/base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../host/base/state.ts";
import type { Trace } from "../host/base/trace.ts";

export const INTERRUPT_COUNT = 1024;
const WORDS = INTERRUPT_COUNT / 32;

/** The clock, as far as the alarm needs it. */
export interface AlarmClock {
  schedule(delay: number, event: ClockEvent, argument: number): number;
  cancel(id: number): void;
}

export class ComponentInterrupts implements MmioPort, Stateful {
  /** The MSI page reads as zero. */
  readonly high = 0;
  readonly #messages = new Uint32Array(WORDS);
  readonly #wires = new Uint32Array(WORDS);
  readonly #clock: AlarmClock;
  readonly #trace: Trace | null;
  /** Trace event that made each number pending. */
  readonly #causes = new Float64Array(INTERRUPT_COUNT);
  #alarm = 0;
  readonly #alarmDue: ClockEvent = {
    owner: "interrupt controller",
    name: "alarm",
    fire: (number) => {
      this.#alarm = 0;
      this.raise(number);
    },
  };

  constructor(clock: AlarmClock, trace: Trace | null = null) {
    this.#clock = clock;
    this.#trace = trace;
  }

  /** Sets the level of wire `number`; numbers past 1023 are no wires. */
  setWire(number: number, asserted: boolean): void {
    if (!(number >= 0 && number < INTERRUPT_COUNT)) return;
    const bit = 1 << (number & 31);
    if (this.#trace?.on) this.#causes[number] = this.#trace.cause;
    if (asserted) this.#wires[number >>> 5]! |= bit;
    else this.#wires[number >>> 5]! &= ~bit;
  }

  /** A message: the same as a store of `number` to the MSI page. */
  raise(number: number): void {
    if (!(number >= 0 && number < INTERRUPT_COUNT)) return;
    if (this.#trace?.on) this.#causes[number] = this.#trace.cause;
    this.#messages[number >>> 5]! |= 1 << (number & 31);
  }

  /** Takes the lowest pending number; -1 if none. A wire stays pending while it is asserted. */
  take(): number {
    for (let i = 0; i < WORDS; i++) {
      const pending = this.#messages[i]! | this.#wires[i]!;
      if (pending === 0) continue;
      const lowest = 31 - Math.clz32(pending & -pending);
      this.#messages[i]! &= ~(1 << lowest);
      const number = i * 32 + lowest;
      if (this.#trace?.on) {
        const source = (this.#wires[i]! >>> lowest) & 1 ? "wire" : "message";
        const previous = this.#trace.cause;
        this.#trace.cause = this.#causes[number]!;
        this.#trace.emit({ type: "irq", where: "guest", source, vector: number });
        this.#trace.leave(previous);
      }
      return number;
    }
    return -1;
  }

  /** Raises `number` in `delay` ns, instead of the alarm set before. */
  setAlarm(delay: number, number: number): void {
    if (this.#alarm !== 0) this.#clock.cancel(this.#alarm);
    this.#alarm = this.#clock.schedule(delay, this.#alarmDue, number);
  }

  /** The MSI page as a target of DMA and of the vIOMMU's messages (host/base/memory.ts, StoreTarget). */
  store32(_offset: number, value: number): void {
    this.raise(value);
  }

  /** The MSI page on the VM's bus. */
  mmioRead(_offset: number, _size: AccessSize): number {
    return 0;
  }

  mmioWrite(_offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 4) this.raise(lo);
  }

  get clockEvents(): readonly ClockEvent[] {
    return [this.#alarmDue];
  }

  saveState(): StateRecord {
    return {
      messages: bytesOf(this.#messages),
      wires: bytesOf(this.#wires),
      causes: [...this.#causes],
      alarm: this.#alarm,
    };
  }

  restoreState(state: StateReader): void {
    state.memory("messages", this.#messages);
    state.memory("wires", this.#wires);
    state.numbers("causes", this.#causes);
    this.#alarm = state.number("alarm");
  }
}

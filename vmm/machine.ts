// A machine's run loop: what happens around each trap of a vCPU, and while the vCPU waits.
//
//   trap    time passes (100 ns), the bus dispatches the access, then: clock events that fell due fire, work that the host or a
//           device flagged is done (host events into the vIOMMU, eventfds into the guest's interrupt controller)
//   wait    the same, jumping from clock event to clock event until an interrupt is pending
//
// Nothing else fires clock events. What the machine consists of (RAM, vIOMMUs, PCI, interrupt controller) is put together in
// vmm/component-machine.ts and vmm/rv64-machine.ts; this file knows only the ports below.

import type { Clock } from "../host/base/clock.ts";
import type { AccessSize } from "../host/base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../host/base/state.ts";
import type { Trace } from "../host/base/trace.ts";
import { Bus } from "./bus.ts";
import type { VcpuPort } from "./vcpu/port.ts";

/** Virtual time one trap takes. */
export const TRAP_NS = 100;

/** The interrupt controller as the waiting vCPU sees it. */
export interface InterruptSource {
  /** Takes the next pending interrupt, -1 if none. */
  take(): number;
}

/** Something with work to do outside a register access: a vIOMMU with host events, an assigned device with an eventfd. */
export interface Service {
  /** Set by whoever noticed the work, from anywhere; cleared by `service`. */
  readonly flagged: boolean;
  /** Trace event that flagged it, where known: the cause of what `service` does. */
  readonly cause?: number;
  service(): void;
}

export type StopReason = "time-limit" | "requested" | null;

export interface MachineCounters {
  traps: number;
  unclaimed: number;
}

export class Machine implements VcpuPort, Stateful {
  readonly bus = new Bus();
  readonly clock: Clock;
  readonly trace: Trace;
  readonly counters: MachineCounters = { traps: 0, unclaimed: 0 };
  high = 0;
  stopping = false;
  stopReason: StopReason = null;
  /** Virtual time at which the run ends. */
  timeLimit = Number.POSITIVE_INFINITY;

  // not state, to the blank line: wiring; services come with the devices that they are
  /** Console output; set by the shell. */
  onConsole: (bytes: Uint8Array) => void = () => {};
  /** An access to nothing, reported once a page; set by the shell. */
  onUnclaimed: (address: number, size: number, write: boolean) => void = () => {};
  readonly #interrupts: InterruptSource;
  readonly #services: Service[] = [];

  readonly #unclaimedPages = new Set<number>();

  constructor(clock: Clock, trace: Trace, interrupts: InterruptSource) {
    this.clock = clock;
    this.trace = trace;
    this.#interrupts = interrupts;
    this.bus.onUnclaimed = (address, size, write) => {
      this.counters.unclaimed++;
      const page = Math.floor(address / 4096);
      // A guest that scribbles everywhere fills this set to its bound, not the host's memory.
      if (this.#unclaimedPages.has(page) || this.#unclaimedPages.size >= 64) return;
      this.#unclaimedPages.add(page);
      this.onUnclaimed(address, size, write);
    };
  }

  addService(service: Service): void {
    this.#services.push(service);
  }

  removeService(service: Service): void {
    const index = this.#services.indexOf(service);
    if (index >= 0) this.#services.splice(index, 1);
  }

  /** Ends the run at the vCPU's next chance. */
  stop(reason: StopReason): void {
    this.stopping = true;
    this.stopReason ??= reason;
  }

  load(address: number, size: AccessSize): number {
    this.counters.traps++;
    this.clock.now += TRAP_NS;
    const previous = this.trace.cause;
    const low = this.access(address, size);
    this.settle();
    this.trace.leave(previous);
    return low;
  }

  store(address: number, size: AccessSize, lo: number, hi: number): void {
    this.counters.traps++;
    this.clock.now += TRAP_NS;
    const previous = this.trace.cause;
    this.accessStore(address, size, lo, hi);
    this.settle();
    this.trace.leave(previous);
  }

  /** One load on the bus, traced; the caller accounts for time and settles, and restores the trace's cause. */
  access(address: number, size: AccessSize): number {
    const low = this.bus.load(address, size);
    this.high = this.bus.high;
    if (this.trace.on) this.#traceAccess(address, size, false, low, this.high);
    return low;
  }

  /** One store on the bus; as `access`. */
  accessStore(address: number, size: AccessSize, lo: number, hi: number): void {
    if (this.trace.on) this.#traceAccess(address, size, true, lo, hi);
    this.bus.store(address, size, lo, hi);
  }

  /** Fires what is due and does flagged work until there is neither; then checks the time limit. */
  settle(): void {
    const clock = this.clock;
    const services = this.#services;
    // A service may schedule for now, a clock event may flag a service: bounded, so that two that feed each other cannot hang us.
    for (let round = 0; round < 1000; round++) {
      let worked = clock.nextDeadline <= clock.now && clock.fireDue() > 0;
      for (let i = 0; i < services.length; i++) {
        const service = services[i]!;
        if (service.flagged) {
          const previous = this.trace.cause;
          if (this.trace.on && service.cause !== undefined) this.trace.cause = service.cause;
          service.service();
          this.trace.leave(previous);
          worked = true;
        }
      }
      if (!worked) break;
    }
    if (clock.now >= this.timeLimit) this.stop("time-limit");
  }

  wait(): number {
    for (;;) {
      this.settle();
      if (this.stopping) return -2;
      const vector = this.#interrupts.take();
      if (vector >= 0) return vector;
      const deadline = this.clock.nextDeadline;
      if (deadline === Number.POSITIVE_INFINITY) return -1;
      this.clock.advanceTo(Math.min(deadline, this.timeLimit));
    }
  }

  poll(): number {
    this.clock.now += TRAP_NS;
    this.settle();
    return this.#interrupts.take();
  }

  console(bytes: Uint8Array): void {
    this.onConsole(bytes);
  }

  #traceAccess(address: number, size: AccessSize, write: boolean, lo: number, hi: number): void {
    const range = write ? this.bus.find(address) : this.bus.hit;
    const value = size === 8 ? (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0) : BigInt(lo >>> 0);
    this.trace.enter({
      type: "mmio",
      device: range === null ? "nothing" : range.name,
      offset: range === null ? address : address - range.base,
      size,
      write,
      value,
      ...(range?.registerName === undefined ? {} : { register: range.registerName(address - range.base) }),
    });
  }

  saveState(): StateRecord {
    return {
      traps: this.counters.traps,
      unclaimed: this.counters.unclaimed,
      high: this.high,
      stopping: this.stopping,
      stopReason: this.stopReason,
      timeLimit: this.timeLimit,
      unclaimedPages: [...this.#unclaimedPages],
    };
  }

  restoreState(state: StateReader): void {
    this.counters.traps = state.number("traps");
    this.counters.unclaimed = state.number("unclaimed");
    this.high = state.number("high");
    this.stopping = state.boolean("stopping");
    const reason = state.optional("stopReason", (reader, name) => reader.text(name));
    if (reason !== null && reason !== "time-limit" && reason !== "requested") {
      state.fail("stopReason", `is "${reason}", which no machine stops for`);
    }
    this.stopReason = reason;
    this.timeLimit = state.number("timeLimit");
    const pages = state.numberList("unclaimedPages");
    this.#unclaimedPages.clear();
    for (const page of pages) this.#unclaimedPages.add(page);
  }
}

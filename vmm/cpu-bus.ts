// A CPU's loads and stores outside RAM, as traps of its machine: time is brought up to date before, what falls due is done behind, and what they set in
// motion has them as its cause.

import type { AccessSize } from "../host/base/mmio.ts";
import type { Machine } from "./machine.ts";

/** A CPU's loads and stores outside RAM. */
export interface CpuBusPort {
  readonly high: number;
  load(address: number, size: AccessSize): number;
  store(address: number, size: AccessSize, low: number, high: number): void;
}

/** What a bus needs of a machine of CPUs. */
export interface AccessedMachine {
  readonly machine: Machine;
  /** Before an access; returns the CPU's time. */
  beforeAccess(): number;
  /** `before`: what that was. */
  afterAccess(before: number): void;
}

// Not state: the last load's high half
export class CpuBus implements CpuBusPort {
  high = 0;
  readonly #machine: AccessedMachine;

  constructor(machine: AccessedMachine) {
    this.#machine = machine;
  }

  load(address: number, size: AccessSize): number {
    const { machine } = this.#machine;
    const previous = machine.trace.cause;
    const before = this.#machine.beforeAccess();
    const low = machine.access(address, size);
    this.high = machine.high;
    this.#machine.afterAccess(before);
    machine.trace.leave(previous);
    return low;
  }

  store(address: number, size: AccessSize, low: number, high: number): void {
    const { machine } = this.#machine;
    const previous = machine.trace.cause;
    const before = this.#machine.beforeAccess();
    machine.accessStore(address, size, low, high);
    this.#machine.afterAccess(before);
    machine.trace.leave(previous);
  }
}

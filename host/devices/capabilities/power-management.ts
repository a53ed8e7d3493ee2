// Power management (PCI Power Management 1.2 §3.2; PCIe 6.0 §7.5.2): D0 and D3hot. In D3hot a function answers configuration
// accesses only. No_Soft_Reset is set: coming back to D0 keeps the registers.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { ConfigSpace } from "../config-space.ts";
import { type Capability, touched } from "./capability.ts";

const PMC = 2;
const PMCSR = 4;
const VERSION_3 = 3;
const NO_SOFT_RESET = 1 << 3;
const D0 = 0;
const D3HOT = 3;

export class PowerManagementCapability implements Capability, Stateful {
  readonly id = 0x01;
  readonly bytes = 8;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  #state = D0;
  readonly #onChange: () => void;

  /** `onChange` is called when the function enters or leaves D3hot. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  get asleep(): boolean {
    return this.#state !== D0;
  }

  place(config: ConfigSpace, at: number): void {
    this.#config = config;
    this.#at = at;
    config.declare(at + PMC, 2, { value: VERSION_3 });
    config.declare(at + PMCSR, 2, { value: NO_SOFT_RESET, writable: 0x3 });
  }

  written(from: number, to: number): void {
    if (!touched(from, to, PMCSR, 2)) return;
    const config = this.#config!;
    const csr = config.get16(this.#at + PMCSR);
    const wanted = csr & 3;
    // A state that the function does not have is discarded: no state change (PCI PM §3.2.4).
    if (wanted !== D0 && wanted !== D3HOT) {
      config.set16(this.#at + PMCSR, (csr & ~3) | this.#state);
    } else if (wanted !== this.#state) {
      this.#state = wanted;
      this.#onChange();
    }
  }

  reset(): void {
    this.#state = D0;
  }

  saveState(): StateRecord {
    return { state: this.#state };
  }

  restoreState(state: StateReader): void {
    const power = state.number("state");
    if (power !== D0 && power !== D3HOT) state.fail("state", "is neither D0 nor D3hot");
    this.#state = power;
  }
}

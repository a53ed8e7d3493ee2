// The wires of the guest-visible SMMU. The architecture's interrupts are edges (IHI 0070 §3.18): a wire goes up when the SMMU raises its interrupt, and
// comes down when what it was raised for is over, so that a controller that looks at levels sees it as well as one that latches edges.
//
//   event queue         until the queue is empty, or its interrupt is turned off
//   global error        until no error is active, or its interrupt is turned off
//   page requests, CMD_SYNC   a pulse

import { WIRE_EVENTQ, WIRE_GERROR } from "../../../host/arch/smmuv3/parts/interrupts.ts";
import type { SmmuState } from "../../../host/arch/smmuv3/parts/smmu-state.ts";
import { GERROR_BITS, IRQ_EVENTQ, IRQ_GERROR, OVERFLOW_FLAG, REG } from "../../../host/arch/smmuv3/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";

export class Wires implements Stateful {
  readonly #state: SmmuState<GpaPfn>;
  readonly #drive: (vector: number, asserted: boolean) => void;
  /** Bit per wire. */
  #levels = 0;

  constructor(state: SmmuState<GpaPfn>, drive: (vector: number, asserted: boolean) => void) {
    this.#state = state;
    this.#drive = drive;
  }

  /** An interrupt as `Interrupts.onWire` has it: up and down. */
  pulse(wire: number, asserted: boolean): void {
    if (asserted) {
      // Up already: down first, for those that wait for edges.
      this.#set(wire, false);
      this.#set(wire, true);
    } else if (!this.#lasts(wire)) this.#set(wire, false);
  }

  /** What wires were raised for may be over. */
  settle(): void {
    if (this.#levels === 0) return;
    for (let wire = 0; wire < 4; wire++)
      if ((this.#levels & (1 << wire)) !== 0 && !this.#lasts(wire)) this.#set(wire, false);
  }

  #lasts(wire: number): boolean {
    const state = this.#state;
    const enabled = state.reg(REG.IRQ_CTRL);
    if (wire === WIRE_EVENTQ) {
      const apart = (state.reg(REG.EVENTQ_PROD) ^ state.reg(REG.EVENTQ_CONS)) & ~OVERFLOW_FLAG;
      return (enabled & IRQ_EVENTQ) !== 0 && apart !== 0;
    }
    return wire === WIRE_GERROR && (enabled & IRQ_GERROR) !== 0 && state.errorActive(GERROR_BITS);
  }

  #set(wire: number, asserted: boolean): void {
    const bit = 1 << wire;
    if (((this.#levels & bit) !== 0) === asserted) return;
    this.#levels ^= bit;
    this.#drive(wire, asserted);
  }

  saveState(): StateRecord {
    return { levels: this.#levels };
  }

  /** The wires' levels are the interrupt controller's, too: nothing is driven here. */
  restoreState(state: StateReader): void {
    this.#levels = state.number("levels");
  }
}

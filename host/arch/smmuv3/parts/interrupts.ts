// Interrupts and global errors (§3.18, §7.5): edges, by message where one is configured, else by wire.
//
//     queue became non-empty, error became active, CMD_SYNC ─▶ raise ─▶ message (32-bit store) or pulse of a wire
//                                                                       └ aborted: MSI_*_ABT_ERR
//
// A handler may run inside a message's store (interrupt files are store targets) and touch these registers again: what is raised meanwhile waits
// until the first store has returned, so that nothing recurses.

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import {
  GERROR_MSI_CMDQ_ABT_ERR,
  GERROR_MSI_EVENTQ_ABT_ERR,
  GERROR_MSI_GERROR_ABT_ERR,
  GERROR_MSI_PRIQ_ABT_ERR,
  IRQ_EVENTQ,
  IRQ_GERROR,
  IRQ_PRIQ,
  REG,
} from "../registers.ts";
import type { SmmuState } from "./smmu-state.ts";

/** Wires, in the order of the device tree's interrupt names. */
export const WIRE_EVENTQ = 0;
export const WIRE_PRIQ = 1;
export const WIRE_SYNC = 2;
export const WIRE_GERROR = 3;
/** Of the CMDQV beside it. */
export const WIRE_CMDQV = 4;

const ENABLES = [IRQ_EVENTQ, IRQ_PRIQ, 0, IRQ_GERROR] as const;
const CONFIGURATIONS = [REG.EVENTQ_IRQ_CFG0, REG.PRIQ_IRQ_CFG0, 0, REG.GERROR_IRQ_CFG0] as const;
const ABORTS = [
  GERROR_MSI_EVENTQ_ABT_ERR,
  GERROR_MSI_PRIQ_ABT_ERR,
  GERROR_MSI_CMDQ_ABT_ERR,
  GERROR_MSI_GERROR_ABT_ERR,
] as const;
const NAMES = ["event queue", "page-request queue", "CMD_SYNC", "global error", "CMDQV error"] as const;

export class Interrupts implements Stateful {
  onWire: (vector: number, asserted: boolean) => void = () => {}; // not state: wiring
  /** Takes the messages of queues and errors; false if nothing is there. CMD_SYNC's are stores to memory whatever this is. */
  onMessage: (pfn: number, offset: number, data: number) => boolean; // not state: wiring
  readonly #state: SmmuState<number>;
  /** Raised while another was being delivered, by wire number. */
  #due = 0;
  #sending = false; // not state: within a call

  constructor(state: SmmuState<number>) {
    this.#state = state;
    this.onMessage = (pfn, offset, data) => state.storeWord(pfn, offset, data);
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

  /** An event queue or page-request queue condition, or a global error, arose. What happens while its interrupt is off never fires later. */
  raise(wire: number): void {
    if ((this.#state.reg(REG.IRQ_CTRL) & ENABLES[wire]!) === 0) return;
    this.#due |= 1 << wire;
    this.sendDue();
  }

  /** Makes errors active that are not (§7.5); the interrupt is for all but an aborted GERROR message. */
  error(bit: number): void {
    const state = this.#state;
    if (state.errorActive(bit)) return;
    state.setReg(REG.GERROR, state.reg(REG.GERROR) ^ bit);
    if (bit !== GERROR_MSI_GERROR_ABT_ERR) this.raise(WIRE_GERROR);
  }

  /** An error of one of the CMDQV's queues. */
  cmdqvError(): void {
    this.#pulse(WIRE_CMDQV);
  }

  /** CMD_SYNC's completion signal: a message where an address is given, else the wire. */
  completeSync(pfn: number, offset: number, data: number): void {
    if (pfn !== 0 || offset !== 0) this.#store(WIRE_SYNC, pfn, offset, data);
    else this.#pulse(WIRE_SYNC);
  }

  /** Sends what was raised while another was being delivered. Bounded: a handler that never lets go is served again at the next step only. */
  sendDue(): void {
    if (this.#sending) return;
    this.#sending = true;
    for (let round = 0; round < 4 && this.#due !== 0; round++) {
      const due = this.#due;
      this.#due = 0;
      for (let wire = 0; wire < 4; wire++) if ((due & (1 << wire)) !== 0) this.#send(wire);
    }
    this.#sending = false;
  }

  #send(wire: number): void {
    const state = this.#state;
    const configuration = CONFIGURATIONS[wire]!;
    const low = state.reg(configuration);
    const high = state.reg(configuration + 4);
    if (low === 0 && high === 0) this.#pulse(wire);
    else this.#store(wire, high * 0x100000 + (low >>> 12), low & 0xffc, state.reg(configuration + 8));
  }

  #pulse(wire: number): void {
    this.#tell(wire, "wire");
    this.onWire(wire, true);
    this.onWire(wire, false);
  }

  #store(wire: number, pfn: number, offset: number, data: number): void {
    this.#tell(wire, "MSI");
    const state = this.#state;
    const stored = wire === WIRE_SYNC ? state.storeWord(pfn, offset, data) : this.onMessage(pfn, offset, data);
    if (!stored) this.error(ABORTS[wire]!);
  }

  #tell(wire: number, how: string): void {
    const { trace, name, where } = this.#state;
    if (trace.on) trace.emit({ type: "irq", where, source: `${name} ${NAMES[wire]!} (${how})`, vector: wire });
  }
}

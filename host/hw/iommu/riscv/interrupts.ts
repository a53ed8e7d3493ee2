// Interrupts of the IOMMU itself: ipsr, icvec, the MSI table, wires (§6.18, §6.28, §6.29).
//
//     event ─▶ raise(cause) ─▶ ipsr bit 0→1 ─┬─ fctl.WSI=1: wire icvec.*iv follows the bit
//                                            └─ fctl.WSI=0: one MSI, held back while its vector is masked
//
// No second message is sent while the bit stays 1. A handler may run inside a message's store (the machine's interrupt files are
// store targets) and touch these registers again: messages raised meanwhile wait until the first store has returned, so that
// nothing recurses.

import {
  CQCSR_CMD_ILL,
  CQCSR_CMD_TO,
  CQCSR_FENCE_W_IP,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_OVERFLOW,
  IPSR_CIP,
  IPSR_FIP,
  IPSR_PIP,
  IPSR_PMIP,
  REG,
} from "../../../arch/riscv/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { HardwareState } from "./hardware-state.ts";

const CAUSES = [IPSR_CIP, IPSR_FIP, IPSR_PMIP, IPSR_PIP] as const;
const CAUSE_TEXT = ["command queue", "fault queue", "performance monitor", "page-request queue"] as const;
const COMMAND_CONDITIONS = CSR_MEMORY_FAULT | CQCSR_CMD_TO | CQCSR_CMD_ILL | CQCSR_FENCE_W_IP;
const QUEUE_CONDITIONS = CSR_MEMORY_FAULT | CSR_OVERFLOW;

export class Interrupts implements Stateful {
  onWire: (vector: number, asserted: boolean) => void = () => {}; // not state: wiring
  /** Told when a message could not be stored, with its address; wired by the IOMMU (cause 273). */
  onMessageFault: (pfn: number, offset: number) => void = () => {}; // not state: wiring
  readonly #state: HardwareState;
  /** Vectors whose message waits for its mask bit (§6.29), and those whose message waits for the one being sent. */
  #held = 0;
  #due = 0;
  #sending = false; // not state: within a call
  /** Levels the wires should have, and have. */
  #wires = 0;
  #driven = 0;
  #driving = false; // not state: within a call

  constructor(state: HardwareState) {
    this.#state = state;
  }

  /** Vectors implemented. */
  get vectors(): number {
    return 1 << this.#state.configuration.vectorBits;
  }

  reset(): void {
    this.#held = 0;
    this.#due = 0;
    this.#driveWires();
  }

  /** A cause (one ipsr bit) arose. */
  raise(cause: number): void {
    const state = this.#state;
    const ipsr = state.reg(REG.ipsr);
    if ((ipsr & cause) !== 0) return;
    state.setReg(REG.ipsr, ipsr | cause);
    this.#signal(cause);
  }

  /** Sets the bits whose level condition holds (§6.18); called after anything that can make one true. */
  evaluate(): void {
    const state = this.#state;
    const cqcsr = state.reg(REG.cqcsr);
    if ((cqcsr & CSR_INTERRUPT_ENABLE) !== 0 && (cqcsr & COMMAND_CONDITIONS) !== 0) this.raise(IPSR_CIP);
    const fqcsr = state.reg(REG.fqcsr);
    if ((fqcsr & CSR_INTERRUPT_ENABLE) !== 0 && (fqcsr & QUEUE_CONDITIONS) !== 0) this.raise(IPSR_FIP);
    const pqcsr = state.reg(REG.pqcsr);
    if ((pqcsr & CSR_INTERRUPT_ENABLE) !== 0 && (pqcsr & QUEUE_CONDITIONS) !== 0) this.raise(IPSR_PIP);
  }

  /** Software wrote ipsr: ones clear, and conditions that still hold set the bit again at once. */
  acknowledge(bits: number): void {
    this.#state.setReg(REG.ipsr, this.#state.reg(REG.ipsr) & ~bits);
    this.#driveWires();
    this.evaluate();
  }

  /** A mask bit of the MSI table changed, or fctl.WSI, or icvec. */
  tableChanged(): void {
    this.#driveWires();
    this.#flush();
  }

  /** The vector of an ipsr bit. */
  vectorOf(cause: number): number {
    const icvec = this.#state.reg(REG.icvec);
    const field = cause === IPSR_CIP ? 0 : cause === IPSR_FIP ? 4 : cause === IPSR_PMIP ? 8 : 12;
    return (icvec >>> field) & 0xf;
  }

  get #wired(): boolean {
    return (this.#state.reg(REG.fctl) & 2) !== 0;
  }

  #signal(cause: number): void {
    const vector = this.vectorOf(cause);
    if (this.#wired) {
      const trace = this.#state.trace;
      if (trace.on) {
        const source = `${this.#state.name} ${CAUSE_TEXT[CAUSES.indexOf(cause as 1)] ?? ""} (wire)`;
        trace.emit({ type: "irq", where: "host", source, vector });
      }
      this.#driveWires();
      return;
    }
    this.#due |= 1 << vector;
    this.#flush();
  }

  /**
   * Brings the wires to what ipsr says. A handler may run inside `onWire` and change ipsr: the loop goes by what holds then, a nested
   * call leaves the work to it, and a handler that never lets go is served again at the next step only.
   */
  #driveWires(): void {
    let wires = 0;
    if (this.#wired) {
      const ipsr = this.#state.reg(REG.ipsr);
      for (const cause of CAUSES) if ((ipsr & cause) !== 0) wires |= 1 << this.vectorOf(cause);
    }
    this.#wires = wires;
    if (this.#driving) return;
    this.#driving = true;
    for (let round = 0; round < 4 && this.#driven !== this.#wires; round++) {
      for (let vector = 0; vector < 16; vector++) {
        const bit = 1 << vector;
        if (((this.#driven ^ this.#wires) & bit) === 0) continue;
        this.#driven ^= bit;
        this.onWire(vector, (this.#driven & bit) !== 0);
      }
    }
    this.#driving = false;
  }

  /** Sends what is due and not masked. Bounded: what a handler raises during a store is sent once more at most, then left due. */
  #flush(): void {
    if (this.#sending || this.#wired) return;
    this.#sending = true;
    for (let round = 0; round < 4; round++) {
      const ready = this.#due | this.#held;
      this.#due = 0;
      this.#held = 0;
      if (ready === 0) break;
      for (let vector = 0; vector < 16; vector++) {
        if ((ready & (1 << vector)) === 0) continue;
        const entry = REG.msi_cfg_tbl + vector * 16;
        if ((this.#state.reg(entry + 12) & 1) !== 0) this.#held |= 1 << vector;
        else this.#send(vector, entry);
      }
      if (this.#due === 0) break;
    }
    this.#sending = false;
  }

  /** Messages and levels still due (raised while another was being delivered) go out at the next step. */
  sendDue(): void {
    if (this.#due !== 0) this.#flush();
    if (this.#driven !== this.#wires) this.#driveWires();
  }

  #send(vector: number, entry: number): void {
    const state = this.#state;
    const low = state.reg(entry);
    const high = state.reg(entry + 4);
    if (state.trace.on) {
      state.trace.emit({ type: "irq", where: "host", source: `${state.name} (MSI)`, vector });
    }
    const pfn = high * 0x100000 + (low >>> 12);
    const status =
      pfn >= state.frameLimit
        ? 1
        : state.memory.store32(pfn as HpaPfn, low & 0xffc, state.ordered(state.reg(entry + 8)));
    if (status !== ACCESS_OK) this.onMessageFault(pfn, low & 0xffc);
  }

  saveState(): StateRecord {
    return {
      held: this.#held,
      due: this.#due,
      wires: this.#wires,
      driven: this.#driven,
    };
  }

  restoreState(state: StateReader): void {
    this.#held = state.number("held");
    this.#due = state.number("due");
    this.#wires = state.number("wires");
    this.#driven = state.number("driven");
  }
}

// The vIOMMU's own interrupts (§6.18, 6.28, 6.29): ipsr, and from it wires or messages.
//
//   condition (queue error, record written) → ipsr bit 0→1 → fctl.WSI=1: wire icvec.*iv follows the bits mapped to it
//                                                         → fctl.WSI=0: one message from msi_cfg_tbl entry icvec.*iv, held while M=1
//
// No second message while a bit stays 1. A message is a 4-byte store at a guest-physical address; one that nobody takes is a fault
// record (cause 273), which may raise fip and so at most one more message: it ends there.

import { type GpaPfn, hex, pfnOfHalves } from "../../../host/base/address.ts";
import { ACCESS_OK } from "../../../host/base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import type { ViommuInterruptPort } from "../kind.ts";
import { FCTL_WSI, type RegisterFile, WORD } from "./registers.ts";

/** Bits of ipsr (§6.18). */
export const CIP = 1;
export const FIP = 2;
export const PIP = 8;

const SOURCES: readonly { readonly bit: number; readonly shift: number; readonly name: string }[] = [
  { bit: CIP, shift: 0, name: "command-queue" },
  { bit: FIP, shift: 4, name: "fault-queue" },
  { bit: PIP, shift: 12, name: "page-request-queue" },
];

export class Interrupts implements Stateful {
  /** Called with a message's address when its store was refused (cause 273). */
  onMessageFault: (addressLow: number, addressHigh: number) => void = () => {}; // not state: wiring
  readonly #registers: RegisterFile;
  readonly #port: ViommuInterruptPort;
  readonly #trace: Trace;
  readonly #name: string;
  #wires = 0;
  #held = 0;

  constructor(registers: RegisterFile, port: ViommuInterruptPort, trace: Trace, name: string) {
    this.#registers = registers;
    this.#port = port;
    this.#trace = trace;
    this.#name = name;
  }

  /** A condition holds: sets its ipsr bit; a 0→1 is an interrupt. */
  raise(bit: number): void {
    const words = this.#registers.words;
    const ipsr = words[WORD.IPSR]!;
    if ((ipsr & bit) !== 0) return;
    words[WORD.IPSR] = ipsr | bit;
    if ((words[WORD.FCTL]! & FCTL_WSI) !== 0) {
      this.updateWires();
      return;
    }
    const source = SOURCES.find((entry) => entry.bit === bit)!;
    const vector = (words[WORD.ICVEC]! >>> source.shift) & 15;
    if ((words[WORD.MSI_CFG_TBL + 4 * vector + 3]! & 1) !== 0) {
      this.#held |= 1 << vector;
    } else {
      this.#send(vector, source.name);
    }
  }

  /** Wires follow ipsr, icvec and fctl.WSI. */
  updateWires(): void {
    const words = this.#registers.words;
    const ipsr = words[WORD.IPSR]!;
    let wires = 0;
    if ((words[WORD.FCTL]! & FCTL_WSI) !== 0) {
      for (const source of SOURCES) {
        if ((ipsr & source.bit) !== 0) wires |= 1 << ((words[WORD.ICVEC]! >>> source.shift) & 15);
      }
    }
    const changed = wires ^ this.#wires;
    this.#wires = wires;
    for (let vector = 0; changed >>> vector !== 0; vector++) {
      if (((changed >>> vector) & 1) === 0) continue;
      const asserted = ((wires >>> vector) & 1) === 1;
      if (asserted && this.#trace.on) {
        this.#trace.emit({ type: "irq", where: "guest", source: `${this.#name} wire`, vector });
      }
      this.#port.wire(vector, asserted);
    }
  }

  /** After a write of vec_ctl: a message held while M was 1 leaves now. */
  unmasked(vector: number): void {
    if ((this.#registers.words[WORD.MSI_CFG_TBL + 4 * vector + 3]! & 1) !== 0) return;
    if ((this.#held & (1 << vector)) === 0) return;
    this.#held &= ~(1 << vector);
    this.#send(vector, "unmasked");
  }

  reset(): void {
    this.#held = 0;
    this.updateWires();
  }

  #send(vector: number, source: string): void {
    const words = this.#registers.words;
    const entry = WORD.MSI_CFG_TBL + 4 * vector;
    const low = words[entry]!;
    const high = words[entry + 1]!;
    const pfn = pfnOfHalves(low, high) as GpaPfn;
    if (this.#trace.on) {
      const address = hex((BigInt(high) << 32n) | BigInt(low));
      this.#trace.emit({
        type: "irq",
        where: "guest",
        source: `${this.#name} ${source} message to ${address}`,
        vector,
      });
    }
    const status = this.#port.message(pfn, low & 0xfff, words[entry + 2]!);
    if (status !== ACCESS_OK) this.onMessageFault(low, high);
  }

  saveState(): StateRecord {
    return { wires: this.#wires, held: this.#held };
  }

  /** The wires' levels are the interrupt controller's, too: nothing is driven here. */
  restoreState(state: StateReader): void {
    this.#wires = state.number("wires");
    this.#held = state.number("held");
  }
}

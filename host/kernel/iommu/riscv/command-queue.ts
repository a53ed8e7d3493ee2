// The driver's side of the command queue (§4.1): commands are stored at the tail, and every group of them ends in an IOFENCE.C that
// the driver waits for by looking at the head register (Linux does the same; it uses no completion interrupt).
//
// A full ring is fenced and waited for in between, so a group may be of any length. When the queue stops:
//     cmd_to    an ATS invalidation timed out: the bit is cleared, the fence runs again, the group reports -ETIMEDOUT
//     cmd_ill   a command the hardware does not take (a bug of ours, or of the model): it is made a fence of its own, -EIO
//     cqmf      the queue's memory could not be read: cleared and tried again, -EIO
// A queue that does not go on even so, or does not answer in time, is dead.

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import {
  CQCSR_CMD_ILL,
  CQCSR_CMD_TO,
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  REG,
} from "../../../arch/riscv/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import { EIO, ETIMEDOUT } from "../../../uapi/errno.ts";
import type { WaitingCall } from "../wait.ts";

/** How long a fence may take: Linux gives it 90 s. */
export const FENCE_TIMEOUT_NS = 90e9;
const ERRORS = CSR_MEMORY_FAULT | CQCSR_CMD_TO | CQCSR_CMD_ILL;
const low = (word: bigint): number => Number(word & 0xffffffffn);
const high = (word: bigint): number => Number((word >> 32n) & 0xffffffffn);
const [FENCE] = encodeCommand("IOFENCE.C", { PR: 1, PW: 1 });
const FENCE_LOW = low(FENCE);
const FENCE_HIGH = high(FENCE);

export class CommandQueue implements Stateful {
  readonly #hardware: HardwareIommu;
  readonly #memory: PhysicalMemory<HpaPfn>;
  readonly #base: HpaPfn;
  readonly #entries: number;
  readonly #wait: WaitingCall;
  #tail = 0;
  /** Commands stored since the last fence. */
  #unfenced = 0;
  /** First error since the last `fence`. */
  #error = 0;
  /** Times the queue stopped with an error, for `inspect`. */
  errors = 0;
  /** The hardware no longer takes commands: everything answers -EIO from now on. */
  #dead = false;
  /** What a fence waits for; made once. */
  readonly #done = (): boolean => this.#head() === this.#tail || (this.#status() & ERRORS) !== 0;

  constructor(
    hardware: HardwareIommu,
    memory: PhysicalMemory<HpaPfn>,
    base: HpaPfn,
    entries: number,
    wait: WaitingCall,
  ) {
    this.#hardware = hardware;
    this.#memory = memory;
    this.#base = base;
    this.#entries = entries;
    this.#wait = wait;
  }

  /** Stores a command; nothing reaches the hardware before `fence` (or a full ring). */
  push(command: readonly [bigint, bigint]): void {
    const [first, second] = command;
    this.pushHalves(low(first), high(first), low(second), high(second));
  }

  /** A command as four words, lowest first. */
  pushHalves(w0: number, w1: number, w2: number, w3: number): void {
    if (this.#dead) return;
    // One entry stays free, one is kept for the fence.
    if (this.#unfenced >= this.#entries - 2) {
      const result = this.#fence();
      if (this.#error === 0) this.#error = result;
    }
    this.#put(w0, w1, w2, w3);
    this.#unfenced++;
  }

  /** Waits until all commands stored so far have completed: 0, -ETIMEDOUT (ATS or the queue itself) or -EIO. */
  fence(): number {
    const result = this.#fence();
    const first = this.#error;
    this.#error = 0;
    return first !== 0 ? first : result;
  }

  #put(w0: number, w1: number, w2: number, w3: number): void {
    const at = this.#tail * 16;
    this.#memory.storeEntry((this.#base + (at >> 12)) as HpaPfn, at & 4095, w0, w1, w2, w3);
    this.#tail = (this.#tail + 1) & (this.#entries - 1);
  }

  #fence(): number {
    if (this.#dead) return -EIO;
    if (this.#unfenced === 0) return 0;
    this.#put(FENCE_LOW, FENCE_HIGH, 0, 0);
    this.#unfenced = 0;
    this.#hardware.registers.mmioWrite(REG.cqt, 4, this.#tail, 0);
    // As a rule it is done at once.
    this.#hardware.drain();
    return this.#head() === this.#tail ? 0 : this.#waitForFence();
  }

  /** Waits through errors of the queue, one for each entry at most. */
  #waitForFence(): number {
    let result = 0;
    for (let attempt = 0; attempt < this.#entries + 2; attempt++) {
      const answered = this.#wait(this.#hardware, this.#done, FENCE_TIMEOUT_NS);
      if (this.#head() === this.#tail) return result;
      this.errors++;
      if (!answered) break;
      const stopped = this.#recover();
      if (result === 0) result = stopped;
    }
    this.#dead = true;
    return -EIO;
  }

  /** Clears what stopped the queue; the errno it means. */
  #recover(): number {
    const status = this.#status();
    if ((status & CQCSR_CMD_ILL) !== 0) {
      const at = this.#head();
      const tail = this.#tail;
      this.#tail = at;
      this.#put(FENCE_LOW, FENCE_HIGH, 0, 0);
      this.#tail = tail;
    }
    const keep = CSR_ENABLE | CSR_INTERRUPT_ENABLE;
    this.#hardware.registers.mmioWrite(REG.cqcsr, 4, (status & keep) | (status & ERRORS), 0);
    return (status & CQCSR_CMD_TO) !== 0 && (status & (CQCSR_CMD_ILL | CSR_MEMORY_FAULT)) === 0 ? -ETIMEDOUT : -EIO;
  }

  #head(): number {
    return this.#hardware.registers.mmioRead(REG.cqh, 4);
  }

  #status(): number {
    return this.#hardware.registers.mmioRead(REG.cqcsr, 4);
  }

  /** The ring itself is in memory. */
  saveState(): StateRecord {
    return { tail: this.#tail, unfenced: this.#unfenced, error: this.#error, errors: this.errors, dead: this.#dead };
  }

  restoreState(state: StateReader): void {
    this.#tail = state.number("tail");
    this.#unfenced = state.number("unfenced");
    this.#error = state.number("error");
    this.errors = state.number("errors");
    this.#dead = state.boolean("dead");
  }
}

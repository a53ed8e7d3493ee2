// The CMDQV as one piece of hardware beside its SMMU: registers (host/arch/smmuv3/parts/cmdqv-registers.ts), queues, interrupt, and whose turn it is.
//
//     store to PROD (any view) ─▶ kicked ─ clock, 100 ns ─▶ a batch of each queue with something to fetch, and again while there is
//                                                      └ drain(): all that is the hypervisor's, for a kernel that waits
//     error ─▶ error maps (follow from GERROR and GERRORN) ─▶ edge of the wire, unless VINTF_INT_MASK

import { CmdqvRegisters } from "../../../../arch/smmuv3/parts/cmdqv-registers.ts";
import type { Interrupts } from "../../../../arch/smmuv3/parts/interrupts.ts";
import type { ClockEvent } from "../../../../base/clock.ts";
import type { AccessSize } from "../../../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../../base/state.ts";
import type { AtsInvalidations } from "../../ats-invalidations.ts";
import type { CommandExecutor } from "../command-executor.ts";
import type { HardwareState } from "../hardware-state.ts";
import type { CmdqvConfiguration } from "./options.ts";
import type { CmdqvHardware } from "./port.ts";
import { DONE, type VcmdqEvents, Vcmdqs, WAITING } from "./vcmdqs.ts";

/** CMDQV_PARAM.VER. */
const VERSION = 1;
const WORK_DELAY_NS = 100;
/** Commands of one queue before the next one's turn. */
const BATCH = 64;

export class Cmdqv implements CmdqvHardware, Stateful, VcmdqEvents {
  readonly clockEvents: readonly ClockEvent[];
  readonly vcmdqs: Vcmdqs;
  readonly #registers: CmdqvRegisters;
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  readonly #ats: AtsInvalidations;
  readonly #work: ClockEvent;
  #scheduled = 0;
  /** The last scheduling was for the end of a wait only: a kick may bring it forward. */
  #waits = false;
  /** Queue whose turn is next in `step`. */
  #turn = 0;
  #draining = false; // not state: within a call

  constructor(
    configuration: CmdqvConfiguration,
    state: HardwareState,
    executor: CommandExecutor,
    ats: AtsInvalidations,
    interrupts: Interrupts,
  ) {
    this.#state = state;
    this.#ats = ats;
    this.#interrupts = interrupts;
    this.#registers = new CmdqvRegisters({ version: VERSION, ...configuration }, true);
    this.vcmdqs = new Vcmdqs(1 << configuration.log2vcmdqs, state, executor, ats, this.#registers, this);
    this.#registers.queues = this.vcmdqs;
    this.#work = { owner: `iommu ${state.name} cmdqv`, name: "work", fire: () => this.#workDue() };
    this.clockEvents = [this.#work];
  }

  get registerBytes(): number {
    return this.#registers.registerBytes;
  }

  /** High half of the last 8-byte register read. */
  get high(): number {
    return this.#registers.high;
  }

  mmioRead(offset: number, size: AccessSize): number {
    return this.#registers.mmioRead(offset, size);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#registers.mmioWrite(offset, size, lo, hi);
  }

  saveState(): StateRecord {
    return { scheduled: this.#scheduled, waits: this.#waits, turn: this.#turn };
  }

  restoreState(state: StateReader): void {
    this.#scheduled = state.number("scheduled");
    this.#waits = state.boolean("waits");
    this.#turn = state.number("turn");
  }

  *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["registers", this.#registers];
    yield ["vcmdqs", this.vcmdqs];
  }

  reset(): void {
    this.#registers.reset();
    this.vcmdqs.reset();
    this.#state.clock.cancel(this.#scheduled);
    this.#scheduled = 0;
    this.#waits = false;
    this.#turn = 0;
  }

  failed(queue: number): void {
    if (!this.#registers.isSilent(queue)) this.#interrupts.cmdqvError();
  }

  // --- work --------------------------------------------------------------------------------------------------------------------

  kicked(): void {
    if (this.#waits) {
      this.#state.clock.cancel(this.#scheduled);
      this.#scheduled = 0;
      this.#waits = false;
    }
    if (this.#scheduled === 0) this.#scheduled = this.#state.clock.schedule(WORK_DELAY_NS, this.#work);
  }

  /** An ATS invalidation was completed: what waits for it is looked at again. */
  invalidationCompleted(): void {
    if (this.#waits) this.kicked();
  }

  /** One command of the queue whose turn it is. */
  step(): boolean {
    for (let tried = 0; tried < this.vcmdqs.count; tried++) {
      const queue = this.#turn;
      this.#turn = (this.#turn + 1) % this.vcmdqs.count;
      if (this.vcmdqs.step(queue) === DONE) return true;
    }
    return false;
  }

  /** The hypervisor's queues until there is nothing left to do in them; a guest's are nobody's to wait for. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    for (let vintf = 0; vintf < this.#registers.vintfs.count; vintf++) {
      if (!this.#registers.vintfs.hypervisorOwned(vintf)) continue;
      for (let logical = 0; logical < this.#registers.allocation.count(vintf); logical++) {
        const queue = this.#registers.allocation.queueOf(vintf, logical);
        for (let left = this.vcmdqs.ready(queue); left > 0 && this.vcmdqs.step(queue) === DONE; left--) {}
      }
    }
    this.#draining = false;
  }

  #workDue(): void {
    this.#scheduled = 0;
    this.#waits = false;
    let more = false;
    let waiting = false;
    for (let queue = 0; queue < this.vcmdqs.count; queue++) {
      let outcome: number = DONE;
      for (let left = BATCH; left > 0 && outcome === DONE; left--) outcome = this.vcmdqs.step(queue);
      more ||= outcome === DONE;
      waiting ||= outcome === WAITING;
    }
    if (more) {
      this.kicked();
      return;
    }
    const deadline = this.#ats.nextDeadline;
    if (!waiting || deadline === Number.POSITIVE_INFINITY || this.#scheduled !== 0) return;
    this.#waits = true;
    this.#scheduled = this.#state.clock.schedule(Math.max(0, deadline - this.#state.clock.now), this.#work);
  }
}

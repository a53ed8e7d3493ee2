// The command queue (§3.5, §4, §7.1): fetches commands in order and executes them one at a time.
//
//     CMDQ_PROD write ─ latched ─▶ step(): fetch at CONS ─▶ execute ─┬─ done: CONS moves on
//                                                                   ├─ error: ERR is written, CONS stays, CMDQ_ERR becomes active
//                                                                   └─ must wait (ATS): CONS stays, step() returns false
//
// Each command is wholly executed before the next, except ATC_INV, which is outstanding until its completions are in; only CMD_SYNC waits for those.

import { commandName, describeCommand } from "../../../arch/smmuv3/commands.ts";
import type { Interrupts } from "../../../arch/smmuv3/parts/interrupts.ts";
import { CERROR_ABT, CERROR_NONE, CR0_CMDQEN, GERROR_CMDQ_ERR, REG } from "../../../arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { EntryReader } from "../../../base/entry-reader.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { type CommandExecutor, WAIT } from "./command-executor.ts";
import type { HardwareState } from "./hardware-state.ts";

const COMMAND_BYTES = 16;

export class CommandQueue implements Stateful {
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  readonly #executor: CommandExecutor;
  /** Leaves the command at CONS in its words. */
  readonly #entry: EntryReader<HpaPfn>;
  #executing = false; // not state: within a call
  /** Software switched the queue meanwhile: CONS is not ours to move. */
  #switched = false; // not state: within a call
  /** The command waiting at CONS has been traced already. */
  #traced = false;

  constructor(state: HardwareState, interrupts: Interrupts, executor: CommandExecutor) {
    this.#state = state;
    this.#entry = new EntryReader(state.memory);
    this.#interrupts = interrupts;
    this.#executor = executor;
  }

  saveState(): StateRecord {
    return { traced: this.#traced };
  }

  restoreState(state: StateReader): void {
    this.#traced = state.boolean("traced");
  }

  reset(): void {
    this.#traced = false;
    this.#switched = true;
  }

  /** CMDQEN changed. */
  switched(): void {
    this.#switched = true;
    this.#traced = false;
  }

  /** Commands that could be fetched now; 0 too where PROD and CONS cannot be those of one queue. */
  get ready(): number {
    const state = this.#state;
    if ((state.reg(REG.CR0) & CR0_CMDQEN) === 0 || state.commandErrorActive) return 0;
    const entries = this.entries;
    const waiting = (state.reg(REG.CMDQ_PROD) - state.reg(REG.CMDQ_CONS)) & (2 * entries - 1);
    return waiting > entries ? 0 : waiting;
  }

  /** Entries that the queue has. */
  get entries(): number {
    return 1 << this.#state.queueLog2(REG.CMDQ_BASE, this.#state.features.CMDQS);
  }

  /** Executes the TLB invalidations at CONS, one behind the other, at most `limit`: how many, none while somebody watches. */
  runTlbis(limit: number): number {
    const state = this.#state;
    if (this.#executing || state.trace.on) return 0;
    const waiting = this.ready;
    if (waiting === 0) return 0;
    const entries = this.entries;
    const cons = state.reg(REG.CMDQ_CONS) & (2 * entries - 1);
    const index = cons & (entries - 1);
    const log2 = state.queueLog2(REG.CMDQ_BASE, state.features.CMDQS);
    const pfn = state.entryFrame(REG.CMDQ_BASE, log2, COMMAND_BYTES, index);
    const run = Math.min(waiting, entries - index, limit);
    // Frames that may be beyond what there is of addresses: one by one.
    const at = pfn + (run >>> 8) + 1 < state.frameLimit ? this.#entry.find(pfn as HpaPfn, state.entryOffset, run) : -1;
    const done = at < 0 ? 0 : this.#executor.executeTlbis(this.#entry.words, at, run, 0);
    if (done === 0) return 0;
    state.setReg(REG.CMDQ_CONS, (cons + done) & (2 * entries - 1));
    this.#traced = false;
    return done;
  }

  /** Executes the command at CONS. False when there is none, the queue is stopped, or the command must wait. */
  step(): boolean {
    if (this.#executing || this.ready === 0) return false;
    const state = this.#state;
    const entries = this.entries;
    const cons = state.reg(REG.CMDQ_CONS) & (2 * entries - 1);
    const pfn = state.entryFrame(
      REG.CMDQ_BASE,
      state.queueLog2(REG.CMDQ_BASE, state.features.CMDQS),
      COMMAND_BYTES,
      cons & (entries - 1),
    );
    const entry = this.#entry;
    if (pfn >= state.frameLimit || entry.load(pfn as HpaPfn, state.entryOffset) !== ACCESS_OK) {
      this.#stop(cons, CERROR_ABT);
      return true;
    }
    let cause = -1;
    if (state.trace.on && !this.#traced) {
      const words = [word(entry.w0, entry.w1), word(entry.w2, entry.w3)] as const;
      const name = commandName(words[0]) ?? "illegal";
      const text = describeCommand(words[0], words[1]);
      cause = state.trace.enter({ type: "command", where: "host", iommu: state.name, name, words, text });
    }
    this.#executing = true;
    this.#switched = false;
    const { w1, w2, w3 } = entry;
    const outcome = this.#executor.execute(entry.w0, w1, w2, w3, 0);
    this.#executing = false;
    this.#traced = outcome === WAIT;
    if (!this.#switched && outcome === CERROR_NONE) {
      state.setReg(REG.CMDQ_CONS, (cons + 1) & (2 * entries - 1));
      // §4.6.3: CONS has passed the command when its signal is seen; a message may even overwrite the command.
      if (this.#executor.signals) this.#signal(w1, w2, w3);
    } else if (!this.#switched && outcome !== WAIT) this.#stop(cons, outcome);
    if (cause >= 0) state.trace.leave(cause);
    return outcome !== WAIT;
  }

  /** §7.1: first ERR, then CMDQ_ERR. */
  #stop(cons: number, error: number): void {
    this.#traced = false;
    this.#state.setReg(REG.CMDQ_CONS, (cons | (error << 24)) >>> 0);
    this.#interrupts.error(GERROR_CMDQ_ERR);
  }

  #signal(data: number, low: number, high: number): void {
    const frame = (high & 0xffffff) * 0x100000 + (low >>> 12);
    const hasMessage = this.#state.features.MSI;
    this.#interrupts.completeSync(hasMessage ? frame : 0, hasMessage ? low & 0xffc : 0, data);
  }
}

function word(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

// Virtual command queues: their registers, and the fetch of their commands. What a command does is the SMMU's (../command-executor.ts).
//
//     PROD, CONFIG, GERRORN ─▶ step(queue): fetch at CONS ─▶ a guest's? admit, VMID, SID ─▶ execute ─┬─ done: CONS moves on
//                                                                                                 ├─ error: CONS.ERR, then GERROR; the queue stops
//                                                                                                 └─ must wait (ATS): CONS stays
//
// A queue runs (STATUS) while CMDQV_CONFIG, its VINTF and its own CONFIG are enabled and CMDQ_ALLOC gives it to that VINTF. While it runs its base and
// CONS are the hardware's. Nothing of a queue but its commands touches what it shares with others: errors stay in its own GERROR.

import { CMD_SYNC, commandName, describeCommand } from "../../../../arch/smmuv3/commands.ts";
import type { QueueAllocation } from "../../../../arch/smmuv3/parts/cmdqv-allocation.ts";
import type { CmdqvRegisters, QueueRegisters } from "../../../../arch/smmuv3/parts/cmdqv-registers.ts";
import type { Vintfs } from "../../../../arch/smmuv3/parts/cmdqv-vintfs.ts";
import { CERROR_ABT, CERROR_ILL, CERROR_NONE } from "../../../../arch/smmuv3/registers.ts";
import {
  VCMDQ_CMDQ_ERR,
  VCMDQ_EN,
  VCMDQ_GERROR_BITS,
  VCMDQ_INIT_ERR,
  VCMDQ_PAGE1_REG,
  VCMDQ_REG,
} from "../../../../arch/smmuv3/tegra241-cmdqv.ts";
import type { HpaPfn } from "../../../../base/address.ts";
import { EntryReader } from "../../../../base/entry-reader.ts";
import { ACCESS_OK } from "../../../../base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../../base/state.ts";
import type { AtsInvalidations } from "../../ats-invalidations.ts";
import { type CommandExecutor, WAIT } from "../command-executor.ts";
import type { HardwareState } from "../hardware-state.ts";
import { GuestCommands } from "./guest-commands.ts";

const COMMAND_BYTES = 16;
/** Words a queue keeps: page 0's six, then page 1's four. */
const WORDS = 10;
const PAGE1_WORD = 6;
const CONS_BITS = 0x7f0fffff;

/** What a step came to. */
export const IDLE = 0;
export const DONE = 1;
export const WAITING = 2;
export type StepOutcome = typeof IDLE | typeof DONE | typeof WAITING;

export interface VcmdqEvents {
  /** An error of the queue became active. */
  failed(queue: number): void;
  /** There may be commands to fetch. */
  kicked(): void;
}

export class Vcmdqs implements QueueRegisters, Stateful {
  readonly count: number;
  readonly #state: HardwareState;
  readonly #executor: CommandExecutor;
  readonly #ats: AtsInvalidations;
  readonly #registers: CmdqvRegisters;
  readonly #vintfs: Vintfs;
  readonly #allocation: QueueAllocation;
  readonly #guest: GuestCommands;
  readonly #events: VcmdqEvents;
  readonly #entry: EntryReader<HpaPfn>;
  readonly #words: Uint32Array;
  /** All that a queue needs to run is there: it runs unless it could not be initialized then. */
  readonly #wanted: Uint8Array;
  /** The command waiting at CONS has been traced already. */
  readonly #traced: Uint8Array;
  #executing = -1; // not state: within a call
  /** Software stopped or started the executing queue meanwhile: CONS is not ours to move. */
  #switched = false; // not state: within a call

  constructor(
    count: number,
    state: HardwareState,
    executor: CommandExecutor,
    ats: AtsInvalidations,
    registers: CmdqvRegisters,
    events: VcmdqEvents,
  ) {
    this.count = count;
    this.#state = state;
    this.#executor = executor;
    this.#ats = ats;
    this.#registers = registers;
    this.#vintfs = registers.vintfs;
    this.#allocation = registers.allocation;
    this.#guest = new GuestCommands(registers.vintfs);
    this.#events = events;
    this.#entry = new EntryReader(state.memory);
    this.#words = new Uint32Array(count * WORDS);
    this.#traced = new Uint8Array(count);
    this.#wanted = new Uint8Array(count);
  }

  saveState(): StateRecord {
    return { words: bytesOf(this.#words), wanted: [...this.#wanted], traced: [...this.#traced] };
  }

  restoreState(state: StateReader): void {
    state.memory("words", this.#words);
    state.numbers("wanted", this.#wanted);
    state.numbers("traced", this.#traced);
  }

  reset(): void {
    this.#words.fill(0);
    this.#wanted.fill(0);
    this.#traced.fill(0);
    this.#switched = true;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  /** `offset`: from the queue's registers in a page 0. */
  read(queue: number, offset: number): number {
    if (offset > VCMDQ_REG.GERRORN) return 0;
    const value = this.#words[queue * WORDS + (offset >> 2)]!;
    if (offset === VCMDQ_REG.PROD) return value & this.#indexMask(queue);
    return offset === VCMDQ_REG.CONS ? value & (this.#indexMask(queue) | 0x7f000000) : value;
  }

  write(queue: number, offset: number, value: number): void {
    const at = queue * WORDS + (offset >> 2);
    switch (offset) {
      case VCMDQ_REG.PROD:
        this.#words[at] = value & 0xfffff;
        this.#events.kicked();
        return;
      case VCMDQ_REG.CONS:
        if (!this.running(queue)) this.#words[at] = value & CONS_BITS;
        return;
      case VCMDQ_REG.CONFIG:
        this.#words[at] = value & VCMDQ_EN;
        this.conditionsChanged(queue);
        return;
      case VCMDQ_REG.GERRORN:
        this.#words[at] = value & VCMDQ_GERROR_BITS;
        this.#events.kicked();
        return;
    }
  }

  /** `offset`: from the queue's registers in a page 1. */
  readPage1(queue: number, offset: number): number {
    return offset < 16 ? this.#words[queue * WORDS + PAGE1_WORD + (offset >> 2)]! : 0;
  }

  writePage1(queue: number, offset: number, value: number): void {
    if (offset >= 16 || this.running(queue)) return;
    const high = (offset & 4) !== 0;
    this.#words[queue * WORDS + PAGE1_WORD + (offset >> 2)] = high ? value & 0xffff : value;
  }

  setOn(): void {
    for (let queue = 0; queue < this.count; queue++) this.conditionsChanged(queue);
  }

  running(queue: number): boolean {
    return this.#word(queue, VCMDQ_REG.STATUS) !== 0;
  }

  /** Active errors: GERROR and GERRORN differ. */
  errors(queue: number): number {
    return this.#word(queue, VCMDQ_REG.GERROR) ^ this.#word(queue, VCMDQ_REG.GERRORN);
  }

  /** Something that a queue needs to run has changed. */
  conditionsChanged(queue: number): void {
    const vintf = this.#allocation.vintfOf(queue);
    const wanted =
      this.#registers.on &&
      vintf >= 0 &&
      this.#vintfs.enabled(vintf) &&
      (this.#word(queue, VCMDQ_REG.CONFIG) & VCMDQ_EN) !== 0;
    if (wanted === (this.#wanted[queue] === 1)) return;
    this.#wanted[queue] = wanted ? 1 : 0;
    if (this.#executing === queue) this.#switched = true;
    this.#traced[queue] = 0;
    if (wanted && !this.#baseIsGood(queue)) {
      this.#fail(queue, VCMDQ_INIT_ERR);
      return;
    }
    this.#setWord(queue, VCMDQ_REG.STATUS, wanted ? 1 : 0);
    this.#ats.setClosed(queue + 1, !wanted);
    if (!wanted) return;
    this.#executor.started(queue + 1);
    this.#events.kicked();
  }

  // --- commands ----------------------------------------------------------------------------------------------------------------

  /** Commands that could be fetched now; 0 too where PROD and CONS cannot be those of one queue. */
  ready(queue: number): number {
    if (!this.running(queue) || (this.errors(queue) & VCMDQ_CMDQ_ERR) !== 0) return 0;
    const entries = 1 << this.#log2(queue);
    const waiting = (this.#word(queue, VCMDQ_REG.PROD) - this.#word(queue, VCMDQ_REG.CONS)) & (2 * entries - 1);
    return waiting > entries ? 0 : waiting;
  }

  /** Executes the command at CONS. */
  step(queue: number): StepOutcome {
    if (this.#executing >= 0 || this.ready(queue) === 0) return IDLE;
    const state = this.#state;
    const entries = 1 << this.#log2(queue);
    const cons = this.#word(queue, VCMDQ_REG.CONS) & (2 * entries - 1);
    const entry = this.#entry;
    const pfn = this.#entryFrame(queue, cons & (entries - 1));
    if (pfn >= state.frameLimit || entry.load(pfn as HpaPfn, this.#entryOffset) !== ACCESS_OK) {
      this.#stop(queue, cons, CERROR_ABT);
      return DONE;
    }
    const { w0, w1, w2, w3 } = entry;
    const cause = state.trace.on && this.#traced[queue] === 0 ? this.#trace(queue, w0, w1, w2, w3) : -1;
    this.#executing = queue;
    this.#switched = false;
    const outcome = this.#execute(queue, w0, w1, w2, w3);
    this.#executing = -1;
    this.#traced[queue] = outcome === WAIT ? 1 : 0;
    if (!this.#switched && outcome === CERROR_NONE) {
      this.#setWord(queue, VCMDQ_REG.CONS, (cons + 1) & (2 * entries - 1));
    } else if (!this.#switched && outcome !== WAIT) this.#stop(queue, cons, outcome);
    if (cause >= 0) state.trace.leave(cause);
    return outcome === WAIT ? WAITING : DONE;
  }

  #execute(queue: number, w0: number, w1: number, w2: number, w3: number): number {
    const vintf = this.#allocation.vintfOf(queue);
    if (this.#vintfs.hypervisorOwned(vintf)) {
      // Linux's driver: VCMDQs take CMD_SYNC with CS none only.
      if ((w0 & 0xff) === CMD_SYNC && ((w0 >>> 12) & 3) !== 0) return CERROR_ILL;
      return this.#executor.execute(w0, w1, w2, w3, queue + 1);
    }
    const refused = this.#guest.admit(vintf, w0, w1);
    return refused !== 0 ? refused : this.#executor.execute(w0, this.#guest.w1, w2, w3, queue + 1);
  }

  /** First ERR, then the error. */
  #stop(queue: number, cons: number, error: number): void {
    this.#traced[queue] = 0;
    this.#setWord(queue, VCMDQ_REG.CONS, (cons | (error << 24)) >>> 0);
    this.#fail(queue, VCMDQ_CMDQ_ERR);
  }

  #fail(queue: number, error: number): void {
    if ((this.errors(queue) & error) !== 0) return;
    this.#setWord(queue, VCMDQ_REG.GERROR, this.#word(queue, VCMDQ_REG.GERROR) ^ error);
    this.#events.failed(queue);
  }

  #trace(queue: number, w0: number, w1: number, w2: number, w3: number): number {
    const { trace, name } = this.#state;
    const words = [word(w0, w1), word(w2, w3)] as const;
    const vintf = this.#allocation.vintfOf(queue);
    return trace.enter({
      type: "command",
      where: "host",
      iommu: `${name} vintf${vintf} lvcmdq${this.#allocation.logicalOf(queue)}`,
      name: commandName(words[0]) ?? "illegal",
      words,
      text: describeCommand(words[0], words[1]),
    });
  }

  // --- where it stands ---------------------------------------------------------------------------------------------------------

  #entryOffset = 0; // not state: result of the last call

  /** The base is aligned to the queue's size. */
  #entryFrame(queue: number, index: number): number {
    const at = queue * WORDS + PAGE1_WORD;
    const size = Math.max(32, COMMAND_BYTES << this.#log2(queue));
    const base = this.#words[at + 1]! * 2 ** 32 + ((this.#words[at]! & 0xffffffe0) >>> 0);
    const address = base - (base % size) + index * COMMAND_BYTES;
    this.#entryOffset = address % 4096;
    return Math.floor(address / 4096);
  }

  #baseIsGood(queue: number): boolean {
    const log2 = this.readPage1(queue, VCMDQ_PAGE1_REG.BASE) & 0x1f;
    return log2 <= this.#state.features.CMDQS && this.#entryFrame(queue, 0) < this.#state.frameLimit;
  }

  #log2(queue: number): number {
    return Math.min(this.#words[queue * WORDS + PAGE1_WORD]! & 0x1f, this.#state.features.CMDQS);
  }

  #indexMask(queue: number): number {
    return (2 << this.#log2(queue)) - 1;
  }

  #word(queue: number, offset: number): number {
    return this.#words[queue * WORDS + (offset >> 2)]!;
  }

  #setWord(queue: number, offset: number, value: number): void {
    this.#words[queue * WORDS + (offset >> 2)] = value;
  }
}

function word(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

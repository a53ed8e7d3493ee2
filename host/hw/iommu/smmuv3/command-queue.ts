// The command queue (§3.5, §4, §7.1): fetches commands in order and executes them one at a time.
//
//     CMDQ_PROD write ─ latched ─▶ step(): fetch at CONS ─▶ execute ─┬─ done: CONS moves on
//                                                                   ├─ error: ERR is written, CONS stays, CMDQ_ERR becomes active
//                                                                   └─ must wait (ATS): CONS stays, step() returns false
//
// Each command is wholly executed before the next, except ATC_INV, which is outstanding until its completions are in; only CMD_SYNC waits for those.

import {
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_ADDR,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_EL2_VAA,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
  CS_IRQ,
  commandName,
  describeCommand,
} from "../../../arch/smmuv3/commands.ts";
import {
  CERROR_ABT,
  CERROR_ATC_INV_SYNC,
  CERROR_ILL,
  CERROR_NONE,
  CR0_CMDQEN,
  GERROR_CMDQ_ERR,
  REG,
} from "../../../arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { EntryReader } from "../../../base/entry-reader.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ALL_PAGES, type AtsInvalidations } from "../ats-invalidations.ts";
import type { ConfigurationCache } from "./configuration-cache.ts";
import type { EventQueue } from "./event-queue.ts";
import type { HardwareState } from "./hardware-state.ts";
import type { Interrupts } from "./interrupts.ts";
import type { TlbInvalidations } from "./tlb-invalidations.ts";

const COMMAND_BYTES = 16;
/** Not an error: the command is not done yet. */
const WAIT = -1;
const SSEC = 1 << 10;
/** PRI response codes by CMD_PRI_RESP.Resp (§4.5.2). */
const RESPONSES = [15, 1, 0] as const;

export class CommandQueue implements Stateful {
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  readonly #configurations: ConfigurationCache;
  readonly #tlb: TlbInvalidations;
  readonly #events: EventQueue;
  readonly #ats: AtsInvalidations;
  /** Leaves the command at CONS in its words. */
  readonly #entry: EntryReader<HpaPfn>;
  /** Something was invalidated since the last CMD_SYNC. */
  #invalidated = false;
  /** A CMD_SYNC completed: its signal follows once CONS has moved. */
  #signals = false; // not state: within a call
  #executing = false; // not state: within a call
  /** Software switched the queue meanwhile: CONS is not ours to move. */
  #switched = false; // not state: within a call
  /** The command waiting at CONS has been traced already. */
  #traced = false;

  constructor(
    state: HardwareState,
    interrupts: Interrupts,
    configurations: ConfigurationCache,
    tlb: TlbInvalidations,
    events: EventQueue,
    ats: AtsInvalidations,
  ) {
    this.#state = state;
    this.#entry = new EntryReader(state.memory);
    this.#interrupts = interrupts;
    this.#configurations = configurations;
    this.#tlb = tlb;
    this.#events = events;
    this.#ats = ats;
  }

  saveState(): StateRecord {
    return { invalidated: this.#invalidated, traced: this.#traced };
  }

  restoreState(state: StateReader): void {
    this.#invalidated = state.boolean("invalidated");
    this.#traced = state.boolean("traced");
  }

  reset(): void {
    this.#invalidated = false;
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
    this.#signals = false;
    const { w1, w2, w3 } = entry;
    const outcome = (entry.w0 & SSEC) !== 0 ? CERROR_ILL : this.#execute(entry.w0, w1, w2, w3);
    this.#executing = false;
    this.#traced = outcome === WAIT;
    if (!this.#switched && outcome === CERROR_NONE) {
      state.setReg(REG.CMDQ_CONS, (cons + 1) & (2 * entries - 1));
      // §4.6.3: CONS has passed the command when its signal is seen; a message may even overwrite the command.
      if (this.#signals) this.#signal(w1, w2, w3);
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

  /** CERROR_NONE: consumed; WAIT; or the error that stops the queue. */
  #execute(w0: number, w1: number, w2: number, w3: number): number {
    const { features } = this.#state;
    const opcode = w0 & 0xff;
    switch (opcode) {
      case CMD_PREFETCH_CONFIG:
      case CMD_PREFETCH_ADDR:
        // Hints: nothing is fetched ahead.
        return CERROR_NONE;
      case CMD_CFGI_STE:
        this.#invalidated = true;
        this.#configurations.invalidateStream(w1 >>> 0);
        return CERROR_NONE;
      case CMD_CFGI_STE_RANGE:
        this.#invalidated = true;
        this.#configurations.invalidateStreams(w1 >>> 0, (w2 & 0x1f) + 1);
        return CERROR_NONE;
      case CMD_CFGI_CD:
      case CMD_CFGI_CD_ALL:
        if (!features.S1P) return CERROR_ILL;
        this.#invalidated = true;
        if (opcode === CMD_CFGI_CD) this.#configurations.invalidateContext(w1 >>> 0, w0 >>> 12);
        else this.#configurations.invalidateContexts(w1 >>> 0);
        return CERROR_NONE;
      case CMD_TLBI_NH_ALL:
      case CMD_TLBI_NH_ASID:
      case CMD_TLBI_NH_VA:
      case CMD_TLBI_NH_VAA:
      case CMD_TLBI_EL2_ALL:
      case CMD_TLBI_EL2_ASID:
      case CMD_TLBI_EL2_VA:
      case CMD_TLBI_EL2_VAA:
      case CMD_TLBI_S12_VMALL:
      case CMD_TLBI_S2_IPA:
      case CMD_TLBI_NSNH_ALL:
        this.#invalidated = true;
        return this.#tlb.execute(opcode, w0, w1, w2, w3) ? CERROR_NONE : CERROR_ILL;
      case CMD_ATC_INV:
        return features.ATS ? this.#invalidateAtc(w0, w1, w2, w3) : CERROR_ILL;
      case CMD_PRI_RESP: {
        const response = (w2 >>> 12) & 3;
        if (!features.PRI || response === 3) return CERROR_ILL;
        if (this.#state.enabled)
          this.#ats.respond(w1 >>> 0, (w0 & (1 << 11)) !== 0 ? w0 >>> 12 : -1, w2 & 0x1ff, RESPONSES[response]!);
        return CERROR_NONE;
      }
      case CMD_RESUME:
        if (features.STALL_MODEL === 1) return CERROR_ILL;
        this.#events.resume(w1 >>> 0, w2 & 0xffff, (w0 & (1 << 12)) !== 0, (w0 & (1 << 13)) !== 0);
        return CERROR_NONE;
      case CMD_STALL_TERM:
        if (features.STALL_MODEL === 1) return CERROR_ILL;
        this.#events.terminate(w1 >>> 0);
        return CERROR_NONE;
      case CMD_SYNC:
        return this.#sync((w0 >>> 12) & 3);
      default:
        return CERROR_ILL;
    }
  }

  #invalidateAtc(w0: number, w1: number, w2: number, w3: number): number {
    const size = w2 & 0x3f;
    if (size > 52) return CERROR_ILL;
    if (!this.#state.enabled) return CERROR_NONE;
    const ssid = (w0 & (1 << 11)) !== 0 ? w0 >>> 12 : -1;
    const global = ssid >= 0 && (w0 & (1 << 9)) !== 0;
    const pages = 2 ** size;
    const pfn = (w3 >>> 0) * 0x100000 + (w2 >>> 12);
    const sent =
      size === 52
        ? this.#ats.invalidate(w1 >>> 0, ssid, 0, ALL_PAGES, global)
        : this.#ats.invalidate(w1 >>> 0, ssid, pfn - (pfn % pages), pages, global);
    return sent ? CERROR_NONE : WAIT;
  }

  /** §4.6.3. Everything before has executed; only ATS invalidations can be outstanding. */
  #sync(signal: number): number {
    if (signal === 3) return CERROR_ILL;
    const pending = this.#ats.settle();
    if (pending === "waiting") return WAIT;
    if (pending === "timed-out") return CERROR_ATC_INV_SYNC;
    if (this.#invalidated) {
      this.#invalidated = false;
      this.#events.retryUnrecorded();
    }
    // SEV is an event to processors that wait: there is nobody to tell.
    this.#signals = signal === CS_IRQ;
    return CERROR_NONE;
  }
}

function word(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

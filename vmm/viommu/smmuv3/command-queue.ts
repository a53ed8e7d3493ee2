// The guest's command queue (IHI 0070 §3.5, §4, §7.1): read from guest memory when CMDQ_PROD is written, done in order.
//
//   CMDQ_PROD ─▶ fetch ─▶ legal? ─▶ invalidations collect in a batch ─▶ CMD_SYNC, or the end of the queue: first the stream table entries that the
//   guest changed are read again, then one host call for the batch ─▶ CMDQ_CONS
//
// CONS passes a CMD_SYNC only when the host has done everything before it. Where something goes wrong, everything before it is done and CONS
// stands exactly there: an illegal command (CERROR_ILL), one that cannot be fetched (CERROR_ABT), the entry of a batch at which the host stopped,
// a CMD_SYNC behind ATS invalidations that timed out (CERROR_ATC_INV_SYNC). Nothing is done until the guest acknowledges that in GERRORN.

import { CMD_ATC_INV, CMD_CFGI_CD_ALL, commandName, describeCommand } from "../../../host/arch/smmuv3/commands.ts";
import type { Interrupts } from "../../../host/arch/smmuv3/parts/interrupts.ts";
import type { SmmuState } from "../../../host/arch/smmuv3/parts/smmu-state.ts";
import {
  CERROR_ABT,
  CERROR_ATC_INV_SYNC,
  CERROR_ILL,
  CR0_CMDQEN,
  GERROR_CMDQ_ERR,
  REG,
} from "../../../host/arch/smmuv3/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { EntryReader } from "../../../host/base/entry-reader.ts";
import { ACCESS_OK } from "../../../host/base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import { EFAULT, ETIMEDOUT } from "../../../host/uapi/errno.ts";
import type { InvalidationReply } from "../host-port.ts";
import { InvalidationBatch } from "../invalidation-batch.ts";
import {
  ATC_INV,
  CFGI_CD,
  CFGI_CD_ALL,
  CFGI_STE,
  CFGI_STE_RANGE,
  COMMAND_NAMES,
  classify,
  FOR_HOST,
  ILLEGAL,
  masksAt,
  NOTHING_TO_DO,
  PRI_RESP,
  RESUME,
  SSV,
  STALL_TERM,
  SYNC,
} from "./commands.ts";

/** What commands do outside the queue. */
export interface CommandActions {
  /** CFGI_STE*: the entries of 2^bits streams from `sid` on are to be read again when the batch is done. False: nobody has such an id. */
  rereadStreams(sid: number, bits: number): boolean;
  /** Reads again what `rereadStreams` marked, and installs it; calls `forgetContexts` for each stream that the hardware may know contexts of. */
  installContexts(forgetContexts: (sid: number) => void): void;
  /** True if the host knows a device by this StreamID, so that commands naming it can be forwarded; ATC_INV: whose context turns ATS on. */
  forwards(sid: number): boolean;
  forwardsAts(sid: number): boolean;
  /** True if there is hardware whose TLB may hold the guest's translations. */
  readonly forwardsTlb: boolean;
  /** The same command for emulated devices; the number of completions of ATS invalidations still to come, -1 if the device takes no more of them now. */
  invalidateEmulated(kind: number, word0: number, word1: number, word2: number, word3: number): number;
  resume(sid: number, tag: number, retry: boolean, abort: boolean): void;
  terminate(sid: number): void;
  answerPageRequest(sid: number, ssid: number, group: number, code: number): void;
  /** After a CMD_SYNC with invalidations before it: stalled transactions without a record are made anew. */
  retryUnrecorded(): void;
  /** One host call; count is at least 1. */
  invalidate(batch: Uint8Array, count: number): InvalidationReply;
  /** The host's own memory for batches, if it has any. */
  readonly batch: Uint8Array | undefined;
  /** Takes over what the host has to report, so that nothing that happened before a CMD_SYNC is reported after it. */
  relayEvents(): void;
}

/** Invalidations given to the host in one call at most. */
const BATCH_LIMIT = 4096;
const COMMAND_BYTES = 16;
const CS_IRQ = 1;
/** PRG Response codes by CMD_PRI_RESP.Resp (§4.5.2). */
const RESPONSES = [15, 1, 0] as const;

/**
 * The error for an errno of the host's invalidation. The architecture knows three: a command that is illegal or unsupported, a memory access that
 * failed, an ATS invalidation that timed out.
 */
function errorOf(errno: number): number {
  if (errno === -EFAULT) return CERROR_ABT;
  return errno === -ETIMEDOUT ? CERROR_ATC_INV_SYNC : CERROR_ILL;
}

export class CommandQueue implements Stateful {
  readonly #state: SmmuState<GpaPfn>;
  readonly #interrupts: Interrupts;
  readonly #entry: EntryReader<GpaPfn>;
  readonly #actions: CommandActions;

  // not state, to the blank line: what lives within run()
  readonly #batch: InvalidationBatch;
  /** A stream table entry is to be read again. */
  #rereads = false;
  #running = false;
  /** Place of the command under way, and of the last one that asked for a reading. */
  #place = 0;
  #rereadPlace = 0;
  #failedEarly = -1;
  readonly #forgetContexts: (sid: number) => void;

  readonly #counts = new Float64Array(COMMAND_NAMES.length);
  /** Something was invalidated since the last CMD_SYNC. */
  #invalidated = false;
  /** ATS invalidations of emulated devices that have not completed. */
  #awaited = 0;
  /** Commands executed so far. */
  total = 0;

  constructor(state: SmmuState<GpaPfn>, interrupts: Interrupts, actions: CommandActions) {
    this.#state = state;
    this.#interrupts = interrupts;
    this.#entry = new EntryReader(state.memory);
    this.#actions = actions;
    this.#batch = new InvalidationBatch(
      BATCH_LIMIT,
      actions.batch,
      (batch, count) => actions.invalidate(batch, count),
      (word0) => (word0 & 0xff) === CMD_ATC_INV,
    );
    // CFGI_STE drops the stream's cached contexts too (§4.3.1); where the entry is the same as before, the host has been told nothing yet.
    this.#forgetContexts = (sid) => {
      if (this.#batch.count === BATCH_LIMIT && this.#failedEarly < 0) this.#failedEarly = this.#batch.flush();
      if (this.#failedEarly < 0) this.#batch.add(this.#rereadPlace, CMD_CFGI_CD_ALL, sid, 0, 0);
    };
  }

  /** Commands by name. */
  get executed(): Record<string, number> {
    return Object.fromEntries(COMMAND_NAMES.map((name, kind) => [name, this.#counts[kind]!]));
  }

  /** CMDQEN changed: what waited waits no more. */
  switched(): void {
    this.#batch.timedOut = false;
  }

  reset(): void {
    this.#batch.clear();
    this.#rereads = false;
    this.#invalidated = false;
    this.#awaited = 0;
  }

  /** An emulated device completed an invalidation (or its time ran out); a CMD_SYNC, or a CMD_ATC_INV, that waits goes on when the last one has. */
  completed(timedOut: boolean): void {
    if (this.#awaited === 0) return;
    this.#awaited--;
    if (timedOut) this.#batch.timedOut = true;
    if (this.#awaited === 0) this.run();
  }

  /** Does commands until the queue is empty, stopped, or waits at a CMD_SYNC. At most one round of the queue. */
  run(): void {
    const state = this.#state;
    if (this.#running || (state.reg(REG.CR0) & CR0_CMDQEN) === 0 || state.commandErrorActive) return;
    const log2 = state.queueLog2(REG.CMDQ_BASE, state.features.CMDQS);
    const entries = 1 << log2;
    const mask = 2 * entries - 1;
    const first = state.reg(REG.CMDQ_CONS) & mask;
    const waiting = (state.reg(REG.CMDQ_PROD) - first) & mask;
    // More than there can be: PROD and CONS are not those of one queue (§3.5.1).
    if (waiting === 0 || waiting > entries) return;
    this.#running = true;
    const cause = state.trace.cause;
    this.#execute(log2, first, waiting);
    state.trace.leave(cause);
    this.#running = false;
  }

  #execute(log2: number, first: number, waiting: number): void {
    const state = this.#state;
    const entry = this.#entry;
    const { features } = state;
    const mask = (2 << log2) - 1;
    const index = mask >>> 1;
    // Aligned to its size, the queue crosses no more pages than it has.
    const firstPfn = state.entryFrame(REG.CMDQ_BASE, log2, COMMAND_BYTES, 0);
    const firstOffset = state.entryOffset;
    for (let done = 0; done < waiting; done++) {
      const place = (first + done) & mask;
      this.#place = place;
      const bytes = firstOffset + (place & index) * COMMAND_BYTES;
      const pfn = (firstPfn + (bytes >>> 12)) as GpaPfn;
      if (pfn >= state.frameLimit || entry.load(pfn, bytes & 0xfff) !== ACCESS_OK) {
        this.#stopAt(place, CERROR_ABT);
        return;
      }
      const { w0, w1, w2, w3 } = entry;
      const kind = classify(features, w0, w2);
      if (state.trace.on) this.#emit(w0, w1, w2, w3);
      this.#counts[kind] = this.#counts[kind]! + 1;
      this.total++;
      if (kind === ILLEGAL) {
        this.#stopAt(place, CERROR_ILL);
        return;
      }
      if (kind === SYNC) {
        if (!this.#flush() || !this.#sync(place)) return;
        state.setReg(REG.CMDQ_CONS, (place + 1) & mask);
        // §4.6.3: CONS has passed the command when its signal is seen; a message may even overwrite the command.
        if ((w0 & 0x3000) >>> 12 === CS_IRQ) this.#signal(w1, w2, w3);
      } else if (kind !== NOTHING_TO_DO && !this.#take(kind, w0, w1, w2, w3)) return;
    }
    if (this.#flush()) state.setReg(REG.CMDQ_CONS, (first + waiting) & mask);
  }

  /** Everything but CMD_SYNC. False: the host did not do what came before, or a device takes no more yet: the queue stops or waits here. */
  #take(kind: number, w0: number, w1: number, w2: number, w3: number): boolean {
    const actions = this.#actions;
    const sid = w1 >>> 0;
    if (kind === RESUME || kind === STALL_TERM || kind === PRI_RESP) {
      // The transaction is made anew at once, or the device told so: what stands before it in the queue is done first.
      if (!this.#flush()) return false;
      if (kind === PRI_RESP) {
        const ssid = (w0 & SSV) !== 0 ? w0 >>> 12 : -1;
        if (this.#state.enabled) actions.answerPageRequest(sid, ssid, w2 & 0x1ff, RESPONSES[(w2 >>> 12) & 3]!);
      } else if (kind === RESUME) actions.resume(sid, w2 & 0xffff, (w0 & (1 << 12)) !== 0, (w0 & (1 << 13)) !== 0);
      else actions.terminate(sid);
      return true;
    }
    this.#invalidated = true;
    const begun = actions.invalidateEmulated(kind, w0, w1, w2, w3);
    if (begun < 0) {
      if (this.#flush()) this.#state.setReg(REG.CMDQ_CONS, this.#place);
      return false;
    }
    this.#awaited += begun;
    if (kind === CFGI_STE || kind === CFGI_STE_RANGE) {
      if (!actions.rereadStreams(sid, kind === CFGI_STE ? 0 : (w2 & 0x1f) + 1)) return true;
      this.#rereads = true;
      this.#rereadPlace = this.#place;
      return true;
    }
    const forwarded =
      kind === CFGI_CD || kind === CFGI_CD_ALL
        ? actions.forwards(sid)
        : kind === ATC_INV
          ? this.#state.enabled && actions.forwardsAts(sid)
          : actions.forwardsTlb;
    if (!forwarded) return true;
    if (this.#batch.count === BATCH_LIMIT && !this.#flush()) return false;
    const at = masksAt(kind, this.#state.features, w0, w2);
    const masks = FOR_HOST;
    this.#batch.add(this.#place, w0 & masks[at]!, w1 & masks[at + 1]!, w2 & masks[at + 2]!, w3 & masks[at + 3]!);
    return true;
  }

  /** Has the host do what was collected. False: it did not all succeed, the queue is stopped at the command that failed. */
  #flush(): boolean {
    if (this.#rereads) {
      this.#rereads = false;
      this.#actions.installContexts(this.#forgetContexts);
    }
    const early = this.#failedEarly;
    this.#failedEarly = -1;
    if (early >= 0) this.#batch.count = 0;
    const failed = early >= 0 ? early : this.#batch.flush();
    if (failed < 0) return true;
    this.#fail(failed, errorOf(this.#batch.errno));
    return false;
  }

  /** CMD_SYNC, everything before it done (§4.6.3). False: the queue stops or waits here. */
  #sync(place: number): boolean {
    if (this.#awaited > 0) {
      this.#state.setReg(REG.CMDQ_CONS, place);
      return false;
    }
    this.#actions.relayEvents();
    if (this.#batch.timedOut) {
      this.#batch.timedOut = false;
      this.#fail(place, CERROR_ATC_INV_SYNC);
      return false;
    }
    if (this.#invalidated) {
      this.#invalidated = false;
      this.#actions.retryUnrecorded();
    }
    return true;
  }

  #signal(data: number, low: number, high: number): void {
    const messages = this.#state.features.MSI;
    const pfn = (high & 0xffffff) * 0x100000 + (low >>> 12);
    this.#interrupts.completeSync(messages ? pfn : 0, messages ? low & 0xffc : 0, data >>> 0);
  }

  /** Stops at `place` for a reason of its own, once everything before is done. */
  #stopAt(place: number, error: number): void {
    if (this.#flush()) this.#fail(place, error);
  }

  /** §7.1: first ERR, then CMDQ_ERR. */
  #fail(place: number, error: number): void {
    this.#state.setReg(REG.CMDQ_CONS, (place | (error << 24)) >>> 0);
    this.#interrupts.error(GERROR_CMDQ_ERR);
  }

  #emit(w0: number, w1: number, w2: number, w3: number): void {
    const word = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    const words = [word(w0, w1), word(w2, w3)] as const;
    const { trace, name: iommu } = this.#state;
    const name = commandName(words[0]) ?? "illegal";
    const text = describeCommand(words[0], words[1]);
    trace.enter({ type: "command", where: "guest", iommu, name, words, text });
  }

  saveState(): StateRecord {
    return {
      counts: [...this.#counts],
      batches: this.#batch.batches,
      forwarded: this.#batch.forwarded,
      timedOut: this.#batch.timedOut,
      invalidated: this.#invalidated,
      awaited: this.#awaited,
      total: this.total,
    };
  }

  restoreState(state: StateReader): void {
    state.numbers("counts", this.#counts);
    this.#batch.batches = state.number("batches");
    this.#batch.forwarded = state.number("forwarded");
    this.#batch.timedOut = state.boolean("timedOut");
    this.#invalidated = state.boolean("invalidated");
    this.#awaited = state.number("awaited");
    this.total = state.number("total");
  }
}

// The guest's command queue (§4.1, 6.6–6.8, 6.15): read from guest memory when cqt is written, done in order.
//
//   cqt ─▶ fetch ─▶ legal? ─▶ invalidations collect in a batch ─▶ IOFENCE.C, or the end of the queue: first the directories that the
//   guest changed are read again, then one host call for the batch ─▶ cqh
//
// cqh passes an IOFENCE.C only when the host has done everything before it. Where something goes wrong, everything before it is
// done and cqh stands exactly there: an illegal command (cmd_ill), one that cannot be fetched or whose store fails (cqmf), entry
// `done` of a batch that the host did not finish, a fence behind device invalidations that timed out (cmd_to).

import { describeCommand, OPCODE_ATS } from "../../../host/arch/riscv/commands.ts";
import {
  CQCSR_CMD_ILL,
  CQCSR_CMD_TO,
  CQCSR_FENCE_W_IP,
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
} from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { EntryReader } from "../../../host/base/entry-reader.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { EFAULT, ETIMEDOUT } from "../../../host/uapi/errno.ts";
import type { InvalidationReply } from "../host-port.ts";
import { InvalidationBatch } from "../invalidation-batch.ts";
import {
  ATS_INVAL,
  ATS_PRGR,
  AV,
  atsDeviceId,
  COMMAND_NAMES,
  type CommandRules,
  classify,
  DV,
  ILLEGAL,
  IODIR_INVAL_DDT,
  IODIR_INVAL_PDT,
  IOFENCE_C,
  IOTINVAL_GVMA,
  IOTINVAL_VMA,
  isDdt,
  isVma,
  PV,
} from "./commands.ts";
import { CIP, type Interrupts } from "./interrupts.ts";
import { LOG2SZ_1_LIMIT, type RegisterFile, WORD } from "./registers.ts";
import { Ring } from "./ring.ts";

const QUEUE_LIMIT = 2 ** (LOG2SZ_1_LIMIT + 1);
const ERRORS = CSR_MEMORY_FAULT | CQCSR_CMD_TO | CQCSR_CMD_ILL;
const CONDITIONS = ERRORS | CQCSR_FENCE_W_IP;

/** What commands do outside the queue. */
export interface CommandActions {
  /** IODIR.INVAL_DDT: read this device's context again (-1: all) when the batch is done. False: nobody has this id. */
  rereadContext(deviceId: number): boolean;
  /** True if the host knows a device by this id, so that commands naming it can be forwarded. */
  forwards(deviceId: number): boolean;
  /** As `forwards`, for ATS.INVAL: the device has ATS and its context turns it on. */
  forwardsAts(deviceId: number): boolean;
  /** Device invalidation of an emulated device; the number of completions still to come, -1 if the device takes no more of them now. */
  invalidateEmulated(deviceId: number, processId: number, lo1: number, hi1: number): number;
  answerPageRequest(deviceId: number, processId: number, group: number, code: number): void;
  /** Reads again what `rereadContext` marked, and installs it. */
  installContexts(): void;
  /** One host call; count is at least 1. */
  readonly invalidate: (batch: Uint8Array, count: number) => InvalidationReply;
  /** The host's own memory for batches, if it has any. */
  readonly batch: Uint8Array | undefined;
  /** Takes over what the host has to report, so that nothing that happened before a fence is reported after it. */
  relayEvents(): void;
}

/**
 * The status bit for an errno of the host's invalidation. The architecture knows three: a command that is illegal or unsupported, a
 * memory access that failed, an ATS invalidation that timed out. What the host cannot do at all is "unsupported".
 */
function statusOf(errno: number): number {
  if (errno === -EFAULT) return CSR_MEMORY_FAULT;
  return errno === -ETIMEDOUT ? CQCSR_CMD_TO : CQCSR_CMD_ILL;
}

export class CommandQueue implements Stateful {
  readonly ring: Ring;
  readonly #registers: RegisterFile;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #entry: EntryReader<GpaPfn>;
  readonly #interrupts: Interrupts;
  readonly #trace: Trace;
  readonly #name: string;
  readonly #rules: CommandRules;
  readonly #actions: CommandActions;

  // not state, to the blank line: a batch lives within run()
  readonly #batch: InvalidationBatch;
  /** Something in the batch changed a directory. */
  #rereads = false;
  #running = false;

  readonly #counts = new Float64Array(COMMAND_NAMES.length);
  /** Device invalidations of emulated devices that have not completed. */
  #awaited = 0;

  constructor(
    registers: RegisterFile,
    memory: MemoryPort<GpaPfn>,
    interrupts: Interrupts,
    trace: Trace,
    name: string,
    rules: CommandRules,
    actions: CommandActions,
  ) {
    this.#registers = registers;
    this.#memory = memory;
    this.#entry = new EntryReader(memory);
    this.#interrupts = interrupts;
    this.#trace = trace;
    this.#name = name;
    this.#rules = rules;
    this.#actions = actions;
    this.#batch = new InvalidationBatch(
      QUEUE_LIMIT,
      actions.batch,
      actions.invalidate,
      (word0) => (word0 & 0x7f) === OPCODE_ATS,
    );
    this.ring = new Ring(registers, { base: WORD.CQB, head: WORD.CQH, tail: WORD.CQT }, 4);
  }

  /** Commands executed so far. */
  total = 0;

  /** The same by name. */
  get executed(): Record<string, number> {
    return Object.fromEntries(COMMAND_NAMES.map((name, kind) => [name, this.#counts[kind]!]));
  }

  /** A write of cqcsr has been stored: acts on cqen and on cleared errors. */
  controlWritten(previous: number): void {
    const words = this.#registers.words;
    const now = words[WORD.CQCSR]!;
    if ((now & CSR_ENABLE) !== 0 && (previous & CSR_ENABLE) === 0) {
      words[WORD.CQH] = 0;
      words[WORD.CQCSR] = ((now & ~CONDITIONS) | CSR_ON) >>> 0;
      this.#batch.timedOut = false;
    } else if ((now & CSR_ENABLE) === 0) {
      words[WORD.CQCSR] = (now & ~CSR_ON) >>> 0;
    }
    this.evaluate();
    this.run();
  }

  /** Raises cip if a condition and cie are set (§6.18). */
  evaluate(): void {
    const csr = this.#registers.words[WORD.CQCSR]!;
    if ((csr & CSR_INTERRUPT_ENABLE) !== 0 && (csr & CONDITIONS) !== 0) this.#interrupts.raise(CIP);
  }

  /** An emulated device completed an invalidation (or its time ran out); a fence, or an ATS.INVAL, that waits goes on when the last one has. */
  completed(timedOut: boolean): void {
    if (this.#awaited === 0) return;
    this.#awaited--;
    if (timedOut) this.#batch.timedOut = true;
    if (this.#awaited === 0) this.run();
  }

  reset(): void {
    this.#batch.clear();
    this.#rereads = false;
    this.#awaited = 0;
    this.ring.reset();
  }

  /** Does commands until the queue is empty, stopped, or waits at a fence. At most one round of the queue. */
  run(): void {
    const words = this.#registers.words;
    if (this.#running || (words[WORD.CQCSR]! & CSR_ON) === 0 || (words[WORD.CQCSR]! & ERRORS) !== 0) return;
    if (this.ring.head === this.ring.tail) return;
    this.#running = true;
    const cause = this.#trace.cause;
    this.#execute();
    this.#trace.leave(cause);
    this.#running = false;
  }

  #execute(): void {
    const { ring } = this;
    const entry = this.#entry;
    const mask = ring.mask;
    const tail = ring.tail;
    let index = ring.head & mask;
    while (index !== tail) {
      ring.locate(index);
      const run = (index < tail ? tail : mask + 1) - index;
      const at = entry.find(ring.pfn, ring.offset, run);
      if (at >= 0) {
        const taken = this.#trace.on ? 0 : this.#collect(index, entry.words, at, run);
        if (taken < run) {
          const { words } = entry;
          const next = at + 4 * taken;
          const place = index + taken;
          if (!this.#command(place, words[next]!, words[next + 1]!, words[next + 2]!, words[next + 3]!)) return;
          // What it set in motion may have moved memory: what follows is looked for again.
          index = (place + 1) & mask;
        } else index = (index + run) & mask;
      } else if (entry.load(ring.pfn, ring.offset) !== ACCESS_OK) {
        this.#stopAt(index, CSR_MEMORY_FAULT);
        return;
      } else {
        if (!this.#command(index, entry.w0, entry.w1, entry.w2, entry.w3)) return;
        index = (index + 1) & mask;
      }
    }
    if (this.#flush()) ring.head = tail;
  }

  /** Puts the IOTINVAL.VMA and IODIR.INVAL_DDT at the beginning of a run of entries into the batch: how many. */
  #collect(index: number, words: Int32Array, first: number, run: number): number {
    const rules = this.#rules;
    const batch = this.#batch;
    let taken = 0;
    let directories = 0;
    for (let at = first; taken < run; at += 4) {
      const w0 = words[at]!;
      const w1 = words[at + 1]!;
      const w2 = words[at + 2]!;
      const w3 = words[at + 3]!;
      if (isVma(rules, w0, w1, w2, w3)) batch.add(index + taken, w0, w1, w2, w3);
      else if (isDdt(rules, w0, w1, w2, w3)) {
        this.#take(IODIR_INVAL_DDT, index + taken, w0, w1, w2, w3);
        directories++;
      } else break;
      taken++;
    }
    this.#counts[IOTINVAL_VMA] = this.#counts[IOTINVAL_VMA]! + taken - directories;
    this.#counts[IODIR_INVAL_DDT] = this.#counts[IODIR_INVAL_DDT]! + directories;
    this.total += taken;
    return taken;
  }

  /** Any command; its words are signed: what is a number and not a set of bits is made unsigned where it is used. False: the queue stops or waits here. */
  #command(index: number, lo0: number, hi0: number, lo1: number, hi1: number): boolean {
    const kind = classify(this.#rules, lo0, hi0, lo1, hi1);
    if (this.#trace.on) this.#emit(kind, lo0, hi0, lo1, hi1);
    this.#counts[kind] = this.#counts[kind]! + 1;
    this.total++;
    if (kind === IOFENCE_C) return this.#flush() && this.#fence(index, lo0, hi0, lo1, hi1);
    if (kind === ILLEGAL) {
      this.#stopAt(index, CQCSR_CMD_ILL);
      return false;
    }
    if (kind === ATS_PRGR) {
      // A response tells the device that its page is there: what stands before it in the queue is done first.
      if (!this.#flush()) return false;
      const processId = (hi0 & PV) !== 0 ? lo0 >>> 12 : -1;
      this.#actions.answerPageRequest(atsDeviceId(hi0), processId, hi1 & 0x1ff, (hi1 >>> 12) & 15);
      return true;
    }
    if (this.#take(kind, index, lo0, hi0, lo1, hi1)) return true;
    if (this.#flush()) this.ring.head = index;
    return false;
  }

  /** An invalidation: into the batch, if the host has anything to do with it. False: a device takes no more yet, the queue waits here. */
  #take(kind: number, index: number, lo0: number, hi0: number, lo1: number, hi1: number): boolean {
    // The guest has no second stage, so nothing is tagged as IOTINVAL.GVMA would find it.
    if (kind === IOTINVAL_GVMA) return true;
    const actions = this.#actions;
    if (kind === IODIR_INVAL_DDT) {
      const deviceId = (hi0 & DV) !== 0 ? hi0 >>> 8 : -1;
      if (!actions.rereadContext(deviceId)) return true;
      this.#rereads = true;
      if (deviceId >= 0 && !actions.forwards(deviceId)) return true;
    } else if (kind === IODIR_INVAL_PDT) {
      if (!actions.forwards(hi0 >>> 8)) return true;
    } else if (kind === ATS_INVAL) {
      const deviceId = atsDeviceId(hi0);
      if (!actions.forwardsAts(deviceId)) {
        const processId = (hi0 & PV) !== 0 ? lo0 >>> 12 : -1;
        const begun = actions.invalidateEmulated(deviceId, processId, lo1 >>> 0, hi1 >>> 0);
        if (begun > 0) this.#awaited += begun;
        return begun >= 0;
      }
    }
    this.#batch.add(index, lo0, hi0, lo1, hi1);
    return true;
  }

  /** Has the host do the batch. False: it did not all succeed, the queue is stopped at the command that failed. */
  #flush(): boolean {
    if (this.#rereads) {
      this.#rereads = false;
      this.#actions.installContexts();
    }
    const failed = this.#batch.flush();
    if (failed < 0) return true;
    this.#fail(failed, statusOf(this.#batch.errno));
    return false;
  }

  /** IOFENCE.C, everything before it done. False: the queue stops or waits here. */
  #fence(index: number, lo0: number, hi0: number, lo1: number, hi1: number): boolean {
    if (this.#awaited > 0) {
      this.ring.head = index;
      return false;
    }
    this.#actions.relayEvents();
    if (this.#batch.timedOut) {
      this.#batch.timedOut = false;
      this.#fail(index, CQCSR_CMD_TO);
      return false;
    }
    if ((lo0 & AV) !== 0) {
      // ADDR[63:2] stands in bits 61:0.
      const pfn = ((hi1 & 0x3fff_ffff) * 0x40_0000 + (lo1 >>> 10)) as GpaPfn;
      const offset = (lo1 << 2) & 0xfff;
      if (this.#memory.store32(pfn, offset, hi0 >>> 0) !== ACCESS_OK) {
        this.#fail(index, CSR_MEMORY_FAULT);
        return false;
      }
    }
    if ((lo0 & 0x800) !== 0) {
      const words = this.#registers.words;
      words[WORD.CQCSR] = words[WORD.CQCSR]! | CQCSR_FENCE_W_IP;
      this.evaluate();
    }
    return true;
  }

  /** Stops at `index` for a reason of its own, once everything before is done. */
  #stopAt(index: number, status: number): void {
    if (this.#flush()) this.#fail(index, status);
  }

  #fail(index: number, status: number): void {
    const words = this.#registers.words;
    this.ring.head = index;
    words[WORD.CQCSR] = words[WORD.CQCSR]! | status;
    this.evaluate();
  }

  #emit(kind: number, lo0: number, hi0: number, lo1: number, hi1: number): void {
    const word = (high: number, low: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    const words = [word(hi0, lo0), word(hi1, lo1)];
    const name = COMMAND_NAMES[kind]!;
    this.#trace.enter({
      type: "command",
      where: "guest",
      iommu: this.#name,
      name,
      words,
      text: describeCommand(words[0]!, words[1]!),
    });
  }

  saveState(): StateRecord {
    return {
      counts: [...this.#counts],
      batches: this.#batch.batches,
      forwarded: this.#batch.forwarded,
      timedOut: this.#batch.timedOut,
      awaited: this.#awaited,
      total: this.total,
    };
  }

  restoreState(state: StateReader): void {
    state.numbers("counts", this.#counts);
    this.#batch.batches = state.number("batches");
    this.#batch.forwarded = state.number("forwarded");
    this.#batch.timedOut = state.boolean("timedOut");
    this.#awaited = state.number("awaited");
    this.total = state.number("total");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["ring", this.ring];
  }
}

// The command queue (§4.1, §6.6–6.8, §6.15): fetches commands in order and executes them one at a time.
//
//     cqt write ─ latched ─▶ step(): fetch at cqh ─▶ execute ─┬─ done: cqh moves on
//                                                            ├─ illegal: cmd_ill, cqh stays
//                                                            ├─ memory fault: cqmf, cqh stays
//                                                            └─ must wait (ATS): cqh stays, step() returns false
//
// Commands execute in the order fetched, each wholly before the next, except ATS.INVAL, which is outstanding until its completions
// are in; only IOFENCE.C waits for those.
//
// What a guest's queue is full of goes through `runPlain`, a run of them at a time: commands that nobody outside the caches hears of. It leaves
// everything else where it stands, for `step`.

import {
  commandName,
  describeCommand,
  OPCODE_ATS,
  OPCODE_IODIR,
  OPCODE_IOFENCE,
  OPCODE_IOTINVAL,
} from "../../../arch/riscv/commands.ts";
import {
  CQCSR_CMD_ILL,
  CQCSR_CMD_TO,
  CQCSR_FENCE_W_IP,
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  REG,
} from "../../../arch/riscv/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { swap32 } from "../../../base/byte-order.ts";
import { EntryReader } from "../../../base/entry-reader.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ALL_PAGES, type AtsInvalidations } from "../ats-invalidations.ts";
import type { HardwareState } from "./hardware-state.ts";
import type { Interrupts } from "./interrupts.ts";
import { napotPages, type TranslationCaches } from "./translation-caches.ts";

const ERRORS = CSR_MEMORY_FAULT | CQCSR_CMD_TO | CQCSR_CMD_ILL;
const CLEARABLE = ERRORS | CQCSR_FENCE_W_IP;

const DONE = 0;
const ILLEGAL = 1;
const FAULTED = 2;
const WAIT = 3;
const TIMED_OUT = 4;
type Outcome = 0 | 1 | 2 | 3 | 4;

/** Opcode and func3. */
const FUNCTION = 0x3ff;
/** Bits that a fence may set which stores nothing and interrupts nobody: PR, PW. */
const PLAIN_FENCE = 0x3000;

const bit = (at: number): number => (1 << at) >>> 0;

export class CommandQueue implements Stateful {
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  readonly #caches: TranslationCaches;
  readonly #ats: AtsInvalidations;
  /** Leaves the command at cqh in its words. */
  readonly #entry: EntryReader<HpaPfn>;
  /** An IOFENCE.C completed with WSI: the interrupt follows once cqh has moved. */
  #fenceInterrupt = false; // not state: within a step
  /** A command is executing: what it sets off (an interrupt handler, a function's answer) must not execute it again. */
  #executing = false; // not state: within a step
  /** Software switched the queue meanwhile: cqh is not ours to move. */
  #switched = false; // not state: within a step
  /** The command waiting at cqh has been traced already. */
  #traced = false;

  constructor(state: HardwareState, interrupts: Interrupts, caches: TranslationCaches, ats: AtsInvalidations) {
    this.#state = state;
    this.#entry = new EntryReader(state.memory);
    this.#interrupts = interrupts;
    this.#caches = caches;
    this.#ats = ats;
  }

  /** Software wrote cqcsr. On and off are immediate; busy is never seen. */
  writeControl(value: number): void {
    const state = this.#state;
    const old = state.reg(REG.cqcsr);
    let next = (old & ~(CSR_ENABLE | CSR_INTERRUPT_ENABLE)) | (value & (CSR_ENABLE | CSR_INTERRUPT_ENABLE));
    next &= ~(value & CLEARABLE);
    if ((value & CSR_ENABLE) !== 0 && (old & CSR_ENABLE) === 0) {
      state.setReg(REG.cqh, 0);
      next = (next & ~CLEARABLE) | CSR_ON;
    } else if ((value & CSR_ENABLE) === 0) {
      next &= ~CSR_ON;
    }
    this.#traced = false;
    if (((old ^ value) & CSR_ENABLE) !== 0) this.#switched = true;
    state.setReg(REG.cqcsr, next);
    this.#interrupts.evaluate();
  }

  /** True if a command could be fetched now. */
  get ready(): boolean {
    const regs = this.#state.regs;
    const csr = regs[REG.cqcsr >> 2]!;
    return (csr & (CSR_ON | ERRORS)) === CSR_ON && regs[REG.cqh >> 2] !== regs[REG.cqt >> 2];
  }

  /** As HardwareIommu.skipCommand. */
  skip: ((name: string) => boolean) | null = null; // not state: wiring

  #skipped(): boolean {
    return this.skip!(commandName(this.#word(this.#entry.w0, this.#entry.w1)) ?? "illegal");
  }

  /** Entries the queue has, minus one. */
  get mask(): number {
    return this.#state.indexMask(REG.cqb);
  }

  /**
   * Executes commands from cqh on, at most `limit`, for as long as they only make caches forget or are fences with nothing to wait for and nobody to
   * tell; how many those were. There is one that could be fetched (`ready`).
   */
  runPlain(limit: number): number {
    const state = this.#state;
    const { regs } = state;
    if (this.#executing || state.trace.on || this.skip !== null || (regs[REG.fctl >> 2]! & 1) !== 0) return 0;
    const entry = this.#entry;
    const { mask } = this;
    const tail = regs[REG.cqt >> 2]!;
    const head = regs[REG.cqh >> 2]!;
    const pfn = state.frameIn(REG.cqb) + (head >>> 8);
    const run = Math.min((head < tail ? tail : mask + 1) - head, limit);
    // An index that a smaller queue was left with; frames that may pass PAS, where memory may be: one by one.
    if (run <= 0) return 0;
    const at = pfn + (run >>> 8) + 1 < state.frameLimit ? entry.find(pfn as HpaPfn, (head & 255) << 4, run) : -1;
    const done = at < 0 ? 0 : this.#executePlain(entry.words, at, run);
    if (done === 0) return 0;
    regs[REG.cqh >> 2] = (head + done) & mask;
    this.#traced = false;
    return done;
  }

  #executePlain(words: Int32Array, first: number, run: number): number {
    let done = 0;
    for (let at = first; done < run; at += 4) {
      const w0 = words[at]!;
      const w1 = words[at + 1]!;
      const w2 = words[at + 2]!;
      const w3 = words[at + 3]!;
      const function10 = w0 & FUNCTION;
      if (function10 === OPCODE_IOTINVAL) {
        if (this.#iotinval(false, w0, w1, w2, w3) !== DONE) break;
      } else if (function10 === OPCODE_IODIR) {
        if (this.#iodir(false, w0, w1, w2, w3) !== DONE) break;
      } else if ((w0 & ~PLAIN_FENCE) !== OPCODE_IOFENCE || (w3 & 0xc0000000) !== 0 || !this.#ats.idle) break;
      done++;
    }
    return done;
  }

  /** Executes the command at cqh. False when there is none, the queue is stopped, or the command must wait. */
  step(): boolean {
    if (this.#executing || !this.ready) return false;
    const state = this.#state;
    const head = state.reg(REG.cqh);
    if (!this.#fetch(head)) {
      this.#stop(CSR_MEMORY_FAULT);
      return true;
    }
    let cause = -1;
    if (state.trace.on && !this.#traced) {
      const { w0, w1, w2, w3 } = this.#entry;
      const words = [this.#word(w0, w1), this.#word(w2, w3)] as const;
      const name = commandName(words[0]) ?? "illegal";
      const text = describeCommand(words[0], words[1]);
      cause = state.trace.enter({ type: "command", where: "host", iommu: state.name, name, words, text });
    }
    this.#executing = true;
    this.#switched = false;
    const outcome = this.skip !== null && this.#skipped() ? DONE : this.#execute();
    this.#executing = false;
    this.#traced = outcome === WAIT;
    if (this.#switched) this.#fenceInterrupt = false;
    else if (outcome === DONE) {
      state.setReg(REG.cqh, ((head + 1) & this.mask) >>> 0);
      if (this.#fenceInterrupt) {
        this.#fenceInterrupt = false;
        state.setReg(REG.cqcsr, state.reg(REG.cqcsr) | CQCSR_FENCE_W_IP);
        this.#interrupts.evaluate();
      }
    } else if (outcome !== WAIT) {
      this.#stop(outcome === ILLEGAL ? CQCSR_CMD_ILL : outcome === FAULTED ? CSR_MEMORY_FAULT : CQCSR_CMD_TO);
    }
    if (cause >= 0) state.trace.leave(cause);
    return outcome !== WAIT;
  }

  #word(lo: number, hi: number): bigint {
    return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
  }

  #stop(error: number): void {
    this.#state.setReg(REG.cqcsr, this.#state.reg(REG.cqcsr) | error);
    this.#interrupts.evaluate();
  }

  #fetch(head: number): boolean {
    const state = this.#state;
    // 256 entries a page.
    const pfn = state.frameIn(REG.cqb) + (head >>> 8);
    if (pfn >= state.frameLimit || this.#entry.load(pfn as HpaPfn, (head & 255) << 4) !== ACCESS_OK) return false;
    if ((state.reg(REG.fctl) & 1) !== 0) this.#swap();
    return true;
  }

  /** fctl.BE: the command's doublewords are big-endian. */
  #swap(): void {
    const entry = this.#entry;
    const { w0, w2 } = entry;
    entry.w0 = swap32(entry.w1) | 0;
    entry.w1 = swap32(w0) | 0;
    entry.w2 = swap32(entry.w3) | 0;
    entry.w3 = swap32(w2) | 0;
  }

  #execute(): Outcome {
    const { w0, w1, w2, w3 } = this.#entry;
    const func3 = (w0 >>> 7) & 7;
    switch (w0 & 0x7f) {
      case OPCODE_IOTINVAL:
        return func3 <= 1 ? this.#iotinval(func3 === 1, w0, w1, w2, w3) : ILLEGAL;
      case OPCODE_IOFENCE:
        return func3 === 0 ? this.#iofence() : ILLEGAL;
      case OPCODE_IODIR:
        return func3 <= 1 ? this.#iodir(func3 === 1, w0, w1, w2, w3) : ILLEGAL;
      case OPCODE_ATS:
        return func3 <= 1 && this.#state.rules.ATS ? this.#atsCommand(func3 === 1) : ILLEGAL;
      default:
        return ILLEGAL;
    }
  }

  /** IOTINVAL.VMA and .GVMA (§4.1.1). */
  #iotinval(secondStage: boolean, w0: number, w1: number, w2: number, w3: number): Outcome {
    const rules = this.#state.rules;
    // Reserved: bit 11; bits 43:35 and 63:60; of dword 1 bits 8:0 and 63:62.
    if ((w0 & bit(11)) !== 0 || (w1 & 0xf0000ff8) !== 0) return ILLEGAL;
    if ((w2 & 0x1ff) !== 0 || (w3 & 0xc0000000) !== 0) return ILLEGAL;
    const av = (w0 & bit(10)) !== 0;
    const pscv = (w1 & 1) !== 0;
    const gv = (w1 & 2) !== 0;
    const range = (w2 & 0x200) !== 0;
    if (secondStage && pscv) return ILLEGAL;
    if ((w1 & 4) !== 0 && !rules.NL) return ILLEGAL;
    if (range && !rules.S) return ILLEGAL;
    const pscid = w0 >>> 12;
    const gscid = (w1 >>> 12) & 0xffff;
    // ADDR[63:12] stands in bits 61:10.
    const pfn = (w3 & 0x3fffffff) * 0x400000 + (w2 >>> 10);
    if (secondStage) this.#caches.invalidateSecondStage(gv ? gscid : -1);
    else this.#caches.invalidateFirstStage(gv ? gscid : -1, pscv ? pscid : -1, av ? pfn : -1, range, (w1 & 4) !== 0);
    return DONE;
  }

  /** IOFENCE.C (§4.1.2). Everything before has executed; only ATS invalidations can be outstanding. */
  #iofence(): Outcome {
    const { w0, w1, w2, w3 } = this.#entry;
    // Reserved: bits 31:14 and dword 1 bits 63:62.
    if ((w0 & 0xffffc000) !== 0 || (w3 & 0xc0000000) !== 0) return ILLEGAL;
    const wsi = (w0 & bit(11)) !== 0;
    if (wsi && (this.#state.reg(REG.fctl) & 2) === 0) return ILLEGAL;
    const pending = this.#ats.settle();
    if (pending === "waiting") return WAIT;
    if (pending === "timed-out") return TIMED_OUT;
    if ((w0 & bit(10)) !== 0) {
      // ADDR[63:2] stands in bits 61:0.
      const low = (w2 << 2) >>> 0;
      const high = ((w3 << 2) | (w2 >>> 30)) >>> 0;
      const pfn = high * 0x100000 + (low >>> 12);
      if (pfn >= this.#state.frameLimit) return FAULTED;
      const status = this.#state.memory.store32(pfn as HpaPfn, low & 0xfff, this.#state.ordered(w1));
      if (status !== ACCESS_OK) return FAULTED;
    }
    this.#fenceInterrupt = wsi;
    return DONE;
  }

  /** IODIR.INVAL_DDT and .INVAL_PDT (§4.1.3). */
  #iodir(process: boolean, w0: number, w1: number, w2: number, w3: number): Outcome {
    // Reserved: bits 11:10, bit 32, bits 39:34, dword 1.
    if ((w0 & 0xc00) !== 0 || (w1 & 0xfd) !== 0 || w2 !== 0 || w3 !== 0) return ILLEGAL;
    const dv = (w1 & 2) !== 0;
    const deviceId = w1 >>> 8;
    const processId = w0 >>> 12;
    if (process ? !dv : processId !== 0) return ILLEGAL;
    if (dv && !this.#caches.deviceIdFits(deviceId)) return ILLEGAL;
    if (process) {
      if (!this.#caches.processIdFits(processId)) return ILLEGAL;
      this.#caches.invalidateProcess(deviceId, processId);
    } else {
      this.#caches.invalidateDevice(dv ? deviceId : -1);
    }
    return DONE;
  }

  /** ATS.INVAL and ATS.PRGR (§4.1.4). */
  #atsCommand(response: boolean): Outcome {
    const { w0, w1, w2, w3 } = this.#entry;
    // Reserved: bits 11:10, bits 39:34.
    if ((w0 & 0xc00) !== 0 || (w1 & 0xfc) !== 0) return ILLEGAL;
    const pv = (w1 & 1) !== 0;
    const dsv = (w1 & 2) !== 0;
    const deviceId = ((w1 >>> 8) & 0xffff) | (dsv ? (w1 >>> 24) << 16 : 0);
    const pasid = pv ? w0 >>> 12 : -1;
    if (response) {
      // Dword 1: 31:0, 43:41 and 63:48 are reserved.
      if (w2 !== 0 || (w3 & 0xffff0e00) !== 0) return ILLEGAL;
      this.#ats.respond(deviceId, pasid, w3 & 0x1ff, (w3 >>> 12) & 0xf);
      return DONE;
    }
    // Dword 1: 10:1 are reserved.
    if ((w2 & 0x7fe) !== 0) return ILLEGAL;
    const pfn = (w3 >>> 0) * 0x100000 + (w2 >>> 12);
    const global = (w2 & 1) !== 0;
    // S: the address carries a size as in PCIe; 2^52 pages are all there are.
    const pages = (w2 & 0x800) !== 0 ? napotPages(pfn) : 1;
    const sent =
      pages < 2 ** 52
        ? this.#ats.invalidate(deviceId, pasid, pfn - (pfn % pages), pages, global)
        : this.#ats.invalidate(deviceId, pasid, 0, ALL_PAGES, global);
    return sent ? DONE : WAIT;
  }

  saveState(): StateRecord {
    return {
      traced: this.#traced,
    };
  }

  restoreState(state: StateReader): void {
    this.#traced = state.boolean("traced");
  }
}

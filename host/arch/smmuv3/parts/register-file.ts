// The register pages (IHI 0070 §6.2, §6.3) of an SMMU, in hardware or visible to a guest: which bits software can change and when, and what a write sets off.
//
// Updates are immediate: CR0ACK and IRQ_CTRLACK show at once what was written of what there is, GBPA.Update is never seen. A guarded register keeps
// its value while what guards it is on. Misaligned accesses and widths other than 4 and 8 read 0 and write nothing.

import type { AccessSize } from "../../../base/mmio.ts";
import { encodeIdentification } from "../identification.ts";
import {
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_PRIQEN,
  CR0_SMMUEN,
  CR2_E2H,
  CR2_PTM,
  CR2_REC_CFG_ATS,
  CR2_RECINVSID,
  GBPA_ABORT,
  GBPA_UPDATE,
  GERROR_BITS,
  IRQ_EVENTQ,
  IRQ_GERROR,
  IRQ_PRIQ,
  OVERFLOW_FLAG,
  PAGE_1,
  REG,
  REGISTER_BYTES,
} from "../registers.ts";
import { REGISTERS_END, type SmmuState } from "./smmu-state.ts";

/** What register writes set off; the SMMU implements it. */
export interface RegisterEffects {
  controlChanged(before: number, after: number): void;
  /** GBPA was updated. */
  bypassChanged(): void;
  commandsQueued(): void;
  errorsAcknowledged(): void;
  eventsConsumed(): void;
  /** IRQ_CTRL was written. */
  interruptsSwitched(): void;
}

const CONS_ERR = 0x7f000000;
const TABLE_ATTRIBUTES = 0xfc0;
const GBPA_FIELDS = 0xf3f1f | GBPA_ABORT;

/** What registers hold at reset besides the features. */
export interface ResetValues {
  readonly iidr: number;
  /** GBPA.ABORT. */
  readonly abortsAtReset: boolean;
}

/** What reads of a word give: all of it, indexes as wide as their queue, or nothing. */
const PLAIN = 0;
const NOTHING = 1;
const COMMAND_INDEX = 2;
const COMMAND_CONS = 3;
const EVENT_INDEX = 4;
const REQUEST_INDEX = 5;

/** Page 0 has nothing where the indexes of page 1 stand, and page 1 nothing else. */
const PAGE_0 = new Uint8Array(REGISTERS_END / 4);
const PAGE_1_SHAPES = new Uint8Array(REGISTERS_END / 4).fill(NOTHING);
const word = (offset: number): number => (offset & (PAGE_1 - 1)) >> 2;
PAGE_0[word(REG.CMDQ_PROD)] = COMMAND_INDEX;
PAGE_0[word(REG.CMDQ_CONS)] = COMMAND_CONS;
for (const [offset, shape] of [
  [REG.EVENTQ_PROD, EVENT_INDEX],
  [REG.EVENTQ_CONS, EVENT_INDEX],
  [REG.PRIQ_PROD, REQUEST_INDEX],
  [REG.PRIQ_CONS, REQUEST_INDEX],
] as const) {
  PAGE_0[word(offset)] = NOTHING;
  PAGE_1_SHAPES[word(offset)] = shape;
}

// Not state: the words are SmmuState'
export class RegisterFile {
  high = 0;
  readonly #state: SmmuState<number>;
  readonly #regs: Uint32Array;
  readonly #effects: RegisterEffects;
  readonly #atReset: ResetValues;

  constructor(state: SmmuState<number>, effects: RegisterEffects, atReset: ResetValues) {
    this.#state = state;
    this.#regs = state.regs;
    this.#effects = effects;
    this.#atReset = atReset;
    this.reset();
  }

  /** Enables 0; what is UNKNOWN at reset is 0. */
  reset(): void {
    const { regs, features } = this.#state;
    regs.fill(0);
    const words = encodeIdentification(features);
    for (const name of ["IDR0", "IDR1", "IDR3", "IDR5", "AIDR"] as const) regs[REG[name] >> 2] = Number(words[name]);
    regs[REG.IIDR >> 2] = this.#atReset.iidr;
    // SHCFG 1: use incoming.
    regs[REG.GBPA >> 2] = 0x1000 | (this.#atReset.abortsAtReset ? GBPA_ABORT : 0);
  }

  mmioRead(offset: number, size: AccessSize): number {
    this.high = 0;
    if (size === 4 && (offset & 3) === 0) return this.#read(offset);
    if (size !== 8 || (offset & 7) !== 0) return 0;
    this.high = this.#read(offset + 4);
    return this.#read(offset);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (size === 8 && (offset & 7) === 0) {
      this.#write(offset + 4, hi >>> 0);
      this.#write(offset, lo >>> 0);
    } else if (size === 4 && (offset & 3) === 0) this.#write(offset, lo >>> 0);
  }

  #read(offset: number): number {
    const within = offset & (PAGE_1 - 1);
    if (offset < 0 || offset >= REGISTER_BYTES || within >= REGISTERS_END) return 0;
    const word = within >> 2;
    const value = this.#regs[word]!;
    const shape = offset < PAGE_1 ? PAGE_0[word]! : PAGE_1_SHAPES[word]!;
    if (shape === PLAIN) return value;
    switch (shape) {
      case COMMAND_INDEX:
        return value & this.#indexMask(REG.CMDQ_BASE, this.#state.features.CMDQS);
      case COMMAND_CONS:
        return value & (this.#indexMask(REG.CMDQ_BASE, this.#state.features.CMDQS) | CONS_ERR);
      case EVENT_INDEX:
        return (value & (this.#indexMask(REG.EVENTQ_BASE, this.#state.features.EVENTQS) | OVERFLOW_FLAG)) >>> 0;
      case REQUEST_INDEX:
        return (value & (this.#indexMask(REG.PRIQ_BASE, this.#state.features.PRIQS) | OVERFLOW_FLAG)) >>> 0;
      default:
        return 0;
    }
  }

  /** Index and wrap bits of a queue of at most 2^limit entries. */
  #indexMask(base: number, limit: number): number {
    const log2 = this.#regs[base >> 2]! & 0x1f;
    return (2 << (log2 < limit ? log2 : limit)) - 1;
  }

  #write(offset: number, value: number): void {
    const effects = this.#effects;
    // The one that a driver writes all the time.
    if (offset === REG.CMDQ_PROD) {
      this.#regs[REG.CMDQ_PROD >> 2] = value & 0xfffff;
      effects.commandsQueued();
      return;
    }
    const state = this.#state;
    const { features } = state;
    const cr0 = state.reg(REG.CR0);
    switch (offset) {
      case REG.CR0: {
        const written = (value & this.#controlBits()) >>> 0;
        state.setReg(REG.CR0, written);
        state.setReg(REG.CR0ACK, written);
        effects.controlChanged(cr0, written);
        return;
      }
      case REG.CR1:
        if ((cr0 & CR0_SMMUEN) === 0) state.setReg(offset, value & 0xfff);
        else state.setReg(offset, (state.reg(offset) & TABLE_ATTRIBUTES) | (value & 0x3f));
        return;
      case REG.CR2:
        if ((cr0 & CR0_SMMUEN) === 0) {
          const bits =
            CR2_RECINVSID |
            (features.Hyp ? CR2_E2H : 0) |
            (features.BTM ? CR2_PTM : 0) |
            (features.ATSRECERR ? CR2_REC_CFG_ATS : 0);
          state.setReg(offset, value & bits);
        }
        return;
      case REG.GBPA:
        if ((value & GBPA_UPDATE) === 0) return;
        state.setReg(offset, value & GBPA_FIELDS);
        effects.bypassChanged();
        return;
      case REG.IRQ_CTRL: {
        const written = value & (IRQ_GERROR | IRQ_EVENTQ | (features.PRI ? IRQ_PRIQ : 0));
        state.setReg(REG.IRQ_CTRL, written);
        state.setReg(REG.IRQ_CTRLACK, written);
        effects.interruptsSwitched();
        return;
      }
      case REG.GERRORN:
        state.setReg(offset, value & GERROR_BITS);
        effects.errorsAcknowledged();
        return;
      case REG.STRTAB_BASE:
      case REG.STRTAB_BASE + 4:
        if ((cr0 & CR0_SMMUEN) !== 0) return;
        state.setReg(offset, offset === REG.STRTAB_BASE ? value & 0xffffffc0 : value & 0x40ffffff);
        return;
      case REG.STRTAB_BASE_CFG:
        if ((cr0 & CR0_SMMUEN) !== 0) return;
        state.setReg(offset, value & (features.ST_LEVEL === 0 ? 0x3f : 0x307ff));
        return;
      case REG.CMDQ_CONS:
        if ((cr0 & CR0_CMDQEN) === 0) state.setReg(offset, value & (0xfffff | CONS_ERR));
        return;
      case REG.EVENTQ_PROD:
        if ((cr0 & CR0_EVENTQEN) === 0) state.setReg(offset, value & 0x800fffff);
        return;
      case REG.EVENTQ_CONS:
        state.setReg(offset, value & 0x800fffff);
        effects.eventsConsumed();
        return;
      case REG.PRIQ_PROD:
        if (features.PRI && (cr0 & CR0_PRIQEN) === 0) state.setReg(offset, value & 0x800fffff);
        return;
      case REG.PRIQ_CONS:
        if (features.PRI) state.setReg(offset, value & 0x800fffff);
        return;
      default:
        this.#writeBase(offset, value, cr0);
    }
  }

  /** Queue bases, and where interrupts go. */
  #writeBase(offset: number, value: number, cr0: number): void {
    const state = this.#state;
    const { features } = state;
    const interrupts = state.reg(REG.IRQ_CTRL);
    switch (offset & ~4) {
      case REG.CMDQ_BASE:
        if ((cr0 & CR0_CMDQEN) === 0) state.setReg(offset, (offset & 4) === 0 ? value : value & 0x40ffffff);
        return;
      case REG.EVENTQ_BASE:
        if ((cr0 & CR0_EVENTQEN) === 0) state.setReg(offset, (offset & 4) === 0 ? value : value & 0x40ffffff);
        return;
      case REG.PRIQ_BASE:
        if (features.PRI && (cr0 & CR0_PRIQEN) === 0)
          state.setReg(offset, (offset & 4) === 0 ? value : value & 0x40ffffff);
        return;
      case REG.GERROR_IRQ_CFG0:
      case REG.GERROR_IRQ_CFG1:
        if ((interrupts & IRQ_GERROR) === 0) this.#writeMessage(offset, value, REG.GERROR_IRQ_CFG0, 0x3f);
        return;
      case REG.EVENTQ_IRQ_CFG0:
      case REG.EVENTQ_IRQ_CFG1:
        if ((interrupts & IRQ_EVENTQ) === 0) this.#writeMessage(offset, value, REG.EVENTQ_IRQ_CFG0, 0x3f);
        return;
      case REG.PRIQ_IRQ_CFG0:
      case REG.PRIQ_IRQ_CFG1:
        if (features.PRI && (interrupts & IRQ_PRIQ) === 0)
          this.#writeMessage(offset, value, REG.PRIQ_IRQ_CFG0, 0x8000003f);
        return;
    }
  }

  /** A word of IRQ_CFG0, CFG1 or CFG2; without MSIs only PRIQ_IRQ_CFG2.LO means anything (§6.3.21). */
  #writeMessage(offset: number, value: number, first: number, attributes: number): void {
    const place = offset - first;
    let bits = place === 0 ? 0xfffffffc : place === 4 ? 0x00ffffff : place === 8 ? 0xffffffff : attributes;
    if (!this.#state.features.MSI) bits = place === 12 ? attributes & 0x80000000 : 0;
    this.#state.setReg(offset, (value & bits) >>> 0);
  }

  #controlBits(): number {
    const { PRI, ATS, VMW } = this.#state.features;
    return CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN | (PRI ? CR0_PRIQEN : 0) | (ATS ? CR0_ATSCHK : 0) | (VMW ? 0x1c0 : 0);
  }
}

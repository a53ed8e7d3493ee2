// The register page (§6): 4- and 8-byte accesses, which bits software can change, and what a write sets off.
//
// Reads come straight from the register words. A write goes through the register's mask and then to the part that owns it; nothing
// here works on queues or tables (a write only latches). An 8-byte write acts as two 4-byte ones, high half first, so that the low
// half, which carries the side effects, sees the new high half (§6). Misaligned accesses, other widths and 8-byte accesses that are
// not one 8-byte register read 0 and write nothing.

import { encodeCapabilities } from "../../../arch/riscv/capabilities.ts";
import { DDTP_1LVL, DDTP_BARE, REG, REGISTER_PAGE_BYTES, registerAt } from "../../../arch/riscv/registers.ts";
import type { AccessSize } from "../../../base/mmio.ts";
import type { HardwareState } from "./hardware-state.ts";

/** What register writes set off; the IOMMU implements it. */
export interface RegisterEffects {
  fctlChanged(): void;
  directoryChanged(): void;
  commandTailChanged(): void;
  commandControl(value: number): void;
  faultControl(value: number): void;
  pageRequestControl(value: number): void;
  interruptsAcknowledged(bits: number): void;
  interruptTableChanged(): void;
  /** Before any counter register is read or written. */
  counterTouched(): void;
  /** After one (iocountinh, iohpmcycles, iohpmctr, iohpmevt) was written. */
  counterChanged(): void;
  /** tr_req_ctl was written with Go set. */
  translationRequested(): void;
}

const COUNTER_WORDS_END = (REG.iohpmevt1 + 31 * 8) >> 2;

export class RegisterFile {
  high = 0;
  readonly #state: HardwareState;
  readonly #effects: RegisterEffects;
  // not state, to the blank line: what capabilities allow.
  /** Per word: bits that a plain write changes. */
  readonly #writable = new Uint32Array(REGISTER_PAGE_BYTES / 4);
  /** Per word: 1 if an 8-byte register starts here. */
  readonly #wide = new Uint8Array(REGISTER_PAGE_BYTES / 4);

  constructor(state: HardwareState, effects: RegisterEffects) {
    this.#state = state;
    this.#effects = effects;
    for (let offset = 0; offset < REGISTER_PAGE_BYTES; offset += 8) {
      const place = registerAt(offset);
      if (place !== undefined && place.register.bytes === 8 && place.offset === offset) this.#wide[offset >> 2] = 1;
    }
    this.#setMasks();
    this.reset();
  }

  /** Reset values (§6.2): ddtp Off or Bare, every enable 0; what is UNSPECIFIED is 0. */
  reset(): void {
    const { configuration, regs } = this.#state;
    regs.fill(0);
    const capabilities = encodeCapabilities(configuration.capabilities);
    regs[0] = Number(capabilities & 0xffffffffn);
    regs[1] = Number(capabilities >> 32n);
    regs[REG.fctl >> 2] = configuration.fctl;
    regs[REG.ddtp >> 2] = configuration.resetMode;
  }

  mmioRead(offset: number, size: AccessSize): number {
    this.high = 0;
    if (!this.#accessible(offset, size)) return 0;
    const word = offset >> 2;
    if (word >= REG.iocountovf >> 2 && word < COUNTER_WORDS_END) this.#effects.counterTouched();
    const regs = this.#state.regs;
    if (size === 8) this.high = regs[word + 1]!;
    return regs[word]!;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (!this.#accessible(offset, size)) return;
    if (size === 8) this.#writeWord(offset + 4, hi >>> 0);
    this.#writeWord(offset, lo >>> 0);
  }

  #accessible(offset: number, size: AccessSize): boolean {
    if (offset < 0 || offset >= REGISTER_PAGE_BYTES) return false;
    if (size === 4) return (offset & 3) === 0;
    return size === 8 && (offset & 7) === 0 && this.#wide[offset >> 2] === 1;
  }

  #writeWord(offset: number, value: number): void {
    const state = this.#state;
    const effects = this.#effects;
    const word = offset >> 2;
    switch (offset) {
      case REG.cqcsr:
        effects.commandControl(value);
        return;
      case REG.fqcsr:
        effects.faultControl(value);
        return;
      case REG.pqcsr:
        if (state.rules.ATS) effects.pageRequestControl(value);
        return;
      case REG.ipsr:
        effects.interruptsAcknowledged(value);
        return;
      case REG.ddtp:
        this.#writeDirectoryPointer(value);
        return;
      case REG.cqb:
      case REG.fqb:
      case REG.pqb:
        this.#writeQueueBase(offset, value);
        return;
      case REG.cqt:
        state.regs[word] = value & state.indexMask(REG.cqb);
        effects.commandTailChanged();
        return;
      case REG.fqh:
        state.regs[word] = value & state.indexMask(REG.fqb);
        return;
      case REG.pqh:
        if (state.rules.ATS) state.regs[word] = value & state.indexMask(REG.pqb);
        return;
      case REG.tr_req_ctl:
        this.#writeTranslationRequest(value);
        return;
    }
    const mask = this.#writable[word]!;
    if (mask === 0) return;
    // A debug translation under way keeps its inputs (§6.25 leaves it open).
    if (offset >= REG.tr_req_iova && offset < REG.tr_response && (state.reg(REG.tr_req_ctl) & 1) !== 0) return;
    const isCounter = word > REG.iocountovf >> 2 && word < COUNTER_WORDS_END;
    if (isCounter) effects.counterTouched();
    const old = state.regs[word]!;
    state.regs[word] = (old & ~mask) | (value & mask);
    if (offset === REG.fctl) {
      if (state.regs[word] !== old) effects.fctlChanged();
    } else if (offset === REG.icvec || offset >= REG.msi_cfg_tbl) {
      effects.interruptTableChanged();
    } else if (isCounter) {
      effects.counterChanged();
    }
  }

  /** ddtp (§6.5): an illegal mode leaves the old one; a mode's change is complete at once (busy is never seen). */
  #writeDirectoryPointer(value: number): void {
    const state = this.#state;
    const wanted = value & 0xf;
    const legal = wanted <= DDTP_BARE || wanted < DDTP_1LVL + state.configuration.directoryLevels;
    const mode = legal ? wanted : state.reg(REG.ddtp) & 0xf;
    state.setReg(REG.ddtp, (value & 0xfffffc00) | mode);
    this.#effects.directoryChanged();
  }

  /** cqb, fqb, pqb (§6.6): LOG2SZ-1 is clamped to the largest queue; software's index is kept within the new width. */
  #writeQueueBase(offset: number, value: number): void {
    const state = this.#state;
    if (offset === REG.pqb && !state.rules.ATS) return;
    const largest = state.configuration.queueSizeLog2 - 1;
    const size = Math.min(value & 0x1f, largest);
    state.setReg(offset, ((value & 0xfffffc00) | size) >>> 0);
    const index = offset === REG.cqb ? REG.cqt : offset === REG.fqb ? REG.fqh : REG.pqh;
    state.setReg(index, state.reg(index) & state.indexMask(offset));
  }

  /** tr_req_ctl (§6.25): Go/Busy is set by software and cleared by hardware; while it is 1 the request stays as it is. */
  #writeTranslationRequest(value: number): void {
    const state = this.#state;
    if (!state.rules.DBG || (state.reg(REG.tr_req_ctl) & 1) !== 0) return;
    state.setReg(REG.tr_req_ctl, (value & 0xfffff00f) >>> 0);
    if ((value & 1) !== 0) this.#effects.translationRequested();
  }

  #setMasks(): void {
    const { configuration } = this.#state;
    const { capabilities } = configuration;
    const mask = (offset: number, bits: number): void => {
      this.#writable[offset >> 2] = bits;
    };
    mask(REG.fctl, configuration.fctlWritable);
    mask(REG.ddtp + 4, 0x3fffff);
    mask(REG.cqb + 4, 0x3fffff);
    mask(REG.fqb + 4, 0x3fffff);
    if (capabilities.ATS) mask(REG.pqb + 4, 0x3fffff);
    if (capabilities.HPM) {
      const counters = configuration.counters;
      mask(REG.iocountinh, counters === 31 ? 0xffffffff : 2 ** (counters + 1) - 1);
      mask(REG.iohpmcycles, 0xffffffff);
      mask(REG.iohpmcycles + 4, 0xffffffff);
      const highBits = configuration.counterBits === 64 ? 0xffffffff : 2 ** (configuration.counterBits - 32) - 1;
      for (let i = 0; i < counters; i++) {
        mask(REG.iohpmctr1 + 8 * i, 0xffffffff);
        mask(REG.iohpmctr1 + 8 * i + 4, highBits);
        mask(REG.iohpmevt1 + 8 * i, 0xffffffff);
        mask(REG.iohpmevt1 + 8 * i + 4, 0xffffffff);
      }
    }
    if (capabilities.DBG) {
      mask(REG.tr_req_iova, 0xfffff000);
      mask(REG.tr_req_iova + 4, 0xffffffff);
      mask(REG.tr_req_ctl + 4, 0xffffff01);
    }
    if (capabilities.QOSID) {
      mask(REG.iommu_qosid, (2 ** configuration.rcidBits - 1) | ((2 ** configuration.mcidBits - 1) << 16));
    }
    const field = 2 ** configuration.vectorBits - 1;
    mask(REG.icvec, field | (field << 4) | (capabilities.HPM ? field << 8 : 0) | (capabilities.ATS ? field << 12 : 0));
    if (capabilities.IGS !== 1) {
      for (let vector = 0; vector < 2 ** configuration.vectorBits; vector++) {
        const entry = REG.msi_cfg_tbl + 16 * vector;
        mask(entry, 0xfffffffc);
        mask(entry + 4, 0x00ffffff);
        mask(entry + 8, 0xffffffff);
        mask(entry + 12, 1);
      }
    }
  }
}

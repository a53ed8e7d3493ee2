// The register file of the guest-visible IOMMU (RISC-V IOMMU §6): which registers of the architecture's table exist for this guest,
// and the words behind them.
//
// Every register reads what stands in `words`, so a read is one load. What a write changes is decided by two masks a word, made
// once from the architecture's table and the capabilities; what it sets in motion is the register's effect, which the IOMMU acts on.
// Accesses that the specification leaves open (1 or 2 bytes, across registers, to the middle of one) read 0 and change nothing.

import { CAPABILITIES, FCTL, IGS_BOTH, IGS_WSI } from "../../../host/arch/riscv/capabilities.ts";
import { ICVEC, REG, REGISTERS, type RegisterDescription } from "../../../host/arch/riscv/registers.ts";
import type { BitField } from "../../../host/base/fields.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../host/base/state.ts";

/** What a write to a register's (low) word sets in motion. */
export const EFFECT = {
  NONE: 0,
  FCTL: 1,
  DDTP: 2,
  CQB: 3,
  CQT: 4,
  CQCSR: 5,
  FQB: 6,
  FQH: 7,
  FQCSR: 8,
  PQB: 9,
  PQH: 10,
  PQCSR: 11,
  IPSR: 12,
  ICVEC: 13,
  VEC_CTL: 14,
  TR_REQ_CTL: 15,
} as const;

const EFFECTS: Readonly<Record<string, number>> = {
  fctl: EFFECT.FCTL,
  ddtp: EFFECT.DDTP,
  cqb: EFFECT.CQB,
  cqt: EFFECT.CQT,
  cqcsr: EFFECT.CQCSR,
  fqb: EFFECT.FQB,
  fqh: EFFECT.FQH,
  fqcsr: EFFECT.FQCSR,
  pqb: EFFECT.PQB,
  pqh: EFFECT.PQH,
  pqcsr: EFFECT.PQCSR,
  ipsr: EFFECT.IPSR,
  icvec: EFFECT.ICVEC,
  msi_vec_ctl: EFFECT.VEC_CTL,
  tr_req_ctl: EFFECT.TR_REQ_CTL,
};

/** Indices of words, for hot code: the registers' offsets over 4. */
export const WORD = {
  CAPABILITIES: REG.capabilities / 4,
  FCTL: REG.fctl / 4,
  DDTP: REG.ddtp / 4,
  CQB: REG.cqb / 4,
  CQH: REG.cqh / 4,
  CQT: REG.cqt / 4,
  FQB: REG.fqb / 4,
  FQH: REG.fqh / 4,
  FQT: REG.fqt / 4,
  PQB: REG.pqb / 4,
  PQH: REG.pqh / 4,
  PQT: REG.pqt / 4,
  CQCSR: REG.cqcsr / 4,
  FQCSR: REG.fqcsr / 4,
  PQCSR: REG.pqcsr / 4,
  IPSR: REG.ipsr / 4,
  TR_REQ_IOVA: REG.tr_req_iova / 4,
  TR_REQ_CTL: REG.tr_req_ctl / 4,
  TR_RESPONSE: REG.tr_response / 4,
  ICVEC: REG.icvec / 4,
  MSI_CFG_TBL: REG.msi_cfg_tbl / 4,
} as const;

/** fctl.WSI (§6.4). */
export const FCTL_WSI = 1 << FCTL.fields.WSI.low;

/** Largest LOG2SZ-1 of any queue: 8192 entries, what Linux asks for. It bounds the work of one write to cqt. */
export const LOG2SZ_1_LIMIT = 12;

/** Registers that need a capability to exist; all others do. */
function exists(name: string, capabilities: bigint): boolean {
  const has = (field: keyof typeof CAPABILITIES.fields) => CAPABILITIES.get([capabilities], field) === 1n;
  if (/^pq/.test(name)) return has("ATS");
  if (/^ioh|^iocount/.test(name)) return has("HPM");
  if (/^tr_/.test(name)) return has("DBG");
  if (name === "iommu_qosid") return has("QOSID");
  if (/^msi_/.test(name)) return CAPABILITIES.get([capabilities], "IGS") !== BigInt(IGS_WSI);
  return true;
}

/** Bits of a field that software can write, under `capabilities`. */
function writableBits(register: string, field: BitField, capabilities: bigint, vectorsLog2: number): bigint {
  if (field.access !== "RW" && field.access !== "WARL" && field.access !== "RW1S") return 0n;
  // fctl: byte order and GXL are the host's; WSI is free only where both kinds of interrupt exist (§6.4).
  if (register === "fctl") {
    const free = field.name === "WSI" && CAPABILITIES.get([capabilities], "IGS") === BigInt(IGS_BOTH);
    return free ? 1n << BigInt(field.low) : 0n;
  }
  let width = field.width;
  if (register === "icvec") {
    // 2^N vectors have N writable bits a field; pmiv reads 0 without HPM, piv without ATS (§6.28).
    width = Math.min(width, vectorsLog2);
    if (field.name === ICVEC.fields.pmiv.name && CAPABILITIES.get([capabilities], "HPM") === 0n) width = 0;
    if (field.name === ICVEC.fields.piv.name && CAPABILITIES.get([capabilities], "ATS") === 0n) width = 0;
  }
  // Go/Busy is not kept: a debug translation is done before the write returns.
  if (field.access === "RW1S") return 0n;
  return ((1n << BigInt(width)) - 1n) << BigInt(field.low);
}

const ABSENT = 0;
const FOUR = 4;
const EIGHT_LOW = 8;
const EIGHT_HIGH = 9;

export class RegisterFile implements Stateful {
  /** Current values, 1 KiB: what lies above reads 0. */
  readonly words = new Uint32Array(256);

  // not state, to the blank line: made once, from the architecture's table and the capabilities
  readonly writable = new Uint32Array(256);
  readonly clearedByOne = new Uint32Array(256);
  readonly effects = new Uint8Array(256);
  readonly #shape = new Uint8Array(256);

  constructor(capabilities: bigint, vectorsLog2: number) {
    for (const register of REGISTERS) {
      if (!exists(register.name, capabilities)) continue;
      const count = register.name.startsWith("msi_") ? 2 ** vectorsLog2 : (register.count ?? 1);
      for (let i = 0; i < count; i++) {
        this.#add(register, (register.offset + i * (register.stride ?? 0)) >>> 2, capabilities, vectorsLog2);
      }
    }
    this.set64(WORD.CAPABILITIES, capabilities);
  }

  /** True if an access of `size` bytes at `offset` is one the specification defines. */
  defines(offset: number, size: number): boolean {
    if (offset >= 1024) return false;
    const shape = this.#shape[offset >>> 2]!;
    if (size === 4) return (offset & 3) === 0 && shape !== ABSENT;
    return size === 8 && (offset & 7) === 0 && shape === EIGHT_LOW;
  }

  set64(word: number, value: bigint): void {
    this.words[word] = Number(value & 0xffff_ffffn);
    this.words[word + 1] = Number((value >> 32n) & 0xffff_ffffn);
  }

  get64(word: number): bigint {
    return (BigInt(this.words[word + 1]!) << 32n) | BigInt(this.words[word]!);
  }

  #add(register: RegisterDescription, word: number, capabilities: bigint, vectorsLog2: number): void {
    let writable = 0n;
    let clearedByOne = 0n;
    for (const field of Object.values(register.fields.fields)) {
      writable |= writableBits(register.name, field, capabilities, vectorsLog2);
      if (field.access === "RW1C") clearedByOne |= ((1n << BigInt(field.width)) - 1n) << BigInt(field.low);
    }
    const low = (value: bigint) => Number(value & 0xffff_ffffn);
    this.#shape[word] = register.bytes === 8 ? EIGHT_LOW : FOUR;
    this.writable[word] = low(writable);
    this.clearedByOne[word] = low(clearedByOne);
    this.effects[word] = EFFECTS[register.name] ?? EFFECT.NONE;
    if (register.bytes === 8) {
      this.#shape[word + 1] = EIGHT_HIGH;
      this.writable[word + 1] = low(writable >> 32n);
    }
  }

  saveState(): StateRecord {
    return { words: bytesOf(this.words) };
  }

  restoreState(state: StateReader): void {
    state.memory("words", this.words);
  }
}

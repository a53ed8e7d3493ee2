// What the parts of one SMMU share, in hardware or visible to a guest: the register words, memory, trace, features. One object per SMMU; every part
// keeps to its own registers in it.

import { ACCESS_OK, type MemoryPort } from "../../../base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import { outputBits, type SmmuFeatures } from "../identification.ts";
import { CR0_SMMUEN, GERROR_CMDQ_ERR, PAGE_1, REG } from "../registers.ts";
import { type StreamTable, streamTable } from "../structure-walk.ts";

/** Registers stand below this offset of their page; those of page 1 in the same words, which page 0 has no use for. */
export const REGISTERS_END = 0x200;

export class SmmuState<P extends number> implements Stateful {
  readonly name: string;
  /** Whose it is: for traces. */
  readonly where: "host" | "guest";
  readonly memory: MemoryPort<P>;
  readonly trace: Trace;
  readonly features: SmmuFeatures;
  readonly regs = new Uint32Array(REGISTERS_END / 4);
  /** First frame beyond OAS. */
  readonly frameLimit: number;

  constructor(name: string, where: "host" | "guest", memory: MemoryPort<P>, trace: Trace, features: SmmuFeatures) {
    this.name = name;
    this.where = where;
    this.memory = memory;
    this.trace = trace;
    this.features = features;
    this.frameLimit = 2 ** (outputBits(features) - 12);
  }

  saveState(): StateRecord {
    return { regs: bytesOf(this.regs) };
  }

  restoreState(state: StateReader): void {
    state.memory("regs", this.regs);
  }

  reg(offset: number): number {
    return this.regs[(offset & (PAGE_1 - 1)) >> 2]!;
  }

  setReg(offset: number, value: number): void {
    this.regs[(offset & (PAGE_1 - 1)) >> 2] = value;
  }

  get enabled(): boolean {
    return (this.regs[REG.CR0 >> 2]! & CR0_SMMUEN) !== 0;
  }

  /** True if these errors are active: GERROR and GERRORN differ (§7.5). */
  errorActive(bits: number): boolean {
    return ((this.regs[REG.GERROR >> 2]! ^ this.regs[REG.GERRORN >> 2]!) & bits) !== 0;
  }

  get commandErrorActive(): boolean {
    return this.errorActive(GERROR_CMDQ_ERR);
  }

  /** Where the stream table is, and of what shape. */
  get streamTable(): StreamTable {
    const levels = this.features.ST_LEVEL !== 0;
    return streamTable(this.reg(REG.STRTAB_BASE), this.reg(REG.STRTAB_BASE + 4), this.reg(REG.STRTAB_BASE_CFG), levels);
  }

  /** log2 of the entries of the queue whose base register is at `base`, no more than `limit` (§3.5.1). */
  queueLog2(base: number, limit: number): number {
    return Math.min(this.reg(base) & 0x1f, limit);
  }

  /** Frame and, left in `entryOffset`, the offset of entry `index` of a queue of 2^log2 entries of `bytes` bytes; the base is aligned to its size. */
  entryFrame(base: number, log2: number, bytes: number, index: number): number {
    // At most 2^19 entries of 32 bytes: all below bit 32.
    const size = Math.max(32, bytes << log2);
    const low = (this.reg(base) & -size) + Math.imul(index, bytes);
    this.entryOffset = low & 0xfff;
    return (this.reg(base + 4) & 0xffffff) * 0x100000 + (low >>> 12);
  }

  entryOffset = 0; // not state: result of the last call

  /** Stores a doubleword; false if nothing takes it there. */
  storeDoubleword(pfn: number, offset: number, lo: number, hi: number): boolean {
    return pfn < this.frameLimit && this.memory.store64(pfn as P, offset, lo, hi) === ACCESS_OK;
  }

  /** Stores a word; false if nothing takes it there. */
  storeWord(pfn: number, offset: number, value: number): boolean {
    return pfn < this.frameLimit && this.memory.store32(pfn as P, offset, value) === ACCESS_OK;
  }
}

// What the parts of one unit share, in hardware or visible to a guest: register words, memory, trace, features, and what was latched of registers that
// take effect by a command only. One object a unit; every part keeps to its own registers in it.

import { ACCESS_OK, type MemoryPort } from "../../../base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { VtdFeatures } from "../capabilities.ts";
import { FSTS_IQE, FSTS_ITE, GCMD_IRE, GCMD_QIE, GCMD_TE, REG, registerBytes } from "../registers.ts";
import type { StructureRules } from "../structure-rules.ts";
import { frameIn } from "../structure-walk.ts";

export class VtdState<P extends number> implements Stateful {
  readonly name: string;
  /** Whose it is: for traces. */
  readonly where: "host" | "guest";
  readonly memory: MemoryPort<P>;
  readonly trace: Trace;
  readonly features: VtdFeatures;
  readonly rules: StructureRules;
  /** Bytes of register space. */
  readonly bytes: number;
  readonly regs: Uint32Array;
  /** RTADDR as SRTP latched it, IRTA as SIRTP did. */
  readonly #latched = new Uint32Array(4);

  constructor(name: string, where: "host" | "guest", memory: MemoryPort<P>, trace: Trace, rules: StructureRules) {
    this.name = name;
    this.where = where;
    this.memory = memory;
    this.trace = trace;
    this.rules = rules;
    this.features = rules.features;
    this.bytes = registerBytes(rules.features);
    this.regs = new Uint32Array(this.bytes / 4);
  }

  saveState(): StateRecord {
    return { regs: bytesOf(this.regs), latched: bytesOf(this.#latched) };
  }

  restoreState(state: StateReader): void {
    state.memory("regs", this.regs);
    state.memory("latched", this.#latched);
  }

  reset(): void {
    this.regs.fill(0);
    this.#latched.fill(0);
  }

  /** Takes over what another unit's registers hold: for a copy that is asked what tables say. */
  copy(other: VtdState<P>): void {
    this.regs.set(other.regs);
    this.#latched.set(other.#latched);
  }

  reg(offset: number): number {
    return this.regs[offset >> 2]!;
  }

  setReg(offset: number, value: number): void {
    this.regs[offset >> 2] = value;
  }

  latchRoot(): void {
    this.#latched[0] = this.reg(REG.RTADDR);
    this.#latched[1] = this.reg(REG.RTADDR + 4);
  }

  latchInterruptTable(): void {
    this.#latched[2] = this.reg(REG.IRTA);
    this.#latched[3] = this.reg(REG.IRTA + 4);
  }

  /** RTADDR.TTM and the root table's frame. */
  get tableMode(): number {
    return (this.#latched[0]! >>> 10) & 3;
  }

  get rootPfn(): number {
    return frameIn(this.#latched[0]!, this.#latched[1]!);
  }

  /** Bits 31:0 of IRTA (S, EIME), and the interrupt remapping table's frame. */
  get interruptTable(): number {
    return this.#latched[2]!;
  }

  get interruptTablePfn(): number {
    return frameIn(this.#latched[2]!, this.#latched[3]!);
  }

  /** GSTS.TES, IRES, QIES. */
  get translating(): boolean {
    return (this.regs[REG.GSTS >> 2]! & GCMD_TE) !== 0;
  }

  get remapsInterrupts(): boolean {
    return (this.regs[REG.GSTS >> 2]! & GCMD_IRE) !== 0;
  }

  get queueEnabled(): boolean {
    return (this.regs[REG.GSTS >> 2]! & GCMD_QIE) !== 0;
  }

  /** The queue is stopped by an error. */
  get queueStopped(): boolean {
    return (this.regs[REG.FSTS >> 2]! & (FSTS_IQE | FSTS_ITE)) !== 0;
  }

  storeWord(pfn: number, offset: number, value: number): boolean {
    return pfn < this.rules.frameLimit && this.memory.store32(pfn as P, offset, value) === ACCESS_OK;
  }

  storeDoubleword(pfn: number, offset: number, lo: number, hi: number): boolean {
    return pfn < this.rules.frameLimit && this.memory.store64(pfn as P, offset, lo, hi) === ACCESS_OK;
  }
}

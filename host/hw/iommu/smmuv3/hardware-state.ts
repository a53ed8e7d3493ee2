// What the parts of one SMMU share: the register words, memory, trace, features. One object per SMMU; every part keeps to its own registers in it.

import type { SmmuFeatures } from "../../../arch/smmuv3/identification.ts";
import { CR0_SMMUEN, GERROR_CMDQ_ERR, PAGE_1, REG } from "../../../arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Clock } from "../../../base/clock.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { IommuParts } from "../port.ts";
import { frameLimit, type Smmuv3Configuration } from "./options.ts";

/** Registers stand below this offset of their page; those of page 1 in the same words, which page 0 has no use for. */
export const REGISTERS_END = 0x200;

export class HardwareState implements Stateful {
  readonly name: string;
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly configuration: Smmuv3Configuration;
  readonly features: SmmuFeatures;
  readonly regs = new Uint32Array(REGISTERS_END / 4);
  /** First frame beyond OAS. */
  readonly frameLimit: number;

  constructor(parts: IommuParts, configuration: Smmuv3Configuration) {
    this.name = parts.name;
    this.memory = parts.memory;
    this.clock = parts.clock;
    this.trace = parts.trace;
    this.configuration = configuration;
    this.features = configuration.features;
    this.frameLimit = frameLimit(configuration.features);
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

  /** log2 of the entries of the queue whose base register is at `base`, no more than `limit` (§3.5.1). */
  queueLog2(base: number, limit: number): number {
    return Math.min(this.reg(base) & 0x1f, limit);
  }

  /** Frame and, left in `entryOffset`, the offset of entry `index` of a queue of 2^log2 entries of `bytes` bytes; the base is aligned to its size. */
  entryFrame(base: number, log2: number, bytes: number, index: number): number {
    const size = Math.max(32, 2 ** log2 * bytes);
    let address = (this.reg(base + 4) & 0xffffff) * 0x100000000 + ((this.reg(base) & 0xffffffe0) >>> 0);
    address = address - (address % size) + index * bytes;
    this.entryOffset = address % 4096;
    return Math.floor(address / 4096);
  }

  entryOffset = 0; // not state: result of the last call

  /** Stores a doubleword; false if nothing takes it there. */
  storeDoubleword(pfn: number, offset: number, lo: number, hi: number): boolean {
    return pfn < this.frameLimit && this.memory.store64(pfn as HpaPfn, offset, lo, hi) === 0;
  }
}

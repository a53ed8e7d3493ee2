// What the parts of one IOMMU share: the register words, memory, trace, and the rules that capabilities and fctl give. One object
// per IOMMU; every part keeps to its own registers in it.

import type { StructureRules } from "../../../arch/riscv/capabilities.ts";
import { REG, REGISTER_PAGE_BYTES } from "../../../arch/riscv/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { swap32 } from "../../../base/byte-order.ts";
import type { Clock } from "../../../base/clock.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { Trace } from "../../../base/trace.ts";
import type { IommuParts } from "../port.ts";
import { type RiscvIommuConfiguration, rulesOf } from "./options.ts";

export class HardwareState {
  readonly name: string;
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly configuration: RiscvIommuConfiguration;
  // not state: RiscvIommu writes them down.
  /** The register page as 32-bit words; word n is at offset 4n. */
  readonly regs = new Uint32Array(REGISTER_PAGE_BYTES / 4);
  rules: StructureRules; // not state: what fctl says
  /** First frame beyond PAS. */
  readonly frameLimit: number;

  constructor(parts: IommuParts, configuration: RiscvIommuConfiguration) {
    this.name = parts.name;
    this.memory = parts.memory;
    this.clock = parts.clock;
    this.trace = parts.trace;
    this.configuration = configuration;
    this.rules = rulesOf(configuration, configuration.fctl);
    this.frameLimit = 2 ** (configuration.capabilities.PAS - 12);
  }

  reg(offset: number): number {
    return this.regs[offset >> 2]!;
  }

  setReg(offset: number, value: number): void {
    this.regs[offset >> 2] = value;
  }

  /** Entries minus one of the queue whose base register is at `base`: LOG2SZ-1 in bits 4:0. */
  indexMask(base: number): number {
    return ((2 << (this.regs[base >> 2]! & 0x1f)) - 1) >>> 0;
  }

  /** A half in the byte order of queues and messages (fctl.BE): swapped or as it is. */
  ordered(value: number): number {
    return (this.regs[REG.fctl >> 2]! & 1) !== 0 ? swap32(value) : value;
  }

  /** Stores a doubleword in fctl.BE order; a memory access status. */
  storeDoubleword(pfn: number, offset: number, lo: number, hi: number): number {
    if (pfn >= this.frameLimit) return 1;
    if ((this.regs[REG.fctl >> 2]! & 1) !== 0) {
      return this.memory.store64(pfn as HpaPfn, offset, swap32(hi), swap32(lo));
    }
    return this.memory.store64(pfn as HpaPfn, offset, lo, hi);
  }

  /** Frame number in bits 53:10 of an 8-byte register. */
  frameIn(offset: number): number {
    return (this.regs[(offset >> 2) + 1]! & 0x3fffff) * 0x400000 + (this.regs[offset >> 2]! >>> 10);
  }
}

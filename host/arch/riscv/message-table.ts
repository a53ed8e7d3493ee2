// MSI address translation (§3.3.3, AIA "MSI page tables"): from the guest-physical page of a virtual interrupt file to a real one's,
// or to an interrupt file that lives in memory (MRIF).
//
// `locate` reads the entry for an interrupt file number and leaves what it says in fields; faults are returned as causes.

import { swap32 } from "../../base/byte-order.ts";
import { ACCESS_FAULT, ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import type { StructureRules } from "./capabilities.ts";
import {
  CAUSE_MSI_PT_DATA_CORRUPTION,
  CAUSE_MSI_PTE_LOAD_ACCESS_FAULT,
  CAUSE_MSI_PTE_MISCONFIGURED,
  CAUSE_MSI_PTE_NOT_VALID,
} from "./fault-records.ts";
import { MSI_PTE_M_BASIC, MSI_PTE_M_MRIF } from "./page-table-entry.ts";
import { TABLE_MSI, type WalkObserver } from "./walk-observer.ts";

/** Bits of the page number `low`, `high` that the mask selects, packed (AIA: extract); up to 52 bits, as a number. */
export function interruptFileNumber(low: number, high: number, maskLow: number, maskHigh: number): number {
  let packed = 0;
  let weight = 1;
  for (let i = 0; i < 32; i++) {
    if (((maskLow >>> i) & 1) !== 0) {
      if (((low >>> i) & 1) !== 0) packed += weight;
      weight *= 2;
    }
  }
  for (let i = 0; i < 20; i++) {
    if (((maskHigh >>> i) & 1) !== 0) {
      if (((high >>> i) & 1) !== 0) packed += weight;
      weight *= 2;
    }
  }
  return packed;
}

/** Bitwise OR of two frame numbers below 2^52. */
function orFrames(a: number, b: number): number {
  const high = (a * 2 ** -32) | 0 | ((b * 2 ** -32) | 0);
  return high * 0x100000000 + ((a | 0 | (b | 0)) >>> 0);
}

// Not state: what one walk found, and settings that whoever owns the walker makes again.
export class MessageTableWalker<P extends number> {
  /** True: an interrupt file in memory; else `pfn` is where the page goes. */
  inMemory = false;
  pfn = 0;
  /** MRIF: its frame and offset (a multiple of 512), and the notice message. */
  filePfn = 0;
  fileOffset = 0;
  noticePfn = 0;
  noticeData = 0;
  observer: WalkObserver | null = null;
  readonly #memory: MemoryPort<P>;
  #rules: StructureRules;

  constructor(memory: MemoryPort<P>, rules: StructureRules) {
    this.#memory = memory;
    this.#rules = rules;
  }

  configure(rules: StructureRules): void {
    this.#rules = rules;
  }

  /** Reads entry `index` of the table at frame `root`. 0, or 261, 262, 263, 270. */
  locate(root: number, index: number): number {
    const rules = this.#rules;
    const memory = this.#memory;
    // §3.3.3 forms the address by OR; tables are aligned to their size.
    const pfn = orFrames(root, Math.floor(index / 256));
    const offset = (index % 256) * 16;
    if (pfn >= 2 ** (rules.PAS - 12)) return CAUSE_MSI_PTE_LOAD_ACCESS_FAULT;
    const first = memory.load64(pfn as P, offset);
    if (first === ACCESS_FAULT) return CAUSE_MSI_PTE_LOAD_ACCESS_FAULT;
    const w0 = rules.bigEndian ? swap32(memory.hi) : memory.lo;
    const w1 = rules.bigEndian ? swap32(memory.lo) : memory.hi;
    const second = memory.load64(pfn as P, offset + 8);
    if (second === ACCESS_FAULT) return CAUSE_MSI_PTE_LOAD_ACCESS_FAULT;
    if (first !== ACCESS_OK || second !== ACCESS_OK) return CAUSE_MSI_PT_DATA_CORRUPTION;
    const w2 = rules.bigEndian ? swap32(memory.hi) : memory.lo;
    const w3 = rules.bigEndian ? swap32(memory.lo) : memory.hi;
    if (this.observer !== null) this.observer.tableLoaded(TABLE_MSI, 0, pfn, offset, w0, w1, -1);
    if ((w0 & 1) === 0) return CAUSE_MSI_PTE_NOT_VALID;
    // C = 1 is for custom use, which there is none of here.
    if ((w1 & 0x80000000) !== 0) return CAUSE_MSI_PTE_MISCONFIGURED;
    const mode = (w0 >>> 1) & 3;
    if (mode === MSI_PTE_M_BASIC) {
      if ((w0 & 0x3f8) !== 0 || (w1 & 0x7fc00000) !== 0) return CAUSE_MSI_PTE_MISCONFIGURED;
      this.inMemory = false;
      this.pfn = (w1 & 0x3fffff) * 0x400000 + (w0 >>> 10);
      return 0;
    }
    if (mode !== MSI_PTE_M_MRIF || !rules.MSI_MRIF) return CAUSE_MSI_PTE_MISCONFIGURED;
    // Reserved: 6:3 and 62:54; of the second doubleword 59:54 and 63:61.
    if ((w0 & 0x78) !== 0 || (w1 & 0x7fc00000) !== 0 || (w3 & 0xefc00000) !== 0) return CAUSE_MSI_PTE_MISCONFIGURED;
    this.inMemory = true;
    // MRIF address bits 55:9 stand in bits 53:7: bits 55:12 in 53:10, bits 11:9 in 9:7.
    this.filePfn = (w1 & 0x3fffff) * 0x400000 + (w0 >>> 10);
    this.fileOffset = (w0 & 0x380) << 2;
    this.noticePfn = (w3 & 0x3fffff) * 0x400000 + (w2 >>> 10);
    this.noticeData = (w2 & 0x3ff) | (((w3 >>> 28) & 1) << 10);
    return 0;
  }
}

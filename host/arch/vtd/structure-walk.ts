// From source id and PASID to the structure that says what becomes of a request (§3.4): root entry, context entry, PASID directory entry, PASID entry, over
// a memory port.
//
//     legacy     root[bus] ──▶ context[devfn]
//     scalable   root[bus] half ──▶ context[devfn & 7Fh] ──▶ PASID directory[PASID 19:6] ──▶ PASID table[PASID 5:0]
//
// What was found stands in `context` and `pasid` as halves of quadwords; the result is 0 or a fault reason, with `fpd` as far as entries were read: the
// failing one's counts too, even if it is not present (§7.1.3).

import { ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import {
  FAULT_CONTEXT_ACCESS,
  FAULT_CONTEXT_INVALID,
  FAULT_CONTEXT_NOT_PRESENT,
  FAULT_CONTEXT_RESERVED,
  FAULT_PASID_ACCESS,
  FAULT_PASID_DIRECTORY_ACCESS,
  FAULT_PASID_DIRECTORY_NOT_PRESENT,
  FAULT_PASID_DIRECTORY_RESERVED,
  FAULT_PASID_INVALID,
  FAULT_PASID_NOT_PRESENT,
  FAULT_PASID_RESERVED,
  FAULT_ROOT_ACCESS,
  FAULT_ROOT_NOT_PRESENT,
  FAULT_ROOT_RESERVED,
  FAULT_SM_CONTEXT_ACCESS,
  FAULT_SM_CONTEXT_INVALID,
  FAULT_SM_CONTEXT_NOT_PRESENT,
  FAULT_SM_CONTEXT_RESERVED,
  FAULT_SM_ROOT_ACCESS,
  FAULT_SM_ROOT_NOT_PRESENT,
  FAULT_SM_ROOT_RESERVED,
} from "./fault-reasons.ts";
import { pasidDirectoryReserved, pasidInvalid, pasidReserved } from "./pasid-entries.ts";
import {
  contextInvalid,
  contextReserved,
  FPD,
  PRESENT,
  rootReserved,
  scalableContextInvalid,
  scalableContextReserved,
  scalableRootReserved,
} from "./root-and-context.ts";
import type { StructureRules } from "./structure-rules.ts";
import {
  TABLE_CONTEXT,
  TABLE_PASID,
  TABLE_PASID_DIRECTORY,
  TABLE_ROOT,
  type WalkObserver,
  type WalkTable,
} from "./walk-observer.ts";

export class StructureWalker<P extends number> {
  // not state, to the blank line: results of the last walk
  /** Context entry: 4 halves (legacy) or 8. */
  readonly context = new Int32Array(8);
  /** PASID entry. */
  readonly pasid = new Int32Array(16);
  fpd = false;
  observer: WalkObserver | null = null;
  readonly #root = new Int32Array(4);

  readonly #memory: MemoryPort<P>;
  readonly #rules: StructureRules;

  constructor(memory: MemoryPort<P>, rules: StructureRules) {
    this.#memory = memory;
    this.#rules = rules;
  }

  /** Legacy mode: the context entry of a source id, in the root table at frame `root`. */
  locateContext(sourceId: number, root: number): number {
    this.fpd = false;
    const entry = this.#root;
    if (!this.#fetch(TABLE_ROOT, root, (sourceId >>> 8) << 4, entry, 4)) return FAULT_ROOT_ACCESS;
    if ((entry[0]! & PRESENT) === 0) return FAULT_ROOT_NOT_PRESENT;
    if (rootReserved(entry, this.#rules)) return FAULT_ROOT_RESERVED;
    const { context } = this;
    if (!this.#fetch(TABLE_CONTEXT, frameIn(entry[0]!, entry[1]!), (sourceId & 0xff) << 4, context, 4))
      return FAULT_CONTEXT_ACCESS;
    this.fpd = (context[0]! & FPD) !== 0;
    if ((context[0]! & PRESENT) === 0) return FAULT_CONTEXT_NOT_PRESENT;
    if (contextReserved(context, this.#rules)) return FAULT_CONTEXT_RESERVED;
    return contextInvalid(context, this.#rules) === null ? 0 : FAULT_CONTEXT_INVALID;
  }

  /** Scalable mode: the context entry of a source id. Only the half of the root entry that its devfn selects is looked at. */
  locateScalableContext(sourceId: number, root: number): number {
    this.fpd = false;
    const entry = this.#root;
    const half = (sourceId & 0x80) >>> 4;
    if (!this.#fetch(TABLE_ROOT, root, ((sourceId >>> 8) << 4) | half, entry, 2)) return FAULT_SM_ROOT_ACCESS;
    if ((entry[0]! & PRESENT) === 0) return FAULT_SM_ROOT_NOT_PRESENT;
    if (scalableRootReserved(entry[0]!, entry[1]!, this.#rules)) return FAULT_SM_ROOT_RESERVED;
    const { context } = this;
    if (!this.#fetch(TABLE_CONTEXT, frameIn(entry[0]!, entry[1]!), (sourceId & 0x7f) << 5, context, 8))
      return FAULT_SM_CONTEXT_ACCESS;
    this.fpd = (context[0]! & FPD) !== 0;
    if ((context[0]! & PRESENT) === 0) return FAULT_SM_CONTEXT_NOT_PRESENT;
    if (scalableContextReserved(context, this.#rules)) return FAULT_SM_CONTEXT_RESERVED;
    return scalableContextInvalid(context) === null ? 0 : FAULT_SM_CONTEXT_INVALID;
  }

  /** The entry of a PASID in the directory at frame `directory`. `fpd` is the context's to begin with. */
  locatePasid(pasid: number, directory: number, fpd: boolean): number {
    this.fpd = fpd;
    const entry = this.#root;
    // 512 directory entries a page.
    const place = directory + (pasid >>> 15);
    if (!this.#fetch(TABLE_PASID_DIRECTORY, place, ((pasid >>> 6) & 511) << 3, entry, 2))
      return FAULT_PASID_DIRECTORY_ACCESS;
    if ((entry[0]! & FPD) !== 0) this.fpd = true;
    if ((entry[0]! & PRESENT) === 0) return FAULT_PASID_DIRECTORY_NOT_PRESENT;
    if (pasidDirectoryReserved(entry[0]!, entry[1]!, this.#rules)) return FAULT_PASID_DIRECTORY_RESERVED;
    const words = this.pasid;
    if (!this.#fetch(TABLE_PASID, frameIn(entry[0]!, entry[1]!), (pasid & 63) << 6, words, 16))
      return FAULT_PASID_ACCESS;
    if ((words[0]! & FPD) !== 0) this.fpd = true;
    if ((words[0]! & PRESENT) === 0) return FAULT_PASID_NOT_PRESENT;
    if (pasidReserved(words, this.#rules)) return FAULT_PASID_RESERVED;
    return pasidInvalid(words, this.#rules) === null ? 0 : FAULT_PASID_INVALID;
  }

  /** Fetches `halves` words at a frame and offset; false if some cannot be read. */
  #fetch(table: WalkTable, pfn: number, offset: number, into: Int32Array, halves: number): boolean {
    if (pfn >= this.#rules.frameLimit) return false;
    const memory = this.#memory;
    for (let i = 0; i < halves; i += 2) {
      if (memory.load64(pfn as P, offset + 4 * i) !== ACCESS_OK) return false;
      into[i] = memory.lo | 0;
      into[i + 1] = memory.hi | 0;
    }
    this.observer?.tableLoaded(table, 0, pfn, offset, into[0]! >>> 0, into[1]! >>> 0, -1);
    return true;
  }
}

/** Bits 63:12 of a quadword, as a frame number. */
export function frameIn(lo: number, hi: number): number {
  return (hi >>> 0) * 0x100000 + (lo >>> 12);
}

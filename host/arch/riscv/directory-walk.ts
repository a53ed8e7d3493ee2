// Locating device contexts and process contexts (§3.3.1, §3.3.2): walks of the device and process directories over a memory port.
//
// Results are raw contexts in `dc` and `pc` (halves, byte order undone), already checked for validity and misconfiguration; what a
// caller makes of them is its own. Faults are returned as causes. Process directories lie behind the second stage if there is one;
// the walker of the page tables does that part.

import { swap32 } from "../../base/byte-order.ts";
import { ACCESS_FAULT, ACCESS_OK, type MemoryPort } from "../../base/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import type { StructureRules } from "./capabilities.ts";
import { deviceContextMisconfiguration, deviceDirectoryIndex } from "./device-context.ts";
import {
  CAUSE_DDT_DATA_CORRUPTION,
  CAUSE_DDT_LOAD_ACCESS_FAULT,
  CAUSE_DDT_MISCONFIGURED,
  CAUSE_DDT_NOT_VALID,
  CAUSE_PDT_DATA_CORRUPTION,
  CAUSE_PDT_LOAD_ACCESS_FAULT,
  CAUSE_PDT_MISCONFIGURED,
  CAUSE_PDT_NOT_VALID,
  CAUSE_PT_DATA_CORRUPTION,
} from "./fault-records.ts";
import { processContextMisconfiguration, processDirectoryIndex } from "./process-context.ts";
import { accessFaultCause, type TwoStageWalker } from "./two-stage-walk.ts";
import { TABLE_DDT, TABLE_PDT, type WalkObserver } from "./walk-observer.ts";

/** Reserved bits of a non-leaf entry: 9:1 in the low half, 63:54 in the high one. */
const ENTRY_RESERVED_LOW = 0x3fe;
const ENTRY_RESERVED_HIGH = 0xffc00000;

// Not state: what one walk found, and settings that whoever owns the walker makes again.
export class DirectoryWalker<P extends number> {
  /** The last device context located: 16 halves (8 in the base format, the rest 0). */
  readonly dc = new Uint32Array(16);
  /** The last process context located: 4 halves. */
  readonly pc = new Uint32Array(4);
  /** Why the last context was misconfigured (cause 259 or 267 from a leaf); for traces. */
  misconfiguration: string | null = null;
  /** For guest-page faults of a process-directory walk: frame and low 12 bits of iotval2. */
  iotval2Pfn = 0;
  iotval2Low = 0;
  /** Entries loaded since construction (HPM events 5 and 6). */
  deviceLoads = 0;
  processLoads = 0;
  observer: WalkObserver | null = null;

  readonly #memory: MemoryPort<P>;
  readonly #walker: TwoStageWalker<P>;
  #rules: StructureRules;
  #limit = 0;

  constructor(memory: MemoryPort<P>, walker: TwoStageWalker<P>, rules: StructureRules) {
    this.#memory = memory;
    this.#walker = walker;
    this.#rules = rules;
    this.configure(rules);
  }

  configure(rules: StructureRules): void {
    this.#rules = rules;
    this.#limit = 2 ** (rules.PAS - 12);
  }

  /**
   * Locates the context of `deviceId` in a directory of `levels` levels at frame `root`. 0: it is in `dc`; else a cause (257, 258,
   * 259, 268). The caller has checked the device_id's width.
   */
  locateDevice(deviceId: number, root: number, levels: number): number {
    const rules = this.#rules;
    const memory = this.#memory;
    const extended = rules.MSI_FLAT;
    let table = root;
    for (let level = levels - 1; level > 0; level--) {
      const offset = deviceDirectoryIndex(deviceId, level, extended) << 3;
      if (table >= this.#limit) return CAUSE_DDT_LOAD_ACCESS_FAULT;
      const status = memory.load64(table as P, offset);
      if (status !== ACCESS_OK)
        return status === ACCESS_FAULT ? CAUSE_DDT_LOAD_ACCESS_FAULT : CAUSE_DDT_DATA_CORRUPTION;
      const lo = rules.bigEndian ? swap32(memory.hi) : memory.lo;
      const hi = rules.bigEndian ? swap32(memory.lo) : memory.hi;
      this.deviceLoads++;
      if (this.observer !== null) this.observer.tableLoaded(TABLE_DDT, level, table, offset, lo, hi, -1);
      if ((lo & 1) === 0) return CAUSE_DDT_NOT_VALID;
      if ((lo & ENTRY_RESERVED_LOW) !== 0 || (hi & ENTRY_RESERVED_HIGH) !== 0) {
        this.misconfiguration = "reserved bits of a directory entry";
        return CAUSE_DDT_MISCONFIGURED;
      }
      table = (hi & 0x3fffff) * 0x400000 + (lo >>> 10);
    }
    const bytes = extended ? 64 : 32;
    const offset = deviceDirectoryIndex(deviceId, 0, extended) * bytes;
    if (table >= this.#limit) return CAUSE_DDT_LOAD_ACCESS_FAULT;
    const status = this.#loadContext(this.dc, table, offset, bytes, rules.bigEndian);
    if (status !== ACCESS_OK) return status === ACCESS_FAULT ? CAUSE_DDT_LOAD_ACCESS_FAULT : CAUSE_DDT_DATA_CORRUPTION;
    this.deviceLoads++;
    if (this.observer !== null) {
      this.observer.tableLoaded(TABLE_DDT, 0, table, offset, this.dc[0]!, this.dc[1]!, -1);
    }
    if ((this.dc[0]! & 1) === 0) return CAUSE_DDT_NOT_VALID;
    this.misconfiguration = deviceContextMisconfiguration(this.dc, rules);
    return this.misconfiguration === null ? 0 : CAUSE_DDT_MISCONFIGURED;
  }

  /**
   * Locates the context of `processId` in the directory at (guest-physical) frame `root` with `levels` levels. `space` gives the
   * second stage, `bigEndian` is DC.tc.SBE, `kind` the request's. 0: it is in `pc`; else 265, 266, 267, 269 or a guest-page fault of
   * the request's kind (iotval2 set).
   */
  locateProcess(
    processId: number,
    root: number,
    levels: number,
    space: AddressSpace,
    bigEndian: boolean,
    sxl: boolean,
    kind: number,
  ): number {
    const memory = this.#memory;
    let table = root;
    for (let level = levels - 1; ; level--) {
      const offset = processDirectoryIndex(processId, level) << (level === 0 ? 4 : 3);
      let host = table;
      if (space.secondLevels !== 0) {
        const cause = this.#walker.directoryAccess(space, table, level, kind);
        if (cause !== 0) return this.#directoryAccessFault(cause, table, offset, kind);
        host = this.#walker.spaPfn;
      }
      if (host >= this.#limit) return CAUSE_PDT_LOAD_ACCESS_FAULT;
      if (level === 0) {
        const status = this.#loadContext(this.pc, host, offset, 16, bigEndian);
        if (status !== ACCESS_OK)
          return status === ACCESS_FAULT ? CAUSE_PDT_LOAD_ACCESS_FAULT : CAUSE_PDT_DATA_CORRUPTION;
        this.processLoads++;
        if (this.observer !== null) {
          this.observer.tableLoaded(TABLE_PDT, 0, host, offset, this.pc[0]!, this.pc[1]!, -1);
        }
        if ((this.pc[0]! & 1) === 0) return CAUSE_PDT_NOT_VALID;
        this.misconfiguration = processContextMisconfiguration(this.pc, sxl, this.#rules);
        return this.misconfiguration === null ? 0 : CAUSE_PDT_MISCONFIGURED;
      }
      const status = memory.load64(host as P, offset);
      if (status !== ACCESS_OK)
        return status === ACCESS_FAULT ? CAUSE_PDT_LOAD_ACCESS_FAULT : CAUSE_PDT_DATA_CORRUPTION;
      const lo = bigEndian ? swap32(memory.hi) : memory.lo;
      const hi = bigEndian ? swap32(memory.lo) : memory.hi;
      this.processLoads++;
      if (this.observer !== null) this.observer.tableLoaded(TABLE_PDT, level, host, offset, lo, hi, -1);
      if ((lo & 1) === 0) return CAUSE_PDT_NOT_VALID;
      if ((lo & ENTRY_RESERVED_LOW) !== 0 || (hi & ENTRY_RESERVED_HIGH) !== 0) {
        this.misconfiguration = "reserved bits of a directory entry";
        return CAUSE_PDT_MISCONFIGURED;
      }
      table = (hi & 0x3fffff) * 0x400000 + (lo >>> 10);
    }
  }

  /** A second-stage problem on the way to a process-directory entry (§3.3.2, §4.2). */
  #directoryAccessFault(cause: number, table: number, offset: number, kind: number): number {
    if (cause === accessFaultCause(kind)) return CAUSE_PDT_LOAD_ACCESS_FAULT;
    if (cause === CAUSE_PT_DATA_CORRUPTION) return CAUSE_PDT_DATA_CORRUPTION;
    this.iotval2Pfn = table;
    this.iotval2Low = offset | 1;
    return cause;
  }

  /** Loads a whole context as one access: an access fault anywhere in it outranks corruption. */
  #loadContext(into: Uint32Array, pfn: number, offset: number, bytes: number, bigEndian: boolean): number {
    const memory = this.#memory;
    let worst: number = ACCESS_OK;
    for (let i = 0; i < bytes; i += 8) {
      const status = memory.load64(pfn as P, offset + i);
      if (status === ACCESS_FAULT) return ACCESS_FAULT;
      if (status !== ACCESS_OK) worst = status;
      into[i >> 2] = bigEndian ? swap32(memory.hi) : memory.lo;
      into[(i >> 2) + 1] = bigEndian ? swap32(memory.lo) : memory.hi;
    }
    return worst;
  }
}

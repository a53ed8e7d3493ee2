// Interrupt remapping (§5.1): an interrupt request of a device becomes the interrupt that its remapping table entry says, or is blocked.
//
//     dword write to FEEx_xxxxh ─┬─ IRE off, or compatibility format allowed: passes unchanged
//                                └─ remappable: index ─▶ entry (interrupt entry cache, or table) ─▶ source check ─▶ destination, vector
//
// Only present entries without reserved bits are cached.

import { ACCESS_OK } from "../../../base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import {
  FAULT_IR_ACCESS,
  FAULT_IR_COMPATIBILITY,
  FAULT_IR_ENTRY_RESERVED,
  FAULT_IR_INDEX,
  FAULT_IR_NOT_PRESENT,
  FAULT_IR_REQUEST_RESERVED,
  FAULT_IR_SOURCE,
} from "../fault-reasons.ts";
import { irteReserved, sourceAllowed } from "../interrupt-remapping.ts";
import { GCMD_CFI, IRTA_EIME, REG } from "../registers.ts";
import { FPD, PRESENT } from "../root-and-context.ts";
import type { FaultRecording } from "./fault-recording.ts";
import type { VtdState } from "./vtd-state.ts";

/** How a request ends. */
export const INTERRUPT_UNCHANGED = 0;
export const INTERRUPT_BLOCKED = 1;
export const INTERRUPT_REMAPPED = 2;

export class InterruptRemapper implements Stateful {
  // not state, to the blank line: the last request that was remapped.
  /** APIC id: 8 bits, 32 with IRTA.EIME. */
  destination = 0;
  vector = 0;
  /** IRTE.DLM: 0 fixed. */
  delivery = 0;
  level = false;
  logical = false;
  /** RH: any one of those that the destination names. */
  redirected = false;
  #index = 0;
  #fpd = false;
  readonly #entry = new Int32Array(4);

  readonly #state: VtdState<number>;
  readonly #faults: FaultRecording;
  /** Direct-mapped: index plus 1 (0: empty), and the entry. */
  readonly #tags: Uint32Array;
  readonly #cached: Int32Array;

  /** `entries`: of the interrupt entry cache, a power of two; 0: none. */
  constructor(state: VtdState<number>, faults: FaultRecording, entries: number) {
    this.#state = state;
    this.#faults = faults;
    this.#tags = new Uint32Array(entries);
    this.#cached = new Int32Array(4 * entries);
  }

  saveState(): StateRecord {
    return { tags: bytesOf(this.#tags), cached: bytesOf(this.#cached) };
  }

  restoreState(state: StateReader): void {
    state.memory("tags", this.#tags);
    state.memory("cached", this.#cached);
  }

  /** A dword write of `data` by `sourceId` to an address (bits 31:0) in the interrupt address range: how it ends; faults are recorded. */
  request(sourceId: number, address: number, data: number): number {
    const state = this.#state;
    if (!state.remapsInterrupts) return INTERRUPT_UNCHANGED;
    this.#index = 0;
    this.#fpd = false;
    if ((address & 0x10) === 0) {
      const extended = (state.interruptTable & IRTA_EIME) !== 0;
      if (!extended && (state.reg(REG.GSTS) & GCMD_CFI) !== 0) return INTERRUPT_UNCHANGED;
      this.#faults.reportInterrupt(FAULT_IR_COMPATIBILITY, false, sourceId, 0);
      return INTERRUPT_BLOCKED;
    }
    const reason = this.#locate(address, data);
    if (reason === 0 && sourceAllowed(this.#entry, sourceId)) {
      this.#decode();
      return INTERRUPT_REMAPPED;
    }
    this.#faults.reportInterrupt(reason === 0 ? FAULT_IR_SOURCE : reason, this.#fpd, sourceId, this.#index);
    return INTERRUPT_BLOCKED;
  }

  /** The entry that a remappable request names, in `#entry`; 0 or a reason. */
  #locate(address: number, data: number): number {
    const state = this.#state;
    const handle = ((address >>> 5) & 0x7fff) | ((address & 4) << 13);
    const subhandled = (address & 8) !== 0;
    this.#index = handle;
    if (subhandled && data >>> 16 !== 0) return FAULT_IR_REQUEST_RESERVED;
    const index = subhandled ? handle + (data & 0xffff) : handle;
    this.#index = index;
    if (index >= 2 << (state.interruptTable & 15)) return FAULT_IR_INDEX;
    const entry = this.#entry;
    const slot = index & (this.#tags.length - 1);
    if (this.#tags.length > 0 && this.#tags[slot] === index + 1) {
      for (let i = 0; i < 4; i++) entry[i] = this.#cached[4 * slot + i]!;
      this.#fpd = (entry[0]! & FPD) !== 0;
      return 0;
    }
    // 256 entries a page.
    const pfn = state.interruptTablePfn + (index >>> 8);
    if (pfn >= state.rules.frameLimit) return FAULT_IR_INDEX;
    const { memory } = state;
    for (let i = 0; i < 4; i += 2) {
      if (memory.load64(pfn, ((index & 255) << 4) + 4 * i) !== ACCESS_OK) return FAULT_IR_ACCESS;
      entry[i] = memory.lo | 0;
      entry[i + 1] = memory.hi | 0;
    }
    this.#fpd = (entry[0]! & FPD) !== 0;
    if ((entry[0]! & PRESENT) === 0) return FAULT_IR_NOT_PRESENT;
    if (irteReserved(entry, (state.interruptTable & IRTA_EIME) !== 0, state.rules)) return FAULT_IR_ENTRY_RESERVED;
    if (this.#tags.length > 0) {
      this.#tags[slot] = index + 1;
      this.#cached.set(entry, 4 * slot);
    }
    return 0;
  }

  #decode(): void {
    const w0 = this.#entry[0]!;
    const w1 = this.#entry[1]!;
    this.logical = (w0 & 4) !== 0;
    this.redirected = (w0 & 8) !== 0;
    this.level = (w0 & 16) !== 0;
    this.delivery = (w0 >>> 5) & 7;
    this.vector = (w0 >>> 16) & 0xff;
    this.destination = (this.#state.interruptTable & IRTA_EIME) !== 0 ? w1 >>> 0 : (w1 >>> 8) & 0xff;
  }

  invalidateAll(): void {
    this.#tags.fill(0);
  }

  /** 2^mask entries around `index` (§6.5.2.7). */
  invalidate(index: number, mask: number): void {
    for (let slot = 0; slot < this.#tags.length; slot++) {
      const tag = this.#tags[slot]!;
      if (tag !== 0 && (mask >= 16 || (tag - 1) >>> mask === index >>> mask)) this.#tags[slot] = 0;
    }
  }
}

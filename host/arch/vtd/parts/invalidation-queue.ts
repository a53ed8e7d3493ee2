// The invalidation queue (§6.5.2): fetches descriptors in order and executes them one at a time.
//
//     IQT write ─ latched ─▶ step(): fetch at IQH ─▶ execute ─┬─ done: IQH moves on
//                                                             ├─ error: IQERCD, IQE; IQH stays, and the same descriptor is fetched again once IQE is cleared
//                                                             └─ must wait (device TLBs): IQH stays, step() returns false
//
// Each descriptor is wholly executed before the next, except device-TLB invalidations, which are outstanding until their completions are in; only
// waits wait for those. When one is given up ITE is set: the wait that stood there is aborted, it never writes its status (§6.5.2.10).

import { EntryReader } from "../../../base/entry-reader.ts";
import { ACCESS_OK } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import {
  DESCRIPTOR_CONTEXT,
  DESCRIPTOR_DEVICE_TLB,
  DESCRIPTOR_INTERRUPT_ENTRY,
  DESCRIPTOR_IOTLB,
  DESCRIPTOR_PAGE_GROUP_RESPONSE,
  DESCRIPTOR_PASID_CACHE,
  DESCRIPTOR_PASID_DEVICE_TLB,
  DESCRIPTOR_PASID_IOTLB,
  DESCRIPTOR_WAIT,
  decodeDescriptor,
  describeDescriptor,
  descriptorType,
  RESERVED_BITS,
  WAIT_IF,
  WAIT_PD,
  WAIT_SW,
} from "../invalidation-descriptors.ts";
import {
  FSTS_IQE,
  FSTS_ITE,
  IQA_DW,
  IQEI_FETCH,
  IQEI_MISALIGNED_TAIL,
  IQEI_RESERVED,
  IQEI_TAIL,
  IQEI_TTM,
  IQEI_TYPE,
  IQEI_WIDTH,
  REG,
  TTM_RESERVED,
  TTM_SCALABLE,
} from "../registers.ts";
import { frameIn } from "../structure-walk.ts";
import { EVENT_INVALIDATION, type EventInterrupts } from "./event-interrupts.ts";
import type { FaultRecording } from "./fault-recording.ts";
import type { VtdState } from "./vtd-state.ts";

/** What descriptors do; their reserved bits and granularities have been checked. Frame numbers as they come, `mask` log2 of the pages. */
export interface DescriptorEffects {
  /** Granularity 1 to 3; FM as it stands. */
  contexts(granularity: number, domain: number, sourceId: number, functionMask: number): void;
  /** Granularity 1 to 3. */
  translations(granularity: number, domain: number, pfn: number, mask: number, leavesOnly: boolean): void;
  /** `page` false: all of the PASID. */
  pasidTranslations(domain: number, pasid: number, page: boolean, pfn: number, mask: number, leavesOnly: boolean): void;
  /** Granularity 0, 1 or 3. */
  pasids(granularity: number, domain: number, pasid: number): void;
  /** `selective` false: all; else 2^mask entries. */
  interruptEntries(selective: boolean, index: number, mask: number): void;
  /** False: no room now, it is asked again. `pasid` -1: none. */
  deviceTlb(sourceId: number, pasid: number, pfn: number, size: boolean, allPasids: boolean): boolean;
  /** What waits wait for: -1 nothing, -2 something is outstanding, else the source id whose time is up (said once). */
  outstanding(): number;
  respond(requesterId: number, pasid: number, group: number, code: number): void;
}

export const NOTHING_OUTSTANDING = -1;
export const STILL_OUTSTANDING = -2;

type Outcome = number;
const DONE: Outcome = 0;
/** Codes of IQERCD.IQEI are 1 to 7. */
const WAIT: Outcome = -1;
const TIMED_OUT: Outcome = -2;

export class InvalidationQueue implements Stateful {
  /** Asked before a descriptor is executed; true: it is taken as done. */
  skip: ((name: string) => boolean) | null = null; // not state: wiring
  readonly #state: VtdState<number>;
  readonly #events: EventInterrupts;
  readonly #faults: FaultRecording;
  readonly #effects: DescriptorEffects;
  readonly #entry: EntryReader<number>;
  #executing = false; // not state: within a call
  /** Software switched the queue meanwhile: IQH is not ours to move. */
  #switched = false; // not state: within a call
  /** The descriptor waiting at IQH has been traced already. */
  #traced = false;

  constructor(state: VtdState<number>, events: EventInterrupts, faults: FaultRecording, effects: DescriptorEffects) {
    this.#state = state;
    this.#events = events;
    this.#faults = faults;
    this.#effects = effects;
    this.#entry = new EntryReader(state.memory);
  }

  saveState(): StateRecord {
    return { traced: this.#traced };
  }

  restoreState(state: StateReader): void {
    this.#traced = state.boolean("traced");
  }

  /** QIE changed, or all was reset. */
  switched(): void {
    this.#switched = true;
    this.#traced = false;
  }

  get #wide(): boolean {
    return (this.#state.reg(REG.IQA) & IQA_DW) !== 0;
  }

  /** Bytes of the queue. */
  get #size(): number {
    return 4096 << (this.#state.reg(REG.IQA) & 7);
  }

  /** Descriptors that the queue has room for. */
  get entries(): number {
    return this.#size >> (this.#wide ? 5 : 4);
  }

  get isEmpty(): boolean {
    return this.#state.reg(REG.IQH) === this.#state.reg(REG.IQT);
  }

  /** Something could be fetched. */
  get ready(): boolean {
    const state = this.#state;
    return state.queueEnabled && !state.queueStopped && !this.isEmpty;
  }

  /** Executes the descriptor at IQH. False when there is none, the queue is stopped, or the descriptor must wait. */
  step(): boolean {
    if (this.#executing || !this.ready) return false;
    const state = this.#state;
    const wide = this.#wide;
    const head = state.reg(REG.IQH);
    const problem = this.#queueProblem(wide);
    if (problem !== 0) {
      this.#stop(problem);
      return true;
    }
    const entry = this.#entry;
    const pfn = frameIn(state.reg(REG.IQA), state.reg(REG.IQA + 4)) + (head >>> 12);
    if (pfn >= state.rules.frameLimit) {
      this.#stop(IQEI_FETCH);
      return true;
    }
    let upper = 0;
    if (wide) {
      if (entry.load(pfn, (head & 0xfff) + 16) !== ACCESS_OK) {
        this.#stop(IQEI_FETCH);
        return true;
      }
      upper = entry.w0 | entry.w1 | entry.w2 | entry.w3;
    }
    if (entry.load(pfn, head & 0xfff) !== ACCESS_OK) {
      this.#stop(IQEI_FETCH);
      return true;
    }
    let cause = -1;
    if (state.trace.on && !this.#traced) cause = this.#trace();
    this.#executing = true;
    this.#switched = false;
    const { w0 } = entry;
    const outcome = this.#execute(wide, upper);
    this.#executing = false;
    this.#traced = outcome === WAIT;
    if (!this.#switched) {
      if (outcome === DONE || outcome === TIMED_OUT) {
        const step = wide ? 32 : 16;
        state.setReg(REG.IQH, (head + step) % this.#size);
        if (outcome === TIMED_OUT) this.#faults.queueError(FSTS_ITE);
        else if (descriptorType(w0) === DESCRIPTOR_WAIT) this.#complete(w0);
      } else if (outcome > 0) this.#stop(outcome);
    }
    if (cause >= 0) state.trace.leave(cause);
    return outcome !== WAIT;
  }

  /** What keeps anything from being fetched: IQEI, or 0. */
  #queueProblem(wide: boolean): number {
    const state = this.#state;
    const tail = state.reg(REG.IQT);
    if (wide && (tail & 0x10) !== 0) return IQEI_MISALIGNED_TAIL;
    if (tail >= this.#size) return IQEI_TAIL;
    if (state.tableMode === TTM_RESERVED) return IQEI_TTM;
    if (state.tableMode === TTM_SCALABLE && !wide) return IQEI_WIDTH;
    return 0;
  }

  #stop(error: number): void {
    const state = this.#state;
    this.#traced = false;
    state.setReg(REG.IQERCD, error);
    this.#faults.queueError(FSTS_IQE);
  }

  #trace(): number {
    const { w0, w1, w2, w3 } = this.#entry;
    const words = [word(w0, w1), word(w2, w3)] as const;
    const { trace, where, name: iommu } = this.#state;
    const name = decodeDescriptor(words).name ?? "illegal";
    return trace.enter({ type: "command", where, iommu, name, words, text: describeDescriptor(words) });
  }

  #execute(wide: boolean, upper: number): Outcome {
    const state = this.#state;
    const { w0, w1, w2, w3 } = this.#entry;
    const type = descriptorType(w0);
    if (type < DESCRIPTOR_CONTEXT || type > DESCRIPTOR_PAGE_GROUP_RESPONSE) return IQEI_TYPE;
    // §6.5.2: what names PASIDs needs 256-bit descriptors and scalable mode's tables.
    const ofPasids = type >= DESCRIPTOR_PASID_IOTLB && type <= DESCRIPTOR_PASID_DEVICE_TLB;
    if (ofPasids && !wide) return IQEI_TYPE;
    if ((type === DESCRIPTOR_PASID_IOTLB || type === DESCRIPTOR_PASID_CACHE) && state.tableMode !== TTM_SCALABLE)
      return IQEI_TYPE;
    const at = 4 * type;
    const reserved =
      (w0 & RESERVED_BITS[at]!) |
      (w1 & RESERVED_BITS[at + 1]!) |
      (w2 & RESERVED_BITS[at + 2]!) |
      (w3 & RESERVED_BITS[at + 3]!) |
      upper;
    if (reserved !== 0) return IQEI_RESERVED;
    if (this.skip !== null && this.#skipped()) return DONE;
    const effects = this.#effects;
    const granularity = (w0 >>> 4) & 3;
    const domain = w0 >>> 16;
    switch (type) {
      case DESCRIPTOR_CONTEXT:
        if (granularity === 0) return IQEI_RESERVED;
        effects.contexts(granularity, domain, w1 & 0xffff, (w1 >>> 16) & 3);
        return DONE;
      case DESCRIPTOR_IOTLB:
      case DESCRIPTOR_PASID_IOTLB: {
        const ofPasid = type === DESCRIPTOR_PASID_IOTLB;
        const mask = w2 & 0x3f;
        if (granularity === 0 || (ofPasid && granularity === 1)) return IQEI_RESERVED;
        if (granularity === 3 && mask > state.features.MAMV) return IQEI_RESERVED;
        const pfn = frameIn(w2, w3);
        const leavesOnly = (w2 & 0x40) !== 0;
        if (ofPasid) effects.pasidTranslations(domain, w1 & 0xfffff, granularity === 3, pfn, mask, leavesOnly);
        else effects.translations(granularity, domain, pfn, mask, leavesOnly);
        return DONE;
      }
      case DESCRIPTOR_DEVICE_TLB:
        if (!state.features.DT) return IQEI_TYPE;
        return effects.deviceTlb(w1 & 0xffff, -1, frameIn(w2, w3), (w2 & 1) !== 0, false) ? DONE : WAIT;
      case DESCRIPTOR_PASID_DEVICE_TLB:
        if (!state.features.DT || !state.features.PASID) return IQEI_TYPE;
        return effects.deviceTlb(w0 >>> 16, w1 & 0xfffff, frameIn(w2, w3), (w2 & 0x800) !== 0, (w2 & 1) !== 0)
          ? DONE
          : WAIT;
      case DESCRIPTOR_INTERRUPT_ENTRY:
        if (!state.features.IR) return IQEI_TYPE;
        effects.interruptEntries((w0 & 0x10) !== 0, w1 & 0xffff, w0 >>> 27);
        return DONE;
      case DESCRIPTOR_PASID_CACHE:
        if (granularity === 2) return IQEI_RESERVED;
        effects.pasids(granularity, domain, w1 & 0xfffff);
        return DONE;
      case DESCRIPTOR_PAGE_GROUP_RESPONSE:
        if (!state.features.PRS) return IQEI_TYPE;
        effects.respond(domain, (w0 & 0x10) === 0 ? -1 : w1 & 0xfffff, (w2 >>> 3) & 0x1ff, (w0 >>> 12) & 15);
        return DONE;
      default:
        return this.#wait(w0, w1, w2, w3);
    }
  }

  /** §6.5.2.9: everything before is done but device TLBs. Page requests are drained: each was queued, or answered, as it came. */
  #wait(w0: number, w1: number, w2: number, w3: number): Outcome {
    const state = this.#state;
    if ((w0 & WAIT_PD) !== 0 && !state.features.PDS) return IQEI_RESERVED;
    const outstanding = this.#effects.outstanding();
    if (outstanding === STILL_OUTSTANDING) return WAIT;
    if (outstanding !== NOTHING_OUTSTANDING) {
      state.setReg(REG.IQERCD, 0);
      state.setReg(REG.IQERCD + 4, outstanding & 0xffff);
      return TIMED_OUT;
    }
    if ((w0 & WAIT_SW) === 0) return DONE;
    return state.storeWord(frameIn(w2, w3), w2 & 0xffc, w1 >>> 0) ? DONE : IQEI_FETCH;
  }

  /** The status is written, IQH has moved on: the interrupt, unless one is waiting to be acknowledged. */
  #complete(w0: number): void {
    const state = this.#state;
    if ((w0 & WAIT_IF) === 0 || (state.reg(REG.ICS) & 1) !== 0) return;
    state.setReg(REG.ICS, 1);
    this.#events.raise(EVENT_INVALIDATION);
  }

  #skipped(): boolean {
    const { w0, w1, w2, w3 } = this.#entry;
    const { name } = decodeDescriptor([word(w0, w1), word(w2, w3)]);
    return name !== null && this.skip!(name);
  }
}

function word(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

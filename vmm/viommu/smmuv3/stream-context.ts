// What a stream table entry in guest memory means for the host (IHI 0070 §5.2): blocked with the event that a transaction would cause, bypass, or nested
// with the first two doublewords of an entry as the host takes them.
//
//   SMMUEN = 0            GBPA decides: bypass, or blocked silently (§6.3.14)
//   no entry              blocked: C_BAD_STREAMID, F_STE_FETCH
//   V = 0 or ILLEGAL      blocked: C_BAD_STE
//   Config 0xx, 100, 101  blocked silently, bypass, nested
//
// The guest's words are canonicalised: what is legal but has no meaning under the features that the guest was promised is dropped, for the hardware's
// features are other ones; so two entries that mean the same compare equal.

import { C_BAD_STE, eventName } from "../../../host/arch/smmuv3/event-records.ts";
import type { SmmuState } from "../../../host/arch/smmuv3/parts/smmu-state.ts";
import { GBPA_ABORT, REG } from "../../../host/arch/smmuv3/registers.ts";
import {
  CONFIG_BYPASS,
  CONFIG_S1,
  STE_FAULTS,
  STE_LEGAL,
  steFault,
} from "../../../host/arch/smmuv3/stream-table-entry.ts";
import { StructureWalker } from "../../../host/arch/smmuv3/structure-walk.ts";
import type { WalkObserver } from "../../../host/arch/smmuv3/walk-observer.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { StateReader, StateValue } from "../../../host/base/state.ts";
import { iommuHwptArmSmmuv3 } from "../../../host/uapi/smmuv3-nesting.ts";
import type { ContextRules, DeviceAbilities } from "../dispositions.ts";
import type { DeviceHandle, ViommuHost } from "../host-port.ts";
import type { PluggedDevice } from "../kind.ts";

/** Words 0 to 2 of an entry in canonical form; word 3 is 0. */
export interface StreamContext {
  readonly disposition: "bypass" | "nested";
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
}

const V = 1;
export const BYPASS_CONTEXT: StreamContext = {
  disposition: "bypass",
  word0: V | (CONFIG_BYPASS << 1),
  word1: 0,
  word2: 0,
};

const S1FMT = 3 << 4;
const S1DSS = 3;
/** S1CIR, S1COR, S1CSH. */
const S1_ATTRIBUTES = 0xfc;
export const S1STALLD = 1 << 27;
const EATS_FULL = 1 << 28;
/** Nothing to report: the transaction is aborted silently. */
const SILENT = 0;

/** True if the context lets the device use ATS (EATS = 1). */
export function allowsAts(context: StreamContext | null): boolean {
  return context !== null && (context.word2 & EATS_FULL) !== 0;
}

/** True if the guest may have more than one context descriptor a stream: S1CDMax means something. */
function hasSubstreams(words: Int32Array, ssidSize: number): boolean {
  return ssidSize > 0 && words[1]! >>> 27 !== 0;
}

// Not state: the outcome of the last read
export class StreamContexts implements ContextRules<StreamContext> {
  readonly unread = SILENT;
  readonly held = SILENT;
  readonly unfit = C_BAD_STE;
  cause = SILENT;
  /** Why the entry last read is ILLEGAL; "" if it is not. */
  detail = "";
  readonly #state: SmmuState<GpaPfn>;
  readonly #walker: StructureWalker<GpaPfn>;
  readonly #forbidsStalls: (device: PluggedDevice) => boolean;

  /** `forbidsStalls`: the hardware could stall transactions of a device, the guest's SMMU never does. */
  constructor(state: SmmuState<GpaPfn>, forbidsStalls: (device: PluggedDevice) => boolean) {
    this.#state = state;
    this.#walker = new StructureWalker(state.memory, state.frameLimit);
    this.#forbidsStalls = forbidsStalls;
  }

  observe(observer: WalkObserver | null): void {
    this.#walker.observer = observer;
  }

  read(device: PluggedDevice, abilities: DeviceAbilities): StreamContext | null {
    const state = this.#state;
    this.detail = "";
    this.cause = SILENT;
    if (!state.enabled) return (state.reg(REG.GBPA) & GBPA_ABORT) !== 0 ? null : BYPASS_CONTEXT;
    const walker = this.#walker;
    this.cause = walker.locateStream(device.guestId, state.streamTable, state.features.SIDSIZE);
    if (this.cause !== 0) return null;
    const { words } = walker;
    const fault = steFault(words, state.features);
    if (fault !== STE_LEGAL) return this.#refused(STE_FAULTS[fault]!);
    const config = (words[0]! >>> 1) & 7;
    if ((config & CONFIG_BYPASS) === 0) return null;
    return config === CONFIG_S1 ? this.#nested(words, device, abilities) : BYPASS_CONTEXT;
  }

  #nested(words: Int32Array, device: PluggedDevice, abilities: DeviceAbilities): StreamContext | null {
    const { features } = this.#state;
    const word2 = words[2]!;
    const ats = features.ATS && abilities.ats;
    const eats = features.ATS ? (word2 >>> 28) & 3 : 0;
    // Split-stage ATS is ILLEGAL already; the host takes no 3 either.
    if (eats > 1) return this.#refused("EATS is neither 0 nor 1");
    const substreams = hasSubstreams(words, features.SSIDSIZE);
    // S1Fmt 3 acts as 0 (§5.2); without substreams S1CDMax, S1Fmt and S1DSS are IGNORED.
    const format = substreams && (words[0]! & S1FMT) !== S1FMT ? words[0]! & S1FMT : 0;
    return {
      disposition: "nested",
      word0: (V | (CONFIG_S1 << 1) | format | (words[0]! & ~0x3f)) >>> 0,
      word1: (words[1]! & (substreams ? 0xf8ffffff : 0x00ffffff)) >>> 0,
      word2:
        ((word2 & S1_ATTRIBUTES) |
          (substreams ? word2 & S1DSS : 0) |
          (this.#forbidsStalls(device) ? S1STALLD : word2 & S1STALLD) |
          (ats && eats === 1 ? EATS_FULL : 0)) >>>
        0,
    };
  }

  #refused(detail: string): null {
    this.cause = C_BAD_STE;
    this.detail = detail;
    return null;
  }

  describe(cause: number): string {
    return eventName(cause);
  }

  disposition(context: StreamContext): "bypass" | "nested" {
    return context.disposition;
  }

  same(a: StreamContext, b: StreamContext): boolean {
    return a.word0 === b.word0 && a.word1 === b.word1 && a.word2 === b.word2;
  }

  install(host: ViommuHost, device: DeviceHandle, context: StreamContext): number {
    if (context.disposition === "bypass") return host.setBypass(device);
    return host.setNested(device, encodeStreamContext(context));
  }

  save({ disposition, word0, word1, word2 }: StreamContext): StateValue {
    return { disposition, word0, word1, word2 };
  }

  restore(state: StateReader, field: string): StreamContext {
    const saved = state.record(field);
    return {
      disposition: saved.text("disposition") === "nested" ? "nested" : "bypass",
      word0: saved.number("word0"),
      word1: saved.number("word1"),
      word2: saved.number("word2"),
    };
  }
}

/** The context in the host's nested format. */
export function encodeStreamContext({ word0, word1, word2 }: StreamContext): Uint8Array {
  return iommuHwptArmSmmuv3.encode({ ste0: (BigInt(word1) << 32n) | BigInt(word0), ste1: BigInt(word2) });
}

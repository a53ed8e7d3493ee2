// What a device's context in guest memory means for the host (§3.1): blocked with the cause hardware would give, bypass, or nested;
// and, of a sound context, the words that the hardware gets.
//
// The guest's words are canonicalised: bits that are legal but have no meaning behind this IOMMU are dropped, each for a reason,
// so that the host sees only what its interface allows and two contexts that mean the same compare equal.

import {
  MODE_BARE,
  TC_DPE,
  TC_DTF,
  TC_EN_ATS,
  TC_EN_PRI,
  TC_PDTV,
  TC_PRPR,
  TC_SADE,
  TC_V,
} from "../../../host/arch/riscv/device-context.ts";
import {
  CAUSE_ALL_INBOUND_DISALLOWED,
  CAUSE_DDT_MISCONFIGURED,
  CAUSE_DDT_NOT_VALID,
} from "../../../host/arch/riscv/fault-records.ts";
import type { StateReader, StateRecord, StateValue } from "../../../host/base/state.ts";
import { iommuHwptRiscv } from "../../../host/uapi/riscv-nesting.ts";
import type { ContextRules, DeviceAbilities, DeviceState } from "../dispositions.ts";
import type { DeviceHandle, ViommuHost } from "../host-port.ts";
import type { PluggedDevice } from "../kind.ts";

/** A sound context as the host gets it: tc, fsc, ta in halves. */
export interface CanonicalContext {
  readonly disposition: "bypass" | "nested";
  readonly tc: number;
  readonly fscLow: number;
  readonly fscHigh: number;
  readonly taLow: number;
  /** What was dropped, and why. */
  readonly dropped: readonly string[];
}

/**
 * What every device has while ddtp is Bare: DMA passes, with a process_id too (§3.3 step 1). A context with PDTV and a Bare pdtp does
 * the same (steps 4 and 7), so the two may compare equal.
 */
export const DDTP_BARE_CONTEXT: CanonicalContext = {
  disposition: "bypass",
  tc: TC_V | TC_PDTV,
  fscLow: 0,
  fscHigh: 0,
  taLow: 0,
  dropped: [],
};

interface Canonicalisation {
  readonly applies: (tc: number, fscMode: number, abilities: DeviceAbilities) => boolean;
  /** tc bits this rule drops. */
  readonly bits: number;
  readonly reason: string;
}

const pdtv = (tc: number) => (tc & TC_PDTV) !== 0;

/** The rules, in order; `nestbox caps` and the room's README list them. */
export const CANONICALISATIONS: readonly Canonicalisation[] = [
  { applies: () => true, bits: 0xff00_0000, reason: "custom bits: unknown meaning" },
  { applies: () => true, bits: 1 << 7, reason: "GADE: the second stage is the host's" },
  {
    applies: (_tc, _mode, { ats }) => !ats,
    bits: TC_EN_ATS | TC_EN_PRI | TC_PRPR,
    reason: "EN_ATS, EN_PRI, PRPR: the device or its host has no ATS",
  },
  {
    applies: (_tc, _mode, { pri }) => !pri,
    bits: TC_EN_PRI | TC_PRPR,
    reason: "EN_PRI, PRPR: the device or its host has no page requests",
  },
  {
    applies: (tc, mode) => mode === MODE_BARE && !pdtv(tc),
    bits: TC_SADE,
    reason: "SADE: no first stage to update",
  },
];

/** The words of a context that passed the checks of §3.1.4; `dc` in halves as host/arch/riscv has them. */
export function canonicalise(dc: Uint32Array, abilities: DeviceAbilities): CanonicalContext {
  let tc = dc[0]!;
  const fscMode = dc[7]! >>> 28;
  const dropped: string[] = [];
  for (const rule of CANONICALISATIONS) {
    if ((tc & rule.bits) === 0 || !rule.applies(tc, fscMode, abilities)) continue;
    tc &= ~rule.bits;
    dropped.push(rule.reason);
  }
  const bare = fscMode === MODE_BARE;
  return {
    disposition: bare ? "bypass" : "nested",
    tc: tc >>> 0,
    // A PPN next to MODE Bare has no meaning, nor has a PSCID where no first stage of this context uses it.
    fscLow: bare ? 0 : dc[6]!,
    fscHigh: bare ? 0 : dc[7]!,
    taLow: bare || pdtv(tc) ? 0 : dc[4]!,
    dropped,
  };
}

/** `canonicalise` of contexts that are read over and over: the last answer again while words and abilities are the same. Nothing is allocated then. */
// Not state: the last answer
export class LastCanonical {
  readonly #words = new Uint32Array(8);
  #ats = false;
  #pri = false;
  #context: CanonicalContext | null = null;

  of(dc: Uint32Array, abilities: DeviceAbilities): CanonicalContext {
    const words = this.#words;
    const { ats, pri } = abilities;
    let same = this.#ats === ats && this.#pri === pri;
    for (let i = 0; i < words.length; i++) if (words[i] !== dc[i]) same = false;
    const last = this.#context;
    if (same && last !== null) return last;
    for (let i = 0; i < words.length; i++) words[i] = dc[i]!;
    this.#ats = ats;
    this.#pri = pri;
    const context = canonicalise(dc, abilities);
    this.#context = context;
    return context;
  }
}

/** Bits a canonical tc can have: those the host's interface has to accept. */
export const GUEST_TC_BITS = TC_V | TC_EN_ATS | TC_EN_PRI | TC_DTF | TC_PDTV | TC_PRPR | TC_SADE | TC_DPE;

/** The context in the host's nested format. */
export function encodeContext(context: CanonicalContext): Uint8Array {
  return iommuHwptRiscv.encode({
    tc: BigInt(context.tc),
    fsc: (BigInt(context.fscHigh) << 32n) | BigInt(context.fscLow),
    ta: BigInt(context.taLow),
  });
}

/** True if the guest wants no record of most faults (tc.DTF); a context that the host refused says nothing. */
export function faultsDisabled(state: DeviceState<CanonicalContext>): boolean {
  return state.refusal === 0 && state.wanted !== null && (state.wanted.tc & TC_DTF) !== 0;
}

/** Reads a device's context from guest memory as ddtp says; leaves it in `words` (halves). */
export interface ContextReader {
  readonly words: Uint32Array;
  locate(deviceId: number): LocatedContext;
}

/** Outcome of reading a context. */
export interface LocatedContext {
  /** 0: `words` holds a sound context, or `bare`. */
  readonly cause: number;
  readonly bare: boolean;
  /** Why, where the cause alone does not say. */
  readonly detail: string;
}

/** Contexts as ../dispositions.ts asks for them: 256–260 and 268 are the causes of those that are none. */
// Not state: the outcome of the last read
export class DeviceContexts implements ContextRules<CanonicalContext> {
  readonly unread = CAUSE_ALL_INBOUND_DISALLOWED;
  readonly held = CAUSE_DDT_NOT_VALID;
  readonly unfit = CAUSE_DDT_MISCONFIGURED;
  cause = 0;
  readonly #reader: ContextReader;
  readonly #last = new LastCanonical();

  constructor(reader: ContextReader) {
    this.#reader = reader;
  }

  read(device: PluggedDevice, abilities: DeviceAbilities): CanonicalContext | null {
    const located = this.#reader.locate(device.guestId);
    this.cause = located.cause;
    if (located.cause !== 0) return null;
    return located.bare ? DDTP_BARE_CONTEXT : this.#last.of(this.#reader.words, abilities);
  }

  describe(cause: number): string {
    return `cause ${cause}`;
  }

  disposition(context: CanonicalContext): "bypass" | "nested" {
    return context.disposition;
  }

  same(a: CanonicalContext, b: CanonicalContext): boolean {
    return a === b || (a.tc === b.tc && a.fscLow === b.fscLow && a.fscHigh === b.fscHigh && a.taLow === b.taLow);
  }

  install(host: ViommuHost, device: DeviceHandle, context: CanonicalContext): number {
    // ddtp Bare lets a process_id pass, a context with fsc Bare and PDTV=0 does not (§3.3 steps 1 and 4): two kinds of bypass.
    if (context === DDTP_BARE_CONTEXT) return host.setBypass(device);
    return host.setNested(device, encodeContext(context));
  }

  /** The context that ddtp Bare gives is told from one of the guest's that says the same. */
  save(context: CanonicalContext): StateValue {
    return context === DDTP_BARE_CONTEXT ? "ddtp Bare" : ({ ...context } satisfies StateRecord);
  }

  restore(state: StateReader, field: string): CanonicalContext {
    if (typeof state.value(field) === "string") {
      if (state.text(field) !== "ddtp Bare") state.fail(field, "is no context");
      return DDTP_BARE_CONTEXT;
    }
    const saved = state.record(field);
    return {
      disposition: saved.text("disposition") === "nested" ? "nested" : "bypass",
      tc: saved.number("tc"),
      fscLow: saved.number("fscLow"),
      fscHigh: saved.number("fscHigh"),
      taLow: saved.number("taLow"),
      dropped: saved.list("dropped").map(String),
    };
  }
}

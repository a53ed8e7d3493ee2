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
import type { StateReader, StateRecord, StateValue } from "../../../host/base/state.ts";
import { iommuHwptRiscv } from "../../../host/uapi/riscv-nesting.ts";

/** What canonicalisation depends on, of the device. */
export interface DeviceAbilities {
  readonly ats: boolean;
  readonly pri: boolean;
}

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

export function sameContext(a: CanonicalContext, b: CanonicalContext): boolean {
  return a.tc === b.tc && a.fscLow === b.fscLow && a.fscHigh === b.fscHigh && a.taLow === b.taLow;
}

/** A context in a document; the one that ddtp Bare gives is told from one of the guest's that says the same. */
export function saveContext(context: CanonicalContext | null): StateValue {
  if (context === null) return null;
  return context === DDTP_BARE_CONTEXT ? "ddtp Bare" : ({ ...context } satisfies StateRecord);
}

/** The context that `saveContext` put into a field. Throws StateError. */
export function readContext(state: StateReader, name: string): CanonicalContext | null {
  return state.optional(name, (reader) => {
    if (typeof reader.value(name) === "string") {
      if (reader.text(name) !== "ddtp Bare") reader.fail(name, "is no context");
      return DDTP_BARE_CONTEXT;
    }
    const saved = reader.record(name);
    return {
      disposition: saved.text("disposition") === "nested" ? "nested" : "bypass",
      tc: saved.number("tc"),
      fscLow: saved.number("fscLow"),
      fscHigh: saved.number("fscHigh"),
      taLow: saved.number("taLow"),
      dropped: saved.list("dropped").map(String),
    };
  });
}

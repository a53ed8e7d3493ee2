/**
 * What a hand-made case expects, and the words that cases are written in. Doublewords are built here from §7.3 by hand, not by `event-record.ts`.
 */
import type { AtsCompletion, Request } from "../outcome.ts";
import { type Scene, SID, VA } from "./scene.ts";

/** Doubleword 1 of event records. */
export const READ = 1n << 35n;
export const WRITE = 0n;
export const FETCH = READ | (1n << 34n);
export const PRIVILEGED = 1n << 33n;
export const STALL = 1n << 31n;
export const CLASS_TT = 1n << 40n;
export const CLASS_IN = 2n << 40n;
/** A stage-2 fault, by what was translated. */
export const S2_CD = 1n << 39n;
export const S2_TT = S2_CD | CLASS_TT;
export const S2_IN = S2_CD | CLASS_IN;
export const TT_READ = 1n << 44n;

/** Doublewords 0 to 3. */
export type Doublewords = readonly [bigint, bigint, bigint, bigint];

export interface Expected {
  /** An address, "abort", "raz-wi", "stall", or the status and rights of an ATS completion. */
  readonly result: bigint | "abort" | "raz-wi" | "stall" | Partial<AtsCompletion>;
  readonly event: Doublewords | null;
  /** Doublewords that memory holds afterwards, where hardware updates descriptors. */
  readonly stored?: readonly (readonly [bigint, bigint])[];
}

export interface Case {
  /** With the section that says so. */
  readonly name: string;
  readonly scene: () => Scene;
  readonly request?: Partial<Request>;
  readonly expected: Expected;
}

/** An event of a request without SubstreamID. */
export function event(number: bigint, dw1 = 0n, dw2 = 0n, dw3 = 0n): Doublewords {
  return [number | (SID << 32n), dw1, dw2, dw3];
}

/** The same with SubstreamID valid. */
export function eventOf(ssid: bigint, number: bigint, dw1 = 0n, dw2 = 0n, dw3 = 0n): Doublewords {
  return [number | (1n << 11n) | (ssid << 12n) | (SID << 32n), dw1, dw2, dw3];
}

export const abort = (dw: Doublewords | null): Expected => ({ result: "abort", event: dw });
export const passes = (address: bigint): Expected => ({ result: address, event: null });

/** A stage-1 fault of a read of VA. */
export const stage1Fault = (number: bigint, access = READ): Expected => abort(event(number, access | CLASS_IN, VA));
/** A stage-2 fault of a read of VA: what was translated, and its IPA's page. */
export const stage2Fault = (number: bigint, what: bigint, ipa: bigint, access = READ): Expected =>
  abort(event(number, access | what, VA, ipa));

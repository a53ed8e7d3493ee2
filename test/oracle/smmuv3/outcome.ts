/**
 * What is asked of an SMMU and what it may answer: requests, event records (§7.3), ATS completions (§3.9.1.2, §13.7), and what becomes of descriptors
 * (§3.13).
 */

/** A request that arrives at the SMMU. Its endpoint is a PCIe function: without a SubstreamID it is Data and unprivileged (§3.9). */
export interface Request {
  /** An ordinary transaction; one that carries an address from an ATS completion; an ATS Translation Request. */
  readonly kind: "untranslated" | "translated" | "ats";
  readonly sid: bigint;
  readonly ssid: bigint | null;
  readonly privileged: boolean;
  /** An instruction fetch, of reads only; of a Translation Request: Execute Requested. */
  readonly instruction: boolean;
  /** Of a Translation Request: NW=0. */
  readonly write: boolean;
  readonly iova: bigint;
}

/** Event numbers (§7.3). */
export const EVENT = {
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_BAD_ATS_TREQ: 0x05,
  F_STREAM_DISABLED: 0x06,
  F_TRANSL_FORBIDDEN: 0x07,
  C_BAD_SUBSTREAMID: 0x08,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
} as const;
export type EventName = keyof typeof EVENT;

/** The operation that a fault belongs to (§7.3). */
export type Class = "CD" | "TT" | "IN";

/** What ends a translation. Thrown inside the oracle only. */
export class Fault {
  readonly event: EventName;
  readonly details: FaultDetails;
  constructor(event: EventName, details: FaultDetails = {}) {
    this.event = event;
    this.details = details;
  }
}

export interface FaultDetails {
  readonly stage?: 1 | 2;
  readonly class?: Class;
  /** What stage 2 was asked to translate. */
  readonly ipa?: bigint;
  readonly fetchAddress?: bigint;
  /** Of a stage-2 permission fault of a table walk: it was a read. */
  readonly tableRead?: boolean;
  /** Whose bits A, R and S decide; absent: aborted and recorded whatever they say (§5.5). */
  readonly model?: FaultModel;
}

/** A, R, S of a context descriptor; stage 2 has R and S, and an implied A (§5.5). */
export interface FaultModel {
  readonly abort: boolean;
  readonly record: boolean;
  readonly stall: boolean;
}

/** Terminated with an abort, and nothing is recorded. Thrown inside the oracle only. */
export class SilentAbort {}

/** Four doublewords, and masks of the bits that the specification leaves UNKNOWN or implementation defined. */
export interface EventRecord {
  readonly doublewords: readonly bigint[];
  readonly unknown: readonly bigint[];
}

/** The bits of `mask` of the doubleword at `address` become those of `value`: an access flag set, a descriptor made writable. */
export interface Update {
  readonly address: bigint;
  readonly mask: bigint;
  readonly value: bigint;
  /** False: it may be found done or not done (§3.13.2: UNKNOWN after a permission fault; speculative updates). */
  readonly required: boolean;
}

export interface AtsCompletion {
  readonly status: "success" | "unsupported-request" | "completer-abort";
  readonly r: boolean;
  readonly w: boolean;
  readonly exe: boolean;
  readonly priv: boolean;
  /** The address that the request's own address has. */
  readonly address: bigint;
  /** Bytes of the widest range around it that may be answered. */
  readonly widest: bigint;
}

export type Result =
  | { readonly kind: "translated"; readonly address: bigint }
  | { readonly kind: "aborted" }
  /** Completed: reads give zero, writes are dropped (CD.A = 0). */
  | { readonly kind: "raz-wi" }
  | { readonly kind: "stalled" }
  | { readonly kind: "ats"; readonly completion: AtsCompletion };

export interface Outcome {
  readonly result: Result;
  /** The record that goes to the event queue, if one does. */
  readonly record: EventRecord | null;
  readonly updates: readonly Update[];
}

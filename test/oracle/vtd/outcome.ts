/**
 * What is asked of a unit and what it may answer: requests, fault reasons (§7.1.3), fault records (§11.4.7.6), ATS completions (§4.1), updates of paging
 * entries (§3.6.3, §3.7.2).
 */

/** A request that arrives at the unit. Its endpoint is a PCIe function. */
export interface Request {
  /** An ordinary request; one with an address from an ATS completion; an ATS translation request. */
  readonly kind: "untranslated" | "translated" | "translation";
  /** Bus, device, function. */
  readonly sid: bigint;
  readonly pasid: bigint | null;
  /** Privileged Mode Requested, of a request with PASID. */
  readonly privileged: boolean;
  /** Of a translation request: "write" is NW=0, "read" NW=1. */
  readonly access: "read" | "write" | "atomic";
  readonly address: bigint;
}

/**
 * Fault reasons by code: name, and whether FPD suppresses the record (q). "open": the reference has it from memory, so both are accepted.
 */
export const FAULTS: ReadonlyMap<number, { readonly name: string; readonly qualified: boolean | "open" }> = new Map(
  (
    [
      ["LRT.2", 0x01, false],
      ["LCT.2", 0x02, true],
      ["LCT.4", 0x03, true],
      ["LGN.1", 0x04, true],
      ["LGN.2", 0x05, true],
      ["LGN.3", 0x06, true],
      ["LSL.1", 0x07, true],
      ["LRT.1", 0x08, false],
      ["LCT.1", 0x09, false],
      ["LRT.3", 0x0a, false],
      ["LCT.3", 0x0b, true],
      ["LSL.2", 0x0c, true],
      ["LCT.5", 0x0d, true],
      ["LGN.4", 0x0e, true],
      ["IR.1", 0x20, false],
      ["IR.2", 0x21, false],
      ["IR.3", 0x22, true],
      ["IR.4", 0x23, false],
      ["IR.5", 0x24, true],
      ["IR.6", 0x25, false],
      ["IR.7", 0x26, true],
      ["IR.8", 0x27, true],
      ["IR.9", 0x28, true],
      ["RTA.1", 0x30, false],
      ["RTA.2", 0x31, false],
      ["RTA.3", 0x32, false],
      ["RTA.4", 0x33, false],
      ["SRT.1", 0x38, false],
      ["SRT.2", 0x39, false],
      ["SRT.3", 0x3a, false],
      ["SCT.1", 0x40, false],
      ["SCT.2", 0x41, true],
      ["SCT.3", 0x42, true],
      ["SCT.4", 0x43, true],
      ["SCT.5", 0x44, true],
      ["SCT.6", 0x45, true],
      ["SCT.7", 0x46, true],
      ["SCT.8", 0x47, true],
      ["SCT.9", 0x48, "open"],
      ["SPD.1", 0x50, false],
      ["SPD.2", 0x51, true],
      ["SPD.3", 0x52, true],
      ["SPT.1", 0x58, false],
      ["SPT.2", 0x59, true],
      ["SPT.3", 0x5a, true],
      ["SPT.4", 0x5b, true],
      ["SPT.6", 0x5d, "open"],
      ["SFS.1", 0x70, true],
      ["SFS.2", 0x71, true],
      ["SFS.3", 0x72, true],
      ["SFS.4", 0x73, true],
      ["SFS.5", 0x74, "open"],
      ["SFS.6", 0x75, "open"],
      ["SFS.7", 0x76, "open"],
      ["SFS.8", 0x77, "open"],
      ["SSS.1", 0x78, true],
      ["SSS.2", 0x79, true],
      ["SSS.3", 0x7a, true],
      ["SSS.4", 0x7b, true],
      ["SSS.5", 0x7c, true],
      ["SSS.6", 0x7d, true],
      ["SGN.1", 0x80, true],
      ["SGN.2", 0x81, true],
      ["SGN.4", 0x83, true],
      ["SGN.5", 0x84, true],
      ["SGN.6", 0x85, true],
      ["SGN.7", 0x86, true],
      ["SGN.8", 0x87, true],
      ["SFS.9", 0x90, true],
      ["SFS.10", 0x91, true],
    ] as const
  ).map(([name, code, qualified]) => [code, { name, qualified }]),
);

/** What ends a translation. Thrown inside the oracle only. */
export class Fault {
  readonly code: number;
  constructor(code: number) {
    this.code = code;
  }
}

/** Blocked, and nothing is recorded. Thrown inside the oracle only. */
export class SilentBlock {}

/** The two quadwords of FRCD, and masks of the bits that mean nothing or that no source settles. */
export interface FaultRecord {
  readonly quadwords: readonly [bigint, bigint];
  readonly unknown: readonly [bigint, bigint];
}

/** The bits of `mask` of the quadword at `address` are set. */
export interface Update {
  readonly address: bigint;
  readonly mask: bigint;
  /** False: it may be found done or not done. */
  readonly required: boolean;
  /** A dirty flag for the request's own write. */
  readonly dirty: boolean;
}

export interface AtsCompletion {
  readonly status: "success" | "unsupported-request" | "completer-abort";
  readonly r: boolean;
  readonly w: boolean;
  readonly priv: boolean;
  /** The address that the request's own address has. */
  readonly address: bigint;
  /** Bytes of the widest range around it that may be answered. */
  readonly widest: bigint;
}

export type Result =
  | { readonly kind: "translated"; readonly address: bigint }
  | { readonly kind: "blocked" }
  | { readonly kind: "ats"; readonly completion: AtsCompletion };

export interface Outcome {
  readonly result: Result;
  /** The record, if one is made. */
  readonly record: FaultRecord | null;
  readonly updates: readonly Update[];
}

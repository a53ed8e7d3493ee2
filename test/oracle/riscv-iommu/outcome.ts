/**
 * What is asked of an IOMMU and what it may answer: requests, fault records (§4.2), ATS completions (§3.6), and the effects on memory.
 */

export type Access = "read" | "write" | "execute";

/** A request that arrives at the IOMMU (§3.3). ATS requests carry `noWrite` and `executeRequested` in place of an access. */
export interface Request {
  readonly deviceId: bigint;
  readonly processId: bigint | null;
  /** Supervisor privilege; without a process_id the request is a User one whatever this says (§3.3). */
  readonly privileged: boolean;
  readonly type: "untranslated" | "translated" | "ats";
  readonly access: Access;
  readonly noWrite: boolean;
  readonly executeRequested: boolean;
  readonly iova: bigint;
}

/** ddtp (§6.5). */
export interface DirectoryPointer {
  readonly mode: "off" | "bare" | "1lvl" | "2lvl" | "3lvl";
  readonly ppn: bigint;
}

/** A fault record (§4.2). */
export interface FaultRecord {
  readonly cause: number;
  readonly pid: bigint;
  readonly pv: boolean;
  readonly priv: boolean;
  readonly ttyp: number;
  readonly did: bigint;
  readonly iotval: bigint;
  readonly iotval2: bigint;
}

/** A message-signalled interrupt that ends in a memory-resident interrupt file (AIA ch. 9). */
export interface InterruptFile {
  /** Address of the file (512-byte aligned). */
  readonly address: bigint;
  /** Where the notice goes, and its data. */
  readonly noticeAddress: bigint;
  readonly noticeIdentity: bigint;
}

/** A successful answer's page: how far around the address the same answer holds. */
export interface Translation {
  /** Where the request goes; the GPA for an ATS request under T2GPA (§3.6). */
  readonly address: bigint;
  /** PBMT: 0 PMA, 1 NC, 2 IO. */
  readonly memoryType: bigint;
  /** The widest range in bytes that may be reported or cached around the address; null if both stages are Bare (any size, §3.6). */
  readonly widest: bigint | null;
  readonly interruptFile: InterruptFile | null;
}

export interface AtsCompletion {
  readonly status: "success" | "unsupported-request" | "completer-abort";
  readonly r: boolean;
  readonly w: boolean;
  readonly exe: boolean;
  readonly priv: boolean;
  readonly global: boolean;
  /** Untranslated access only. */
  readonly u: boolean;
  /** Null where the address is not defined: no rights, or U=1. */
  readonly translation: Translation | null;
}

/** An A/D update, as the 4 or 8 bytes stored. */
export interface TableWrite {
  readonly address: bigint;
  readonly bytes: number;
  readonly value: bigint;
}

export interface Outcome {
  readonly result:
    | { readonly kind: "translated"; readonly translation: Translation }
    | { readonly kind: "aborted"; readonly cause: number }
    | { readonly kind: "ats"; readonly completion: AtsCompletion };
  /** The record that goes to the fault queue, if one does. */
  readonly record: FaultRecord | null;
  readonly writes: readonly TableWrite[];
  /** Bits that may be found set as well (`value` is a mask): D of second-stage leaves set early on implicit accesses (§3.4). */
  readonly optional: readonly TableWrite[];
}

/** "Stop and report": what ends a translation (§3.3). Thrown inside the oracle only. */
export class Stop {
  readonly cause: number;
  readonly iotval2: bigint;
  constructor(cause: number, iotval2 = 0n) {
    this.cause = cause;
    this.iotval2 = iotval2;
  }
}

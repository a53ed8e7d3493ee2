/**
 * What is compared with the oracle: an implementation with its registers programmed and a memory of its own. `hardware-adapter.ts` makes one of the
 * hardware model; the harness's own tests make faulty ones of the oracle.
 */

import type { Memory } from "../../memory.ts";
import type { CacheSize } from "../generate/sequence.ts";
import type { Implementation } from "../implementation.ts";
import type { Command } from "../invalidation.ts";
import type { AtsCompletion, DirectoryPointer, FaultRecord, Request } from "../outcome.ts";
import type { PageRequest } from "../page-request.ts";

export interface Observed {
  readonly result:
    | { readonly kind: "translated"; readonly address: bigint }
    /** The write was a message, taken by the IOMMU (memory-resident interrupt file). */
    | { readonly kind: "message" }
    | { readonly kind: "aborted" }
    | { readonly kind: "none" }
    | {
        readonly kind: "ats";
        readonly completion: Omit<AtsCompletion, "translation">;
        /** Of the whole range; meaningless unless rights were granted and U=0. */
        readonly address: bigint;
        readonly bytes: bigint;
      };
  readonly records: readonly FaultRecord[];
  /** Page-frame numbers of the pages that were stored to, queues apart. */
  readonly storedPages: readonly bigint[];
}

/** What the debug interface answered (§5). */
export interface DebugAnswer {
  readonly fault: boolean;
  readonly memoryType: bigint;
  /** Start and bytes of the range reported. */
  readonly address: bigint;
  readonly bytes: bigint;
}

/** What came of a Page Request or Stop Marker: a queue record, a response of the IOMMU's own, or neither. */
export interface PageRequestAnswer {
  readonly queued: readonly [bigint, bigint] | null;
  readonly response: { readonly code: number; readonly processId: bigint | null; readonly group: bigint } | null;
}

export interface Subject {
  /** `data` is the payload of a write. */
  request(request: Request, data: number): Observed;
  /** The same question put to the debug interface; the request is an untranslated one. */
  debug(request: Request): Observed & { readonly debug: DebugAnswer };
  pageRequest(request: PageRequest): Observed & { readonly page: PageRequestAnswer };
  /** The command, then IOFENCE.C, both completed; false if the queue stopped. */
  invalidate(command: Command): boolean;
  /** Software stores to memory. */
  store(words: readonly (readonly [bigint, bigint])[]): void;
  word(address: bigint): bigint;
}

/** Null if the implementation cannot be configured so. The memory given is copied. */
export type MakeSubject = (
  implementation: Implementation,
  ddtp: DirectoryPointer,
  memory: Memory,
  caches: CacheSize,
) => Subject | null;

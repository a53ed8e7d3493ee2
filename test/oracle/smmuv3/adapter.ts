/**
 * The interface that an SMMU under test offers to the harness: an image of physical memory, registers programmed as given, and requests one by one.
 * `hardware-adapter.ts` makes one of the hardware model; the harness's own tests make faulty ones of the oracle.
 */
import type { Memory } from "../memory.ts";
import type { Identification, Programming } from "./identification.ts";
import type { AtsCompletion, Request } from "./outcome.ts";

/** A command as its two doublewords (§4.1). */
export type Command = readonly [bigint, bigint];

/**
 * How much the SMMU may keep: nothing (an SMMU without caches, or one whose caches are wholly invalidated before each request), a handful of entries
 * of each kind, or what it likes.
 */
export type CacheSize = "none" | "tiny" | "default";

export interface Observed {
  readonly result:
    | { readonly kind: "translated"; readonly address: bigint }
    | { readonly kind: "aborted" }
    | { readonly kind: "raz-wi" }
    | { readonly kind: "stalled" }
    | {
        readonly kind: "ats";
        readonly completion: Omit<AtsCompletion, "address" | "widest">;
        /** Start of the range answered and its bytes; meaningless unless rights were granted. */
        readonly address: bigint;
        readonly bytes: bigint;
      };
  /** Event records that the request left in the event queue, each four doublewords. */
  readonly records: readonly (readonly bigint[])[];
  /** Page-frame numbers (4 KiB) of the pages that were stored to, queues apart. */
  readonly storedPages: readonly bigint[];
}

export interface Subject {
  /**
   * Puts a request to the SMMU. A transaction that stalls is terminated (CMD_RESUME, or CMD_STALL_TERM) once its record was read, so that none is left
   * when this returns.
   */
  request(request: Request): Observed;
  /** The command, then CMD_SYNC, both completed; false if CMDQ_ERR became active. */
  invalidate(command: Command): boolean;
  /** Software stores doublewords to memory. */
  store(words: readonly (readonly [bigint, bigint])[]): void;
  /** The doubleword that memory holds. */
  word(address: bigint): bigint;
}

/**
 * Null if the SMMU cannot be configured so. The memory given is copied. What is stored at an address where memory has no page, or where an access fault is
 * injected, aborts. Queues and whatever else the adapter needs in memory lie at or above `ADAPTER_MEMORY`, which worlds leave alone.
 */
export type MakeSubject = (
  identification: Identification,
  programming: Programming,
  memory: Memory,
  caches: CacheSize,
) => Subject | null;

/** 2^31: fits the smallest OAS. */
export const ADAPTER_MEMORY = 0x8000_0000n;

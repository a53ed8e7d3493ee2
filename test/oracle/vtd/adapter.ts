/**
 * The interface that a unit under test offers to the harness: an image of physical memory, registers programmed as given, and requests one by one.
 * `hardware-adapter.ts` makes one of the hardware model; the harness's own tests make faulty ones of the oracle.
 */
import type { Memory } from "../memory.ts";
import type { Identification, Programming } from "./capabilities.ts";
import type { InterruptOutcome, InterruptRequest, RemappedInterrupt } from "./interrupt.ts";
import type { Descriptor } from "./invalidation.ts";
import type { AtsCompletion, Request } from "./outcome.ts";

/** How much the unit may keep: nothing, a handful of entries of each kind, or what it likes. */
export type CacheSize = "none" | "tiny" | "default";

export interface Observed {
  readonly result:
    | { readonly kind: "translated"; readonly address: bigint }
    | { readonly kind: "blocked" }
    | {
        readonly kind: "ats";
        readonly completion: Omit<AtsCompletion, "address" | "widest">;
        /** Start of the range answered and its bytes; meaningless unless rights were granted. */
        readonly address: bigint;
        readonly bytes: bigint;
      };
  /** Fault records that the request left, each its two quadwords; they are cleared before this returns. */
  readonly records: readonly (readonly [bigint, bigint])[];
  /** Page-frame numbers (4 KiB) of the pages that were stored to, queues apart. */
  readonly storedPages: readonly bigint[];
}

export interface ObservedInterrupt {
  /** Of a remapped one, what can be seen of it. */
  readonly result:
    | Exclude<InterruptOutcome["result"], { readonly kind: "remapped" }>
    | { readonly kind: "remapped"; readonly interrupt: Partial<RemappedInterrupt> };
  readonly records: readonly (readonly [bigint, bigint])[];
}

export interface Subject {
  request(request: Request): Observed;
  interrupt(request: InterruptRequest): ObservedInterrupt;
  /** The descriptor, then a wait, both completed; false if the queue stopped. */
  invalidate(descriptor: Descriptor): boolean;
  /** Software stores quadwords to memory. */
  store(words: readonly (readonly [bigint, bigint])[]): void;
  /** The quadword that memory holds. */
  word(address: bigint): bigint;
}

/**
 * Null if the unit cannot be configured so. The memory given is copied. What is stored at an address where memory has no page, or where an access fault is
 * injected, fails. Queues and whatever else the adapter needs in memory lie at or above `ADAPTER_MEMORY`, which worlds leave alone.
 */
export type MakeSubject = (
  identification: Identification,
  programming: Programming,
  memory: Memory,
  caches: CacheSize,
) => Subject | null;

/** 2^31: below the smallest host address width of worlds. */
export const ADAPTER_MEMORY = 0x8000_0000n;

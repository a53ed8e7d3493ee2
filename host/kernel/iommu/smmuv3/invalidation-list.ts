// Whom an unmap under a domain concerns: address-space tags of TLBs and devices that cache translations themselves, as a sorted array without
// doubles (Linux: struct arm_smmu_invs). It is made from the record of attachments (../attachments.ts) when that has changed, so it never
// holds what is gone; `users` says how many attachments an entry stands for.

import type { IommuDevice } from "../driver.ts";

/** What is invalidated, in the order in which it must be. */
export const S1_ASID = 0;
export const S2_VMID = 1;
/** A nest parent's VMID again: what guests' first stages made of it. */
export const S2_VMID_S1_CLEAR = 2;
export const ATS = 3;
/** A device under a nested domain: it holds guests' addresses, of which the host knows nothing. */
export const ATS_FULL = 4;
export type InvalidationType = 0 | 1 | 2 | 3 | 4;

export interface Invalidation {
  readonly type: InvalidationType;
  /** ASID, VMID or StreamID. */
  readonly id: number;
  /** SubstreamID of a device's, 0 for requests without. */
  readonly substream: number;
  /** Of the two ATS types. */
  readonly device: IommuDevice | null;
}

export interface CountedInvalidation extends Invalidation {
  users: number;
}

/** Sorts, and counts equal ones together. */
export function invalidationList(invalidations: Iterable<Invalidation>): CountedInvalidation[] {
  const list: CountedInvalidation[] = [];
  for (const each of [...invalidations].sort(compare)) {
    const last = list[list.length - 1];
    if (last !== undefined && compare(last, each) === 0) last.users++;
    else list.push({ ...each, users: 1 });
  }
  return list;
}

function compare(a: Invalidation, b: Invalidation): number {
  return a.type - b.type || a.id - b.id || a.substream - b.substream;
}

/**
 * True between two entries that cannot go to the hardware together: what guests made of a second stage is dropped when the second stage's own
 * translations are, and a device's are when those of the TLB are, else they would be made anew from what is gone.
 */
export function endsBatch(entry: Invalidation, next: Invalidation): boolean {
  if (entry.type === next.type) return false;
  if (entry.type === S2_VMID) return true;
  return entry.type < ATS && next.type >= ATS;
}

// What a leaf entry must look like and grant (privileged architecture, "Virtual Address Translation Process"), and which causes
// go with which request: rules shared by the walks of 8-byte and of 4-byte entries.

import { ACCESS_FAULT, type AccessStatus } from "../../base/memory.ts";
import { CAUSE_PT_DATA_CORRUPTION } from "./fault-records.ts";
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from "./page-table-entry.ts";

/** What the request does; indexes the cause tables. An ATS request asks for whatever rights there are. */
export const KIND_READ = 0;
export const KIND_WRITE = 1;
export const KIND_EXECUTE = 2;
export const KIND_ATS = 3;
/** ATS request without No-Write: D may be set where W = 1 (§3.4). */
export const KIND_ATS_WRITE = 4;
/** Second-stage uses only: reading a first-stage or process-directory entry, and setting A/D in one. */
export const KIND_IMPLICIT_READ = 5;
export const KIND_IMPLICIT_WRITE = 6;

export const ACCESS_FAULT_CAUSE = Uint16Array.of(5, 7, 1, 5, 5, 5, 7);
export const PAGE_FAULT_CAUSE = Uint16Array.of(13, 15, 12, 13, 13, 13, 15);
export const GUEST_PAGE_FAULT_CAUSE = Uint16Array.of(21, 23, 20, 21, 21, 21, 23);

/** Cause of an access fault for a request of this kind (1, 5, 7). */
export function accessFaultCause(kind: number): number {
  return ACCESS_FAULT_CAUSE[kind]!;
}

/** Cause of a load or exchange of a table entry that failed. */
export function loadFault(status: AccessStatus, kind: number): number {
  return status === ACCESS_FAULT ? ACCESS_FAULT_CAUSE[kind]! : CAUSE_PT_DATA_CORRUPTION;
}

/** Internal result of a leaf check: the entry changed under a compare-and-exchange; load it again. */
export const RETRY = -1;
/** Memory that never stops changing under us is an access fault after so many tries. */
export const RETRY_LIMIT = 64;

/** Shift of a Bare stage: larger than any page. */
export const BARE_SHIFT = 52;

/** V = 1 with R, W, X, U, A and D all 0: what a pointer to the next level must look like (G and RSW are free). */
export const POINTER_BITS = 0xdf;

/** What a Bare stage's "leaf" grants. */
export const ALL_RIGHTS = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;

/** True if the PPN of a leaf at `level` (above 0) has bits below its superpage's size. */
export function misaligned(level: number, lo: number, hi: number): boolean {
  if (level === 1) return (lo & 0x7fc00) !== 0;
  if (level === 2) return (lo & 0xffffc00) !== 0;
  if (level === 3) return (lo & 0xfffffc00) !== 0 || (hi & 0x1f) !== 0;
  return (lo & 0xfffffc00) !== 0 || (hi & 0x3fff) !== 0;
}

/** True if a leaf gives the right that this use needs (rights only; execute needs X, a write W, a read or ATS request R). */
export function permits(lo: number, use: number): boolean {
  if (use === KIND_EXECUTE) return (lo & PTE_X) !== 0;
  return (lo & (use === KIND_WRITE || use === KIND_IMPLICIT_WRITE ? PTE_W : PTE_R)) !== 0;
}

/** The A and D bits that this use needs set. */
export function wantedAD(lo: number, use: number): number {
  if (use === KIND_WRITE || use === KIND_IMPLICIT_WRITE) return PTE_A | PTE_D;
  if (use === KIND_ATS_WRITE && (lo & PTE_W) !== 0) return PTE_A | PTE_D;
  return PTE_A;
}

export function narrowLeafLegal(lo: number, level: number): boolean {
  if ((lo & PTE_V) === 0 || (lo & (PTE_R | PTE_W)) === PTE_W) return false;
  return level === 0 || (lo & 0xffc00) === 0;
}

/**
 * log2 of an 8-byte leaf's size in pages; -1 if the entry is not a legal leaf. `reservedHigh` are the reserved bits of the high half,
 * `pbmt` says whether Svpbmt exists.
 */
export function leafShift(lo: number, hi: number, level: number, reservedHigh: number, pbmt: boolean): number {
  if ((lo & PTE_V) === 0 || (lo & (PTE_R | PTE_W)) === PTE_W) return -1;
  if ((hi & reservedHigh) !== 0) return -1;
  const type = (hi >>> 29) & 3;
  if (type === 3 || (type !== 0 && !pbmt)) return -1;
  if ((hi & 0x80000000) !== 0) {
    // Svnapot: 64 KiB ranges at level 0 only.
    return level === 0 && (lo & 0x3c00) === 0x2000 ? 4 : -1;
  }
  if (level !== 0 && misaligned(level, lo, hi)) return -1;
  return 9 * level;
}

/** Mask of the low 32 bits of a frame number that lie within a leaf of 2^shift pages. */
export function withinLeaf(shift: number): number {
  return shift < 32 ? (1 << shift) - 1 : -1;
}

// What a leaf entry must look like and grant (privileged architecture, "Virtual Address Translation Process"), and which causes
// go with which request: rules shared by the walks of 8-byte and of 4-byte entries.

import { ACCESS_FAULT, type AccessStatus } from "../../base/memory.ts";
import { CAUSE_PT_DATA_CORRUPTION } from "./fault-records.ts";
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from "./page-table-entry.ts";

/** What the request does; indexes the cause tables. */
export const KIND_READ = 0;
export const KIND_WRITE = 1;
export const KIND_EXECUTE = 2;
/** ATS requests ask for whatever rights there are: with No-Write, and without it, when D may be set where W = 1 (§3.4). */
export const KIND_ATS = 3;
export const KIND_ATS_WRITE = 4;
/** The same with Execute Requested: a fault is that of a read for execute, as it is for an untranslated request. */
export const KIND_ATS_EXECUTE = 5;
export const KIND_ATS_WRITE_EXECUTE = 6;
/** Second-stage use only: an ATS request to which the first stage gives nothing. It goes on (§3.6) and marks nothing. */
export const KIND_ATS_DENIED = 7;
/** Second-stage uses only: reading a first-stage or process-directory entry, and setting A/D in one. */
export const KIND_IMPLICIT_READ = 8;
export const KIND_IMPLICIT_WRITE = 9;

export const ACCESS_FAULT_CAUSE = Uint16Array.of(5, 7, 1, 5, 5, 1, 1, 5, 5, 7);
export const PAGE_FAULT_CAUSE = Uint16Array.of(13, 15, 12, 13, 13, 12, 12, 13, 13, 15);
export const GUEST_PAGE_FAULT_CAUSE = Uint16Array.of(21, 23, 20, 21, 21, 20, 20, 21, 21, 23);

/** The kind of an ATS request (§3.6). */
export function atsKind(noWrite: boolean, execute: boolean): number {
  return KIND_ATS + (noWrite ? 0 : 1) + (execute ? 2 : 0);
}

/** True for the kinds of ATS requests. */
export function isAts(kind: number): boolean {
  return kind >= KIND_ATS && kind <= KIND_ATS_DENIED;
}

/** What a request of `kind` asks of the second stage after the first one gave it `firstLo`: an ATS request only what it may still have (§3.6). */
export function useBehind(kind: number, firstLo: number): number {
  if (!isAts(kind)) return kind;
  if ((firstLo & PTE_R) === 0) return KIND_ATS_DENIED;
  if ((firstLo & (PTE_W | PTE_D)) === (PTE_W | PTE_D)) return kind;
  return kind === KIND_ATS_WRITE || kind === KIND_ATS_WRITE_EXECUTE ? kind - 1 : kind;
}

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

/**
 * True if a leaf gives the right that this use needs (rights only; execute needs X, a write W, a read R). An ATS request needs none: rights that
 * are missing are denied in its completion, and the translation goes on (§3.6).
 */
export function permits(lo: number, use: number): boolean {
  if (use === KIND_EXECUTE) return (lo & PTE_X) !== 0;
  if (isAts(use)) return true;
  return (lo & (use === KIND_WRITE || use === KIND_IMPLICIT_WRITE ? PTE_W : PTE_R)) !== 0;
}

/** The A and D bits that this use needs set. A page that an ATS request may not even read is not marked. */
function wantedAD(lo: number, use: number): number {
  if (use === KIND_WRITE || use === KIND_IMPLICIT_WRITE) return PTE_A | PTE_D;
  if (!isAts(use)) return PTE_A;
  if (use === KIND_ATS_DENIED || (lo & PTE_R) === 0) return 0;
  const writes = use === KIND_ATS_WRITE || use === KIND_ATS_WRITE_EXECUTE;
  return writes && (lo & PTE_W) !== 0 ? PTE_A | PTE_D : PTE_A;
}

/**
 * The A and D bits that are yet to be set for this use, or -1: a fault, because `hardware` may not set them (§3.4). An ATS request that finds
 * D = 0 then loses the W right only (§3.6).
 */
export function missingAD(lo: number, use: number, hardware: boolean): number {
  const missing = wantedAD(lo, use) & ~lo;
  if (hardware) return missing;
  return (lo & PTE_A) === 0 || (missing !== 0 && !isAts(use)) ? -1 : 0;
}

/** V = 1 and R, W, X a combination that a leaf may have: 000 is a pointer, out of place here; 010 and 110 are reserved. */
function isLeaf(lo: number): boolean {
  return (lo & PTE_V) !== 0 && (lo & (PTE_R | PTE_X)) !== 0 && (lo & (PTE_R | PTE_W)) !== PTE_W;
}

export function narrowLeafLegal(lo: number, level: number): boolean {
  if (!isLeaf(lo)) return false;
  return level === 0 || (lo & 0xffc00) === 0;
}

/**
 * log2 of an 8-byte leaf's size in pages; -1 if the entry is not a legal leaf. `reservedHigh` are the reserved bits of the high half,
 * `pbmt` says whether Svpbmt exists.
 */
export function leafShift(lo: number, hi: number, level: number, reservedHigh: number, pbmt: boolean): number {
  if (!isLeaf(lo)) return -1;
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

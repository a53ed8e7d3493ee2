/**
 * Invalidation descriptors (§6.5.2) and which cached entries each must drop (§6.2, §6.5). An entry that no descriptor since has had to drop may still be used;
 * dropping more is always allowed.
 */
import { bit, bits } from "./capabilities.ts";
import type { EntryMeaning, EntryTag } from "./tables.ts";

/** Its quadwords: two of a 128-bit queue, four of a 256-bit one. */
export type Descriptor = readonly bigint[];

/** Input addresses that a page-selective descriptor means. */
interface Range {
  readonly start: bigint;
  readonly bytes: bigint;
  /** IH: only leaf entries changed. */
  readonly leafOnly: boolean;
}

export type Invalidation =
  | { readonly kind: "everything" }
  /** Null: every one. `functions`: which low bits of the function number do not count. */
  | {
      readonly kind: "context";
      readonly did: bigint | null;
      readonly sid: bigint | null;
      readonly functions: bigint;
    }
  | { readonly kind: "pasid-cache"; readonly did: bigint | null; readonly pasid: bigint | null }
  | { readonly kind: "iotlb"; readonly did: bigint | null; readonly range: Range | null }
  | { readonly kind: "pasid-iotlb"; readonly did: bigint; readonly pasid: bigint; readonly range: Range | null }
  | { readonly kind: "interrupt"; readonly first: bigint; readonly count: bigint | null };

/** Reads a descriptor that is valid; null for those that drop nothing of the unit's own. */
export function decodeInvalidation([q0 = 0n, q1 = 0n]: Descriptor): Invalidation | null {
  const type = (bits(q0, 11n, 9n) << 4n) | bits(q0, 3n, 0n);
  const granularity = bits(q0, 5n, 4n);
  const did = bits(q0, 31n, 16n);
  const pasid = bits(q0, 51n, 32n);
  switch (type) {
    case 1n: {
      const functions = [0n, 4n, 6n, 7n][Number(bits(q0, 49n, 48n))]!;
      if (granularity === 1n) return { kind: "context", did: null, sid: null, functions };
      if (granularity === 2n) return { kind: "context", did, sid: null, functions };
      return { kind: "context", did, sid: bits(q0, 47n, 32n), functions };
    }
    case 2n:
      if (granularity === 1n) return { kind: "iotlb", did: null, range: null };
      return { kind: "iotlb", did, range: granularity === 2n ? null : range(q1) };
    case 4n: {
      if (!bit(q0, 4n)) return { kind: "interrupt", first: 0n, count: null };
      const mask = (1n << bits(q0, 31n, 27n)) - 1n;
      return { kind: "interrupt", first: bits(q0, 47n, 32n) & ~mask, count: mask + 1n };
    }
    case 6n:
      return { kind: "pasid-iotlb", did, pasid, range: granularity === 2n ? null : range(q1) };
    case 7n:
      if (granularity === 3n) return { kind: "pasid-cache", did: null, pasid: null };
      return { kind: "pasid-cache", did, pasid: granularity === 0n ? null : pasid };
    default:
      return null;
  }
}

function range(q1: bigint): Range {
  const bytes = 4096n << bits(q1, 5n, 0n);
  return { start: (bits(q1, 63n, 12n) << 12n) & ~(bytes - 1n), bytes, leafOnly: bit(q1, 6n) };
}

function meets({ start, bytes }: Range, address: bigint, span: bigint): boolean {
  const first = address & ~(span - 1n);
  return first < start + bytes && start < first + span;
}

/**
 * Whether an entry must be dropped. "pointer-only": a paging entry that leads on goes, but what was reached through it and cached further down may stay
 * and is judged by itself.
 */
export type Covered = boolean | "pointer-only";

export function covers(invalidation: Invalidation, tag: EntryTag, meaning: EntryMeaning): Covered {
  if (invalidation.kind === "everything") return true;
  switch (tag.kind) {
    case "root":
    case "context":
      return coversContext(invalidation, tag, meaning);
    case "pasid-directory":
    case "pasid-entry": {
      if (invalidation.kind !== "pasid-cache") return false;
      const { did, pasid } = invalidation;
      return (did === null || did === meaning.did) && (pasid === null || pasid === tag.pasid);
    }
    case "first-stage": {
      // §6.5.2.3: a page-selective IOTLB invalidation drops every entry with a first stage of the domain.
      if (invalidation.kind === "iotlb") return invalidation.did === null || invalidation.did === tag.did;
      if (invalidation.kind !== "pasid-iotlb" || invalidation.did !== tag.did || invalidation.pasid !== tag.pasid)
        return false;
      return coversRange(invalidation.range, tag.address, meaning);
    }
    case "second-stage":
      if (invalidation.kind !== "iotlb" || (invalidation.did !== null && invalidation.did !== tag.did)) return false;
      return coversRange(invalidation.range, tag.address, meaning);
    case "interrupt": {
      if (invalidation.kind !== "interrupt") return false;
      const { first, count } = invalidation;
      return count === null || (tag.index >= first && tag.index < first + count);
    }
  }
}

function coversContext(
  invalidation: Invalidation,
  tag: EntryTag & { readonly kind: "root" | "context" },
  meaning: EntryMeaning,
): boolean {
  if (invalidation.kind !== "context") return false;
  const { did, sid, functions } = invalidation;
  if (sid === null && did === null) return true;
  // Entries of scalable mode hold no DID (§6.5.2.1): it is ignored with a SID, and finds nothing for sure without.
  if (sid === null) return !tag.scalable && meaning.did === did;
  if ((sid ^ tag.sid) & ~functions) return false;
  return tag.scalable || meaning.did === did;
}

function coversRange(range: Range | null, address: bigint, meaning: EntryMeaning): Covered {
  if (range === null) return true;
  if (!meets(range, address, meaning.span)) return false;
  if (meaning.leaf) return true;
  return range.leafOnly ? false : "pointer-only";
}

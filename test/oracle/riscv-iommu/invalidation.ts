/**
 * The invalidation commands (§4.1) and which cached entries each must drop (§3.8). An entry that no command since has had to drop may still be
 * used; entries with V=0 are never cached.
 */
import { bit, bits } from "./implementation.ts";
import type { EntryMeaning, EntryTag } from "./tables.ts";

/** A command as its two doublewords. */
export type Command = readonly [bigint, bigint];

/** Pages that AV, ADDR and S name: a naturally aligned range of addresses, or everything. */
interface Range {
  readonly start: bigint;
  readonly bytes: bigint;
}

export type Invalidation =
  | {
      readonly kind: "vma";
      /** Null: the host, that is, contexts with second stage Bare. */
      readonly gscid: bigint | null;
      readonly pscid: bigint | null;
      readonly range: Range | null;
      readonly nonLeaf: boolean;
    }
  | { readonly kind: "gvma"; readonly gscid: bigint | null; readonly range: Range | null; readonly nonLeaf: boolean }
  | { readonly kind: "ddt"; readonly deviceId: bigint | null }
  | { readonly kind: "pdt"; readonly deviceId: bigint; readonly processId: bigint };

/** Reads a legal invalidation command; null for any other command. */
export function decodeInvalidation([low, high]: Command): Invalidation | null {
  const opcode = bits(low, 6n, 0n);
  const function3 = bits(low, 9n, 7n);
  if (opcode === 1n) {
    const gv = bit(low, 33n);
    const gscid = gv ? bits(low, 59n, 44n) : null;
    const addressed = bit(low, 10n);
    const nonLeaf = bit(low, 34n);
    if (function3 === 0n) {
      const pscid = bit(low, 32n) ? bits(low, 31n, 12n) : null;
      return { kind: "vma", gscid, pscid, range: addressed ? rangeOf(high) : null, nonLeaf };
    }
    // GV=0 is every guest, and AV and S are ignored then.
    return { kind: "gvma", gscid, range: gv && addressed ? rangeOf(high) : null, nonLeaf };
  }
  if (opcode === 3n) {
    const deviceId = bit(low, 33n) ? bits(low, 63n, 40n) : null;
    if (function3 === 0n) return { kind: "ddt", deviceId };
    return { kind: "pdt", deviceId: deviceId!, processId: bits(low, 31n, 12n) };
  }
  return null;
}

/** ADDR and S: one page, or with S the NAPOT range whose lowest 0 bit X means 2^(X+1) pages; 0111…1 is everything. */
function rangeOf(high: bigint): Range | null {
  const page = bits(high, 61n, 10n);
  if (!bit(high, 9n)) return { start: page << 12n, bytes: 4096n };
  let ones = 0n;
  while (bit(page, ones)) ones++;
  if (ones >= 51n) return null;
  const pages = 2n << ones;
  return { start: (page & ~(pages - 1n)) << 12n, bytes: pages * 4096n };
}

/** Whether the entries made of a value at `address` meet the range: the whole of its span is one entry. */
function meets(range: Range, address: bigint, span: bigint): boolean {
  const start = address - (address % span);
  return start < range.start + range.bytes && range.start < start + span;
}

/**
 * Whether an entry must be dropped. "pointer-only": the entry is a pointer and goes, but leaf entries that were made through it may stay (those of other
 * addresses where ADDR is given, global ones where PSCV=1), so what is below it is judged by itself.
 */
export function covers(invalidation: Invalidation, tag: EntryTag, meaning: EntryMeaning): boolean | "pointer-only" {
  switch (invalidation.kind) {
    case "ddt":
      if (tag.table === "ddt-non-leaf") return invalidation.deviceId === null;
      if (tag.table === "device-context" || tag.table === "pdt-non-leaf" || tag.table === "process-context") {
        return invalidation.deviceId === null || invalidation.deviceId === tag.deviceId;
      }
      return false;
    case "pdt":
      return (
        tag.table === "process-context" &&
        tag.deviceId === invalidation.deviceId &&
        tag.processId === invalidation.processId
      );
    case "vma": {
      if (tag.table !== "first-stage" || tag.gscid !== invalidation.gscid) return false;
      if (invalidation.pscid !== null && invalidation.pscid !== tag.pscid) return false;
      if (invalidation.range !== null) {
        if (!meaning.leaf && !invalidation.nonLeaf) return false;
        if (!meets(invalidation.range, tag.iova, meaning.span)) return false;
      }
      if (invalidation.pscid !== null && (tag.globalPath || meaning.global)) return false; // PSCV=1 spares global mappings
      return meaning.leaf || (invalidation.range === null && invalidation.pscid === null) ? true : "pointer-only";
    }
    case "gvma": {
      if (tag.table !== "second-stage" && tag.table !== "msi") return false;
      if (invalidation.gscid !== null && invalidation.gscid !== tag.gscid) return false;
      if (invalidation.range === null) return true;
      if (!meets(invalidation.range, tag.gpa, meaning.span)) return false;
      if (meaning.leaf) return true;
      return invalidation.nonLeaf ? "pointer-only" : false;
    }
  }
}

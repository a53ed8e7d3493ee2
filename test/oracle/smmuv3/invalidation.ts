/**
 * Invalidation commands (§4.3, §4.4) and which cached entries each must drop (§3.17). An entry that no command since has had to drop may still be used;
 * dropping more is always allowed.
 */
import type { Command } from "./adapter.ts";
import { bit, bits } from "./identification.ts";
import type { EntryMeaning, EntryTag, Stage1Tag } from "./tables.ts";

/** Addresses that a command by address means. */
interface Range {
  readonly start: bigint;
  readonly bytes: bigint;
  /** log2 of the granule that entries must have, null: any; and the level of their leaves, null: any. Of range invalidations (§4.4.1.1). */
  readonly granule: bigint | null;
  readonly level: number | null;
  /** Leaf entries only. */
  readonly leaf: boolean;
}

export type Invalidation =
  /** `last` is the last StreamID that is meant. */
  | { readonly kind: "STE"; readonly sid: bigint; readonly last: bigint; readonly leaf: boolean }
  | { readonly kind: "CD"; readonly sid: bigint; readonly ssid: bigint | null; readonly leaf: boolean }
  /** Stage-1 and combined entries. Null: every ASID, every address. */
  | {
      readonly kind: "stage-1";
      readonly world: "EL1" | "EL2";
      readonly vmid: bigint | null;
      readonly asid: bigint | null;
      readonly range: Range | null;
    }
  | { readonly kind: "stage-2"; readonly vmid: bigint; readonly range: Range }
  /** Both stages of a VMID, or of every one. */
  | { readonly kind: "all"; readonly vmid: bigint | null };

/** Reads a legal invalidation command; null for any other command. */
export function decodeInvalidation([dw0, dw1]: Command): Invalidation | null {
  const sid = bits(dw0, 63n, 32n);
  const vmid = bits(dw0, 47n, 32n);
  const asid = bits(dw0, 63n, 48n);
  const leaf = bit(dw1, 0n);
  switch (bits(dw0, 7n, 0n)) {
    case 0x03n:
      return { kind: "STE", sid, last: sid, leaf };
    case 0x04n: {
      const count = 1n << (bits(dw1, 4n, 0n) + 1n);
      const first = sid & ~(count - 1n);
      return { kind: "STE", sid: first, last: first + count - 1n, leaf: false };
    }
    case 0x05n:
      return { kind: "CD", sid, ssid: bits(dw0, 31n, 12n), leaf };
    case 0x06n:
      return { kind: "CD", sid, ssid: null, leaf: false };
    case 0x10n:
      return { kind: "stage-1", world: "EL1", vmid, asid: null, range: null };
    case 0x11n:
      return { kind: "stage-1", world: "EL1", vmid, asid, range: null };
    case 0x12n:
      return { kind: "stage-1", world: "EL1", vmid, asid, range: rangeOf(dw0, dw1) };
    case 0x13n:
      return { kind: "stage-1", world: "EL1", vmid, asid: null, range: rangeOf(dw0, dw1) };
    case 0x20n:
      return { kind: "stage-1", world: "EL2", vmid: null, asid: null, range: null };
    case 0x21n:
      return { kind: "stage-1", world: "EL2", vmid: null, asid, range: null };
    case 0x22n:
      return { kind: "stage-1", world: "EL2", vmid: null, asid, range: rangeOf(dw0, dw1) };
    case 0x23n:
      return { kind: "stage-1", world: "EL2", vmid: null, asid: null, range: rangeOf(dw0, dw1) };
    case 0x28n:
      return { kind: "all", vmid };
    case 0x2an:
      return { kind: "stage-2", vmid, range: rangeOf(dw0, dw1) };
    case 0x30n:
      return { kind: "all", vmid: null };
    default:
      return null;
  }
}

/** One address, or with TG a range (§4.4.1.1): (NUM+1)·2^SCALE granules. */
function rangeOf(dw0: bigint, dw1: bigint): Range {
  const leaf = bit(dw1, 0n);
  const start = bits(dw1, 63n, 12n) << 12n;
  const granule = [null, 12n, 14n, 16n][Number(bits(dw1, 11n, 10n))]!;
  if (granule === null) return { start, bytes: 1n, granule: null, level: null, leaf };
  const scale = bits(dw0, 24n, 20n);
  const ttl = Number(bits(dw1, 9n, 8n));
  // No blocks of 16K at level 1 (without DS): TTL counts as 0.
  const level = ttl === 0 || (granule === 14n && ttl === 1) ? null : ttl;
  // §4.4.1.1: which range is meant by an address that is not aligned to the level's entries cannot be relied on.
  const unsure = level !== null && start % (1n << (granule + (granule - 3n) * BigInt(3 - level))) !== 0n;
  const bytes = unsure ? 0n : (bits(dw0, 16n, 12n) + 1n) << (scale + granule);
  return { start, bytes, granule, level, leaf };
}

/** Whether a command's range concerns an entry: all of its span is one entry. */
function meets(range: Range, address: bigint, span: bigint): boolean {
  const start = address & ~(span - 1n);
  return range.bytes > 0n && start < range.start + range.bytes && range.start < start + span;
}

/**
 * Whether an entry must be dropped. "pointer-only": the entry is a table descriptor and goes, but leaf entries that were made through it may stay, so what is
 * below it is judged by itself.
 */
export type Covered = boolean | "pointer-only";

export function covers(invalidation: Invalidation, tag: EntryTag, meaning: EntryMeaning): Covered {
  switch (tag.kind) {
    case "L1STD":
    case "STE":
      if (invalidation.kind !== "STE" || tag.sid < invalidation.sid || tag.sid > invalidation.last) return false;
      return tag.kind === "STE" || !invalidation.leaf;
    case "L1CD":
    case "CD":
      // Contexts go with the stream table entry they were found through (§4.3.1).
      if (invalidation.kind === "STE") return tag.sid >= invalidation.sid && tag.sid <= invalidation.last;
      if (invalidation.kind !== "CD" || tag.sid !== invalidation.sid) return false;
      if (invalidation.ssid !== null && invalidation.ssid !== tag.ssid) return false;
      return tag.kind === "CD" || !invalidation.leaf;
    case "stage-1":
      return coversStage1(invalidation, tag, meaning);
    case "stage-2":
      if (invalidation.kind === "all") return invalidation.vmid === null || invalidation.vmid === tag.vmid;
      if (invalidation.kind !== "stage-2" || invalidation.vmid !== tag.vmid) return false;
      return coversByRange(invalidation.range, tag.ipa, tag, meaning);
  }
}

/** The entry that combines a stage-2 leaf with the stage-1 leaf above it: found, and dropped, by the virtual address. */
export function coversCombined(invalidation: Invalidation, under: Stage1Tag, global: boolean): boolean {
  // A piece as small as can be, of a granule and level that no range can be sure of.
  const piece = { kind: "stage-1", level: 0, granule: 0n, ...under } as const;
  return coversStage1(invalidation, piece, { cacheable: true, leaf: true, span: 4096n, global }) === true;
}

function coversStage1(
  invalidation: Invalidation,
  tag: Stage1Tag & { readonly level: number; readonly granule: bigint },
  meaning: EntryMeaning,
): Covered {
  const sameMachine = (vmid: bigint | null) => vmid === null || tag.vmid === null || vmid === tag.vmid;
  if (invalidation.kind === "all") return tag.world === "EL1" && sameMachine(invalidation.vmid);
  if (invalidation.kind !== "stage-1") return false;
  const { world, vmid, asid, range } = invalidation;
  if ((world === "EL1") !== (tag.world === "EL1")) return false;
  if (world === "EL1" && !sameMachine(vmid)) return false;
  const everyAsid = asid === null || tag.asid === null;
  const mine = everyAsid || asid === tag.asid;
  if (range === null) {
    if (everyAsid) return asid === null; // by ASID where entries have none: nothing
    if (!mine) return false;
    // Global entries stay.
    return meaning.leaf ? !meaning.global : "pointer-only";
  }
  if (!mine && !(meaning.leaf && meaning.global)) return false;
  return coversByRange(range, tag.va, tag, meaning);
}

function coversByRange(
  range: Range,
  address: bigint,
  { level, granule }: { readonly level: number; readonly granule: bigint },
  meaning: EntryMeaning,
): Covered {
  // Virtual addresses are matched without their top byte, which may be ignored.
  const plain = (value: bigint) => value & ((1n << 56n) - 1n);
  if (!meets({ ...range, start: plain(range.start) }, plain(address), meaning.span)) return false;
  if (range.granule !== null && range.granule !== granule) return false;
  if (meaning.leaf) return range.level === null || range.level === level;
  if (range.leaf || (range.level !== null && level >= range.level)) return false;
  return "pointer-only";
}

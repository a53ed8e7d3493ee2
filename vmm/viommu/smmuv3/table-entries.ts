// Entries of an SMMU's tables in words: structures by their fields (IHI 0070 §5), descriptors of VMSAv8-64 (DDI 0487 D8.3) by what they are, where
// they lead and what they allow.

import { CD, L1CD } from "../../../host/arch/smmuv3/context-descriptor.ts";
import { L1STD, STE } from "../../../host/arch/smmuv3/stream-table-entry.ts";
import { hex } from "../../../host/base/address.ts";
import { bit, bits, structure } from "../../../host/base/fields.ts";
import { type DecodedStructure, decoded } from "../decoded-structure.ts";
import type { WalkStep } from "../explainer.ts";

/** Descriptors of VMSAv8-64, 4K granules: of stage 1, of stage 2, and what leads to another table. */
const lead = { Valid: bit(0), Type: bit(1, { values: { 0: "block", 1: "table or page" } }) };
const TABLE_DESCRIPTOR = structure("table descriptor", "D8.3.1", 1, {
  ...lead,
  NextLevelTable: bits(47, 12),
  PXNTable: bit(59),
  UXNTable: bit(60),
  APTable: bits(62, 61),
});
const common = { SH: bits(9, 8), AF: bit(10), OutputAddress: bits(47, 12), DBM: bit(51), Contiguous: bit(52) };
const STAGE1_DESCRIPTOR = structure("stage 1 page or block descriptor", "D8.3.2", 1, {
  ...lead,
  AttrIndx: bits(4, 2),
  AP: bits(7, 6, { values: { 0: "RW, EL1 only", 1: "RW", 2: "RO, EL1 only", 3: "RO" } }),
  ...common,
  nG: bit(11),
  PXN: bit(53),
  UXN: bit(54),
});
const STAGE2_DESCRIPTOR = structure("stage 2 page or block descriptor", "D8.3.2", 1, {
  ...lead,
  MemAttr: bits(5, 2),
  S2AP: bits(7, 6, { values: { 0: "none", 1: "RO", 2: "WO", 3: "RW" } }),
  ...common,
  XN: bits(54, 53),
});

const OUTPUT = 0xffff_ffff_f000n;
const flag = (entry: bigint, at: number): boolean => ((entry >> BigInt(at)) & 1n) !== 0n;

export type DescriptorKind = "invalid" | "table" | "block" | "page";

export function descriptorKind({ entry, level }: WalkStep): DescriptorKind {
  if (!flag(entry, 0)) return "invalid";
  if (level === 3) return flag(entry, 1) ? "page" : "invalid";
  return flag(entry, 1) ? "table" : "block";
}

/** log2 of the bytes that a descriptor covers; 4K granules where the trace does not say. */
export function coverage({ covers, level }: WalkStep): bigint {
  return BigInt(covers ?? 12 + 9 * (3 - level));
}

/** Where a page or block leads an address; null for what is neither. */
export function leafOutput(step: WalkStep, address: bigint): bigint | null {
  const kind = descriptorKind(step);
  if (kind !== "page" && kind !== "block") return null;
  const within = (1n << coverage(step)) - 1n;
  return (step.entry & OUTPUT & ~within) | (address & within);
}

/** An entry in the specification's words. Structures are traced by their first doubleword. */
export function describeEntry(step: WalkStep): string {
  const { table, entry } = step;
  switch (table) {
    case "L1STD":
      return L1STD.describe([entry]) || "Span=0";
    case "STE": {
      const words = [entry, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
      const text = STE.describe(words) || "V=0";
      // Only what is not 0 is described; that nothing passes (§5.2) is worth saying.
      return STE.get(words, "V") === 1n && STE.get(words, "Config") === 0n ? `${text} Config=abort` : text;
    }
    case "L1CD":
      return L1CD.describe([entry]) || "V=0";
    case "CD":
      return CD.describe([entry, 0n, 0n, 0n, 0n, 0n, 0n, 0n]) || "V=0";
    case "stage1":
    case "stage2":
      return describeDescriptor(step);
    default:
      return hex(entry);
  }
}

/** The same, field by field. */
export function decodeEntry(step: WalkStep): DecodedStructure {
  const { table, entry } = step;
  switch (table) {
    case "L1STD":
      return decoded(L1STD, "IHI 0070", [entry]);
    case "STE":
      return decoded(STE, "IHI 0070", [entry]);
    case "L1CD":
      return decoded(L1CD, "IHI 0070", [entry]);
    case "CD":
      return decoded(CD, "IHI 0070", [entry]);
    default:
      if (descriptorKind(step) === "table") return decoded(TABLE_DESCRIPTOR, "DDI 0487", [entry]);
      return table === "stage1"
        ? decoded(STAGE1_DESCRIPTOR, "DDI 0487", [entry])
        : decoded(STAGE2_DESCRIPTOR, "DDI 0487", [entry]);
  }
}

function describeDescriptor(step: WalkStep): string {
  const { entry, table } = step;
  const kind = descriptorKind(step);
  if (kind === "invalid") return "invalid";
  if (kind === "table") {
    const limits = [flag(entry, 62) && "APTable=RO", flag(entry, 61) && "APTable=EL1", flag(entry, 60) && "UXNTable"];
    const said = table === "stage1" ? limits.filter((limit) => limit !== false) : [];
    return ["table", hex(entry & OUTPUT), ...said].join(" ");
  }
  const address = hex(entry & OUTPUT & ~((1n << coverage(step)) - 1n));
  const words = table === "stage1" ? stage1Words(entry) : stage2Words(entry);
  const common = [flag(entry, 10) && "AF", flag(entry, 51) && "DBM", flag(entry, 52) && "contiguous"];
  return [kind, address, ...words, ...common.filter((word) => word !== false)].join(" ");
}

function stage1Words(entry: bigint): string[] {
  const words = [`${flag(entry, 7) ? "RO" : "RW"}${flag(entry, 6) ? "" : " EL1"}`, `Attr=${(entry >> 2n) & 7n}`];
  if (flag(entry, 11)) words.push("nG");
  if (flag(entry, 53)) words.push("PXN");
  if (flag(entry, 54)) words.push("UXN");
  return words;
}

function stage2Words(entry: bigint): string[] {
  const words = [["none", "R", "W", "RW"][Number((entry >> 6n) & 3n)]!];
  if (flag(entry, 54)) words.push("XN");
  return words;
}

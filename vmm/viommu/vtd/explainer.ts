// VT-d's tables, faults and registers in words (../explainer.ts).

import { decodeCapabilities } from "../../../host/arch/vtd/capabilities.ts";
import { FAULT_REASONS } from "../../../host/arch/vtd/fault-reasons.ts";
import { FAULT_RECORD, REQUEST_WRITE } from "../../../host/arch/vtd/fault-records.ts";
import { descriptorStructure } from "../../../host/arch/vtd/invalidation-descriptors.ts";
import { FIRST_STAGE_ENTRY, SECOND_STAGE_ENTRY } from "../../../host/arch/vtd/page-table-entry.ts";
import { PASID_DIRECTORY_ENTRY, PASID_ENTRY } from "../../../host/arch/vtd/pasid-entries.ts";
import { describeRegister, REG, registersOf } from "../../../host/arch/vtd/registers.ts";
import { ROOT, SCALABLE_CONTEXT } from "../../../host/arch/vtd/root-and-context.ts";
import { hex } from "../../../host/base/address.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { type DecodedStructure, decoded } from "../decoded-structure.ts";
import type { Explainer, FaultExplanation, WalkStep } from "../explainer.ts";

/** In the order in which a walk goes through them. */
const TABLES = ["root", "context", "PASID directory", "PASID", "stage1", "stage2"];

const reach = (level: number): bigint => (1n << BigInt(12 + 9 * level)) - 1n;
const isLeaf = ({ table, level, entry }: WalkStep): boolean =>
  (entry & (table === "stage2" ? 3n : 1n)) !== 0n && (level === 0 || (entry & 0x80n) !== 0n);
const output = ({ entry, level }: WalkStep, address: bigint): bigint =>
  (entry & 0xf_ffff_ffff_f000n & ~reach(level)) | (address & reach(level));

const SPECIFICATION = "VT-d specification";

export const VTD_EXPLAINER: Explainer = {
  specification: SPECIFICATION,
  beginsAnew,
  describeEntry,
  decodeEntry,
  decodeCommand: (words) => {
    const shape = descriptorStructure(words[0] ?? 0n);
    return shape === null ? null : decoded(shape, SPECIFICATION, words, ["type", "typeHigh"]);
  },
  decodeFault: (words) => decoded(FAULT_RECORD, SPECIFICATION, words),
  stage1Output: (leaf, iova) => (isLeaf(leaf) ? output(leaf, iova) : null),
  // Bits 11:3 of each table's address are the index of that level.
  stage2Input: (loads, result) => {
    const leaf = loads.at(-1);
    if (leaf === undefined || !isLeaf(leaf) || loads[0]!.cached) return null;
    let gpa = 0n;
    for (const load of loads) gpa |= ((load.address & 0xfffn) >> 3n) << BigInt(12 + 9 * load.level);
    return result === null ? gpa : gpa | (result & reach(leaf.level));
  },
  servedTable: (_before, _fault, serves) => (serves === undefined ? "final" : "stage1"),
  // Records hold the original address only (§3.8).
  faultAddress: () => null,
  faultWrites: ({ ttyp }) => ttyp === REQUEST_WRITE,
  explainFault,
  registers,
};

/** Down the structures, down the first stage, each of its entries behind the second-stage loads that find it, then the second stage; never back up. */
function beginsAnew(walk: readonly WalkStep[], next: WalkStep): boolean {
  for (let i = walk.length - 1; i >= 0; i--) {
    const last = walk[i]!;
    if (isImplicit(last)) continue;
    if (!isImplicit(next)) return height(next) >= height(last);
    return last.table === "stage2" || (last.table === "stage1" && next.serves! >= last.level);
  }
  const last = walk.at(-1)!;
  return isImplicit(next) && (next.serves! > last.serves! || (next.serves === last.serves && next.level >= last.level));
}

const isImplicit = ({ table, serves }: WalkStep): boolean => table === "stage2" && serves !== undefined;

function height({ table, level }: WalkStep): number {
  return level - 8 * TABLES.indexOf(table);
}

/** Structures are traced by their first quadword. */
function describeEntry(step: WalkStep): string {
  const { table, entry } = step;
  const rest = new Array<bigint>(7).fill(0n);
  switch (table) {
    case "root":
      return ROOT.describe([entry, 0n]) || "P=0";
    case "context":
      return SCALABLE_CONTEXT.describe([entry, 0n, 0n, 0n]) || "P=0";
    case "PASID directory":
      return PASID_DIRECTORY_ENTRY.describe([entry]) || "P=0";
    case "PASID":
      return PASID_ENTRY.describe([entry, ...rest]) || "P=0";
    case "stage1":
      return describeLeaf(step, ["P", "RW", "US", "A", "D", "PS", "G"], FIRST_STAGE_ENTRY);
    case "stage2":
      return describeLeaf(step, ["R", "W", "PS", "A", "D", "SNP"], SECOND_STAGE_ENTRY);
    default:
      return hex(entry);
  }
}

function decodeEntry({ table, entry }: WalkStep): DecodedStructure {
  switch (table) {
    case "root":
      return decoded(ROOT, SPECIFICATION, [entry]);
    case "context":
      return decoded(SCALABLE_CONTEXT, SPECIFICATION, [entry]);
    case "PASID directory":
      return decoded(PASID_DIRECTORY_ENTRY, SPECIFICATION, [entry]);
    case "PASID":
      return decoded(PASID_ENTRY, SPECIFICATION, [entry]);
    case "stage1":
      return decoded(FIRST_STAGE_ENTRY, SPECIFICATION, [entry]);
    default:
      return decoded(SECOND_STAGE_ENTRY, SPECIFICATION, [entry]);
  }
}

function describeLeaf<F extends string>(
  { entry }: WalkStep,
  flags: readonly F[],
  layout: { get(words: readonly bigint[], field: F | "ADDR"): bigint },
): string {
  const set = flags.filter((flag) => layout.get([entry], flag) !== 0n);
  return `${set.join(" ") || "-"} ADDR=${hex(layout.get([entry], "ADDR") << 12n)}`;
}

const SECTIONS: readonly (readonly [first: number, last: number, section: string, blame: FaultExplanation["blame"]])[] =
  [
    [0x01, 0x0e, "§7.1.3, legacy mode", "the guest"],
    [0x20, 0x29, "§5.1, §7.1.3", "the guest"],
    [0x30, 0x33, "§11.4, RTADDR", "the guest"],
    [0x38, 0x3a, "§9.2", "the guest"],
    [0x40, 0x43, "§9.4", "the guest"],
    [0x44, 0x48, "§9.4", "the device"],
    [0x50, 0x52, "§9.5", "the guest"],
    [0x58, 0x5d, "§9.6", "the guest"],
    [0x70, 0x73, "§3.6, §9.7", "the guest"],
    // What the second stage does not let the first stage's own tables be read or marked through.
    [0x74, 0x77, "§3.8", "the guest or the host"],
    [0x78, 0x7d, "§3.7, §9.8", "the host"],
    [0x80, 0x82, "§3.6", "the guest or the host"],
    [0x83, 0x87, "§3.7, §3.14", "the guest or the host"],
    [0x90, 0x91, "§3.6.2", "the guest or the host"],
  ];

function explainFault(cause: number): FaultExplanation {
  const known = FAULT_REASONS[cause];
  const place = SECTIONS.find(([first, last]) => cause >= first && cause <= last);
  const text = known?.text ?? "a fault reason without a name";
  return {
    ...(known === undefined ? {} : { name: known.name }),
    blame: place?.[3] ?? "the guest or the host",
    why: `${text[0]!.toUpperCase()}${text.slice(1)}.`,
    section: place?.[2] ?? "§7.1.3",
  };
}

function registers(port: MmioPort): Record<string, string> {
  const read = (offset: number): bigint => {
    const low = port.mmioRead(offset, 8);
    return (BigInt(port.high >>> 0) << 32n) | BigInt(low >>> 0);
  };
  const values: Record<string, string> = {};
  for (const register of registersOf(decodeCapabilities(read(REG.CAP), read(REG.ECAP)))) {
    const words =
      register.bytes === 4
        ? [BigInt(port.mmioRead(register.offset, 4) >>> 0)]
        : register.bytes === 8
          ? [read(register.offset)]
          : [read(register.offset), read(register.offset + 8)];
    const text = describeRegister(register, words).slice(register.name.length).trim();
    const value = words.toReversed().map(hex).join(" ");
    values[register.name] = text === "" ? value : `${value} (${text})`;
  }
  return values;
}

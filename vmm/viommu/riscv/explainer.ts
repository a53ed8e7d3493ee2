// The RISC-V IOMMU's tables, faults and registers in words (../explainer.ts).

import { commandStructure } from "../../../host/arch/riscv/commands.ts";
import { DEVICE_CONTEXT_BASE, DIRECTORY_ENTRY } from "../../../host/arch/riscv/device-context.ts";
import { FAULT_RECORD } from "../../../host/arch/riscv/fault-records.ts";
import { MSI_PTE_BASIC, PTE } from "../../../host/arch/riscv/page-table-entry.ts";
import { PROCESS_CONTEXT } from "../../../host/arch/riscv/process-context.ts";
import { describeRegister, REG, registerAt } from "../../../host/arch/riscv/registers.ts";
import { hex } from "../../../host/base/address.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { type DecodedStructure, decoded } from "../decoded-structure.ts";
import type { Explainer, WalkFault, WalkStep } from "../explainer.ts";
import { explainFault } from "./fault-explanations.ts";
import { beginsAnew } from "./walk-order.ts";

/** A process directory's entry could not be loaded, or came damaged (§4.2). */
const PDT_CAUSES: ReadonlySet<number> = new Set([265, 269]);
/** TTYP values of writes (§4.2). */
const WRITES: ReadonlySet<number> = new Set([3, 7]);

const isLeaf = ({ entry }: WalkStep): boolean => (entry & 1n) !== 0n && (entry & 0xen) !== 0n;

const SPECIFICATION = "RISC-V IOMMU specification";

export const RISCV_EXPLAINER: Explainer = {
  specification: SPECIFICATION,
  beginsAnew,
  describeEntry,
  decodeEntry,
  decodeCommand: (words) => {
    const shape = commandStructure(words[0] ?? 0n);
    return shape === null ? null : decoded(shape, SPECIFICATION, words, ["opcode", "func3"]);
  },
  decodeFault: (words) => decoded(FAULT_RECORD, SPECIFICATION, words),
  stage1Output: (leaf, iova) => {
    if ((leaf.entry & 0xen) === 0n) return null;
    // Svnapot: a level-0 leaf with N reaches over 64 KiB, and its PPN's low bits say so instead of being an address.
    const napot = leaf.level === 0 && PTE.get([leaf.entry], "N") !== 0n;
    const reach = (1n << BigInt(napot ? 16 : 12 + 9 * leaf.level)) - 1n;
    return ((PTE.get([leaf.entry], "PPN") << 12n) & ~reach) | (iova & reach);
  },
  // Bits 11:3 of each table address are the index of that level (the root of SvNx4 is four pages, its index two bits wider).
  stage2Input: (loads, result) => {
    const leaf = loads.at(-1);
    if (leaf === undefined || !isLeaf(leaf)) return null;
    const root = loads[0]!;
    // A walk that began at a remembered pointer does not say what is above it.
    if (root.cached) return null;
    let gpa = ((root.address & 0x3fffn) >> 3n) << BigInt(12 + 9 * root.level);
    for (const load of loads.slice(1)) gpa |= ((load.address & 0xfffn) >> 3n) << BigInt(12 + 9 * load.level);
    const reach = (1n << BigInt(12 + 9 * leaf.level)) - 1n;
    return result === null ? gpa : gpa | (result & reach);
  },
  // A process directory's entry comes after the device context, before the first stage.
  servedTable: (before, fault, serves) => {
    if (serves === undefined) return "final";
    if (fault !== null && PDT_CAUSES.has(fault.faultCause)) return "PDT";
    if (before?.table === "PDT") return before.level > 0 ? "PDT" : "stage1";
    if (before?.table !== "DDT") return "stage1";
    return DEVICE_CONTEXT_BASE.get([before.entry], "PDTV") !== 0n ? "PDT" : "stage1";
  },
  // Of a guest-page fault (§4.2): bits 1:0 of iotval2 say what kind of access it was.
  faultAddress: ({ iotval2 }: WalkFault) => (iotval2 === 0n ? null : iotval2 & ~3n),
  faultWrites: ({ ttyp }) => WRITES.has(ttyp),
  explainFault,
  registers,
};

function describeEntry(step: WalkStep): string {
  if (step.table === "stage1" || step.table === "stage2") {
    const flags = ["V", "R", "W", "X", "U", "G", "A", "D"] as const;
    const set = flags.filter((flag) => PTE.get([step.entry], flag) !== 0n);
    const napot = PTE.get([step.entry], "N") !== 0n ? " N" : "";
    return `${set.join("") || "-"}${napot} PPN=${hex(PTE.get([step.entry], "PPN"))}`;
  }
  // Leaves of a directory show their first doubleword: tc of a device context, ta of a process context.
  if (step.table === "DDT" && step.level === 0) return DEVICE_CONTEXT_BASE.describe([step.entry, 0n, 0n, 0n]) || "V=0";
  if (step.table === "PDT" && step.level === 0) return PROCESS_CONTEXT.describe([step.entry, 0n]) || "V=0";
  if (step.table === "DDT" || step.table === "PDT") return DIRECTORY_ENTRY.describe([step.entry]) || "V=0";
  return hex(step.entry);
}

function decodeEntry({ table, level, entry }: WalkStep): DecodedStructure {
  if (table === "DDT" && level === 0) return decoded(DEVICE_CONTEXT_BASE, SPECIFICATION, [entry]);
  if (table === "PDT" && level === 0) return decoded(PROCESS_CONTEXT, SPECIFICATION, [entry]);
  if (table === "DDT" || table === "PDT") return decoded(DIRECTORY_ENTRY, SPECIFICATION, [entry]);
  if (table === "MSI") return decoded(MSI_PTE_BASIC, "RISC-V AIA specification", [entry]);
  return decoded(PTE, "RISC-V", [entry]);
}

function registers(port: MmioPort): Record<string, string> {
  const values: Record<string, string> = {};
  for (const [name, offset] of Object.entries(REG)) {
    const place = registerAt(offset);
    if (place === undefined) continue;
    const low = port.mmioRead(offset, place.register.bytes as 4 | 8);
    const high = place.register.bytes === 8 ? port.high : 0;
    const value = (BigInt(high) << 32n) | BigInt(low);
    const text = describeRegister(offset, value).replace(/^\S+: ?/, "");
    values[name] = text === "" ? hex(value) : `${hex(value)} (${text})`;
  }
  return values;
}

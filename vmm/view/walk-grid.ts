// A nested walk as a grid: rows are first-stage levels (then the final address), columns second-stage levels (then the first-stage entry
// itself), each cell one load. Directory loads come before the grid. The failing load, the last one of a walk that faulted, carries the
// blame.

import { DEVICE_CONTEXT_BASE, DIRECTORY_ENTRY } from "../../host/arch/riscv/device-context.ts";
import { PTE } from "../../host/arch/riscv/page-table-entry.ts";
import { PROCESS_CONTEXT } from "../../host/arch/riscv/process-context.ts";
import { hex } from "../../host/base/address.ts";
import { explainFault } from "./fault-explanations.ts";
import type { Walk, WalkStep } from "./walks.ts";

export interface WalkCell {
  readonly level: number;
  /** Where the entry was loaded from: host-physical. */
  readonly spa: bigint;
  readonly entry: bigint;
  readonly cached: boolean;
  /** "V R W U A D PPN=0x80012". */
  readonly decoded: string;
  readonly failing: boolean;
}

export interface WalkRow {
  /** "DDT level 2", "stage 1 level 2", "final address". */
  readonly label: string;
  readonly table: "DDT" | "PDT" | "stage1" | "MSI" | "final";
  /** Level of the entry the row is about; -1 for the final address. */
  readonly level: number;
  /** Guest-physical address that the second stage translated for this row, null without a second stage. */
  readonly gpa: bigint | null;
  /** Second-stage loads, root first. */
  readonly stage2: readonly WalkCell[];
  /** The entry the row is about; null for the final address, or where the second stage failed first. */
  readonly fetch: WalkCell | null;
}

export interface WalkGrid {
  readonly walk: Walk;
  readonly rows: readonly WalkRow[];
  /** Largest number of second-stage loads in a row. */
  readonly columns: number;
  /** "stage 1: the guest's own fault" …; null if the DMA went through. */
  readonly blame: string | null;
}

/** A process directory's entry could not be loaded, or came damaged (RISC-V IOMMU §4.2). */
const PDT_CAUSES: ReadonlySet<number> = new Set([265, 269]);

/** Arranges a walk's loads. */
export function walkGrid(walk: Walk): WalkGrid {
  const rows: WalkRow[] = [];
  let pending: WalkStep[] = [];
  const last = walk.steps.at(-1);
  const cell = (step: WalkStep): WalkCell => ({
    level: step.level,
    spa: step.address,
    entry: step.entry,
    cached: step.cached,
    decoded: decodeEntry(step),
    failing: walk.fault !== null && step === last,
  });
  for (const step of walk.steps) {
    if (step.table === "stage2") {
      pending.push(step);
      continue;
    }
    rows.push({
      label: step.table === "stage1" ? `stage 1 level ${step.level}` : `${step.table} level ${step.level}`,
      table: step.table,
      level: step.level,
      gpa: secondStageInput(pending, step.address),
      stage2: pending.map(cell),
      fetch: cell(step),
    });
    pending = [];
  }
  if (pending.length > 0) {
    const level = pending[0]!.serves ?? -1;
    const before = rows.at(-1);
    const table = level < 0 ? "final" : servedTable(walk, before);
    const final = table === "final" ? finalAddress(walk, before) : null;
    rows.push({
      label: table === "final" ? "final address" : `${table === "PDT" ? "PDT" : "stage 1"} level ${level}`,
      table,
      level,
      gpa: final ?? faultingAddress(walk) ?? secondStageInput(pending, walk.spa),
      stage2: pending.map(cell),
      fetch: null,
    });
  }
  return {
    walk,
    rows,
    columns: rows.reduce((most, row) => Math.max(most, row.stage2.length), 0),
    blame: walk.fault === null ? null : blameOf(walk),
  };
}

/** Whose entry a second-stage walk that failed was to fetch: a process directory's comes after the device context, before the first stage. */
function servedTable(walk: Walk, before: WalkRow | undefined): "PDT" | "stage1" {
  if (walk.fault !== null && PDT_CAUSES.has(walk.fault.faultCause)) return "PDT";
  if (before?.table === "PDT") return before.level > 0 ? "PDT" : "stage1";
  if (before?.table !== "DDT" || before.fetch === null) return "stage1";
  return DEVICE_CONTEXT_BASE.get([before.fetch.entry], "PDTV") !== 0n ? "PDT" : "stage1";
}

/** The guest-physical address a guest-page fault is about (§4.2: bits 1:0 of iotval2 say what kind of access); null for other faults. */
function faultingAddress({ fault }: Walk): bigint | null {
  return fault === null || fault.iotval2 === 0n ? null : fault.iotval2 & ~3n;
}

/** The address the first stage gave: its leaf's page and the IOVA's bits below the leaf's reach; null without a first-stage leaf. */
function finalAddress(walk: Walk, row: WalkRow | undefined): bigint | null {
  if (row?.table !== "stage1" || row.fetch === null || (row.fetch.entry & 0xen) === 0n) return null;
  // Svnapot: a level-0 leaf with N reaches over 64 KiB, and its PPN's low bits say so instead of being an address.
  const napot = row.fetch.level === 0 && PTE.get([row.fetch.entry], "N") !== 0n;
  const reach = (1n << BigInt(napot ? 16 : 12 + 9 * row.fetch.level)) - 1n;
  return ((PTE.get([row.fetch.entry], "PPN") << 12n) & ~reach) | (walk.iova & reach);
}

/**
 * The guest-physical address that a second-stage walk translated, from the places its loads came from: bits 11:3 of each table address
 * are the index of that level (the root of SvNx4 is four pages, its index two bits wider). Bits below the leaf's reach come from
 * the result; null if the loads did not come to a leaf.
 */
function secondStageInput(loads: readonly WalkStep[], result: bigint | null): bigint | null {
  const leaf = loads.at(-1);
  if (leaf === undefined || (leaf.entry & 1n) === 0n || (leaf.entry & 0xen) === 0n) return null;
  const root = loads[0]!;
  let gpa = ((root.address & 0x3fffn) >> 3n) << BigInt(12 + 9 * root.level);
  for (const load of loads.slice(1)) gpa |= ((load.address & 0xfffn) >> 3n) << BigInt(12 + 9 * load.level);
  const reach = (1n << BigInt(12 + 9 * leaf.level)) - 1n;
  if (result === null) return gpa;
  return gpa | (result & reach);
}

function decodeEntry(step: WalkStep): string {
  if (step.text !== undefined) return step.text;
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

function blameOf(walk: Walk): string {
  const { faultCause, text } = walk.fault!;
  const last = walk.steps.at(-1);
  const { blame } = explainFault(faultCause);
  // The load that failed says more than the cause alone: an access fault in a second-stage table is the host's.
  const where =
    last === undefined
      ? "before any load"
      : last.table === "stage2"
        ? "stage 2"
        : last.table === "stage1"
          ? "stage 1"
          : last.table;
  const whose = last?.table === "stage2" ? "the host" : blame;
  return `${where}: ${whose}'s fault: ${text}`;
}

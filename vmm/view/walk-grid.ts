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
  /** "DDT 2", "stage 1 level 2", "final". */
  readonly label: string;
  readonly table: "DDT" | "PDT" | "stage1" | "MSI" | "final";
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
      gpa: secondStageInput(pending, step.address),
      stage2: pending.map(cell),
      fetch: cell(step),
    });
    pending = [];
  }
  if (pending.length > 0) {
    const serves = pending[0]!.serves;
    const label = serves === undefined || serves < 0 ? "final address" : `stage 1 level ${serves}`;
    const leaf = rows.at(-1);
    rows.push({
      label,
      table: "final",
      gpa: finalAddress(walk, leaf) ?? secondStageInput(pending, walk.spa),
      stage2: pending.map(cell),
      fetch: null,
    });
  }
  return {
    walk,
    rows,
    columns: Math.max(0, ...rows.map((row) => row.stage2.length)),
    blame: walk.fault === null ? null : blameOf(walk),
  };
}

/** The address the first stage gave: its leaf's page and the IOVA's bits below the leaf's reach; null without a first-stage leaf. */
function finalAddress(walk: Walk, row: WalkRow | undefined): bigint | null {
  if (row?.table !== "stage1" || row.fetch === null || (row.fetch.entry & 0xen) === 0n) return null;
  const reach = (1n << BigInt(12 + 9 * row.fetch.level)) - 1n;
  return ((PTE.get([row.fetch.entry], "PPN") << 12n) & ~reach) | (walk.iova & reach);
}

/**
 * The guest-physical address that a second-stage walk translated, from the places its loads came from: bits 11:3 of each table address
 * are the index of that level (the root of SvNx4 is four pages, its index two bits wider). Bits below the leaf's reach come from
 * the result; null if that is not known.
 */
function secondStageInput(loads: readonly WalkStep[], result: bigint | null): bigint | null {
  if (loads.length === 0) return null;
  const root = loads[0]!;
  let gpa = ((root.address & 0x3fffn) >> 3n) << BigInt(12 + 9 * root.level);
  for (const load of loads.slice(1)) gpa |= ((load.address & 0xfffn) >> 3n) << BigInt(12 + 9 * load.level);
  const reach = (1n << BigInt(12 + 9 * loads.at(-1)!.level)) - 1n;
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

// A nested walk as a grid: rows are first-stage levels (then the final address), columns second-stage levels (then the first-stage entry
// itself), each cell one load. Directory loads come before the grid. The failing load, the last one of a walk that faulted, carries the
// blame.

import type { Explainer } from "../viommu/explainer.ts";
import { explainerOf } from "../viommu/kinds.ts";
import { type Blame, blameOf, failedAtLast } from "./blame.ts";
import type { Walk, WalkStep } from "./walks.ts";

export interface WalkCell {
  readonly level: number;
  /** Number of the load's event. */
  readonly seq: number;
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
  /** A directory or "stage1" as walk events name them, or "final". */
  readonly table: string;
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

/** Arranges a walk's loads. */
export function walkGrid(walk: Walk): WalkGrid {
  const rows: WalkRow[] = [];
  let pending: WalkStep[] = [];
  const last = walk.steps.at(-1);
  const failing = failedAtLast(walk);
  const explainer = explainerOfWalk(walk);
  const cell = (step: WalkStep): WalkCell => ({
    level: step.level,
    seq: step.seq,
    spa: step.address,
    entry: step.entry,
    cached: step.cached,
    decoded: step.text ?? explainer.describeEntry(step),
    failing: failing && step === last,
  });
  for (const step of walk.steps) {
    if (step.table === "stage2") {
      pending.push(step);
      continue;
    }
    rows.push({
      label: tableLabel(step.table, step.level),
      table: step.table,
      level: step.level,
      gpa: explainer.stage2Input(pending, step.address),
      stage2: pending.map(cell),
      fetch: cell(step),
    });
    pending = [];
  }
  if (pending.length > 0) {
    const { serves } = pending[0]!;
    const before = walk.steps.findLast((step) => step.table !== "stage2") ?? null;
    const table = explainer.servedTable(before, walk.fault, serves);
    const level = table === "final" ? -1 : (serves ?? 0);
    const final = table === "final" && before?.table === "stage1" ? explainer.stage1Output(before, walk.iova) : null;
    const faulting = walk.fault === null ? null : explainer.faultAddress(walk.fault);
    rows.push({
      label: table === "final" ? "final address" : tableLabel(table, level),
      table,
      level,
      gpa: final ?? faulting ?? explainer.stage2Input(pending, walk.spa),
      stage2: pending.map(cell),
      fetch: null,
    });
  }
  return {
    walk,
    rows,
    columns: rows.reduce((most, row) => Math.max(most, row.stage2.length), 0),
    blame: failing ? blameText(walk) : null,
  };
}

const tableLabel = (table: string, level: number): string => `${table === "stage1" ? "stage 1" : table} level ${level}`;

/** The words of the kind whose walk it is. */
export function explainerOfWalk({ steps, fault }: Walk): Explainer {
  return explainerOf(steps[0]?.kind ?? fault?.kind);
}

const WORDS: Readonly<Record<Blame, string>> = {
  guest: "the guest",
  host: "the host",
  device: "the device",
  open: "the guest or the host",
  none: "nobody",
};

function blameText(walk: Walk): string {
  const table = walk.steps.at(-1)?.table ?? "before any load";
  const where = table.replace(/^stage(\d)$/, "stage $1");
  return `${where}: ${WORDS[blameOf(walk)]}'s fault: ${walk.fault?.text ?? "aborted, and nothing recorded"}`;
}

// A walk grid as text for a terminal: a table as wide as the terminal allows, or a list where it does not fit. Colours on request.

import Table from "cli-table3";
import pico from "picocolors";
import { hex } from "../../host/base/address.ts";
import { explainerOfWalk, type WalkCell, type WalkGrid, type WalkRow } from "./walk-grid.ts";

export interface TextOptions {
  /** Columns of the terminal. */
  readonly width: number;
  readonly colours: boolean;
}

/** Widest text of a cell, plus its borders. */
const CELL_WIDTH = 30;

export function walkText(grid: WalkGrid, options: TextOptions): string {
  const paint = pico.createColors(options.colours);
  const { walk } = grid;
  const pasid = walk.pasid === null ? "" : ` pasid ${walk.pasid}`;
  const lines = [
    `device ${hex(walk.deviceId)}${pasid} ${walk.write ? "writes" : "reads"} IOVA ${hex(walk.iova)}  (event ${walk.seq}, ${walk.time} ns)`,
  ];
  if (grid.rows.length === 0) {
    lines.push(walk.fault === null ? "no table was loaded: IOTLB hit, or no translation" : "no table was loaded");
  } else if (22 + (grid.columns + 1) * CELL_WIDTH <= options.width) {
    lines.push(asTable(grid, paint));
  } else {
    lines.push(...asList(grid, paint));
  }
  if (walk.spa !== null) lines.push(paint.green(`-> SPA ${hex(walk.spa)}`));
  if (grid.blame !== null) lines.push(paint.red(`-> ${grid.blame}`));
  return lines.join("\n");
}

/** Why the walk failed, in sentences with the section; null if it did not. */
export function whyText(grid: WalkGrid): string | null {
  const { fault } = grid.walk;
  if (fault === null) return null;
  const explainer = explainerOfWalk(grid.walk);
  const { name, blame, why, section } = explainer.explainFault(fault.faultCause, fault);
  return `${name ?? `Cause ${fault.faultCause}`}, at ${blame}'s door. ${why} (${explainer.specification} ${section})`;
}

type Paint = ReturnType<typeof pico.createColors>;

function cellText(cell: WalkCell, paint: Paint): string {
  const place = `spa ${hex(cell.spa)}${cell.cached ? " hit" : ""}`;
  const text = `${place}\n${cell.decoded}`;
  return cell.failing
    ? text
        .split("\n")
        .map((line) => paint.red(line))
        .join("\n")
    : text;
}

function rowLabel(row: WalkRow): string {
  return row.gpa === null ? row.label : `${row.label}\ngpa ${hex(row.gpa)}`;
}

function asTable(grid: WalkGrid, paint: Paint): string {
  const head = ["stage 1 down, stage 2 right"];
  // A walk that ends at a superpage has no column for the levels below.
  const widest = grid.rows.find((row) => row.stage2.length === grid.columns);
  for (const { level } of widest?.stage2 ?? []) head.push(`stage 2 level ${level}`);
  head.push("entry");
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const row of grid.rows) {
    const cells = row.stage2.map((cell) => cellText(cell, paint));
    while (cells.length < grid.columns) cells.push("");
    table.push([rowLabel(row), ...cells, row.fetch === null ? "" : cellText(row.fetch, paint)]);
  }
  return table.toString();
}

function asList(grid: WalkGrid, paint: Paint): string[] {
  const lines: string[] = [];
  for (const row of grid.rows) {
    lines.push(rowLabel(row).replace("\n", "  "));
    for (const cell of row.stage2) {
      lines.push(`    stage 2 level ${cell.level}: ${cellText(cell, paint).replace("\n", "  ")}`);
    }
    if (row.fetch !== null) lines.push(`    entry: ${cellText(row.fetch, paint).replace("\n", "  ")}`);
  }
  return lines;
}

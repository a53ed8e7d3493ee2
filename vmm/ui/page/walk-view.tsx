// A nested walk as a grid: a row for each entry of the guest's (then the address itself), a column for each of the host's that leads to it. Each cell
// is one load. Cells are buttons: the one that is chosen is taken apart beside the grid.

import { useEffect, useRef } from "preact/hooks";
import { hex } from "../../../host/base/address.ts";
import type { Verdict } from "../../view/verdict.ts";
import type { WalkCell, WalkGrid, WalkRow } from "../../view/walk-grid.ts";
import { showIn } from "./show-in.ts";

interface Props {
  readonly grid: WalkGrid;
  readonly verdict: Verdict | null;
  /** The event shown: loads after it have not happened yet. Infinity: all have. */
  readonly upTo: number;
  readonly chosen: number | null;
  readonly choose: (cell: WalkCell, row: WalkRow) => void;
  /** Entries of the grid beside this one, by place: those that differ are marked. */
  readonly other: ReadonlyMap<string, bigint> | null;
}

/** Where a cell stands, to compare grids by. */
export const placeOf = (row: WalkRow, level: number | "entry"): string => `${row.table} ${row.level} ${level}`;

export function entriesByPlace(grid: WalkGrid): ReadonlyMap<string, bigint> {
  const entries = new Map<string, bigint>();
  for (const row of grid.rows) {
    for (const cell of row.stage2) entries.set(placeOf(row, cell.level), cell.entry);
    if (row.fetch !== null) entries.set(placeOf(row, "entry"), row.fetch.entry);
  }
  return entries;
}

const LABELS: Readonly<Record<string, string>> = { stage1: "stage 1", final: "final address" };

export function WalkTable({ grid, verdict, upTo, chosen, choose, other }: Props) {
  // On a narrow screen: the cell that matters, in sight.
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const cell = box.current?.querySelector<HTMLElement>(".cell.failing, .cell.chosen");
    if (cell !== null && cell !== undefined) showIn(box.current!, cell);
  }, [grid, chosen]);
  if (grid.rows.length === 0) {
    const text =
      grid.walk.fault !== null
        ? "No table was read: the access was refused before any load."
        : grid.walk.spa === null
          ? "No table was read."
          : "No table was read: the hardware remembered this translation (IOTLB hit).";
    return <p class="nothing">{text}</p>;
  }
  const widest = grid.rows.find((row) => row.stage2.length === grid.columns);
  const cell = (one: WalkCell, row: WalkRow, place: number | "entry") => (
    <Cell
      cell={one}
      verdict={one.failing ? verdict : null}
      when={one.seq > upTo ? "later" : one.seq === upTo ? "now" : "done"}
      chosen={chosen === one.seq}
      differs={(other?.get(placeOf(row, place)) ?? one.entry) !== one.entry}
      choose={() => choose(one, row)}
    />
  );
  return (
    <div class="grid-scroll" ref={box}>
      <table class="walk">
        <thead>
          <tr>
            <th scope="col">
              <span class="muted">guest ↓ host →</span>
            </th>
            {(widest?.stage2 ?? []).map(({ level }) => (
              <th scope="col" key={level}>
                stage 2 level {level}
              </th>
            ))}
            <th scope="col">the entry itself</th>
          </tr>
        </thead>
        <tbody>
          {grid.rows.map((row, n) => (
            <tr key={n} class={row.table === "stage1" || row.table === "final" ? "" : "directory"}>
              <th scope="row">
                <span>{rowName(row)}</span>
                {row.gpa === null ? null : <code title="guest-physical address">gpa {hex(row.gpa)}</code>}
              </th>
              {Array.from({ length: row.stage2.length === 0 ? 0 : grid.columns }, (_, column) => {
                const one = row.stage2[column];
                return <td key={column}>{one === undefined ? null : cell(one, row, one.level)}</td>;
              })}
              {/* What no second-stage load leads to stands at once behind its name. */}
              <td class="entry" colSpan={row.stage2.length === 0 ? grid.columns + 1 : 1}>
                {row.fetch === null ? null : cell(row.fetch, row, "entry")}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function rowName({ table, level }: WalkRow): string {
  const name = LABELS[table] ?? table;
  return table === "final" ? name : `${name} level ${level}`;
}

interface CellProps {
  readonly cell: WalkCell;
  readonly verdict: Verdict | null;
  readonly when: "done" | "now" | "later";
  readonly chosen: boolean;
  readonly differs: boolean;
  readonly choose: () => void;
}

const SHORT: Readonly<Record<Verdict["blame"], string>> = {
  guest: "guest's fault",
  host: "host's fault",
  device: "device's fault",
  open: "guest's or host's fault",
  none: "",
};

function Cell({ cell, verdict, when, chosen, differs, choose }: CellProps) {
  const classes = ["cell", when, cell.failing ? "failing" : "", chosen ? "chosen" : "", differs ? "differs" : ""];
  const marks = [cell.cached ? "remembered, not loaded" : "", differs ? "differs from the other side" : ""];
  const label = [
    `level ${cell.level}, loaded from ${hex(cell.spa)}: ${cell.decoded}`,
    ...marks.filter((mark) => mark !== ""),
    verdict === null ? "" : `${SHORT[verdict.blame]}. ${verdict.why} ${verdict.way.join("; ")}`,
  ].join(". ");
  const [, flags, rest] = /^(\S+(?: [A-Z]{1,3}(?= |$))*) ?(.*)$/.exec(cell.decoded) ?? ["", cell.decoded, ""];
  return (
    <button type="button" class={classes.join(" ")} aria-pressed={chosen} aria-label={label} onClick={choose}>
      <span class="bits">{flags}</span>
      <span class="rest">{rest}</span>
      <span class="address">
        {hex(cell.spa)}
        {cell.cached ? <em> cached</em> : null}
        {differs ? <em> ≠</em> : null}
      </span>
      {verdict === null || when === "later" ? null : (
        <span class="whose">
          ✕ {SHORT[verdict.blame]}
          <small>→ {verdict.heard ? "goes to the guest" : "the guest hears nothing"}</small>
        </span>
      )}
    </button>
  );
}

// The events as a list, a line each, of which only those in sight are made: of a million as of a hundred. Above it the filter, in the same words as
// `nestbox trace`.

import { useEffect, useRef, useState } from "preact/hooks";
import { FILTER_HELP } from "../../view/trace-filter.ts";
import { EVENT_TYPES, eventAt, FLAG_FAILED, type TraceColumns } from "../../view/trace-index.ts";
import { bodyText } from "../../view/trace-text.ts";

const LINE = 22;
const SHOWN = 14;
/** Pixels that an element may be high in every browser. */
const HIGHEST = 8_000_000;

interface Props {
  readonly columns: TraceColumns;
  readonly row: number;
  readonly filter: string;
  readonly setFilter: (text: string) => void;
  readonly problem: string | null;
  /** Rows that fit the filter, ascending; null: all. */
  readonly rows: Uint32Array | null;
  readonly go: (row: number) => void;
}

export function EventList({ columns, row, filter, setFilter, problem, rows, go }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const count = rows?.length ?? columns.rows;
  const scale = Math.min(1, HIGHEST / Math.max(1, count * LINE));
  const first = Math.max(0, Math.min(count - SHOWN, Math.floor(top / scale / LINE)));
  const place = rows === null ? row : placeIn(rows, row);
  useEffect(() => {
    const element = box.current!;
    const line = place * LINE * scale;
    if (line < element.scrollTop || line > element.scrollTop + (SHOWN - 2) * LINE)
      element.scrollTop = Math.max(0, line - (SHOWN / 2) * LINE * scale);
  }, [place, scale]);
  const shown = Array.from({ length: Math.max(0, Math.min(SHOWN + 1, count - first)) }, (_, n) =>
    rows === null ? first + n : rows[first + n]!,
  );
  return (
    <section class="card events" aria-label="Events">
      <header>
        <h2>Events</h2>
        <span class="muted">{rows === null ? `${count}` : `${count} of ${columns.rows}`}</span>
      </header>
      <label class="filter">
        <span class="hidden">Filter</span>
        <input
          type="search"
          value={filter}
          placeholder="type:fault iova:0x4000 text…"
          aria-label={`Filter events. ${FILTER_HELP}`}
          title={FILTER_HELP}
          onInput={(event) => setFilter(event.currentTarget.value)}
          spellcheck={false}
        />
      </label>
      {problem === null ? null : (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <div
        ref={box}
        class="lines"
        style={{ height: `${Math.min(SHOWN, Math.max(3, count)) * LINE}px` }}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <div style={{ height: `${Math.max(1, count * LINE * scale)}px` }}>
          <ol style={{ transform: `translateY(${scale === 1 ? first * LINE : top}px)` }}>
            {shown.map((at) => (
              <li key={at}>
                <button
                  type="button"
                  tabIndex={-1}
                  class={`${at === row ? "here" : ""} ${(columns.flags[at]! & FLAG_FAILED) === 0 ? "" : "failed"}`}
                  aria-current={at === row ? "true" : undefined}
                  onClick={() => go(at)}
                >
                  <span class="number">{columns.seq[at]}</span>
                  <span class="type">{EVENT_TYPES[columns.type[at]!]}</span>
                  <span class="text">{bodyText(eventAt(columns, at))}</span>
                </button>
              </li>
            ))}
          </ol>
        </div>
      </div>
    </section>
  );
}

/** Where a row is, or would be, among ascending rows. */
function placeIn(rows: Uint32Array, row: number): number {
  let low = 0;
  for (let high = rows.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if (rows[middle]! < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

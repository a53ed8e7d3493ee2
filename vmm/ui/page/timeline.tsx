// The whole run on one line of lanes, one lane a type of event, drawn on a canvas so that a million events are no more work than a thousand. Events
// stand in their order: many happen at one instant of virtual time. The events' list says the same for those who do not see it. Where one stands is an
// element of its own above the canvas: a step moves it, and draws nothing.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { EVENT_TYPES, FLAG_FAILED, type TraceColumns } from "../../view/trace-index.ts";
import type { Chapter } from "../run/recording.ts";

const LANE = 15;
const TOP = 16;
const LEFT = 76;
const LANE_NAMES: Readonly<Record<(typeof EVENT_TYPES)[number], string>> = {
  step: "step",
  store: "store",
  mmio: "register",
  command: "command",
  ioctl: "ioctl",
  attach: "attach",
  group: "group",
  dma: "DMA",
  walk: "walk",
  fault: "fault",
  irq: "interrupt",
  injection: "injection",
};
/** What is told of only where it happens. */
const SHOWN_IF_ANY = new Set(["step", "store", "group", "injection"]);

interface Props {
  readonly columns: TraceColumns;
  readonly chapters: readonly Chapter[];
  readonly row: number;
  /** 1: the event fits the filter. Null: all do. */
  readonly matches: Uint8Array | null;
  readonly go: (row: number) => void;
  readonly dark: boolean;
}

export function Timeline({ columns, chapters, row, matches, go, dark }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [view, setView] = useState<readonly [from: number, to: number]>([0, columns.rows]);
  const lanes = useMemo(
    () => EVENT_TYPES.filter((type, n) => !SHOWN_IF_ANY.has(type) || columns.type.includes(n)),
    [columns],
  );
  const height = TOP + lanes.length * LANE + 4;

  useEffect(() => setView([0, columns.rows]), [columns]);
  useEffect(() => {
    const element = canvas.current!;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry!.contentRect.width)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  // What is looked at stays in view.
  useEffect(() => {
    setView((now) => {
      const [from, to] = now;
      if (row >= from && row < to) return now;
      const span = to - from;
      const start = Math.max(0, Math.min(columns.rows - span, row - Math.floor(span / 2)));
      return [start, start + span];
    });
  }, [row]);
  useEffect(() => {
    if (width > 0) draw(canvas.current!, { columns, chapters, matches, view, lanes, width, height });
  }, [columns, chapters, matches, view, width, height, dark]);

  const rowAt = (x: number): number => {
    const [from, to] = view;
    const part = (x - LEFT) / Math.max(1, width - LEFT);
    return Math.max(0, Math.min(columns.rows - 1, Math.floor(from + part * (to - from))));
  };
  const zoom = (factor: number, around: number): void => {
    const [from, to] = view;
    // Whole events: one that is cut at the edge would be in sight and not.
    const span = Math.round(Math.max(16, Math.min(columns.rows, (to - from) * factor)));
    const wanted = Math.round(around - ((around - from) / (to - from)) * span);
    const start = Math.max(0, Math.min(columns.rows - span, wanted));
    setView([start, start + span]);
  };
  const pan = (by: 1 | -1): void => {
    const [from, to] = view;
    const span = to - from;
    const start = Math.max(0, Math.min(columns.rows - span, from + by * Math.ceil(span / 2)));
    setView([start, start + span]);
  };
  /** The event of a lane that is nearest to where somebody pointed; between lanes, whatever is there. */
  const nearest = (event: MouseEvent): number => {
    const { left, top } = canvas.current!.getBoundingClientRect();
    const middle = rowAt(event.clientX - left);
    const lane = lanes[Math.floor((event.clientY - top - TOP) / LANE)];
    if (lane === undefined || event.clientX - left < LEFT) return middle;
    const reach = Math.ceil(((view[1] - view[0]) / Math.max(1, width - LEFT)) * 6);
    const wanted = EVENT_TYPES.indexOf(lane);
    for (let off = 0; off <= reach; off++) {
      for (const at of [middle + off, middle - off]) if (columns.type[at] === wanted) return at;
    }
    return middle;
  };
  const [from, to] = view;
  const isAll = to - from >= columns.rows;
  return (
    <section class="card timeline" aria-label="Timeline">
      <header>
        <h2>Timeline</h2>
        <span class="muted">{isAll ? "" : `events ${columns.seq[from]} to ${columns.seq[to - 1]}`}</span>
        <span class="grow" />
        <button type="button" class="small" disabled={from <= 0} onClick={() => pan(-1)} aria-label="Earlier events">
          ‹
        </button>
        <button
          type="button"
          class="small"
          disabled={to >= columns.rows}
          onClick={() => pan(1)}
          aria-label="Later events"
        >
          ›
        </button>
        <button type="button" class="small" onClick={() => zoom(0.5, row)} aria-label="Zoom in">
          +
        </button>
        <button type="button" class="small" disabled={isAll} onClick={() => zoom(2, row)} aria-label="Zoom out">
          −
        </button>
        <button type="button" class="small" disabled={isAll} onClick={() => setView([0, columns.rows])}>
          all
        </button>
      </header>
      <div class="lanes">
        <canvas
          ref={canvas}
          height={height}
          style={{ height: `${height}px` }}
          role="img"
          aria-label={`${columns.rows} events; event ${columns.seq[row]} is shown. The list of events has the same.`}
          onClick={(event) => go(nearest(event))}
          onWheel={(event) => {
            if (!event.ctrlKey && !event.shiftKey) return;
            event.preventDefault();
            zoom(event.deltaY > 0 ? 1.3 : 1 / 1.3, rowAt(event.offsetX));
          }}
        />
        {row < from || row >= to ? null : (
          <div class="cursor" style={{ left: `${LEFT + ((row + 0.5 - from) / (to - from)) * (width - LEFT)}px` }} />
        )}
      </div>
    </section>
  );
}

interface Drawing {
  readonly columns: TraceColumns;
  readonly chapters: readonly Chapter[];
  readonly matches: Uint8Array | null;
  readonly view: readonly [number, number];
  readonly lanes: readonly (typeof EVENT_TYPES)[number][];
  readonly width: number;
  readonly height: number;
}

function draw(canvas: HTMLCanvasElement, drawing: Drawing): void {
  const { columns, chapters, matches, view, lanes, width, height } = drawing;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const paint = canvas.getContext("2d");
  if (paint === null) return;
  paint.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const [ink, faint, line, accent, bad] = ["--ink", "--ink-3", "--line", "--accent", "--bad"].map(colour);
  const [from, to] = view;
  const scale = (width - LEFT) / Math.max(1, to - from);
  const x = (at: number): number => LEFT + (at - from) * scale;
  const laneOf = new Int8Array(EVENT_TYPES.length).fill(-1);
  lanes.forEach((type, n) => {
    laneOf[EVENT_TYPES.indexOf(type)] = n;
  });
  paint.font = `11px ${style.fontFamily}`;
  paint.textBaseline = "middle";
  paint.lineWidth = 1;
  lanes.forEach((type, n) => {
    const y = TOP + n * LANE + LANE / 2;
    paint.fillStyle = ink!;
    paint.fillText(LANE_NAMES[type], 0, y);
    paint.strokeStyle = line!;
    paint.beginPath();
    paint.moveTo(LEFT, Math.round(y) + 0.5);
    paint.lineTo(width, Math.round(y) + 0.5);
    paint.stroke();
  });
  // Where chapters begin.
  let edge = LEFT;
  chapters.forEach(({ before }, n) => {
    let at = 0;
    for (let low = 0, high = columns.rows; low < high; ) {
      const middle = (low + high) >>> 1;
      if (columns.seq[middle]! <= before) at = low = middle + 1;
      else high = middle;
    }
    const px = Math.round(x(at)) + 0.5;
    if (px < LEFT || px > width) return;
    paint.strokeStyle = faint!;
    paint.setLineDash([2, 3]);
    paint.beginPath();
    paint.moveTo(px, 2);
    paint.lineTo(px, height);
    paint.stroke();
    paint.setLineDash([]);
    if (px < edge) return;
    paint.fillStyle = faint!;
    paint.fillText(`${n + 1}`, px + 4, 8);
    edge = px + 18;
  });
  // One mark a pixel and lane: what failed is drawn over what did not, and what fits the filter over what does not.
  const first = Math.max(0, Math.floor(from));
  const last = Math.min(columns.rows, Math.ceil(to));
  const mark = Math.max(1.5, Math.min(6, scale * 0.7));
  const passes = [false, true].flatMap((failed) => (matches === null ? [1] : [0, 1]).map((fits) => ({ failed, fits })));
  const drawn = passes.map(() => new Float64Array(lanes.length).fill(-10));
  const marks: number[][] = passes.map(() => []);
  for (let at = first; at < last; at++) {
    const lane = laneOf[columns.type[at]!]!;
    if (lane < 0) continue;
    const failed = (columns.flags[at]! & FLAG_FAILED) !== 0;
    const pass = matches === null ? Number(failed) : 2 * Number(failed) + matches[at]!;
    const px = x(at);
    if (px - drawn[pass]![lane]! < 1) continue;
    drawn[pass]![lane] = px;
    marks[pass]!.push(lane, px);
  }
  passes.forEach(({ failed, fits }, pass) => {
    paint.fillStyle = fits === 0 ? line! : failed ? bad! : accent!;
    const list = marks[pass]!;
    for (let i = 0; i < list.length; i += 2) {
      const y = TOP + list[i]! * LANE;
      const px = list[i + 1]!;
      if (!failed) {
        paint.fillRect(px, y + 3, mark, LANE - 6);
        continue;
      }
      // A shape of its own: colour alone tells nobody anything.
      paint.beginPath();
      paint.moveTo(px - 2, y + 1);
      paint.lineTo(px + 6, y + LANE / 2);
      paint.lineTo(px - 2, y + LANE - 1);
      paint.fill();
    }
  });
}

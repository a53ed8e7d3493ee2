// The trace as JSON Lines. First line: {"nestbox-trace":2}, the format's version. Then one event a line, keys in this order: seq,
// time (ns), cause, type, and the event's own fields. 64-bit values are "0x…" strings, everything else JSON numbers and strings.
// The same run gives the same bytes.

import type { TracedEvent, TraceSink } from "./trace.ts";
import { checkedEvent, eventProblem } from "./trace-shape.ts";

/** What is written. A reader takes version 1, too: it is the same with fewer types. */
export const TRACE_VERSION = 2;

/** The version that a trace's first line says. Throws TraceFormatError for what is none that can be read. */
export function versionOf(header: unknown): number {
  const version = (header as { "nestbox-trace"?: unknown } | null)?.["nestbox-trace"];
  if (version === 1 || version === TRACE_VERSION) return version;
  if (typeof version !== "number") throw new TraceFormatError("not a nestbox trace: its first line says no version");
  throw new TraceFormatError(`a nestbox trace of version ${version}; this reads versions 1 to ${TRACE_VERSION}`);
}

/** One event as one line, without the newline. */
export function traceLine(event: TracedEvent): string {
  return JSON.stringify(event, (_key, value: unknown) =>
    typeof value === "bigint" ? `0x${value.toString(16)}` : value,
  );
}

// Not state: what a run said is outside of the run.
/** Hands chunks of whole lines to `write`; call `end` to get the rest out. */
export class JsonLinesSink implements TraceSink {
  #chunk: string;
  readonly #write: (text: string) => void;

  constructor(write: (text: string) => void) {
    this.#write = write;
    this.#chunk = `{"nestbox-trace":${TRACE_VERSION}}\n`;
  }

  event(event: TracedEvent): void {
    this.#chunk += `${traceLine(event)}\n`;
    if (this.#chunk.length > 65536) this.#flush();
  }

  end(): void {
    this.#flush();
  }

  #flush(): void {
    if (this.#chunk !== "") this.#write(this.#chunk);
    this.#chunk = "";
  }
}

// Not state: what a run said is outside of the run.
/** Keeps the last `capacity` events, for explaining a failure. */
export class RecentEvents implements TraceSink {
  readonly #capacity: number;
  readonly #events: TracedEvent[] = [];
  #next = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  event(event: TracedEvent): void {
    this.#events[this.#next] = event;
    this.#next = (this.#next + 1) % this.#capacity;
  }

  /** Oldest first. */
  all(): TracedEvent[] {
    if (this.#events.length < this.#capacity) return [...this.#events];
    return [...this.#events.slice(this.#next), ...this.#events.slice(0, this.#next)];
  }
}

/** Why a trace file cannot be read: one line. */
export class TraceFormatError extends Error {}

/**
 * Events of a trace file, in order. Throws TraceFormatError with the line number for what is not one. A last line that was cut short (the
 * writer was killed, the disk was full) is told to `onCut` and ends the trace; without `onCut` it is an error as well.
 */
export function* parseTrace(text: string, onCut?: (line: number) => void): Generator<TracedEvent> {
  let line = 0;
  let version = 0;
  const lines = text.split("\n");
  for (const source of lines) {
    line++;
    if (source === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(source);
    } catch {
      // Whole lines end with a newline, so after the last one there is nothing.
      if (onCut !== undefined && line > 1 && line === lines.length) return onCut(line);
      throw new TraceFormatError(`line ${line} is not JSON`);
    }
    if (line === 1) {
      version = versionOf(value);
      continue;
    }
    const problem = eventProblem(value, version);
    if (problem !== null) throw new TraceFormatError(`line ${line} is not a trace event: ${problem}`);
    yield checkedEvent(value as object);
  }
}

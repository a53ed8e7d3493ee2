// A trace as the Chrome trace-event format, which the Perfetto viewer opens: one track per kind of event and its place, instants at virtual
// time, arrows from cause to effect.

import type { TracedEvent } from "../../host/base/trace.ts";

interface ChromeEvent {
  readonly name: string;
  readonly cat: string;
  readonly ph: "X" | "M" | "s" | "f";
  /** Microseconds. */
  readonly ts?: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly id?: number;
  readonly bp?: "e";
  readonly args?: Readonly<Record<string, unknown>>;
}

/**
 * The document as JSON text, in pieces: whole, it can be longer than a string can. Events have no width of their own; 100 ns, so that the
 * viewer shows them.
 */
export function* toPerfetto(events: Iterable<TracedEvent>): Generator<string> {
  yield '{"displayTimeUnit":"ns","traceEvents":[';
  let separator = "";
  for (const event of chromeEvents(events)) {
    const text = JSON.stringify(event, (_key, value: unknown) =>
      typeof value === "bigint" ? `0x${value.toString(16)}` : value,
    );
    yield `${separator}${text}`;
    separator = ",\n";
  }
  yield "]}\n";
}

function* chromeEvents(events: Iterable<TracedEvent>): Generator<ChromeEvent> {
  const tracks = new Map<string, number>();
  let out: ChromeEvent[] = [];
  const bySeq = new Map<number, { ts: number; tid: number }>();
  const track = (name: string): number => {
    let tid = tracks.get(name);
    if (tid === undefined) {
      tid = tracks.size + 1;
      tracks.set(name, tid);
      out.push({ name: "thread_name", cat: "", ph: "M", pid: 1, tid, args: { name } });
    }
    return tid;
  };
  for (const event of events) {
    const tid = track(trackOf(event));
    const ts = event.time / 1000;
    bySeq.set(event.seq, { ts, tid });
    const { seq, time: _time, cause, type, ...fields } = event;
    out.push({
      name: nameOf(event),
      cat: type,
      ph: "X",
      ts,
      dur: 0.1,
      pid: 1,
      tid,
      args: { seq, cause, ...fields },
    });
    const from = cause === 0 ? undefined : bySeq.get(cause);
    if (from !== undefined && from.tid !== tid) {
      out.push({ name: "cause", cat: "cause", ph: "s", id: seq, ts: from.ts, pid: 1, tid: from.tid });
      out.push({ name: "cause", cat: "cause", ph: "f", bp: "e", id: seq, ts, pid: 1, tid });
    }
    yield* out;
    out = [];
  }
}

function trackOf(event: TracedEvent): string {
  switch (event.type) {
    case "mmio":
      return "guest MMIO";
    case "store":
      return `guest stores of ${event.process}`;
    case "step":
      return "steps";
    case "command":
      return event.where === "guest" ? "guest command queue" : `host command queue ${event.iommu}`;
    case "ioctl":
      return `system calls of ${event.process}`;
    case "attach":
      return "host attachments";
    case "group":
      return `shared groups of ${event.iommu}`;
    case "walk":
      return `walks of ${event.iommu}`;
    case "dma":
      return `DMA of ${event.device}`;
    case "fault":
      return `${event.where} faults`;
    case "injection":
      return "injected failures";
    case "irq":
      return `${event.where} interrupts`;
  }
}

const CONTEXTS_OF_A_GROUP = { none: "no context", one: "one context", differ: "contexts differ" } as const;

function nameOf(event: TracedEvent): string {
  switch (event.type) {
    case "mmio":
      return `${event.write ? "store" : "load"} ${event.device}+0x${event.offset.toString(16)}`;
    case "store":
      return `store 0x${event.address.toString(16)}`;
    case "command":
    case "ioctl":
    case "step":
      return event.name;
    case "attach":
      return `${event.device}: ${event.domain}`;
    case "group":
      return `${event.group}: ${CONTEXTS_OF_A_GROUP[event.contexts]}`;
    case "walk":
      return `${event.table} level ${event.level}`;
    case "dma":
      return `${event.write ? "write" : "read"} 0x${event.iova.toString(16)}`;
    case "fault":
      return `cause ${event.faultCause}`;
    case "injection":
      return `${event.point} ${event.name}`;
    case "irq":
      return `${event.source} ${event.vector}`;
  }
}

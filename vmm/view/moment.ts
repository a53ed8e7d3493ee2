// What a moment of a trace is about: the walk that an event belongs to, and where a fault went from there. Looks around the event, never through
// the whole trace.

import type { TracedEvent } from "../../host/base/trace.ts";
import { EVENT_TYPES, eventAt, FLAG_GUEST, FLAG_HARDWARE, type TraceColumns } from "./trace-index.ts";
import { collectWalks, type Walk } from "./walks.ts";

const DMA = EVENT_TYPES.indexOf("dma");
const WALK = EVENT_TYPES.indexOf("walk");
const FAULT = EVENT_TYPES.indexOf("fault");
const IRQ = EVENT_TYPES.indexOf("irq");

/** How far from an event its walk's ends, and a fault's consequences, are looked for. */
const REACH = 4096;
const CONSEQUENCES = 400;
/** Hits of one page that are gone through to find the walk before them. */
const MOST_LOOKED = 256;

export interface MomentWalk {
  readonly walk: Walk;
  /** Row of the DMA (or fault) that ended it. */
  readonly row: number;
  /** False: the event has no walk of its own; this is the last one before it. */
  readonly own: boolean;
}

const isDma = ({ type }: TraceColumns, row: number): boolean => type[row] === DMA;
const isLoad = ({ type, flags }: TraceColumns, row: number): boolean =>
  type[row] === WALK && (flags[row]! & FLAG_GUEST) === 0;
const isHardwareFault = ({ type, flags }: TraceColumns, row: number): boolean =>
  type[row] === FAULT && (flags[row]! & FLAG_HARDWARE) !== 0;

/** The walk that the event of a row is part of, or a consequence of; else the last before it; null if there is none. */
export function walkAt(columns: TraceColumns, row: number): MomentWalk | null {
  for (let at = row, hops = 0; at >= 0 && hops < 32; at = columns.cause[at]!, hops++) {
    if (!isDma(columns, at) && !isLoad(columns, at) && !isHardwareFault(columns, at)) continue;
    const end = isDma(columns, at) ? at : dmaAfter(columns, at);
    return { walk: walkEndingAt(columns, end ?? at)!, row: end ?? at, own: true };
  }
  for (let at = row; at >= Math.max(0, row - REACH); at--) {
    if (isDma(columns, at)) return { walk: walkEndingAt(columns, at)!, row: at, own: false };
  }
  return null;
}

/** The device's next DMA: what loads and faults were for. */
function dmaAfter(columns: TraceColumns, row: number): number | null {
  const device = columns.deviceId[row];
  for (let at = row + 1; at < Math.min(columns.rows, row + REACH); at++) {
    if (isDma(columns, at) && columns.deviceId[at] === device) return at;
  }
  return null;
}

function walkEndingAt(columns: TraceColumns, end: number): Walk | null {
  const device = columns.deviceId[end];
  const events: TracedEvent[] = [eventAt(columns, end)];
  for (let at = end - 1; at >= Math.max(0, end - REACH); at--) {
    if (columns.deviceId[at] !== device) continue;
    if (isDma(columns, at)) break;
    if (isLoad(columns, at) || isHardwareFault(columns, at)) events.unshift(eventAt(columns, at));
  }
  const made = collectWalks(events).at(-1);
  if (made !== undefined) return made;
  // Loads without an end: the trace was cut off, or nothing came of an ATS request.
  const first = events.find((event) => event.type === "walk");
  if (first?.type !== "walk") return null;
  return {
    ...{ iommu: first.iommu, deviceId: first.deviceId, pasid: null, iova: first.input ?? 0n, write: false },
    ...{ seq: first.seq, time: first.time, spa: null, fault: null, result: null },
    steps: events.filter((event) => event.type === "walk"),
  };
}

/** Row of the DMA whose walk a DMA without one was remembered from: the last before it to its page that loaded tables; null: none, or it is no such DMA. */
export function filledAt(columns: TraceColumns, { walk, row }: MomentWalk): number | null {
  if (walk.steps.length > 0 || walk.fault !== null || walk.result !== "ok") return null;
  const { deviceId, page } = columns;
  for (let at = row - 1, looked = 0; at >= 0 && looked < MOST_LOOKED; at--) {
    if (!isDma(columns, at) || deviceId[at] !== deviceId[row] || page[at] !== page[row]) continue;
    looked++;
    if (walkEndingAt(columns, at)?.steps.length) return at;
  }
  return null;
}

/** The faults and interrupts that follow from a hardware fault record, in order: its way to the guest. */
export function consequencesOf(columns: TraceColumns, faultRow: number): TracedEvent[] {
  const rows = new Set([faultRow]);
  const events: TracedEvent[] = [];
  for (let at = faultRow + 1; at < Math.min(columns.rows, faultRow + CONSEQUENCES); at++) {
    if (!rows.has(columns.cause[at]!)) continue;
    rows.add(at);
    if (columns.type[at] === FAULT || columns.type[at] === IRQ) events.push(eventAt(columns, at));
  }
  return events;
}

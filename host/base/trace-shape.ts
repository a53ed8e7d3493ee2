// What each type of trace event must hold, as a table: a trace file is a document from anywhere, and who reads one relies on this.

import { isPrintable } from "./printable.ts";
import type { TracedEvent, TraceEvent, TraceEventType } from "./trace.ts";

/** `wide`: a 64-bit value as a text, "0x…"; `words`: a list of them; `values`: names with numbers or texts. */
export type FieldKind = "text" | "whole" | "flag" | "wide" | "words" | "values";
/** With a "?" where it may be left out; a list: one of these texts. */
export type FieldShape = FieldKind | `${FieldKind}?` | readonly string[];

/** Fields of an event type. */
type Shape<T extends TraceEventType> = {
  readonly [F in Exclude<keyof Extract<TraceEvent, { type: T }>, "type">]-?: FieldShape;
};

/** Highest table level: no directory or page table has more than five. */
export const LAST_LEVEL = 4;
/** Most that a `covers` can say: all of an address. */
export const MOST_COVERED = 64;

export const EVENT_SHAPES: { readonly [T in TraceEventType]: Shape<T> } = {
  mmio: {
    device: "text",
    offset: "whole",
    size: "whole",
    write: "flag",
    value: "wide",
    register: "text?",
  },
  store: { process: "text", address: "wide", value: "wide" },
  step: { name: "text" },
  command: { where: ["guest", "host"], iommu: "text", name: "text", words: "words", text: "text" },
  ioctl: { process: "text", fd: "whole", name: "text", result: "whole", fields: "values" },
  attach: { device: "text", group: "whole?", pasid: "whole?", domain: "text", detail: "text" },
  walk: {
    where: ["host", "guest"],
    iommu: "text",
    deviceId: "whole",
    kind: "text?",
    table: "text",
    level: "whole",
    space: ["spa", "gpa"],
    address: "wide",
    entry: "wide",
    cached: "flag",
    serves: "whole?",
    covers: "whole?",
    input: "wide?",
    text: "text?",
  },
  dma: {
    device: "text",
    deviceId: "whole",
    pasid: "whole?",
    iova: "wide",
    spa: "wide?",
    length: "whole",
    write: "flag",
    result: ["ok", "aborted", "msi", "stalled"],
  },
  fault: {
    where: ["hardware", "kernel", "guest"],
    iommu: "text",
    kind: "text?",
    faultCause: "whole",
    deviceId: "whole",
    pasid: "whole?",
    iotval: "wide",
    iotval2: "wide",
    ttyp: "whole",
    text: "text",
    words: "words?",
  },
  group: { iommu: "text", group: "text", contexts: ["none", "one", "differ"], devices: "text", withheld: "text" },
  injection: { point: "text", name: "text", rule: "text" },
  irq: { where: ["host", "vfio", "guest"], source: "text", vector: "whole" },
};

type Check = (value: unknown) => boolean;

const WIDE_TEXT = /^0x[0-9a-f]{1,16}$/;
const isText: Check = (value) => typeof value === "string" && isPrintable(value);
const CHECKS: Readonly<Record<FieldKind, Check>> = {
  // It is shown on terminals.
  text: isText,
  whole: Number.isSafeInteger,
  flag: (value) => typeof value === "boolean",
  wide: (value) => typeof value === "string" && WIDE_TEXT.test(value),
  words: (value) => Array.isArray(value) && value.every(CHECKS.wide),
  values: (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.entries(value).every(([name, item]) => isPrintable(name) && (typeof item === "number" || isText(item))),
};

/** Of each event type: its fields with what each must be, and those that are 64-bit values in "0x…" texts. */
interface CompiledShape {
  readonly fields: readonly (readonly [name: string, check: Check])[];
  readonly wide: readonly string[];
  readonly lists: readonly string[];
}

function compiled(shape: Readonly<Record<string, FieldShape>>): CompiledShape {
  const fields = Object.entries(shape).map(([name, kind]): readonly [string, Check] => {
    if (typeof kind !== "string") return [name, (value) => typeof value === "string" && kind.includes(value)];
    if (!kind.endsWith("?")) return [name, CHECKS[kind as FieldKind]];
    const check = CHECKS[kind.slice(0, -1) as FieldKind];
    return [name, (value) => value === undefined || check(value)];
  });
  const of = (kind: FieldKind): string[] =>
    Object.keys(shape).filter((name) => String(shape[name]).replace("?", "") === kind);
  return { fields, wide: of("wide"), lists: of("words") };
}

const COMPILED = new Map<unknown, CompiledShape>(
  Object.entries(EVENT_SHAPES).map(([type, shape]) => [type, compiled(shape as Parameters<typeof compiled>[0])]),
);

/** The event types, and the fields of each by name: what the page about the format must say. */
export const EVENT_FIELDS: ReadonlyMap<string, readonly string[]> = new Map(
  Object.entries(EVENT_SHAPES).map(([type, shape]) => [type, Object.keys(shape)]),
);

/** Types that a trace of version 1 has not. */
const SINCE_2: ReadonlySet<unknown> = new Set<TraceEventType>(["step", "store", "group"]);

/** Whether a trace of this version may hold events of this type. */
export const hasType = (version: number, type: unknown): boolean => version > 1 || !SINCE_2.has(type);

/** Why a value read from JSON, 64-bit values still texts, is no trace event, in a few words; null if it is one. */
export function eventProblem(value: unknown, version: number): string | null {
  if (typeof value !== "object" || value === null) return "no object";
  const event = value as Record<string, unknown>;
  for (const key of ["seq", "cause"]) if (!Number.isSafeInteger(event[key])) return `no ${key}`;
  if (typeof event.time !== "number") return "no time";
  const shape = COMPILED.get(event.type);
  if (shape === undefined) return "an unknown type";
  if (!hasType(version, event.type)) return `${event.type} is a type of version 2, and this is version ${version}`;
  for (const [name, check] of shape.fields) if (!check(event[name])) return `${event.type} without a proper ${name}`;
  if (event.type === "walk") {
    const { level, covers = 0 } = value as { readonly level: number; readonly covers?: number };
    if (!(level >= 0 && level <= LAST_LEVEL)) return "walk without a proper level";
    if (!(covers >= 0 && covers <= MOST_COVERED)) return "walk without a proper covers";
  }
  return null;
}

/** The event that a checked value is: its 64-bit values made bigints, in place. */
export function checkedEvent(value: object): TracedEvent {
  const event = value as Record<string, unknown>;
  const { wide, lists } = COMPILED.get(event.type)!;
  for (const name of wide) if (event[name] !== undefined) event[name] = BigInt(event[name] as string);
  for (const name of lists) if (event[name] !== undefined) event[name] = (event[name] as string[]).map(BigInt);
  return event as TracedEvent;
}

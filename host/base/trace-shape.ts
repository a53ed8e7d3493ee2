// What each type of trace event must hold, as a table: a trace file is a document from anywhere, and who reads one relies on this.

import { isPrintable } from "./printable.ts";
import type { TraceEvent, TraceEventType } from "./trace.ts";

type Kind = "text" | "whole" | "flag" | "wide" | "words" | "values";

/** Fields of an event type: kind of each, with a "?" where it may be left out. */
type Shape<T extends TraceEventType> = {
  readonly [F in Exclude<keyof Extract<TraceEvent, { type: T }>, "type">]-?: Kind | `${Kind}?` | readonly string[];
};

/** Table levels: no directory or page table has more than five. */
const LEVELS = 4;

const SHAPES: { readonly [T in TraceEventType]: Shape<T> } = {
  mmio: {
    device: "text",
    offset: "whole",
    size: "whole",
    write: "flag",
    value: "wide",
    register: "text?",
  },
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
  },
  group: { iommu: "text", group: "text", contexts: ["none", "one", "differ"], devices: "text", withheld: "text" },
  injection: { point: "text", name: "text", rule: "text" },
  irq: { where: ["host", "vfio", "guest"], source: "text", vector: "whole" },
};

/** Why a value read from JSON is no trace event, in a few words; null if it is one. */
export function eventProblem(value: unknown): string | null {
  if (typeof value !== "object" || value === null) return "no object";
  const event = value as Record<string, unknown>;
  for (const key of ["seq", "cause"]) if (!Number.isSafeInteger(event[key])) return `no ${key}`;
  if (typeof event.time !== "number") return "no time";
  const type = event.type as TraceEventType;
  if (typeof type !== "string" || !Object.hasOwn(SHAPES, type)) return "an unknown type";
  for (const [name, kind] of Object.entries<Kind | `${Kind}?` | readonly string[]>(SHAPES[type])) {
    if (!fits(event[name], kind)) return `${type} without a proper ${name}`;
  }
  if (event.type === "walk") {
    const { level, covers = 0 } = event as { readonly level: number; readonly covers?: number };
    if (!(level >= 0 && level <= LEVELS)) return "walk without a proper level";
    if (!(covers >= 0 && covers <= 64)) return "walk without a proper covers";
  }
  return null;
}

function fits(value: unknown, kind: Kind | `${Kind}?` | readonly string[]): boolean {
  switch (kind) {
    case "text":
      // It is shown on terminals.
      return typeof value === "string" && isPrintable(value);
    case "whole":
      return Number.isSafeInteger(value);
    case "flag":
      return typeof value === "boolean";
    case "wide":
      return typeof value === "bigint";
    case "words":
      return Array.isArray(value) && value.every((word) => typeof word === "bigint");
    case "values":
      return (
        typeof value === "object" &&
        value !== null &&
        Object.entries(value).every(
          ([name, item]) =>
            isPrintable(name) && (fits(item, "text") || typeof item === "number" || typeof item === "bigint"),
        )
      );
    default:
      if (typeof kind !== "string") return typeof value === "string" && kind.includes(value);
      return value === undefined || fits(value, kind.slice(0, -1) as Kind);
  }
}

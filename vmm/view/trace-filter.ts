// Which events of a trace to look at: by type, device, time and IOVA. One set of words for `nestbox trace` (options) and the page (a line):
//
//     type:dma,fault   device:00:01.0   time:2us..3.5us   iova:0x4000..0x5fff   anything else: part of a name
//
// `device` is the host's: its name, with or without the domain, or its id at its IOMMU (0x8, 00:01.0).

import { EVENT_TYPES, FLAG_GUEST, type TraceColumns } from "./trace-index.ts";

export interface TraceFilter {
  readonly types: ReadonlySet<string> | null;
  readonly device: string | null;
  /** ns, both ends included. */
  readonly time: readonly [from: number, to: number] | null;
  /** Page numbers, both ends included. */
  readonly pages: readonly [from: number, to: number] | null;
  /** In lower case: parts of names, all of which must be there. */
  readonly words: readonly string[];
}

export const FILTER_HELP =
  "type:dma,fault device:00:01.0 time:2us..3us iova:0x4000..0x5fff, other words are looked for in names";

/** What is wrong with a filter, in a line. */
export class FilterError extends Error {}

/** The parts as texts, undefined where nothing is asked. Throws FilterError. */
export function makeFilter(parts: {
  readonly type?: string | undefined;
  readonly device?: string | undefined;
  readonly time?: string | undefined;
  readonly iova?: string | undefined;
  readonly words?: readonly string[];
}): TraceFilter {
  const types = parts.type === undefined ? null : new Set(parts.type.split(","));
  for (const type of types ?? []) {
    if (!(EVENT_TYPES as readonly string[]).includes(type)) {
      throw new FilterError(`type: there is no "${type}"; there are ${EVENT_TYPES.join(", ")}`);
    }
  }
  return {
    types,
    device: parts.device?.toLowerCase() ?? null,
    time: parts.time === undefined ? null : range(parts.time, "time", nanoseconds),
    pages: parts.iova === undefined ? null : range(parts.iova, "iova", page),
    words: (parts.words ?? []).map((word) => word.toLowerCase()),
  };
}

/** A line as the page takes it; null for one that asks nothing. Throws FilterError. */
export function parseFilter(line: string): TraceFilter | null {
  const words = line.split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) return null;
  const parts: Record<string, string> = {};
  const rest: string[] = [];
  for (const word of words) {
    const match = /^(type|device|time|iova):(.+)$/.exec(word);
    if (match === null) rest.push(word);
    else parts[match[1]!] = match[2]!;
  }
  return makeFilter({ ...parts, words: rest });
}

const UNITS: Readonly<Record<string, number>> = { "": 1, ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9 };

function nanoseconds(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)(ns|us|µs|ms|s|)$/.exec(text);
  return match === null ? null : Number(match[1]) * UNITS[match[2]!]!;
}

function page(text: string): number | null {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,15})$/i.test(text)) return null;
  return Number(BigInt(text) >> 12n);
}

function range(text: string, name: string, read: (part: string) => number | null): readonly [number, number] {
  const [first, last, ...more] = text.split("..");
  const from = first === "" ? 0 : read(first!);
  const to = last === undefined ? from : last === "" ? Number.POSITIVE_INFINITY : read(last);
  const example = name === "time" ? "2us or 2us..3.5us" : "0x4000 or 0x4000..0x5fff";
  if (from === null || to === null || more.length > 0)
    throw new FilterError(`${name}: "${text}" is none; write ${example}`);
  return [from, to];
}

/** Says of rows of one trace whether they fit. */
export function matcher(filter: TraceFilter, columns: TraceColumns): (row: number) => boolean {
  const types = EVENT_TYPES.map((type) => filter.types === null || filter.types.has(type));
  const names = columns.names.map((name) => name.toLowerCase());
  const { device, time, pages } = filter;
  const isDevice = names.map((name) => device !== null && (name === device || name === `0000:${device}`));
  const id = device === null ? null : deviceNumber(device);
  // A word is in the name of who, of what, or of the type.
  const words = filter.words.map((word) => ({
    inName: names.map((name) => name.includes(word)),
    inType: EVENT_TYPES.map((type) => type.includes(word)),
  }));
  return (row) => {
    const type = columns.type[row]!;
    if (!types[type]) return false;
    if (time !== null && !(columns.time[row]! >= time[0] && columns.time[row]! <= time[1])) return false;
    if (pages !== null && !(columns.page[row]! >= pages[0] && columns.page[row]! <= pages[1])) return false;
    if (device !== null && !isDevice[columns.actor[row]!]) {
      // Ids in what the guest sees are the guest's.
      if (id === null || columns.deviceId[row] !== id || (columns.flags[row]! & FLAG_GUEST) !== 0) return false;
    }
    return words.every(
      ({ inName, inType }) => inName[columns.actor[row]!] || inName[columns.label[row]!] || inType[type],
    );
  };
}

/** Rows that fit, ascending. */
export function rowsThatFit(filter: TraceFilter, columns: TraceColumns): Uint32Array {
  const fits = matcher(filter, columns);
  const rows = new Uint32Array(columns.rows);
  let count = 0;
  for (let row = 0; row < columns.rows; row++) if (fits(row)) rows[count++] = row;
  return rows.slice(0, count);
}

/** The id that a device text names: a number, or a PCI address' requester id with its segment above. */
function deviceNumber(text: string): number | null {
  if (/^(0x[0-9a-f]{1,6}|\d{1,8})$/.test(text)) return Number(text);
  const match = /^(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/.exec(text);
  if (match === null) return null;
  const [segment, bus, slot] = [match[1] ?? "0", match[2]!, match[3]!].map((part) => Number.parseInt(part, 16));
  return (segment! << 16) | (bus! << 8) | (slot! << 3) | Number(match[4]);
}

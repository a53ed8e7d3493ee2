// A trace of any length as columns of numbers, one row an event, in the order of `seq`: what a timeline draws, a filter looks through and a step
// moves along, without an object an event. The text stays beside them; `eventAt` decodes one line when somebody looks at it.
//
// Every line is checked when the index is made (host/base/trace-shape.ts), so what is decoded later is what was checked. Columns are plain
// typed arrays: a worker makes them and hands them over.

import type { TracedEvent, TraceEventType } from "../../host/base/trace.ts";
import { TRACE_VERSION, TraceFormatError } from "../../host/base/trace-json.ts";
import { checkedEvent, eventProblem } from "../../host/base/trace-shape.ts";

/** In the order in which a DMA's story goes: what a timeline shows from top to bottom. */
export const EVENT_TYPES = [
  "step",
  "store",
  "mmio",
  "command",
  "ioctl",
  "attach",
  "group",
  "dma",
  "walk",
  "fault",
  "irq",
  "injection",
] as const satisfies readonly TraceEventType[];

const TYPE_NUMBER: ReadonlyMap<string, number> = new Map(EVENT_TYPES.map((type, index) => [type, index]));

/** Bits of `flags`. */
export const FLAG_GUEST = 1;
/** A store, or a DMA write. */
export const FLAG_WRITE = 2;
/** Something went wrong here: an aborted DMA, a refused call, a fault, an injection. */
export const FLAG_FAILED = 4;
/** A fault as the hardware recorded it. */
export const FLAG_HARDWARE = 8;
export const FLAG_CACHED = 16;

/** Names kept apart in one trace; what comes after is all "…". */
const MOST_NAMES = 65_535;
/** Bytes of a trace: positions in it are numbers of 32 bits. */
export const LONGEST_TRACE = 2 ** 32 - 1;
/** Bytes decoded at a time. */
const CHUNK = 2 ** 20;

export interface TraceColumns {
  readonly rows: number;
  /** The trace's text. */
  readonly bytes: Uint8Array;
  readonly seq: Float64Array;
  /** ns. */
  readonly time: Float64Array;
  /** Row of the cause; -1 none, or it is not in the trace. */
  readonly cause: Int32Array;
  /** Index in EVENT_TYPES. */
  readonly type: Uint8Array;
  readonly flags: Uint8Array;
  /** Who: a device, an IOMMU, a process; indexes of `names`. And what: a register, a command, a call, a table, a result. */
  readonly actor: Uint16Array;
  readonly label: Uint16Array;
  /** The IOMMU's id of the device; -1 where an event names none. */
  readonly deviceId: Int32Array;
  /** Page number of the IOVA an event is about; -1 none. */
  readonly page: Float64Array;
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  readonly names: readonly string[];
  /** Line at which the text was cut off; 0: it was not. */
  readonly cutAt: number;
}

/** Throws TraceFormatError with the line's number for what is no trace. `progress` is told of bytes read. */
export function indexTrace(bytes: Uint8Array, progress: (done: number) => void = () => {}): TraceColumns {
  if (bytes.length > LONGEST_TRACE) throw new TraceFormatError("longer than 4 GiB");
  const builder = new ColumnBuilder(bytes);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let at = 0;
  while (at < bytes.length) {
    // Whole lines: a chunk ends behind a newline, or with the text.
    let end = Math.min(at + CHUNK, bytes.length);
    if (end < bytes.length) {
      const newline = bytes.lastIndexOf(10, end - 1);
      end = newline >= at ? newline + 1 : bytes.indexOf(10, end) + 1 || bytes.length;
    }
    let text: string;
    try {
      text = decoder.decode(bytes.subarray(at, end));
    } catch {
      throw new TraceFormatError(`line ${builder.line + 1} or one soon after it is not UTF-8`);
    }
    builder.chunk(text, at, end === bytes.length);
    at = end;
    progress(at);
  }
  return builder.end();
}

/** The event of a row. */
export function eventAt({ bytes, start, length }: TraceColumns, row: number): TracedEvent {
  const from = start[row]!;
  return checkedEvent(JSON.parse(new TextDecoder().decode(bytes.subarray(from, from + length[row]!))) as object);
}

/** Row of the event with this number; -1 if there is none. */
export function rowOf({ seq, rows }: TraceColumns, wanted: number): number {
  let low = 0;
  let high = rows - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    if (seq[middle]! === wanted) return middle;
    if (seq[middle]! < wanted) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

type RawEvent = Readonly<Record<string, unknown>> & { readonly type: string; readonly seq: number };

/** Not state: of one trace that is being read. */
class ColumnBuilder {
  line = 0;
  readonly #bytes: Uint8Array;
  #capacity = 4096;
  #rows = 0;
  #cutAt = 0;
  #sorted = true;
  readonly #names: string[] = ["…"];
  readonly #nameIndex = new Map<string, number>();
  #seq = new Float64Array(this.#capacity);
  #time = new Float64Array(this.#capacity);
  #causeSeq = new Float64Array(this.#capacity);
  #type = new Uint8Array(this.#capacity);
  #flags = new Uint8Array(this.#capacity);
  #actor = new Uint16Array(this.#capacity);
  #label = new Uint16Array(this.#capacity);
  #deviceId = new Int32Array(this.#capacity);
  #page = new Float64Array(this.#capacity);
  #start = new Uint32Array(this.#capacity);
  #length = new Uint32Array(this.#capacity);

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  chunk(text: string, base: number, last: boolean): void {
    let from = 0;
    let position = base;
    while (from < text.length) {
      const newline = text.indexOf("\n", from);
      const to = newline < 0 ? text.length : newline;
      const source = text.slice(from, to);
      from = to + 1;
      this.line++;
      const bytes = byteLength(source);
      if (source !== "") this.#take(source, position, bytes, last && newline < 0);
      position += bytes + 1;
    }
  }

  #take(source: string, position: number, bytes: number, unended: boolean): void {
    let value: unknown;
    try {
      value = JSON.parse(source);
    } catch {
      if (!unended || this.line === 1) throw new TraceFormatError(`line ${this.line} is not JSON`);
      this.#cutAt = this.line;
      return;
    }
    if (this.line === 1) {
      if ((value as { "nestbox-trace"?: unknown } | null)?.["nestbox-trace"] !== TRACE_VERSION) {
        throw new TraceFormatError(`not a nestbox trace of version ${TRACE_VERSION}`);
      }
      return;
    }
    const problem = eventProblem(value);
    if (problem !== null) throw new TraceFormatError(`line ${this.line} is not a trace event: ${problem}`);
    this.#add(value as RawEvent, position, bytes);
  }

  #add(event: RawEvent, position: number, bytes: number): void {
    if (this.#rows === this.#capacity) this.#grow();
    const row = this.#rows++;
    if (row > 0 && event.seq <= this.#seq[row - 1]!) this.#sorted = false;
    this.#seq[row] = event.seq;
    this.#time[row] = event.time as number;
    this.#causeSeq[row] = event.cause as number;
    this.#type[row] = TYPE_NUMBER.get(event.type)!;
    this.#start[row] = position;
    this.#length[row] = bytes;
    const [actor, label, flags] = describeRaw(event);
    this.#flags[row] = flags;
    this.#actor[row] = this.#name(actor);
    this.#label[row] = this.#name(label);
    this.#deviceId[row] = typeof event.deviceId === "number" ? event.deviceId : -1;
    const address = event.iova ?? event.iotval ?? event.input;
    // Exact: a page number has at most 52 bits.
    this.#page[row] =
      typeof address === "string" ? Math.floor(Number.parseInt(address.slice(0, -3) || "0", 16)) || 0 : -1;
  }

  #name(text: string): number {
    const known = this.#nameIndex.get(text);
    if (known !== undefined) return known;
    if (this.#names.length >= MOST_NAMES) return 0;
    this.#nameIndex.set(text, this.#names.length);
    return this.#names.push(text) - 1;
  }

  #grow(): void {
    this.#capacity *= 2;
    const longer = <T extends { set(from: T): void }>(from: T, Kind: new (length: number) => T): T => {
      const to = new Kind(this.#capacity);
      to.set(from);
      return to;
    };
    this.#seq = longer(this.#seq, Float64Array);
    this.#time = longer(this.#time, Float64Array);
    this.#causeSeq = longer(this.#causeSeq, Float64Array);
    this.#type = longer(this.#type, Uint8Array);
    this.#flags = longer(this.#flags, Uint8Array);
    this.#actor = longer(this.#actor, Uint16Array);
    this.#label = longer(this.#label, Uint16Array);
    this.#deviceId = longer(this.#deviceId, Int32Array);
    this.#page = longer(this.#page, Float64Array);
    this.#start = longer(this.#start, Uint32Array);
    this.#length = longer(this.#length, Uint32Array);
  }

  end(): TraceColumns {
    if (this.line === 0) throw new TraceFormatError("line 1 is not JSON");
    const rows = this.#rows;
    let order: Uint32Array | null = null;
    if (!this.#sorted) {
      // A call is numbered when it begins and written when it is over. Numbers that stand twice keep their order.
      const seq = this.#seq;
      order = Uint32Array.from({ length: rows }, (_, row) => row).sort((a, b) => seq[a]! - seq[b]! || a - b);
    }
    const taken = <T extends Taken>(from: T, to: T): T => {
      if (order === null) for (let row = 0; row < rows; row++) to[row] = from[row]!;
      else for (let row = 0; row < rows; row++) to[row] = from[order[row]!]!;
      return to;
    };
    const seq = taken(this.#seq, new Float64Array(rows));
    const causeSeq = taken(this.#causeSeq, new Float64Array(rows));
    return {
      rows,
      bytes: this.#bytes,
      seq,
      time: taken(this.#time, new Float64Array(rows)),
      cause: causeRows(seq, causeSeq),
      type: taken(this.#type, new Uint8Array(rows)),
      flags: taken(this.#flags, new Uint8Array(rows)),
      actor: taken(this.#actor, new Uint16Array(rows)),
      label: taken(this.#label, new Uint16Array(rows)),
      deviceId: taken(this.#deviceId, new Int32Array(rows)),
      page: taken(this.#page, new Float64Array(rows)),
      start: taken(this.#start, new Uint32Array(rows)),
      length: taken(this.#length, new Uint32Array(rows)),
      names: this.#names,
      cutAt: this.#cutAt,
    };
  }
}

type Taken = Float64Array | Uint8Array | Uint16Array | Uint32Array | Int32Array;

function causeRows(seq: Float64Array, causeSeq: Float64Array): Int32Array {
  const rows = seq.length;
  const cause = new Int32Array(rows);
  const columns = { seq, rows } as TraceColumns;
  for (let row = 0; row < rows; row++) {
    const wanted = causeSeq[row]!;
    if (wanted === 0) cause[row] = -1;
    // Mostly a cause is the event before, or shares the last one's.
    else if (row > 0 && seq[row - 1]! === wanted) cause[row] = row - 1;
    else if (row > 0 && causeSeq[row - 1]! === wanted) cause[row] = cause[row - 1]!;
    else cause[row] = rowOf(columns, wanted);
    // A cause comes before what it causes, whatever a file says.
    if (cause[row]! >= row) cause[row] = -1;
  }
  return cause;
}

/** Who, what, and flags, of a checked event whose 64-bit values are texts still. */
function describeRaw(event: RawEvent): [actor: string, label: string, flags: number] {
  const text = (name: string): string => event[name] as string;
  const guest = event.where === "guest" ? FLAG_GUEST : 0;
  switch (event.type as TraceEventType) {
    case "mmio": {
      const register = event.register ?? `+0x${(event.offset as number).toString(16)}`;
      return [text("device"), String(register), FLAG_GUEST | (event.write === true ? FLAG_WRITE : 0)];
    }
    case "store":
      return [text("process"), "store", FLAG_GUEST | FLAG_WRITE];
    case "step":
      return ["scenario", text("name"), 0];
    case "command":
      return [text("iommu"), text("name"), guest];
    case "ioctl":
      return [text("process"), text("name"), (event.result as number) < 0 ? FLAG_FAILED : 0];
    case "attach":
      return [text("device"), text("domain"), 0];
    case "group":
      return [text("iommu"), text("contexts"), event.contexts === "differ" ? FLAG_FAILED : 0];
    case "walk":
      return [text("iommu"), `${text("table")} ${event.level}`, guest | (event.cached === true ? FLAG_CACHED : 0)];
    case "dma":
      return [
        text("device"),
        text("result"),
        (event.write === true ? FLAG_WRITE : 0) | (event.result === "aborted" ? FLAG_FAILED : 0),
      ];
    case "fault":
      return [
        text("iommu"),
        `fault ${event.faultCause}`,
        FLAG_FAILED | guest | (event.where === "hardware" ? FLAG_HARDWARE : 0),
      ];
    case "irq":
      return [text("source"), `vector ${event.vector}`, guest];
    case "injection":
      return [text("point"), text("name"), FLAG_FAILED];
  }
}

/** Bytes that a text takes in UTF-8. */
function byteLength(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x80) continue;
    // Halves of a surrogate pair are two bytes each, of four.
    bytes += code < 0x800 || (code >= 0xd800 && code <= 0xdfff) ? 1 : 2;
  }
  return bytes;
}

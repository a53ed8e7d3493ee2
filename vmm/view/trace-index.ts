// A trace of any length as columns of numbers, one row an event, in the order of `seq`: what a timeline draws, a filter looks through and a step
// moves along, without an object an event. The text stays beside them; `eventAt` decodes one line when somebody looks at it.
//
// Every line is checked when the index is made (trace-line.ts, host/base/trace-shape.ts), so what is decoded later is what was checked. Columns are plain
// typed arrays: a worker makes them and hands them over.

import type { TracedEvent } from "../../host/base/trace.ts";
import { TraceFormatError, versionOf } from "../../host/base/trace-json.ts";
import { checkedEvent, EVENT_SHAPES, eventProblem, hasType } from "../../host/base/trace-shape.ts";
import { EVENT_TYPES, slotOf, TraceLine } from "./trace-line.ts";

export { EVENT_TYPES };

/** Bits of `flags`. */
export const FLAG_GUEST = 1;
/** A store, or a DMA write. */
export const FLAG_WRITE = 2;
/** Something went wrong here: an aborted DMA, a refused call, a fault, an injection. */
export const FLAG_FAILED = 4;
/** A fault as the hardware recorded it. */
export const FLAG_HARDWARE = 8;
export const FLAG_CACHED = 16;

const NEWLINE = 10;
/** Names kept apart in one trace; what comes after is all "…". */
const MOST_NAMES = 65_535;
/** Bytes of a trace: positions in it are numbers of 32 bits. */
export const LONGEST_TRACE = 2 ** 32 - 1;
/** Bytes between two words about progress. */
const CHUNK = 4 * 2 ** 20;

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
  let told = 0;
  for (let at = 0; at < bytes.length; ) {
    at = builder.lineAt(at);
    if (at - told < CHUNK) continue;
    told = at;
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

/** Not state: of one trace that is being read. */
class ColumnBuilder {
  readonly #bytes: Uint8Array;
  readonly #line = new TraceLine();
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Lines so far. */
  #lines = 0;
  #version = 0;
  #capacity = 4096;
  #rows = 0;
  #cutAt = 0;
  #sorted = true;
  readonly #names: string[] = ["…"];
  readonly #nameIndex = new Map<string, number>();
  /** "vector 3", "stage2 0": by the word, then the number. */
  readonly #numbered = new Map<string, Map<number, number>>();
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

  /** Takes the line that begins there; where the next one does. */
  lineAt(start: number): number {
    const bytes = this.#bytes;
    const lines = ++this.#lines;
    let end = lines === 1 ? -1 : this.#line.scan(bytes, start);
    if (end >= 0 && (end === bytes.length || bytes[end] === NEWLINE) && this.#isOfVersion()) {
      this.#add(start, end);
      return end + 1;
    }
    end = bytes.indexOf(NEWLINE, start);
    if (end < 0) end = bytes.length;
    if (end > start && this.#takeText(start, end, end === bytes.length)) this.#add(start, end);
    return end + 1;
  }

  #isOfVersion(): boolean {
    return hasType(this.#version, EVENT_TYPES[this.#line.type]);
  }

  /** A line that is not in the form that is written: true if it is an event. */
  #takeText(start: number, end: number, unended: boolean): boolean {
    const line = this.#lines;
    let value: unknown;
    let wrong = "not UTF-8";
    try {
      const source = this.#decoder.decode(this.#bytes.subarray(start, end));
      wrong = "not JSON";
      value = JSON.parse(source);
    } catch {
      if (!unended || line === 1) throw new TraceFormatError(`line ${line} is ${wrong}`);
      this.#cutAt = line;
      return false;
    }
    if (line === 1) {
      this.#version = versionOf(value);
      return false;
    }
    const problem = eventProblem(value, this.#version);
    if (problem !== null) throw new TraceFormatError(`line ${line} is not a trace event: ${problem}`);
    this.#line.take(value as Readonly<Record<string, unknown>>);
    return true;
  }

  /** The line that was taken apart, as a row. */
  #add(start: number, end: number): void {
    if (this.#rows === this.#capacity) this.#grow();
    const row = this.#rows++;
    const { type, seq, time, cause, texts, numbers } = this.#line;
    if (row > 0 && seq <= this.#seq[row - 1]!) this.#sorted = false;
    this.#seq[row] = seq;
    this.#time[row] = time;
    this.#causeSeq[row] = cause;
    this.#type[row] = type;
    this.#start[row] = start;
    this.#length[row] = end - start;
    const { who, what, counted, device, page, flags } = COLUMNS[type]!;
    this.#flags[row] = flags(numbers);
    this.#actor[row] = this.#name(who < 0 ? "scenario" : texts[who]!);
    const label = what(texts, numbers);
    this.#label[row] = counted < 0 ? this.#name(label) : this.#nameWith(label, numbers[counted]!);
    this.#deviceId[row] = device < 0 ? -1 : numbers[device]!;
    const about = page < 0 ? Number.NaN : numbers[page]!;
    this.#page[row] = Number.isNaN(about) ? -1 : about;
  }

  #name(text: string): number {
    const known = this.#nameIndex.get(text);
    if (known !== undefined) return known;
    if (this.#names.length >= MOST_NAMES) return 0;
    this.#nameIndex.set(text, this.#names.length);
    return this.#names.push(text) - 1;
  }

  #nameWith(word: string, number: number): number {
    const known = this.#numbered.get(word)?.get(number);
    if (known !== undefined) return known;
    const name = this.#name(`${word} ${number}`);
    if (name === 0) return 0;
    const ofWord = this.#numbered.get(word);
    if (ofWord === undefined) this.#numbered.set(word, new Map([[number, name]]));
    else ofWord.set(number, name);
    return name;
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
    if (this.#lines === 0) throw new TraceFormatError("line 1 is not JSON");
    const rows = this.#rows;
    let order: Uint32Array | null = null;
    if (!this.#sorted) {
      // A call is numbered when it begins and written when it is over. Numbers that stand twice keep their order.
      const seq = this.#seq;
      order = Uint32Array.from({ length: rows }, (_, row) => row).sort((a, b) => seq[a]! - seq[b]! || a - b);
    }
    const taken = <T extends Taken>(from: T): T => {
      const to = from.slice(0, rows) as T;
      if (order !== null) for (let row = 0; row < rows; row++) to[row] = from[order[row]!]!;
      return to;
    };
    const seq = taken(this.#seq);
    const causeSeq = taken(this.#causeSeq);
    return {
      rows,
      bytes: this.#bytes,
      seq,
      time: taken(this.#time),
      cause: causeRows(seq, causeSeq),
      type: taken(this.#type),
      flags: taken(this.#flags),
      actor: taken(this.#actor),
      label: taken(this.#label),
      deviceId: taken(this.#deviceId),
      page: taken(this.#page),
      start: taken(this.#start),
      length: taken(this.#length),
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

type Texts = readonly string[];
type Numbers = Float64Array;

/** What the columns say of a type: slots of its line (trace-line.ts), -1 for none. */
interface ColumnShape {
  /** -1: whoever plays the guest. */
  readonly who: number;
  readonly what: (texts: Texts, numbers: Numbers) => string;
  /** A number that stands behind `what`. */
  readonly counted: number;
  readonly device: number;
  /** An address whose page it is about. */
  readonly page: number;
  readonly flags: (numbers: Numbers) => number;
}

type EventType = (typeof EVENT_TYPES)[number];

const choice = (type: EventType, field: string, value: string): ((numbers: Numbers) => boolean) => {
  const slot = slotOf(type, field);
  const wanted = choicesOf(type, field).indexOf(value);
  if (wanted < 0) throw new Error(`${type} ${field} is never ${value}`);
  return (numbers) => numbers[slot] === wanted;
};
const choicesOf = (type: EventType, field: string): readonly string[] =>
  (EVENT_SHAPES[type] as Readonly<Record<string, readonly string[]>>)[field]!;
const text = (type: EventType, field: string): ColumnShape["what"] => {
  const slot = slotOf(type, field);
  return (texts) => texts[slot]!;
};
const chosen = (type: EventType, field: string): ColumnShape["what"] => {
  const slot = slotOf(type, field);
  const choices = choicesOf(type, field);
  return (_texts, numbers) => choices[numbers[slot]!]!;
};
const NONE = { counted: -1, device: -1, page: -1 };
const always =
  (flags: number): ColumnShape["flags"] =>
  () =>
    flags;

const MMIO = { register: slotOf("mmio", "register"), offset: slotOf("mmio", "offset"), write: slotOf("mmio", "write") };
const RESULT = slotOf("ioctl", "result");
const CACHED = slotOf("walk", "cached");
const DMA_WRITE = slotOf("dma", "write");
const isGuestsCommand = choice("command", "where", "guest");
const differs = choice("group", "contexts", "differ");
const isGuestsWalk = choice("walk", "where", "guest");
const isAborted = choice("dma", "result", "aborted");
const isHardwareFault = choice("fault", "where", "hardware");
const isGuestsFault = choice("fault", "where", "guest");
const isGuestsIrq = choice("irq", "where", "guest");

const SHAPES: Readonly<Record<EventType, ColumnShape>> = {
  step: { ...NONE, who: -1, what: text("step", "name"), flags: always(0) },
  store: {
    ...{ ...NONE, who: slotOf("store", "process"), what: () => "store" },
    flags: always(FLAG_GUEST | FLAG_WRITE),
  },
  mmio: {
    ...{ ...NONE, who: slotOf("mmio", "device") },
    what: (texts, numbers) => texts[MMIO.register]! || `+0x${numbers[MMIO.offset]!.toString(16)}`,
    flags: (numbers) => FLAG_GUEST | (numbers[MMIO.write] === 1 ? FLAG_WRITE : 0),
  },
  command: {
    ...{ ...NONE, who: slotOf("command", "iommu"), what: text("command", "name") },
    flags: (numbers) => (isGuestsCommand(numbers) ? FLAG_GUEST : 0),
  },
  ioctl: {
    ...{ ...NONE, who: slotOf("ioctl", "process"), what: text("ioctl", "name") },
    flags: (numbers) => (numbers[RESULT]! < 0 ? FLAG_FAILED : 0),
  },
  attach: { ...NONE, who: slotOf("attach", "device"), what: text("attach", "domain"), flags: always(0) },
  group: {
    ...{ ...NONE, who: slotOf("group", "iommu"), what: chosen("group", "contexts") },
    flags: (numbers) => (differs(numbers) ? FLAG_FAILED : 0),
  },
  dma: {
    ...{ who: slotOf("dma", "device"), what: chosen("dma", "result"), counted: -1 },
    ...{ device: slotOf("dma", "deviceId"), page: slotOf("dma", "iova") },
    flags: (numbers) => (numbers[DMA_WRITE] === 1 ? FLAG_WRITE : 0) | (isAborted(numbers) ? FLAG_FAILED : 0),
  },
  walk: {
    ...{ who: slotOf("walk", "iommu"), what: text("walk", "table"), counted: slotOf("walk", "level") },
    ...{ device: slotOf("walk", "deviceId"), page: slotOf("walk", "input") },
    flags: (numbers) => (isGuestsWalk(numbers) ? FLAG_GUEST : 0) | (numbers[CACHED] === 1 ? FLAG_CACHED : 0),
  },
  fault: {
    ...{ who: slotOf("fault", "iommu"), what: () => "fault", counted: slotOf("fault", "faultCause") },
    ...{ device: slotOf("fault", "deviceId"), page: slotOf("fault", "iotval") },
    flags: (numbers) =>
      FLAG_FAILED | (isGuestsFault(numbers) ? FLAG_GUEST : 0) | (isHardwareFault(numbers) ? FLAG_HARDWARE : 0),
  },
  irq: {
    ...{ ...NONE, who: slotOf("irq", "source"), what: () => "vector", counted: slotOf("irq", "vector") },
    flags: (numbers) => (isGuestsIrq(numbers) ? FLAG_GUEST : 0),
  },
  injection: {
    ...{ ...NONE, who: slotOf("injection", "point"), what: text("injection", "name") },
    flags: always(FLAG_FAILED),
  },
};
const COLUMNS: readonly ColumnShape[] = EVENT_TYPES.map((type) => SHAPES[type]);

// One line of a trace, taken apart into slots without an object an event: a million lines are a second's work this way, and several seconds' through
// JSON.parse. `scan` reads the form that JsonLinesSink writes (host/base/trace-json.ts), straight from bytes, and accepts nothing that JSON.parse and
// the shapes of events (host/base/trace-shape.ts) would read differently; any other form is left to those two, whose object `take` brings
// into the same slots.

import type { TraceEventType } from "../../host/base/trace.ts";
import {
  EVENT_SHAPES,
  type FieldKind,
  type FieldShape,
  LAST_LEVEL,
  MOST_COVERED,
} from "../../host/base/trace-shape.ts";

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

interface Slot {
  readonly name: string;
  readonly kind: FieldKind | "choice";
  readonly optional: boolean;
  readonly choices: readonly string[];
  /** `"name":`, and each choice, as they stand in a line. */
  readonly key: Uint8Array;
  readonly choiceBytes: readonly Uint8Array[];
}

/** Bytes that begin an event of a type, and its fields. */
interface LineShape {
  readonly type: Uint8Array;
  readonly slots: readonly Slot[];
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const SEQ = ascii('{"seq":');
const TIME = ascii(',"time":');
const CAUSE = ascii(',"cause":');
const TYPE = ascii(',"type":"');
const TRUE = ascii("true");
const FALSE = ascii("false");
const WIDE = ascii('"0x');

const LINES: readonly LineShape[] = EVENT_TYPES.map((type) => ({
  type: ascii(`${type}"`),
  slots: Object.entries(EVENT_SHAPES[type] as Readonly<Record<string, FieldShape>>).map(([name, shape]): Slot => {
    const listed = typeof shape !== "string";
    return {
      name,
      kind: listed ? "choice" : (shape.replace("?", "") as FieldKind),
      optional: !listed && shape.endsWith("?"),
      choices: listed ? shape : [],
      key: ascii(`"${name}":`),
      choiceBytes: listed ? shape.map((choice) => ascii(`"${choice}"`)) : [],
    };
  }),
}));
const MOST_SLOTS = Math.max(...LINES.map(({ slots }) => slots.length));
/** Bits of the slots that every event of a type has. */
const REQUIRED = LINES.map(({ slots }) =>
  slots.reduce((bits, { optional }, n) => (optional ? bits : bits | (1 << n)), 0),
);

/** Number of a field of a type among its slots. */
export function slotOf(type: (typeof EVENT_TYPES)[number], name: string): number {
  const slot = LINES[EVENT_TYPES.indexOf(type)]!.slots.findIndex((one) => one.name === name);
  if (slot < 0) throw new Error(`${type} has no ${name}`);
  return slot;
}

const WALK = EVENT_TYPES.indexOf("walk");
const WALK_LEVEL = slotOf("walk", "level");
const WALK_COVERS = slotOf("walk", "covers");

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN = 0x7b;
const CLOSE = 0x7d;
/** Digits that a number is exact with whatever they are. */
const EXACT_DIGITS = 15;

/** Not state: of one trace that is being read. */
export class TraceLine {
  /** Index in EVENT_TYPES. */
  type = 0;
  seq = 0;
  /** ns. */
  time = 0;
  cause = 0;
  /** Of `text` slots; "" where it was left out. */
  readonly texts: string[] = new Array<string>(MOST_SLOTS).fill("");
  /** Of `whole` slots their value, `flag` 0 or 1, one of several texts its place among them, `wide` its page number; NaN where it was left out. */
  readonly numbers = new Float64Array(MOST_SLOTS);
  readonly #words = new WordCache();
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #number = 0;

  /** Position behind the line's "}", which stands where `at` points to its beginning; -1: it is not in the form that is written. */
  scan(bytes: Uint8Array, at: number): number {
    this.#bytes = bytes;
    this.#at = at;
    if (!this.#is(SEQ) || !this.#whole()) return -1;
    this.seq = this.#number;
    if (!this.#is(TIME) || !this.#whole()) return -1;
    this.time = this.#number;
    if (!this.#is(CAUSE) || !this.#whole()) return -1;
    this.cause = this.#number;
    if (!this.#is(TYPE)) return -1;
    let type = 0;
    while (!this.#is(LINES[type]!.type)) if (++type === LINES.length) return -1;
    this.type = type;
    return this.#fields(LINES[type]!.slots, REQUIRED[type]!) ? this.#at : -1;
  }

  /** Takes a checked event whose 64-bit values are texts still. */
  take(event: Readonly<Record<string, unknown>>): void {
    this.type = EVENT_TYPES.indexOf(event.type as TraceEventType);
    this.seq = event.seq as number;
    this.time = event.time as number;
    this.cause = event.cause as number;
    LINES[this.type]!.slots.forEach(({ name, kind, choices }, n) => {
      const value = event[name];
      this.texts[n] = kind === "text" && value !== undefined ? (value as string) : "";
      this.numbers[n] = value === undefined ? Number.NaN : numberOf(kind, value, choices);
    });
  }

  /** Fields in any order, each at most once, to the closing brace. */
  #fields(slots: readonly Slot[], required: number): boolean {
    const bytes = this.#bytes;
    let seen = 0;
    let next = 0;
    this.numbers.fill(Number.NaN);
    while (bytes[this.#at] === COMMA) {
      this.#at++;
      let slot = next;
      while (!this.#is(slots[slot]!.key)) {
        slot = slot + 1 === slots.length ? 0 : slot + 1;
        if (slot === next) return false;
      }
      if ((seen & (1 << slot)) !== 0 || !this.#value(slots[slot]!, slot)) return false;
      seen |= 1 << slot;
      next = slot + 1 === slots.length ? 0 : slot + 1;
    }
    if (bytes[this.#at] !== CLOSE || (seen & required) !== required) return false;
    this.#at++;
    for (let slot = 0; slot < slots.length; slot++) if ((seen & (1 << slot)) === 0) this.texts[slot] = "";
    return this.type !== WALK || this.#isWalk();
  }

  #isWalk(): boolean {
    const { numbers } = this;
    const covers = numbers[WALK_COVERS]!;
    return numbers[WALK_LEVEL]! >= 0 && numbers[WALK_LEVEL]! <= LAST_LEVEL && !(covers < 0) && !(covers > MOST_COVERED);
  }

  #value(slot: Slot, n: number): boolean {
    switch (slot.kind) {
      case "text": {
        const text = this.#text();
        if (text === null) return false;
        this.texts[n] = text;
        return true;
      }
      case "whole":
        if (!this.#whole()) return false;
        this.numbers[n] = this.#number;
        return true;
      case "flag": {
        const set = this.#is(TRUE);
        this.numbers[n] = set ? 1 : 0;
        return set || this.#is(FALSE);
      }
      case "wide":
        if (!this.#wide()) return false;
        this.numbers[n] = this.#number;
        return true;
      case "words":
        return this.#list();
      case "values":
        return this.#named();
      case "choice": {
        const { choiceBytes } = slot;
        for (let choice = 0; choice < choiceBytes.length; choice++) {
          if (!this.#is(choiceBytes[choice]!)) continue;
          this.numbers[n] = choice;
          return true;
        }
        return false;
      }
    }
  }

  /** Goes past these bytes, if they stand here. */
  #is(wanted: Uint8Array): boolean {
    const bytes = this.#bytes;
    const at = this.#at;
    for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false;
    this.#at = at + wanted.length;
    return true;
  }

  /** A whole number, exact, in JSON's only way to write it without a point. */
  #whole(): boolean {
    const bytes = this.#bytes;
    const negative = bytes[this.#at] === MINUS;
    const first = negative ? this.#at + 1 : this.#at;
    let at = first;
    let value = 0;
    for (let digit = bytes[at]!; digit >= ZERO && digit <= NINE; digit = bytes[++at]!)
      value = value * 10 + digit - ZERO;
    const digits = at - first;
    if (digits === 0 || digits > EXACT_DIGITS || (bytes[first] === ZERO && (digits > 1 || negative))) return false;
    this.#at = at;
    this.#number = negative ? -value : value;
    return true;
  }

  /** A 64-bit value; its page number. */
  #wide(): boolean {
    if (!this.#is(WIDE)) return false;
    const bytes = this.#bytes;
    const first = this.#at;
    let at = first;
    let page = 0;
    // Behind by the three digits of an offset in a page.
    let late = 0;
    for (let nibble = nibbleOf(bytes[at]!); nibble >= 0; nibble = nibbleOf(bytes[++at]!)) {
      page = page * 16 + (late >> 8);
      late = ((late << 4) | nibble) & 0xfff;
    }
    if (at === first || at - first > 16 || bytes[at] !== QUOTE) return false;
    this.#at = at + 1;
    this.#number = page;
    return true;
  }

  /** A text of printable ASCII without escapes; null for another. */
  #text(): string | null {
    const bytes = this.#bytes;
    if (bytes[this.#at] !== QUOTE) return null;
    const first = this.#at + 1;
    let at = first;
    let hash = 0;
    for (let byte = bytes[at]!; byte !== QUOTE; byte = bytes[++at]!) {
      // Not so, too, of what stands behind the end.
      if (!(byte >= 0x20 && byte < 0x7f) || byte === BACKSLASH) return null;
      hash = (Math.imul(hash, 31) + byte) | 0;
    }
    this.#at = at + 1;
    return this.#words.word(bytes, first, at, hash);
  }

  #list(): boolean {
    const bytes = this.#bytes;
    if (bytes[this.#at] !== OPEN_LIST) return false;
    this.#at++;
    if (bytes[this.#at] !== CLOSE_LIST) {
      if (!this.#wide()) return false;
      while (bytes[this.#at] === COMMA) {
        this.#at++;
        if (!this.#wide()) return false;
      }
    }
    return bytes[this.#at++] === CLOSE_LIST;
  }

  /** `{"name":value,…}` of numbers and texts. */
  #named(): boolean {
    const bytes = this.#bytes;
    if (bytes[this.#at] !== OPEN) return false;
    this.#at++;
    if (bytes[this.#at] !== CLOSE) {
      if (!this.#pair()) return false;
      while (bytes[this.#at] === COMMA) {
        this.#at++;
        if (!this.#pair()) return false;
      }
    }
    return bytes[this.#at++] === CLOSE;
  }

  #pair(): boolean {
    if (this.#text() === null || this.#bytes[this.#at++] !== COLON) return false;
    return this.#bytes[this.#at] === QUOTE ? this.#text() !== null : this.#whole();
  }
}

/** Digits of 64-bit values are in lower case. */
function nibbleOf(byte: number): number {
  if (byte >= ZERO && byte <= NINE) return byte - ZERO;
  return byte >= 0x61 && byte <= 0x66 ? byte - 0x57 : -1;
}

function numberOf(kind: Slot["kind"], value: unknown, choices: readonly string[]): number {
  switch (kind) {
    case "whole":
      return value as number;
    case "flag":
      return value === true ? 1 : 0;
    case "choice":
      return choices.indexOf(value as string);
    case "wide":
      // Exact: a page number has at most 52 bits.
      return Math.floor(Number.parseInt((value as string).slice(0, -3) || "0", 16)) || 0;
    default:
      return Number.NaN;
  }
}

/** Texts by their bytes: a trace says the same few again and again. What has been pushed out is made anew. */
class WordCache {
  static readonly #SIZE = 4096;
  readonly #texts = new Array<string>(WordCache.#SIZE).fill("");

  word(bytes: Uint8Array, from: number, to: number, hash: number): string {
    const place = (hash ^ (hash >>> 12)) & (WordCache.#SIZE - 1);
    const known = this.#texts[place]!;
    if (isText(known, bytes, from, to)) return known;
    let text = "";
    for (let at = from; at < to; at++) text += String.fromCharCode(bytes[at]!);
    this.#texts[place] = text;
    return text;
  }
}

function isText(text: string, bytes: Uint8Array, from: number, to: number): boolean {
  if (text.length !== to - from) return false;
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) !== bytes[from + i]) return false;
  return true;
}

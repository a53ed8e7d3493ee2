// A line read straight from its bytes says what JSON.parse and the shapes of events say of it, whatever it is: the fast way never takes what the
// slow one refuses, and both come to the same columns.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseTrace, TRACE_VERSION, TraceFormatError } from "../../../host/base/trace-json.ts";
import { EVENT_SHAPES, type FieldShape } from "../../../host/base/trace-shape.ts";
import { eventAt, indexTrace, type TraceColumns } from "../../../vmm/view/trace-index.ts";
import { EVENT_TYPES, TraceLine } from "../../../vmm/view/trace-line.ts";

const HEAD = `{"nestbox-trace":${TRACE_VERSION}}\n`;
const bytesOf = (text: string) => new TextEncoder().encode(text);

const texts = fc.oneof(
  fc.constantFrom("iommu0", "stage1", "", "0000:00:01.0", 'a "quoted" \\ name', "µs → 😀", "\u001b[2J", "\u202e"),
  fc.string({ maxLength: 12 }),
);
const wholes = fc.oneof(fc.nat(9), fc.integer(), fc.constantFrom(0, 2 ** 53 - 1, -(2 ** 53) + 1, 999_999_999_999_999));
const wides = fc.bigInt(0n, (1n << 64n) - 1n).map((value) => `0x${value.toString(16)}`);

function fieldValue(shape: FieldShape): fc.Arbitrary<unknown> {
  if (typeof shape !== "string") return fc.constantFrom(...shape);
  if (shape.endsWith("?")) return fc.option(fieldValue(shape.slice(0, -1) as FieldShape), { nil: undefined });
  switch (shape) {
    case "text":
      return texts;
    case "whole":
      return wholes;
    case "flag":
      return fc.boolean();
    case "wide":
      return wides;
    case "words":
      return fc.array(wides, { maxLength: 3 });
    default:
      return fc.dictionary(texts, fc.oneof(wholes, texts, fc.double({ noNaN: true })), { maxKeys: 4 });
  }
}

const events = fc.constantFrom(...EVENT_TYPES).chain((type) =>
  fc.record({
    seq: fc.nat(1000),
    time: fc.oneof(fc.nat(), fc.double({ min: 0, noNaN: true })),
    cause: fc.nat(1000),
    type: fc.constant(type),
    ...Object.fromEntries(
      Object.entries(EVENT_SHAPES[type] as Record<string, FieldShape>).map(([name, shape]) => [
        name,
        // Most walks go a few levels.
        type === "walk" && name === "level" ? fc.nat(5) : fieldValue(shape),
      ]),
    ),
  }),
);

/** What is wrong with a trace, or the events it holds. */
function outcome<T>(read: () => T): T | "refused" {
  try {
    return read();
  } catch (error) {
    if (error instanceof TraceFormatError) return "refused";
    throw error;
  }
}
const eventsOf = (columns: TraceColumns) =>
  Array.from({ length: columns.rows }, (_, row) => eventAt(columns, row)).sort((a, b) => a.seq - b.seq);
const columnsOf = (text: string) => {
  const { bytes: _bytes, start: _start, length: _length, ...columns } = indexTrace(bytesOf(text));
  return columns;
};

describe("a line of a trace", () => {
  it("is in the same columns however it is written", () => {
    fc.assert(
      fc.property(fc.array(events, { maxLength: 6 }), (list) => {
        const lines = list.map((event) => JSON.stringify(event));
        const written = HEAD + lines.map((line) => `${line}\n`).join("");
        // A blank is no form that a writer has, and says the same.
        const blanks = HEAD + lines.map((line) => `{ ${line.slice(1)}\n`).join("");
        expect(outcome(() => columnsOf(written))).toEqual(outcome(() => columnsOf(blanks)));
      }),
      { numRuns: 400 },
    );
  });

  it("is read as the reader of whole traces reads it, also with a byte that is another", () => {
    const places = fc.tuple(
      fc.nat(),
      fc.constantFrom("replace", "insert", "delete"),
      fc.constantFrom(...'{}[]",:\\0e-. x'),
    );
    fc.assert(
      fc.property(events, fc.option(places, { nil: null }), (event, place) => {
        let line = JSON.stringify(event);
        if (place !== null) {
          const [where, how, character] = place;
          const at = where % line.length;
          line = line.slice(0, at) + (how === "delete" ? "" : character) + line.slice(how === "insert" ? at : at + 1);
        }
        // Half a character is none in a file.
        const text = new TextDecoder().decode(bytesOf(`${HEAD}${line}\n`));
        expect(outcome(() => eventsOf(indexTrace(bytesOf(text))))).toEqual(outcome(() => [...parseTrace(text)]));
      }),
      { numRuns: 3000 },
    );
  });

  it("in the form that is written is read without JSON.parse", () => {
    const line = new TraceLine();
    const plain =
      '{"seq":7,"time":1200,"cause":3,"type":"dma","device":"0000:00:01.0","deviceId":8,"iova":"0x4abc","length":4,"write":true,"result":"ok"}';
    expect(line.scan(bytesOf(plain), 0)).toBe(plain.length);
    expect([line.seq, line.time, line.cause, EVENT_TYPES[line.type]]).toEqual([7, 1200, 3, "dma"]);
    for (const other of [plain.replace("ok", "\\u006fk"), plain.replace("1200", "1.2e3"), plain.slice(0, -1), "", "{"])
      expect(line.scan(bytesOf(other), 0)).toBe(-1);
  });
});

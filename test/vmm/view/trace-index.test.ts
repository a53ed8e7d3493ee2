// A trace as columns holds what the trace holds, in order of its numbers, and refuses what the reader of whole traces refuses (vmm/view/TRACE.md).

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { parseTrace, TraceFormatError, traceLine } from "../../../host/base/trace-json.ts";
import { EVENT_TYPES, eventAt, FLAG_FAILED, indexTrace, rowOf } from "../../../vmm/view/trace-index.ts";

const HEAD = '{"nestbox-trace":2}\n';
const bytesOf = (text: string) => new TextEncoder().encode(text);
const text = (...events: TracedEvent[]) => `${HEAD}${events.map((event) => `${traceLine(event)}\n`).join("")}`;
const irq = (seq: number, cause = 0, source = "x"): TracedEvent => ({
  ...{ seq, time: seq * 10, cause },
  ...{ type: "irq", where: "guest", source, vector: 1 },
});
const ioctl = (seq: number, result: number): TracedEvent => ({
  ...{ seq, time: seq * 10, cause: 0 },
  ...{ type: "ioctl", process: "vmm1", fd: 3, name: "IOMMU_HWPT_ALLOC", result, fields: { pt_id: 4 } },
});
const dma = (seq: number, iova: bigint): TracedEvent => ({
  ...{ seq, time: 0, cause: 0, type: "dma", device: "0000:00:01.0", deviceId: 8 },
  ...{ iova, length: 4, write: true, result: "aborted" },
});

describe("a trace as columns", () => {
  it("holds every event, decoded as the reader decodes it", () => {
    const events = [irq(1), dma(2, 0xffff_ffff_ffff_f123n), ioctl(3, -12), irq(4, 3, "µs → é 😀"), irq(5, 4)];
    const columns = indexTrace(bytesOf(text(...events)));
    expect(Array.from({ length: columns.rows }, (_, row) => eventAt(columns, row))).toEqual([
      ...parseTrace(text(...events)),
    ]);
    expect([...columns.type].map((type) => EVENT_TYPES[type])).toEqual(["irq", "dma", "ioctl", "irq", "irq"]);
    expect(columns.page[1]).toBe(2 ** 52 - 1);
    expect([...columns.flags].map((flags) => (flags & FLAG_FAILED) !== 0)).toEqual([false, true, true, false, false]);
    expect([...columns.cause]).toEqual([-1, -1, -1, 2, 3]);
  });

  it("is in the order of its numbers: a call before what it caused, though it is written after", () => {
    const columns = indexTrace(bytesOf(text(irq(1), irq(3, 2), irq(4, 3), ioctl(2, 0), irq(5))));
    expect([...columns.seq]).toEqual([1, 2, 3, 4, 5]);
    expect([...columns.cause]).toEqual([-1, -1, 1, 2, -1]);
    expect(eventAt(columns, 1)).toEqual(ioctl(2, 0));
    expect([rowOf(columns, 4), rowOf(columns, 9)]).toEqual([3, -1]);
  });

  it("spans chunks of its bytes, wherever characters and lines are cut", () => {
    const long = "é😀".repeat(30_000);
    const events = Array.from({ length: 40 }, (_, n) => irq(n + 1, n, `${long}${n}`));
    const columns = indexTrace(bytesOf(text(...events)));
    expect(columns.rows).toBe(40);
    expect(eventAt(columns, 39)).toEqual(events[39]);
  });

  it("is read up to a last line that was cut off, and says which", () => {
    const whole = text(irq(1), irq(2));
    const columns = indexTrace(bytesOf(whole.slice(0, -9)));
    expect([columns.rows, columns.cutAt]).toEqual([1, 3]);
    expect(() => indexTrace(bytesOf(`${whole.slice(0, -9)}\n`))).toThrow(/^line 3 is not JSON/);
  });

  it("whose causes come after, or are their own effects, has none", () => {
    const columns = indexTrace(bytesOf(text(irq(1, 2), irq(2, 2), irq(3, 99))));
    expect([...columns.cause]).toEqual([-1, -1, -1]);
  });

  const refused: [what: string, text: string, reason: RegExp][] = [
    ["nothing", "", /line 1 is not JSON/],
    ["a later version", '{"nestbox-trace":3}\n', /a nestbox trace of version 3; this reads versions 1 to 2/],
    ["a version that is none", '{"nestbox-trace":"2"}\n', /first line says no version/],
    ["no header", `${traceLine(irq(1))}\n`, /not a nestbox trace: its first line says no version/],
    [
      "a type that its version has not",
      '{"nestbox-trace":1}\n{"seq":1,"time":0,"cause":0,"type":"step","name":"x"}\n',
      /line 2 .*: step is a type of version 2, and this is version 1/,
    ],
    ["an array", `${HEAD}[]\n`, /line 2 is not a trace event/],
    ["an unknown type", `${HEAD}{"seq":1,"time":0,"cause":0,"type":"__proto__"}\n`, /unknown type/],
    [
      "a control character in a name",
      `${HEAD}{"seq":1,"time":0,"cause":0,"type":"irq","where":"guest","source":"\\u001b[2J","vector":1}\n`,
      /proper source/,
    ],
  ];
  for (const [what, source, reason] of refused) {
    it(`is refused with ${what}, by line`, () => {
      expect(() => indexTrace(bytesOf(source))).toThrow(TraceFormatError);
      expect(() => indexTrace(bytesOf(source))).toThrow(reason);
    });
  }

  it("is refused where its bytes are no text", () => {
    expect(() => indexTrace(Uint8Array.of(...bytesOf(HEAD), 0xff, 0xfe, 10))).toThrow(/line 2 is not UTF-8/);
  });

  it("of version 1 is read as it is", () => {
    const columns = indexTrace(
      bytesOf(text(irq(1), dma(2, 0x4000n)).replace('"nestbox-trace":2', '"nestbox-trace":1')),
    );
    expect([eventAt(columns, 0), eventAt(columns, 1)]).toEqual([irq(1), dma(2, 0x4000n)]);
  });

  it("cut off within a character is read up to the line before", () => {
    const bytes = bytesOf(text(irq(1), irq(2, 0, "é")));
    const cut = bytes.lastIndexOf(0xc3) + 1;
    const columns = indexTrace(bytes.subarray(0, cut));
    expect([columns.rows, columns.cutAt]).toEqual([1, 3]);
  });

  it("with more names than are kept apart shows the rest as …", () => {
    const events = Array.from({ length: 66_000 }, (_, n) => irq(n + 1, 0, `name ${n}`));
    const columns = indexTrace(bytesOf(text(...events)));
    expect(columns.names.length).toBe(65_535);
    expect(columns.names[columns.actor[65_999]!]).toBe("…");
    expect(eventAt(columns, 65_999)).toEqual(events[65_999]);
  });
});

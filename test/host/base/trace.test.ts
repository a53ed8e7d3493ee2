import { describe, expect, it } from "vitest";
import { Trace, type TracedEvent } from "../../../host/base/trace.ts";
import { JsonLinesSink, parseTrace, RecentEvents, TraceFormatError } from "../../../host/base/trace-json.ts";

const irq = (vector: number) => ({ type: "irq", where: "guest", source: "test", vector }) as const;

describe("the trace", () => {
  it("numbers events and keeps the cause of what happens inside another", () => {
    const trace = new Trace({ now: 42 });
    const seen: TracedEvent[] = [];
    trace.addSink({ event: (event) => seen.push(event) });
    const before = trace.enter(irq(1));
    trace.emit(irq(2));
    trace.leave(before);
    trace.emit(irq(3));
    expect(seen.map(({ seq, cause, time }) => [seq, cause, time])).toEqual([
      [1, 0, 42],
      [2, 1, 42],
      [3, 0, 42],
    ]);
  });

  it("costs nothing and numbers nothing while nobody listens", () => {
    const trace = new Trace({ now: 0 });
    expect(trace.on).toBe(false);
    expect(trace.emit(irq(1))).toBe(0);
  });

  it("is read back from its JSON Lines as it was, wide values as bigints", () => {
    let text = "";
    const sink = new JsonLinesSink((chunk) => {
      text += chunk;
    });
    const trace = new Trace({ now: 1 });
    const seen: TracedEvent[] = [];
    trace.addSink(sink);
    trace.addSink({ event: (event) => seen.push(event) });
    trace.emit({ type: "mmio", device: "d", offset: 4, size: 8, write: true, value: 0xfedcba9876543210n });
    trace.emit({ type: "command", where: "guest", iommu: "i", name: "IOFENCE.C", words: [2n, 1n << 63n], text: "x" });
    sink.end();
    expect([...parseTrace(text)]).toEqual(seen);
  });

  it("of another version or with damaged lines is refused with the line's number", () => {
    expect(() => [...parseTrace('{"nestbox-trace":999}\n')]).toThrow(TraceFormatError);
    expect(() => [...parseTrace('{"nestbox-trace":999}\n')]).toThrow(/version 999; this reads versions 1 to 2/);
    const step = '{"seq":1,"time":0,"cause":0,"type":"step","name":"x"}';
    expect([...parseTrace(`{"nestbox-trace":2}\n${step}\n`)]).toHaveLength(1);
    expect(() => [...parseTrace(`{"nestbox-trace":1}\n${step}\n`)]).toThrow(/line 2 .*step is a type of version 2/);
    expect(() => [...parseTrace('{"nestbox-trace":1}\n{"seq":\n')]).toThrow(/line 2/);
  });

  it("cut off within its last line is read up to there by who asks to be told", () => {
    let text = "";
    const sink = new JsonLinesSink((chunk) => {
      text += chunk;
    });
    const trace = new Trace({ now: 1 });
    const seen: TracedEvent[] = [];
    trace.addSink(sink);
    trace.addSink({ event: (event) => seen.push(event) });
    for (const offset of [4, 8]) trace.emit({ type: "mmio", device: "d", offset, size: 8, write: true, value: 1n });
    sink.end();
    const cutText = text.slice(0, -10);
    const cuts: number[] = [];
    expect([...parseTrace(cutText, (line) => cuts.push(line))]).toEqual(seen.slice(0, 1));
    expect(cuts).toEqual([3]);
    expect(() => [...parseTrace(cutText)]).toThrow(/line 3/);
    // A damaged line that was ended is damage, and so is a header that is none.
    expect(() => [...parseTrace(`${cutText}\n`, () => {})]).toThrow(/line 3/);
    expect(() => [...parseTrace('{"nestbox-tr', () => {})]).toThrow(/line 1/);
  });

  const head = '"seq":1,"time":0,"cause":0';
  const malformed: [what: string, line: string][] = [
    ["is null", "null"],
    ["is an array", "[1]"],
    ["has no time", '{"seq":1,"cause":0,"type":"irq","where":"guest","source":"s","vector":1}'],
    ["has a type nobody knows", `{${head},"type":"constructor"}`],
    ["lacks a field", `{${head},"type":"mmio","device":"d","size":4,"write":true,"value":"0x0"}`],
    [
      "has a number for a 64-bit value",
      `{${head},"type":"dma","device":"d","deviceId":8,"iova":1,"length":4,"write":true,"result":"ok"}`,
    ],
    [
      "has a value past 64 bits",
      `{${head},"type":"dma","device":"d","deviceId":8,"iova":"0x${"f".repeat(17)}","length":4,"write":true,"result":"ok"}`,
    ],
    [
      "walks a level there is not",
      `{${head},"type":"walk","where":"host","iommu":"i","deviceId":8,"table":"stage2","level":1000000000,"space":"spa","address":"0x0","entry":"0x0","cached":false}`,
    ],
    [
      "has a call without its fields",
      `{${head},"type":"ioctl","process":"p","fd":3,"name":"IOMMU_VDEVICE_ALLOC","result":0}`,
    ],
  ];
  for (const [what, line] of malformed) {
    it(`with a line that ${what} is refused with the line's number`, () => {
      expect(() => [...parseTrace(`{"nestbox-trace":1}\n${line}\n`)]).toThrow(/^line 2 is not a trace event/);
    });
  }

  it("whose first line is null is refused", () => {
    expect(() => [...parseTrace("null\n")]).toThrow(TraceFormatError);
  });

  it("keeps the last events of a long run", () => {
    const recent = new RecentEvents(3);
    const trace = new Trace({ now: 0 });
    trace.addSink(recent);
    for (let i = 0; i < 10; i++) trace.emit(irq(i));
    expect(recent.all().map((event) => event.seq)).toEqual([8, 9, 10]);
  });
});

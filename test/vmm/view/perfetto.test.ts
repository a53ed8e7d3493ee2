// The Chrome trace-event document (Trace Event Format): one JSON object, arrows as pairs of "s" and "f".

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { toPerfetto } from "../../../vmm/view/perfetto.ts";

const irq = (seq: number, cause: number, source: "host" | "guest"): TracedEvent => ({
  ...{ seq, time: seq * 1000, cause },
  ...{ type: "irq", where: source, source: "x", vector: 1 },
});

describe("a trace for the Perfetto viewer", () => {
  it("is one JSON document, however many pieces it comes in, with an arrow from cause to effect", () => {
    const text = [...toPerfetto([irq(1, 0, "host"), irq(2, 1, "guest")])].join("");
    const { traceEvents } = JSON.parse(text) as { traceEvents: { ph: string; ts?: number }[] };
    expect(traceEvents.map(({ ph }) => ph)).toEqual(["M", "X", "M", "X", "s", "f"]);
    expect(traceEvents.slice(-2).map(({ ts }) => ts)).toEqual([1, 2]);
  });

  it("is a document for an empty trace, too", () => {
    expect(JSON.parse([...toPerfetto([])].join(""))).toEqual({ displayTimeUnit: "ns", traceEvents: [] });
  });
});

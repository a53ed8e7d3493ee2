// Filters of a trace: the same words on the command line and in the page.

import { describe, expect, it } from "vitest";
import type { TraceEvent } from "../../../host/base/trace.ts";
import { traceLine } from "../../../host/base/trace-json.ts";
import { FilterError, parseFilter, rowsThatFit } from "../../../vmm/view/trace-filter.ts";
import { indexTrace } from "../../../vmm/view/trace-index.ts";

const EVENTS: TraceEvent[] = [
  { type: "mmio", device: "viommu0", offset: 0, size: 8, write: false, value: 1n, register: "capabilities" },
  { type: "attach", device: "0000:00:01.0", domain: "nested", detail: "" },
  {
    ...{ type: "walk", where: "host", iommu: "iommu0", deviceId: 8, table: "stage1", level: 0, space: "spa" },
    ...{ address: 0n, entry: 0n, cached: false },
  },
  { type: "dma", device: "0000:00:01.0", deviceId: 8, iova: 0x4abcn, length: 4, write: false, result: "aborted" },
  { type: "dma", device: "0000:00:02.0", deviceId: 16, iova: 0x5000n, length: 4, write: false, result: "ok", spa: 0n },
  {
    ...{ type: "fault", where: "hardware", iommu: "iommu0", faultCause: 13, deviceId: 8, iotval: 0x4abcn },
    ...{ iotval2: 0n, ttyp: 2, text: "" },
  },
  // The guest's id 8 is another device than the host's.
  {
    ...{ type: "fault", where: "guest", iommu: "viommu0", faultCause: 13, deviceId: 8, iotval: 0x5000n },
    ...{ iotval2: 0n, ttyp: 2, text: "" },
  },
];
const columns = indexTrace(
  new TextEncoder().encode(
    [
      '{"nestbox-trace":2}',
      ...EVENTS.map((event, n) => traceLine({ seq: n + 1, time: n * 1000, cause: 0, ...event })),
      "",
    ].join("\n"),
  ),
);
const fitting = (line: string) => [...rowsThatFit(parseFilter(line)!, columns)];

describe("a filter", () => {
  it.each([
    ["type:dma", [3, 4]],
    ["type:dma,fault", [3, 4, 5, 6]],
    ["device:0000:00:01.0", [1, 2, 3, 5]],
    ["device:00:01.0", [1, 2, 3, 5]],
    ["device:0x8", [2, 3, 5]],
    ["device:viommu0", [0, 6]],
    ["time:3us", [3]],
    ["time:1us..2500", [1, 2]],
    ["time:..1us", [0, 1]],
    ["time:5us..", [5, 6]],
    ["iova:0x4000", [3, 5]],
    ["iova:0x4fff..0x5000", [3, 4, 5, 6]],
    ["type:fault device:00:01.0", [5]],
    ["CAPAB", [0]],
    ["stage1 iommu0", [2]],
  ])("%s", (line, rows) => {
    expect(fitting(line)).toEqual(rows);
  });

  it("that asks nothing is none", () => {
    expect(parseFilter("  ")).toBeNull();
  });

  it.each([
    ["type:dmas", /there is no "dmas"; there are step/],
    ["time:yesterday", /time: "yesterday" is none; write 2us/],
    ["iova:0x4000..0x5000..", /iova:/],
  ])("%s is refused with what to write", (line, reason) => {
    expect(() => parseFilter(line)).toThrow(FilterError);
    expect(() => parseFilter(line)).toThrow(reason);
  });
});

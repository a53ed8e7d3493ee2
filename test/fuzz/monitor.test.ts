// A little of `nestbox fuzz monitor` in every test run.

import { describe, expect, it } from "vitest";
import { fuzzer } from "./monitor.ts";

describe("hostile clients of a monitor", () => {
  it("get one answer a line, and leave nothing behind", async () => {
    const counts = new Map<string, number>();
    for (let seed = 1; seed <= 40; seed++) {
      const count = (what: string, by: number) => counts.set(what, (counts.get(what) ?? 0) + by);
      expect([seed, await fuzzer.round(seed, count)]).toEqual([seed, null]);
    }
    for (const what of ["done", "refused"]) expect([what, (counts.get(what) ?? 0) > 100]).toEqual([what, true]);
  });
});

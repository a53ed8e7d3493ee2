// A little of `nestbox fuzz gdb` in every test run.

import { describe, expect, it } from "vitest";
import { fuzzer } from "./gdb.ts";

describe("a hostile debugger", () => {
  it("gets one answer for each packet, and the machine runs on", async () => {
    const counts = new Map<string, number>();
    for (let seed = 1; seed <= 60; seed++) {
      const count = (what: string, by: number) => counts.set(what, (counts.get(what) ?? 0) + by);
      expect([seed, await fuzzer.round(seed, count)]).toEqual([seed, null]);
    }
    for (const what of ["asked", "asked while it runs", "damaged", "killed", "left"])
      expect([what, (counts.get(what) ?? 0) > 0]).toEqual([what, true]);
  });
});

/** Fixed seeds of hostile input; `nestbox fuzz vtd-registers` runs as many as one likes. */
import { describe, expect, it } from "vitest";
import { growth } from "./hardware/live-bytes.ts";
import { hostileSeed } from "./vtd-registers.ts";

describe("the VT-d unit under hostile input", () => {
  it("never throws, never loops, and keeps its reserved and read-only bits: 100 machines, 400 operations each", () => {
    for (let seed = 1; seed <= 100; seed++) expect([seed, hostileSeed(seed)]).toEqual([seed, null]);
  });

  it.each([1, 2])("holds no more memory after 12,000 operations than after 2,000 (seed %i)", (seed) => {
    expect(growth((operations, pause) => expect(hostileSeed(seed, operations, pause)).toBeNull())).toBeLessThan(
      1_000_000,
    );
  });
});

/** Fixed seeds of hostile input; `nestbox fuzz registers` runs as many as one likes. */
import { describe, expect, it } from "vitest";
import { growth } from "./hardware/live-bytes.ts";
import { hostileSeed } from "./registers.ts";

describe("the RISC-V IOMMU under hostile input", () => {
  it("never throws, never loops, and keeps its reserved and read-only bits: 150 machines, 400 operations each", () => {
    for (let seed = 1; seed <= 150; seed++) expect([seed, hostileSeed(seed)]).toEqual([seed, null]);
  });

  it.each([1, 2, 3, 4])("holds no more memory after 12,000 operations than after 2,000 (seed %i)", (seed) => {
    // Tables of tags and contexts may fill; a leak of a hundred bytes an operation would show.
    expect(growth((operations, pause) => expect(hostileSeed(seed, operations, pause)).toBeNull())).toBeLessThan(
      1_000_000,
    );
  });
});

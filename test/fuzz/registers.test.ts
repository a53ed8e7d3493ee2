/** Fixed seeds of hostile input; `npm run fuzz -- registers` runs as many as one likes. */
import { describe, expect, it } from "vitest";
import { hostileSeed } from "./registers.ts";

describe("the RISC-V IOMMU under hostile input", () => {
  it("never throws, never loops, and keeps its reserved and read-only bits: 150 machines, 400 operations each", () => {
    for (let seed = 1; seed <= 150; seed++) expect([seed, hostileSeed(seed)]).toEqual([seed, null]);
  });
});

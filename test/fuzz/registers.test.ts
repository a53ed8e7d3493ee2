/** Fixed seeds of hostile input; `nestbox fuzz registers` runs as many as one likes. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { hostileSeed } from "./registers.ts";

/** Bytes of live objects. */
function liveBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

describe("the RISC-V IOMMU under hostile input", () => {
  it("never throws, never loops, and keeps its reserved and read-only bits: 150 machines, 400 operations each", () => {
    for (let seed = 1; seed <= 150; seed++) expect([seed, hostileSeed(seed)]).toEqual([seed, null]);
  });

  it.each([1, 2, 3, 4])("holds no more memory after 12,000 operations than after 2,000 (seed %i)", (seed) => {
    const live: number[] = [];
    const measure = (operation: number) => {
      if (operation === 2_000 || operation === 11_999) live.push(liveBytes());
    };
    expect(hostileSeed(seed, 12_000, measure)).toBeNull();
    // Tables of tags and contexts may fill; a leak of a hundred bytes an operation would show.
    expect(live[1]! - live[0]!).toBeLessThan(1_000_000);
  });
});

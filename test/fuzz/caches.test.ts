/** Fixed seeds of the cache fuzzer; `nestbox fuzz caches` runs as many as one likes. */
import { describe, expect, it } from "vitest";
import { hardware } from "../oracle/riscv-iommu/hardware-adapter.ts";
import { huntSeed } from "../oracle/riscv-iommu/harness/hunt.ts";
import type { Tally } from "../oracle/riscv-iommu/harness/scenario.ts";

describe("the RISC-V IOMMU's caches", () => {
  it.each([1, 26, 51, 76])(
    "give no answer that §3.8 and §4.1 do not allow: 25 sequences of changes, invalidations and requests from seed %i",
    (first) => {
      const tally: Tally = { requests: 0, open: 0, stale: 0 };
      for (let seed = first; seed < first + 25; seed++) {
        expect(huntSeed("sequences", seed, hardware, console.log, tally)).toBe(true);
      }
      // Some sixty to a hundred requests each, a part of them with stale answers allowed.
      expect(tally.requests).toBeGreaterThan(25 * 50);
      expect(tally.stale).toBeGreaterThan(tally.requests / 20);
      expect(tally.open).toBeLessThan(tally.requests / 100);
    },
  );
});

/** A few thousand fixed seeds of the translation fuzzer; `nestbox fuzz translate` runs as many as one likes. */
import { describe, expect, it } from "vitest";
import { hardware } from "../oracle/riscv-iommu/hardware-adapter.ts";
import { huntSeed } from "../oracle/riscv-iommu/harness/hunt.ts";
import type { Tally } from "../oracle/riscv-iommu/harness/scenario.ts";

describe("the RISC-V IOMMU agrees with the oracle", () => {
  it.each([1, 501, 1001, 1501])(
    "on result, record, and every word stored: 500 configurations from seed %i",
    (first) => {
      const tally: Tally = { requests: 0, open: 0, stale: 0 };
      for (let seed = first; seed < first + 500; seed++) {
        expect(huntSeed("configurations", seed, hardware, console.log, tally)).toBe(true);
      }
      // 24 requests each, nearly all of them compared.
      expect(tally.requests).toBeGreaterThan(500 * 23);
      expect(tally.open).toBe(0);
    },
  );
});

import { describe, expect, it } from "vitest";
import { fuzzer } from "../../../fuzz/cpu-arm64.ts";

describe("random instruction streams", () => {
  it.each([1, 1_000_000, 0xdeadbeef])(
    "from seed %d never disturb the VMM, and end the same way however they are run",
    async (first) => {
      for (let seed = first; seed < first + 4; seed++) {
        expect([seed, await fuzzer.round(seed, () => {})]).toEqual([seed, null]);
      }
    },
  );
});

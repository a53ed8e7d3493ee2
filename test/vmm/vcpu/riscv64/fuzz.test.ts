import { describe, expect, it } from "vitest";
import { fuzz } from "../../../fuzz/cpu.ts";

describe("random instruction streams", () => {
  it.each([1, 1_000_000, 0xdeadbeef])(
    "from seed %d never disturb the VMM, and end the same way twice",
    async (seed) => {
      const lines: string[] = [];
      expect(await fuzz({ seed, seconds: 1, log: (line) => lines.push(line) }), lines.join("\n")).toBe(true);
    },
  );
});

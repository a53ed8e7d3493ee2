import { describe, expect, it } from "vitest";
import { hostileRun } from "./hostile-guest.ts";

describe("an NVMe controller under a hostile guest", () => {
  it("neither throws nor piles up work, and works after a reset", () => {
    for (let seed = 1; seed <= 300; seed++) expect(hostileRun(seed), `seed ${seed}`).toBeNull();
  });
});

/** Fixed seeds; `nestbox fuzz smmuv3-cmdqv-guest` runs as many as one likes. */
import { expect, it } from "vitest";
import { hostileCmdqvGuest } from "./smmuv3-cmdqv-guest.ts";

it("a hostile guest on its CMDQV disturbs neither another guest nor the host: 12 machines, 150 operations each", () => {
  let fetched = 0;
  for (let seed = 1; seed <= 12; seed++) {
    expect([seed, hostileCmdqvGuest(seed, (count) => (fetched += count))]).toEqual([seed, null]);
  }
  expect(fetched, "commands that the hardware fetched").toBeGreaterThan(100);
});

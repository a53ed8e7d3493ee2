// A little of `nestbox fuzz ioctl` in every test run.

import { expect, it } from "vitest";
import { fuzzRound } from "./ioctl.ts";

it("random iommufd requests break no invariant", () => {
  for (let seed = 1; seed <= 25; seed++) expect([seed, fuzzRound(seed)]).toEqual([seed, null]);
});

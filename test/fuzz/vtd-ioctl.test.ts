// A little of `nestbox fuzz ioctl` on VT-d units in every test run.

import { expect, it } from "vitest";
import { vtdRound } from "./ioctl/vtd-round.ts";

it("random iommufd requests neither stop a VT-d unit's queue nor lead a device's DMA out of what is mapped for it", () => {
  for (let seed = 1; seed <= 15; seed++) expect([seed, vtdRound(seed)]).toEqual([seed, null]);
});

// A little of `nestbox fuzz ioctl` in every test run.

import { expect, it } from "vitest";
import { smmuv3Round } from "./ioctl/smmuv3-round.ts";
import { vfioRound } from "./ioctl/vfio-round.ts";
import { fuzzRound } from "./ioctl.ts";

it("random iommufd requests break no invariant", () => {
  for (let seed = 1; seed <= 25; seed++) expect([seed, fuzzRound(seed)]).toEqual([seed, null]);
});

it("nor do they stop an SMMUv3, or lead a device's DMA out of what is mapped for it", () => {
  for (let seed = 1; seed <= 15; seed++) expect([seed, smmuv3Round(seed)]).toEqual([seed, null]);
});

it("VFIO's own files take any request of any process, on devices of either bus", () => {
  for (let seed = 1; seed <= 40; seed++) expect([seed, vfioRound(seed)]).toEqual([seed, null]);
});

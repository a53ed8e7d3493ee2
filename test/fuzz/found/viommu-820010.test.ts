// Found by `nestbox fuzz viommu`, seed 820010: a device whose detach the host refused was plugged in again where it had been, not blocked.
import { expect, it } from "vitest";
import type { Operation } from "../viommu/operations.ts";
import { runOperations } from "../viommu.ts";

const OPERATIONS: readonly Operation[] = [
  [19, 665742355, 1672388149, 993330573, 2140988824],
  [26, 1976283026, 3560767364, 2510624473, 4083848208],
  [15, 1827818492, 2067765592, 1180442626, 3123698893],
  [18, 3440882730, 3955432631, 301630382, 169052606],
];

it("a hostile guest finds nothing with what it found once (seed 820010)", () => {
  expect(runOperations(820010, OPERATIONS)).toBeNull();
});

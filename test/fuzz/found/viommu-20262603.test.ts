// Found by `npm run fuzz -- viommu`, seed 20262603: DMA of guest device 0x8 pasid -1 at 0x1600: the oracle says cause 15, it was done
import { expect, it } from "vitest";
import type { Operation } from "../viommu/operations.ts";
import { runOperations } from "../viommu.ts";

const OPERATIONS: readonly Operation[] = [
  [26, 1620827174, 1952526690, 2490884279, 2112624591],
  [15, 2608180928, 1846029162, 3100370318, 4015729019],
  [4, 3386554437, 3177889300, 3154130515, 1332513590],
  [10, 1814816482, 383534112, 1955558939, 230902628],
  [26, 2896164894, 1713281155, 3013616381, 1385631351],
  [12, 1901569055, 2764966113, 809330235, 838714944],
];

it("a hostile guest finds nothing with what it found once (seed 20262603)", () => {
  expect(runOperations(20262603, OPERATIONS)).toBeNull();
});

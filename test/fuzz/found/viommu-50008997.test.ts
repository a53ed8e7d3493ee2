// Found by `npm run fuzz -- viommu`, seed 50008997: DMA of guest device 0x8 pasid -1 at 0x5e00: the oracle says cause 15, it was done
import { expect, it } from "vitest";
import type { Operation } from "../viommu/operations.ts";
import { runOperations } from "../viommu.ts";

const OPERATIONS: readonly Operation[] = [
  [18, 2533737282, 1959106826, 3056636108, 3500866629],
  [26, 2093210152, 2745011490, 1060814837, 1604671994],
  [4, 2677132436, 1011343121, 1050046156, 3337426506],
  [15, 3420945775, 3869139071, 615869129, 1458587991],
  [10, 404797702, 570712405, 3081570265, 4199760828],
  [12, 2031148747, 466965029, 2907348506, 3094239496],
];

it("a hostile guest finds nothing with what it found once (seed 50008997)", () => {
  expect(runOperations(50008997, OPERATIONS)).toBeNull();
});

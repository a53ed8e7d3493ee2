// Sizes and offsets as `offsetof` gives them for include/uapi/linux/iommufd.h of Linux 7.2.

import { describe, expect, it } from "vitest";
import {
  iommuHwInfoArmSmmuv3,
  iommuHwInfoTegra241Cmdqv,
  iommuHwptArmSmmuv3,
  iommuVeventArmSmmuv3,
  iommuVeventTegra241Cmdqv,
  iommuViommuArmSmmuv3Invalidate,
  iommuViommuTegra241Cmdqv,
} from "../../../host/uapi/smmuv3-nesting.ts";

const WIDTHS = { u8: 1, u32: 4, le64: 8, u64: 8 } as const;

describe("SMMUv3 structures of iommufd", () => {
  // In the order of the C declarations; arrays written out.
  const cases = [
    [iommuHwInfoArmSmmuv3, "u32 u32 u32 u32 u32 u32 u32 u32 u32 u32", 40],
    [iommuHwInfoTegra241Cmdqv, "u32 u8 u8 u8 u8", 8],
    [iommuHwptArmSmmuv3, "le64 le64", 16],
    [iommuViommuArmSmmuv3Invalidate, "le64 le64", 16],
    [iommuVeventArmSmmuv3, "le64 le64 le64 le64", 32],
    [iommuViommuTegra241Cmdqv, "u64 u64", 16],
    [iommuVeventTegra241Cmdqv, "le64 le64", 16],
  ] as const;
  for (const [structure, types, bytes] of cases) {
    it(`${structure.name} lies as its C declaration does`, () => {
      let offset = 0;
      const expected = types.split(" ").map((type) => {
        const width = WIDTHS[type as keyof typeof WIDTHS];
        const at = Math.ceil(offset / width) * width;
        offset = at + width;
        return [at, width];
      });
      expect(Object.values(structure.fields).map(({ offset: at, bytes: width }) => [at, width])).toEqual(expected);
      expect([offset, structure.bytes]).toEqual([bytes, bytes]);
    });
  }
});

// Sizes and offsets as `offsetof` gives them for include/uapi/linux/iommufd.h of Linux 7.2.

import { describe, expect, it } from "vitest";
import { iommuHwInfoVtd, iommuHwptVtdS1, iommuHwptVtdS1Invalidate } from "../../../host/uapi/vtd-nesting.ts";

const WIDTHS = { u32: 4, aligned_u64: 8 } as const;

describe("VT-d structures of iommufd", () => {
  // In the order of the C declarations.
  const cases = [
    [iommuHwInfoVtd, "u32 u32 aligned_u64 aligned_u64", 24],
    [iommuHwptVtdS1, "aligned_u64 aligned_u64 u32 u32", 24],
    [iommuHwptVtdS1Invalidate, "aligned_u64 aligned_u64 u32 u32", 24],
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

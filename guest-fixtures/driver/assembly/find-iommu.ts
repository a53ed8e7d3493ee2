// Which IOMMU this machine has: the platform has a region for each, of one kind.

import { fail } from "./console";
import { Iommu } from "./iommu";
import { regionCount, IOMMU, SMMUV3, VTD } from "./machine";
import { RiscvIommu } from "./riscv-iommu";
import { Smmuv3 } from "./smmuv3";
import { Vtd } from "./vtd";

/** Number of IOMMUs. */
export function iommuCount(): u32 {
  return regionCount(IOMMU) + regionCount(SMMUV3) + regionCount(VTD);
}

/** The driver of IOMMU `index`; fails if there is none. */
export function findIommu(index: u32 = 0): Iommu {
  if (regionCount(IOMMU) > index) return new RiscvIommu(index);
  if (regionCount(SMMUV3) > index) return new Smmuv3(index);
  if (regionCount(VTD) > index) return new Vtd(index);
  fail("this machine has no IOMMU " + index.toString());
  return unreachable();
}

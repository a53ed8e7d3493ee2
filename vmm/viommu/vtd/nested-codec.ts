// VT-d's stage 1 over iommufd (host/uapi/vtd-nesting.ts): nested HWPTs stand on the parent HWPT and are a first stage's root, width and flags; invalidations
// are ranges of addresses, on the nested HWPT itself. Linux has no event queue for it.

import { ENTRY_EAFE, ENTRY_SRE, ENTRY_WPE } from "../../../host/arch/vtd/pasid-entries.ts";
import {
  IOMMU_HW_INFO_VTD_FAULT_VIOMMU,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VEVENTQ_TYPE_VTD,
  IOMMU_VIOMMU_TYPE_VTD,
  IOMMU_VTD_INV_FLAGS_LEAF,
  IOMMU_VTD_S1_EAFE,
  IOMMU_VTD_S1_SRE,
  IOMMU_VTD_S1_WPE,
  iommuHwInfoVtd,
  iommuHwptVtdS1,
  iommuHwptVtdS1Invalidate,
  iommuVeventVtd,
} from "../../../host/uapi/vtd-nesting.ts";
import type { HwptNesting } from "../nested-codec.ts";

export const VTD_NESTING: HwptNesting = {
  shape: "hwpt",
  stage1Type: IOMMU_HWPT_DATA_VTD_S1,
  invalidationType: IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  invalidationBytes: iommuHwptVtdS1Invalidate.bytes,
  // The guest's context entry says it, whoever installs a stage 1 then.
  wantsPageRequests: () => false,
  ofPasids: true,
  // Not Linux's: host/kernel/README.md, vtd-relay-faults.
  faults: {
    offered: (info) => (iommuHwInfoVtd.decode(info).flags & IOMMU_HW_INFO_VTD_FAULT_VIOMMU) !== 0,
    viommuType: IOMMU_VIOMMU_TYPE_VTD,
    eventType: IOMMU_VEVENTQ_TYPE_VTD,
    eventBytes: iommuVeventVtd.bytes,
  },
};

/** The first stage of a guest's sound PASID entry (16 halves), as HWPT_ALLOC takes it. */
export function stage1Data(words: Int32Array): Uint8Array {
  const w4 = words[4]!;
  const flags =
    ((w4 & ENTRY_SRE) === 0 ? 0 : IOMMU_VTD_S1_SRE) |
    ((w4 & ENTRY_WPE) === 0 ? 0 : IOMMU_VTD_S1_WPE) |
    ((w4 & ENTRY_EAFE) === 0 ? 0 : IOMMU_VTD_S1_EAFE);
  return iommuHwptVtdS1.encode({
    flags: BigInt(flags),
    pgtbl_addr: (BigInt(words[5]! >>> 0) << 32n) | BigInt((w4 & 0xfffff000) >>> 0),
    addr_width: ((w4 >>> 2) & 3) === 1 ? 57 : 48,
  });
}

/** Writes entry `index` of a batch: 2^order pages from `pfn` on, or (order 52) everything. */
export function writeInvalidation(
  words: Uint32Array,
  index: number,
  pfn: number,
  order: number,
  leavesOnly: boolean,
): void {
  const at = (index * iommuHwptVtdS1Invalidate.bytes) / 4;
  const everything = order >= 52;
  const pages = everything ? 0 : 2 ** order;
  words[at] = everything ? 0 : ((pfn % 2 ** 20) << 12) >>> 0;
  words[at + 1] = everything ? 0 : Math.floor(pfn / 2 ** 20);
  words[at + 2] = everything ? 0xffffffff : pages % 2 ** 32;
  words[at + 3] = everything ? 0xffffffff : Math.floor(pages / 2 ** 32);
  words[at + 4] = leavesOnly ? IOMMU_VTD_INV_FLAGS_LEAF : 0;
  words[at + 5] = 0;
}

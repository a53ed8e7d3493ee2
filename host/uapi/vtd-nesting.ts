// Intel VT-d's half of the iommufd interface, as Linux has it (uapi linux/iommufd.h): hw info, nested HWPT on a parent HWPT, invalidation on the nested
// HWPT. Linux has no vIOMMU type and no vEVENTQ type for it; those here are PROVISIONAL, in a range that it does not use, and only for hosts that ask for them.

import { layout, u32, u64 } from "../base/layout.ts";

/** GET_HW_INFO data type. */
export const IOMMU_HW_INFO_TYPE_INTEL_VTD = 1;
/** HWPT_ALLOC data type: nested first stage, allocated on a NEST_PARENT HWPT. */
export const IOMMU_HWPT_DATA_VTD_S1 = 1;
/** HWPT_INVALIDATE data type, target nested HWPT. */
export const IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0;

/** iommu_hw_info_vtd.flags: a NEST_PARENT HWPT takes no read-only mappings. Linux 7.2 sets it on all hardware. */
export const IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1;

/** Capability and extended capability register of the physical unit as they read: user space masks what its guest may not have. */
export const iommuHwInfoVtd = layout("iommu_hw_info_vtd", 24, {
  flags: u32(0),
  __reserved: u32(4),
  cap_reg: u64(8),
  ecap_reg: u64(16),
});

/** iommu_hwpt_vtd_s1.flags: bits of the guest's PASID table entry. */
export const IOMMU_VTD_S1_SRE = 1;
export const IOMMU_VTD_S1_EAFE = 2;
export const IOMMU_VTD_S1_WPE = 4;

/** The guest's first stage: `pgtbl_addr` is a guest-physical address, `addr_width` 48 or 57 bits. */
export const iommuHwptVtdS1 = layout("iommu_hwpt_vtd_s1", 24, {
  flags: u64(0),
  pgtbl_addr: u64(8),
  addr_width: u32(16),
  __reserved: u32(20),
});

/** iommu_hwpt_vtd_s1_invalidate.flags: only leaf entries have changed. */
export const IOMMU_VTD_INV_FLAGS_LEAF = 1;

/** `npages` of 4 KiB from `addr` on; address 0 and all ones: everything. */
export const iommuHwptVtdS1Invalidate = layout("iommu_hwpt_vtd_s1_invalidate", 24, {
  addr: u64(0),
  npages: u64(8),
  flags: u32(16),
  __reserved: u32(20),
});

/** iommu_hw_info_vtd.flags: those types are there. */
export const IOMMU_HW_INFO_VTD_FAULT_VIOMMU = 1 << 30;
/** VIOMMU_ALLOC type, VEVENTQ_ALLOC type: for faults alone (a deviation from Linux). */
export const IOMMU_VIOMMU_TYPE_VTD = 0xf0560001;
export const IOMMU_VEVENTQ_TYPE_VTD = 0xf0560002;

/** A fault record as FRCD holds it (VT-d §11.4.7.6), with the guest's source id. */
export const iommuVeventVtd = layout("iommu_vevent_vtd", 16, { frcd0: u64(0), frcd1: u64(8) });

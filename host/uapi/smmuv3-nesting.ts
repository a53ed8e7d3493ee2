// The Arm SMMUv3's half of the iommufd interface, as Linux has it (uapi linux/iommufd.h): hw info, vIOMMU, nested HWPT from the
// guest's stream table entry, the guest's own commands, its event records; and Tegra241 CMDQV beside it, whose vIOMMU lends a guest
// command queues of the hardware's.
//
// The two words that the structures call ste, cmd and evt are the SMMU's own little-endian formats (host/arch/smmuv3).

import { layout, u8, u32, u64 } from "../base/layout.ts";

/** GET_HW_INFO data type. */
export const IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2;
/** GET_HW_INFO data type: only where asked for by number. */
export const IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3;
/** HWPT_ALLOC data type: nested stage 1, allocated on an SMMUv3 vIOMMU. */
export const IOMMU_HWPT_DATA_ARM_SMMUV3 = 2;
/** VIOMMU_ALLOC types. */
export const IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2;
/** HWPT_INVALIDATE data type, target vIOMMU. */
export const IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1;
/** VEVENTQ_ALLOC types. */
export const IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2;
/** HW_QUEUE_ALLOC type. */
export const IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1;

/** SMMU_IDR0–5, IIDR and AIDR of the physical SMMU as they read: user space masks what its guest may not have. */
export const iommuHwInfoArmSmmuv3 = layout("iommu_hw_info_arm_smmuv3", 40, {
  flags: u32(0),
  __reserved: u32(4),
  idr0: u32(8),
  idr1: u32(12),
  idr2: u32(16),
  idr3: u32(20),
  idr4: u32(24),
  idr5: u32(28),
  iidr: u32(32),
  aidr: u32(36),
});

/** PARAM of the CMDQV: version (3:0), log2 of a VINTF's VCMDQs, log2 of its SID replacements (15:12). */
export const iommuHwInfoTegra241Cmdqv = layout("iommu_hw_info_tegra241_cmdqv", 8, {
  flags: u32(0),
  version: u8(4),
  log2vcmdqs: u8(5),
  log2vsids: u8(6),
  __reserved: u8(7),
});

/** The first two doublewords of the guest's stream table entry (IHI 0070 §5.2). */
export const iommuHwptArmSmmuv3 = layout("iommu_hwpt_arm_smmuv3", 16, { ste0: u64(0), ste1: u64(8) });

/** One command of the guest's command queue (IHI 0070 §4), as the guest wrote it. */
export const iommuViommuArmSmmuv3Invalidate = layout("iommu_viommu_arm_smmuv3_invalidate", 16, {
  cmd0: u64(0),
  cmd1: u64(8),
});

/** One event record (IHI 0070 §7.3) with the guest's StreamID. */
export const iommuVeventArmSmmuv3 = layout("iommu_vevent_arm_smmuv3", 32, {
  evt0: u64(0),
  evt1: u64(8),
  evt2: u64(16),
  evt3: u64(24),
});

/** Reply of VIOMMU_ALLOC: the VINTF's page 0, for mmap of the iommufd. */
export const iommuViommuTegra241Cmdqv = layout("iommu_viommu_tegra241_cmdqv", 16, {
  out_vintf_mmap_offset: u64(0),
  out_vintf_mmap_length: u64(8),
});

/** LVCMDQ_ERR_MAP of the VINTF: bit n says that logical VCMDQ n stands at an error. */
export const iommuVeventTegra241Cmdqv = layout("iommu_vevent_tegra241_cmdqv", 16, {
  lvcmdq_err_map0: u64(0),
  lvcmdq_err_map1: u64(8),
});

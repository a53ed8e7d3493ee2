// The SMMUv3's stage 1 over iommufd (host/uapi/smmuv3-nesting.ts): nested HWPTs are the first two doublewords of the guest's stream table entry;
// invalidations the guest's own 16-byte commands; events its 32-byte records.

import { CONFIG_BYPASS, CONFIG_S1 } from "../../../host/arch/smmuv3/stream-table-entry.ts";
import {
  IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV,
  IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
  iommuHwInfoTegra241Cmdqv,
  iommuHwptArmSmmuv3,
  iommuVeventArmSmmuv3,
  iommuViommuArmSmmuv3Invalidate,
  iommuViommuTegra241Cmdqv,
} from "../../../host/uapi/smmuv3-nesting.ts";
import type { ViommuNesting } from "../nested-codec.ts";

const V = 1n;
/** S1STALLD is bit 27, EATS 29:28 of doubleword 1: bits of byte 11. */
const STALLD = 1 << 3;
const EATS_FULL = 1 << 4;

export const SMMUV3_NESTING: ViommuNesting = {
  shape: "viommu",
  // Linux tags a guest's translations with the parent's VMID (arm_vsmmu_init): two guests' SMMUs on one would share ASIDs.
  ownParent: true,
  viommuType: () => IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  stage1Type: IOMMU_HWPT_DATA_ARM_SMMUV3,
  // V = 1 with Config 0 aborts everything, without a record.
  blocked: iommuHwptArmSmmuv3.encode({ ste0: V }),
  bypass: iommuHwptArmSmmuv3.encode({ ste0: V | BigInt(CONFIG_BYPASS << 1) }),
  // Stalled transactions come that way, and page requests where the kernel relays them.
  wantsPageRequests: (stage1) =>
    ((stage1[0]! >>> 1) & 7) === CONFIG_S1 && ((stage1[11]! & STALLD) === 0 || (stage1[11]! & EATS_FULL) !== 0),
  invalidationType: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  invalidationBytes: iommuViommuArmSmmuv3Invalidate.bytes,
  // Linux has those that wait for their batch of 63 counted already (arm_vsmmu_cache_invalidate).
  countsUnissued: true,
  eventType: IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  eventBytes: iommuVeventArmSmmuv3.bytes,
  hardwareQueues: {
    infoType: IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV,
    // The register map as it is known here.
    suits: (info) =>
      info.length >= iommuHwInfoTegra241Cmdqv.bytes && iommuHwInfoTegra241Cmdqv.decode(info).version === 1,
    viommuType: IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
    queueType: IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV,
    replyBytes: iommuViommuTegra241Cmdqv.bytes,
    page: (reply) => {
      const { out_vintf_mmap_offset, out_vintf_mmap_length } = iommuViommuTegra241Cmdqv.decode(reply);
      return { offset: out_vintf_mmap_offset, length: Number(out_vintf_mmap_length) };
    },
    eventType: IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV,
  },
};

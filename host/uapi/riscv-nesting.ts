// The RISC-V IOMMU's half of the iommufd interface: PROVISIONAL. Linux 7.2 has none of it; nestbox models what the review of the
// 2024 proposal asked for, shaped like Arm SMMUv3's (hw info, vIOMMU, vDEVICE, nested HWPT from inline context words, the guest's
// own commands, fault records as vEVENTs). All type values lie in 0xf0520000.., a range Linux does not use, and stand only here.

import { layout, u32, u64 } from "../base/layout.ts";

/** GET_HW_INFO data type. */
export const IOMMU_HW_INFO_TYPE_RISCV = 0xf0520001;
/** HWPT_ALLOC data type: nested stage 1, allocated on a RISC-V vIOMMU. */
export const IOMMU_HWPT_DATA_RISCV = 0xf0520002;
/** VIOMMU_ALLOC type. */
export const IOMMU_VIOMMU_TYPE_RISCV = 0xf0520003;
/** HWPT_INVALIDATE data type, target vIOMMU. */
export const IOMMU_VIOMMU_INVALIDATE_DATA_RISCV = 0xf0520004;
/** VEVENTQ_ALLOC type. */
export const IOMMU_VEVENTQ_TYPE_RISCV = 0xf0520005;

/** capabilities and fctl as the hardware's registers read. */
export const iommuHwInfoRiscv = layout("iommu_hw_info_riscv", 16, {
  capabilities: u64(0),
  fctl: u32(8),
  reserved: u32(12),
});

/** The guest's device-context words tc, fsc and ta (RISC-V IOMMU §3.1.3), as the guest wrote them. */
export const iommuHwptRiscv = layout("iommu_hwpt_riscv", 24, { tc: u64(0), fsc: u64(8), ta: u64(16) });

/** One command of the guest's command queue (§4.1), as the guest wrote it. */
export const iommuViommuRiscvInvalidate = layout("iommu_viommu_riscv_invalidate", 16, { cmd0: u64(0), cmd1: u64(8) });

/** One fault record (§4.2) with the guest's device id. */
export const iommuVeventRiscv = layout("iommu_vevent_riscv", 32, {
  word0: u64(0),
  word1: u64(8),
  iotval: u64(16),
  iotval2: u64(24),
});

// The RISC-V IOMMU's stage 1 over iommufd (host/uapi/riscv-nesting.ts): nested HWPTs are the context's words tc, fsc, ta; invalidations the
// guest's own 16-byte commands; events its 32-byte fault records.

import { TC_EN_PRI, TC_PDTV, TC_V } from "../../../host/arch/riscv/device-context.ts";
import {
  IOMMU_HWPT_DATA_RISCV,
  IOMMU_VEVENTQ_TYPE_RISCV,
  IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  IOMMU_VIOMMU_TYPE_RISCV,
  iommuHwptRiscv,
  iommuVeventRiscv,
  iommuViommuRiscvInvalidate,
} from "../../../host/uapi/riscv-nesting.ts";
import type { ViommuNesting } from "../nested-codec.ts";

export const RISCV_NESTING: ViommuNesting = {
  shape: "viommu",
  viommuType: () => IOMMU_VIOMMU_TYPE_RISCV,
  stage1Type: IOMMU_HWPT_DATA_RISCV,
  // V = 0 aborts everything, with records.
  blocked: iommuHwptRiscv.encode({}),
  // PDTV with a Bare directory: requests pass with and without a process_id (§3.3 step 7).
  bypass: iommuHwptRiscv.encode({ tc: BigInt(TC_V | TC_PDTV) }),
  wantsPageRequests: (stage1) => (stage1[0]! & TC_EN_PRI) !== 0,
  invalidationType: IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  invalidationBytes: iommuViommuRiscvInvalidate.bytes,
  eventType: IOMMU_VEVENTQ_TYPE_RISCV,
  eventBytes: iommuVeventRiscv.bytes,
};

// An SMMUv3 and its guest in the kernel's bench.

import { encodeCommand } from "../../../host/arch/smmuv3/commands.ts";
import * as S from "../../../host/uapi/smmuv3-nesting.ts";
import type { KernelKind } from "./kind.ts";

export const SMMUV3_KERNEL: KernelKind = {
  name: "smmuv3",
  machine: { ramPages: 16384, smmus: [{}] },
  viommu: S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  veventq: S.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  invalidation: S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  data: S.IOMMU_HWPT_DATA_ARM_SMMUV3,
  // V, Config 4; V, Config 5 and a table of context descriptors that is not there; the same with an S1CDMax that is ILLEGAL.
  bypass: S.iommuHwptArmSmmuv3.encode({ ste0: 0x9n }),
  stage1: S.iommuHwptArmSmmuv3.encode({ ste0: 0xbn | 0x1_0000_0000n }),
  faulting: S.iommuHwptArmSmmuv3.encode({ ste0: 0xbn | 0x1_0000_0000n | (31n << 59n) }),
  command: encodeCommand("TLBI_NH_VA", { ASID: 5, Leaf: 1, Address: 5 }),
};

// A RISC-V IOMMU and its guest in the kernel's bench.

import { encodeCommand } from "../../../host/arch/riscv/commands.ts";
import * as N from "../../../host/uapi/riscv-nesting.ts";
import type { KernelKind } from "./kind.ts";

export const RISCV_KERNEL: KernelKind = {
  name: "riscv",
  machine: { ramPages: 16384 },
  viommu: N.IOMMU_VIOMMU_TYPE_RISCV,
  veventq: N.IOMMU_VEVENTQ_TYPE_RISCV,
  invalidation: N.IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  data: N.IOMMU_HWPT_DATA_RISCV,
  bypass: N.iommuHwptRiscv.encode({ tc: 1n }),
  stage1: N.iommuHwptRiscv.encode({ tc: 1n, fsc: (8n << 60n) | 0x80010n, ta: 5n << 12n }),
  faulting: N.iommuHwptRiscv.encode({ tc: 1n }),
  command: encodeCommand("IOTINVAL.VMA", { AV: 1, ADDR: 5, PSCV: 1, PSCID: 5 }),
};

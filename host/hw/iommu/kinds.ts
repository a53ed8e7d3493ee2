// The kinds of hardware IOMMU there are: a folder and a line each. The kernel's drivers for them: host/kernel/iommu/kinds.ts.

import type { HardwareIommuKind } from "./kind.ts";
import { RISCV_HARDWARE } from "./riscv/kind.ts";
import { SMMUV3_HARDWARE } from "./smmuv3/kind.ts";
import { VTD_HARDWARE } from "./vtd/kind.ts";

export type HardwareKinds = Readonly<Record<string, HardwareIommuKind>>;

export const HARDWARE_KINDS: HardwareKinds = {
  riscv: RISCV_HARDWARE,
  smmuv3: SMMUV3_HARDWARE,
  vtd: VTD_HARDWARE,
};

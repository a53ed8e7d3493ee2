// The RISC-V IOMMU as a kind (../kind.ts).

import { registerName } from "../../../host/arch/riscv/registers.ts";
import { iommuHwInfoRiscv } from "../../../host/uapi/riscv-nesting.ts";
import type { ViommuKind } from "../kind.ts";
import type { RiscvConfiguration } from "./capabilities.ts";
import { RISCV_EXPLAINER } from "./explainer.ts";
import { RISCV_NESTING } from "./nested-codec.ts";
import { RISCV_NODE } from "./platform-node.ts";
import { RiscvViommu, VIOMMU_REGISTER_BYTES } from "./viommu.ts";

export const RISCV: ViommuKind<RiscvConfiguration> = {
  name: "riscv",
  title: "RISC-V IOMMU",
  registerBytes: VIOMMU_REGISTER_BYTES,
  registerName,
  nesting: RISCV_NESTING,
  streams: true,
  node: RISCV_NODE,
  explainer: RISCV_EXPLAINER,
  create: ({ hardware, ...options }) =>
    new RiscvViommu({ ...options, hardware: hardware === null ? null : iommuHwInfoRiscv.decode(hardware.bytes) }),
};

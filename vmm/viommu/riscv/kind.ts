// The RISC-V IOMMU as a kind (../kind.ts).

import { registerName } from "../../../host/arch/riscv/registers.ts";
import { iommuHwInfoRiscv } from "../../../host/uapi/riscv-nesting.ts";
import type { ViommuKind, ViommuOptions } from "../kind.ts";
import type { RiscvConfiguration } from "./capabilities.ts";
import { RISCV_EXPLAINER } from "./explainer.ts";
import { RISCV_GUEST } from "./guest/guest-side.ts";
import { RISCV_NESTING } from "./nested-codec.ts";
import { RISCV_NODE } from "./platform-node.ts";
import { RiscvViommu, VIOMMU_REGISTER_BYTES } from "./viommu.ts";

export const RISCV = {
  name: "riscv",
  title: "RISC-V IOMMU",
  registerBytes: VIOMMU_REGISTER_BYTES,
  registerName,
  nesting: RISCV_NESTING,
  streams: true,
  node: RISCV_NODE,
  guest: RISCV_GUEST,
  explainer: RISCV_EXPLAINER,
  create: ({ hardware, ...options }: ViommuOptions<RiscvConfiguration>) =>
    new RiscvViommu({ ...options, hardware: hardware === null ? null : iommuHwInfoRiscv.decode(hardware.bytes) }),
} satisfies ViommuKind<RiscvConfiguration>;

// The RISC-V IOMMU in a device tree (Documentation/devicetree/bindings/iommu/riscv,iommu.yaml) and in the component world.

import type { PlatformNode } from "../platform-node.ts";

export const RISCV_NODE: PlatformNode = {
  architecture: "riscv64",
  deviceTree: ({ msiParent, identityRegion }) => ({
    compatible: "riscv,iommu",
    "#iommu-cells": [1],
    "msi-parent": [msiParent],
    // No binding has a word for it; Linux leaves devices in an identity domain here.
    "nestbox,identity-region": identityRegion,
  }),
  region: "iommu",
  wires: 16,
};

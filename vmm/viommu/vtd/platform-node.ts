// VT-d as a platform describes it. Firmware of its own machines says so in ACPI's DMAR table; a component guest finds the register page by its region, and
// is told the rest by the unit's own registers. There is no device-tree binding: what a tree has is enough to find it.

import type { PlatformNode } from "../platform-node.ts";

export const VTD_NODE: PlatformNode = {
  deviceTree: ({ msiParent, identityRegion }) => ({
    compatible: "nestbox,vtd",
    "#iommu-cells": [1],
    "dma-coherent": true,
    "msi-parent": [msiParent],
    "nestbox,identity-region": identityRegion,
  }),
  region: "vtd",
  // Messages only (§11.4).
  wires: 0,
};

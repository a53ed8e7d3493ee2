// VT-d as a platform describes it. Firmware of its own machines says so in ACPI's DMAR table; what that says there, these say here:
//
//     DRHD: register base, segment     the node's `reg`, or the component world's region; all of it is PCI segment 0
//     DRHD: device scopes              `iommu-map` of the host bridge; a component guest's list of devices, each with its IOMMU
//     host address width               nestbox,host-address-width; a component guest reads CAP.MGAW, which is the same here
//     flags: INTR_REMAP                ECAP.IR: every unit here has it, and no firmware forbids it
//
// There is no device-tree binding.

import type { PlatformNode } from "../platform-node.ts";
import { GUEST_ADDRESS_BITS } from "./capabilities.ts";

export const VTD_NODE: PlatformNode = {
  deviceTree: ({ msiParent, identityRegion }) => ({
    compatible: "nestbox,vtd",
    "#iommu-cells": [1],
    "nestbox,host-address-width": [GUEST_ADDRESS_BITS],
    "dma-coherent": true,
    "msi-parent": [msiParent],
    "nestbox,identity-region": identityRegion,
  }),
  region: "vtd",
  // Messages only (§11.4).
  wires: 0,
};

// The SMMUv3 in a device tree (Documentation/devicetree/bindings/iommu/arm,smmu-v3.yaml) and in the component world.

import type { PlatformNode } from "../platform-node.ts";

/** In the order of its wires. */
const WIRES = ["eventq", "priq", "cmdq-sync", "gerror"];

export const SMMUV3_NODE: PlatformNode = {
  deviceTree: ({ msiParent, identityRegion, wires }) => ({
    compatible: "arm,smmu-v3",
    "#iommu-cells": [1],
    "dma-coherent": true,
    ...(wires === undefined
      ? { "msi-parent": [msiParent] }
      : { interrupts: wires.slice(0, WIRES.length).flat(), "interrupt-names": WIRES }),
    // The devices behind it need it mapped one to one; an IORT would say so with RMR nodes, a tree of this binding has no word for it.
    "nestbox,identity-region": identityRegion,
  }),
  region: "smmuv3",
  // §3.18: event queue, page requests, CMD_SYNC, global errors.
  wires: 4,
  edges: true,
};

// The SMMUv3 in a device tree (Documentation/devicetree/bindings/iommu/arm,smmu-v3.yaml) and in the component world.

import type { PlatformNode } from "../platform-node.ts";
import { CMDQV_BYTES, CMDQV_OFFSET } from "./guest-cmdqv.ts";

/** In the order of its wires. */
const WIRES = ["eventq", "priq", "cmdq-sync", "gerror"];
/** Of the CMDQV beside it (host/arch/smmuv3/parts/interrupts.ts). */
const CMDQV_WIRE = 4;

export const SMMUV3_NODE: PlatformNode = {
  architecture: "arm64",
  deviceTree: ({ msiParent, identityRegion, wires, companion }) => ({
    ...(companion === undefined
      ? { compatible: "arm,smmu-v3" }
      : { compatible: ["nvidia,tegra264-smmu", "arm,smmu-v3"], "nvidia,cmdqv": [companion] }),
    "#iommu-cells": [1],
    "dma-coherent": true,
    ...(wires === undefined
      ? { "msi-parent": [msiParent] }
      : { interrupts: wires.slice(0, WIRES.length).flat(), "interrupt-names": WIRES }),
    // The devices behind it need it mapped one to one; an IORT would say so with RMR nodes, a tree of this binding has no word for it.
    "nestbox,identity-region": identityRegion,
  }),
  // bindings/iommu/nvidia,tegra264-cmdqv.yaml
  companion: {
    name: "cmdqv",
    offset: CMDQV_OFFSET,
    bytes: CMDQV_BYTES,
    properties: (wires) => ({
      compatible: "nvidia,tegra264-cmdqv",
      ...(wires === undefined || wires.length <= CMDQV_WIRE ? {} : { interrupts: wires[CMDQV_WIRE]! }),
    }),
  },
  region: "smmuv3",
  // §3.18: event queue, page requests, CMD_SYNC, global errors; and the CMDQV's.
  wires: 5,
  edges: true,
};

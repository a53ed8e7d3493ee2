// The hosts that ship: the documents of host/examples. `two-iommus` is the default.

import { type HostDescription, parseHost } from "./description.ts";
import arm from "./examples/arm.json" with { type: "json" };
import armCmdqv from "./examples/arm-cmdqv.json" with { type: "json" };
import intel from "./examples/intel.json" with { type: "json" };
import oneIommu from "./examples/one-iommu.json" with { type: "json" };
import twoIommus from "./examples/two-iommus.json" with { type: "json" };

const DOCUMENTS = {
  "two-iommus": twoIommus,
  "one-iommu": oneIommu,
  arm: arm,
  "arm-cmdqv": armCmdqv,
  intel: intel,
};

export const builtInHosts: readonly HostDescription[] = Object.values(DOCUMENTS).map((document) =>
  parseHost(document, document.name),
);
export const DEFAULT_HOST = "two-iommus";

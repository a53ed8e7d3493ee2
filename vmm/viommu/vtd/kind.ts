// Intel VT-d as a kind (../kind.ts).

import { faultRecordingRegister, invalidationRegisters, REG } from "../../../host/arch/vtd/registers.ts";
import { iommuHwInfoVtd } from "../../../host/uapi/vtd-nesting.ts";
import type { ViommuKind, ViommuOptions } from "../kind.ts";
import { deriveCapabilities, type HardwareCapabilities, type VtdConfiguration } from "./capabilities.ts";
import { VTD_EXPLAINER } from "./explainer.ts";
import { VTD_GUEST } from "./guest/guest-side.ts";
import { VTD_NESTING } from "./nested-codec.ts";
import { VTD_NODE } from "./platform-node.ts";
import { VIOMMU_REGISTER_BYTES, VtdViommu } from "./viommu.ts";

/** GET_HW_INFO's data as capability registers. */
function capabilities(bytes: Uint8Array): HardwareCapabilities {
  const { cap_reg, ecap_reg } = iommuHwInfoVtd.decode(bytes);
  return { cap: cap_reg, ecap: ecap_reg };
}

/** Where its movable registers stand is the same whatever the host is. */
const { features } = deriveCapabilities(null);
const NAMES: ReadonlyMap<number, string> = new Map([
  ...Object.entries(REG).map(([name, offset]) => [offset, name] as const),
  [invalidationRegisters(features), "IVA"],
  [invalidationRegisters(features) + 8, "IOTLB"],
  ...Array.from({ length: features.NFR + 1 }, (_, i) => [faultRecordingRegister(features, i), `FRCD${i}`] as const),
]);

export const VTD = {
  name: "vtd",
  title: "Intel VT-d",
  registerBytes: VIOMMU_REGISTER_BYTES,
  registerName: (offset: number) =>
    NAMES.get(offset) ?? NAMES.get(offset & ~7) ?? NAMES.get(offset & ~15) ?? `0x${offset.toString(16)}`,
  nesting: VTD_NESTING,
  streams: true,
  node: VTD_NODE,
  guest: VTD_GUEST,
  explainer: VTD_EXPLAINER,
  create: ({ hardware, ...options }: ViommuOptions<VtdConfiguration>) =>
    new VtdViommu({ ...options, hardware: hardware === null ? null : capabilities(hardware.bytes) }),
} satisfies ViommuKind<VtdConfiguration>;

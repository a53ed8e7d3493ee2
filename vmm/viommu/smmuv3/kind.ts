// The SMMUv3 as a kind (../kind.ts).

import { REGISTER_BYTES, registerAt } from "../../../host/arch/smmuv3/registers.ts";
import { iommuHwInfoArmSmmuv3 } from "../../../host/uapi/smmuv3-nesting.ts";
import type { ViommuKind, ViommuOptions } from "../kind.ts";
import type { HardwareIdentification, Smmuv3Configuration } from "./capabilities.ts";
import { SMMUV3_EXPLAINER } from "./explainer.ts";
import { SMMUV3_GUEST } from "./guest/guest-side.ts";
import { CMDQV_BYTES, CMDQV_OFFSET } from "./guest-cmdqv.ts";
import { SMMUV3_NESTING } from "./nested-codec.ts";
import { SMMUV3_NODE } from "./platform-node.ts";
import { Smmuv3Viommu } from "./viommu.ts";

/** GET_HW_INFO's data as identification registers. */
function identification(bytes: Uint8Array): HardwareIdentification {
  const info = iommuHwInfoArmSmmuv3.decode(bytes);
  return {
    IDR0: BigInt(info.idr0),
    IDR1: BigInt(info.idr1),
    IDR3: BigInt(info.idr3),
    IDR5: BigInt(info.idr5),
    AIDR: BigInt(info.aidr),
    IIDR: info.iidr,
  };
}

export const SMMUV3 = {
  name: "smmuv3",
  title: "Arm SMMUv3",
  registerBytes: REGISTER_BYTES,
  // A CMDQV's registers behind them, where the guest has one.
  addressBytes: CMDQV_OFFSET + CMDQV_BYTES,
  registerName: (offset: number) => registerAt(offset)?.name ?? `0x${offset.toString(16)}`,
  nesting: SMMUV3_NESTING,
  streams: true,
  node: SMMUV3_NODE,
  guest: SMMUV3_GUEST,
  explainer: SMMUV3_EXPLAINER,
  create: ({ hardware, ...options }: ViommuOptions<Smmuv3Configuration>) =>
    new Smmuv3Viommu({ ...options, hardware: hardware === null ? null : identification(hardware.bytes) }),
} satisfies ViommuKind<Smmuv3Configuration>;

// An SMMUv3 with a CMDQV beside it as the kernel's driver of the kind finds them: in the SMMU's node is a reference to the CMDQV's (nvidia,cmdqv).

import type { MmioPort } from "../../../../base/mmio.ts";
import type { HardwareIommu } from "../../port.ts";

/** Registers of the CMDQV. */
export interface CmdqvHardware extends MmioPort {
  readonly registerBytes: number;
}

export interface SmmuHardware extends HardwareIommu {
  /** null or absent: there is none. Its interrupt is the SMMU's wire 4. */
  readonly cmdqv?: CmdqvHardware | null;
}

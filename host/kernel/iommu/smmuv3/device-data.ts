// What the driver keeps for a device (Linux: struct arm_smmu_master): its SMMU, its table of context descriptors while one is in use, and
// whether its ATS is on. Which domains it is on is the core's record (../attachments.ts).

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { IommuDevice } from "../driver.ts";
import type { ContextTable } from "./context-table.ts";
import type { Smmuv3Instance } from "./instance.ts";
import type { StreamTraits } from "./stream-entries.ts";

export class DeviceData implements Stateful {
  readonly smmu: Smmuv3Instance;
  readonly traits: StreamTraits;
  /** What the device's stream leads to; null while it leads to none of the host's. */
  contexts: ContextTable | null = null;
  /** The device may ask for translations, and hold some. */
  ats = false;

  constructor(smmu: Smmuv3Instance, device: IommuDevice) {
    this.smmu = smmu;
    this.traits = {
      overridesAttributes: smmu.features.ATTR_TYPES_OVR,
      choosesStalls: smmu.choosesStalls,
      el2: smmu.el2,
      stalls: smmu.stalls(device),
    };
  }

  saveState(): StateRecord {
    return { ats: this.ats };
  }

  restoreState(state: StateReader): void {
    this.ats = state.boolean("ats");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    if (this.contexts !== null) yield ["context table", this.contexts];
  }
}

export function deviceDataOf(device: IommuDevice): DeviceData {
  return device.driverData as DeviceData;
}

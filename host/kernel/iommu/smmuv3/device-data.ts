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
  readonly canRelayPageRequests: boolean;
  /** What the device's stream leads to; null while it leads to none of the host's. */
  contexts: ContextTable | null = null;
  /** The device may ask for translations, and hold some. */
  ats = false;
  /** The device may send page requests; only where the kernel deviates from Linux (deviations.ts). */
  pageRequests = false;
  /** By what id the guest knows the device that a nested domain's events are about; null: nobody is told. */
  guestStream: bigint | null = null;

  /** `relaysPageRequests`: somebody may want the device's page requests. */
  constructor(smmu: Smmuv3Instance, device: IommuDevice, relaysPageRequests: boolean) {
    this.smmu = smmu;
    this.canRelayPageRequests = relaysPageRequests && device.hasPri && smmu.features.PRI;
    this.traits = {
      overridesAttributes: smmu.features.ATTR_TYPES_OVR,
      choosesStalls: smmu.choosesStalls,
      el2: smmu.el2,
      stalls: smmu.stalls(device),
    };
  }

  saveState(): StateRecord {
    return { ats: this.ats, pageRequests: this.pageRequests, guestStream: this.guestStream };
  }

  restoreState(state: StateReader): void {
    this.ats = state.boolean("ats");
    this.pageRequests = state.boolean("pageRequests");
    this.guestStream = state.optional("guestStream", (reader, name) => reader.bigint(name));
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    if (this.contexts !== null) yield ["context table", this.contexts];
  }
}

export function deviceDataOf(device: IommuDevice): DeviceData {
  return device.driverData as DeviceData;
}

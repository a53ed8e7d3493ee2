// What the driver keeps for a device (Linux: struct device_domain_info): its unit, its PASID table in scalable mode, and which services were switched on
// for it. Which domains it is on is the core's record (../attachments.ts).

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { IommuDevice } from "../driver.ts";
import type { PasidTable } from "./pasid-table.ts";
import type { VtdUnit } from "./unit.ts";

export class DeviceData implements Stateful {
  readonly unit: VtdUnit;
  /** null: legacy mode, which has no PASIDs. */
  readonly pasids: PasidTable | null;
  /** The device may ask for translations, and hold some. In scalable mode from its probing on, else while it is on a domain that translates. */
  ats = false;
  /** The device may send page requests. */
  readonly pageRequests: boolean;

  constructor(unit: VtdUnit, pasids: PasidTable | null, pageRequests: boolean) {
    this.unit = unit;
    this.pasids = pasids;
    this.pageRequests = pageRequests;
  }

  saveState(): StateRecord {
    return { ats: this.ats };
  }

  restoreState(state: StateReader): void {
    this.ats = state.boolean("ats");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    if (this.pasids !== null) yield ["PASID table", this.pasids];
  }
}

export function deviceDataOf(device: IommuDevice): DeviceData {
  return device.driverData as DeviceData;
}

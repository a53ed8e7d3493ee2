// The driver's half of a vIOMMU that is there for faults alone: a deviation from Linux (deviations.ts), which has no vIOMMU type for VT-d and tells nobody.
// Nested HWPTs stand on the parent HWPT as ever, and invalidations go to them.
//
//     fault record ─▶ the vIOMMU that has a vDEVICE of the device ─▶ its vEVENTQ, as a record with the guest's source id

import { FAULT_RECORD } from "../../../arch/vtd/fault-records.ts";
import type { Stateful, StateRecord } from "../../../base/state.ts";
import { EINVAL, EOPNOTSUPP } from "../../../uapi/errno.ts";
import { IOMMU_VEVENTQ_TYPE_VTD, iommuVeventVtd } from "../../../uapi/vtd-nesting.ts";
import type { IommuDevice, VdeviceBackendView, ViommuBackend, ViommuCore } from "../driver.ts";

/** Source ids have 16 bits. */
const SOURCE_IDS = 1n << 16n;

export class FaultViommu implements ViommuBackend, Stateful {
  readonly #core: ViommuCore;
  readonly #destroyed: (viommu: FaultViommu) => void;

  constructor(core: ViommuCore, destroyed: (viommu: FaultViommu) => void) {
    this.#core = core;
    this.#destroyed = destroyed;
  }

  allocNested(): number {
    return -EOPNOTSUPP;
  }

  vdeviceInit({ virtualId }: VdeviceBackendView): number {
    return virtualId >= SOURCE_IDS ? -EINVAL : 0;
  }

  /** True if a guest has the device: its record is in the event queue, or was lost there. */
  report(device: IommuDevice, words: readonly bigint[]): boolean {
    const virtualId = this.#core.virtualIdOf(device);
    if (virtualId === null) return false;
    const record = [...words];
    FAULT_RECORD.set(record, "SID", virtualId);
    const bytes = iommuVeventVtd.encode({ frcd0: record[0]!, frcd1: record[1]! });
    return this.#core.reportEvent(IOMMU_VEVENTQ_TYPE_VTD, bytes) >= 0;
  }

  destroy(): void {
    this.#destroyed(this);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}
}

// What one context knows of an iommu group (Linux: struct iommufd_group): which HWPT is attached at the requester id and at each
// PASID, for which of its bound devices, and what its MSIs need.
//
// A group is switched as a whole: the first device that attaches moves all of them, later ones must name the same HWPT and only
// add their reserved regions; the last one that detaches blocks the group.

import type { AttachHandle } from "../iommu/attachments.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { IommufdContext } from "./context.ts";
import type { BoundDevice } from "./device.ts";
import type { HwPagetable } from "./hw-pagetable.ts";

export interface GroupAttachment {
  hwpt: HwPagetable;
  /** What the iommu core has for it; page requests are told apart by it. */
  handle: AttachHandle;
  readonly devices: Set<BoundDevice>;
}

export class DeviceGroup {
  readonly group: IommuGroup;
  readonly context: IommufdContext;
  /** By PASID; NO_PASID for the requester id. */
  readonly attachments = new Map<number, GroupAttachment>();
  readonly devices = new Set<BoundDevice>();
  /** Start of the SW_MSI window its IOMMU reports; null: messages are not translated. */
  msiWindow: bigint | null = null;
  /** Doorbell pages (ids of the context's SoftwareMsi) that its devices write to. */
  readonly requiredMsi = new Set<number>();

  private constructor(context: IommufdContext, group: IommuGroup) {
    this.context = context;
    this.group = group;
  }

  static of(context: IommufdContext, group: IommuGroup): DeviceGroup {
    let known = context.deviceGroups.get(group);
    if (known === undefined) {
      known = new DeviceGroup(context, group);
      context.deviceGroups.set(group, known);
    }
    return known;
  }

  /** Forgets the group when no device of it is bound any more. */
  dropIfUnused(): void {
    if (this.devices.size === 0) this.context.deviceGroups.delete(this.group);
  }
}

// What one context knows of an iommu group (Linux: struct iommufd_group): which HWPT is attached at the requester id and at each
// PASID, for which of its bound devices, and what its MSIs need.
//
// A group is switched as a whole: the first device that attaches moves all of them, later ones must name the same HWPT and only
// add their reserved regions; the last one that detaches blocks the group.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import type { AttachHandle } from "../iommu/attachments.ts";
import type { IommuGroup } from "../iommu/group.ts";
import { inSavedOrder, numbersOf, refillMap, refillSet, textsOf } from "../same-objects.ts";
import type { IommufdContext } from "./context.ts";
import type { BoundDevice } from "./device.ts";
import type { HwPagetable } from "./hw-pagetable.ts";
import { nameOfObject } from "./object-table.ts";

export interface GroupAttachment {
  hwpt: HwPagetable;
  /** What the iommu core has for it; page requests are told apart by it. */
  handle: AttachHandle;
  readonly devices: Set<BoundDevice>;
}

export class DeviceGroup implements Stateful {
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

  /** Devices and what they are attached to must be the same. */
  saveState(): StateRecord {
    return {
      devices: [...this.devices].map(nameOfObject),
      attachments: [...this.attachments].map((entry) => ({
        name: attachmentName(entry),
        devices: [...entry[1].devices].map(nameOfObject),
      })),
      msiWindow: this.msiWindow,
      requiredMsi: [...this.requiredMsi],
    };
  }

  restoreState(state: StateReader): void {
    refillSet(this.devices, inSavedOrder(state, this.devices, nameOfObject, textsOf(state, "devices")));
    const saved = state.records("attachments");
    const names = saved.map((attachment) => attachment.text("name"));
    const attachments = inSavedOrder(state, this.attachments, attachmentName, names);
    refillMap(this.attachments, attachments);
    for (const [index, [, { devices }]] of attachments.entries()) {
      const reader = saved[index]!;
      refillSet(devices, inSavedOrder(reader, devices, nameOfObject, textsOf(reader, "devices")));
    }
    this.msiWindow = state.optional("msiWindow", (reader, name) => reader.bigint(name));
    refillSet(this.requiredMsi, numbersOf(state, "requiredMsi"));
  }
}

function attachmentName([pasid, { hwpt }]: readonly [number, GroupAttachment]): string {
  return `attachment to ${nameOfObject(hwpt)}${pasid === NO_PASID ? "" : ` at PASID ${pasid}`}`;
}

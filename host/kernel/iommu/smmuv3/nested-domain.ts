// Nested domains: the guest's own stage 1 over a parent's stage 2, from the guest's stream table entry (guest-stream-entry.ts). The context
// descriptors and tables that it leads to stay in guest memory; the hardware fetches them through stage 2.
//
// The StreamID by which the guest knows a device is found out when the device is attached, and kept (Linux: struct arm_smmu_vmaster): events
// go by it until the device is attached elsewhere, also after its vDEVICE has gone. Invalidations go by the vDEVICE.

import { CONFIG_S1 } from "../../../arch/smmuv3/stream-table-entry.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EBUSY, EINVAL, ENOENT } from "../../../uapi/errno.ts";
import type { Attachment, AttachmentList } from "../attachments.ts";
import type { IommuDevice, NestedDomain } from "../driver.ts";
import { deviceDataOf } from "./device-data.ts";
import type { Smmuv3Driver } from "./driver.ts";
import { acceptGuestEntry, type GuestStreamEntry, nestedStreamEntry } from "./guest-stream-entry.ts";
import type { Smmuv3PagingDomain } from "./paging-domain.ts";
import { attachWholeStream } from "./stream-switch.ts";
import type { Smmuv3Viommu } from "./viommu.ts";

export class Smmuv3NestedDomain implements NestedDomain, Stateful {
  readonly kind = "nested";
  readonly owner: Smmuv3Driver;
  readonly parent: Smmuv3PagingDomain;
  readonly viommu: Smmuv3Viommu;
  #guest: GuestStreamEntry;

  constructor(viommu: Smmuv3Viommu, guest: GuestStreamEntry) {
    this.viommu = viommu;
    this.owner = viommu.driver;
    this.parent = viommu.parent;
    this.#guest = guest;
  }

  /** All nested domains of a vIOMMU are cached under one tag. */
  get attachments(): AttachmentList {
    return this.viommu.attachments;
  }

  /**
   * -EINVAL behind another SMMU, -EBUSY while PASIDs have domains of the host's, -ENOENT with a stage 1 for a device that the guest has no name
   * for: it could neither invalidate nor be told of faults.
   */
  attach(device: IommuDevice): number {
    if (deviceDataOf(device).smmu !== this.viommu.smmu) return -EINVAL;
    if (device.attachments.pasids.size > 0) return -EBUSY;
    const guestStream = this.viommu.core.virtualIdOf(device);
    if (guestStream === null && this.#guest.config === CONFIG_S1) return -ENOENT;
    return attachWholeStream(device, {
      // Where the guest does not say, the host's own rule: on where it can be (arm_smmu_attach_dev_nested).
      ats: this.#guest.ats ?? true,
      guestStream,
      entry: (ats) => nestedStreamEntry(this.#guest, this.parent.secondStageEntry(device, ats)),
    });
  }

  left(gone: Attachment): void {
    this.parent.left(gone);
  }

  free(): void {
    if (this.attachments.items.some(({ domain }) => domain === this))
      throw new Error("a nested domain is freed in use");
    this.viommu.nestedDomainFreed();
  }

  describe(): string {
    const { config, ste0, ste1 } = this.#guest;
    const over = `over VMID=${this.viommu.vmid}`;
    if (config !== CONFIG_S1) return config === 0 ? `aborted by the guest, ${over}` : `stage 1 bypassed, ${over}`;
    return `guest's STE 0x${ste0.toString(16)} 0x${ste1.toString(16)}, ${over}`;
  }

  saveState(): StateRecord {
    return { ste0: this.#guest.ste0, ste1: this.#guest.ste1 };
  }

  restoreState(state: StateReader): void {
    const guest = acceptGuestEntry(state.bigint("ste0"), state.bigint("ste1"));
    this.#guest = typeof guest === "number" ? state.fail("ste0", "is not what a guest may have") : guest;
  }
}

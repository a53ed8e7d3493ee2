// A VFIO group: the devices of one iommu group that are bound to vfio-pci, as /dev/vfio/$GROUP shows them (Linux: vfio/group.c). It,
// not its open file, owns what user space put it into: a container - which claims the iommu group at once and is left only when no
// device is open - or an iommufd acting as one, which claims with each device and may be taken away under open devices.
//
//     container   enter: claim            device opened: one more user, keeps the group's file       leave: the last user
//     iommufd     enter: a reference      device opened: bound to the context, which it keeps        leave: any time
//     last device unbound     out of the container, claim given back, iommu group gone: ENODEV from then on
//
// The group's file and the devices' nodes exclude each other: while a device of it is bound through its node the group cannot
// be opened, and while the group is open no device can be bound. Requests on the file: group-file.ts.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EBUSY, EINVAL, ENODEV } from "../../uapi/errno.ts";
import type { OpenFile } from "../file.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { IommufdContext } from "../iommufd/context.ts";
import { createCompatibilityIoas } from "../iommufd/in-kernel.ts";
import { requireText } from "../same-objects.ts";
import type { VfioContainerFile } from "./container.ts";
import type { VfioDevice } from "./device.ts";

export class VfioGroup implements Stateful {
  readonly id: number;
  readonly devices = new Set<VfioDevice>(); // not state: bound devices are the same
  /** The group's open file: it is open once at most. */
  openedFile: OpenFile | null = null;
  #iommuGroup: IommuGroup | null; // not state: gone with the last device
  #container: VfioContainerFile | null = null;
  /** Devices opened through the container. */
  #containerDevices = 0;
  #iommufd: IommufdContext | null = null;
  #cdevs = 0;

  constructor(iommuGroup: IommuGroup) {
    this.id = iommuGroup.id;
    this.#iommuGroup = iommuGroup;
  }

  /** null once its last device was unbound. */
  get iommuGroup(): IommuGroup | null {
    return this.#iommuGroup;
  }

  /** It is in a container or an iommufd (vfio_group_has_iommu). */
  get hasIommu(): boolean {
    return this.#container !== null || this.#iommufd !== null;
  }

  /** The iommufd that acts as its container. */
  get iommufd(): IommufdContext | null {
    return this.#iommufd;
  }

  // --- container ---

  /** -EINVAL when it is in one already, -ENODEV without devices, else what the container says (-EPERM: somebody uses the group). */
  enterContainer(file: VfioContainerFile): number {
    const { refusal, iommuGroup } = this.#mayEnter();
    if (iommuGroup === null) return refusal;
    const attached = file.container.attachGroup(iommuGroup, this);
    if (attached === 0) this.#container = file.get();
    return attached;
  }

  /** As enterContainer; claims nothing, but gives the context a compatibility IOAS. */
  enterIommufd(context: IommufdContext): number {
    const { refusal, iommuGroup } = this.#mayEnter();
    if (iommuGroup === null) return refusal;
    const created = createCompatibilityIoas(context);
    if (created < 0) return created;
    context.file.get();
    this.#iommufd = context;
    return 0;
  }

  /** 0, or why the group cannot enter anything: what a descriptor that is neither gets told before that (group-file.ts). */
  get refusesToEnter(): number {
    return this.#mayEnter().refusal;
  }

  #mayEnter(): { refusal: number; iommuGroup: IommuGroup | null } {
    if (this.hasIommu) return { refusal: -EINVAL, iommuGroup: null };
    const iommuGroup = this.#iommuGroup;
    return { refusal: iommuGroup === null ? -ENODEV : 0, iommuGroup };
  }

  /** UNSET_CONTAINER: -EINVAL when it is in none, -EBUSY under devices opened through a container. */
  leave(): number {
    if (!this.hasIommu) return -EINVAL;
    if (this.#containerDevices > 0) return -EBUSY;
    this.#leave();
    return 0;
  }

  #leave(): void {
    const [container, iommufd] = [this.#container, this.#iommufd];
    this.#container = null;
    this.#iommufd = null;
    if (container !== null) {
      if (this.#iommuGroup !== null) container.container.detachGroup(this.#iommuGroup);
      container.put();
    }
    iommufd?.file.put();
  }

  /** First open of a device in a container: -EINVAL before SET_IOMMU. The group's file stays until the device is closed. */
  useContainer(): number {
    if (this.#container === null || !this.#container.container.ready) return -EINVAL;
    this.#containerDevices++;
    this.openedFile!.get();
    return 0;
  }

  unuseContainer(): void {
    this.#containerDevices--;
    this.openedFile!.put();
  }

  // --- lifetime ---

  /** The group's file is closed; no device is open through a container. */
  fileReleased(): void {
    this.#leave();
    this.openedFile = null;
  }

  /** Its last device was unbound, so none is open: the iommu group is nobody's (vfio_device_remove_group). */
  lastDeviceGone(): void {
    const container = this.#container;
    if (container !== null) {
      this.#container = null;
      container.container.detachGroup(this.#iommuGroup!);
      container.put();
    }
    this.#iommuGroup = null;
  }

  // --- devices opened through their nodes ---

  /** A device is being bound through its node: -EBUSY while the group is open (vfio_device_block_group). */
  blockForCdev(): number {
    if (this.openedFile !== null) return -EBUSY;
    this.#cdevs++;
    return 0;
  }

  unblock(): void {
    this.#cdevs--;
  }

  /** Devices bound through their nodes. */
  get boundByNode(): number {
    return this.#cdevs;
  }

  saveState(): StateRecord {
    return { is: this.#what(), containerDevices: this.#containerDevices, cdevs: this.#cdevs };
  }

  restoreState(state: StateReader): void {
    requireText(state, "is", this.#what());
    this.#containerDevices = state.number("containerDevices");
    this.#cdevs = state.number("cdevs");
  }

  #what(): string {
    const where = this.#container !== null ? "in a container" : this.#iommufd !== null ? "in an iommufd" : "alone";
    return `${this.openedFile === null ? "closed" : "open"}, ${where}`;
  }
}

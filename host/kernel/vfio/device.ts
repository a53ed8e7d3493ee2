// A device assigned to user space (Linux: struct vfio_device): who has it open and what it is attached to. What it is on its bus is its
// operations' (device-operations.ts).
//
//     first open   put into a known state
//     last close   quiet again
//     unbind       no new opens; users are asked to give it back; done when the last has closed
//
// Opened by the device's own node it is bound to an iommufd context; opened through its group it shares the group's container. The
// two ways exclude each other (group.ts).

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { EINVAL, ENODEV, ENOSPC } from "../../uapi/errno.ts";
import type { IommufdContext } from "../iommufd/context.ts";
import {
  attachDevice,
  type BoundDevice,
  bindDevice,
  detachDevice,
  replaceDevice,
  unbindDevice,
} from "../iommufd/device.ts";
import { nameOfObject } from "../iommufd/object-table.ts";
import type { Kernel } from "../kernel.ts";
import { inSavedOrder, numbersOf, refillSet, requireText } from "../same-objects.ts";
import type { VfioDeviceOperations } from "./device-operations.ts";
import type { VfioGroup } from "./group.ts";

/** Linux keeps PASIDs in an ida: INT_MAX is the largest. */
const MOST_PASID = 0x7fff_ffff;

/** IOMMU_NO_PASID is 0: what is attached at PASID 0 is attached for requests without one. */
function streamOf(pasid: number): number {
  return pasid === 0 ? NO_PASID : pasid;
}

export class VfioDevice implements Stateful {
  readonly kernel: Kernel;
  readonly operations: VfioDeviceOperations;
  readonly group: VfioGroup;
  /** N of /dev/vfio/devices/vfioN. */
  readonly number: number;
  /** Opens with access: 0 or 1 by its node, any number through its group. */
  openCount = 0;
  /** The iommufd context it is bound to, when it is. */
  bound: BoundDevice | null = null;
  /** What user space attached: NO_PASID for ATTACH without a PASID, and PASIDs - of which 0 is the requester id by another name. */
  readonly #attached = new Set<number>();
  /** Open device nodes, bound or not: unbinding waits for them. */
  #files = 0;
  #removed: (() => void) | null = null; // not state: unbinding that waits is the same
  #removing = false;

  constructor(kernel: Kernel, operations: VfioDeviceOperations, group: VfioGroup, number: number) {
    this.kernel = kernel;
    this.operations = operations;
    this.group = group;
    this.number = number;
  }

  get name(): string {
    return this.operations.name;
  }

  // --- lifetime ---

  /** A file of it was opened (not yet bound). -ENODEV while it is being unbound. */
  fileOpened(): number {
    if (this.#removing) return -ENODEV;
    this.#files++;
    this.kernel.live.created("vfio device file");
    return 0;
  }

  fileClosed(): void {
    this.#files--;
    this.kernel.live.destroyed("vfio device file");
    if (this.#files === 0 && this.#removed !== null) {
      const removed = this.#removed;
      this.#removed = null;
      removed();
    }
  }

  /** The driver is unbound from it. True: nobody has it open. False: users were asked, `done` comes with the last close. */
  remove(done: () => void): boolean {
    this.#removing = true;
    if (this.#files === 0) return true;
    this.#removed = done;
    this.operations.askBack();
    return false;
  }

  /** First access. */
  enable(): void {
    this.operations.open();
    this.kernel.live.created("open vfio device");
  }

  /** Last access gone. */
  disable(): void {
    this.operations.close();
    this.kernel.live.destroyed("open vfio device");
  }

  // --- iommufd ---

  /** Takes the device (its group) for a context and opens it: its id there, or a negated errno. */
  open(context: IommufdContext): number {
    const bound = bindDevice(context, this.operations.iommuDevice);
    if (typeof bound === "number") return bound;
    this.bound = bound;
    this.openCount = 1;
    this.enable();
    return bound.id;
  }

  close(): void {
    this.disable();
    this.openCount = 0;
    for (const pasid of [...this.#attached]) this.detach(pasid);
    if (this.bound !== null) unbindDevice(this.bound);
    this.bound = null;
  }

  /**
   * The first attach at a PASID attaches, later ones replace. The HWPT's id, or a negated errno: -ENOSPC for a PASID that no table of
   * PASIDs can hold, -EBUSY for the requester id by its other name (vfio_iommufd_physical_attach_ioas, _pasid_attach_ioas).
   */
  attach(pasid: number, id: number): number {
    if (this.bound === null) return -EINVAL;
    const where = streamOf(pasid);
    if (this.#attached.has(pasid)) return replaceDevice(this.bound, where, id);
    if (pasid > MOST_PASID) return -ENOSPC;
    const result = attachDevice(this.bound, where, id);
    if (result >= 0) this.#attached.add(pasid);
    return result;
  }

  /** Detaching what is not attached, or was attached by its other name, does nothing. */
  detach(pasid: number): void {
    if (this.bound === null || !this.#attached.delete(pasid)) return;
    detachDevice(this.bound, streamOf(pasid));
  }

  get attached(): boolean {
    return this.#attached.has(NO_PASID);
  }

  // --- state: whom it is bound to and what it is attached to must be the same ---

  saveState(): StateRecord {
    return {
      bound: nameOfObject(this.bound),
      openCount: this.openCount,
      attached: [...this.#attached],
      files: this.#files,
      removing: this.#removing,
    };
  }

  restoreState(state: StateReader): void {
    requireText(state, "bound", nameOfObject(this.bound));
    const attached = numbersOf(state, "attached").map((pasid) => `attachment at PASID ${pasid}`);
    refillSet(
      this.#attached,
      inSavedOrder(state, this.#attached, (pasid) => `attachment at PASID ${pasid}`, attached),
    );
    if (state.boolean("removing") !== this.#removing) state.fail("removing", "is not so here");
    this.openCount = state.number("openCount");
    this.#files = state.number("files");
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return this.operations.stateParts();
  }
}

// Stage 1 on the second stage itself: nested HWPTs of its devices are allocated on a nest parent, which is also what bypass attaches them
// to. There is no vIOMMU, so nothing blocks but being detached. Kinds without nesting use the address space instead of a nest parent.
//
// Some hosts have a vIOMMU type for such kinds all the same, for faults alone (HwptNesting.faults): its devices are then vDEVICEs, too, and its event queue
// is read.

import type { StateReader, StateRecord } from "../../host/base/state.ts";
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VIOMMU_ALLOC,
  iommuVdeviceAlloc,
  iommuViommuAlloc,
} from "../../host/uapi/iommufd.ts";
import type { HostEvent } from "../viommu/host-port.ts";
import type { HwptNesting } from "../viommu/nested-codec.ts";
import { EventQueueFile } from "./event-queue-file.ts";
import type { DeviceRecord, HostDevices } from "./host-devices.ts";
import type { Stage1Place } from "./stage1-place.ts";

export class SecondStage implements Stage1Place {
  parent = 0;
  readonly #devices: HostDevices;
  readonly #codec: HwptNesting | null;
  readonly #eventDepth: number;
  readonly #events: EventQueueFile;
  /** The vIOMMU for faults, 0: the host has none. */
  #viommu = 0;

  /** `codec` null: the kind has no stage 1 of the guest's, and an ordinary IOAS will do. */
  constructor(devices: HostDevices, codec: HwptNesting | null, eventDepth: number, onEvents: () => void) {
    this.#devices = devices;
    this.#codec = codec;
    this.#eventDepth = eventDepth;
    this.#events = new EventQueueFile(devices, onEvents);
  }

  enter(record: DeviceRecord): number {
    const made = this.parent === 0 ? this.#create(record) : 0;
    if (made < 0 || this.#viommu === 0) return made;
    const { space, calls } = this.#devices;
    const { result, out } = calls.ioctl(space.iommufd, IOMMU_VDEVICE_ALLOC, iommuVdeviceAlloc, {
      ...{ viommu_id: this.#viommu, dev_id: record.device.deviceId, virt_id: record.guestId },
    });
    if (result < 0) return this.#devices.refused("IOMMU_VDEVICE_ALLOC", record, result);
    record.vdevice = out.out_vdevice_id;
    return 0;
  }

  #create(record: DeviceRecord): number {
    const { space } = this.#devices;
    if (this.#codec === null) {
      this.parent = space.ioas;
      return 0;
    }
    const info = this.#devices.hwInfo(record.device.handle);
    const dirty = typeof info !== "number" && (info.capabilities & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)) !== 0n;
    const parent = space.addParent(record.device.deviceId, dirty, this.#codec.ofPasids);
    if (parent < 0) return this.#devices.refused("IOMMU_HWPT_ALLOC of the second stage", record, parent);
    this.parent = parent;
    if (typeof info !== "number" && this.#codec.faults?.offered(info.bytes) === true)
      this.#openFaults(record, this.#codec.faults);
    return 0;
  }

  /** Without a vIOMMU for them, or an event queue, faults stay with the host: that is the rule. */
  #openFaults(record: DeviceRecord, faults: NonNullable<HwptNesting["faults"]>): void {
    const { space, calls } = this.#devices;
    const { result, out } = calls.ioctl(space.iommufd, IOMMU_VIOMMU_ALLOC, iommuViommuAlloc, {
      ...{ type: faults.viommuType, dev_id: record.device.deviceId, hwpt_id: this.parent },
    });
    if (result < 0) {
      this.#devices.refused("IOMMU_VIOMMU_ALLOC for faults", record, result);
      return;
    }
    this.#viommu = out.out_viommu_id;
    if (this.#events.open(this.#viommu, faults.eventType, this.#eventDepth) < 0) this.#closeFaults();
  }

  #closeFaults(): void {
    this.#events.close();
    if (this.#viommu !== 0) this.#devices.space.destroy(this.#viommu);
    this.#viommu = 0;
  }

  leave(record: DeviceRecord): number {
    if (record.vdevice === 0) return 0;
    const destroyed = this.#devices.space.destroy(record.vdevice);
    record.vdevice = 0;
    return destroyed < 0 ? this.#devices.refused("IOMMU_DESTROY of the vDEVICE", record, destroyed) : 0;
  }

  blocked(): number {
    return 0;
  }

  bypass(): number {
    return this.parent;
  }

  invalidationTarget(record: DeviceRecord | undefined, pasid: number | undefined): number {
    if (record === undefined) return 0;
    return pasid === undefined ? record.stream.nested : (record.pasids.get(pasid) ?? 0);
  }

  /** Beside page requests, only from a vIOMMU for faults. */
  readEvents(events: HostEvent[]): void {
    const bytes = this.#codec?.faults?.eventBytes ?? 0;
    if (this.#viommu !== 0) this.#events.read(bytes, events, (record) => ({ kind: "fault", record }));
  }

  releaseStage1s(): void {
    // Its devices share none.
  }

  [Symbol.dispose](): void {
    this.#closeFaults();
    // The second stage is the address space's, which destroys it.
    this.parent = 0;
  }

  saveState(): StateRecord {
    return { parent: this.parent, viommu: this.#viommu, events: this.#events.saveState() };
  }

  restoreState(state: StateReader): void {
    this.parent = state.number("parent");
    this.#viommu = state.number("viommu");
    this.#events.restoreState(state.record("events"));
  }
}

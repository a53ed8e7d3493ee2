// Stage 1 on the second stage itself: nested HWPTs of its devices are allocated on a nest parent, which is also what bypass attaches them
// to. There is no vIOMMU, so nothing blocks but being detached. Kinds without nesting use the address space instead of a nest parent.

import type { StateReader, StateRecord } from "../../host/base/state.ts";
import { IOMMU_HW_CAP_DIRTY_TRACKING } from "../../host/uapi/iommufd.ts";
import type { HostEvent } from "../viommu/host-port.ts";
import type { HwptNesting } from "../viommu/nested-codec.ts";
import type { DeviceRecord, HostDevices } from "./host-devices.ts";
import type { Stage1Place } from "./stage1-place.ts";

export class SecondStage implements Stage1Place {
  parent = 0;
  readonly #devices: HostDevices;
  readonly #codec: HwptNesting | null;

  /** `codec` null: the kind has no stage 1 of the guest's, and an ordinary IOAS will do. */
  constructor(devices: HostDevices, codec: HwptNesting | null) {
    this.#devices = devices;
    this.#codec = codec;
  }

  enter(record: DeviceRecord): number {
    if (this.parent !== 0) return 0;
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
    return 0;
  }

  leave(): number {
    return 0;
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

  readEvents(_events: HostEvent[]): void {
    // Nothing but page requests comes without a vIOMMU.
  }

  releaseStage1s(): void {
    // Its devices share none.
  }

  [Symbol.dispose](): void {
    // The second stage is the address space's, which destroys it.
    this.parent = 0;
  }

  saveState(): StateRecord {
    return { parent: this.parent };
  }

  restoreState(state: StateReader): void {
    this.parent = state.number("parent");
  }
}

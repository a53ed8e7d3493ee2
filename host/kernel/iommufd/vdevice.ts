// vDEVICE objects (Linux: iommufd/viommu.c): "the guest's device 0x10 is this device of the host". At most one per device; guest ids
// are u64 and unique within a vIOMMU. When the device is unbound its vDEVICE goes too and its object id stays a tombstone.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { EEXIST, EINVAL, ENOENT, ENOMEM } from "../../uapi/errno.ts";
import { iommuVdeviceAlloc } from "../../uapi/iommufd.ts";
import type { IommuDevice, VdeviceBackendView } from "../iommu/driver.ts";
import { requireText } from "../same-objects.ts";
import type { IommufdCommand } from "./command.ts";
import type { BoundDevice } from "./device.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import type { Viommu } from "./viommu.ts";

export class Vdevice extends IommufdObject implements VdeviceBackendView {
  readonly type = "vdevice";
  readonly viommu: Viommu;
  readonly bound: BoundDevice;
  readonly virtualId: bigint;
  /** The driver's. */
  driverData: unknown = null; // not state: the driver's
  #initialized = false; // not state: within one request

  constructor(viommu: Viommu, bound: BoundDevice, virtualId: bigint) {
    super();
    this.viommu = viommu;
    this.bound = bound;
    this.virtualId = virtualId;
    viommu.users++;
    bound.vdevice = this;
  }

  get device(): IommuDevice {
    return this.bound.device;
  }

  /** Takes the guest id and lets the driver accept the device; the id is not found by the driver before. */
  initialize(): number {
    const { viommu, virtualId } = this;
    if (viommu.vdevices.has(virtualId) || viommu.settingUp.has(virtualId)) return -EEXIST;
    viommu.settingUp.add(virtualId);
    const result = viommu.backend.vdeviceInit?.(this) ?? 0;
    viommu.settingUp.delete(virtualId);
    if (result < 0) return result;
    this.#initialized = true;
    viommu.vdevices.set(virtualId, this);
    viommu.vdevicesChanged();
    return 0;
  }

  override destroy(): void {
    if (this.#initialized) {
      this.viommu.backend.vdeviceDestroy?.(this);
      this.viommu.vdevices.delete(this.virtualId);
      this.viommu.vdevicesChanged();
    }
    this.viommu.users--;
    this.bound.vdevice = null;
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), is: this.#what() };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "is", this.#what());
  }

  #what(): string {
    return `0x${this.virtualId.toString(16)} of ${nameOfObject(this.viommu)}: ${nameOfObject(this.bound)}`;
  }
}

export function vdeviceAlloc(command: IommufdCommand): number {
  const request = iommuVdeviceAlloc.decode(command.bytes);
  const viommu = command.find<Viommu>(request.viommu_id, "viommu");
  if (viommu === null) return -ENOENT;
  const device = command.find<BoundDevice>(request.dev_id, "device");
  if (device === null) return -ENOENT;
  if (viommu.instance !== device.driver.instanceOf(device.device)) return -EINVAL;
  if (device.unbinding) return -ENOENT;
  if (device.vdevice !== null) return -EEXIST;
  if (command.context.environment.injector.allocation("vdevice slot")) return -ENOMEM;
  const vdevice = new Vdevice(viommu, device, request.virt_id);
  const created = command.create(vdevice);
  if (created < 0) {
    vdevice.destroy();
    return created;
  }
  const initialized = vdevice.initialize();
  if (initialized < 0) return initialized;
  iommuVdeviceAlloc.patch(command.bytes, { out_vdevice_id: vdevice.id });
  return command.respond();
}

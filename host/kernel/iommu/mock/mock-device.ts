// Devices of the selftest driver: no hardware behind them, one group each.

import { ENOENT, ENOMEM } from "../../../uapi/errno.ts";
import { DeviceAttachments } from "../attachments.ts";
import type { IommuDevice } from "../driver.ts";
import type { MockDomain } from "./mock-domain.ts";
import type { MockViommu } from "./mock-viommu.ts";

export const MOCK_CACHE_ENTRIES = 4;
const CACHE_DEFAULT = 0xbaddad;
export const MOCK_PASID_BITS = 20;
/** Attaching a domain here fails every second time. */
const FAILING_PASID = 1024;

export const MOCK_FLAGS_DEVICE_NO_DIRTY = 1;
export const MOCK_FLAGS_DEVICE_PASID = 4;

export class MockDevice implements IommuDevice {
  readonly name: string;
  readonly deviceId: number;
  readonly maxPasids: number;
  readonly hasAts = false;
  readonly hasPri = false;
  readonly isVirtualFunction = false;
  readonly attachments = new DeviceAttachments();
  driverData: unknown = null;
  readonly noDirtyTracking: boolean;
  /** Stands for cached translations of the device. */
  readonly cache = new Uint32Array(MOCK_CACHE_ENTRIES).fill(CACHE_DEFAULT);
  /** Its guest id in `viommu`, as of when it came there. */
  virtualId = 0n;
  #failNext = false;

  constructor(id: number, flags: number) {
    this.name = `iommufd_mock${id}`;
    this.deviceId = id;
    this.noDirtyTracking = (flags & MOCK_FLAGS_DEVICE_NO_DIRTY) !== 0;
    this.maxPasids = (flags & MOCK_FLAGS_DEVICE_PASID) !== 0 ? 1 << MOCK_PASID_BITS : 0;
  }

  /** The vIOMMU whose nested domain it is attached to. */
  get viommu(): MockViommu | null {
    const domain = this.attachments.requester?.domain as MockDomain | undefined;
    return domain?.viommu ?? null;
  }

  /** Goes to a nested domain of a vIOMMU (null: to any other domain): -ENOENT if it has no vDEVICE there. */
  enter(viommu: MockViommu | null, from: MockViommu | null): number {
    const virtualId = viommu === null ? 0n : viommu.core.virtualIdOf(this);
    if (virtualId === null) return -ENOENT;
    // Within a vIOMMU it keeps the guest id that it came with.
    if (viommu !== from) this.virtualId = virtualId;
    return 0;
  }

  setPasid(pasid: number, blocked: boolean): number {
    if (pasid !== FAILING_PASID) return 0;
    const fails = this.#failNext && !blocked;
    this.#failNext = !blocked && !this.#failNext;
    return fails ? -ENOMEM : 0;
  }
}

/** Mock domains only ever meet mock devices. */
export function mockDeviceOf(device: IommuDevice): MockDevice {
  if (!(device instanceof MockDevice)) throw new Error(`${device.name} is not a mock device`);
  return device;
}

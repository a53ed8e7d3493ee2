// The IOMMU driver that Linux's iommufd selftests need: no hardware, but every operation of the driver interface, with the numbers
// and quirks the tests look for. Facts: iommufd_test.h and selftest.c of Linux 7.2.

import { EINVAL, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
} from "../../../uapi/iommufd.ts";
import type {
  HwInfo,
  InvalidationBatch,
  IommuCapability,
  IommuDevice,
  IommuDriver,
  NestedDomain,
  PageRequest,
  PagingDomain,
  ReservedRegion,
  UserData,
  ViommuBackend,
  ViommuCore,
} from "../driver.ts";
import { mockDeviceOf } from "./mock-device.ts";
import { MOCK_IOTLB_ENTRIES, MockBlockedDomain, MockNestedDomain, MockPagingDomain } from "./mock-domain.ts";
import { IOMMU_VIOMMU_TYPE_SELFTEST, MockViommu } from "./mock-viommu.ts";

const HW_INFO_TYPE = 0xfeedbeef;
const HW_INFO_VALUE = 0xdeadbeef;
const HWPT_DATA = 0xdead;
const HWPT_DATA_BYTES = 8;
const HWPT_INVALIDATE_DATA = 0xdeadbeef;
const HWPT_INVALIDATE_BYTES = 8;
const INVALIDATE_ALL = 1;
const PAGE_TABLE_HUGE = 1;

export class MockDriver implements IommuDriver {
  readonly name = "mock";
  readonly userPasidTable = true;
  readonly defaultDomain = "blocked";
  readonly identityDomain = null;
  readonly blockedDomain = new MockBlockedDomain(this);
  /** Answers to page requests, newest last, for tests. */
  readonly responses: { device: IommuDevice; group: number; code: number }[] = [];

  instanceOf(): object {
    return this;
  }

  probeDevice(): number {
    return 0;
  }

  releaseDevice(): void {}

  capable(device: IommuDevice, capability: IommuCapability): boolean {
    if (capability === "CACHE_COHERENCY") return true;
    return capability === "DIRTY_TRACKING" && !mockDeviceOf(device).noDirtyTracking;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return [];
  }

  hwInfo(_device: IommuDevice, requested: number): HwInfo | number {
    if (requested !== 0 && requested !== HW_INFO_TYPE) return -EOPNOTSUPP;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setUint32(4, HW_INFO_VALUE, true);
    return { type: HW_INFO_TYPE, bytes };
  }

  allocPaging(device: IommuDevice, flags: number, data: UserData | null): PagingDomain | number {
    const known = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;
    const dirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    if ((flags & ~known) !== 0 || (dirty && mockDeviceOf(device).noDirtyTracking)) return -EOPNOTSUPP;
    let kind = 0;
    if (data !== null) {
      if (data.type !== HWPT_DATA && data.type !== IOMMU_HWPT_DATA_NONE) return -EOPNOTSUPP;
      const bytes = data.copy(4, HWPT_DATA_BYTES);
      if (typeof bytes === "number") return bytes;
      kind = new DataView(bytes.buffer).getUint32(4, true);
    }
    if (kind > PAGE_TABLE_HUGE) return -EOPNOTSUPP;
    const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    return new MockPagingDomain(this, kind === PAGE_TABLE_HUGE, nestParent, dirty);
  }

  allocNested(_device: IommuDevice, parent: PagingDomain, flags: number, data: UserData): NestedDomain | number {
    return this.#nested(parent, null, flags, data);
  }

  #nested(parent: PagingDomain, viommu: MockViommu | null, flags: number, data: UserData): NestedDomain | number {
    if ((flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) return -EOPNOTSUPP;
    if (data.type !== HWPT_DATA) return -EOPNOTSUPP;
    const bytes = data.copy(4, HWPT_DATA_BYTES);
    if (typeof bytes === "number") return bytes;
    const iotlb = new DataView(bytes.buffer).getUint32(0, true);
    return new MockNestedDomain(this, parent, viommu, iotlb, invalidateIotlb);
  }

  supportsViommu(_device: IommuDevice, type: number): boolean {
    return type === IOMMU_VIOMMU_TYPE_SELFTEST;
  }

  allocViommu(
    _device: IommuDevice,
    _type: number,
    parent: PagingDomain,
    data: UserData | null,
    core: ViommuCore,
  ): ViommuBackend | number {
    return MockViommu.create(parent, core, data, (viommu, flags, nested) =>
      this.#nested(parent, viommu, flags, nested),
    );
  }

  pageResponse(device: IommuDevice, request: PageRequest, code: number): void {
    this.responses.push({ device, group: request.group, code });
    if (this.responses.length > 64) this.responses.shift();
  }
}

function invalidateIotlb(domain: MockNestedDomain, batch: InvalidationBatch): number {
  if (batch.type !== HWPT_INVALIDATE_DATA) return -EINVAL;
  for (let i = 0; i < batch.count; i++) {
    if (batch.entryLength !== HWPT_INVALIDATE_BYTES) return -EINVAL;
    const entry = batch.fetch(i, HWPT_INVALIDATE_BYTES);
    if (typeof entry === "number") return entry;
    const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
    const flags = view.getUint32(0, true);
    const index = view.getUint32(4, true);
    if ((flags & ~INVALIDATE_ALL) !== 0) return -EOPNOTSUPP;
    if (index >= MOCK_IOTLB_ENTRIES) return -EINVAL;
    if ((flags & INVALIDATE_ALL) !== 0) domain.iotlb.fill(0);
    else domain.iotlb[index] = 0;
    batch.done++;
  }
  return 0;
}

// Domains of a paravirtual guest: each an IOAS of its own, into which the guest's mappings go as windows of guest RAM (IOMMU_IOAS_COPY from
// the VM's own address space, so that pages are pinned once). The host's MSI window is in each of them by itself.

import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import { EFAULT, EINVAL, ENODEV, ENOENT, ENOSPC } from "../../host/uapi/errno.ts";
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  iommuIoasAlloc,
  iommuIoasCopy,
  iommuIoasUnmap,
} from "../../host/uapi/iommufd.ts";
import type { DeviceHandle, MappedDomains } from "../viommu/host-port.ts";
import type { HostDevices } from "./host-devices.ts";

/** Domains of one guest at a time. */
export const MOST_DOMAINS = 1024;

export class IoasDomains implements MappedDomains, Stateful {
  readonly #devices: HostDevices;
  /** IOAS ids by the guest's domain numbers. */
  readonly #domains = new Map<number, number>();

  constructor(devices: HostDevices) {
    this.#devices = devices;
  }

  attach(handle: DeviceHandle, domain: number): number {
    const record = this.#devices.find(handle);
    if (record === undefined) return -ENODEV;
    const ioas = this.#domain(domain);
    return ioas < 0 ? ioas : this.#devices.attachTo(record, ioas, 0);
  }

  map(domain: number, iova: bigint, gpa: bigint, length: bigint, permissions: number): number {
    if (length === 0n || ((iova | gpa | length) & 0xfffn) !== 0n || (permissions & 3) === 0) return -EINVAL;
    const { space, calls } = this.#devices;
    if (!space.holds(gpa, length)) return -EFAULT;
    const ioas = this.#domain(domain);
    if (ioas < 0) return ioas;
    const { result } = calls.ioctl(space.iommufd, IOMMU_IOAS_COPY, iommuIoasCopy, {
      flags:
        IOMMU_IOAS_MAP_FIXED_IOVA |
        ((permissions & 1) === 0 ? 0 : IOMMU_IOAS_MAP_READABLE) |
        ((permissions & 2) === 0 ? 0 : IOMMU_IOAS_MAP_WRITEABLE),
      dst_ioas_id: ioas,
      src_ioas_id: space.ioas,
      length,
      dst_iova: iova,
      src_iova: gpa,
    });
    return Math.min(result, 0);
  }

  unmap(domain: number, iova: bigint, length: bigint): number {
    const ioas = this.#domains.get(domain);
    if (ioas === undefined) return -ENOENT;
    const { space, calls } = this.#devices;
    const { result } = calls.ioctl(space.iommufd, IOMMU_IOAS_UNMAP, iommuIoasUnmap, { ioas_id: ioas, iova, length });
    return Math.min(result, 0);
  }

  release(domain: number): number {
    const ioas = this.#domains.get(domain);
    if (ioas === undefined) return 0;
    const errno = this.#devices.space.destroy(ioas);
    if (errno === 0) this.#domains.delete(domain);
    return errno;
  }

  [Symbol.dispose](): void {
    for (const domain of [...this.#domains.keys()]) this.release(domain);
  }

  /** The IOAS of a domain, made if it is new; or a negated errno. */
  #domain(domain: number): number {
    const known = this.#domains.get(domain);
    if (known !== undefined) return known;
    // The guest chooses the numbers: what they cost the host is bounded.
    if (this.#domains.size >= MOST_DOMAINS) return -ENOSPC;
    const { space, calls } = this.#devices;
    const { result, out } = calls.ioctl(space.iommufd, IOMMU_IOAS_ALLOC, iommuIoasAlloc, {});
    if (result < 0) return result;
    this.#domains.set(domain, out.out_ioas_id);
    return out.out_ioas_id;
  }

  saveState(): StateRecord {
    return { domains: [...this.#domains].map(([domain, ioas]) => ({ domain, ioas })) };
  }

  restoreState(state: StateReader): void {
    const domains = state.records("domains").map((each) => [each.number("domain"), each.number("ioas")] as const);
    this.#domains.clear();
    for (const [domain, ioas] of domains) this.#domains.set(domain, ioas);
  }
}

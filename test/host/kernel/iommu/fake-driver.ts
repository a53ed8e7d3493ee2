// An IOMMU driver that records what it is told and can be made to refuse, for tests of the iommu core.

import { NO_PASID } from "../../../../host/devices/ports.ts";
import { AttachmentList, DeviceAttachments } from "../../../../host/kernel/iommu/attachments.ts";
import type {
  IommuDevice,
  IommuDomain,
  IommuDriver,
  PageRequest,
  PagingDomain,
} from "../../../../host/kernel/iommu/driver.ts";
import { EOPNOTSUPP } from "../../../../host/uapi/errno.ts";

export class FakeDomain implements IommuDomain {
  readonly kind: "paging" | "nested" | "identity" | "blocked";
  readonly owner: FakeDriver;
  readonly label: string;
  readonly attachments = new AttachmentList();

  constructor(owner: FakeDriver, label: string, kind: "paging" | "nested" | "identity" | "blocked" = "paging") {
    this.owner = owner;
    this.label = label;
    this.kind = kind;
  }

  attach(device: IommuDevice): number {
    const refusal = this.owner.refusals.get(`${device.name} ${this.label}`) ?? 0;
    this.owner.log.push(`${device.name} ${refusal < 0 ? "refuses" : "→"} ${this.label}`);
    if (refusal < 0) return refusal;
    if (device.attachments.wantsPageRequests && this.owner.refusesPageRequests) return -EOPNOTSUPP;
    this.owner.where.set(device.name, this.label);
    this.owner.switchPageRequests(device);
    return 0;
  }

  setPasid(device: IommuDevice, pasid: number): number {
    const refusal = this.owner.refusals.get(`${device.name}.${pasid} ${this.label}`) ?? 0;
    if (refusal < 0) return refusal;
    this.owner.where.set(`${device.name}.${pasid}`, this.label);
    this.owner.switchPageRequests(device);
    return 0;
  }

  free(): void {}
}

export class FakeDriver implements IommuDriver {
  readonly name = "fake";
  readonly defaultDomain = "identity";
  readonly identityDomain = new FakeDomain(this, "default", "identity");
  readonly blockedDomain = new FakeDomain(this, "blocked", "blocked");
  readonly userPasidTable = true;
  /** "device domain" → negated errno. */
  readonly refusals = new Map<string, number>();
  /** Device (or device.pasid) → domain it is on. */
  readonly where = new Map<string, string>();
  readonly log: string[] = [];
  readonly responses: { device: string; group: number; pasid: number; code: number }[] = [];
  readonly requestsOn = new Set<string>();
  refusesPageRequests = false;

  instanceOf(): object {
    return this;
  }
  probeDevice(): number {
    return 0;
  }
  releaseDevice(device: IommuDevice): void {
    this.where.delete(device.name);
  }
  capable(): boolean {
    return true;
  }
  reservedRegions() {
    return [];
  }
  allocPaging(): PagingDomain | number {
    return -EOPNOTSUPP;
  }
  switchPageRequests(device: IommuDevice): void {
    if (device.attachments.wantsPageRequests) this.requestsOn.add(device.name);
    else this.requestsOn.delete(device.name);
  }
  pageResponse(device: IommuDevice, request: PageRequest, code: number): void {
    this.responses.push({ device: device.name, group: request.group, pasid: request.pasid, code });
  }

  domain(label: string, kind: "paging" | "nested" = "paging"): FakeDomain {
    return new FakeDomain(this, label, kind);
  }
}

export function fakeDevice(name: string, more: Partial<IommuDevice> = {}): IommuDevice {
  return {
    name,
    deviceId: 1,
    maxPasids: 0,
    hasAts: false,
    hasPri: false,
    isVirtualFunction: false,
    attachments: new DeviceAttachments(),
    driverData: null,
    ...more,
  };
}

export function request(group: number, last: boolean, more: Partial<PageRequest> = {}): PageRequest {
  return { pasid: NO_PASID, group, last, permissions: 1, address: 0x1000n, ...more };
}

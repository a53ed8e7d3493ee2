// An iommu group (Linux: drivers/iommu/iommu.c, struct iommu_group): the smallest set of devices whose DMA the IOMMU can tell
// from the others'. All its devices are always on one domain, and the group has at most one DMA owner: the kernel drivers of its
// devices (no owner object, default domain) or one user-space owner (an iommufd context, a VFIO group), never both.
//
//     claim → whole group blocked → attach (a domain with its handle) → replace … → detach → blocked → release → default domain
//
// A switch of a group is all or nothing: when one device's driver refuses, those already moved are moved back. Rules and errnos:
// iommu.c of Linux 7.2, cited per function.

import { NO_PASID } from "../../devices/ports.ts";
import { EBUSY, EINVAL, ENODEV, EOPNOTSUPP, EPERM } from "../../uapi/errno.ts";
import type { IommuDevice, IommuDomain, IommuDriver, ReservedRegion } from "./driver.ts";
import type { PageRequestCollector, PageRequestHandler } from "./page-requests.ts";

/** What its owner attaches: a domain, and what the kernel calls back through it (Linux: iommu_attach_handle and domain cookie). */
export interface Attachment {
  readonly domain: IommuDomain;
  /** Takes complete page-request groups of what is attached; null: page requests are not wanted. */
  readonly onPageRequests: PageRequestHandler | null;
  /** IOVA at which the doorbell page shows inside this domain, or -errno (Linux: iommufd_sw_msi). Absent: the address itself. */
  prepareMsi?(device: IommuDevice, doorbell: bigint): bigint | number;
}

/** A device in a group, and how the core switches it. */
export interface GroupMember {
  readonly device: IommuDevice;
  readonly driver: IommuDriver;
  readonly pageRequests: PageRequestCollector;
  /** Attachments with a page-request handler; page requests are on while > 0. */
  handlers: number;
  /** Parked in the blocking domain while its ATS reset is in progress. */
  parked: boolean;
}

/** Tells the trace about a switch; returns what to call when it is done. */
export type SwitchObserver = (device: IommuDevice, pasid: number, domain: IommuDomain) => () => void;

export class IommuGroup {
  readonly id: number;
  readonly defaultDomain: IommuDomain;
  readonly blockedDomain: IommuDomain;
  readonly #members: GroupMember[] = [];
  readonly #pasids = new Map<number, Attachment>();
  readonly #observe: SwitchObserver;
  #domain: IommuDomain;
  #attachment: Attachment | null = null;
  #ownerCount = 0;
  #owner: object | null = null;
  #resets = 0;

  constructor(id: number, defaultDomain: IommuDomain, blockedDomain: IommuDomain, observe: SwitchObserver) {
    this.id = id;
    this.defaultDomain = defaultDomain;
    this.blockedDomain = blockedDomain;
    this.#domain = defaultDomain;
    this.#observe = observe;
  }

  get members(): readonly GroupMember[] {
    return this.#members;
  }

  get devices(): readonly IommuDevice[] {
    return this.#members.map((member) => member.device);
  }

  /** What the devices' requests without PASID go through now. */
  get domain(): IommuDomain {
    return this.#domain;
  }

  /** Users of the group: bound kernel drivers, or claims of the one owner. */
  get ownerCount(): number {
    return this.#ownerCount;
  }

  /** The user-space owner; null when nobody or kernel drivers use the group. */
  get owner(): object | null {
    return this.#owner;
  }

  /** What is attached at a PASID (NO_PASID: the requester id itself), null if nothing of an owner's is. */
  attachmentAt(pasid: number): Attachment | null {
    return pasid === NO_PASID ? this.#attachment : (this.#pasids.get(pasid) ?? null);
  }

  /** Who takes a page request with this PASID (Linux: io-pgfault.c, find_fault_handler). */
  handlerOf(member: GroupMember, pasid: number): PageRequestHandler | null {
    if (pasid !== NO_PASID) {
      const attachment = this.#pasids.get(pasid);
      if (attachment !== undefined) return attachment.onPageRequests;
      // A guest that manages its own PASID table: everything goes through the nested domain at the requester id.
      if (member.driver.userPasidTable !== true || this.#attachment?.domain.kind !== "nested") return null;
    }
    return this.#attachment?.onPageRequests ?? null;
  }

  // --- membership (by the core) ---

  /** Adds a probed device and points it at the group's present domain. */
  add(member: GroupMember): number {
    const result = this.#domain.attach(member.device, null);
    if (result < 0) return result;
    this.#members.push(member);
    return 0;
  }

  /** Takes a device away: its DMA is blocked from now on. */
  remove(member: GroupMember): void {
    const index = this.#members.indexOf(member);
    if (index < 0) return;
    this.#members.splice(index, 1);
    for (const [pasid, attachment] of this.#pasids) {
      if (member.device.maxPasids > 0) this.blockedDomain.setPasid?.(member.device, pasid, attachment.domain);
    }
    this.blockedDomain.attach(member.device, member.parked ? this.blockedDomain : this.#domain);
    if (member.handlers > 0) {
      member.pageRequests.flush();
      member.driver.enablePageRequests?.(member.device, false);
      member.handlers = 0;
    }
    if (this.#members.length === 0) {
      this.#domain = this.defaultDomain;
      this.#attachment = null;
      this.#pasids.clear();
      this.#resets = 0;
    }
  }

  // --- DMA ownership ---

  /** A kernel driver binds (iommu_device_use_default_domain). -EBUSY while user space owns the group. */
  useDefaultDomain(): number {
    if (this.#ownerCount > 0) {
      if (this.#domain !== this.defaultDomain || this.#owner !== null || this.#pasids.size > 0) return -EBUSY;
    }
    this.#ownerCount++;
    return 0;
  }

  /** A kernel driver unbinds, or its probe failed (iommu_device_unuse_default_domain). */
  unuseDefaultDomain(): void {
    if (this.#ownerCount > 0) this.#ownerCount--;
  }

  /** A device of the group is claimed for `owner`; the same owner nests (iommu_device_claim_dma_owner). */
  claimDevice(owner: object): number {
    if (this.#ownerCount > 0) {
      if (this.#owner !== owner) return -EPERM;
      this.#ownerCount++;
      return 0;
    }
    return this.#take(owner);
  }

  /** The whole group is claimed; never nests (iommu_group_claim_dma_owner). */
  claim(owner: object): number {
    if (this.#ownerCount > 0) return -EPERM;
    return this.#take(owner);
  }

  #take(owner: object): number {
    if (this.#domain !== this.defaultDomain || this.#pasids.size > 0) return -EBUSY;
    const result = this.#switchAll(this.blockedDomain, null);
    if (result < 0) return result;
    this.#owner = owner;
    this.#ownerCount = 1;
    return 0;
  }

  /** Gives back one device claim; the last one restores the default domain. */
  releaseDevice(): void {
    if (this.#owner === null) return;
    if (this.#ownerCount > 1) this.#ownerCount--;
    else this.release();
  }

  /** Gives back a group claim; the default domain is restored. */
  release(): void {
    if (this.#owner === null) return;
    if (this.#attachment !== null) this.detach();
    for (const pasid of [...this.#pasids.keys()]) this.detachPasid(pasid);
    this.#owner = null;
    this.#ownerCount = 0;
    this.#switchSurely(this.defaultDomain);
  }

  // --- the requester id's domain ---

  /**
   * Puts the whole group on a domain (iommu_attach_group_handle). -EBUSY when one is attached already or a reset is in progress,
   * -EINVAL for another driver's domain, else what the driver says.
   */
  attach(attachment: Attachment): number {
    if (this.#members.length === 0) return -ENODEV;
    if (this.#attachment !== null) return -EBUSY;
    return this.#set(attachment);
  }

  /** Moves the whole group to another domain without passing through blocking (iommu_replace_group_handle). */
  replace(attachment: Attachment): number {
    if (this.#members.length === 0) return -ENODEV;
    return this.#set(attachment);
  }

  #set(attachment: Attachment): number {
    if (this.#resets > 0) return -EBUSY;
    if (this.#members.some((member) => member.driver !== attachment.domain.owner)) return -EINVAL;
    const result = this.#switchAll(attachment.domain, attachment);
    if (result === 0) this.#attachment = attachment;
    return result;
  }

  /** Back to blocking (owned) or the default domain (iommu_detach_group_handle). Cannot fail. */
  detach(): void {
    if (this.#attachment === null) return;
    this.#switchSurely(this.#owner !== null ? this.blockedDomain : this.defaultDomain);
  }

  /** Moves every device, or none: a refusal moves those back that had moved (__iommu_group_set_domain_internal). */
  #switchAll(domain: IommuDomain, attachment: Attachment | null): number {
    const previous = this.#attachment;
    if (domain === this.#domain) {
      // The hardware stays as it is; only who is called back changes.
      const result = this.#moveHandlers(attachment, previous);
      if (result === 0) this.#attachment = attachment;
      return result;
    }
    for (const [index, member] of this.#members.entries()) {
      const result = this.#switchOne(member, domain, this.#domain, attachment, previous);
      if (result < 0) {
        for (const moved of this.#members.slice(0, index)) {
          this.#switchOne(moved, this.#domain, domain, previous, attachment);
        }
        // A driver that blocked before it refused gets the old domain again, too.
        if (!member.parked) this.#domain.attach(member.device, domain);
        return result;
      }
    }
    this.#domain = domain;
    this.#attachment = attachment;
    return 0;
  }

  /** For domains that take every device. */
  #switchSurely(domain: IommuDomain): void {
    for (const member of this.#members) this.#switchOne(member, domain, this.#domain, null, this.#attachment);
    this.#domain = domain;
    this.#attachment = null;
  }

  #switchOne(
    member: GroupMember,
    domain: IommuDomain,
    old: IommuDomain,
    to: Attachment | null,
    from: Attachment | null,
  ): number {
    const enabled = this.#wantHandler(member, to);
    if (enabled < 0) return enabled;
    if (!member.parked && domain !== old) {
      const done = this.#observe(member.device, NO_PASID, domain);
      const result = domain.attach(member.device, old);
      done();
      if (result < 0) {
        this.#dropHandler(member, to);
        return result;
      }
    }
    this.#dropHandler(member, from);
    return 0;
  }

  #moveHandlers(to: Attachment | null, from: Attachment | null): number {
    for (const [index, member] of this.#members.entries()) {
      const result = this.#wantHandler(member, to);
      if (result < 0) {
        for (const done of this.#members.slice(0, index)) this.#dropHandler(done, to);
        return result;
      }
    }
    for (const member of this.#members) this.#dropHandler(member, from);
    return 0;
  }

  #wantHandler(member: GroupMember, attachment: Attachment | null): number {
    if (attachment === null || attachment.onPageRequests === null) return 0;
    if (member.handlers === 0) {
      const result = member.driver.enablePageRequests?.(member.device, true) ?? 0;
      if (result < 0) return result;
    }
    member.handlers++;
    return 0;
  }

  #dropHandler(member: GroupMember, attachment: Attachment | null): void {
    if (attachment === null || attachment.onPageRequests === null) return;
    if (--member.handlers > 0) return;
    member.pageRequests.flush();
    member.driver.enablePageRequests?.(member.device, false);
  }

  // --- PASIDs ---

  /**
   * Attaches a domain at a PASID of every device that can do PASIDs (iommu_attach_device_pasid). -EOPNOTSUPP when domain or driver
   * cannot, -EINVAL for another driver's domain or a PASID out of range, -EBUSY when one is attached there.
   */
  attachPasid(attachment: Attachment, pasid: number): number {
    const refusal = this.#checkPasid(attachment, pasid);
    if (refusal < 0) return refusal;
    if (this.#pasids.has(pasid)) return -EBUSY;
    return this.#setPasid(attachment, pasid, null);
  }

  /** -EINVAL when nothing is attached at the PASID (iommu_replace_device_pasid). */
  replacePasid(attachment: Attachment, pasid: number): number {
    const refusal = this.#checkPasid(attachment, pasid);
    if (refusal < 0) return refusal;
    const old = this.#pasids.get(pasid);
    if (old === undefined) return -EINVAL;
    return this.#setPasid(attachment, pasid, old);
  }

  #checkPasid(attachment: Attachment, pasid: number): number {
    if (this.#members.length === 0) return -ENODEV;
    if (attachment.domain.setPasid === undefined || this.blockedDomain.setPasid === undefined) return -EOPNOTSUPP;
    if (this.#resets > 0) return -EBUSY;
    for (const { device, driver } of this.#members) {
      if (driver !== attachment.domain.owner) return -EINVAL;
      if (device.maxPasids > 0 && pasid >= device.maxPasids) return -EINVAL;
    }
    // 0 is the requester id itself (IOMMU_NO_PASID in Linux).
    if (pasid <= 0 || !Number.isInteger(pasid)) return -EINVAL;
    return 0;
  }

  #setPasid(attachment: Attachment, pasid: number, old: Attachment | null): number {
    const { domain } = attachment;
    if (domain === old?.domain) {
      const result = this.#moveHandlers(attachment, old);
      if (result === 0) this.#pasids.set(pasid, attachment);
      return result;
    }
    const capable = this.#members.filter(({ device }) => device.maxPasids > 0);
    for (const [index, member] of capable.entries()) {
      let result = this.#wantHandler(member, attachment);
      if (result === 0) {
        const done = this.#observe(member.device, pasid, domain);
        result = domain.setPasid!(member.device, pasid, old?.domain ?? null);
        done();
        if (result < 0) this.#dropHandler(member, attachment);
      }
      if (result < 0) {
        for (const moved of capable.slice(0, index)) {
          this.#dropHandler(moved, attachment);
          (old?.domain ?? this.blockedDomain).setPasid!(moved.device, pasid, domain);
        }
        return result;
      }
    }
    if (old !== null) for (const member of capable) this.#dropHandler(member, old);
    this.#pasids.set(pasid, attachment);
    return 0;
  }

  /** Blocks the PASID again; detaching nothing does nothing. */
  detachPasid(pasid: number): void {
    const old = this.#pasids.get(pasid);
    if (old === undefined) return;
    for (const member of this.#members) {
      if (member.device.maxPasids === 0) continue;
      const done = this.#observe(member.device, pasid, this.blockedDomain);
      this.blockedDomain.setPasid!(member.device, pasid, old.domain);
      done();
      this.#dropHandler(member, old);
    }
    this.#pasids.delete(pasid);
  }

  get pasidsInUse(): number {
    return this.#pasids.size;
  }

  // --- reset in progress (pci_dev_reset_iommu_prepare / _done) ---

  /** Parks a device with ATS in the blocking domain while it resets; attach and replace give -EBUSY meanwhile. */
  beginReset(member: GroupMember): number {
    if (!member.device.hasAts) return 0;
    if (member.parked) return -EBUSY;
    if (this.#domain !== this.blockedDomain) {
      const result = this.blockedDomain.attach(member.device, this.#domain);
      if (result < 0) return result;
    }
    for (const [pasid, { domain }] of this.#pasids) this.blockedDomain.setPasid?.(member.device, pasid, domain);
    member.parked = true;
    this.#resets++;
    return 0;
  }

  /** Puts a parked device back where its group is. */
  endReset(member: GroupMember): void {
    if (!member.parked) return;
    member.parked = false;
    this.#resets--;
    if (this.#domain !== this.blockedDomain) this.#domain.attach(member.device, this.blockedDomain);
    for (const [pasid, { domain }] of this.#pasids) domain.setPasid?.(member.device, pasid, null);
  }

  // --- reserved regions ---

  /** Reserved regions of all devices (iommu_get_group_resv_regions), ascending; identical ones once. */
  reservedRegions(): readonly ReservedRegion[] {
    const regions: ReservedRegion[] = [];
    for (const { device, driver } of this.#members) {
      for (const region of driver.reservedRegions(device)) {
        const same = (known: ReservedRegion) =>
          known.start === region.start && known.length === region.length && known.type === region.type;
        if (!regions.some(same)) regions.push(region);
      }
    }
    return regions.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  }
}

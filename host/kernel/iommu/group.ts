// An iommu group (Linux: drivers/iommu/iommu.c, struct iommu_group): the smallest set of devices whose DMA the IOMMU can tell
// from the others'. All its devices are always on one domain, and the group has at most one DMA owner: the kernel drivers of its
// devices (no owner object, default domain) or one user-space owner (an iommufd context, a VFIO group), never both.
//
//     claim → whole group blocked → attach (a domain with its handle) → replace … → detach → blocked → release → default domain
//
// The group says what its devices are to be on; where each of them is stands in its own record (attachments.ts). The two differ
// while a device is parked for a reset, and when a driver could not even move it back: then it is blocked.
//
// A switch of a group is all or nothing: when one device's driver refuses, those already moved are moved back. Rules and errnos:
// iommu.c of Linux 7.2, cited per function.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { EBUSY, EINVAL, ENODEV, EOPNOTSUPP, EPERM } from "../../uapi/errno.ts";
import { inSavedOrder, numbersOf, refillList, refillMap, requireSame } from "../same-objects.ts";
import { type AttachHandle, type Attachment, changeAttachment } from "./attachments.ts";
import type { IommuDevice, IommuDomain, IommuDriver, ReservedRegion } from "./driver.ts";
import type { PageRequestCollector } from "./page-requests.ts";

/** A device in a group, and how the core switches it. */
export interface GroupMember {
  readonly device: IommuDevice;
  readonly driver: IommuDriver;
  readonly pageRequests: PageRequestCollector;
  /** Parked in the blocking domain while its ATS reset is in progress. */
  parked: boolean;
}

/** Tells the trace about a switch; returns what to call when it is done. */
export type SwitchObserver = (device: IommuDevice, pasid: number, domain: IommuDomain) => () => void;

export class IommuGroup implements Stateful {
  readonly id: number;
  readonly defaultDomain: IommuDomain;
  readonly blockedDomain: IommuDomain;
  readonly #members: GroupMember[] = [];
  readonly #pasids = new Map<number, AttachHandle>();
  readonly #observe: SwitchObserver;
  #domain: IommuDomain;
  #handle: AttachHandle | null = null; // not state: attachments are the same
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

  /** What an owner attached at a PASID (NO_PASID: the requester id itself), null if nothing. */
  handleAt(pasid: number): AttachHandle | null {
    return pasid === NO_PASID ? this.#handle : (this.#pasids.get(pasid) ?? null);
  }

  // --- membership (by the core) ---

  /** Adds a probed device and puts it where the group is now, at its PASIDs, too. On an error it is on nothing. */
  add(member: GroupMember): number {
    let result = this.#put(member, NO_PASID, this.#domain, this.#handle);
    if (result < 0) return result;
    for (const [pasid, handle] of this.#pasids) {
      if (pasid < member.device.maxPasids) result = this.#put(member, pasid, handle.domain, handle);
      if (result < 0) break;
    }
    if (result < 0) this.#letGo(member);
    else this.#members.push(member);
    return result;
  }

  /** Takes a device away: its DMA is blocked from now on. */
  remove(member: GroupMember): void {
    const index = this.#members.indexOf(member);
    if (index < 0) return;
    this.#members.splice(index, 1);
    this.#letGo(member);
    if (member.parked) this.#resets--;
    if (this.#members.length === 0) {
      this.#domain = this.defaultDomain;
      this.#handle = null;
      this.#pasids.clear();
    }
  }

  /** Blocks a device everywhere and ends its record. */
  #letGo(member: GroupMember): void {
    this.#block(member);
    changeAttachment(member.device, NO_PASID, null, () => 0);
  }

  #block(member: GroupMember): number {
    const { attachments } = member.device;
    for (const pasid of [...attachments.pasids.keys()]) this.#put(member, pasid, this.blockedDomain, null);
    return this.#put(member, NO_PASID, this.blockedDomain, null);
  }

  // --- one device ---

  /** What a place of a device on this domain is; the blocking domain at a PASID is nothing. */
  #attachment(member: GroupMember, pasid: number, domain: IommuDomain, handle: AttachHandle | null): Attachment | null {
    if (pasid !== NO_PASID && domain.kind === "blocked") return null;
    const { device, driver } = member;
    return { device, pasid, domain, handle, instance: driver.instanceOf(device) };
  }

  /** Moves one place of a device, record and hardware, or nothing. Page requests that came through what was there stay as they are. */
  #move(member: GroupMember, pasid: number, next: Attachment | null): number {
    const { device, driver } = member;
    const { attachments } = device;
    const old = attachments.at(pasid);
    if (next === null ? old === null : next.domain === old?.domain && next.handle === old.handle) return 0;
    const from = old?.domain ?? null;
    const to = next?.domain ?? this.blockedDomain;
    const asked = attachments.wantsPageRequests;
    driver.settle?.(device);
    return changeAttachment(device, pasid, next, () => {
      // The same domain with another handle: the hardware only cares whether page requests are wanted.
      if (to === from && attachments.wantsPageRequests === asked) return 0;
      const done = this.#observe(device, pasid, to);
      const switched = pasid === NO_PASID ? to.attach(device, from) : to.setPasid!(device, pasid, from);
      done();
      return switched;
    });
  }

  /** Puts one place of a device on a domain for good: page requests that came through what was there end. */
  #put(member: GroupMember, pasid: number, domain: IommuDomain, handle: AttachHandle | null): number {
    const old = member.device.attachments.at(pasid);
    const result = this.#move(member, pasid, this.#attachment(member, pasid, domain, handle));
    this.#endRequests(member, old);
    return result;
  }

  /** What came through an attachment that is no more. */
  #endRequests({ device, pageRequests }: GroupMember, old: Attachment | null): void {
    if (old !== null && device.attachments.at(old.pasid) !== old) pageRequests.flush(old);
  }

  /** Where there is no way but on: through blocking if the driver refuses, and no further than there if it refuses again. */
  #putSurely(member: GroupMember, pasid: number, domain: IommuDomain, handle: AttachHandle | null): void {
    if (this.#put(member, pasid, domain, handle) === 0) return;
    this.#put(member, pasid, this.blockedDomain, null);
    this.#put(member, pasid, domain, handle);
  }

  /**
   * Puts a place of all these devices on a domain, or of none: those that have moved when one refuses get back the very attachment that
   * they had. One that cannot even be moved back, through blocking if need be, stays blocked.
   */
  #putAll(members: readonly GroupMember[], pasid: number, domain: IommuDomain, handle: AttachHandle | null): number {
    const before = members.map(({ device }) => device.attachments.at(pasid));
    let moved = 0;
    let result = 0;
    for (; moved < members.length && result === 0; moved++) {
      const member = members[moved]!;
      result = this.#move(member, pasid, this.#attachment(member, pasid, domain, handle));
    }
    if (result < 0) {
      for (const [index, member] of members.slice(0, moved - 1).entries()) {
        const old = before[index]!;
        if (this.#move(member, pasid, old) === 0) continue;
        this.#move(member, pasid, this.#attachment(member, pasid, this.blockedDomain, null));
        this.#move(member, pasid, old);
      }
      // A driver that blocked before it refused gets the old domain again, too.
      const { device } = members[moved - 1]!;
      if (pasid === NO_PASID) device.attachments.requester?.domain.attach(device, domain);
    }
    for (const [index, member] of members.entries()) this.#endRequests(member, before[index]!);
    return result;
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
    if (this.#handle !== null) this.detach();
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
  attach(handle: AttachHandle): number {
    if (this.#members.length === 0) return -ENODEV;
    if (this.#handle !== null) return -EBUSY;
    return this.#set(handle);
  }

  /** Moves the whole group to another domain without passing through blocking (iommu_replace_group_handle). */
  replace(handle: AttachHandle): number {
    if (this.#members.length === 0) return -ENODEV;
    return this.#set(handle);
  }

  #set(handle: AttachHandle): number {
    if (this.#resets > 0) return -EBUSY;
    if (this.#members.some((member) => member.driver !== handle.domain.owner)) return -EINVAL;
    return this.#switchAll(handle.domain, handle);
  }

  /** Back to blocking (owned) or the default domain (iommu_detach_group_handle). Cannot fail. */
  detach(): void {
    if (this.#handle === null) return;
    this.#switchSurely(this.#owner !== null ? this.blockedDomain : this.defaultDomain);
  }

  /** Moves every device, or none (__iommu_group_set_domain_internal). */
  #switchAll(domain: IommuDomain, handle: AttachHandle | null): number {
    const result = this.#putAll(
      this.#members.filter(({ parked }) => !parked),
      NO_PASID,
      domain,
      handle,
    );
    if (result < 0) return result;
    this.#domain = domain;
    this.#handle = handle;
    return 0;
  }

  /** For domains that take every device. */
  #switchSurely(domain: IommuDomain): void {
    for (const member of this.#members) if (!member.parked) this.#putSurely(member, NO_PASID, domain, null);
    this.#domain = domain;
    this.#handle = null;
  }

  // --- PASIDs ---

  /**
   * Attaches a domain at a PASID of every device that can do PASIDs (iommu_attach_device_pasid). -EOPNOTSUPP when domain or driver
   * cannot, -EINVAL for another driver's domain or a PASID out of range, -EBUSY when one is attached there.
   */
  attachPasid(handle: AttachHandle, pasid: number): number {
    const refusal = this.#checkPasid(handle, pasid);
    if (refusal < 0) return refusal;
    if (this.#pasids.has(pasid)) return -EBUSY;
    return this.#setPasid(handle, pasid);
  }

  /** -EINVAL when nothing is attached at the PASID (iommu_replace_device_pasid). */
  replacePasid(handle: AttachHandle, pasid: number): number {
    const refusal = this.#checkPasid(handle, pasid);
    if (refusal < 0) return refusal;
    if (!this.#pasids.has(pasid)) return -EINVAL;
    return this.#setPasid(handle, pasid);
  }

  #checkPasid(handle: AttachHandle, pasid: number): number {
    if (this.#members.length === 0) return -ENODEV;
    if (handle.domain.setPasid === undefined || this.blockedDomain.setPasid === undefined) return -EOPNOTSUPP;
    if (this.#resets > 0) return -EBUSY;
    for (const { device, driver } of this.#members) {
      if (driver !== handle.domain.owner) return -EINVAL;
      if (device.maxPasids > 0 && pasid >= device.maxPasids) return -EINVAL;
    }
    // 0 is the requester id itself (IOMMU_NO_PASID in Linux).
    if (pasid <= 0 || !Number.isInteger(pasid)) return -EINVAL;
    return 0;
  }

  #setPasid(handle: AttachHandle, pasid: number): number {
    const capable = this.#members.filter(({ device }) => device.maxPasids > 0);
    const result = this.#putAll(capable, pasid, handle.domain, handle);
    if (result === 0) this.#pasids.set(pasid, handle);
    return result;
  }

  /** Blocks the PASID again; detaching nothing does nothing. */
  detachPasid(pasid: number): void {
    if (!this.#pasids.delete(pasid)) return;
    for (const member of this.#members) {
      if (member.device.attachments.pasids.has(pasid)) this.#put(member, pasid, this.blockedDomain, null);
    }
  }

  get pasidsInUse(): number {
    return this.#pasids.size;
  }

  // --- reset in progress (pci_dev_reset_iommu_prepare / _done) ---

  /** Parks a device with ATS in the blocking domain while it resets; attach and replace give -EBUSY meanwhile. */
  beginReset(member: GroupMember): number {
    if (!member.device.hasAts) return 0;
    if (member.parked) return -EBUSY;
    const result = this.#block(member);
    if (result < 0) return result;
    member.parked = true;
    this.#resets++;
    return 0;
  }

  /** Puts a parked device back where its group is. */
  endReset(member: GroupMember): void {
    if (!member.parked) return;
    member.parked = false;
    this.#resets--;
    this.#putSurely(member, NO_PASID, this.#domain, this.#handle);
    for (const [pasid, handle] of this.#pasids) {
      if (pasid < member.device.maxPasids) this.#putSurely(member, pasid, handle.domain, handle);
    }
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

  // --- state ---

  /** Members and attachments must be the same; the domains' lists of attachments say which those are. */
  saveState(): StateRecord {
    return {
      domain: this.#domain.kind,
      claimed: this.#owner !== null,
      ownerCount: this.#ownerCount,
      resets: this.#resets,
      pasids: [...this.#pasids.keys()],
      members: this.#members.map(({ device, parked }) => ({
        device: device.name,
        parked,
        pasids: [...device.attachments.pasids.keys()],
      })),
    };
  }

  restoreState(state: StateReader): void {
    const domain = state.text("domain");
    if (domain !== this.#domain.kind)
      state.fail("domain", `is "${domain}" in the document, "${this.#domain.kind}" here`);
    if (state.boolean("claimed") !== (this.#owner !== null)) state.fail("claimed", "is not so here");
    this.#ownerCount = state.number("ownerCount");
    this.#resets = state.number("resets");
    const pasids = pasidsOf(state, this.#pasids.keys());
    refillMap(
      this.#pasids,
      pasids.map((pasid) => [pasid, this.#pasids.get(pasid)!] as const),
    );
    const members = state.records("members");
    const names = members.map((saved) => saved.text("device"));
    refillList(
      this.#members,
      inSavedOrder(state, this.#members, ({ device }) => device.name, names),
    );
    for (const [index, saved] of members.entries()) {
      const member = this.#members[index]!;
      member.parked = saved.boolean("parked");
      member.device.attachments.orderPasids(pasidsOf(saved, member.device.attachments.pasids.keys()));
    }
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const { device, pageRequests } of this.#members) yield [`page requests of ${device.name}`, pageRequests];
  }
}

function pasidsOf(state: StateReader, here: Iterable<number>): number[] {
  const pasids = numbersOf(state, "pasids");
  requireSame(
    state,
    [...here].map((pasid) => `PASID ${pasid}`),
    pasids.map((pasid) => `PASID ${pasid}`),
  );
  return pasids;
}

// The iommu core (Linux: drivers/iommu/iommu.c): knows every device behind an IOMMU, its driver and its group, and takes the page
// requests that drivers report.
//
// Devices enter by `addDevice` (a bus found one, or a mock made one) and leave by `removeDevice`. Devices with the same group key
// share a group; without a key a device has a group of its own.

import type { Stateful, StateRecord } from "../../base/state.ts";
import type { Trace } from "../../base/trace.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { EEXIST, EINVAL, ENODEV } from "../../uapi/errno.ts";
import type { IommuDevice, IommuDriver, PageRequest } from "./driver.ts";
import { type GroupMember, IommuGroup, type SwitchObserver } from "./group.ts";
import { PageRequestCollector, type PageRequestGroup } from "./page-requests.ts";

interface Known {
  readonly group: IommuGroup;
  readonly member: GroupMember;
  readonly key: string | null;
}

export class IommuCore implements Stateful {
  readonly #devices = new Map<IommuDevice, Known>(); // not state: members of the groups
  readonly #groupsByKey = new Map<string, IommuGroup>(); // not state: which functions share a group
  readonly #groups = new Map<number, IommuGroup>();
  readonly #trace: Trace;

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  get groups(): readonly IommuGroup[] {
    return [...this.#groups.values()];
  }

  groupOf(device: IommuDevice): IommuGroup | null {
    return this.#devices.get(device)?.group ?? null;
  }

  driverOf(device: IommuDevice): IommuDriver | null {
    return this.#devices.get(device)?.member.driver ?? null;
  }

  /** Probes a device with its IOMMU's driver and puts it into its group. 0 or a negated errno; nothing is left on an error. */
  addDevice(device: IommuDevice, driver: IommuDriver, groupKey: string | null = null): number {
    if (this.#devices.has(device)) return -EEXIST;
    const probed = driver.probeDevice(device);
    if (probed < 0) return probed;
    const group = (groupKey === null ? undefined : this.#groupsByKey.get(groupKey)) ?? this.#newGroup(driver, groupKey);
    const member: GroupMember = {
      device,
      driver,
      pageRequests: new PageRequestCollector(device, (request, code) => driver.pageResponse?.(device, request, code)),
      parked: false,
    };
    const added = group.members.length > 0 && group.members[0]!.driver !== driver ? -EINVAL : group.add(member);
    if (added < 0) {
      if (group.members.length === 0) this.#dropGroup(group, groupKey);
      driver.releaseDevice(device);
      return added;
    }
    this.#devices.set(device, { group, member, key: groupKey });
    return 0;
  }

  /** The device is gone from its bus. */
  removeDevice(device: IommuDevice): void {
    const known = this.#devices.get(device);
    if (known === undefined) return;
    known.group.remove(known.member);
    this.#devices.delete(device);
    if (known.group.members.length === 0) this.#dropGroup(known.group, known.key);
    known.member.driver.releaseDevice(device);
  }

  #newGroup(driver: IommuDriver, key: string | null): IommuGroup {
    let id = 0;
    while (this.#groups.has(id)) id++;
    const standard = driver.defaultDomain === "identity" ? driver.identityDomain : null;
    const group = new IommuGroup(id, standard ?? driver.blockedDomain, driver.blockedDomain, this.#observerOf(id));
    this.#groups.set(id, group);
    if (key !== null) this.#groupsByKey.set(key, group);
    return group;
  }

  #dropGroup(group: IommuGroup, key: string | null): void {
    this.#groups.delete(group.id);
    if (key !== null) this.#groupsByKey.delete(key);
  }

  #observerOf(group: number): SwitchObserver {
    const trace = this.#trace;
    return (device, pasid, domain) => {
      if (!trace.on) return nothing;
      const previous = trace.enter({
        type: "attach",
        device: device.name,
        group,
        ...(pasid === NO_PASID ? {} : { pasid }),
        domain: domain.kind,
        detail: domain.describe?.() ?? "",
      });
      return () => trace.leave(previous);
    };
  }

  /** A driver reports a page request (iommu_report_device_fault). -EINVAL: nobody handles it; it was answered. */
  reportPageRequest(device: IommuDevice, request: PageRequest): number {
    const known = this.#devices.get(device);
    if (known === undefined) return -ENODEV;
    const { driver, pageRequests } = known.member;
    return pageRequests.report(request, device.attachments.throughWhich(request.pasid, driver.userPasidTable === true));
  }

  /** Page requests were lost before they could be reported: what there is of unfinished groups is void (iopf_queue_discard_partial). */
  discardPartialRequests(devices: Iterable<IommuDevice>): void {
    for (const device of devices) this.#devices.get(device)?.member.pageRequests.discardPartial();
  }

  /** Reset of a device with ATS begins: parked in the blocking domain. */
  beginReset(device: IommuDevice): number {
    const known = this.#devices.get(device);
    return known === undefined ? 0 : known.group.beginReset(known.member);
  }

  endReset(device: IommuDevice): void {
    const known = this.#devices.get(device);
    if (known !== undefined) known.group.endReset(known.member);
  }

  /** The address to program into a device for messages to `doorbell` (iommu_dma_prepare_msi): IOVA, or -errno. */
  prepareMsi(device: IommuDevice, doorbell: bigint): bigint | number {
    const handle = this.groupOf(device)?.handleAt(NO_PASID);
    if (handle?.prepareMsi === undefined) return doorbell;
    return handle.prepareMsi(device, doorbell);
  }

  /** Groups that user space owns now: zero when everything was closed. */
  get ownedGroups(): number {
    return this.groups.filter((group) => group.owner !== null).length;
  }

  /** A device's complete groups of page requests without an answer, oldest first. */
  unansweredOf(device: IommuDevice): readonly PageRequestGroup[] {
    return this.#devices.get(device)?.member.pageRequests.unanswered ?? [];
  }

  deviceNamed(name: string): IommuDevice | null {
    for (const device of this.#devices.keys()) if (device.name === name) return device;
    return null;
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const [id, group] of this.#groups) yield [`group ${id}`, group];
  }
}

function nothing(): void {}

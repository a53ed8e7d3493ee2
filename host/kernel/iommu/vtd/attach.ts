// Attaching a domain at a device's requester id or at a PASID, as far as all domains do it alike: checks, the domain's id on the unit, room for the
// entry; then what was there is torn down and the new entry set up (placement.ts). The core's record has the new domain in it already.

import { NO_PASID } from "../../../devices/ports.ts";
import { ENODEV, EOPNOTSUPP } from "../../../uapi/errno.ts";
import type { IommuDevice, IommuDomain } from "../driver.ts";
import { deviceDataOf } from "./device-data.ts";
import type { DomainIds } from "./domain-ids.ts";
import { type Placement, prepare, setUp, tearDown } from "./placement.ts";
import type { VtdUnit } from "./unit.ts";

export interface Attaching {
  /** 0, or why the domain does not go with the device. */
  check(): number;
  placement(unit: VtdUnit, id: number): Placement;
  /** What was there is torn down before anything is checked, and stays so on an error (Linux: a nested domain at a requester id). */
  readonly blocksFirst?: boolean;
}

type Tagged = IommuDomain & { readonly ids: DomainIds };

/** At the requester id. `old` the domain itself: who handles its page requests is another. */
export function attachTo(domain: Tagged, device: IommuDevice, old: IommuDomain | null, attaching: Attaching): number {
  const refused = pageRequestsRefused(device, NO_PASID);
  if (old === domain) return refused;
  return place(domain, device, NO_PASID, attaching, refused);
}

/** At a PASID. */
export function setPasidTo(domain: Tagged, device: IommuDevice, pasid: number, attaching: Attaching): number {
  const { unit } = deviceDataOf(device);
  if (unit.pasidBits === 0 || device.maxPasids === 0) return -EOPNOTSUPP;
  const refused = pageRequestsRefused(device, pasid);
  return place(domain, device, pasid, attaching, refused);
}

function place(domain: Tagged, device: IommuDevice, pasid: number, attaching: Attaching, refused: number): number {
  const { unit } = deviceDataOf(device);
  if (attaching.blocksFirst === true) tearDown(device, pasid);
  const checked = attaching.check();
  if (checked < 0) return checked;
  if (refused < 0) return refused;
  const id = domain.ids.take(unit);
  if (id < 0) return id;
  const placement = attaching.placement(unit, id);
  const prepared = prepare(device, pasid, placement);
  if (prepared < 0) {
    domain.ids.release(unit, domain.attachments.items, device.attachments.at(pasid));
    return prepared;
  }
  tearDown(device, pasid);
  setUp(device, pasid, placement);
  return 0;
}

/** -ENODEV where somebody wants the page requests of a device that sends none (intel_iommu_enable_iopf). */
function pageRequestsRefused(device: IommuDevice, pasid: number): number {
  const wanted = device.attachments.at(pasid)?.handle?.onPageRequests;
  return wanted && !deviceDataOf(device).pageRequests ? -ENODEV : 0;
}

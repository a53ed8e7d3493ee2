// Whom a change of a domain's tables concerns (Linux: struct cache_tag): IOTLBs, by domain id and PASID, and devices that hold translations themselves;
// of a nest parent those of the nested domains over it, too. As a list that is made anew from the record of attachments (../attachments.ts) when that
// has changed, without doubles, unit by unit, IOTLBs before devices.

import type { Attachment } from "../attachments.ts";
import type { IommuDevice } from "../driver.ts";
import { deviceDataOf } from "./device-data.ts";
import type { DomainIds } from "./domain-ids.ts";
import { dropDevice, dropDeviceRange, dropFirstStage, dropSecondStage, hardwarePasid } from "./invalidations.ts";
import type { VtdUnit } from "./unit.ts";

/** First-stage or nested translations of a domain id at a PASID. */
export const PASID_IOTLB = 0;
/** Second-stage ones of a domain id. */
export const IOTLB = 1;
export const DEVICE_TLB = 2;
/** A device under a nested domain over this one: it holds guests' addresses, of which the host knows nothing. */
export const NESTED_DEVICE_TLB = 3;

export interface CacheTag {
  readonly type: typeof PASID_IOTLB | typeof IOTLB | typeof DEVICE_TLB | typeof NESTED_DEVICE_TLB;
  readonly unit: VtdUnit;
  /** Domain id of an IOTLB's. */
  readonly id: number;
  readonly pasid: number;
  readonly device: IommuDevice | null;
}

/** Tags of what is attached to a domain whose ids these are. */
export function* tagsOf(
  attachments: readonly Attachment[],
  ids: DomainIds,
  iotlb: typeof PASID_IOTLB | typeof IOTLB,
  devices: typeof DEVICE_TLB | typeof NESTED_DEVICE_TLB,
): Generator<CacheTag> {
  for (const { device, pasid } of attachments) {
    const { unit } = deviceDataOf(device);
    const number = hardwarePasid(pasid);
    // While a place changes over, a domain may not have its id there yet; then nothing is cached under it.
    const id = ids.on(unit);
    if (id !== undefined) yield { type: iotlb, unit, id, pasid: iotlb === IOTLB ? 0 : number, device: null };
    if (device.hasAts) yield { type: devices, unit, id: 0, pasid: number, device };
  }
}

/** Sorted, each once. */
export function cacheTags(tags: Iterable<CacheTag>): readonly CacheTag[] {
  const units: VtdUnit[] = [];
  const rank = (unit: VtdUnit): number => {
    if (!units.includes(unit)) units.push(unit);
    return units.indexOf(unit);
  };
  const compare = (a: CacheTag, b: CacheTag): number =>
    rank(a.unit) - rank(b.unit) ||
    a.type - b.type ||
    a.id - b.id ||
    (a.device?.deviceId ?? 0) - (b.device?.deviceId ?? 0) ||
    a.pasid - b.pasid;
  const all = [...tags];
  for (const { unit } of all) rank(unit);
  const sorted = all.sort(compare);
  return sorted.filter((tag, i) => i === 0 || compare(sorted[i - 1]!, tag) !== 0);
}

/** Drops what is cached of a range: an aligned power of two of pages (cache_tag_flush_range). */
export function flushRange(tags: readonly CacheTag[], firstPage: number, order: number, leavesOnly: boolean): void {
  for (let i = 0; i < tags.length; i++) {
    const { type, unit, id, pasid, device } = tags[i]!;
    if (type === PASID_IOTLB) dropFirstStage(unit, id, pasid, firstPage, order, leavesOnly);
    else if (type === IOTLB) dropSecondStage(unit, id, firstPage, order, leavesOnly);
    else if (deviceDataOf(device!).ats) {
      if (type === DEVICE_TLB) dropDeviceRange(unit, device!, pasid, firstPage, order);
      else dropDevice(unit, device!, pasid);
    }
    if (tags[i + 1]?.unit !== unit) unit.queue.sync();
  }
}

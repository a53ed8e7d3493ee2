// The descriptors that drop cached translations (VT-d §6.5.2), as Linux's driver fills them in (qi_desc_*). On the path of every unmap: numbers only,
// nothing is allocated.
//
// A range is a power of two of pages of 4 KiB, aligned: its first page and log2 of its pages.

import {
  DESCRIPTOR_CONTEXT,
  DESCRIPTOR_DEVICE_TLB,
  DESCRIPTOR_IOTLB,
  DESCRIPTOR_PASID_CACHE,
  DESCRIPTOR_PASID_DEVICE_TLB,
  DESCRIPTOR_PASID_IOTLB,
  PASID_CACHE_GLOBAL,
  PASID_CACHE_PASID,
  PASID_IOTLB_ALL,
  PASID_IOTLB_PAGE,
} from "../../../arch/vtd/invalidation-descriptors.ts";
import {
  GRANULARITY_DEVICE,
  GRANULARITY_DOMAIN,
  GRANULARITY_GLOBAL,
  GRANULARITY_PAGE,
} from "../../../arch/vtd/registers.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import type { IommuDevice } from "../driver.ts";
import type { VtdUnit } from "./unit.ts";

const PAGE_LOW = 2 ** 20;
/** log2 of all pages there are. */
export const EVERYTHING = 52;
const LEAVES_ONLY = 1 << 6;
const DEVICE_SIZE = 1;
const PASID_DEVICE_SIZE = 1 << 11;

/** log2 of the smallest aligned power of two of pages that covers all of these. */
export function coveringOrder(firstPage: number, pages: number): number {
  let order = 0;
  for (let low = firstPage, high = firstPage + pages - 1; low !== high; order++) {
    low = Math.floor(low / 2);
    high = Math.floor(high / 2);
  }
  return order;
}

/** All context entries of the unit. */
export function dropContexts(unit: VtdUnit): void {
  unit.queue.pushHalves(DESCRIPTOR_CONTEXT | (GRANULARITY_GLOBAL << 4), 0, 0, 0);
}

/** A function's context entry. */
export function dropContext(unit: VtdUnit, id: number, sourceId: number): void {
  unit.queue.pushHalves(DESCRIPTOR_CONTEXT | (GRANULARITY_DEVICE << 4) | (id << 16), sourceId, 0, 0);
}

export function dropPasidEntries(unit: VtdUnit): void {
  unit.queue.pushHalves(DESCRIPTOR_PASID_CACHE | (PASID_CACHE_GLOBAL << 4), 0, 0, 0);
}

/** Entries of a domain id at a PASID. */
export function dropPasidEntry(unit: VtdUnit, id: number, pasid: number): void {
  unit.queue.pushHalves(DESCRIPTOR_PASID_CACHE | (PASID_CACHE_PASID << 4) | (id << 16), pasid, 0, 0);
}

/** Every translation of the unit. */
export function dropTranslations(unit: VtdUnit): void {
  unit.queue.pushHalves(DESCRIPTOR_IOTLB | (GRANULARITY_GLOBAL << 4) | drains(unit), 0, 0, 0);
}

/** Every translation of a domain id, nested ones at all PASIDs among them. */
export function dropDomain(unit: VtdUnit, id: number): void {
  unit.queue.pushHalves(DESCRIPTOR_IOTLB | (GRANULARITY_DOMAIN << 4) | drains(unit) | (id << 16), 0, 0, 0);
}

/** Second-stage translations of a range, and nested ones of any address; all of the id where the unit cannot say so many. */
export function dropSecondStage(
  unit: VtdUnit,
  id: number,
  firstPage: number,
  order: number,
  leavesOnly: boolean,
): void {
  const { PSI, MAMV } = unit.features;
  if (!PSI || order > MAMV) {
    dropDomain(unit, id);
    return;
  }
  unit.queue.pushHalves(
    DESCRIPTOR_IOTLB | (GRANULARITY_PAGE << 4) | drains(unit) | (id << 16),
    0,
    rangeLow(firstPage, order) | order | (leavesOnly ? LEAVES_ONLY : 0),
    rangeHigh(firstPage, order),
  );
}

/** First-stage and nested translations of a domain id at a PASID. */
export function dropFirstStage(
  unit: VtdUnit,
  id: number,
  pasid: number,
  firstPage: number,
  order: number,
  leavesOnly: boolean,
): void {
  const all = order > unit.features.MAMV;
  unit.queue.pushHalves(
    DESCRIPTOR_PASID_IOTLB | ((all ? PASID_IOTLB_ALL : PASID_IOTLB_PAGE) << 4) | (id << 16),
    pasid,
    all ? 0 : rangeLow(firstPage, order) | order | (leavesOnly ? LEAVES_ONLY : 0),
    all ? 0 : rangeHigh(firstPage, order),
  );
}

/** A device's own translations of a range, for a PASID or (0) those without. */
export function dropDeviceRange(
  unit: VtdUnit,
  device: IommuDevice,
  pasid: number,
  firstPage: number,
  order: number,
): void {
  const sourceId = unit.sourceIdOf(device);
  // Of several pages: ones up to the bit below the size, which is 0 (ATS §10.2.3.2); everything: all but bit 63.
  const page =
    order === 0 ? firstPage : firstPage - (firstPage % 2 ** order) + 2 ** (Math.min(order, EVERYTHING) - 1) - 1;
  const low = rangeLow(page, 0);
  const high = Math.floor(page / PAGE_LOW);
  const pf = unit.features.DIT ? sourceId : 0;
  const pfLow = (pf & 0xf) << 12;
  const pfHigh = (pf >>> 4) << 20;
  if (pasid === 0) {
    unit.queue.pushHalves(
      DESCRIPTOR_DEVICE_TLB | pfLow,
      sourceId | pfHigh,
      low | (order === 0 ? 0 : DEVICE_SIZE),
      high,
    );
    return;
  }
  unit.queue.pushHalves(
    DESCRIPTOR_PASID_DEVICE_TLB | pfLow | (sourceId << 16),
    pasid | pfHigh,
    low | (order === 0 ? 0 : PASID_DEVICE_SIZE),
    high,
  );
}

/** All of a device's translations for a PASID or (0) those without. */
export function dropDevice(unit: VtdUnit, device: IommuDevice, pasid: number): void {
  dropDeviceRange(unit, device, pasid, 0, EVERYTHING);
}

/** The PASID by which hardware knows a place: RID_PASID is 0. */
export function hardwarePasid(pasid: number): number {
  return pasid === NO_PASID ? 0 : pasid;
}

function drains({ features }: VtdUnit): number {
  return (features.DWD ? 1 << 6 : 0) | (features.DRD ? 1 << 7 : 0);
}

/** Bits 31:12 and 63:32 of the address of a range's first page. */
function rangeLow(page: number, order: number): number {
  return ((page - (page % 2 ** order)) % PAGE_LOW) << 12;
}

function rangeHigh(page: number, order: number): number {
  return Math.floor((page - (page % 2 ** order)) / PAGE_LOW);
}

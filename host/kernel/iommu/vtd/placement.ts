// How a place of a device (its requester id, or a PASID) changes from one domain to another: by way of nothing. A present entry is not rewritten, for the
// hardware may read half of the old one and half of the new (VT-d §6.5.3.3; Linux: intel_pasid_tear_down_entry, then intel_pasid_setup_*):
//
//     tearDown    P := 0; PASID-cache, IOTLB and device-TLB invalidations; the rest of the entry is cleared; page requests are let arrive
//     setUp       the new entry, its quadword with P last; with caching mode the hardware is told of that, too
//
// In between DMA is blocked: no switch is hitless here. In scalable mode the entry is a PASID table's, PASID 0 for the requester id, and the context
// entry stands from probing to release; in legacy mode it is the context entry.

import {
  PASID_ENTRY,
  PGTT_FIRST,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND,
} from "../../../arch/vtd/pasid-entries.ts";
import { CONTEXT, PRESENT, SCALABLE_CONTEXT } from "../../../arch/vtd/root-and-context.ts";
import { EOPNOTSUPP } from "../../../uapi/errno.ts";
import type { IommuDevice } from "../driver.ts";
import { deviceDataOf } from "./device-data.ts";
import {
  dropContext,
  dropDevice,
  dropDomain,
  dropFirstStage,
  dropPasidEntries,
  dropPasidEntry,
  EVERYTHING,
  hardwarePasid,
} from "./invalidations.ts";
import type { PasidEntry, PasidTable } from "./pasid-table.ts";
import type { VtdUnit } from "./unit.ts";

/** What a place is to be. */
export interface Placement {
  pasidEntry(): PasidEntry;
  /** Legacy mode; absent: there is no such thing. `ats`: the device may ask for translations. */
  contextEntry?(ats: boolean): readonly bigint[];
  /** A device on it may ask for translations in legacy mode, too. */
  readonly translates: boolean;
}

/** Makes room for a place's entry: 0, -ENOMEM, or -EOPNOTSUPP for what the unit's mode does not have. */
export function prepare(device: IommuDevice, pasid: number, placement: Placement): number {
  const { pasids } = deviceDataOf(device);
  if (pasids !== null) return pasids.prepare(hardwarePasid(pasid));
  return placement.contextEntry === undefined || hardwarePasid(pasid) !== 0 ? -EOPNOTSUPP : 0;
}

/** Puts an entry where there is none; `prepare` went well. */
export function setUp(device: IommuDevice, pasid: number, placement: Placement): void {
  const data = deviceDataOf(device);
  const { unit, pasids } = data;
  if (pasids === null) {
    setUpContext(device, placement);
    return;
  }
  const number = hardwarePasid(pasid);
  const entry = placement.pasidEntry();
  pasids.write(number, entry);
  const id = Number(PASID_ENTRY.get(entry, "DID"));
  if (!unit.features.CM) {
    unit.flushWriteBuffer();
    return;
  }
  // What was not there may be cached as such.
  dropPasidEntry(unit, id, number);
  dropFirstStage(unit, id, number, 0, EVERYTHING, false);
  unit.queue.sync();
}

/** Takes a place's entry away; nothing happens where there is none. */
export function tearDown(device: IommuDevice, pasid: number): void {
  const { unit, pasids, pageRequests } = deviceDataOf(device);
  if (pasids === null) {
    tearDownContext(device);
    return;
  }
  const number = hardwarePasid(pasid);
  const entry = pasids.read(number);
  if (entry === null) return;
  pasids.writeWord(number, 0, entry[0]! & ~BigInt(PRESENT));
  dropEntry(device, number, entry);
  unit.queue.sync();
  for (let word = 0; word < entry.length; word++) pasids.writeWord(number, word, 0n);
  if (pageRequests) drainPageRequests(device, number, Number(PASID_ENTRY.get(entry, "DID")));
}

/** Takes a PASID's entry away for good, and what it stood in with it, if that holds nothing else. */
export function detach(device: IommuDevice, pasid: number): void {
  tearDown(device, pasid);
  const { unit, pasids } = deviceDataOf(device);
  pasids?.freeIfEmpty(hardwarePasid(pasid), () => {
    dropPasidEntries(unit);
    unit.queue.sync();
  });
}

/** Dirty state of a present second stage, alone or nested, is tracked from now on or no more (intel_pasid_setup_dirty_tracking). */
export function setMarking(device: IommuDevice, pasid: number, on: boolean): void {
  const { unit, pasids } = deviceDataOf(device);
  const number = hardwarePasid(pasid);
  const entry = pasids?.read(number) ?? null;
  if (entry === null) return;
  const type = Number(PASID_ENTRY.get(entry, "PGTT"));
  if (type !== PGTT_SECOND && type !== PGTT_NESTED) return;
  const changed = [entry[0]!];
  PASID_ENTRY.set(changed, "SSADE", on ? 1n : 0n);
  pasids!.writeWord(number, 0, changed[0]!);
  dropEntry(device, number, entry);
  unit.queue.sync();
}

/** What is cached of an entry and by way of it. */
function dropEntry(device: IommuDevice, pasid: number, entry: PasidEntry): void {
  const { unit, ats } = deviceDataOf(device);
  const id = Number(PASID_ENTRY.get(entry, "DID"));
  const type = Number(PASID_ENTRY.get(entry, "PGTT"));
  dropPasidEntry(unit, id, pasid);
  if (type === PGTT_FIRST || type === PGTT_PASS_THROUGH) dropFirstStage(unit, id, pasid, 0, EVERYTHING, false);
  else dropDomain(unit, id);
  if (ats) dropDevice(unit, device, pasid);
}

/** intel_iommu_drain_pasid_prq: what the device asked for has arrived and was taken. */
function drainPageRequests(device: IommuDevice, pasid: number, id: number): void {
  const { unit, ats } = deviceDataOf(device);
  unit.handlePageRequests();
  unit.queue.fence();
  dropFirstStage(unit, id, pasid, 0, EVERYTHING, false);
  if (ats) dropDevice(unit, device, pasid);
  unit.queue.syncPageRequests();
  unit.handlePageRequests();
}

// --- context entries ---

/** Scalable mode: the entry that leads to the device's PASID directory; RID_PASID is 0 (intel_pasid_setup_sm_context). */
export function setUpScalableContext(device: IommuDevice, table: PasidTable, withPageRequests: boolean): void {
  const { unit, ats } = deviceDataOf(device);
  const words = [0n, 0n, 0n, 0n];
  SCALABLE_CONTEXT.set(words, "P", 1n);
  SCALABLE_CONTEXT.set(words, "DTE", ats ? 1n : 0n);
  SCALABLE_CONTEXT.set(words, "PASIDE", device.maxPasids > 0 && unit.pasidBits > 0 ? 1n : 0n);
  SCALABLE_CONTEXT.set(words, "PRE", withPageRequests ? 1n : 0n);
  SCALABLE_CONTEXT.set(words, "PDTS", BigInt(table.sizeCode));
  SCALABLE_CONTEXT.set(words, "PASIDDIRPTR", BigInt(table.directory));
  unit.roots.write(unit.sourceIdOf(device), words);
  contextAppeared(unit, 0, unit.sourceIdOf(device));
}

/** The device goes away: nothing leads to its tables any more. */
export function tearDownScalableContext(device: IommuDevice): void {
  const { unit } = deviceDataOf(device);
  const sourceId = unit.sourceIdOf(device);
  unit.roots.clearPresent(sourceId);
  dropContext(unit, 0, sourceId);
  unit.queue.sync();
  unit.roots.write(sourceId, [0n, 0n, 0n, 0n]);
}

function setUpContext(device: IommuDevice, placement: Placement): void {
  const data = deviceDataOf(device);
  const { unit } = data;
  const ats = placement.translates && unit.features.DT && device.hasAts;
  const words = placement.contextEntry!(ats);
  unit.roots.write(unit.sourceIdOf(device), words);
  contextAppeared(unit, Number(CONTEXT.get(words, "DID")), unit.sourceIdOf(device));
  // The device begins to ask after its unit has begun to answer.
  if (ats) device.services?.setAts(true);
  data.ats = ats;
}

function tearDownContext(device: IommuDevice): void {
  const data = deviceDataOf(device);
  const { unit } = data;
  const sourceId = unit.sourceIdOf(device);
  const words = unit.roots.read(sourceId);
  if ((words[0]! & BigInt(PRESENT)) === 0n) return;
  if (data.ats) device.services?.setAts(false);
  unit.roots.clearPresent(sourceId);
  const id = Number(CONTEXT.get(words, "DID"));
  dropContext(unit, id, sourceId);
  dropDomain(unit, id);
  if (data.ats) dropDevice(unit, device, 0);
  unit.queue.sync();
  unit.roots.write(sourceId, [0n, 0n]);
  data.ats = false;
}

/** With caching mode an absent entry may be cached, under id 0. */
function contextAppeared(unit: VtdUnit, id: number, sourceId: number): void {
  if (!unit.features.CM) {
    unit.flushWriteBuffer();
    return;
  }
  dropContext(unit, 0, sourceId);
  dropDomain(unit, id);
  unit.queue.sync();
}

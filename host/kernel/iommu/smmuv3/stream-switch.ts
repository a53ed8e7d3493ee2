// How a device changes domains, at its requester id and at its PASIDs (Linux: arm_smmu_attach_dev, arm_smmu_set_pasid and what they call). The
// core's record (../attachments.ts) says how things are to be, with the new domain in it; here the stream table entry, the context descriptors
// and the device's ATS are made so:
//
//     prepare    memory that is needed; a device whose ATS is to go stops asking
//     install    context descriptor, then stream table entry, each hitless where it can be (entry-writer.ts)
//     commit     the device forgets what it held; one whose ATS is to come begins to ask
//
// What the domain that was left has cached under its tag is dropped when the record no longer has the place (`left` of the domain).
//
// A stream leads to a table of context descriptors while its domain is a first stage or a PASID has one. Under such a table, identity and
// blocked are values of S1DSS.

import { encodeCommand } from "../../../arch/smmuv3/commands.ts";
import { S1DSS_BYPASS, S1DSS_SSID0 } from "../../../arch/smmuv3/stream-table-entry.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import { EBUSY, EINVAL } from "../../../uapi/errno.ts";
import type { IommuDevice } from "../driver.ts";
import { CONTEXT_DESCRIPTOR_RULES, NO_DESCRIPTOR } from "./context-descriptors.ts";
import type { ContextTable } from "./context-table.ts";
import { type DeviceData, deviceDataOf } from "./device-data.ts";
import { type Entry, writeEntry } from "./entry-writer.ts";
import { dropDevice, dropDevicePasids } from "./invalidations.ts";
import { abortEntry, bypassEntry, contextTableEntry } from "./stream-entries.ts";

/** What a stream is to be. */
export interface StreamTarget {
  /** With ATS, where device and SMMU have it. */
  readonly ats: boolean;
  /** Of a nested domain: by what id the guest knows the device (Linux: struct arm_smmu_vmaster). */
  readonly guestStream?: bigint | null;
  entry(ats: boolean): Entry;
}

export type NewContextTable = (device: IommuDevice) => ContextTable | number;

const S1DSS_TERMINATE = 0;

/** Makes the device's stream what is wanted; page tables and descriptors that it leads to are in place. Cannot fail. */
export function switchStream(device: IommuDevice, target: StreamTarget): void {
  const data = deviceDataOf(device);
  // What may stall is no PCIe stream, and EATS = 1 with stalls of stage 2 is ILLEGAL (§5.2.2): where the SMMU forces stalls there is no ATS.
  const ats = target.ats && data.smmu.features.ATS && device.hasAts && !data.traits.stalls;
  // The device stops asking before its SMMU stops answering, and begins after it has begun to.
  if (!ats) setPageRequests(device, data, false);
  if (data.ats && !ats) device.services?.setAts(false);
  data.smmu.writeStreamEntry(device, target.entry(ats));
  if (data.ats || ats) forgetAll(device, data);
  if (ats && !data.ats) device.services?.setAts(true);
  data.ats = ats;
  data.guestStream = target.guestStream ?? null;
  followPageRequests(device, data);
}

/** Page requests are on while somebody wants them and the device has ATS. */
function followPageRequests(device: IommuDevice, data: DeviceData): void {
  const wanted = data.canRelayPageRequests && data.ats && device.attachments.wantsPageRequests;
  setPageRequests(device, data, wanted);
}

function setPageRequests(device: IommuDevice, data: DeviceData, on: boolean): void {
  if (data.pageRequests !== on) device.services?.setPri(on);
  data.pageRequests = on;
}

/** Puts a second stage, or what has one, at the requester id; -EBUSY while PASIDs have domains. */
export function attachWholeStream(device: IommuDevice, target: StreamTarget): number {
  if (device.attachments.pasids.size > 0) return -EBUSY;
  switchStream(device, target);
  dropContexts(device);
  return 0;
}

/** Puts a first stage at the requester id: descriptor 0. -ENOMEM. */
export function attachFirstStage(device: IommuDevice, descriptor: Entry, newTable: NewContextTable): number {
  const data = deviceDataOf(device);
  const prepared = prepareContext(device, 0, newTable);
  if (prepared < 0) return prepared;
  writeContext(device, data, 0, descriptor);
  switchStream(device, { ats: true, entry: leadingToContexts(data, S1DSS_SSID0) });
  return 0;
}

/** Puts identity or blocked at the requester id. Cannot fail. */
export function attachFixed(device: IommuDevice, kind: "identity" | "blocked"): number {
  const data = deviceDataOf(device);
  if (device.attachments.pasids.size > 0 && data.contexts !== null) {
    // A PASID may use ATS; full ATS works where stage 1 is bypassed by S1DSS, not with Config 4 (§13.6.4).
    switchStream(device, { ats: true, entry: leadingToContexts(data, fixedSubstream(kind)) });
    clearContext(device, data, 0);
    return 0;
  }
  const entry = kind === "identity" ? bypassEntry(data.traits) : abortEntry();
  switchStream(device, { ats: false, entry: () => entry });
  dropContexts(device);
  return 0;
}

/** Puts a first stage at a PASID. -EINVAL where the requester id is on something that leaves no room for it; -ENOMEM. */
export function attachPasid(device: IommuDevice, pasid: number, descriptor: Entry, newTable: NewContextTable): number {
  const data = deviceDataOf(device);
  const requester = device.attachments.requester?.domain.kind ?? "blocked";
  // Descriptor 0 is the requester id's.
  if (pasid === 0) return -EINVAL;
  if (data.contexts === null && requester !== "identity" && requester !== "blocked") return -EINVAL;
  const led = data.contexts !== null;
  const prepared = prepareContext(device, pasid, newTable);
  if (prepared < 0) return prepared;
  writeContext(device, data, pasid, descriptor);
  if (!led) {
    const kind = requester === "identity" ? "identity" : "blocked";
    switchStream(device, { ats: true, entry: leadingToContexts(data, fixedSubstream(kind)) });
  } else if (data.ats) {
    dropDevice(data.smmu.queue, data.smmu.streamOf(device), pasid);
    data.smmu.queue.sync();
  }
  followPageRequests(device, data);
  return 0;
}

/** Takes a PASID's first stage away. With the last one a stream without a first stage of its own leaves the table. */
export function detachPasid(device: IommuDevice, pasid: number): number {
  const data = deviceDataOf(device);
  if (data.contexts === null) return 0;
  clearContext(device, data, pasid);
  if (data.ats) {
    dropDevice(data.smmu.queue, data.smmu.streamOf(device), pasid);
    data.smmu.queue.sync();
  }
  followPageRequests(device, data);
  const requester = device.attachments.requester?.domain.kind ?? "blocked";
  const fixed = requester === "identity" || requester === "blocked";
  return fixed && device.attachments.pasids.size === 0 ? attachFixed(device, requester) : 0;
}

/** The stream aborts and the device asks for nothing any more: it goes away. */
export function quiesce(device: IommuDevice): void {
  switchStream(device, { ats: false, entry: abortEntry });
  dropContexts(device);
}

function fixedSubstream(kind: "identity" | "blocked"): number {
  return kind === "identity" ? S1DSS_BYPASS : S1DSS_TERMINATE;
}

function leadingToContexts(data: DeviceData, withoutPasid: number): (ats: boolean) => Entry {
  return (ats) => contextTableEntry(data.contexts!.place, data.traits, ats, withoutPasid);
}

/** What the device holds is what its old domains said, at every PASID (a guest's among them). */
function forgetAll(device: IommuDevice, data: DeviceData): void {
  const { queue } = data.smmu;
  const stream = data.smmu.streamOf(device);
  dropDevice(queue, stream, 0);
  // Linux leaves this out: by its reading a request without PASID means them all.
  if (device.maxPasids > 0) dropDevicePasids(queue, stream);
  queue.sync();
}

// --- context descriptors ---

function prepareContext(device: IommuDevice, substream: number, newTable: NewContextTable): number {
  const data = deviceDataOf(device);
  const made = data.contexts ?? newTable(device);
  if (typeof made === "number") return made;
  const prepared = made.prepare(substream, () => {
    if (data.contexts === null) return;
    // The hardware may keep that there was none (§4.3.3).
    data.smmu.issue([encodeCommand("CFGI_CD", { SID: data.smmu.streamOf(device), SSID: substream })]);
  });
  if (prepared === 0) data.contexts = made;
  else if (data.contexts === null) made.free();
  return prepared;
}

function writeContext(device: IommuDevice, data: DeviceData, substream: number, descriptor: Entry): void {
  const forget = encodeCommand("CFGI_CD", { SID: data.smmu.streamOf(device), SSID: substream, Leaf: 1 });
  const place = data.contexts?.descriptorOf(substream, () => data.smmu.issue([forget]));
  if (place) writeEntry(place, descriptor, CONTEXT_DESCRIPTOR_RULES);
}

function clearContext(device: IommuDevice, data: DeviceData, substream: number): void {
  if (data.contexts?.isValid(substream)) writeContext(device, data, substream, NO_DESCRIPTOR);
}

/** The stream no longer leads to the table. */
function dropContexts(device: IommuDevice): void {
  const data = deviceDataOf(device);
  data.contexts?.free();
  data.contexts = null;
}

/** SubstreamID of a place of a device: 0 for its requester id. */
export function substreamOf(pasid: number): number {
  return pasid === NO_PASID ? 0 : pasid;
}

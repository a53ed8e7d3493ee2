// What the driver keeps for a device (Linux: dev_iommu->priv), and the two ways a device changes domains: at its requester id, and at
// one of its PASIDs. Which domains those are is the core's record (../attachments.ts); here it is made true in the hardware.
//
// While a PASID has a domain the device's context points to a process directory of the host's (process-directory.ts), in which
// process id 0 is the requester id's domain; otherwise the context holds that domain itself.

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import { TC_DPE, TC_EN_ATS, TC_EN_PRI, TC_PDTV, TC_SADE, TC_V } from "../../../arch/riscv/device-context.ts";
import { EBUSY, EINVAL } from "../../../uapi/errno.ts";
import type { Attachment } from "../attachments.ts";
import type { IommuDevice, IommuDomain } from "../driver.ts";
import { type Context, INVALID_CONTEXT } from "./context-switch.ts";
import { forgetTranslations } from "./device-translations.ts";
import type { RiscvIommu } from "./instance.ts";
import type { ProcessContext, ProcessDirectory } from "./process-directory.ts";

export interface DeviceData {
  readonly iommu: RiscvIommu;
  /** What the device's context leads to while PASIDs have domains; null without. */
  directory: ProcessDirectory | null;
}

/** A domain of this driver. */
export interface RiscvDomain extends IommuDomain {
  /** The device context that makes the device use this domain and nothing else. */
  contextFor(device: IommuDevice): Context;
  /** Its entry in a process directory; null: it cannot stand in one. */
  readonly processContext: (() => ProcessContext) | null;
  readonly tracksDirty?: boolean;
}

export function deviceDataOf(device: IommuDevice): DeviceData {
  return device.driverData as DeviceData;
}

/** The core attaches a driver's devices to domains of that driver only. */
function domainOf(attachment: Attachment): RiscvDomain {
  return attachment.domain as RiscvDomain;
}

/** tc bits for page requests under a domain of the host's. A device without PRI is no error: it just never asks. */
export function pageRequestBits(device: IommuDevice): number {
  const able = device.hasPri && device.hasAts && deviceDataOf(device).iommu.capabilities.ATS;
  return able && device.attachments.wantsPageRequests ? TC_EN_ATS | TC_EN_PRI : 0;
}

/**
 * Puts the device on a domain at its requester id. -EBUSY for a domain that cannot go with PASIDs while some have domains; -ENOMEM.
 */
export function moveDevice(device: IommuDevice, to: RiscvDomain): number {
  const data = deviceDataOf(device);
  if (data.iommu.devices.get(device.deviceId) !== device) return -EINVAL;
  if (device.attachments.pasids.size === 0) return useContext(device, data, to.contextFor(device));
  if (to.processContext === null) return -EBUSY;
  return enterDirectory(device, data, 0, to);
}

/** Puts one PASID of the device on a domain; `makeDirectory` gives a directory when this is the first. */
export function movePasid(
  device: IommuDevice,
  pasid: number,
  to: RiscvDomain,
  makeDirectory: () => ProcessDirectory | number,
): number {
  const data = deviceDataOf(device);
  const { requester } = device.attachments;
  const rid = requester === null ? null : domainOf(requester);
  // Process id 0 is the requester id's.
  if (to.processContext === null || pasid === 0) return -EINVAL;
  if (rid !== null && rid.processContext === null) return -EBUSY;
  if (data.directory !== null) return enterDirectory(device, data, pasid, to);
  const directory = makeDirectory();
  if (typeof directory === "number") return directory;
  let result = directory.set(0, rid?.processContext?.() ?? null);
  if (result === 0) result = directory.set(pasid, to.processContext());
  if (result === 0) result = data.iommu.switchContext(device.deviceId, directoryContext(device, directory));
  if (result === 0) data.directory = directory;
  else directory.free();
  return result;
}

/** Takes a PASID's domain away; with the last one the process directory goes too. */
export function clearPasid(device: IommuDevice, pasid: number): number {
  const data = deviceDataOf(device);
  const { directory } = data;
  if (directory === null) return 0;
  directory.set(pasid, null);
  invalidateProcess(device, data, pasid);
  const { requester, pasids } = device.attachments;
  if (pasids.size > 0) updateDirectoryContext(device, data, directory);
  // Without memory for the switch the device stays in the directory, where only process id 0 is left.
  else useContext(device, data, requester === null ? INVALID_CONTEXT : domainOf(requester).contextFor(device));
  return 0;
}

/** Makes `context`, which leads to no process directory, the device's. */
function useContext(device: IommuDevice, data: DeviceData, context: Context): number {
  const switched = data.iommu.switchContext(device.deviceId, context);
  if (switched === 0) {
    data.directory?.free();
    data.directory = null;
  }
  return switched;
}

/** Writes an entry of the device's directory and makes the hardware see it. */
function enterDirectory(device: IommuDevice, data: DeviceData, processId: number, domain: RiscvDomain): number {
  const directory = data.directory!;
  const before = data.iommu.contextOf(device.deviceId);
  const [tc, ...rest] = directoryContext(device, directory);
  // Whoever needs its accesses marked in the tables must not meet the context before it says so.
  if ((tc & ~before[0]) !== 0n) data.iommu.switchContext(device.deviceId, [tc | before[0], ...rest]);
  const result = directory.set(processId, domain.processContext!());
  if (result < 0) {
    data.iommu.switchContext(device.deviceId, before);
    return result;
  }
  invalidateProcess(device, data, processId);
  directory.freeReplaced();
  updateDirectoryContext(device, data, directory);
  return 0;
}

/** Only tc can differ, which is one store and cannot fail. */
function updateDirectoryContext(device: IommuDevice, data: DeviceData, directory: ProcessDirectory): void {
  const context = directoryContext(device, directory);
  if (context[0] !== data.iommu.contextOf(device.deviceId)[0]) data.iommu.switchContext(device.deviceId, context);
}

function invalidateProcess(device: IommuDevice, data: DeviceData, processId: number): void {
  const { queue } = data.iommu;
  // Exchanged tables may be cached above the entry: INVAL_DDT drops all of the device's directory entries (§4.1.3).
  queue.push(encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: device.deviceId }));
  queue.push(encodeCommand("IODIR.INVAL_PDT", { DV: 1, DID: device.deviceId, PID: processId }));
  if (data.iommu.mayHoldTranslations(device)) forgetTranslations(queue, device);
  queue.fence();
}

/** The device context that leads to the process directory; requests without PASID are process 0 (DPE). */
function directoryContext(device: IommuDevice, directory: ProcessDirectory): Context {
  const { requester, pasids } = device.attachments;
  let marks = requester !== null && domainOf(requester).tracksDirty === true;
  for (const attachment of pasids.values()) marks ||= domainOf(attachment).tracksDirty === true;
  const tc = TC_V | TC_PDTV | TC_DPE | pageRequestBits(device) | (marks ? TC_SADE : 0);
  return [BigInt(tc), 0n, 0n, directory.pdtp];
}

// What the driver keeps for a device (Linux: dev_iommu->priv), and the two ways a device changes domains: at its requester id, and at
// one of its PASIDs.
//
// While a PASID has a domain the device's context points to a process directory of the host's (process-directory.ts), in which
// process id 0 is the requester id's domain; otherwise the context holds that domain itself.

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import { TC_DPE, TC_EN_ATS, TC_EN_PRI, TC_PDTV, TC_SADE, TC_V } from "../../../arch/riscv/device-context.ts";
import { EBUSY, EINVAL } from "../../../uapi/errno.ts";
import type { IommuDevice, IommuDomain } from "../driver.ts";
import type { Context } from "./context-switch.ts";
import { forgetTranslations } from "./device-translations.ts";
import type { RiscvIommu } from "./instance.ts";
import type { ProcessContext, ProcessDirectory } from "./process-directory.ts";

export interface DeviceData {
  readonly iommu: RiscvIommu;
  /** The domain attached at the requester id, as this driver sees it. */
  domain: RiscvDomain | null;
  /** Page requests were asked for by the core. */
  pageRequests: boolean;
  /** Domains at PASIDs, and the directory that leads to them; null while there are none. */
  readonly pasids: Map<number, RiscvDomain>;
  directory: ProcessDirectory | null;
}

/** A domain of this driver: is told who uses it. */
export interface RiscvDomain extends IommuDomain {
  deviceJoined(device: IommuDevice): void;
  deviceLeft(device: IommuDevice): void;
  contextFor(data: DeviceData): Context;
  /** Its entry in a process directory; null: it cannot stand in one. */
  readonly processContext: (() => ProcessContext) | null;
  readonly tracksDirty?: boolean;
}

export function deviceDataOf(device: IommuDevice): DeviceData {
  return device.driverData as DeviceData;
}

/**
 * Puts the device on a domain at its requester id. The new domain is told before the switch, so that an unmap between both would
 * reach the device's caches, the old one after it (it flushes its tag when its last user leaves). -EBUSY for a domain that cannot
 * go with PASIDs while some have domains.
 */
export function moveDevice(device: IommuDevice, to: RiscvDomain, _old: IommuDomain | null): number {
  const data = deviceDataOf(device);
  const from = data.domain;
  if (data.iommu.devices.get(device.deviceId) !== device) return -EINVAL;
  if (data.directory !== null && to.processContext === null) return -EBUSY;
  // What the device did under its old domain is told to the old domain's owner, and to nobody else.
  data.iommu.drainRecords();
  to.deviceJoined(device);
  const result =
    data.directory === null
      ? data.iommu.switchContext(device.deviceId, to.contextFor(data))
      : enterDirectory(device, data, 0, to);
  if (result < 0) {
    to.deviceLeft(device);
    return result;
  }
  data.domain = to;
  from?.deviceLeft(device);
  return 0;
}

/** Puts one PASID of the device on a domain; `makeDirectory` gives a directory when this is the first. */
export function movePasid(
  device: IommuDevice,
  pasid: number,
  to: RiscvDomain,
  makeDirectory: () => ProcessDirectory | number,
): number {
  const data = deviceDataOf(device);
  const rid = data.domain;
  // Process id 0 is the requester id's.
  if (to.processContext === null || pasid === 0) return -EINVAL;
  if (rid !== null && rid.processContext === null) return -EBUSY;
  data.iommu.drainRecords();
  const from = data.pasids.get(pasid) ?? null;
  const fresh = data.directory === null;
  const directory = data.directory ?? makeDirectory();
  if (typeof directory === "number") return directory;
  data.directory = directory;
  to.deviceJoined(device);
  let result = fresh ? directory.set(0, rid?.processContext?.() ?? null) : 0;
  if (result === 0) result = enterDirectory(device, data, pasid, to);
  if (result === 0 && fresh) {
    data.pasids.set(pasid, to);
    result = data.iommu.switchContext(device.deviceId, directoryContext(data, directory));
  }
  if (result < 0) {
    data.pasids.delete(pasid);
    to.deviceLeft(device);
    if (fresh) {
      data.directory = null;
      directory.free();
    }
    return result;
  }
  data.pasids.set(pasid, to);
  from?.deviceLeft(device);
  return 0;
}

/** Takes a PASID's domain away; with the last one the process directory goes too. */
export function clearPasid(device: IommuDevice, pasid: number): number {
  const data = deviceDataOf(device);
  const { directory } = data;
  const from = data.pasids.get(pasid);
  if (from === undefined || directory === null) return 0;
  data.iommu.drainRecords();
  directory.set(pasid, null);
  data.pasids.delete(pasid);
  invalidateProcess(device, data, pasid);
  if (data.pasids.size === 0 && data.domain !== null) {
    const left = data.iommu.switchContext(device.deviceId, data.domain.contextFor(data));
    if (left === 0) {
      data.directory = null;
      directory.free();
    }
  }
  from.deviceLeft(device);
  return 0;
}

/** Writes an entry of the device's directory and makes the hardware see it. */
function enterDirectory(device: IommuDevice, data: DeviceData, processId: number, domain: RiscvDomain): number {
  const directory = data.directory!;
  const result = directory.set(processId, domain.processContext!());
  if (result < 0) return result;
  invalidateProcess(device, data, processId);
  directory.freeReplaced();
  return 0;
}

function invalidateProcess(device: IommuDevice, data: DeviceData, processId: number): void {
  const { queue } = data.iommu;
  // Exchanged tables may be cached above the entry: INVAL_DDT drops all of the device's directory entries (§4.1.3).
  queue.push(encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: device.deviceId }));
  queue.push(encodeCommand("IODIR.INVAL_PDT", { DV: 1, DID: device.deviceId, PID: processId }));
  const atsOn = (Number(data.iommu.contextOf(device.deviceId)[0] & 0xffn) & TC_EN_ATS) !== 0;
  if (device.hasAts && atsOn) for (const command of forgetTranslations(device)) queue.push(command);
  queue.fence();
}

/** The device context that leads to the process directory; requests without PASID are process 0 (DPE). */
export function directoryContext(data: DeviceData, directory: ProcessDirectory): Context {
  const requests = data.pageRequests ? TC_EN_ATS | TC_EN_PRI : 0;
  const domains = [data.domain, ...data.pasids.values()];
  const dirty = domains.some((domain) => domain?.tracksDirty === true) ? TC_SADE : 0;
  return [BigInt(TC_V | TC_PDTV | TC_DPE | requests | dirty), 0n, 0n, directory.pdtp];
}

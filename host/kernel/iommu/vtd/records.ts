// Records that the hardware made, on their way up, and the answers to them on their way down (Linux: dmar_fault, prq.c).
//
//     fault record                       ─▶ counted and traced as the kernel's own (Linux prints it). Nobody is told: there is no event queue for VT-d (but see deviations.ts)
//     page request of a device           ─▶ the iommu core, which collects groups for whoever attached the domain
//     page request that makes no sense   ─▶ answered INVALID
//
//     answer to a group                  ─▶ page group response, with the PASID that the request had

import { decodeFaultRecord, describeFaultRecord } from "../../../arch/vtd/fault-records.ts";
import { DESCRIPTOR_PAGE_GROUP_RESPONSE } from "../../../arch/vtd/invalidation-descriptors.ts";
import {
  decodePageRequest,
  RESPONSE_FAILURE,
  RESPONSE_INVALID,
  RESPONSE_SUCCESS,
} from "../../../arch/vtd/page-requests.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import type { IommuDevice, PageRequest } from "../driver.ts";
import { PAGE_RESPONSE_INVALID, PAGE_RESPONSE_SUCCESS } from "../page-requests.ts";
import { deviceDataOf } from "./device-data.ts";
import type { VtdDriver } from "./driver.ts";
import type { VtdUnit } from "./unit.ts";

/** PageRequest.permissions. */
const READ = 1;
const WRITE = 2;
const EXECUTE = 4;
const PRIVILEGED = 8;

export function handleFault(driver: VtdDriver, unit: VtdUnit, words: readonly bigint[]): void {
  const { trace } = driver;
  const device = unit.devices.get(decodeFaultRecord(words).sourceId);
  const told = device !== undefined && driver.relayFault(device, words);
  if (!told) unit.unhandledFaults++;
  if (!trace.on) return;
  const { reason, sourceId, pasid, address, type } = decodeFaultRecord(words);
  trace.emit({
    type: "fault",
    where: "kernel",
    kind: "vtd",
    iommu: unit.name,
    faultCause: reason,
    deviceId: sourceId,
    ...(pasid >= 0 ? { pasid } : {}),
    iotval: address,
    iotval2: 0n,
    ttyp: type,
    text: `${describeFaultRecord(words)}; ${told ? "told the guest" : "nobody to tell"}`,
  });
}

export function handlePageRequest(driver: VtdDriver, unit: VtdUnit, words: readonly bigint[]): void {
  const { requesterId, pasid, address, group, read, write, execute, privileged, last } = decodePageRequest(words);
  const asks = read || write;
  const device = unit.devices.get(requesterId);
  const request: PageRequest = {
    pasid: pasid < 0 ? NO_PASID : pasid,
    group,
    last,
    permissions: (read ? READ : 0) | (write ? WRITE : 0) | (execute ? EXECUTE : 0) | (privileged ? PRIVILEGED : 0),
    address,
    answerWithPasid: pasid >= 0,
  };
  // Linux supports neither privileged requests nor such that want to execute.
  const refused = !isCanonical(address, unit) || (privileged && asks) || (execute && read);
  // A Stop Marker asks for nothing and gets no answer.
  if (last && !asks && !refused) return;
  if (refused || device === undefined) {
    if (last) respond(unit, requesterId, request, RESPONSE_INVALID);
    return;
  }
  driver.core.reportPageRequest(device, request);
}

/** Bits 63:47 are equal, or 63:56 with 5 levels, which the processor is taken to have if the unit has them. */
function isCanonical(address: bigint, { features }: VtdUnit): boolean {
  const bits = features.FS5LP ? 57 : 48;
  return BigInt.asUintN(64, BigInt.asIntN(bits, address)) === address;
}

/** Answers what was reported of the device (iommufd's code, or PAGE_RESPONSE_FAILURE); only the last of a group gets an answer. */
export function answerRequest(device: IommuDevice, request: PageRequest, code: number): void {
  if (!request.last) return;
  const { unit } = deviceDataOf(device);
  const answer =
    code === PAGE_RESPONSE_SUCCESS
      ? RESPONSE_SUCCESS
      : code === PAGE_RESPONSE_INVALID
        ? RESPONSE_INVALID
        : RESPONSE_FAILURE;
  respond(unit, unit.sourceIdOf(device), request, answer);
}

function respond(unit: VtdUnit, sourceId: number, request: PageRequest, answer: number): void {
  const withPasid = request.pasid >= 0;
  unit.queue.pushHalves(
    DESCRIPTOR_PAGE_GROUP_RESPONSE | (withPasid ? 1 << 4 : 0) | (answer << 12) | (sourceId << 16),
    withPasid ? request.pasid : 0,
    request.group << 3,
    0,
  );
  unit.queue.sync();
}

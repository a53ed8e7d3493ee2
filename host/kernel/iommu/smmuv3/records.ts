// Records that the hardware queued, on their way up, and the answers to them on their way down (Linux: arm_smmu_handle_event,
// arm_smmu_handle_ppr, arm_smmu_page_response).
//
//     event of a transaction that stalls   ─▶ a page request of the device: a group of one, whose number is the STAG
//     event about a guest's own tables     ─▶ the vEVENTQ of the vIOMMU that the device is attached to, under the guest's StreamID
//     any other event                      ─▶ counted and traced as the kernel's own (Linux prints it)
//     page request of a PCI function       ─▶ denied
//
//     answer to a stalled transaction      ─▶ CMD_RESUME: SUCCESS has it made again, anything else aborts it
//
// No CMD_SYNC follows an answer: it would not wait for what the answer lets go on. Two deviations (deviations.ts) are in here: table fetches
// that stage 2 refused are told to the guest, and page requests go to a fault queue.

import { encodeCommand, RESP_FAILURE, RESP_INVALID, RESP_SUCCESS } from "../../../arch/smmuv3/commands.ts";
import { decodeEvent, describeEvent, PAGE_REQUEST_RECORD } from "../../../arch/smmuv3/event-records.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import { IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 } from "../../../uapi/smmuv3-nesting.ts";
import type { IommuDevice, PageRequest } from "../driver.ts";
import { PAGE_RESPONSE_INVALID, PAGE_RESPONSE_SUCCESS } from "../page-requests.ts";
import { RELAY_PAGE_REQUESTS, RELAY_TABLE_FETCHES } from "./deviations.ts";
import { deviceDataOf } from "./device-data.ts";
import type { Smmuv3Driver } from "./driver.ts";
import { type EventWords, eventForGuest, isHandled, tableFetchForGuest } from "./guest-events.ts";
import type { Smmuv3Instance } from "./instance.ts";
import { Smmuv3NestedDomain } from "./nested-domain.ts";
import type { Smmuv3Viommu } from "./viommu.ts";

/** PageRequest.permissions. */
const READ = 1;
const WRITE = 2;
const EXECUTE = 4;
const PRIVILEGED = 8;

export function handleEvent(driver: Smmuv3Driver, smmu: Smmuv3Instance, words: EventWords): void {
  const event = decodeEvent(words);
  const device = smmu.devices.get(event.streamId) ?? null;
  const viommu = device === null || event.stall ? null : viommuOf(device);
  const guestStream = viommu === null ? null : deviceDataOf(device!).guestStream;
  const relayed = guestStream === null ? null : recordFor(driver, words, guestStream);
  const told = relayed !== null ? `; guest's stream 0x${guestStream!.toString(16)}` : "; nobody to tell";
  const before = traceEvent(driver, smmu, words, event.stall ? "" : told);
  if (event.stall && device !== null && smmu.stalls(device) && isHandled(words)) {
    driver.core.reportPageRequest(device, {
      pasid: event.substreamId >= 0 ? event.substreamId : NO_PASID,
      group: event.stag,
      last: true,
      permissions:
        (event.read ? READ : WRITE) | (event.instruction ? EXECUTE : 0) | (event.privileged ? PRIVILEGED : 0),
      address: event.inputAddress,
    });
  } else if (event.stall) {
    // Nobody will answer: its device has gone, or is one that no answer could reach. A guest may let a PCI function stall, by CD.S; Linux
    // reports that to nobody and never resumes it, so that each one takes up a STAG for good.
    smmu.unhandledEvents++;
    resume(smmu, event.streamId, event.stag, false);
  } else if (relayed !== null) {
    // Without a vEVENTQ of the type nobody listens: the event is dropped, and the kernel's own (-EOPNOTSUPP).
    const reported = viommu!.core.reportEvent(IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, relayed);
    if (reported < 0) smmu.unhandledEvents++;
  } else {
    smmu.unhandledEvents++;
  }
  driver.trace.leave(before);
}

/** The vIOMMU whose guest has the device. */
function viommuOf(device: IommuDevice): Smmuv3Viommu | null {
  const domain = device.attachments.requester?.domain;
  return domain instanceof Smmuv3NestedDomain ? domain.viommu : null;
}

/** What the guest is told, null for nothing. */
function recordFor(driver: Smmuv3Driver, words: EventWords, virtualId: bigint): Uint8Array | null {
  if (!isHandled(words)) return null;
  const record = eventForGuest(words, virtualId);
  if (record !== null || !driver.deviates(RELAY_TABLE_FETCHES)) return record;
  return tableFetchForGuest(words, virtualId);
}

function traceEvent(driver: Smmuv3Driver, smmu: Smmuv3Instance, words: EventWords, whom: string): number {
  const { trace } = driver;
  if (!trace.on) return trace.cause;
  const event = decodeEvent(words);
  return trace.enter({
    type: "fault",
    where: "kernel",
    kind: "smmuv3",
    iommu: smmu.name,
    faultCause: event.number,
    deviceId: event.streamId,
    ...(event.substreamId >= 0 ? { pasid: event.substreamId } : {}),
    iotval: event.inputAddress,
    iotval2: event.address,
    ttyp: 0,
    text: `${describeEvent(words)}${whom}`,
  });
}

/**
 * A PCI function's page request. Linux has no use for it, and answers the last of each group with Failure, so that the function stops asking.
 */
export function handlePageRequest(driver: Smmuv3Driver, smmu: Smmuv3Instance, words: readonly bigint[]): void {
  const get = (field: keyof typeof PAGE_REQUEST_RECORD.fields) => Number(PAGE_REQUEST_RECORD.get(words, field));
  const last = get("Last") !== 0;
  const permissions =
    (get("R") !== 0 ? READ : 0) |
    (get("W") !== 0 ? WRITE : 0) |
    (get("X") !== 0 ? EXECUTE : 0) |
    (get("Priv") !== 0 ? PRIVILEGED : 0);
  // A Stop Marker (last, neither read nor write) asks for nothing and gets no answer (§8.1).
  if (last && (permissions & (READ | WRITE)) === 0) return;
  const withPasid = get("SSV") !== 0;
  const request: PageRequest = {
    pasid: withPasid ? get("SSID") : NO_PASID,
    group: get("PRGIndex"),
    last,
    permissions,
    address: PAGE_REQUEST_RECORD.get(words, "Addr") << 12n,
    answerWithPasid: withPasid,
  };
  const device = driver.deviates(RELAY_PAGE_REQUESTS) ? smmu.devices.get(get("SID")) : undefined;
  if (device !== undefined) driver.core.reportPageRequest(device, request);
  else if (last) answerPageRequest(smmu, get("SID"), request, RESP_FAILURE);
}

/** Answers what `handleEvent` or `handlePageRequest` reported of the device (iommufd's code or PAGE_RESPONSE_FAILURE). */
export function answerRequest(device: IommuDevice, request: PageRequest, code: number): void {
  if (!request.last) return;
  const { smmu } = deviceDataOf(device);
  // A page request says whether its answer is to have a PASID; a stalled transaction does not.
  if (request.answerWithPasid === undefined) {
    resume(smmu, device.deviceId, request.group, code === PAGE_RESPONSE_SUCCESS);
    return;
  }
  const answer =
    code === PAGE_RESPONSE_SUCCESS ? RESP_SUCCESS : code === PAGE_RESPONSE_INVALID ? RESP_INVALID : RESP_FAILURE;
  answerPageRequest(smmu, device.deviceId, request, answer);
}

function resume(smmu: Smmuv3Instance, stream: number, stag: number, retry: boolean): void {
  smmu.queue.push(encodeCommand("RESUME", { SID: stream, STAG: stag, Ac: retry ? 1 : 0, Ab: retry ? 0 : 1 }));
  smmu.queue.handOver();
}

function answerPageRequest(smmu: Smmuv3Instance, stream: number, request: PageRequest, answer: number): void {
  const pasid = request.answerWithPasid === true ? { SSV: 1, SSID: request.pasid } : {};
  smmu.queue.push(encodeCommand("PRI_RESP", { SID: stream, PRGIndex: request.group, Resp: answer, ...pasid }));
  smmu.queue.handOver();
}

// Records that the hardware queued, on their way up.
//
//     fault record → the device's nested domain → its vIOMMU's vEVENTQ, with the guest's device id in place of the host's
//                  → anything else: counted and traced as the kernel's own (Linux prints it)
//     page request → the iommu core, which groups it and finds its handler
//
// A relayed record holds nothing of the host's: iotval is the IOVA the device used, iotval2 a guest-physical address or 0.

import { TC_PRPR } from "../../../arch/riscv/device-context.ts";
import { decodeFaultRecord, describeFaultRecord, FAULT_RECORD } from "../../../arch/riscv/fault-records.ts";
import { decodePageRequest } from "../../../arch/riscv/page-requests.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import { IOMMU_VEVENTQ_TYPE_RISCV, iommuVeventRiscv } from "../../../uapi/riscv-nesting.ts";
import type { RiscvDriver } from "./driver.ts";
import type { RiscvIommu } from "./instance.ts";
import { RiscvNestedDomain } from "./nested-domain.ts";

/** Bits of a record's first doubleword that mean something to a guest; custom and reserved ones stay behind. */
const WORD0_BITS = FAULT_RECORD.definedBits(0);

export function relayFault(driver: RiscvDriver, iommu: RiscvIommu, words: readonly bigint[]): void {
  const record = decodeFaultRecord(words);
  const device = record.ttyp === 0 ? undefined : iommu.devices.get(record.deviceId);
  const domain = device?.attachments.requester?.domain ?? null;
  const guestId =
    device !== undefined && domain instanceof RiscvNestedDomain ? domain.viommu.core.virtualIdOf(device) : null;
  const { trace } = driver;
  let previous = 0;
  if (trace.on) {
    previous = trace.enter({
      type: "fault",
      where: "kernel",
      iommu: iommu.name,
      faultCause: record.cause,
      deviceId: record.deviceId,
      ...(record.processId >= 0 ? { pasid: record.processId } : {}),
      iotval: record.iotval,
      iotval2: record.iotval2,
      ttyp: record.ttyp,
      text:
        guestId === null
          ? `${describeFaultRecord(record)}; nobody to tell`
          : `${describeFaultRecord(record)}; guest's device 0x${guestId.toString(16)}`,
    });
  }
  if (guestId !== null && domain instanceof RiscvNestedDomain) {
    const relayed = [words[0]! & WORD0_BITS, 0n, words[2]!, words[3]!];
    FAULT_RECORD.set(relayed, "DID", guestId);
    const [word0, word1, iotval, iotval2] = relayed as [bigint, bigint, bigint, bigint];
    // Without a vEVENTQ of the type nobody listens: the event is dropped (-EOPNOTSUPP).
    const event = iommuVeventRiscv.encode({ word0, word1, iotval, iotval2 });
    domain.viommu.core.reportEvent(IOMMU_VEVENTQ_TYPE_RISCV, event);
  } else {
    iommu.unhandledFaults++;
  }
  if (trace.on) trace.leave(previous);
}

export function takePageRequest(driver: RiscvDriver, iommu: RiscvIommu, words: readonly bigint[]): void {
  const request = decodePageRequest(words);
  const device = iommu.devices.get(request.deviceId);
  // A stop marker (last, neither read nor write) asks for nothing and gets no answer (PCIe 6.0 §10.4.1.2.1).
  if (device === undefined || (request.last && !request.read && !request.write)) return;
  const permissions =
    (request.read ? 1 : 0) | (request.write ? 2 : 0) | (request.execute ? 4 : 0) | (request.privileged ? 8 : 0);
  driver.core.reportPageRequest(device, {
    pasid: request.processId >= 0 ? request.processId : NO_PASID,
    group: request.group,
    last: request.last,
    permissions,
    address: request.address,
    answerWithPasid: (Number(iommu.contextOf(device.deviceId)[0] & 0xffffn) & TC_PRPR) !== 0,
  });
}

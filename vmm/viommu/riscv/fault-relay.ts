// From the record that the hardware wrote to the record that the guest may see (§4.2). The guest's IOMMU has no second stage and its
// own directory, the hardware's has the host's: causes are translated, host addresses never pass.
//
//   device blocked            the hardware saw an invalid context (258): the cause kept for the device instead
//   second-stage faults       20/21/23 → 1/5/7, absent memory; 265 if what was fetched was an entry of the process directory
//   the host's directory,     257, 268, 261–264, 270, 271 → 272: not the guest's doing
//   the host's MSI tables
//   all else                  as it is, iotval2 0

import {
  CAUSE_DDT_DATA_CORRUPTION,
  CAUSE_DDT_LOAD_ACCESS_FAULT,
  CAUSE_DDT_NOT_VALID,
  CAUSE_INSTRUCTION_ACCESS_FAULT,
  CAUSE_INSTRUCTION_GUEST_PAGE_FAULT,
  CAUSE_INTERNAL_DATA_PATH_ERROR,
  CAUSE_MRIF_ACCESS_FAULT,
  CAUSE_MRIF_DATA_CORRUPTION,
  CAUSE_MSI_PT_DATA_CORRUPTION,
  CAUSE_MSI_PTE_LOAD_ACCESS_FAULT,
  CAUSE_MSI_PTE_MISCONFIGURED,
  CAUSE_MSI_PTE_NOT_VALID,
  CAUSE_PDT_LOAD_ACCESS_FAULT,
  CAUSE_READ_ACCESS_FAULT,
  CAUSE_READ_GUEST_PAGE_FAULT,
  CAUSE_WRITE_ACCESS_FAULT,
  CAUSE_WRITE_GUEST_PAGE_FAULT,
  decodeFaultRecord,
  type FaultRecord,
} from "../../../host/arch/riscv/fault-records.ts";
import type { DeviceState } from "../dispositions.ts";
import type { CanonicalContext } from "./context.ts";

const HOSTS_OWN = new Set([
  CAUSE_DDT_LOAD_ACCESS_FAULT,
  CAUSE_DDT_DATA_CORRUPTION,
  CAUSE_MSI_PTE_LOAD_ACCESS_FAULT,
  CAUSE_MSI_PTE_NOT_VALID,
  CAUSE_MSI_PTE_MISCONFIGURED,
  CAUSE_MRIF_ACCESS_FAULT,
  CAUSE_MSI_PT_DATA_CORRUPTION,
  CAUSE_MRIF_DATA_CORRUPTION,
]);

const SECOND_STAGE: Readonly<Record<number, number>> = {
  [CAUSE_INSTRUCTION_GUEST_PAGE_FAULT]: CAUSE_INSTRUCTION_ACCESS_FAULT,
  [CAUSE_READ_GUEST_PAGE_FAULT]: CAUSE_READ_ACCESS_FAULT,
  [CAUSE_WRITE_GUEST_PAGE_FAULT]: CAUSE_WRITE_ACCESS_FAULT,
};

/** iotval2 bit 0: the fault was on an implicit access of the first stage; bit 1: that access was the update of A and D (§3.3). */
const IMPLICIT = 1n;
const UPDATE = 2n;

/** Host record of 32 bytes, taken apart; null if it is too short to be one. */
export function decodeHostRecord(bytes: Uint8Array): FaultRecord | null {
  if (bytes.length < 32) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, 32);
  return decodeFaultRecord([0, 8, 16, 24].map((at) => view.getBigUint64(at, true)));
}

/**
 * The record for the guest. `inDirectory` tells whether a guest-physical address is
 * that of an entry on the way to a process_id's context.
 */
export function relayRecord(
  record: FaultRecord,
  state: DeviceState<CanonicalContext>,
  inDirectory: (state: DeviceState<CanonicalContext>, processId: number, address: bigint) => boolean,
): FaultRecord {
  const relayed = { ...record, iotval2: 0n };
  const secondStage = SECOND_STAGE[record.cause];
  if (secondStage !== undefined) {
    const address = record.iotval2 & ~3n;
    const implicit = (record.iotval2 & (IMPLICIT | UPDATE)) === IMPLICIT;
    const directory = implicit && inDirectory(state, processIdOf(record, state), address);
    return { ...relayed, cause: directory ? CAUSE_PDT_LOAD_ACCESS_FAULT : secondStage };
  }
  // The causes kept for blocked devices are those that tc.DTF does not keep out of the queue (§4.2), or had no context to set it.
  if (record.cause === CAUSE_DDT_NOT_VALID) return { ...relayed, cause: state.cause };
  if (HOSTS_OWN.has(record.cause)) return { ...relayed, cause: CAUSE_INTERNAL_DATA_PATH_ERROR };
  return relayed;
}

/** process_id whose context was sought: a request without one uses 0 under DPE (§3.3, step 7). */
function processIdOf(record: FaultRecord, state: DeviceState<CanonicalContext>): number {
  if (record.processId >= 0) return record.processId;
  return state.context !== null && (state.context.tc & (1 << 9)) !== 0 ? 0 : -1;
}

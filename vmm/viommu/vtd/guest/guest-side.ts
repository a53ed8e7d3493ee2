// VT-d's half of scenarios (../../guest-driver.ts): what its guest hears is what a guest of Linux's host hears.

import { FAULT_PASID_INVALID, FAULT_RTA_MODE, faultReasonName } from "../../../../host/arch/vtd/fault-reasons.ts";
import { describeFaultRecord, REQUEST_WRITE } from "../../../../host/arch/vtd/fault-records.ts";
import type { DriverSurroundings, FaultWord, GuestFault, GuestMemory, Heard } from "../../guest-driver.ts";
import { Stage1, type Stage1Mode } from "./stage1.ts";
import { type GuestFaultRecord, GuestVtd } from "./vtd-driver.ts";

/** Of assigned devices: their transactions' faults stay with the host, which has no event queue for them; what is wrong with entries is seen here. */
const HEARD: Readonly<Record<FaultWord, Heard>> = {
  "not mapped": { code: null, section: "§7.1" },
  "no permission": { code: null, section: "§7.1" },
  "outside memory": { code: null, section: "§7.1" },
  "device not set up": { code: null, section: "§7.1" },
  "context malformed": { code: FAULT_PASID_INVALID, section: "§9.6" },
  "PASID not set up": { code: null, section: "§7.1" },
  // As a mode that there is not.
  "refused by the host": { code: FAULT_RTA_MODE, section: "§7.1.3" },
};

export const VTD_GUEST = {
  host: "intel",
  // The host's interrupt address range is translated by nobody (§3.14).
  messagesPassBy: true,
  // A present entry is not rewritten (§6.5.3.3), by the guest as little as by the host.
  switchesBlock: true,
  stage1Modes: ["4-level", "5-level"],
  stage1: (ram: GuestMemory, tag: number, mode: Stage1Mode = "4-level") => new Stage1(ram, mode, tag),
  driver: (surroundings: DriverSurroundings) => new GuestVtd(surroundings),
  hears: (what: FaultWord, _write: boolean): Heard => HEARD[what],
  // A record of no transaction in particular has a read at 0.
  faultOf: (record: GuestFaultRecord): GuestFault => ({
    code: record.reason,
    deviceId: record.sourceId,
    pasid: record.pasid < 0 ? null : record.pasid,
    address: record.address === 0n ? null : record.address,
    write: record.address === 0n ? null : record.type === REQUEST_WRITE,
  }),
  describeFault: (record: GuestFaultRecord) => describeFaultRecord(record.words),
  faultName: faultReasonName,
} as const;

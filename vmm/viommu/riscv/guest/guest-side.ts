// The RISC-V IOMMU's half of scenarios (../../guest-driver.ts).

import { causeName, describeFaultRecord, type FaultRecord } from "../../../../host/arch/riscv/fault-records.ts";
import type { DriverSurroundings, FaultWord, GuestFault, GuestMemory, Heard } from "../../guest-driver.ts";
import { GuestIommu } from "./iommu-driver.ts";
import { Stage1, type Stage1Mode } from "./stage1.ts";

/** What a guest hears, by read and write. A stage-2 fault is an access fault to a guest whose IOMMU has no second stage. */
const HEARD: Readonly<Record<FaultWord, readonly [read: number, write: number, section: string]>> = {
  "not mapped": [13, 15, "§3.3 step 10"],
  "no permission": [13, 15, "§3.3 step 10"],
  "outside memory": [5, 7, "§3.3"],
  "device not set up": [258, 258, "§3.3.1"],
  "context malformed": [259, 259, "§3.1.4"],
  "PASID not set up": [266, 266, "§3.3.2"],
  // As one that this IOMMU does not offer.
  "refused by the host": [259, 259, "§3.1.4"],
};
/** TTYP values of writes (§4.2). */
const WRITES: ReadonlySet<number> = new Set([3, 7]);

export const RISCV_GUEST = {
  host: "two-iommus",
  servicesHost: "one-iommu",
  stage1Modes: ["Sv39", "Sv48", "Sv57"],
  stage1: (ram: GuestMemory, tag: number, mode: Stage1Mode = "Sv39") => new Stage1(ram, mode, tag),
  driver: (surroundings: DriverSurroundings) => new GuestIommu(surroundings),
  hears: (what: FaultWord, write: boolean): Heard => {
    const [read, written, section] = HEARD[what];
    return { code: write ? written : read, section };
  },
  // iotval holds the address, or (TTYP 9) the code of a message.
  faultOf: (record: FaultRecord): GuestFault => ({
    code: record.cause,
    deviceId: record.deviceId,
    pasid: record.processId < 0 ? null : record.processId,
    address: record.iotval,
    write: WRITES.has(record.ttyp),
  }),
  describeFault: (record: FaultRecord) => describeFaultRecord(record),
  faultName: causeName,
} as const;

// The SMMUv3's half of scenarios (../../guest-driver.ts): what its guest hears is what a guest of Linux's host and a VMM over iommufd hears.

import {
  C_BAD_CD,
  C_BAD_SUBSTREAMID,
  describeEvent,
  eventName,
  F_BAD_ATS_TREQ,
  F_PERMISSION,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
  F_UUT,
  F_WALK_EABT,
} from "../../../../host/arch/smmuv3/event-records.ts";
import type { DriverSurroundings, FaultWord, GuestFault, GuestMemory, Heard } from "../../guest-driver.ts";
import type { GuestEvent } from "./received-records.ts";
import { GuestSmmu } from "./smmu-driver.ts";
import { STAGE1_MODES, Stage1, type Stage1Mode } from "./stage1.ts";

/**
 * Of assigned devices. An SMMU records what its own tables refuse; an access that memory aborts is nobody's event (§7.3 has none), and to its guest
 * memory that the host's stage 2 does not map is that. An entry with V = 0 becomes one that aborts, which is silent (§5.2).
 */
const HEARD: Readonly<Record<FaultWord, Heard>> = {
  "not mapped": { code: F_TRANSLATION, section: "§7.3.13" },
  "no permission": { code: F_PERMISSION, section: "§7.3.16" },
  "outside memory": { code: null, section: "§7.3" },
  "device not set up": { code: null, section: "§5.2" },
  "context malformed": { code: C_BAD_CD, section: "§7.3.11" },
  "PASID not set up": { code: C_BAD_CD, section: "§7.3.11" },
  // The stream aborts, as if its entry said so.
  "refused by the host": { code: null, section: "§5.2" },
};
/** Events whose record says what the access was: InputAddr and RnW are valid. */
const WITH_ADDRESS: ReadonlySet<number> = new Set([F_UUT, F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN]);
const hasAddress = ({ number }: GuestEvent): boolean => number >= F_WALK_EABT || WITH_ADDRESS.has(number);

export const SMMUV3_GUEST = {
  host: "arm",
  stage1Modes: STAGE1_MODES,
  stage1: (ram: GuestMemory, tag: number, mode: Stage1Mode = "4K") => new Stage1(ram, mode, tag),
  driver: (surroundings: DriverSurroundings) => new GuestSmmu(surroundings),
  hears: (what: FaultWord, _write: boolean): Heard => HEARD[what],
  faultOf: (event: GuestEvent): GuestFault => ({
    code: event.number,
    deviceId: event.streamId,
    pasid: event.substreamId < 0 ? null : event.substreamId,
    address: hasAddress(event) ? event.inputAddress : null,
    write: hasAddress(event) ? !event.read : null,
  }),
  describeFault: (event: GuestEvent) => describeEvent(event.words),
  faultName: eventName,
} as const;

/** A PASID past the table of descriptors, or whose leaf table there is not, has this number instead of C_BAD_CD (§7.3.9). */
export const PASID_PAST_TABLE = C_BAD_SUBSTREAMID;

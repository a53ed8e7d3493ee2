// What an event means, in sentences, with the section of IHI 0070 that says so; and whose fault it is. For `nestbox walk --why` and failing
// scenarios.

import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  E_PAGE_REQUEST,
  eventName,
  F_ACCESS,
  F_ADDR_SIZE,
  F_BAD_ATS_TREQ,
  F_CD_FETCH,
  F_CFG_CONFLICT,
  F_PERMISSION,
  F_STE_FETCH,
  F_STREAM_DISABLED,
  F_TLB_CONFLICT,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
  F_UUT,
  F_VMS_FETCH,
  F_WALK_EABT,
} from "../../../host/arch/smmuv3/event-records.ts";
import type { FaultExplanation, WalkFault } from "../explainer.ts";

/** Of a trace event: S2 and CLASS, bits of the upper half of a record's second doubleword (§7.3). */
const STAGE_2 = 1 << 7;
const CLASS_SHIFT = 8;
const CLASSES = ["a context descriptor", "a stage-1 table", "the transaction itself", "the access"] as const;

const EXPLANATIONS: Readonly<Record<number, FaultExplanation>> = {
  [F_UUT]: {
    blame: "the device",
    why: "The transaction is of a type that the SMMU does not take.",
    section: "§7.3.2",
  },
  [C_BAD_STREAMID]: {
    blame: "the guest",
    why: "The StreamID is past the stream table, or its level-1 descriptor has Span = 0 or a Span that does not reach it. Recorded with CR2.RECINVSID = 1 only.",
    section: "§7.3.3",
  },
  [F_STE_FETCH]: {
    blame: "the guest",
    why: "The stream table entry lies where there is no memory (STRTAB_BASE, or L2Ptr of a level-1 descriptor).",
    section: "§7.3.4",
  },
  [C_BAD_STE]: {
    blame: "the guest",
    why: "The stream table entry has V = 0, or a combination of fields that this SMMU's identification registers make ILLEGAL (§5.2.2).",
    section: "§7.3.5",
  },
  [F_BAD_ATS_TREQ]: {
    blame: "the device",
    why: "An ATS translation request of a stream that may make none: EATS = 0, Config = bypass, or the SMMU is off.",
    section: "§7.3.6",
  },
  [F_STREAM_DISABLED]: {
    blame: "the guest",
    why: "A transaction without SubstreamID where S1DSS says that those end, or one with SubstreamID 0 where descriptor 0 is for those without.",
    section: "§7.3.7",
  },
  [F_TRANSL_FORBIDDEN]: {
    blame: "the device",
    why: "A translated transaction of a stream that may make none (EATS = 0 under CR0.ATSCHK = 1, or the SMMU is off).",
    section: "§7.3.8",
  },
  [C_BAD_SUBSTREAMID]: {
    blame: "the guest",
    why: "The SubstreamID has no context descriptor: past S1CDMax, behind a level-1 descriptor with V = 0, or of a stream without substreams.",
    section: "§7.3.9",
  },
  [F_CD_FETCH]: {
    blame: "the guest or the host",
    why: "The context descriptor, or the level-1 descriptor before it, lies where there is no memory.",
    section: "§7.3.10",
  },
  [C_BAD_CD]: {
    blame: "the guest",
    why: "The context descriptor has V = 0, or a combination of fields that is ILLEGAL for its stream (§5.4.2).",
    section: "§7.3.11",
  },
  [F_WALK_EABT]: {
    blame: "the guest or the host",
    why: "A translation table lies where there is no memory, at the record's FetchAddr.",
    section: "§7.3.12",
  },
  [F_TRANSLATION]: {
    blame: "the guest or the host",
    why: "No valid page or block maps the address, or it lies outside the range of the tables.",
    section: "§7.3.13",
  },
  [F_ADDR_SIZE]: {
    blame: "the guest or the host",
    why: "A descriptor leads past the output size (CD.IPS, STE.S2PS), or an untranslated address is too wide.",
    section: "§7.3.14",
  },
  [F_ACCESS]: {
    blame: "the guest or the host",
    why: "The page's access flag is 0 and hardware may not set it (HA, S2HA, AFFD).",
    section: "§7.3.15",
  },
  [F_PERMISSION]: {
    blame: "the guest or the host",
    why: "A page maps the address without the right that is needed: to write, to execute, or for unprivileged access.",
    section: "§7.3.16",
  },
  [F_TLB_CONFLICT]: {
    blame: "the guest",
    why: "Two cached translations hold for one address: an entry was changed without break-before-make.",
    section: "§7.3.17",
  },
  [F_CFG_CONFLICT]: {
    blame: "the guest",
    why: "Two cached configurations hold for one stream: CONT or a range was not the same for all of it.",
    section: "§7.3.18",
  },
  [E_PAGE_REQUEST]: {
    blame: "the device",
    why: "A hint that pages will be needed; no transaction has ended.",
    section: "§7.3.19",
  },
  [F_VMS_FETCH]: {
    blame: "the host",
    why: "The virtual machine structure lies where there is no memory.",
    section: "§7.3.20",
  },
};

/**
 * The explanation of an event's number; numbers the specification does not define get a sentence that says so. What was recorded tells the guest's
 * stage from the host's.
 */
export function explainFault(number: number, fault?: WalkFault): FaultExplanation {
  const known = EXPLANATIONS[number];
  const name = eventName(number);
  if (known === undefined) {
    const why = `${name} is not one that the specification defines.`;
    return { blame: "the guest or the host", why, section: "§7.3" };
  }
  if (fault === undefined || number < F_TRANSLATION || number > F_PERMISSION) return { name, ...known };
  if ((fault.ttyp & STAGE_2) === 0)
    return { name, ...known, blame: "the guest", why: `${known.why} It is stage 1's: S2 = 0.` };
  const what = CLASSES[(fault.ttyp >> CLASS_SHIFT) & 3];
  return {
    ...{ name, section: known.section, blame: "the host" },
    why:
      `${known.why} It is stage 2's (S2 = 1), at the record's IPA, and was for ${what}: memory that is absent for the guest. Linux relays no such record, so ` +
      "that a guest hears nothing of it.",
  };
}

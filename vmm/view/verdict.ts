// How a translation ended, in words for somebody who has read nothing: whose fault it is, why, and where the news goes.

import { hex } from "../../host/base/address.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import { errnoName } from "../../host/uapi/errno.ts";
import { type Blame, blameOf, endsBeforeStages, failedAtLast, wasRefused } from "./blame.ts";
import type { Refusal } from "./objects.ts";
import { explainerOfWalk } from "./walk-grid.ts";
import type { Walk } from "./walks.ts";

export type { Blame };

export interface Verdict {
  readonly blame: Blame;
  /** "The guest's fault", "It went through". */
  readonly headline: string;
  /** What was tried. */
  readonly access: string;
  /** Where it ended: "at stage 1 level 0, whose entry says VRUA PPN=0x80006". */
  readonly where: string;
  /** The architecture's name of it and why, in sentences; "" where nothing failed. */
  readonly why: string;
  /** "IHI 0070 §7.3.13"; "" where nothing failed. */
  readonly section: string;
  /** The way of the news, one station a line. */
  readonly way: readonly string[];
  /** The guest is told: it finds a record of its own. */
  readonly heard: boolean;
}

const HEADLINES: Readonly<Record<Blame, string>> = {
  guest: "The guest's own fault",
  host: "The host's fault",
  device: "The device's fault",
  open: "The guest's fault or the host's",
  none: "It went through",
};

/**
 * `consequences`: of the walk's fault, as consequencesOf has them; `device`: what to call it, where more is known than its id; `refusal`: the host's, of
 * what the guest had set up for it.
 */
export function verdictOf(
  walk: Walk,
  consequences: readonly TracedEvent[],
  device?: string,
  refusal: Refusal | null = null,
): Verdict {
  const pasid = walk.pasid === null ? "" : ` with PASID ${walk.pasid}`;
  const access = `device ${device ?? hex(walk.deviceId)} ${walk.write ? "writes" : "reads"} IOVA ${hex(walk.iova)}${pasid}`;
  const blame = blameOf(walk, refusal);
  const headline = HEADLINES[blame];
  if (!wasRefused(walk)) return { ...wentThrough(walk), blame, access, where: "", why: "", section: "", heard: false };
  const explainer = explainerOfWalk(walk);
  const last = walk.steps.at(-1);
  const table = last?.table.replace(/^stage(\d)$/, "stage $1");
  const where = !failedAtLast(walk)
    ? ""
    : last === undefined
      ? "before any table was read"
      : `at ${table} level ${last.level}, whose entry says ${last.text ?? explainer.describeEntry(last)}`;
  const refused = blame === "host" && refusal !== null && endsBeforeStages(walk) ? refusalText(refusal) : "";
  const { fault } = walk;
  if (fault === null) {
    const silent = { blame, access, where, section: "", way: [NOBODY], heard: false };
    if (refused !== "") return { ...silent, headline, why: refused };
    if (last === undefined || !failedAtLast(walk))
      return { ...silent, headline: "It was refused, and nothing was recorded", why: NOT_RECORDED };
    const said = `${explainer.specification} ${explainer.decodeEntry(last).section}`;
    return { ...silent, headline, why: NOTHING_PASSES, section: said };
  }
  const { name, why, section } = explainer.explainFault(fault.faultCause, fault);
  return {
    ...{ blame, access, where, headline: walk.result === "stalled" ? "It waits for the guest's answer" : headline },
    why: `${refused === "" ? "" : `${refused} The hardware says: `}${name ?? fault.text.split(",")[0]!}: ${why}`,
    section: `${explainer.specification} ${section}`,
    way: wayOf(fault, consequences),
    heard: isHeard(consequences),
  };
}

const NOBODY = "nothing is recorded: nobody is told; the device sees that its access failed";
const NOT_RECORDED =
  "The access was aborted without a fault record: the architecture asks for none here, or the device or its bus gave it up.";
const NOTHING_PASSES = "What the guest has set up for this device, or has not set up yet, lets nothing pass.";

const refusalText = ({ call, errno, seq }: Refusal): string =>
  `The guest set the device up, and the host could not take it: ${call} failed with ${errnoName(errno)} (event ${seq}). Until it does, the device is kept from memory.`;

function wentThrough({ steps, spa, result }: Walk): Pick<Verdict, "headline" | "way"> {
  const walked = steps.length === 0 ? "from what the hardware remembered" : `after ${steps.length} loads`;
  switch (result) {
    case "stalled":
      return { headline: "It waits", way: ["the transaction is held until the guest has answered its fault"] };
    case "msi":
      return {
        headline: "It was an interrupt",
        way: [spa === null ? "a message" : `a message at ${hex(spa)}`, walked],
      };
    default:
      return { headline: "It went through", way: [spa === null ? walked : `physical address ${hex(spa)}, ${walked}`] };
  }
}

const isHeard = (consequences: readonly TracedEvent[]): boolean =>
  consequences.some((event) => event.type === "fault" && event.where === "guest");

function wayOf(fault: TracedEvent & { type: "fault" }, consequences: readonly TracedEvent[]): string[] {
  const way = [`${fault.iommu} records it in its hardware queue`];
  const heard = isHeard(consequences);
  for (const event of consequences) {
    if (event.type === "fault" && event.where === "kernel") {
      way.push(heard ? "the host's kernel passes it on to the VM" : "the host's kernel reads it");
    }
    if (event.type === "fault" && event.where === "guest") {
      way.push(`the guest finds it in the queue of ${event.iommu}: ${event.text}`);
    }
    if (event.type === "irq" && event.where === "guest") way.push(`the guest takes an interrupt (${event.source})`);
  }
  if (!heard) way.push("it ends at the host: the guest is told nothing");
  return way;
}

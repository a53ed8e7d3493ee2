// How a translation ended, in words for somebody who has read nothing: whose fault it is, why, and where the news goes.

import { hex } from "../../host/base/address.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import { explainerOfWalk } from "./walk-grid.ts";
import type { Walk } from "./walks.ts";

export type Blame = "none" | "guest" | "host" | "device" | "open";

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
}

const WHOSE: Readonly<Record<string, Blame>> = {
  "the guest": "guest",
  "the host": "host",
  "the device": "device",
};

/** `consequences`: of the walk's fault, as consequencesOf has them; `device`: what to call it, where more is known than its id. */
export function verdictOf(walk: Walk, consequences: readonly TracedEvent[], device?: string): Verdict {
  const pasid = walk.pasid === null ? "" : ` with PASID ${walk.pasid}`;
  const access = `device ${device ?? hex(walk.deviceId)} ${walk.write ? "writes" : "reads"} IOVA ${hex(walk.iova)}${pasid}`;
  const { fault } = walk;
  if (fault === null) {
    const walked = walk.steps.length === 0 ? "from what the hardware remembered" : `after ${walk.steps.length} loads`;
    if (walk.spa === null) {
      return {
        ...{ blame: "open", headline: "It was refused, and nothing was recorded", access, where: "", section: "" },
        why: "The access was aborted without a fault record: the architecture asks for none here, or the device or its bus gave it up.",
        way: ["nobody is told; the device sees that its access failed"],
      };
    }
    return {
      ...{ blame: "none", headline: "It went through", access, where: "", why: "", section: "" },
      way: [`physical address ${hex(walk.spa)}, ${walked}`],
    };
  }
  const explainer = explainerOfWalk(walk);
  const { name, blame, why, section } = explainer.explainFault(fault.faultCause, fault);
  const last = walk.steps.at(-1);
  // The load that failed says more than the cause alone.
  const said = WHOSE[blame] ?? "open";
  const whose: Blame = last?.table === "stage2" ? "host" : last?.table === "stage1" && said === "open" ? "guest" : said;
  const headline = {
    guest: "The guest's own fault",
    host: "The host's fault",
    device: "The device's fault",
    open: "The guest's fault or the host's",
    none: "",
  }[whose];
  const table = last === undefined ? "" : last.table.replace(/^stage(\d)$/, "stage $1");
  return {
    ...{ blame: whose, headline, access },
    where:
      last === undefined
        ? "before any table was read"
        : `at ${table} level ${last.level}, whose entry says ${last.text ?? explainer.describeEntry(last)}`,
    why: `${name ?? fault.text.split(",")[0]!}: ${why}`,
    section: `${explainer.specification} ${section}`,
    way: wayOf(fault, consequences),
  };
}

function wayOf(fault: TracedEvent & { type: "fault" }, consequences: readonly TracedEvent[]): string[] {
  const way = [`${fault.iommu} records it in its hardware queue`];
  const heard = consequences.some((event) => event.type === "fault" && event.where === "guest");
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

// Whose fault it is that a translation was refused. Whose the failing table is says most: a second-stage entry is the host's, a first-stage entry the
// guest's. A directory entry holds what the guest has said of its device, unless the host has refused that: then the device is kept blocked, and
// it is the host's. Before any load the architecture's cause alone says it.

import { explainerOf } from "../viommu/kinds.ts";
import type { Refusal } from "./objects.ts";
import type { Walk } from "./walks.ts";

export type Blame = "none" | "guest" | "host" | "device" | "open";

const WHOSE: Readonly<Record<string, Blame>> = {
  "the guest": "guest",
  "the host": "host",
  "the device": "device",
};

const isStage = (table: string): boolean => table === "stage1" || table === "stage2";

/** The walk was refused at a directory entry, or before any load, as it is for a device that is not set up. */
export function endsBeforeStages(walk: Walk): boolean {
  const last = walk.steps.at(-1);
  return wasRefused(walk) && (last === undefined || !isStage(last.table));
}

export const wasRefused = ({ fault, result }: Walk): boolean => fault !== null || result === "aborted";

/** The last load is the one that refused: not so where nothing was recorded behind a stage (its device or bus gave the access up). */
export const failedAtLast = (walk: Walk): boolean =>
  walk.fault !== null || (walk.steps.length > 0 && endsBeforeStages(walk));

/** `refusal`: the host's, of what the guest had set up last for the device. */
export function blameOf(walk: Walk, refusal: Refusal | null = null): Blame {
  const { fault, steps } = walk;
  if (!wasRefused(walk)) return "none";
  const said =
    fault === null ? undefined : explainerOf(steps[0]?.kind ?? fault.kind).explainFault(fault.faultCause, fault);
  const blame = WHOSE[said?.blame ?? ""] ?? "open";
  const last = steps.at(-1);
  if (endsBeforeStages(walk)) {
    if (refusal !== null && blame !== "device") return "host";
    return fault === null && last !== undefined ? "guest" : blame;
  }
  if (fault !== null && last?.table === "stage2") return "host";
  return fault !== null && last?.table === "stage1" && blame === "open" ? "guest" : blame;
}

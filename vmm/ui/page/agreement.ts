// Whether tables and caches say the same of a page at one moment.

import type { Walk, WalkFault, WalkStep } from "../../view/walks.ts";
import type { Truth } from "../run/live.ts";

export type Agreement = "agrees" | "stale" | "not cached" | "nothing";

export function agreementOf({ reading, writing }: Truth): Agreement {
  const now = reading.now ?? writing.now;
  const { remembered } = reading;
  if (remembered === null) return now === null ? "nothing" : "not cached";
  return remembered === now ? "agrees" : "stale";
}

/** The walk that the hardware would make now, if it remembered nothing. */
export function walkNow({ place, reading, writing }: Truth): Walk {
  const asked = reading.now === null && writing.now !== null ? writing : reading;
  const steps = asked.walk.filter((event) => event.type === "walk") as WalkStep[];
  const fault = (asked.walk.find((event) => event.type === "fault") as WalkFault | undefined) ?? null;
  return {
    ...{ iommu: steps[0]?.iommu ?? "", deviceId: steps[0]?.deviceId ?? 0, pasid: null, iova: place.iova, write: false },
    ...{ seq: 0, time: 0, steps, spa: asked.now, fault, result: asked.now === null ? "aborted" : "ok" },
  };
}

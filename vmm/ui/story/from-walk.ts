// The translation that is on screen, as a story of its own: what a guest must set up on a fresh host for a device's access to end as this one did. It is what
// can be saved of a recorded trace, a scenario or a guest's image, whose course is nobody's list of verbs.

import { errnoName } from "../../../host/uapi/errno.ts";
import { endsBeforeStages, wasRefused } from "../../view/blame.ts";
import type { Refusal } from "../../view/objects.ts";
import type { Verdict } from "../../view/verdict.ts";
import { explainerOfWalk } from "../../view/walk-grid.ts";
import type { Walk } from "../../view/walks.ts";
import type { PlayedVerb } from "./play.ts";
import type { Beat, Story, Verb } from "./verbs.ts";

const DEVICE = "00:02.0";
const PAGE = 4096n;
/** Where no guest has memory. */
const NOWHERE = 0x1000n;

export interface WalkStory {
  readonly story: Pick<Story, "title" | "summary" | "assign" | "beats">;
  readonly verbs: readonly PlayedVerb[];
}

export function storyOfWalk(walk: Walk, verdict: Verdict, refusal: Refusal | null): WalkStory {
  const page = walk.iova & ~(PAGE - 1n);
  const setUp = setUpOf(walk, page, refusal);
  const bypass = setUp.some((verb) => verb.do === "install" && verb.what === "bypass");
  const access: Verb = { do: walk.write ? "write" : "read", device: DEVICE, at: bypass ? "A" : walk.iova };
  // What the hardware remembered, it has walked for before.
  const hit = walk.steps.length === 0 && !wasRefused(walk);
  const list = [...setUp, ...(hit ? [access, access] : [access])];
  const beat: Beat = { title: verdict.headline, says: ["", "", ""], verbs: list };
  const ok = !wasRefused(walk);
  return {
    story: {
      ...{ title: verdict.headline, assign: [`0000:00:01.0@${DEVICE}`], beats: [beat] },
      summary: `${verdict.access}, as event ${walk.seq} had it, made anew on a host of its own.`,
    },
    verbs: list.map((verb, own): PlayedVerb => {
      const moved = verb.do === "read" || verb.do === "write";
      return { ...{ beat: 0, verb, own, before: 0, last: 0 }, outcome: moved ? { ok } : {} };
    }),
  };
}

/** What leads to where the walk ended. */
function setUpOf(walk: Walk, page: bigint, refusal: Refusal | null): Verb[] {
  const install: Verb = { do: "install", device: DEVICE, what: "S" };
  const mapped: Verb = { do: "map", table: "S", iova: page, to: "A" };
  const last = walk.steps.at(-1);
  if (endsBeforeStages(walk)) {
    if (refusal === null) return [];
    return [mapped, { do: "inject", rules: [`ioctl:${refusal.call}=${errnoName(refusal.errno)}`] }, install];
  }
  if (!wasRefused(walk)) {
    const second = last !== undefined && walk.steps.every(({ table }) => table !== "stage1");
    return second ? [{ do: "install", device: DEVICE, what: "bypass" }] : [mapped, install];
  }
  if (last?.table === "stage2") return [{ ...mapped, to: NOWHERE }, install];
  // A leaf that refuses a write lacks a right; anything else is taken for a page that is not mapped.
  const isLeaf = last?.table === "stage1" && explainerOfWalk(walk).stage1Output(last, walk.iova) !== null;
  return isLeaf && walk.write ? [{ ...mapped, write: false }, install] : [{ ...mapped, iova: page ^ PAGE }, install];
}

// What is on screen, as a scenario file that ends where the person stands. A story: its verbs up to there, and what tables and caches say then, asked of a
// run that ends there. Anything else: the access that is shown, made anew.

import { consequencesOf, walkAt } from "../../view/moment.ts";
import { ObjectHistory } from "../../view/objects.ts";
import { rowOf } from "../../view/trace-index.ts";
import { verdictOf } from "../../view/verdict.ts";
import { DEFAULT_KIND, VIOMMU_KINDS, type ViommuKindName } from "../../viommu/kinds.ts";
import type { Recording } from "../run/recording.ts";
import { storyOfWalk } from "../story/from-walk.ts";
import { printScenario, type Said } from "../story/print.ts";
import { storyOf } from "../story/stories.ts";
import { deviceName, placesOf, refusalOf } from "./facts.ts";
import type { Questions } from "./questions.ts";
import { verbAt } from "./steps.ts";

export interface SavedFile {
  readonly name: string;
  readonly text: string;
}

export async function scenarioOf(recording: Recording, row: number, questions: Questions): Promise<SavedFile | null> {
  const { run } = recording;
  return run?.what === "story" ? await upTo(recording, row, questions) : again(recording, row);
}

async function upTo(recording: Recording, row: number, questions: Questions): Promise<SavedFile | null> {
  const { run, verbs } = recording;
  const story = run?.what === "story" ? storyOf(run.story) : null;
  if (run?.what !== "story" || story === null) return null;
  const count = verbAt(recording, row) + 1;
  const look = { seq: 0, places: placesOf(recording) };
  const answer = await questions.ask({ ask: "look", run: { ...run, verbs: count }, look });
  const truths = "truths" in answer ? answer.truths : [];
  const said = truths.flatMap(({ place, reading, writing }): Said[] => [
    { ...place, write: false, now: reading.now, remembered: reading.remembered },
    { ...place, write: true, now: writing.now, remembered: writing.remembered },
  ]);
  const text = printScenario(story, run.kind, verbs.slice(0, count), said);
  return { name: `${story.id}-${run.kind}-${count}.scenario.ts`, text };
}

function again(recording: Recording, row: number): SavedFile | null {
  const { columns } = recording;
  const moment = walkAt(columns, row);
  if (moment === null) return null;
  const { walk } = moment;
  const history = new ObjectHistory(columns);
  const refusal = refusalOf(recording, moment, history);
  const faultRow = walk.fault === null ? -1 : rowOf(columns, walk.fault.seq);
  const consequences = faultRow < 0 ? [] : consequencesOf(columns, faultRow);
  const verdict = verdictOf(walk, consequences, deviceName(recording, moment, history.at(moment.row)), refusal);
  const { story, verbs } = storyOfWalk(walk, verdict, refusal);
  return { name: `event-${walk.seq}.scenario.ts`, text: printScenario(story, kindOf(recording, moment.walk), verbs) };
}

/** The architecture: as the walk says, or what the run was started with. */
function kindOf(
  { run }: Recording,
  { steps, fault }: { steps: readonly { kind?: string }[]; fault: { kind?: string } | null },
): ViommuKindName {
  const said = steps[0] ?? fault;
  if (said === null || said === undefined) return run !== null && "kind" in run ? run.kind : DEFAULT_KIND;
  const name = said.kind ?? DEFAULT_KIND;
  return Object.hasOwn(VIOMMU_KINDS, name) ? (name as ViommuKindName) : DEFAULT_KIND;
}

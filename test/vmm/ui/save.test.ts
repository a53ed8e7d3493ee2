// What is saved from the page runs on the command line and comes to what was on screen: a story up to any of its moments, with tables and caches as they
// were told; and of anything else the access that was shown.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { traceLine } from "../../../host/base/trace-json.ts";
import { refusalOf } from "../../../vmm/ui/page/facts.ts";
import type { Questions } from "../../../vmm/ui/page/questions.ts";
import { scenarioOf } from "../../../vmm/ui/page/save.ts";
import { type LiveResult, type Look, runStory } from "../../../vmm/ui/run/live.ts";
import type { Recording, Run } from "../../../vmm/ui/run/recording.ts";
import { storyOfWalk } from "../../../vmm/ui/story/from-walk.ts";
import { STORIES, storyOf } from "../../../vmm/ui/story/stories.ts";
import type { Insert } from "../../../vmm/ui/story/verbs.ts";
import { walkAt } from "../../../vmm/view/moment.ts";
import { ObjectHistory } from "../../../vmm/view/objects.ts";
import { EVENT_TYPES, indexTrace, rowOf } from "../../../vmm/view/trace-index.ts";
import { verdictOf } from "../../../vmm/view/verdict.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../../../vmm/viommu/kinds.ts";
import { nestbox } from "../cli/command-line.ts";

const KINDS = Object.keys(VIOMMU_KINDS) as ViommuKindName[];
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-theatre-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const recordingOf = (live: LiveResult, run: Run | null): Recording => {
  const { text, ...rest } = live;
  return { title: "", columns: indexTrace(text), ...rest, run };
};
/** The page's worker, here. */
const questions = {
  ask: ({ run, look }: { run: Extract<Run, { what: "story" }>; look: Look }) => {
    const { truths } = runStory(storyOf(run.story)!, run.kind, run.inserts, look, run.verbs);
    return Promise.resolve({ id: 0, truths });
  },
} as unknown as Questions;

async function save(recording: Recording, row: number, name: string): Promise<string> {
  const file = await scenarioOf(recording, row, questions);
  expect(file).not.toBeNull();
  writeFileSync(join(folder, `${name}.scenario.ts`), file!.text);
  return file!.text;
}

function runSaved(passed: number, failed = 0): string {
  const { status, output, errors } = nestbox("scenario", "--trace-dir", join(folder, "traces"), folder);
  expect(output + errors).toMatch(new RegExp(`${passed} passed, ${failed} failed`));
  expect(status).toBe(failed === 0 ? 0 : 1);
  return output + errors;
}

const storyRun = (id: string, kind: ViommuKindName, inserts: readonly Insert[] = []): Recording => {
  const run: Run = { what: "story", story: id, kind, inserts };
  return recordingOf(runStory(storyOf(id)!, kind, inserts), run);
};
const endOf = ({ columns, verbs }: Recording, verb: number): number => rowOf(columns, verbs[verb]!.last);

/** A DMA's walk as the page sees it. */
function shown(recording: Recording, row: number) {
  const { columns } = recording;
  const moment = walkAt(columns, row)!;
  const refusal = refusalOf(recording, moment, new ObjectHistory(columns));
  const { walk } = moment;
  const verdict = verdictOf(walk, [], "d", refusal);
  const last = walk.steps.at(-1);
  return { walk, verdict, refusal, ending: [verdict.blame, walk.write, last?.table, walk.result] };
}

describe("saved as a scenario", () => {
  it("a story ends at the moment that was shown, with tables and caches as they were told", async () => {
    let count = 0;
    for (const { id } of STORIES) {
      for (const kind of KINDS) {
        const recording = storyRun(id, kind);
        for (let verb = 0; verb < recording.verbs.length; verb++)
          await save(recording, endOf(recording, verb), `${count++}-${id}-${kind}`);
      }
    }
    runSaved(count);
  });

  it("changes that were put in are in it, also a flipped bit", async () => {
    let count = 0;
    for (const kind of KINDS) {
      const plain = storyRun("a-fault-comes-home", kind);
      const { walk } = shown(plain, endOf(plain, 4));
      const leaf = walk.steps.findLast(({ table }) => table === "stage1")!;
      const recording = storyRun("a-fault-comes-home", kind, [
        { after: 1, verb: { do: "read", device: "00:02.0", at: 0x4000n } },
        { after: 3, verb: { do: "flip", spa: leaf.address, bit: 0 } },
      ]);
      for (let verb = 0; verb < recording.verbs.length; verb++) {
        const text = await save(recording, endOf(recording, verb), `${count++}-${kind}`);
        expect([...text.matchAll(/Put in by hand/g)]).toHaveLength(verb < 2 ? 0 : verb < 5 ? 1 : 2);
      }
    }
    runSaved(count);
  });

  it("what tables and caches said is checked: a stale entry that has become none fails the file", async () => {
    const recording = storyRun("the-stale-iotlb-entry", KINDS[0]!);
    const text = await save(recording, endOf(recording, 4), "stale");
    expect(text).toMatch(/tables: nothing, cache: 0x[0-9a-f]+/);
    // The device's second write goes through, and then the guest forgets nothing more.
    const told = text.replace("// What tables", "vm.iommu.invalidate();\n  vm.iommu.fence();\n  // What tables");
    writeFileSync(join(folder, "stale.scenario.ts"), told);
    expect(runSaved(0, 1)).toMatch(/a read at 0x4000: expected .*cache: 0x/);
  });

  it("of a trace the access that is shown is made anew, and ends the same", async () => {
    let count = 0;
    for (const { id } of STORIES) {
      for (const kind of KINDS) {
        const { columns, guests } = storyRun(id, kind);
        const recording: Recording = { ...recordingOf(runStory(storyOf(id)!, kind, []), null), columns, guests };
        let before: string | null = null;
        for (let row = 0; row < columns.rows; row++) {
          if (EVENT_TYPES[columns.type[row]!] !== "dma") continue;
          const { walk, verdict, refusal, ending } = shown(recording, row);
          // Bursts of one transfer are all alike.
          if (before === String(ending)) continue;
          before = String(ending);
          await save(recording, row, `${count++}-${id}-${kind}`);
          const { story } = storyOfWalk(walk, verdict, refusal);
          const anew = recordingOf(runStory({ id: "anew", ...story }, kind, []), null);
          const last = anew.columns.type.lastIndexOf(EVENT_TYPES.indexOf("dma"));
          expect([id, kind, ...shown(anew, last).ending]).toEqual([id, kind, ...ending]);
        }
      }
    }
    expect(count).toBeGreaterThan(5 * KINDS.length);
    runSaved(count);
  });

  it("what a trace's names say becomes no code", async () => {
    const name = '*/ `"); process.exit(9); //';
    const dma: TracedEvent = {
      ...{ seq: 1, time: 0, cause: 0, type: "dma", device: name, deviceId: 8, iova: 0x4000n, length: 4 },
      ...{ write: true, result: "ok", spa: 0x1000n },
    };
    const text = new TextEncoder().encode(`{"nestbox-trace":2}\n${traceLine(dma)}\n`);
    const live = { text, chapters: [], verbs: [], guests: [], ended: null, messages: [], truths: [] };
    await save(recordingOf(live, null), 0, "hostile");
    runSaved(1);
  });

  it("there is nothing to save before a device has done anything", async () => {
    const step: TracedEvent = { seq: 1, time: 0, cause: 0, type: "step", name: "x" };
    const text = new TextEncoder().encode(`{"nestbox-trace":2}\n${traceLine(step)}\n`);
    const live = { text, chapters: [], verbs: [], guests: [], ended: null, messages: [], truths: [] };
    expect(await scenarioOf(recordingOf(live, null), 0, questions)).toBeNull();
  });
});

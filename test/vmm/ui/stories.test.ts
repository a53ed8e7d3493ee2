// The stories: each comes out on every kind as its sentences say, and what the machine is asked at a moment is what the story is about. What an
// architecture's guest hears is the guest side's own table (with its sections), not what was seen.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { agreementOf } from "../../../vmm/ui/page/agreement.ts";
import { chapterRow } from "../../../vmm/ui/page/steps.ts";
import { type LiveResult, runStory } from "../../../vmm/ui/run/live.ts";
import type { Recording } from "../../../vmm/ui/run/recording.ts";
import { STORIES, storyOf } from "../../../vmm/ui/story/stories.ts";
import { type Insert, placedVerbs } from "../../../vmm/ui/story/verbs.ts";
import { consequencesOf, walkAt } from "../../../vmm/view/moment.ts";
import { ObjectHistory } from "../../../vmm/view/objects.ts";
import { eventAt, indexTrace, rowOf } from "../../../vmm/view/trace-index.ts";
import { verdictOf } from "../../../vmm/view/verdict.ts";
import type { FaultWord } from "../../../vmm/viommu/guest-driver.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../../../vmm/viommu/kinds.ts";

const KINDS = Object.keys(VIOMMU_KINDS) as ViommuKindName[];
const DEVICE = "0000:00:01.0";

function recorded(
  id: string,
  kind: ViommuKindName,
  inserts: readonly Insert[] = [],
): Recording & { readonly live: LiveResult } {
  const story = storyOf(id)!;
  const live = runStory(story, kind, inserts);
  const { text, ...rest } = live;
  return {
    title: story.title,
    columns: indexTrace(text),
    ...rest,
    run: { what: "story", story: id, kind, inserts },
    live,
  };
}

const outcomes = (recording: Recording) => recording.verbs.flatMap(({ outcome }) => outcome.ok ?? []);

function verdictIn(recording: Recording, chapter: number) {
  const moment = walkAt(recording.columns, chapterRow(recording, chapter))!;
  const { walk } = moment;
  const row = walk.fault === null ? -1 : rowOf(recording.columns, walk.fault.seq);
  return { walk, verdict: verdictOf(walk, row < 0 ? [] : consequencesOf(recording.columns, row)) };
}

describe.each(STORIES)('the story "$title"', (story) => {
  it("has three sentences a chapter, and a link of its own", () => {
    for (const { says } of story.beats) {
      expect(says).toHaveLength(3);
      for (const sentence of says) expect(sentence).toMatch(/^[A-Z].*\.$/);
    }
    expect(story.id).toMatch(/^[a-z-]+$/);
  });

  it.each(KINDS)("is told on %s to its end, the same twice", (kind) => {
    const once = runStory(story, kind, []);
    expect(once.ended).toBeNull();
    expect(once.verbs).toHaveLength(placedVerbs(story).length);
    expect(Buffer.from(runStory(story, kind, []).text).equals(Buffer.from(once.text))).toBe(true);
  });
});

describe.each(KINDS)("on %s", (kind) => {
  const { hears } = VIOMMU_KINDS[kind].guest;
  const guestRecords = (recording: Recording): TracedEvent[] =>
    Array.from({ length: recording.columns.rows }, (_, row) => eventAt(recording.columns, row)).filter(
      (event) => event.type === "fault" && event.where === "guest",
    );
  const codes = (...words: [FaultWord, boolean][]) => words.flatMap(([word, write]) => hears(word, write).code ?? []);

  it("bypass to nested: refused, through, through, and once more without a walk", () => {
    const recording = recorded("bypass-to-nested", kind);
    expect(outcomes(recording)).toEqual([false, true, true, true]);
    const [, bypass, nested, again] = [0, 1, 2, 3].map((chapter) => verdictIn(recording, chapter).walk);
    expect(bypass!.steps.some(({ table }) => table === "stage1")).toBe(false);
    expect(nested!.steps.some(({ table }) => table === "stage1")).toBe(true);
    expect(again!.steps).toEqual([]);
    expect(again!.spa).toBe(nested!.spa);
  });

  it("a fault comes home: twice the guest's, then the host's; the guest hears what its architecture says", () => {
    const recording = recorded("a-fault-comes-home", kind);
    expect(outcomes(recording)).toEqual([true, false, false, false]);
    const verdicts = [1, 2, 3].map((chapter) => verdictIn(recording, chapter).verdict);
    expect(verdicts.map(({ blame }) => blame)).toEqual(["guest", "guest", "host"]);
    expect(guestRecords(recording).map((event) => event.type === "fault" && event.faultCause)).toEqual(
      codes(["no permission", true], ["not mapped", false], ["outside memory", true]),
    );
    const hosts = hears("outside memory", true).code === null ? /told nothing/ : /guest finds it/;
    expect(verdicts[2]!.way.join("; ")).toMatch(hosts);
    // Where Linux has no event queue for the architecture a guest hears nothing of its own faults either.
    const guests =
      hears("no permission", true).code === null ? /told nothing/ : /kernel passes it on.*guest finds it.*interrupt/;
    expect(verdicts[0]!.way.join("; ")).toMatch(guests);
    for (const { why, section } of verdicts)
      expect([why, section]).toEqual([expect.stringMatching(/\w{4}/), expect.stringMatching(/§/)]);
  });

  it("the stale IOTLB entry: stale between unmapping and invalidation, and only then", () => {
    const story = storyOf("the-stale-iotlb-entry")!;
    const recording = recorded(story.id, kind);
    expect(outcomes(recording)).toEqual([true, true, false]);
    const seen = recording.verbs.map(({ last }) => {
      const look = { seq: last, places: [{ device: DEVICE, iova: 0x4000n }] };
      return runStory(story, kind, [], look).truths.map(agreementOf)[0];
    });
    // Where nothing is traced behind the attach that installs, the moment of its event is the one before its entry stands.
    const { last } = recording.verbs[1]!;
    const installed =
      eventAt(recording.columns, rowOf(recording.columns, last)).type === "attach" ? "nothing" : "not cached";
    // map, install, write | unmap, write | invalidate | write
    expect(seen).toEqual(["nothing", installed, "agrees", "stale", "stale", "nothing", "nothing"]);
  });

  it("unplug during DMA: ten bursts, none after, and every object is given back", () => {
    const recording = recorded("unplug-during-dma", kind);
    const { columns } = recording;
    const dmas = (from: number, to: number) =>
      Array.from({ length: columns.rows }, (_, row) => eventAt(columns, row)).filter(
        ({ type, seq }) => type === "dma" && seq > from && seq <= to,
      ).length;
    const unplug = recording.verbs.find(({ verb }) => verb.do === "unplug")!;
    expect(dmas(0, unplug.before)).toBe(10);
    expect(dmas(unplug.before, Number.POSITIVE_INFINITY)).toBe(0);
    const history = new ObjectHistory(columns);
    const kinds = (seq: number) => [...history.at(rowOf(columns, seq)).values()].map((object) => object.kind);
    const onViommu = VIOMMU_KINDS[kind].nesting.shape === "viommu" ? ["vDEVICE", "vIOMMU"] : [];
    expect(kinds(unplug.before)).toEqual(
      expect.arrayContaining(["device", "nested HWPT", "HWPT", "IOAS", ...onViommu]),
    );
    for (const gone of ["vDEVICE", "device"]) expect(kinds(unplug.last)).not.toContain(gone);
  });

  it("the host says ENOMEM: one call fails, the device is blocked, and then it goes on", () => {
    const recording = recorded("the-host-says-enomem", kind);
    expect(outcomes(recording)).toEqual([false, true]);
    const failed = Array.from({ length: recording.columns.rows }, (_, row) => eventAt(recording.columns, row)).filter(
      (event) => event.type === "ioctl" && event.result === -12,
    );
    expect(failed.length).toBeGreaterThan(0);
    for (const event of failed) expect(event).toMatchObject({ name: "IOMMU_HWPT_ALLOC" });
    expect(guestRecords(recording).map((event) => event.type === "fault" && event.faultCause)).toEqual(
      codes(["refused by the host", false]),
    );
  });

  it("looking at a moment changes nothing of what comes after", () => {
    const story = storyOf("the-stale-iotlb-entry")!;
    const plain = runStory(story, kind, []);
    for (const { last } of plain.verbs) {
      const looked = runStory(story, kind, [], { seq: last, places: [{ device: DEVICE, iova: 0x4000n }] });
      expect(looked.truths).toHaveLength(1);
      expect(looked.verbs).toEqual(plain.verbs);
    }
  });

  it("a bit that is flipped in a table changes what comes after, and flipped back it does not", () => {
    const recording = recorded("a-fault-comes-home", kind);
    // The entry that made the read-only page readable: after the set-up (verb 3) its valid bit goes.
    const { walk } = verdictIn(recording, 0);
    const leaf = walk.steps.findLast(({ table }) => table === "stage1")!;
    const flip: Insert = { after: 3, verb: { do: "flip", spa: leaf.address, bit: 0 } };
    expect(outcomes(recorded("a-fault-comes-home", kind, [flip]))).toEqual([false, false, false, false]);
    expect(outcomes(recorded("a-fault-comes-home", kind, [flip, flip]))).toEqual([true, false, false, false]);
  });

  it("what is put in cannot end a story: a place without memory is said, and the story goes on", () => {
    const flip: Insert = { after: 0, verb: { do: "flip", spa: 0xffff_ffff_f000n, bit: 3 } };
    const recording = recorded("bypass-to-nested", kind, [flip]);
    expect(recording.ended).toBeNull();
    expect(recording.messages.join()).toMatch(/no memory at 0xfffffffff000/);
    expect(outcomes(recording)).toEqual([false, true, true, true]);
  });
});

// The page's worker: everything that takes longer than a frame. It runs stories, scenarios and images, reads traces, and looks at moments. One
// question at a time; whoever asks may end it (a guest that never ends) and start another.

import { TraceFormatError } from "../../../host/base/trace-json.ts";
import { runName } from "../../scenario/run-scenario.ts";
import { exportedScenarios, type Scenario } from "../../scenario/scenario.ts";
import { carryOut, type LinkPlan } from "../../vcpu/component/link-plan.ts";
import type { CoreModules, PreparedComponent } from "../../vcpu/component/prepare.ts";
import { indexTrace, type TraceColumns } from "../../view/trace-index.ts";
import { storyOf } from "../story/stories.ts";
import { type LiveResult, type Look, runImage, runOneScenario, runStory, type Truth } from "./live.ts";
import type { Recording, Run } from "./recording.ts";

export type Question =
  | { readonly ask: "run"; readonly run: Run }
  | { readonly ask: "trace"; readonly title: string; readonly bytes: Uint8Array }
  | { readonly ask: "look"; readonly run: Run; readonly look: Look };

export type Answer =
  | { readonly id: number; readonly progress: number }
  | { readonly id: number; readonly recording: Recording }
  | { readonly id: number; readonly truths: readonly Truth[] }
  /** What whoever asked should know: the file is no trace, the image is none. `bug`: ours. */
  | { readonly id: number; readonly problem: string; readonly bug: boolean };

/** What is wrong with what the person gave. */
class Refused extends Error {}

const images = new Map<string, PreparedComponent>();
let dropped: { readonly bytes: Uint8Array; readonly image: PreparedComponent } | null = null;

async function imageOf(name: string, bytes: Uint8Array | undefined): Promise<PreparedComponent> {
  if (bytes === undefined) {
    const known = images.get(name) ?? (await builtInImage(name));
    images.set(name, known);
    return known;
  }
  if (dropped !== null && sameBytes(dropped.bytes, bytes)) return dropped.image;
  // The transpiler, which is larger than the page: only now.
  const { prepareComponent } = await import("../../vcpu/component/prepare.ts");
  const image = await prepareComponent(bytes);
  if ("error" in image) throw new Refused(image.error);
  dropped = { bytes, image };
  return image;
}

/** One that was transpiled when the page was built: core modules, and how they are linked. */
async function builtInImage(name: string): Promise<PreparedComponent> {
  const base = `images/${encodeURIComponent(name)}`;
  const reply = await fetch(`${base}/plan.json`);
  if (!reply.ok) throw new Refused(`there is no built-in image "${name}"`);
  const { plan, modules: names } = (await reply.json()) as { plan: LinkPlan; modules: string[] };
  const modules: CoreModules = new Map(
    await Promise.all(
      names.map(async (file): Promise<[string, WebAssembly.Module]> => {
        const bytes = await (await fetch(`${base}/${file}`)).arrayBuffer();
        return [file, await WebAssembly.compile(bytes)];
      }),
    ),
  );
  return { modules, link: (host) => carryOut(plan, modules, host) };
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

interface ScenarioRun {
  readonly scenario: Scenario;
  /** Of its sweep. */
  readonly value: unknown;
}

/** In the order in which the page offers them (vmm/cli/ui-scenarios.ts). */
async function runsOf(module: string): Promise<readonly ScenarioRun[]> {
  // Only what is served beside the page; the policy of its document says the same.
  if (!/^[\w.-]+\.js$/.test(module)) throw new Refused(`"${module}" is no scenario beside this page`);
  const exported = (await import(new URL(`scenarios/${module}`, self.location.href).href)) as Record<string, unknown>;
  const list = exportedScenarios(exported).flatMap((scenario) =>
    (scenario.options.sweep ?? [undefined]).map((value): ScenarioRun => ({ scenario, value })),
  );
  if (list.length === 0) throw new Refused(`${module} exports no scenario`);
  return list;
}

async function live(run: Run, look: Look | null): Promise<LiveResult & { readonly title: string }> {
  switch (run.what) {
    case "story": {
      const story = storyOf(run.story);
      if (story === null) throw new Refused(`there is no story "${run.story}"`);
      return { title: story.title, ...runStory(story, run.kind, run.inserts, look, run.verbs) };
    }
    case "scenario": {
      const told = (await runsOf(run.module))[run.index];
      if (told === undefined) throw new Refused(`${run.module} has no scenario ${run.index}`);
      const { scenario, value } = told;
      return { title: runName(scenario, value), ...runOneScenario(scenario, run.seed, look, value) };
    }
    case "image": {
      const image = await imageOf(run.name, run.bytes);
      return { title: run.name, ...runImage(image, run.kind, look, run.bytes === undefined ? run.name : "") };
    }
  }
}

async function answer(question: Question, progress: (part: number) => void): Promise<Recording | readonly Truth[]> {
  switch (question.ask) {
    case "run": {
      const { text, title, chapters, verbs, guests, ended, messages } = await live(question.run, null);
      return { title, columns: indexTrace(text), chapters, verbs, guests, run: question.run, ended, messages };
    }
    case "trace": {
      const { bytes, title } = question;
      const columns = indexTrace(bytes, (done) => progress(done / bytes.length));
      const messages = columns.cutAt === 0 ? [] : [`line ${columns.cutAt} is cut off; the trace ends before it`];
      return { title, columns, chapters: chaptersOf(columns), verbs: [], guests: [], run: null, ended: null, messages };
    }
    case "look":
      return (await live(question.run, question.look)).truths;
  }
}

/** A trace of a scenario names its steps. */
function chaptersOf(columns: TraceColumns): Recording["chapters"] {
  const chapters: Recording["chapters"][number][] = [];
  const step = 0; // EVENT_TYPES[0]
  for (let row = 0; row < columns.rows && chapters.length < 200; row++) {
    if (columns.type[row] !== step) continue;
    chapters.push({ title: columns.names[columns.label[row]!]!, says: [], before: columns.seq[row]! - 1 });
  }
  return chapters;
}

function buffersOf({ columns }: Recording): Transferable[] {
  const arrays = Object.values(columns).filter((value) => ArrayBuffer.isView(value));
  return [...new Set(arrays.map(({ buffer }) => buffer as ArrayBuffer))];
}

self.onmessage = async ({ data }: MessageEvent<{ readonly id: number; readonly question: Question }>) => {
  const { id, question } = data;
  const send = (message: Answer, transfer: Transferable[] = []): void => self.postMessage(message, { transfer });
  try {
    const result = await answer(question, (progress) => send({ id, progress }));
    if ("columns" in result) send({ id, recording: result }, buffersOf(result));
    else send({ id, truths: result });
  } catch (error) {
    const bug = !(error instanceof Refused || error instanceof TraceFormatError);
    send({ id, problem: error instanceof Error ? error.message : String(error), bug });
  }
};

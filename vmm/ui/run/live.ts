// Runs a story, a scenario or a guest image in the page, traced. The run is deterministic, so looking at a moment that has passed is running
// again and looking when that event comes by: what stands in caches and tables then is asked of the machine itself, which does not notice.

import { Clock } from "../../../host/base/clock.ts";
import { Trace, type TracedEvent, type TraceSink } from "../../../host/base/trace.ts";
import { JsonLinesSink } from "../../../host/base/trace-json.ts";
import { builtInHosts, DEFAULT_HOST } from "../../../host/built-in-hosts.ts";
import { type AskedTranslation, Host } from "../../../host/host.ts";
import { formatGuestPlace, parseAssignment } from "../../assignment-text.ts";
import { ComponentMachine } from "../../component-machine.ts";
import type { ScenarioContext } from "../../scenario/context.ts";
import { runScenario } from "../../scenario/run-scenario.ts";
import { type Scenario, scenario } from "../../scenario/scenario.ts";
import { ComponentVcpu } from "../../vcpu/component/component-vcpu.ts";
import type { PreparedComponent } from "../../vcpu/component/prepare.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../../viommu/kinds.ts";
import { type PlayedVerb, playStory } from "../story/play.ts";
import { type Insert, type Story, verbText } from "../story/verbs.ts";
import type { Chapter, Place } from "./recording.ts";

/** Events that a run may make: what a page can hold. What comes after is not recorded, and said so. */
export const MOST_EVENTS = 1_500_000;
const IMAGE_MEMORY = 64 * 2 ** 20;
/** As `nestbox boot`: ids crossed over. */
const IMAGE_DEVICES = ["0000:00:01.0@00:02.0", "0000:00:02.0@00:01.0"];
/** A guest that needs several IOMMUs has its devices behind one each. */
const DEVICES_OF: Readonly<Record<string, readonly string[]>> = {
  "two-iommus": ["0000:00:01.0@00:02.0/left", "0000:00:02.0@00:03.0/right"],
};

/** What the machine says of places at one moment. */
export interface Truth {
  readonly place: Place;
  readonly reading: AskedTranslation;
  readonly writing: AskedTranslation;
}

/** A moment to look at: the event with this number, or (0) the end; and what to ask then. */
export interface Look {
  readonly seq: number;
  readonly places: readonly Place[];
}

export interface LiveResult {
  readonly text: Uint8Array;
  readonly chapters: readonly Chapter[];
  readonly verbs: readonly PlayedVerb[];
  readonly guests: readonly (readonly [host: string, guest: string])[];
  readonly ended: string | null;
  readonly messages: readonly string[];
  /** What was seen at the moment that was asked for. */
  readonly truths: readonly Truth[];
}

/** Not state: one run's record. */
class Recorder implements TraceSink {
  last = 0;
  stopped = false;
  truths: readonly Truth[] = [];
  hosts: () => readonly Host[] = () => [];
  readonly #chunks: Uint8Array[] = [];
  readonly #look: Look | null;
  readonly #lines = new JsonLinesSink((text) => this.#chunks.push(new TextEncoder().encode(text)));
  #events = 0;

  constructor(look: Look | null) {
    this.#look = look;
  }

  event(event: TracedEvent): void {
    if (this.stopped) return;
    if (event.seq > this.last) this.last = event.seq;
    if (this.#look === null && this.#events++ < MOST_EVENTS) this.#lines.event(event);
    if (this.#look?.seq === event.seq) this.look();
  }

  /** The run is over; what is taken down is not recorded. */
  end(): void {
    if (this.stopped) return;
    this.stopped = true;
    if (this.#look?.seq === 0) this.look();
  }

  look(): void {
    const hosts = this.hosts();
    this.truths = this.#look!.places.flatMap((place) => {
      const host = hosts.find((candidate) => candidate.find(place.device) !== null);
      if (host === undefined) return [];
      const [reading, writing] = [false, true].map((write) => host.askTranslation(place.device, place.iova, write));
      return reading == null || writing == null ? [] : [{ place, reading, writing }];
    });
  }

  get overflow(): string[] {
    return this.#events > MOST_EVENTS ? [`the page keeps the first ${MOST_EVENTS} of ${this.#events} events`] : [];
  }

  text(): Uint8Array {
    this.#lines.end();
    const bytes = new Uint8Array(this.#chunks.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  }
}

const findHost = (name: string) => {
  const host = builtInHosts.find((candidate) => candidate.name === name);
  if (host === undefined) throw new Error(`there is no built-in host "${name}" (and no files here)`);
  return host;
};

export function runStory(
  story: Story,
  kind: ViommuKindName,
  inserts: readonly Insert[],
  look: Look | null = null,
  most?: number,
): LiveResult {
  let verbs: PlayedVerb[] = [];
  const told = scenario(story.title, (t) => {
    verbs = playStory(story, kind, inserts, t, () => recorder.last, most);
  });
  const recorder = new Recorder(look);
  const result = runBody(told, recorder, 0);
  const chapters = story.beats.map(({ title, says }, beat) => ({
    ...{ title, says },
    before: verbs.find((verb) => verb.beat === beat)?.before ?? 0,
  }));
  const problems = verbs.flatMap(({ verb, outcome }) =>
    outcome.problem === undefined ? [] : [`${verbText(verb)}: ${outcome.problem}`],
  );
  return { ...result, chapters, verbs, messages: [...problems, ...result.messages] };
}

/** `value`: of its sweep. */
export function runOneScenario(told: Scenario, seed: number, look: Look | null = null, value?: unknown): LiveResult {
  return runBody(told, new Recorder(look), seed, value);
}

function runBody(told: Scenario, recorder: Recorder, seed: number, value?: unknown): LiveResult {
  const chapters: Chapter[] = [];
  let context: ScenarioContext | null = null;
  recorder.hosts = () => context?.hosts ?? [];
  const guests = new Map<string, string>();
  const meet = (t: ScenarioContext): void => {
    for (const vm of t.vms) for (const { hostName, name } of vm.devices) guests.set(hostName, name);
  };
  const body = (t: ScenarioContext): void => {
    context = t;
    try {
      told.body(t);
    } finally {
      meet(t);
      recorder.end();
    }
  };
  const result = runScenario(
    { ...told, body },
    {
      seed,
      sink: recorder,
      findHost,
      defaultHost: findHost(DEFAULT_HOST),
      sweepValue: value,
      // The step's own event has been made already.
      onStep: (title, t) => {
        meet(t);
        chapters.push({ title, says: [], before: recorder.last - 1 });
      },
    },
  );
  return {
    text: recorder.text(),
    chapters,
    verbs: [],
    guests: [...guests],
    ended: result.passed ? null : `${result.kind}: ${result.message}`,
    messages: [...result.messages, ...recorder.overflow],
    truths: recorder.truths,
  };
}

/** Runs a guest image to its end. One that never ends is ended from outside, with the worker it runs in. */
export function runImage(
  image: PreparedComponent,
  kind: ViommuKindName,
  look: Look | null = null,
  name = "",
): LiveResult {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const recorder = new Recorder(look);
  trace.addSink(recorder);
  const messages: string[] = [];
  const guests: [string, string][] = [];
  const viommu = VIOMMU_KINDS[kind];
  const host = new Host(findHost(viommu.guest.host), { clock, trace });
  recorder.hosts = () => [host];
  const machine = new ComponentMachine({
    ...{ clock, trace, kind: viommu, calls: host.createProcess(), memoryBytes: IMAGE_MEMORY },
    report: (message) => messages.push(message),
  });
  try {
    for (const text of (Object.hasOwn(DEVICES_OF, name) && DEVICES_OF[name]) || IMAGE_DEVICES) {
      const { hostName, place, viommu: behind } = parseAssignment(text)!;
      if ("guestId" in place) continue;
      const request = { ...host.assignable(host.resolve(hostName)), ...place };
      machine.assignment.assign(behind === undefined ? request : { ...request, viommu: behind });
      guests.push([hostName, formatGuestPlace(place)]);
    }
    const lines = new ConsoleLines((line) => messages.push(line));
    machine.machine.onConsole = (bytes) => lines.write(bytes);
    const vcpu = new ComponentVcpu({ image, memory: machine.ram, port: machine.machine, platform: machine.platform });
    const outcome = vcpu.run();
    recorder.end();
    const ended =
      outcome.kind === "exited"
        ? outcome.status === 0
          ? null
          : `the guest exited with status ${outcome.status}`
        : "message" in outcome
          ? `${outcome.kind}: ${outcome.message}`
          : outcome.kind;
    return {
      ...{ text: recorder.text(), chapters: [], verbs: [], guests, ended },
      messages: [...messages, ...recorder.overflow],
      truths: recorder.truths,
    };
  } finally {
    machine[Symbol.dispose]();
    host[Symbol.dispose]();
  }
}

/** Lines of a guest's console, bounded: what a guest prints is its own, and as long as it likes. Not state: of one run that is told of. */
class ConsoleLines {
  static readonly #MOST = 1000;
  readonly #line: (text: string) => void;
  #open = "";
  #lines = 0;

  constructor(line: (text: string) => void) {
    this.#line = line;
  }

  write(bytes: Uint8Array): void {
    if (this.#lines >= ConsoleLines.#MOST) return;
    this.#open += new TextDecoder().decode(bytes);
    for (let at = this.#open.indexOf("\n"); at >= 0 || this.#open.length > 2000; at = this.#open.indexOf("\n")) {
      const end = at < 0 ? 2000 : at;
      if (this.#lines++ < ConsoleLines.#MOST) this.#line(this.#open.slice(0, end));
      this.#open = this.#open.slice(at < 0 ? end : end + 1);
    }
  }
}

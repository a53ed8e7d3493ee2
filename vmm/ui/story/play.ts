// Plays a story on one kind of IOMMU through the scenario API, and notes which events each verb made.

import type { ScenarioContext } from "../../scenario/context.ts";
import type { ViommuKindName } from "../../viommu/kinds.ts";
import { type Insert, type PlacedVerb, placedVerbs, type Story, type Target, type Verb, verbText } from "./verbs.ts";

/** What came of a verb. */
export interface Outcome {
  /** Of a DMA: it went through. */
  readonly ok?: boolean;
  /** It could not be carried out, and why (only of verbs that were put in: a story's own can). */
  readonly problem?: string;
}

export interface PlayedVerb extends PlacedVerb {
  /** The last event before it, and the last one it made; the same where it made none. */
  readonly before: number;
  readonly last: number;
  readonly outcome: Outcome;
}

type Vm = ReturnType<ScenarioContext["vm"]>;

/** Bytes a device reads or writes at once. */
const ACCESS = 4;

/** `lastSeq`: number of the last event so far; `most`: verbs that are played. */
export function playStory(
  story: Story,
  kind: ViommuKindName,
  inserts: readonly Insert[],
  t: ScenarioContext,
  lastSeq: () => number,
  most = Number.POSITIVE_INFINITY,
): PlayedVerb[] {
  // Whatever the kind, its verbs are those of every kind.
  const vm = t.vm({ kind, assign: story.assign }) as unknown as Vm;
  const player = new Player(t, vm);
  const played: PlayedVerb[] = [];
  let beat = -1;
  for (const placed of placedVerbs(story, inserts).slice(0, most)) {
    const before = lastSeq();
    if (placed.beat !== beat) {
      beat = placed.beat;
      t.step(story.beats[beat]!.title);
    }
    const outcome = placed.own === null ? player.tried(placed.verb) : player.play(placed.verb);
    played.push({ ...placed, before, last: lastSeq(), outcome });
  }
  return played;
}

/** Not state: of one run. */
class Player {
  readonly #t: ScenarioContext;
  readonly #vm: Vm;
  readonly #tables = new Map<string, ReturnType<Vm["stage1"]>>();
  readonly #pages = new Map<string, bigint>();

  constructor(t: ScenarioContext, vm: Vm) {
    this.#t = t;
    this.#vm = vm;
  }

  /** A verb of the person's may ask for what is not there. */
  tried(verb: Verb): Outcome {
    try {
      return this.play(verb);
    } catch (error) {
      return { problem: error instanceof Error ? error.message : String(error) };
    }
  }

  play(verb: Verb): Outcome {
    const vm = this.#vm;
    switch (verb.do) {
      case "map":
        this.#table(verb.table).map(
          verb.iova,
          this.#address(verb.to),
          4096n,
          verb.write === false ? { write: false } : {},
        );
        return {};
      case "unmap":
        this.#table(verb.table).unmap(verb.iova, 4096n);
        return {};
      case "install": {
        const { what } = verb;
        vm.device(verb.device).installContext(isWord(what) ? what : this.#table(what));
        return {};
      }
      case "invalidate":
        vm.iommu.invalidate({ stage1: this.#table(verb.table), iova: verb.iova });
        vm.iommu.fence();
        return {};
      case "read":
        return { ok: vm.device(verb.device).dmaRead(this.#address(verb.at), ACCESS).ok };
      case "write":
        return { ok: vm.device(verb.device).dmaWrite(this.#address(verb.at), new Uint8Array(ACCESS).fill(0x5a)).ok };
      case "start":
        vm.device(verb.device).edu.start({ iova: verb.iova, length: 4096, direction: "to-ram" });
        return {};
      case "wait":
        this.#t.advance(verb.ns);
        return {};
      case "unplug":
        vm.unassign(vm.device(verb.device));
        return {};
      case "inject":
        vm.host.inject(verb.rules);
        return {};
      case "flip": {
        const { memory } = vm.host;
        const [pfn, offset] = [Number(verb.spa >> 12n), Number(verb.spa & 0xff8n)];
        type Frame = Parameters<typeof memory.load64>[0];
        if (memory.load64(pfn as Frame, offset) !== 0)
          return { problem: `there is no memory at 0x${verb.spa.toString(16)}` };
        const { lo, hi } = memory;
        const [low, high] = verb.bit < 32 ? [lo ^ (1 << verb.bit), hi] : [lo, hi ^ (1 << (verb.bit - 32))];
        memory.store64(pfn as Frame, offset, low >>> 0, high >>> 0);
        // A moment of its own: nobody else sees it, and one wants to look at what tables and caches say now.
        this.#t.trace.emit({ type: "step", name: verbText(verb) });
        return {};
      }
    }
  }

  #table(name: string): ReturnType<Vm["stage1"]> {
    let table = this.#tables.get(name);
    if (table === undefined) {
      // Without the window for messages: no story here takes one, and its 256 entries would be all there is to see.
      table = this.#vm.stage1(undefined, { msiWindow: false });
      this.#tables.set(name, table);
    }
    return table;
  }

  #address(target: Target): bigint {
    if (typeof target === "bigint") return target;
    let page = this.#pages.get(target);
    if (page === undefined) {
      page = this.#vm.ram.allocate();
      this.#pages.set(target, page);
    }
    return page;
  }
}

const isWord = (what: string): what is "bypass" | "blocked" => what === "bypass" || what === "blocked";

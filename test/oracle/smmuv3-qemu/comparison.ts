/**
 * Random worlds on QEMU's SMMUv3, on our hardware model and by the oracle. Both must answer what the specification permits; what QEMU is known to do
 * otherwise is counted by name (qemu-gaps.ts), and what nothing explains is a finding.
 */
import type { Qemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { copyMemory, word } from "../memory.ts";
import { QemuEnded } from "../qtest.ts";
import { Random } from "../random.ts";
import type { MakeSubject, Subject } from "../smmuv3/adapter.ts";
import { allowedOutcomesWithCaches } from "../smmuv3/allowed.ts";
import { MemoryHistory } from "../smmuv3/cached-tables.ts";
import { randomSequence, type Sequence } from "../smmuv3/generate/sequence.ts";
import { randomWorld, type World } from "../smmuv3/generate/world.ts";
import { hardware } from "../smmuv3/hardware-adapter.ts";
import { compare, showRecord, wrongRecord } from "../smmuv3/harness/compare.ts";
import { describeScenario, scenarioOfWorld } from "../smmuv3/harness/scenario.ts";
import type { Identification } from "../smmuv3/identification.ts";
import type { Outcome, Request } from "../smmuv3/outcome.ts";
import { hex } from "../stores.ts";
import { QemuMachine, reachable, type Seen, STRUCTURES, streamId } from "./machine.ts";
import { GAPS, wrongBitsOf, wrongByCachedEntry } from "./qemu-gaps.ts";
import { inRam, RAM, RAM_PAGES } from "./ram.ts";
import { type Allowed, allowed, placesOf } from "./walked-tables.ts";

const REQUESTS = 24;
const CHANGES = 20;
/** Findings printed whole. */
const MOST_PRINTED = 10;

/** CD.IPS and STE.S2PS of 52 bits and more end QEMU's process with a failed assertion. */
const PLACE = { base: STRUCTURES, streamId, outputSizes: 6 };

/** A world of this machine: requests that an edu can make, and no memory that refuses. */
function worldFor(seed: number, identification: Identification): World {
  const world = randomWorld(seed, REQUESTS, () => identification, PLACE);
  const random = new Random(~seed);
  world.memory.injected.clear();
  const requests = world.requests.map((request): Request => {
    let { sid } = request;
    for (let bits = 16n; !reachable(sid); bits--) sid = streamId(random, bits < 4n ? 4n : bits);
    return { ...request, sid, ssid: null, privileged: false, instruction: false, iova: request.iova & ~7n };
  });
  return { ...world, requests };
}

/** What edu's four bytes are at. */
function onWord(request: Request): Request {
  return { ...request, iova: request.iova & ~7n };
}

function wrongArrival({ arrived }: Seen, { result }: Outcome): string | null {
  const wanted = result.kind === "translated" && inRam(result.address) ? result.address : null;
  if (arrived === wanted) return null;
  return `expected ${wanted === null ? result.kind : hex(wanted)}, got ${arrived === null ? "nothing" : hex(arrived)}`;
}

/** Below RAM lie flash and devices, which answer. */
function meetsDevices(possible: readonly Allowed[]): boolean {
  return possible.some(({ reads }) => reads.some(({ address, values }) => values === null && address < RAM));
}

/** Null: QEMU did what is permitted. */
function wrongOfQemu(seen: Seen, possible: readonly Allowed[]): string | null {
  const complaints = new Set<string>();
  for (const { outcome } of possible) {
    const why = wrongRecord(seen.records, outcome.record) ?? wrongArrival(seen, outcome);
    if (why === null) return null;
    complaints.add(why);
  }
  return [...complaints].join("\n  or: ");
}

/** Null: our model did what is permitted. What it misses of RAM, because only some pages are laid out for it, is laid out and asked again. */
function wrongOfModel(make: MakeSubject, world: World, request: Request, possible: readonly Allowed[]): string | null {
  const { identification, programming, memory } = world;
  for (;;) {
    const subject = make(identification, programming, memory, "none");
    if (subject === null) throw new Error("the model cannot be made like QEMU's SMMUv3");
    const observed = subject.request(request);
    const outcomes = possible.map(({ outcome }) => outcome);
    const verdict = compare(subject, { ...memory, pages: RAM_PAGES }, observed, outcomes);
    if (verdict.agrees) return null;
    const fetched = (observed.records[0]?.[3] ?? 0n) >> 12n;
    if (!RAM_PAGES.has(fetched) || memory.pages.has(fetched)) return verdict.why;
    memory.pages.add(fetched);
  }
}

export interface ComparisonOptions {
  readonly log?: (line: string) => void;
  /** What is compared in place of our model, and of what QEMU did: for testing that differences are found. */
  readonly model?: MakeSubject;
  readonly sees?: (seen: Seen) => Seen;
}

export class Comparison {
  readonly #qemu: Qemu;
  /** By stream table format: QEMU leaves the two-level format only at reset. */
  readonly #machines = new Map<boolean, QemuMachine>();
  readonly counts = new Map<string, number>();
  readonly #log: (line: string) => void;
  readonly #model: MakeSubject;
  readonly #sees: (seen: Seen) => Seen;
  findings = 0;

  constructor(qemu: Qemu, { log = console.log, model = hardware, sees = (seen) => seen }: ComparisonOptions = {}) {
    this.#qemu = qemu;
    this.#log = log;
    this.#model = model;
    this.#sees = sees;
  }

  async #machine(twoLevels: boolean): Promise<QemuMachine> {
    const running = this.#machines.get(twoLevels);
    if (running !== undefined) return running;
    const machine = await QemuMachine.start(this.#qemu);
    this.#machines.set(twoLevels, machine);
    return machine;
  }

  async stop(): Promise<void> {
    for (const machine of this.#machines.values()) await machine.stop();
    this.#machines.clear();
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  async world(seed: number): Promise<void> {
    const { identification } = await this.#machine(false);
    const world = worldFor(seed, identification);
    const twoLevels = ((world.programming.STRTAB_BASE_CFG >> 16n) & 3n) === 1n;
    let machine = await this.#machine(twoLevels);
    await machine.program(world.programming, world.memory);
    for (const [index, request] of world.requests.entries()) {
      const possible = allowed(identification, world.programming, world.memory, request);
      if (possible === null || meetsDevices(possible)) {
        this.count("not compared: too much is permitted, or QEMU has devices where a structure is looked for");
        continue;
      }
      const broken = wrongOfModel(this.#model, world, request, possible);
      if (broken !== null) this.#report(`seed ${seed} request ${index}: our model: ${broken}`, world, request);
      try {
        await machine.forget();
        const seen = this.#sees(
          await machine.access(request.sid, request.iova, request.write, placesOf(possible, request)),
        );
        this.count("DMAs");
        const { record, result } = possible[0]!.outcome;
        this.count(record === null ? result.kind : `event 0x${(record.doublewords[0]! & 0xffn).toString(16)}`);
        const why = wrongOfQemu(seen, possible);
        if (why === null) continue;
        const names = await this.#explain(machine, world, request, possible, seen);
        if (names !== null) this.count(`QEMU: ${names.join(", ")}`);
        else
          this.#report(
            `seed ${seed} request ${index}: QEMU: ${why}, arrived ${seen.arrived === null ? "nowhere" : hex(seen.arrived)}`,
            world,
            request,
            possible,
          );
      } catch (error) {
        if (!(error instanceof QemuEnded)) throw error;
        const assertion = /ERROR:[^\n]*/.exec(error.said)?.[0] ?? error.said;
        this.count(`QEMU ended: ${assertion}`);
        await machine.stop();
        this.#machines.delete(twoLevels);
        machine = await this.#machine(twoLevels);
        await machine.program(world.programming, world.memory);
      }
    }
  }

  /**
   * A sequence of changes and invalidations, with nothing invalidated besides: both may answer with what they may still have cached, and with nothing else.
   */
  async sequence(seed: number): Promise<void> {
    const machine = await this.#machine(false);
    const { identification } = machine;
    const sequence = randomSequence(seed, CHANGES, { identification, base: STRUCTURES, streamId: (nth) => nth * 8n });
    const { programming, memory, steps } = sequence;
    await machine.program(programming, memory);
    await machine.forget();
    const subject = this.#model(identification, programming, memory, sequence.caches);
    if (subject === null) throw new Error("the model cannot be made like QEMU's SMMUv3");
    const history = new MemoryHistory({ ...copyMemory(memory), pages: RAM_PAGES });
    for (const [index, step] of steps.entries()) {
      if (step.kind === "store") {
        for (const [address, value] of step.words) machine.store(address, value);
        subject.store(step.words);
        history.change(step.words);
      } else if (step.kind === "command") {
        await machine.execute([step.command]);
        if (!subject.invalidate(step.command)) throw new Error(`seed ${seed} step ${index}: the model's queue stopped`);
        history.invalidate(step.command);
      } else await this.#ask(machine, subject, history, { seed, index, sequence, request: onWord(step.request) });
    }
  }

  async #ask(
    machine: QemuMachine,
    subject: Subject,
    history: MemoryHistory,
    asked: { readonly seed: number; readonly index: number; readonly sequence: Sequence; readonly request: Request },
  ): Promise<void> {
    const { seed, index, sequence, request } = asked;
    const outcomes = allowedOutcomesWithCaches(sequence.identification, sequence.programming, history, request);
    const observed = subject.request(request);
    if (outcomes === null) return this.count("sequences: not compared: too much is permitted");
    const verdict = compare(subject, history.now, observed, outcomes);
    const where = `sequence seed ${seed} step ${index}, SID ${hex(request.sid)} at ${hex(request.iova)}`;
    if (!verdict.agrees) this.#find(`${where}: our model: ${verdict.why}`);
    const possible = outcomes.map((outcome) => ({ outcome, reads: [] }));
    const asWrite = { ...request, write: true };
    const written = allowedOutcomesWithCaches(sequence.identification, sequence.programming, history, asWrite) ?? [];
    const writable = placesOf(
      written.map((outcome) => ({ outcome, reads: [] })),
      request,
    );
    const places = [...new Set([...placesOf(possible, request), ...writable])];
    const seen = this.#sees(await machine.access(request.sid, request.iova, request.write, places));
    this.count("sequences: DMAs");
    if (outcomes.length > 1) this.count("sequences: with more than one permitted outcome");
    const why = wrongOfQemu(seen, possible);
    if (why === null) return;
    const met = { request, allowed: possible };
    const entry = word(history.now, sequence.programming.STRTAB_BASE + request.sid * 64n);
    const cached = wrongByCachedEntry(met, seen, writable, ((entry >> 1n) & 7n) === 6n);
    if (cached !== null) return this.count(`sequences: QEMU: ${cached}`);
    const wrongBits = wrongBitsOf(met, seen);
    if (wrongBits !== null) this.count(`sequences: QEMU: ${wrongBits.join(", ")}`);
    else this.#find(`${where}: QEMU: ${why}, arrived ${seen.arrived === null ? "nowhere" : hex(seen.arrived)}`);
  }

  #find(what: string): void {
    if (++this.findings <= MOST_PRINTED) this.#log(`disagreement: ${what}`);
  }

  /** Names of the gaps that together explain what QEMU did; null: nothing does. */
  async #explain(
    machine: QemuMachine,
    world: World,
    request: Request,
    possible: readonly Allowed[],
    first: Seen,
  ): Promise<string[] | null> {
    const names: string[] = [];
    let { programming } = world;
    const memory = copyMemory(world.memory);
    let answers = possible;
    let seen = first;
    for (;;) {
      const met = { identification: world.identification, request, programming, memory, allowed: answers };
      const wrongBits = wrongBitsOf(met, seen);
      if (wrongBits !== null) return [...names, ...wrongBits];
      const named = GAPS.find(({ explains }) => explains?.(met, seen));
      if (named !== undefined) return [...names, named.name];
      const taken = GAPS.map((gap) => ({ gap, as: names.includes(gap.name) ? null : (gap.takes?.(met) ?? null) }));
      const next = taken.find(({ as }) => as !== null);
      if (next === undefined) return null;
      names.push(next.gap.name);
      programming = next.as!.programming ?? programming;
      for (const [address, value] of next.as!.words ?? []) memory.words.set(address, value);
      answers = allowed(world.identification, programming, memory, request) ?? [];
      // It now goes on, or elsewhere: look there.
      await machine.forget();
      seen = this.#sees(await machine.access(request.sid, request.iova, request.write, placesOf(answers, request)));
      if (wrongOfQemu(seen, answers) === null) return names;
    }
  }

  #report(what: string, world: World, request: Request, possible: readonly Allowed[] = []): void {
    if (++this.findings > MOST_PRINTED) return;
    this.#log(`disagreement: ${what}`);
    const scenario = scenarioOfWorld({ ...world, requests: [request] });
    const lines = describeScenario(scenario);
    this.#log(`  ${lines[0]}\n${lines.at(-1)}`);
    for (const { tag, address, values } of possible[0]?.reads ?? []) {
      const level = "level" in tag ? ` level ${tag.level} granule ${tag.granule}` : "";
      this.#log(
        `    ${tag.kind}${level} at ${hex(address)}: ${values === null ? "aborts" : values.slice(0, 4).map(hex).join(" ")}`,
      );
    }
    const { record } = possible[0]?.outcome ?? { record: null };
    if (record !== null) this.#log(`    permitted: ${showRecord(record.doublewords)}`);
  }
}

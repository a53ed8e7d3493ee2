/**
 * Random worlds on QEMU's intel-iommu, on our hardware model and by the oracle. Both must answer what the specification permits; what QEMU is known to do
 * otherwise is counted by name (qemu-gaps.ts), and what nothing explains is a finding.
 */
import type { Qemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { copyMemory } from "../memory.ts";
import { QemuEnded } from "../qtest.ts";
import { Random } from "../random.ts";
import { hex } from "../stores.ts";
import type { MakeSubject } from "../vtd/adapter.ts";
import { allowedInterrupts } from "../vtd/allowed.ts";
import { type Identification, inInterruptRange } from "../vtd/capabilities.ts";
import { randomWorld } from "../vtd/generate/world.ts";
import { hardware } from "../vtd/hardware-adapter.ts";
import { compare, showRecord, wrongRecord } from "../vtd/harness/compare.ts";
import { describeScenario, type Scenario, type Step } from "../vtd/harness/scenario.ts";
import type { InterruptRequest } from "../vtd/interrupt.ts";
import type { Outcome, Request } from "../vtd/outcome.ts";
import { QemuMachine, reachable, type Seen, STRUCTURES, sourceId } from "./machine.ts";
import { GAPS, wrongCodeOf } from "./qemu-gaps.ts";
import { inRam, RAM_PAGES } from "./ram.ts";
import { type Allowed, allowed, placesOf } from "./walked-tables.ts";

const REQUESTS = 24;
/** Source-ID in QEMU's records of messages that have none. */
const NO_SOURCE = 0xffffn;
/** Findings printed whole. */
const MOST_PRINTED = 10;

/** Properties of intel-iommu, each a unit with capabilities of its own. */
export const UNITS = [
  "",
  "scalable-mode=on",
  "scalable-mode=on,fsts=on",
  "snoop-control=on,caching-mode=on,aw-bits=39",
] as const;
export type Unit = (typeof UNITS)[number];

const PLACE = { base: STRUCTURES, sid: sourceId };

/** A request that an edu can make. */
function askable(request: Request): Request {
  const address = request.address & ~7n;
  return {
    ...request,
    kind: "untranslated",
    pasid: null,
    privileged: false,
    access: request.access === "read" ? "read" : "write",
    address,
  };
}

/** A world of this machine: requests that an edu can make, and no memory that refuses. */
function worldFor(seed: number, identification: Identification): Scenario {
  const world = randomWorld(seed, REQUESTS, () => identification, PLACE);
  const random = new Random(~seed);
  world.memory.injected.clear();
  const steps = world.steps.flatMap((step): Step[] => {
    if (step.kind !== "request" && step.kind !== "interrupt") return [];
    const sid = reachable(step.request.sid) ? step.request.sid : sourceId(random);
    if (step.kind === "interrupt") return [{ kind: step.kind, request: { ...step.request, sid } }];
    const request = askable({ ...step.request, sid });
    // Without a PASID, messages.
    return inInterruptRange(request.address) ? [] : [{ kind: step.kind, request }];
  });
  // Translation is on: QEMU's unit is looked at through it.
  return { ...world, steps, programming: { ...world.programming, TES: true } };
}

/** Where the entries lie that a message may mean, with its subhandle or without. */
function interruptEntries({ IRTA }: Scenario["programming"], { address, data }: InterruptRequest): bigint[] {
  const handle = ((address >> 5n) & 0x7fffn) | (((address >> 2n) & 1n) << 15n);
  const index = handle + (((address >> 3n) & 1n) === 1n ? data & 0xffffn : 0n);
  return [(IRTA & ~0xfffn) + index * 16n];
}

function wrongArrival({ arrived }: Seen, { result }: Outcome): string | null {
  if (arrived === undefined) return null;
  const wanted = result.kind === "translated" && inRam(result.address) ? result.address & ~7n : null;
  if (arrived === wanted) return null;
  return `expected ${wanted === null ? result.kind : hex(wanted)}, got ${arrived === null ? "nothing" : hex(arrived)}`;
}

/** Elsewhere lie devices, or nothing that QEMU would call an error. */
function meetsDevices(possible: readonly Allowed[]): boolean {
  return possible.some(({ reads }) => reads.some(({ values }) => values === null));
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

export interface ComparisonOptions {
  readonly log?: (line: string) => void;
  /** What is compared in place of our model, and of what QEMU did: for testing that differences are found. */
  readonly model?: MakeSubject;
  readonly sees?: (seen: Seen) => Seen;
}

export class Comparison {
  readonly #qemu: Qemu;
  readonly #machines = new Map<Unit, QemuMachine>();
  readonly counts = new Map<string, number>();
  readonly #log: (line: string) => void;
  readonly #model: MakeSubject;
  readonly #sees: (seen: Seen) => Seen;
  findings = 0;
  #reads = 0;

  constructor(qemu: Qemu, { log = console.log, model = hardware, sees = (seen) => seen }: ComparisonOptions = {}) {
    this.#qemu = qemu;
    this.#log = log;
    this.#model = model;
    this.#sees = sees;
  }

  async #machine(unit: Unit): Promise<QemuMachine> {
    const running = this.#machines.get(unit);
    if (running !== undefined) return running;
    const machine = await QemuMachine.start(this.#qemu, unit);
    this.#machines.set(unit, machine);
    return machine;
  }

  async stop(): Promise<void> {
    for (const machine of this.#machines.values()) await machine.stop();
    this.#machines.clear();
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** The unit that a seed is put to. */
  static unitOf(seed: number): Unit {
    return UNITS[seed % UNITS.length]!;
  }

  async world(seed: number): Promise<void> {
    const unit = Comparison.unitOf(seed);
    let machine = await this.#machine(unit);
    const world = worldFor(seed, machine.identification);
    await machine.program(world.programming, world.memory);
    for (const [index, step] of world.steps.entries()) {
      try {
        const where = `seed ${seed} (${unit}) request ${index}`;
        if (step.kind === "request") await this.#compare(machine, world, step.request, where);
        else if (step.kind === "interrupt") await this.#interrupt(machine, world, step.request, where);
      } catch (error) {
        if (!(error instanceof QemuEnded)) throw error;
        const assertion = /ERROR:[^\n]*|[^\n]*Assertion[^\n]*/.exec(error.said)?.[0] ?? error.said;
        this.count(`QEMU ended: ${assertion}`);
        await machine.stop();
        this.#machines.delete(unit);
        machine = await this.#machine(unit);
        await machine.program(world.programming, world.memory);
      }
    }
  }

  async #compare(machine: QemuMachine, world: Scenario, request: Request, where: string): Promise<void> {
    const { identification, programming, memory } = world;
    const possible = allowed(identification, programming, memory, request);
    if (possible === null || meetsDevices(possible))
      return this.count("not compared: too much is permitted, or QEMU has devices where a structure is looked for");
    const broken = this.#wrongOfModel(world, request, possible);
    if (broken !== null) this.#report(`${where}: our model: ${broken}`, world, request);
    await machine.forget(request.sid);
    // Looking at what was read takes long.
    const look = this.#reads++ % 4 === 0;
    const places = placesOf(possible, request);
    const seen = this.#sees(
      await machine.access(request.sid, request.address, request.access === "write", places, look),
    );
    // What QEMU stored into the tables is undone.
    this.#restore(machine, memory, possible);
    this.count("DMAs");
    const { record, result } = possible[0]!.outcome;
    this.count(record === null ? result.kind : `fault ${hex((record.quadwords[1] >> 32n) & 0xffn)}`);
    const why = wrongOfQemu(seen, possible);
    if (why === null) return;
    const names = await this.#explain(machine, world, request, possible, seen);
    if (names !== null) this.count(`QEMU: ${names.join(", ")}`);
    else
      this.#report(
        `${where}: QEMU: ${why}, arrived ${seen.arrived === null ? "nowhere" : hex(seen.arrived ?? 0n)}`,
        world,
        request,
        possible,
      );
  }

  #restore(machine: QemuMachine, memory: Scenario["memory"], possible: readonly Allowed[]): void {
    for (const { reads } of possible)
      for (const { address, tag } of reads)
        if (tag.kind === "first-stage") machine.store(address, memory.words.get(address) ?? 0n);
  }

  /** Which source a message has edu does not say: records of it hold none, and no entry's SVT is looked at. */
  async #interrupt(machine: QemuMachine, world: Scenario, request: InterruptRequest, where: string): Promise<void> {
    const { identification, programming } = world;
    const memory = { ...copyMemory(world.memory), pages: RAM_PAGES };
    const sent = { sid: NO_SOURCE, address: request.address & ~3n, data: machine.messageData(request.sid) };
    for (const at of interruptEntries(programming, sent))
      memory.words.set(at + 8n, (memory.words.get(at + 8n) ?? 0n) & ~(0xfn << 16n));
    const seen = this.#sees(await machine.interrupt({ ...sent, sid: request.sid }));
    this.count("interrupts");
    const permitted = (data: bigint, entries = memory) =>
      allowedInterrupts(identification, programming, entries, { ...sent, data })?.map(({ record }) =>
        wrongRecord(seen.records, record),
      ) ?? [null];
    const complaints = permitted(sent.data);
    if (complaints.includes(null)) return;
    // §5.1.2.1: the compatibility format is let pass, whatever CFIS and EIME say.
    if (seen.records.length === 0 && (sent.address & 16n) === 0n) return this.count("QEMU: compatibility format");
    // §5.1.2.2 reserves the upper half with SHV: QEMU does not look at it.
    if (permitted(sent.data & 0xffffn).includes(null)) return this.count("QEMU: reserved bits of message data");
    // §9.9 reserves IM without PI: QEMU does not look at it.
    const remapped = copyMemory(memory);
    for (const at of interruptEntries(programming, sent))
      remapped.words.set(at, (memory.words.get(at) ?? 0n) & ~(1n << 15n));
    if (permitted(sent.data, { ...remapped, pages: RAM_PAGES }).includes(null))
      return this.count("QEMU: posted format of what the unit has not");
    this.#find(`${where}: interrupt ${hex(sent.address)} of ${hex(request.sid)}: QEMU: ${complaints.join("\n  or: ")}`);
  }

  /** Null: our model did what is permitted. What it misses of RAM, because only some pages are laid out for it, is laid out and asked again. */
  #wrongOfModel(world: Scenario, request: Request, possible: readonly Allowed[]): string | null {
    const { identification, programming, memory } = world;
    const outcomes = possible.map(({ outcome }) => outcome);
    for (const { reads } of possible) for (const { address } of reads) memory.pages.add(address >> 12n);
    const subject = this.#model(identification, programming, memory, "none");
    if (subject === null) throw new Error("the model cannot be made like QEMU's unit");
    const verdict = compare(subject, memory, subject.request(request), outcomes);
    return verdict.agrees ? null : verdict.why;
  }

  /** Names of the gaps that together explain what QEMU did; null: nothing does. */
  async #explain(
    machine: QemuMachine,
    world: Scenario,
    request: Request,
    possible: readonly Allowed[],
    first: Seen,
  ): Promise<string[] | null> {
    const names: string[] = [];
    let { identification, programming } = world;
    const memory = copyMemory(world.memory);
    let answers = possible;
    let seen = first;
    for (;;) {
      const met = { identification, request, programming, memory, allowed: answers };
      const wrongCode = wrongCodeOf(met, seen);
      if (wrongCode !== null) return [...names, wrongCode];
      const named = GAPS.find(({ explains }) => explains?.(met, seen));
      if (named !== undefined) return [...names, named.name];
      const taken = GAPS.map((gap) => ({ gap, as: names.includes(gap.name) ? null : (gap.takes?.(met) ?? null) }));
      const next = taken.find(({ as }) => as !== null);
      if (next === undefined) return null;
      names.push(next.gap.name);
      identification = { ...identification, ...next.as!.identification };
      programming = { ...programming, RTADDR: next.as!.RTADDR ?? programming.RTADDR };
      for (const [address, value] of next.as!.words ?? []) memory.words.set(address, value);
      answers = allowed(identification, programming, memory, request) ?? [];
      // It now goes on, or elsewhere: look there.
      await machine.forget(request.sid);
      const places = placesOf(answers, request);
      seen = this.#sees(await machine.access(request.sid, request.address, request.access === "write", places));
      this.#restore(machine, world.memory, answers);
      if (wrongOfQemu(seen, answers) === null) return names;
    }
  }

  #find(what: string): void {
    if (++this.findings <= MOST_PRINTED) this.#log(`disagreement: ${what}`);
  }

  #report(what: string, world: Scenario, request: Request, possible: readonly Allowed[] = []): void {
    if (++this.findings > MOST_PRINTED) return;
    this.#log(`disagreement: ${what}`);
    const lines = describeScenario({ ...world, steps: [{ kind: "request", request }] });
    this.#log(`  ${lines[0]}\n${lines.at(-1)}`);
    for (const { tag, address, values } of possible[0]?.reads ?? []) {
      const level = "level" in tag ? ` level ${tag.level}` : "";
      this.#log(
        `    ${tag.kind}${level} at ${hex(address)}: ${values === null ? "fails" : values.slice(0, 4).map(hex).join(" ")}`,
      );
    }
    const { record } = possible[0]?.outcome ?? { record: null };
    if (record !== null) this.#log(`    permitted: ${showRecord(record.quadwords)}`);
  }
}

/**
 * Random sequences for testing caches: a valid machine, then software that changes root, context and PASID tables, paging structures of either stage and
 * interrupt remapping entries, sends the invalidations that the change needs, or too few, or others, and translates in between. The software keeps to what
 * `cached-tables.ts` supposes: no two tables for a domain id (and PASID) but one after the other, and no large pages in place of tables.
 */
import { copyMemory, emptyMemory, word } from "../../memory.ts";
import { Random } from "../../random.ts";
import type { Identification } from "../capabilities.ts";
import { CAP, ECAP } from "../cases/scene.ts";
import type { Scenario, Step } from "../harness/scenario.ts";
import type { Descriptor } from "../invalidation.ts";
import type { Request } from "../outcome.ts";
import {
  contextDevice,
  contextDomain,
  contextGlobal,
  interruptGlobal,
  interruptIndex,
  iotlbDomain,
  iotlbGlobal,
  iotlbPages,
  pasidCacheDomain,
  pasidCacheGlobal,
  pasidCacheOne,
  pasidIotlb,
  pasidIotlbPages,
} from "./descriptors.ts";
import { TableBuilder } from "./table-builder.ts";

const ALL = (1n << 64n) - 1n;
/** Guest addresses of structures are their physical ones; those of data pages lie here. */
const DATA = 0x200_0000n;
const SNOOPED = 1n << 23n;
const FS_TABLE = 7n | (1n << 5n);

/** One table of two that a stage goes between. */
interface Stage {
  readonly did: bigint;
  /** SSADE, of every entry with the domain. */
  readonly flags: bigint;
  readonly tables: readonly TableBuilder[];
  current: number;
}

interface FirstStage extends Stage {
  readonly pasid: bigint;
  readonly second: Stage | null;
}

/** What a device, with a PASID or without, goes through. */
interface Space {
  readonly sid: bigint;
  readonly pasid: bigint | null;
  readonly did: bigint;
  /** Where its PASID entry lies, or in legacy mode its context. */
  readonly entryAt: bigint;
  readonly first: FirstStage | null;
  readonly second: Stage | null;
}

const identify = (random: Random): Identification => ({ VER: 0x60n, CAP: CAP | random.flag(30, 7n), ECAP, HAW: 46n });
/** Source-ID of the nth device. */
const sourceId = (nth: bigint): bigint => 0x100n | (nth << 3n) | (nth & 1n);

function rootOf(stage: Stage | null): bigint {
  return stage === null ? 0n : stage.tables[0]!.parts.root;
}

const VIRTUAL = [0n, 1n, 5n, 0x200n, 0x205n, 0x4_0000n, 0x4_0001n, 0x800_0000n].map((page) => page << 12n);
const dataPage = (index: bigint) => DATA + (index << 12n);

class Machine {
  readonly random: Random;
  readonly scalable: boolean;
  readonly memory = emptyMemory();
  readonly firsts: FirstStage[] = [];
  readonly seconds: Stage[] = [];
  readonly spaces: Space[] = [];
  /** Entries that lead on, with what they serve: root, context, directory. */
  readonly ways: { readonly kind: "root" | "context" | "directory"; readonly at: bigint; readonly sid: bigint }[] = [];
  readonly rootTable: bigint;
  readonly interrupts: bigint;
  readonly steps: Step[] = [];
  #before = new Map<bigint, bigint>();
  #free = 0x10_0000n;
  #page = 0x4000_0000n;

  constructor(random: Random, scalable: boolean) {
    this.random = random;
    this.scalable = scalable;
    this.rootTable = this.allocate();
    this.interrupts = this.allocate();
    for (let index = 0n; index < 8n; index++) this.put(this.interrupts + index * 16n, ...this.interruptEntry());
    if (scalable) this.#everything();
    else this.#legacy();
  }

  #legacy(): void {
    const [one, two] = [this.#second(1n), this.#second(2n)];
    const spaces: [bigint, Stage | null][] = [
      [1n, one],
      [2n, one],
      [3n, two],
      [4n, null],
    ];
    for (const [nth, second] of spaces) {
      const sid = sourceId(nth);
      const at = this.#contextTable(sid) + (sid & 0xffn) * 16n;
      this.ways.push({ kind: "context", at, sid });
      const TT = second === null ? 2n : this.random.pick([0n, 1n]);
      this.put(at, 1n | (TT << 2n) | rootOf(second), 2n | ((second?.did ?? 9n) << 8n));
      this.spaces.push({ sid, pasid: null, did: second?.did ?? 9n, entryAt: at, first: null, second });
    }
  }

  #everything(): void {
    this.#device(sourceId(1n), [
      [0n, this.#first(1n, 0n, null), null],
      [5n, this.#first(1n, 5n, null), null],
    ]);
    const two = this.#second(2n);
    this.#device(sourceId(2n), [[0n, null, two]]);
    const three = this.#second(3n);
    this.#device(sourceId(3n), [
      [0n, this.#first(3n, 0n, three), three],
      [70n, this.#first(3n, 70n, three), three],
    ]);
    this.#device(sourceId(4n), [[0n, null, two]]);
    this.#device(sourceId(5n), [
      [0n, null, null],
      [5n, this.#first(4n, 5n, null), null],
    ]);
  }

  #contextTable(sid: bigint): bigint {
    const half = this.scalable ? ((sid >> 7n) & 1n) * 8n : 0n;
    const at = this.rootTable + (sid >> 8n) * 16n + half;
    if ((this.memory.words.get(at) ?? 0n) === 0n) this.put(at, this.allocate() | 1n);
    this.ways.push({ kind: "root", at, sid });
    return word(this.memory, at) & ~0xfffn;
  }

  #device(sid: bigint, entries: readonly (readonly [bigint, FirstStage | null, Stage | null])[]): void {
    const at = this.#contextTable(sid) + (sid & 0x7fn) * 32n;
    const directory = this.allocate();
    this.put(at, directory | 0b1101n, 0n, 0n, 0n);
    this.ways.push({ kind: "context", at, sid });
    for (const [pasid, first, second] of entries) {
      const pointer = directory + (pasid >> 6n) * 8n;
      if ((this.memory.words.get(pointer) ?? 0n) === 0n) this.put(pointer, this.allocate() | 1n);
      this.ways.push({ kind: "directory", at: pointer, sid });
      const entryAt = (word(this.memory, pointer) & ~0xfffn) + (pasid & 63n) * 64n;
      const did = first?.did ?? second?.did ?? 9n;
      const PGTT = first === null ? (second === null ? 4n : 2n) : second === null ? 1n : 3n;
      const stage2 = second === null ? 0n : (2n << 2n) | second.flags | rootOf(second);
      this.put(entryAt, 1n | (PGTT << 6n) | stage2, did | SNOOPED, rootOf(first), 0n, 0n, 0n, 0n, 0n);
      this.spaces.push({ sid, pasid: pasid === 0n ? null : pasid, did, entryAt, first, second });
    }
  }

  allocate(): bigint {
    const at = this.#free;
    this.#free += 4096n;
    this.memory.pages.add(at >> 12n);
    return at;
  }

  put(at: bigint, ...values: bigint[]): void {
    values.forEach((value, index) => {
      this.memory.words.set(at + BigInt(index) * 8n, value & ALL);
    });
  }

  /** A page that nothing else is at. */
  page(): bigint {
    this.#page += 0x1000n;
    return this.#page;
  }

  interruptEntry(): [bigint, bigint] {
    const { random } = this;
    return [1n | random.flag(10, 1n) | (random.bits(8) << 16n) | (random.bits(8) << 40n), 0n];
  }

  #second(did: bigint): Stage {
    const make = () => {
      const tables = new TableBuilder({
        memory: this.memory,
        levels: 4,
        root: this.allocate(),
        newTable: () => this.allocate(),
        physical: (address) => address,
        tableFlags: () => 3n,
        presentMask: 3n,
      });
      for (let index = 0n; index < 8n; index++)
        if (this.random.chance(85)) tables.map(dataPage(index), 1, this.page(), this.secondFlags());
      return tables;
    };
    const stage = { did, flags: this.random.flag(50, 9n), tables: [make(), make()], current: 0 };
    this.seconds.push(stage);
    return stage;
  }

  #first(did: bigint, pasid: bigint, second: Stage | null): FirstStage {
    const make = () => {
      const table = () => {
        const at = this.allocate();
        // Structures keep their places in either second stage, for good.
        for (const each of second?.tables ?? []) each.map(at, 1, at, 3n);
        return at;
      };
      const tables = new TableBuilder({
        memory: this.memory,
        levels: 4,
        root: table(),
        newTable: table,
        physical: (address) => address,
        tableFlags: () => FS_TABLE,
        presentMask: 1n,
      });
      for (const address of VIRTUAL)
        if (this.random.chance(75)) tables.map(address, 1, this.target({ second }), this.firstFlags());
      return tables;
    };
    const stage: FirstStage = { did, pasid, second, flags: 0n, tables: [make(), make()], current: 0 };
    this.firsts.push(stage);
    return stage;
  }

  secondFlags(): bigint {
    const { random } = this;
    return random.flag(92, 0n) | random.flag(80, 1n) | random.flag(50, 8n) | random.flag(40, 9n);
  }

  firstFlags(): bigint {
    const { random } = this;
    const flags = random.flag(60, 5n) | random.flag(50, 6n);
    return 1n | random.flag(75, 1n) | random.flag(92, 2n) | flags | random.flag(20, 8n);
  }

  /** Where a leaf of the first stage may point. */
  target({ second }: Pick<FirstStage, "second">): bigint {
    return second === null ? this.page() : dataPage(BigInt(this.random.below(9)));
  }

  /** Quadwords stored since the last call, as a step. */
  take(): void {
    const words = [...this.memory.words].filter(([at, value]) => (this.#before.get(at) ?? 0n) !== value);
    this.#before = new Map(this.memory.words);
    if (words.length > 0) this.steps.push({ kind: "store", words });
  }

  forget(): void {
    this.#before = new Map(this.memory.words);
  }
}

interface Change {
  /** What makes it known, narrow ones first. */
  readonly descriptors: readonly Descriptor[];
  readonly ask: () => Step;
}

function ask({ random }: Machine, { sid, pasid }: Pick<Space, "sid" | "pasid">, address: bigint): Step {
  const request: Request = {
    kind: random.chance(10) ? "translation" : "untranslated",
    sid,
    pasid,
    privileged: false,
    access: random.pick(["read", "read", "write"]),
    address: address + random.bits(12),
  };
  return { kind: "request", request };
}

function askSpace(machine: Machine, space: Space): Step {
  const { random } = machine;
  return ask(machine, space, space.first === null ? dataPage(BigInt(random.below(8))) : random.pick(VIRTUAL));
}

/** A range that holds the address, or seldom does not. */
function around({ random }: Machine, address: bigint) {
  const at = random.chance(80) ? address : address ^ (1n << BigInt(12 + random.below(10)));
  return { address: at, mask: random.pick([0n, 0n, 0n, 3n, 9n]), leafOnly: random.chance(30) };
}

function changeFirst(machine: Machine): Change {
  const { random } = machine;
  const first = random.pick(machine.firsts);
  const address = random.pick(VIRTUAL);
  const tables = first.tables[first.current]!;
  if (random.chance(75)) {
    const at = tables.entryAt(address, 1);
    if (at !== null)
      tables.write(at, random.chance(30) ? 0n : tables.leaf(1, machine.target(first), machine.firstFlags()));
  } else {
    // A table goes, comes back, or loses a right.
    const at = tables.entryAt(address, 2)!;
    tables.write(at, tables.read(at) ^ random.pick([1n, 1n, 2n, 4n]));
  }
  const { did, pasid } = first;
  const by = () => around(machine, address);
  const users = machine.spaces.filter((space) => space.first === first);
  return {
    descriptors: [
      pasidIotlbPages(did, pasid, by()),
      pasidIotlbPages(did, pasid, by()),
      pasidIotlbPages(did, pasid ^ 1n, by()),
      pasidIotlb(did, pasid),
      iotlbPages(did, by()),
      iotlbDomain(did),
      iotlbGlobal(),
      pasidCacheOne(did, pasid),
    ],
    ask: () => ask(machine, random.pick(users), random.chance(70) ? address : random.pick(VIRTUAL)),
  };
}

function changeSecond(machine: Machine): Change {
  const { random } = machine;
  const second = random.pick(machine.seconds);
  const address = dataPage(BigInt(random.below(8)));
  const tables = second.tables[second.current]!;
  if (random.chance(75)) {
    const at = tables.entryAt(address, 1);
    if (at !== null) tables.write(at, random.chance(30) ? 0n : tables.leaf(1, machine.page(), machine.secondFlags()));
  } else {
    const at = tables.entryAt(address, 2)!;
    tables.write(at, tables.read(at) ^ random.pick([3n, 1n, 2n]));
  }
  const { did } = second;
  const by = () => around(machine, address);
  const users = machine.spaces.filter((space) => space.second === second);
  return {
    descriptors: [
      iotlbPages(did, by()),
      iotlbPages(did, by()),
      iotlbPages(did ^ 1n, by()),
      iotlbDomain(did),
      iotlbGlobal(),
      ...(machine.scalable ? [pasidIotlb(did, 0n), pasidIotlbPages(did, 0n, by())] : [contextDomain(did)]),
    ],
    ask: () => {
      const user = random.pick(users);
      return user.first === null ? ask(machine, user, address) : askSpace(machine, user);
    },
  };
}

/** Entries on the way to a space: present or not, FPD, other tables. */
function changeStructure(machine: Machine): Change {
  const { random, memory } = machine;
  const toggle = (at: bigint, mask: bigint) => machine.put(at, word(memory, at) ^ mask);
  const space = random.pick(machine.spaces);
  const { sid, did, first, second } = space;
  const pasid = space.pasid ?? 0n;
  const tellContext = [
    contextDevice(did, sid),
    contextDevice(did, sid ^ 1n, 1n),
    contextDevice(did, sid ^ 8n),
    ...(machine.scalable ? [] : [contextDomain(did)]),
    contextGlobal(),
  ];
  const tellPasid = [
    pasidCacheOne(did, pasid),
    pasidCacheOne(did, pasid ^ 1n),
    pasidCacheOne(did ^ 1n, pasid),
    pasidCacheDomain(did),
    pasidCacheGlobal(),
  ];
  const tellPaging = [iotlbDomain(did), iotlbGlobal(), ...(machine.scalable ? [pasidIotlb(did, pasid)] : [])];
  const asked = { ask: () => askSpace(machine, space) };
  if (random.chance(45)) {
    const way = random.pick(machine.ways.filter((each) => each.sid === sid));
    toggle(way.at, way.kind === "root" ? 1n : random.pick([1n, 1n, 2n]));
    const descriptors = way.kind === "directory" ? tellPasid : tellContext;
    // An absent root or context has no domain: with CM=1 it is found under 0 (§6.1).
    return { descriptors: [...descriptors, contextDevice(0n, sid), ...tellPaging], ...asked };
  }
  const descriptors = machine.scalable
    ? [...tellPasid, ...tellPasid, ...tellPaging, ...tellContext]
    : [...tellContext, ...tellPaging];
  if (random.chance(60) || (first === null && second === null)) {
    toggle(space.entryAt, random.pick([1n, 1n, 2n]));
    return {
      descriptors: machine.scalable
        ? [...descriptors, pasidCacheOne(0n, pasid)]
        : [...descriptors, contextDevice(0n, sid)],
      ...asked,
    };
  }
  // All that use a stage go to its other table.
  const stage = first !== null && (second === null || random.chance(50)) ? first : second!;
  stage.current ^= 1;
  const { root } = stage.tables[stage.current]!.parts;
  for (const user of machine.spaces) {
    if (user.first === stage) machine.put(user.entryAt + 16n, (word(memory, user.entryAt + 16n) & 0xfffn) | root);
    if (user.second === stage) machine.put(user.entryAt, (word(memory, user.entryAt) & 0xfffn) | root);
  }
  return { descriptors, ...asked };
}

function changeInterrupt(machine: Machine): Change {
  const { random } = machine;
  const index = BigInt(random.below(8));
  const at = machine.interrupts + index * 16n;
  if (random.chance(30)) machine.put(at, word(machine.memory, at) ^ 1n);
  else machine.put(at, ...machine.interruptEntry());
  return {
    descriptors: [
      interruptIndex(index),
      interruptIndex(index ^ 1n),
      interruptIndex(index, 1n),
      interruptIndex(index ^ 2n, 2n),
      interruptGlobal(),
      iotlbGlobal(),
    ],
    ask: () => ({
      kind: "interrupt",
      request: { sid: sourceId(1n), address: 0xfee0_0010n | (index << 5n), data: 0n },
    }),
  };
}

/** The sequence of a seed, with `count` changes. */
export function randomSequence(seed: number, count: number): Scenario {
  const random = new Random(seed);
  const identification = identify(random);
  const scalable = random.chance(80);
  const machine = new Machine(random, scalable);
  machine.forget();
  const memory = copyMemory(machine.memory);
  const { steps } = machine;
  for (let index = 0; index < 12; index++) steps.push(askSpace(machine, random.pick(machine.spaces)));
  const changeStage = () => {
    if (machine.firsts.length === 0) return changeSecond(machine);
    if (machine.seconds.length === 0) return changeFirst(machine);
    return random.chance(60) ? changeFirst(machine) : changeSecond(machine);
  };
  for (let index = 0; index < count; index++) {
    const kind = random.below(100);
    const change = kind < 62 ? changeStage() : kind < 92 ? changeStructure(machine) : changeInterrupt(machine);
    for (let times = random.below(3); times > 0; times--) steps.push(change.ask());
    machine.take();
    for (let times = random.below(3); times > 0; times--) steps.push(change.ask());
    for (let times = random.pick([0, 1, 1, 2]); times > 0; times--)
      steps.push({ kind: "descriptor", descriptor: random.pick(change.descriptors) });
    for (let times = 1 + random.below(3); times > 0; times--) steps.push(change.ask());
  }
  for (const page of machine.memory.pages) memory.pages.add(page);
  const programming = {
    TES: true,
    IRES: true,
    CFIS: false,
    RTADDR: machine.rootTable | (scalable ? 1n << 10n : 0n),
    IRTA: machine.interrupts | 2n,
  };
  return { identification, programming, memory, steps, caches: random.chance(35) ? "tiny" : "default" };
}

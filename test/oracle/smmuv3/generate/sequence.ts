/**
 * Random sequences for testing caches: a valid machine, then software that changes stream table entries, contexts and tables of either stage, sends the
 * invalidations that the change needs, or too few, or others, and translates in between. The software keeps to what `cached-tables.ts` supposes.
 */
import { copyMemory, emptyMemory, type Memory, word } from "../../memory.ts";
import { Random } from "../../random.ts";
import type { CacheSize, Command } from "../adapter.ts";
import { type Features, features, type Identification, type Programming } from "../identification.ts";
import type { Request } from "../outcome.ts";
import {
  type Addressed,
  cfgiCd,
  cfgiCdAll,
  cfgiSte,
  cfgiSteRange,
  el2All,
  el2Asid,
  el2Va,
  el2Vaa,
  nhAll,
  nhAsid,
  nhVa,
  nhVaa,
  nsnhAll,
  s2Ipa,
  s12Vmall,
} from "./commands.ts";
import { leaf, TableBuilder } from "./table-builder.ts";

export type Step =
  | { readonly kind: "request"; readonly request: Request }
  | { readonly kind: "store"; readonly words: readonly (readonly [bigint, bigint])[] }
  /** Followed by CMD_SYNC. */
  | { readonly kind: "command"; readonly command: Command };

export interface Sequence {
  readonly caches: CacheSize;
  readonly identification: Identification;
  readonly programming: Programming;
  readonly memory: Memory;
  readonly steps: readonly Step[];
}

const AF = 1n << 10n;
const NG = 1n << 11n;
const ALL = (1n << 64n) - 1n;
/** IPAs of structures are their physical addresses; those of data pages lie here. */
const DATA_IPA = 0x200_0000n;

interface SecondStage {
  readonly vmid: bigint;
  readonly tables: TableBuilder;
  readonly granule: bigint;
  readonly dw2: bigint;
  readonly dw3: bigint;
}

interface FirstStage {
  readonly world: "EL1" | "EL2" | "EL2-E2H";
  readonly vmid: bigint;
  readonly asid: bigint;
  readonly sid: bigint;
  readonly ssid: bigint | null;
  readonly tables: TableBuilder;
  readonly granule: bigint;
  readonly addresses: readonly bigint[];
  readonly second: SecondStage | null;
  readonly mayBeGlobal: boolean;
  readonly contextAt: bigint;
}

/** The SMMU and its surroundings, if not the oracle's own. */
export interface SequencePlace {
  readonly identification: Identification;
  /** Structures lie from 1 MiB above it. */
  readonly base: bigint;
  /** StreamID of the nth stream, below 64. */
  readonly streamId: (nth: bigint) => bigint;
}

const ANYWHERE: SequencePlace = {
  identification: {
    // S2P S1P VMSAv8-64 COHACC HTTU=2 Hyp ATS ASID16 VMID16 CD2L TTENDIAN=2 TERM_MODEL=0 STALL_MODEL=1
    IDR0: 0b1011n | (1n << 4n) | (2n << 6n) | (3n << 9n) | (1n << 12n) | (3n << 18n) | (2n << 21n) | (1n << 24n),
    IDR1: 6n | (8n << 6n) | (8n << 11n) | (8n << 16n) | (8n << 21n),
    IDR3: (1n << 2n) | (1n << 4n) | (1n << 8n) | (1n << 10n) | (2n << 11n),
    IDR5: 5n | (7n << 4n),
    AIDR: 2n,
  },
  base: 0n,
  streamId: (nth) => nth,
};

class Machine {
  readonly random: Random;
  readonly place: SequencePlace;
  readonly f: Features;
  readonly memory = emptyMemory();
  readonly firsts: FirstStage[] = [];
  readonly seconds: SecondStage[] = [];
  readonly entries = new Map<bigint, bigint>();
  /** Level-1 context descriptors: StreamID, SubstreamIDs below, place. */
  readonly level1: { sid: bigint; at: bigint }[] = [];
  readonly streamTable: bigint;
  readonly E2H: boolean;
  readonly steps: Step[] = [];
  /** Doublewords since the last `take`. */
  #before = new Map<bigint, bigint>();
  #free: bigint;
  #page = 0x4000_0000n;

  constructor(random: Random, place: SequencePlace) {
    this.random = random;
    this.place = place;
    this.f = features(place.identification);
    this.#free = place.base + 0x10_0000n;
    this.E2H = random.chance(50) && this.f.Hyp;
    this.streamTable = this.allocate(4096n);
    const stage2 = () => this.#newSecond(BigInt(this.seconds.length + 2));
    const stream = place.streamId;
    // Two address spaces under one VMID, without stage 2.
    this.#stage1Stream(stream(1n), 1n, 1n);
    this.#stage1Stream(stream(2n), 1n, 2n);
    const shared = stage2();
    this.#nestedStream(stream(3n), shared, [[null, 3n]]);
    this.put(this.#entry(stream(4n)), 1n | (0b110n << 1n), 0n, shared.dw2, shared.dw3);
    const substreams: [bigint, bigint][] = [
      [0n, 4n],
      [1n, 5n],
    ];
    this.#nestedStream(stream(5n), stage2(), this.f.SSIDSIZE > 0n ? substreams : [[null, 4n]]);
    if (this.f.Hyp) this.#stage1Stream(stream(6n), 0n, 6n, this.E2H ? "EL2-E2H" : "EL2");
  }

  allocate(bytes: bigint): bigint {
    this.#free = (this.#free + bytes - 1n) & ~(bytes - 1n);
    const at = this.#free;
    this.#free += bytes;
    for (let page = at >> 12n; page << 12n < this.#free; page++) this.memory.pages.add(page);
    return at;
  }

  put(at: bigint, ...values: bigint[]): void {
    values.forEach((value, index) => {
      this.memory.words.set(at + BigInt(index) * 8n, value & ALL);
    });
  }

  /** A page that nothing else is at. */
  page(): bigint {
    this.#page += 0x1_0000n;
    return this.#page;
  }

  #entry(sid: bigint): bigint {
    const at = this.streamTable + sid * 64n;
    this.entries.set(sid, at);
    return at;
  }

  #newSecond(vmid: bigint): SecondStage {
    const granule = this.random.pick([12n, 12n, 14n, 16n]);
    // 36 bits: 4K from level 1, 16K and 64K from level 2.
    const startLevel = granule === 12n ? 1 : 2;
    const root = this.allocate(1n << granule);
    const tables = new TableBuilder({
      memory: this.memory,
      granule,
      inputBits: 36n,
      startLevel,
      root,
      bigEndian: false,
      newTable: () => this.allocate(1n << granule),
      physical: (address) => address,
      tableFlags: () => 0n,
    });
    const high =
      28n |
      (1n << 6n) |
      ({ 12: 0n, 14: 2n, 16: 1n }[Number(granule)]! << 14n) |
      (5n << 16n) |
      (1n << 19n) |
      (1n << 26n);
    const updates = this.random.chance(30) && this.f.HTTU > 0n ? 3n << 23n : 0n;
    const second = { vmid, tables, granule, dw2: vmid | ((high | updates) << 32n), dw3: root };
    this.seconds.push(second);
    for (let index = 0n; index < 8n; index++)
      if (this.random.chance(85)) tables.map(dataIpa(index), 3, this.page(), this.flags2());
    return second;
  }

  flags2(): bigint {
    const { random } = this;
    const writable = random.chance(75) ? 1n << 7n : random.flag(50, 51n);
    return (0xfn << 2n) | random.flag(92, 6n) | writable | random.flag(92, 10n);
  }

  flags1({ mayBeGlobal }: { readonly mayBeGlobal: boolean }): bigint {
    const { random } = this;
    const readOnly = random.chance(25) ? (1n << 7n) | random.flag(50, 51n) : 0n;
    return (1n << 6n) | readOnly | random.flag(92, 10n) | (mayBeGlobal && random.chance(50) ? 0n : NG);
  }

  /** A structure whose guest page stage 2 maps for good. */
  #structure(second: SecondStage | null, bytes: bigint): bigint {
    const at = this.allocate(bytes);
    if (second === null) return at;
    const step = 1n << second.granule;
    for (let page = at & ~(step - 1n); page < at + bytes; page += step)
      second.tables.map(page, 3, page, (0xfn << 2n) | (3n << 6n) | AF);
    return at;
  }

  #newFirst(
    parts: Pick<FirstStage, "world" | "vmid" | "asid" | "sid" | "ssid" | "second" | "mayBeGlobal" | "contextAt">,
  ): void {
    const { random } = this;
    const granule = random.pick([12n, 12n, 14n, 16n]);
    const table = () => this.#structure(parts.second, 1n << granule);
    const root = table();
    const tables = new TableBuilder({
      memory: this.memory,
      granule,
      inputBits: 39n,
      startLevel: granule === 12n ? 1 : granule === 14n ? 1 : 2,
      root,
      bigEndian: false,
      newTable: table,
      physical: (address) => address,
      tableFlags: () => 0n,
    });
    const addresses: bigint[] = [];
    for (const base of [0n, 1n << 21n, 1n << 25n, 1n << 30n, 1n << 38n])
      for (const page of [0n, 1n, 5n]) addresses.push(base + (page << granule));
    const first: FirstStage = { ...parts, tables, granule, addresses };
    this.firsts.push(first);
    for (const address of addresses)
      if (random.chance(75)) tables.map(address, 3, this.target(first), this.flags1(first));
    const updates = random.chance(40) && this.f.HTTU > 0n ? 3n << 42n : 0n;
    const TG0 = { 12: 0n, 14: 2n, 16: 1n }[Number(granule)]! << 6n;
    const dw0 =
      25n | TG0 | (1n << 30n) | (1n << 31n) | (5n << 32n) | (1n << 41n) | updates | (3n << 45n) | (parts.asid << 48n);
    this.put(parts.contextAt, dw0, root, 0n, 0xf404ff44n, 0n, 0n, 0n, 0n);
  }

  /** Where a leaf of the first stage may point, aligned to 64 KiB. */
  target({ second }: Pick<FirstStage, "second">): bigint {
    return second === null ? this.page() : dataIpa(BigInt(this.random.below(9)));
  }

  #stage1Stream(sid: bigint, vmid: bigint, asid: bigint, world: FirstStage["world"] = "EL1"): void {
    const contextAt = this.allocate(64n);
    this.#newFirst({ world, vmid, asid, sid, ssid: null, second: null, mayBeGlobal: world === "EL2-E2H", contextAt });
    this.put(this.#entry(sid), 1n | (0b101n << 1n) | contextAt, world === "EL1" ? 0n : 2n << 30n, vmid, 0n);
  }

  #nestedStream(sid: bigint, second: SecondStage, spaces: readonly (readonly [bigint | null, bigint])[]): void {
    const common = { world: "EL1", vmid: second.vmid, sid, second } as const;
    let dw0 = 1n | (0b111n << 1n);
    if (spaces.length === 1) {
      const contextAt = this.#structure(second, 64n);
      this.#newFirst({ ...common, asid: spaces[0]![1], ssid: null, mayBeGlobal: true, contextAt });
      dw0 |= contextAt;
    } else {
      // Two levels of 4 KiB: S1Fmt=1, S1CDMax=8.
      const level1 = this.#structure(second, 4096n);
      const leafTable = this.#structure(second, 4096n);
      this.put(level1, leafTable | 1n);
      this.level1.push({ sid, at: level1 });
      for (const [ssid, asid] of spaces)
        this.#newFirst({ ...common, asid, ssid, mayBeGlobal: false, contextAt: leafTable + ssid! * 64n });
      dw0 |= level1 | (1n << 4n) | (8n << 59n);
    }
    this.put(this.#entry(sid), dw0, 1n << 28n, second.dw2, second.dw3);
  }

  /** Doublewords stored since the last call, as a step. */
  take(): void {
    const words = [...this.memory.words].filter(([at, value]) => (this.#before.get(at) ?? 0n) !== value);
    this.#before = new Map(this.memory.words);
    if (words.length > 0) this.steps.push({ kind: "store", words });
  }

  forget(): void {
    this.#before = new Map(this.memory.words);
  }

  command(command: Command): void {
    this.steps.push({ kind: "command", command });
  }
}

function dataIpa(index: bigint): bigint {
  return DATA_IPA + (index << 16n);
}

interface Change {
  /** Commands that make it known, narrow ones first. */
  readonly commands: readonly Command[];
  readonly ask: () => Request;
}

function where(machine: Machine, granule: bigint, address: bigint): Addressed {
  const { random } = machine;
  const leaf = random.chance(50);
  if (random.chance(60)) return { address: random.chance(85) ? address : address ^ (1n << granule), leaf };
  const num = BigInt(random.below(4));
  const scale = BigInt(random.below(3));
  const ttl = BigInt(random.pick([0, 0, 3, 2]));
  // TG with NUM, SCALE and TTL all zero is CERROR_ILL (§4.4.1.1).
  const back = random.chance(70) ? 0n : 1n << granule;
  return {
    address: address - back,
    leaf,
    range: { granule, num: num === 0n && scale === 0n && ttl === 0n ? 1n : num, scale, ttl },
  };
}

function stage1Commands(machine: Machine, first: FirstStage, address: bigint): Command[] {
  const { vmid, asid, world, granule } = first;
  const at = () => where(machine, granule, address);
  if (world !== "EL1") {
    const byAsid = world === "EL2-E2H" ? [el2Va(asid, at()), el2Asid(asid)] : [el2Va(0n, at())];
    return [...byAsid, el2Vaa(at()), el2All()];
  }
  const commands = [nhVa(vmid, asid, at()), nhVa(vmid, asid, at()), nhVaa(vmid, at()), nhAsid(vmid, asid), nhAll(vmid)];
  return [...commands, nsnhAll()];
}

function changeStage1(machine: Machine): Change {
  const { random } = machine;
  const first = random.pick(machine.firsts);
  const address = random.pick(first.addresses);
  const { tables } = first;
  if (random.chance(70)) {
    const at = tables.descriptorAt(address, 3);
    if (at !== null) tables.write(at, random.chance(30) ? 0n : leaf(3, machine.target(first), machine.flags1(first)));
  } else {
    const at = tables.descriptorAt(address, 2)!;
    const was = tables.read(at);
    if ((was & 1n) === 1n) {
      tables.write(at, 0n);
      // A block or another table only after everything is gone: break-before-make.
      if (random.chance(60)) {
        machine.take();
        machine.command(first.world === "EL1" ? nhAll(first.vmid) : el2All());
        const reach = (1n << tables.shift(2)) - 1n;
        if (random.chance(50)) tables.write(at, leaf(2, machine.target(first) & ~reach, machine.flags1(first) | AF));
      }
    }
    for (const other of first.addresses)
      if (tables.read(at) === 0n && random.chance(40)) break;
      else tables.map(other, 3, machine.target(first), machine.flags1(first));
  }
  return {
    commands: stage1Commands(machine, first, address),
    ask: () => ask(machine, first, random.chance(70) ? address : random.pick(first.addresses)),
  };
}

function changeStage2(machine: Machine): Change {
  const { random } = machine;
  const second = random.pick(machine.seconds);
  const ipa = dataIpa(BigInt(random.below(8)));
  const at = second.tables.descriptorAt(ipa, 3);
  if (at !== null) second.tables.write(at, random.chance(30) ? 0n : leaf(3, machine.page(), machine.flags2()));
  const { vmid, granule } = second;
  const by = () => where(machine, granule, ipa);
  const users = machine.firsts.filter((first) => first.second === second);
  return {
    commands: [s2Ipa(vmid, by()), s2Ipa(vmid, by()), nhAll(vmid), s12Vmall(vmid), nsnhAll()],
    ask: () => {
      if (second.vmid === 2n && random.chance(35)) return request(machine, machine.place.streamId(4n), null, ipa);
      const first = random.pick(users);
      return ask(machine, first, random.pick(first.addresses));
    },
  };
}

function changeConfiguration(machine: Machine): Change {
  const { random, memory } = machine;
  const toggle = (at: bigint, mask: bigint) => machine.put(at, word(memory, at) ^ mask);
  const first = random.pick(machine.firsts);
  const { sid, ssid } = first;
  const anything = () => ask(machine, first, random.pick(first.addresses));
  const stream = [
    cfgiSte(sid, random.chance(70)),
    cfgiSte(sid ^ 1n, false),
    cfgiSteRange(sid, 0n),
    cfgiSteRange(0n, 31n),
  ];
  const kind = random.below(10);
  if (kind < 4) {
    // V, or EATS.
    const at = machine.entries.get(sid)!;
    if (random.chance(70)) toggle(at, 1n);
    else toggle(at + 8n, 1n << 28n);
    return { commands: stream, ask: anything };
  }
  if (kind < 6 && machine.level1.length > 0) {
    const { sid: owner, at } = random.pick(machine.level1);
    toggle(at, 1n);
    const below = random.pick(machine.firsts.filter((candidate) => candidate.sid === owner));
    return {
      commands: [
        cfgiCd(owner, below.ssid!, true),
        cfgiCd(owner, below.ssid!, false),
        cfgiCdAll(owner),
        cfgiSte(owner, true),
      ],
      ask: () => ask(machine, below, random.pick(below.addresses)),
    };
  }
  // V, R, A of a context: none is kept in TLBs (§4.3.2).
  toggle(first.contextAt, random.pick([1n << 31n, 1n << 31n, 1n << 45n, 1n << 46n]));
  return { commands: [cfgiCd(sid, ssid ?? 0n, true), cfgiCd(sid, 9n, true), cfgiCdAll(sid), ...stream], ask: anything };
}

function request({ random, f }: Machine, sid: bigint, ssid: bigint | null, iova: bigint): Request {
  return {
    kind: random.chance(12) && f.ATS ? "ats" : "untranslated",
    sid,
    ssid,
    privileged: false,
    instruction: false,
    write: random.chance(45),
    iova: iova + random.bits(12),
  };
}

function ask(machine: Machine, first: FirstStage, address: bigint): Request {
  return request(machine, first.sid, first.ssid, address);
}

/** The sequence of a seed, with `count` changes. */
export function randomSequence(seed: number, count: number, place: SequencePlace = ANYWHERE): Sequence {
  const random = new Random(seed);
  const machine = new Machine(random, place);
  machine.forget();
  const memory = copyMemory(machine.memory);
  const { steps } = machine;
  const put = (asked: Request) => steps.push({ kind: "request", request: asked });
  for (let index = 0; index < 12; index++) {
    const first = random.pick(machine.firsts);
    put(ask(machine, first, random.pick(first.addresses)));
  }
  for (let index = 0; index < count; index++) {
    const kind = random.below(100);
    const change = kind < 50 ? changeStage1(machine) : kind < 75 ? changeStage2(machine) : changeConfiguration(machine);
    for (let times = random.below(3); times > 0; times--) put(change.ask());
    machine.take();
    for (let times = random.below(3); times > 0; times--) put(change.ask());
    for (let times = random.pick([0, 1, 1, 2]); times > 0; times--) machine.command(random.pick(change.commands));
    for (let times = 1 + random.below(3); times > 0; times--) put(change.ask());
  }
  for (const page of machine.memory.pages) memory.pages.add(page);
  const { identification } = place;
  const programming: Programming = {
    CR0: machine.f.ATS ? 0b1_0001n : 1n,
    CR2: (machine.E2H ? 1n : 0n) | 2n,
    GBPA: 0n,
    STRTAB_BASE: machine.streamTable,
    STRTAB_BASE_CFG: 6n,
  };
  return { caches: random.chance(35) ? "tiny" : "default", identification, programming, memory, steps };
}

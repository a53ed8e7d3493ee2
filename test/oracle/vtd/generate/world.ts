/**
 * Random worlds for translation without caches: a unit, root and context tables, PASID tables, devices of every kind of translation, their tables, then a few
 * things spoiled and requests that mostly go where something is. Tables stay near the valid: most requests get deep before they fail, or pass.
 *
 * Physical memory below 16 MiB holds structures; a guest's address is 16 MiB above the physical one that it means.
 */
import { emptyMemory, store } from "../../memory.ts";
import { Random } from "../../random.ts";
import { bit, type Features, features, type Identification, type Programming } from "../capabilities.ts";
import type { Scenario, Step } from "../harness/scenario.ts";
import type { InterruptRequest } from "../interrupt.ts";
import type { Request } from "../outcome.ts";
import { randomIdentification } from "./identification.ts";
import { interruptTable, makeInterrupt } from "./interrupts.ts";
import { TableBuilder } from "./table-builder.ts";

const GUEST_OFFSET = 0x100_0000n;
/** Where a world's machine has its memory and its endpoints. */
export interface Place {
  /** Physical address that stands for 0: structures lie in the 16 MiB from it. A multiple of 16 MiB. */
  readonly base: bigint;
  readonly sid: (random: Random) => bigint;
}

const ANYWHERE: Place = { base: 0n, sid: (random) => random.bits(16) };

/** Where data pages lie: nothing is stored there. */
const DATA = 0xe0_0000n;
const ALL = (1n << 64n) - 1n;
const FS = { P: 1n, RW: 2n, US: 4n, A: 1n << 5n, D: 1n << 6n };
const SS = { R: 1n, W: 2n, A: 1n << 8n, D: 1n << 9n };

interface Device {
  readonly sid: bigint;
  /** Input addresses that mean something, by PASID; null without one. */
  readonly spaces: { readonly pasid: bigint | null; readonly addresses: readonly bigint[] }[];
}

export class Maker {
  readonly random: Random;
  readonly identification: Identification;
  readonly f: Features;
  readonly memory = emptyMemory();
  /** Quadwords that may be spoiled, with the bits that mean something. */
  readonly spoilable: { at: bigint; mask: bigint }[] = [];
  /** Structures whose reads may fail, or their stores. */
  readonly fetched: { at: bigint; quadwords: number }[] = [];
  readonly devices: Device[] = [];
  readonly place: Place;
  /** From a physical address to the guest's that means it. */
  readonly guestOffset: bigint;
  #free: bigint;

  constructor(random: Random, identify: (random: Random) => Identification, place: Place) {
    this.random = random;
    this.place = place;
    this.guestOffset = GUEST_OFFSET - place.base;
    this.#free = place.base + 0x10_0000n;
    this.identification = identify(random);
    this.f = features(this.identification);
  }

  allocate(bytes = 4096n): bigint {
    const at = this.#free;
    this.#free += (bytes + 4095n) & ~4095n;
    if (this.#free > this.place.base + DATA) throw new RangeError("a world outgrew its memory");
    for (let page = at >> 12n; page << 12n < this.#free; page++) this.memory.pages.add(page);
    return at;
  }

  put(at: bigint, ...values: bigint[]): void {
    values.forEach((value, index) => {
      store(this.memory, at + BigInt(index) * 8n, 8, value & ALL);
    });
  }

  /** `often`: so that the few structures are spoiled as often as the many paging entries. */
  note(at: bigint, masks: readonly bigint[], quadwords: number, often = 4): void {
    masks.forEach((mask, index) => {
      for (let times = 0; times < often; times++) this.spoilable.push({ at: at + BigInt(index) * 8n, mask });
    });
    this.fetched.push({ at, quadwords });
  }
}

interface Second {
  readonly tables: TableBuilder;
  readonly AW: bigint;
  readonly addresses: readonly bigint[];
}

/** Mostly below what every unit has; seldom near the host address width. */
function outputPage(maker: Maker, alignment = 12n): bigint {
  const { random, f } = maker;
  const low = (0x4000_0000n + random.bits(28)) & ~((1n << alignment) - 1n);
  if (random.chance(2)) return (0xfee0_0000n + random.bits(20)) & ~((1n << alignment) - 1n);
  return random.chance(90) ? low : low | (1n << (30n + BigInt(random.below(Number(f.HAW - 30n)))));
}

/** `flags`: hardware sets A and D. */
function secondFlags(maker: Maker): bigint {
  const { random, f } = maker;
  return (
    random.flag(92, 0n) |
    random.flag(85, 1n) |
    random.flag(60, 8n) |
    random.flag(40, 9n) |
    (f.SC ? random.flag(20, 11n) : 0n) |
    (random.chance(30) ? random.bits(4) << 2n : 0n) |
    (random.chance(10) ? random.bits(10) << 52n : 0n)
  );
}

const PAGING_BITS_2 =
  3n | (1n << 7n) | (7n << 8n) | (1n << 11n) | (1n << 13n) | (1n << 20n) | (1n << 45n) | (1n << 51n) | (3n << 61n);
const PAGING_BITS_1 =
  7n | (7n << 5n) | (1n << 10n) | (3n << 12n) | (1n << 20n) | (1n << 45n) | (1n << 51n) | (3n << 62n);

function noteEntries(maker: Maker, { written }: TableBuilder, mask: bigint): void {
  for (const at of written) maker.note(at, [mask], 1, 1);
}

function makeSecond(maker: Maker): Second {
  const { random, f, memory } = maker;
  const widths = [1n, 2n, 3n].filter((AW) => bit(f.SAGAW, AW));
  const AW = widths.length === 0 || random.chance(3) ? BigInt(1 + random.below(3)) : random.pick(widths);
  const tables = new TableBuilder({
    memory,
    levels: Number(AW) + 2,
    root: maker.allocate(),
    newTable: () => maker.allocate(),
    physical: (address) => address,
    tableFlags: () => 3n | random.flag(70, 8n) | (random.chance(8) ? 1n << BigInt(2 + random.below(5)) : 0n),
    presentMask: 3n,
  });
  const addresses: bigint[] = [];
  for (let index = 0n; index < 6n; index++) {
    const high = random.chance(15) ? random.bits(30n + 9n * AW) & ~0xfffn : 0n;
    const address = high | (GUEST_OFFSET + DATA + index * 0x1_0000n);
    addresses.push(address);
    const level = random.chance(85) ? 1 : 2 + random.below(2);
    if (random.chance(92)) tables.map(address, level, outputPage(maker, tables.shift(level)), secondFlags(maker));
  }
  return { tables, AW, addresses };
}

/** A table of the first stage: its address as the entries have it, with the second stage mapping it. */
function guestTable(maker: Maker, second: Second | null): bigint {
  const physical = maker.allocate();
  if (second === null) return physical;
  const { random } = maker;
  const flags = random.chance(82) ? 3n | (random.chance(70) ? SS.A | SS.D : 0n) : secondFlags(maker) | 1n;
  second.tables.map(physical + maker.guestOffset, 1, physical, flags);
  return physical + maker.guestOffset;
}

interface First {
  readonly root: bigint;
  readonly levels: number;
  readonly addresses: readonly bigint[];
}

function makeFirst(maker: Maker, second: Second | null): First {
  const { random, f, memory } = maker;
  const levels = f.FS5LP && random.chance(35) ? 5 : 4;
  const root = guestTable(maker, second);
  const flags = () => FS.P | random.flag(90, 1n) | random.flag(92, 2n) | random.flag(70, 5n) | random.flag(40, 10n);
  const tables = new TableBuilder({
    memory,
    levels,
    root,
    newTable: () => guestTable(maker, second),
    physical: (address) => (second === null ? address : address - maker.guestOffset),
    tableFlags: () => flags() | (random.chance(10) ? random.bits(11) << 52n : 0n),
    presentMask: FS.P,
  });
  const addresses: bigint[] = [];
  const width = levels === 5 ? 57 : 48;
  for (let index = 0; index < 6; index++) {
    const page = random.pick([0n, 1n, 2n, random.bits(10), random.bits(52)]) << 12n;
    const address = BigInt.asUintN(64, BigInt.asIntN(width, page));
    addresses.push(address);
    if (random.chance(6)) continue;
    const level = random.chance(80) ? 1 : 2 + random.below(2);
    const output = second !== null && random.chance(93) ? random.pick(second.addresses) : outputPage(maker);
    const leaf = flags() | random.flag(60, 6n) | random.flag(30, 8n) | (random.chance(20) ? random.bits(2) << 3n : 0n);
    const pat = level > 1 ? random.flag(20, 12n) : random.flag(20, 7n);
    tables.map(address, level, output & ~((1n << tables.shift(level)) - 1n), leaf | pat);
  }
  noteEntries(maker, tables, PAGING_BITS_1);
  return { root, levels, addresses };
}

/** Masks of structures' bits that mean something, by quadword; some reserved ones among them. */
const LEGACY_ROOT = [3n | (1n << 11n) | (1n << 45n) | (1n << 60n), 1n | (1n << 40n)];
const LEGACY_CONTEXT = [
  0x1fn | (1n << 11n) | (1n << 45n) | (1n << 60n),
  0x9fn | (3n << 22n) | (1n << 24n) | (1n << 63n),
];
const SCALABLE_ROOT = [3n | (1n << 11n) | (1n << 45n) | (1n << 60n)];
const SCALABLE_CONTEXT = [0xe3fn | (1n << 45n), 0xfn | (0xfn << 17n) | (1n << 63n), 1n, 1n << 63n];
const DIRECTORY = [7n | (1n << 11n) | (1n << 45n)];
const PASID_ENTRY = [
  0xfffn | (1n << 45n) | (1n << 60n),
  (1n << 8n) | (0x3ffn << 15n) | (1n << 31n) | (1n << 40n),
  0xfffn | (1n << 45n) | (1n << 60n),
  1n,
  1n << 63n,
];

function legacyDevice(maker: Maker, sid: bigint, table: bigint): void {
  const { random, f } = maker;
  const second = makeSecond(maker);
  const TT = random.pick([
    0n,
    0n,
    0n,
    ...(f.DT ? [1n, 1n] : []),
    ...(f.PT ? [2n] : []),
    ...(random.chance(5) ? [3n] : []),
  ]);
  const at = table + (sid & 0xffn) * 16n;
  maker.put(at, 1n | random.flag(15, 1n) | (TT << 2n) | second.tables.parts.root, second.AW | (domain(maker) << 8n));
  maker.note(at, LEGACY_CONTEXT, 2);
  noteEntries(maker, second.tables, PAGING_BITS_2);
  maker.devices.push({ sid, spaces: [{ pasid: null, addresses: second.addresses }] });
}

function domain({ random, f }: Maker): bigint {
  return 1n + random.bits(f.domainIdBits < 8n ? f.domainIdBits - 1n : 8n);
}

/** A PASID entry, eight quadwords, and the addresses that mean something there. */
function makeEntry(maker: Maker): { readonly quadwords: bigint[]; readonly addresses: readonly bigint[] } {
  const { random, f } = maker;
  const kinds = [
    ...(f.FSTS ? [1n, 1n, 1n] : []),
    ...(f.SSTS ? [2n, 2n] : []),
    ...(f.NEST ? [3n, 3n, 3n, 3n] : []),
    ...(f.PT ? [4n] : []),
    ...(random.chance(4) ? [random.bits(3)] : []),
  ];
  const PGTT = kinds.length === 0 ? 1n : random.pick(kinds);
  const second = PGTT === 2n || PGTT === 3n ? makeSecond(maker) : null;
  const first = PGTT === 1n || PGTT === 3n ? makeFirst(maker, second) : null;
  if (second !== null) noteEntries(maker, second.tables, PAGING_BITS_2);
  let q0 = 1n | random.flag(12, 1n) | (PGTT << 6n);
  if (second !== null) q0 |= (second.AW << 2n) | second.tables.parts.root;
  if (f.SSADS && random.chance(60)) q0 |= 1n << 9n;
  const q1 = domain(maker) | (f.SMPWCS ? random.flag(88, 23n) : 0n) | (f.SC ? random.flag(30, 24n) : 0n);
  let q2 = f.SRS ? random.flag(60, 0n) : 0n;
  if (f.FSTS) q2 |= random.flag(50, 4n);
  if (f.EAFS) q2 |= random.flag(50, 7n);
  if (random.chance(20)) q2 |= random.bits(2) << 5n;
  if (first !== null) q2 |= first.root | (first.levels === 5 ? 4n : 0n);
  const passing = [random.bits(30) << 8n, random.bits(f.HAW), 0xfee0_0000n];
  return {
    quadwords: [q0, q1, q2, 0n, 0n, 0n, 0n, 0n],
    addresses: first?.addresses ?? second?.addresses ?? passing,
  };
}

function scalableDevice(maker: Maker, sid: bigint, table: bigint): void {
  const { random, f } = maker;
  const PDTS = random.pick([0n, 0n, 1n, 3n]);
  const directory = maker.allocate(8n << (PDTS + 7n));
  const limit = 1n << (PDTS + 13n);
  const RID_PASID = f.RPS && random.chance(50) ? random.bits(PDTS + 13n) : 0n;
  const pasids = new Set([RID_PASID]);
  if (f.PASID)
    for (let index = 0; index < 2; index++)
      pasids.add(random.pick([random.bits(6), limit - 1n, random.bits(PDTS + 13n)]));
  const spaces: Device["spaces"] = [];
  for (const pasid of pasids) {
    const at = directory + (pasid >> 6n) * 8n;
    let pointer = maker.memory.words.get(at) ?? 0n;
    if (pointer === 0n) {
      pointer = maker.allocate() | 1n | random.flag(4, 1n);
      maker.put(at, pointer);
      maker.note(at, DIRECTORY, 1);
    }
    const entryAt = (pointer & ~0xfffn) + (pasid & 63n) * 64n;
    const { quadwords, addresses } = makeEntry(maker);
    maker.put(entryAt, ...quadwords);
    maker.note(entryAt, PASID_ENTRY, 8);
    if (pasid === RID_PASID) spaces.push({ pasid: null, addresses });
    if (f.PASID) spaces.push({ pasid, addresses });
  }
  const at = table + (sid & 0x7fn) * 32n;
  const q0 =
    1n |
    random.flag(8, 1n) |
    (f.DT ? random.flag(85, 2n) : 0n) |
    (f.PASID ? random.flag(92, 3n) : 0n) |
    (f.PRS ? random.flag(50, 4n) : 0n) |
    (PDTS << 9n) |
    directory;
  maker.put(at, q0, RID_PASID | (f.RPRIVS ? random.flag(30, 20n) : 0n), 0n, 0n);
  maker.note(at, SCALABLE_CONTEXT, 4);
  maker.devices.push({ sid, spaces });
}

function makeDevices(maker: Maker, isScalable: boolean): bigint {
  const { random, place } = maker;
  const root = maker.allocate();
  const sids = new Set<bigint>();
  for (let index = 0; index < 4; index++) sids.add(place.sid(random));
  for (const sid of sids) {
    const upper = isScalable ? ((sid >> 7n) & 1n) * 8n : 0n;
    const at = root + (sid >> 8n) * 16n + upper;
    let pointer = maker.memory.words.get(at) ?? 0n;
    if (pointer === 0n) {
      pointer = maker.allocate() | 1n;
      maker.put(at, pointer);
      maker.note(at, isScalable ? SCALABLE_ROOT : LEGACY_ROOT, isScalable ? 1 : 2);
    }
    const table = pointer & ~0xfffn;
    if (isScalable) scalableDevice(maker, sid, table);
    else legacyDevice(maker, sid, table);
  }
  return root;
}

function makeRequest(maker: Maker): Request {
  const { random, f } = maker;
  const device = random.pick(maker.devices);
  const kind = !f.DT || random.chance(65) ? "untranslated" : random.chance(75) ? "translation" : "translated";
  const space = random.pick(device.spaces);
  const otherwise = random.chance(40) ? null : random.bits(random.pick([6, 13, 20]));
  let pasid = random.chance(94) ? space.pasid : otherwise;
  // What becomes of the PASID of a translated request no source says.
  if (kind === "translated") pasid = null;
  let address = random.chance(5) ? random.bits(40) : random.pick(space.addresses);
  if (random.chance(8)) address ^= 1n << BigInt(12 + random.below(52));
  address ^= random.bits(12);
  // Without a PASID that is the interrupts' (§3.14): not a matter of DMA remapping.
  if (pasid === null && address >> 20n === 0xfeen) address ^= 1n << 32n;
  return {
    kind,
    sid: random.chance(4) ? random.bits(16) : device.sid,
    pasid,
    privileged: pasid !== null && random.chance(30),
    access:
      kind === "untranslated"
        ? random.pick(["read", "read", "write", "write", "atomic"])
        : random.pick(["read", "write"]),
    address,
  };
}

function spoil(maker: Maker): void {
  const { random, spoilable, memory, fetched } = maker;
  for (let times = random.pick([0, 1, 2, 4]); times > 0 && spoilable.length > 0; times--) {
    const { at, mask } = random.pick(spoilable);
    const bits = [...Array(64).keys()].filter((index) => (mask >> BigInt(index)) & 1n);
    memory.words.set(at, (memory.words.get(at) ?? 0n) ^ (1n << BigInt(random.pick(bits))));
  }
  if (random.chance(25) && fetched.length > 0) {
    const { at, quadwords } = random.pick(fetched);
    const what = quadwords === 1 && random.chance(50) ? "read-only" : "access";
    for (let index = 0n; index < BigInt(quadwords); index++) memory.injected.set(at + index * 8n, what);
  }
}

/** `identify` chooses the unit; by default any that the specification allows. `place`: see there; by default no limits. */
export function randomWorld(
  seed: number,
  count: number,
  identify: (random: Random) => Identification = randomIdentification,
  place: Place = ANYWHERE,
): Scenario {
  const random = new Random(seed);
  const maker = new Maker(random, identify, place);
  const { f } = maker;
  const isScalable = f.SMTS && (f.SAGAW === 0n || random.chance(85));
  const root = makeDevices(maker, isScalable);
  const TTM = random.chance(97) ? (isScalable ? 1n : 0n) : random.bits(2);
  const interrupts = f.IR ? interruptTable(maker) : null;
  spoil(maker);
  const programming: Programming = {
    TES: random.chance(97),
    IRES: interrupts !== null && random.chance(90),
    CFIS: random.chance(50),
    RTADDR: root | (TTM << 10n),
    IRTA: interrupts?.IRTA ?? 0n,
  };
  const steps: Step[] = [];
  const interrupt = (request: InterruptRequest) => steps.push({ kind: "interrupt", request });
  for (let index = 0; index < count; index++) {
    if (interrupts !== null && random.chance(15)) interrupt(makeInterrupt(maker, interrupts));
    else steps.push({ kind: "request", request: makeRequest(maker) });
  }
  return { identification: maker.identification, programming, memory: maker.memory, steps, caches: "none" };
}

/**
 * Random worlds for translation without caches: identification, stream table, streams of every configuration, their tables, then a few things spoiled and
 * requests that mostly go where something is. Tables stay near the valid: most requests get deep before they fail, or pass.
 *
 * Physical memory below 16 MiB holds structures; an IPA is 16 MiB above the physical address that it means, so that every IPA in use fits the smallest
 * stage 2 without small tables.
 */
import { emptyMemory, type Memory, store } from "../../memory.ts";
import { Random } from "../../random.ts";
import { type Features, features, type Identification, type Programming } from "../identification.ts";
import type { Request } from "../outcome.ts";
import { randomIdentification } from "./identification.ts";
import { TableBuilder } from "./table-builder.ts";

export interface World {
  readonly identification: Identification;
  readonly programming: Programming;
  readonly memory: Memory;
  readonly requests: readonly Request[];
}

const IPA_OFFSET = 0x100_0000n;
/** Where a world's machine has its memory and its endpoints, and what it does not survive. */
export interface Place {
  /** Physical address that stands for 0: structures lie in the 16 MiB from it. A multiple of 16 MiB. */
  readonly base: bigint;
  /** A StreamID of `bits` bits. */
  readonly streamId: (random: Random, bits: bigint) => bigint;
  /** Encodings of CD.IPS and STE.S2PS lie below it. */
  readonly outputSizes: number;
}

const ANYWHERE: Place = { base: 0n, streamId: (random, bits) => random.bits(bits), outputSizes: 8 };

/** Where data pages lie: nothing is stored there. */
const DATA = 0xe0_0000n;
const AF = 1n << 10n;
const ALL = (1n << 64n) - 1n;

interface Stream {
  readonly sid: bigint;
  /** Input addresses that mean something, by SubstreamID; null without one. */
  readonly spaces: { readonly ssid: bigint | null; readonly addresses: bigint[] }[];
}

class Maker {
  readonly random: Random;
  readonly identification: Identification;
  readonly f: Features;
  readonly memory = emptyMemory();
  /** Doublewords that may be spoiled, with the bits that mean something. */
  readonly spoilable: { at: bigint; mask: bigint }[] = [];
  /** Structures whose reads may abort. */
  readonly fetched: { at: bigint; doublewords: number }[] = [];
  readonly streams: Stream[] = [];
  readonly place: Place;
  /** From a physical address to the IPA that means it. */
  readonly ipaOffset: bigint;
  #free: bigint;

  constructor(random: Random, identify: (random: Random) => Identification, place: Place) {
    this.random = random;
    this.place = place;
    this.ipaOffset = IPA_OFFSET - place.base;
    this.#free = place.base + 0x10_0000n;
    this.identification = identify(random);
    this.f = features(this.identification);
  }

  allocate(bytes: bigint, alignment = bytes): bigint {
    const align = alignment < 64n ? 64n : alignment;
    this.#free = (this.#free + align - 1n) & ~(align - 1n);
    const at = this.#free;
    this.#free += bytes;
    if (this.#free > this.place.base + DATA) throw new RangeError("a world outgrew its memory");
    for (let page = at >> 12n; page << 12n < this.#free; page++) this.memory.pages.add(page);
    return at;
  }

  put(at: bigint, ...values: bigint[]): void {
    values.forEach((value, index) => {
      store(this.memory, at + BigInt(index) * 8n, 8, value & ALL);
    });
  }

  /** A value that the encoding has, mostly one that the SMMU can do. */
  granule(): bigint {
    return this.random.pick(this.f.granules);
  }
}

/** Stage 2 of one stream. */
interface Second {
  readonly tables: TableBuilder;
  readonly dw2: bigint;
  readonly dw3: bigint;
  readonly addresses: readonly bigint[];
}

const TG0: Record<string, bigint> = { 12: 0n, 16: 1n, 14: 2n };
const TG1: Record<string, bigint> = { 14: 1n, 12: 2n, 16: 3n };

/** Input size and start of stage 2 that go together. */
function stage2Start(maker: Maker, granule: bigint): { T0SZ: bigint; SL0: bigint; level: number } {
  const { random, f } = maker;
  const stride = granule - 3n;
  const smallest = 64n - f.IAS > 16n ? 64n - f.IAS : granule === 16n ? (f.IAS >= 52n ? 12n : 16n) : 16n;
  for (;;) {
    const T0SZ = smallest + BigInt(random.below(Number(40n - smallest)));
    const SL0 = BigInt(random.below(3));
    const level = granule === 12n ? 2 - Number(SL0) : 3 - Number(SL0);
    const indexBits = 64n - T0SZ - (granule + stride * BigInt(3 - level));
    // Tables of a start level of many entries are large: 64 KiB at most.
    if (indexBits >= 1n && indexBits <= stride + 4n && indexBits <= 13n) return { T0SZ, SL0, level };
  }
}

function makeStage2(maker: Maker): Second {
  const { random, f, memory } = maker;
  const granule = maker.granule();
  const { T0SZ, SL0, level } = stage2Start(maker, granule);
  const bigEndian = f.TTENDIAN === 3n || (f.TTENDIAN === 0n && random.chance(20));
  const shift = granule + (granule - 3n) * BigInt(3 - level);
  const bytes = 8n << (64n - T0SZ - shift);
  const root = maker.allocate(bytes < 4096n ? 4096n : bytes);
  const tables = new TableBuilder({
    memory,
    granule,
    inputBits: 64n - T0SZ,
    startLevel: level,
    root,
    bigEndian,
    newTable: () => maker.allocate(1n << granule),
    physical: (address) => address,
    tableFlags: () => random.flag(50, 10n),
  });
  const addresses: bigint[] = [];
  for (let index = 0n; index < 6n; index++) {
    const ipa = (IPA_OFFSET + DATA + index * 0x1_0000n) & ~((1n << granule) - 1n);
    addresses.push(ipa);
    if (random.chance(90)) tables.map(ipa, 3, outputPage(maker, granule), leafFlags2(maker));
  }
  const size = BigInt(random.chance(85) ? Number(bitsOf(maker)) : random.below(maker.place.outputSizes));
  const HA = f.HTTU > 0n && random.chance(50);
  const HD = HA && f.HTTU >= 2n && random.chance(70);
  const stalls = f.STALL_MODEL === 2n || (f.STALL_MODEL === 0n && random.chance(25));
  const high =
    T0SZ |
    (SL0 << 6n) |
    (TG0[granule.toString()]! << 14n) |
    (size << 16n) |
    (1n << 19n) |
    (bigEndian ? 1n << 20n : 0n) |
    random.flag(25, 21n) |
    random.flag(40, 22n) |
    (HD ? 1n << 23n : 0n) |
    (HA ? 1n << 24n : 0n) |
    (stalls ? 1n << 25n : 0n) |
    random.flag(80, 26n) |
    (HA && f.HTTU === 3n ? random.flag(50, 27n) : 0n);
  const vmid = random.bits(f.VMID16 ? 16 : 8);
  return { tables, dw2: vmid | (high << 32n), dw3: root | random.bits(6), addresses };
}

/** The encoding of the output size that the SMMU has. */
function bitsOf(maker: Maker): bigint {
  return maker.identification.IDR5 & 7n;
}

function outputPage(maker: Maker, granule: bigint): bigint {
  const { random, f } = maker;
  const low = (0x4000_0000n + random.bits(28)) & ~((1n << granule) - 1n);
  return random.chance(90)
    ? low
    : low | (1n << (30n + BigInt(random.below(Number((f.OAS < 48n ? f.OAS : 48n) - 30n)))));
}

function leafFlags2(maker: Maker): bigint {
  const { random, f } = maker;
  const memoryType = f.FWB && random.chance(50) ? random.pick([6n, 5n, 7n, 1n]) : random.pick([0xfn, 0xfn, 5n, 0n, 1n]);
  const writable = random.chance(70);
  return (
    (memoryType << 2n) |
    random.flag(92, 6n) |
    (writable ? 1n << 7n : random.flag(60, 51n)) |
    random.flag(85, 10n) |
    (random.chance(50) ? random.bits(2) << 53n : 0n)
  );
}

function leafFlags1(maker: Maker): bigint {
  const { random } = maker;
  return (
    (random.bits(3) << 2n) |
    random.flag(80, 6n) |
    (random.chance(35) ? (1n << 7n) | random.flag(60, 51n) : random.flag(10, 51n)) |
    (random.bits(2) << 8n) |
    random.flag(82, 10n) |
    random.flag(60, 11n) |
    random.flag(10, 53n) |
    random.flag(10, 54n)
  );
}

/** A structure of stage 1: its address as the descriptors of the stream have it, with stage 2 mapping it. */
function structure(maker: Maker, second: Second | null, bytes: bigint): { address: bigint; physical: bigint } {
  const physical = maker.allocate(bytes);
  if (second === null) return { address: physical, physical };
  const { granule } = second.tables.parts;
  const step = 1n << granule;
  const { random } = maker;
  for (let page = physical & ~(step - 1n); page < physical + bytes; page += step) {
    // Readable, writable and accessed, but for a few.
    const flags = random.chance(85) ? (0xfn << 2n) | (3n << 6n) | AF : leafFlags2(maker) | (1n << 6n);
    second.tables.map(page + maker.ipaOffset, 3, page, flags);
  }
  return { address: physical + maker.ipaOffset, physical };
}

interface Base {
  readonly TSZ: bigint;
  readonly granule: bigint;
  readonly TTB: bigint;
}

function makeBase(maker: Maker, second: Second | null, upper: boolean, bigEndian: boolean, addresses: bigint[]): Base {
  const { random, f, memory } = maker;
  const granule = maker.granule();
  const stride = granule - 3n;
  const smallest = granule === 16n && f.VAX >= 1n ? 12n : 16n;
  const largest = f.STT && random.chance(20) ? (granule === 16n ? 47n : 48n) : 39n;
  const TSZ = smallest + BigInt(random.below(Number(largest - smallest + 1n)));
  const inputBits = 64n - TSZ;
  const startLevel = 4 - Number((inputBits - granule + stride - 1n) / stride);
  const root = structure(maker, second, 1n << granule);
  const offset = root.address - root.physical;
  const tables = new TableBuilder({
    memory,
    granule,
    inputBits,
    startLevel,
    root: root.address,
    bigEndian,
    newTable: () => structure(maker, second, 1n << granule).address,
    physical: (address) => address - offset,
    tableFlags: () => (random.chance(20) ? random.bits(4) << 59n : 0n) | random.flag(40, 10n),
  });
  const ones = upper ? ALL ^ ((1n << inputBits) - 1n) : 0n;
  for (let index = 0; index < 5; index++) {
    const page = random.pick([0n, 1n, 2n, random.bits(10), random.bits(48)]) << granule;
    const address = page & ((1n << inputBits) - 1n);
    addresses.push(address | ones);
    if (random.chance(8)) continue;
    const level = random.chance(80) ? 3 : 2 - random.below(2);
    const output = second !== null && random.chance(93) ? random.pick(second.addresses) : outputPage(maker, granule);
    const reach = (1n << tables.shift(level < startLevel ? startLevel : level)) - 1n;
    tables.map(address, level, output & ~reach & ~((1n << granule) - 1n), leafFlags1(maker));
  }
  noteDescriptors(maker, tables);
  return { TSZ, granule, TTB: root.address | (random.chance(20) ? random.bits(3) << 4n : 0n) };
}

/** Bits of descriptors that mean something in a leaf or a table of either stage. */
const DESCRIPTOR_BITS =
  0b11n | (0b11n << 6n) | AF | (1n << 33n) | (1n << 45n) | (1n << 51n) | (3n << 53n) | (15n << 59n);

function noteDescriptors(maker: Maker, { written, parts }: TableBuilder): void {
  for (const at of written) {
    const swapped = parts.bigEndian ? swap(DESCRIPTOR_BITS) : DESCRIPTOR_BITS;
    maker.spoilable.push({ at, mask: swapped });
    maker.fetched.push({ at, doublewords: 1 });
  }
}

function swap(value: bigint): bigint {
  let swapped = 0n;
  for (let byte = 0n; byte < 8n; byte++) swapped |= ((value >> (8n * byte)) & 0xffn) << (56n - 8n * byte);
  return swapped;
}

/** A context descriptor, eight doublewords. */
function makeContext(maker: Maker, second: Second | null, S1STALLD: boolean, addresses: bigint[]): bigint[] {
  const { random, f } = maker;
  const bigEndian = f.TTENDIAN === 3n || (f.TTENDIAN === 0n && random.chance(20));
  const one = makeBase(maker, second, false, bigEndian, addresses);
  const two = random.chance(50) ? makeBase(maker, second, true, bigEndian, addresses) : null;
  const HA = f.HTTU > 0n && random.chance(50);
  const HD = HA && f.HTTU >= 2n && random.chance(70);
  const stalls = f.STALL_MODEL === 2n || (f.STALL_MODEL === 0n && !S1STALLD && random.chance(25));
  const aborts = f.TERM_MODEL || random.chance(85);
  const size = random.chance(85) ? bitsOf(maker) : BigInt(random.below(maker.place.outputSizes));
  const dw0 =
    one.TSZ |
    (TG0[one.granule.toString()]! << 6n) |
    random.flag(4, 14n) |
    (bigEndian ? 1n << 15n : 0n) |
    (two === null ? random.bits(8) << 16n : (two.TSZ << 16n) | (TG1[two.granule.toString()]! << 22n)) |
    (two === null ? 1n << 30n : 0n) |
    (1n << 31n) |
    (size << 32n) |
    random.flag(25, 35n) |
    random.flag(20, 36n) |
    random.flag(30, 38n) |
    random.flag(30, 39n) |
    random.flag(25, 40n) |
    (1n << 41n) |
    (HD ? 1n << 42n : 0n) |
    (HA ? 1n << 43n : 0n) |
    (stalls ? 1n << 44n : 0n) |
    random.flag(80, 45n) |
    (aborts ? 1n << 46n : 0n) |
    (random.bits(f.ASID16 ? 16 : 8) << 48n);
  const extra = (f.HAD ? random.flag(20, 1n) : 0n) | (f.E0PD ? random.flag(12, 2n) : 0n);
  const dw1 = one.TTB | extra | (HA && f.HTTU === 3n ? random.flag(50, 3n) : 0n) | (f.EPAN ? random.flag(40, 59n) : 0n);
  const dw2 = two === null ? 0n : two.TTB | (f.HAD ? random.flag(20, 1n) : 0n) | (f.E0PD ? random.flag(12, 2n) : 0n);
  return [dw0, dw1, dw2, 0xf404ff44n, 0n, 0n, 0n, 0n];
}

const STE_MASKS = [
  0b1111n | (3n << 4n) | (31n << 59n) | (1n << 50n),
  3n | (1n << 27n) | (0xfn << 28n) | (0xfn << 48n),
  (0xffn << 8n) | (0xffn << 32n) | (0x3fffn << 46n),
  (1n << 33n) | (1n << 45n) | (1n << 51n),
];
const CD_MASKS = [
  0x3fn | (3n << 6n) | (3n << 14n) | (0x3fn << 16n) | (3n << 22n) | (3n << 30n) | (0x1f7ffn << 32n),
  (1n << 33n) | (1n << 45n) | 0xen,
  (1n << 33n) | (1n << 45n) | 0x6n,
];

function note(maker: Maker, at: bigint, masks: readonly bigint[], doublewords: number): void {
  masks.forEach((mask, index) => {
    // Several times, so that the few structures are spoiled as often as the many descriptors.
    for (let times = 0; times < 4; times++) maker.spoilable.push({ at: at + BigInt(index) * 8n, mask });
  });
  maker.fetched.push({ at, doublewords });
}

function makeStream(maker: Maker, sid: bigint, entryAt: bigint): void {
  const { random, f } = maker;
  const stream: Stream = { sid, spaces: [] };
  maker.streams.push(stream);
  const configs = [0n, 4n];
  if (f.S1P) configs.push(5n, 5n, 5n, 5n, 5n, 5n);
  if (f.S2P) configs.push(6n, 6n, 6n);
  if (f.S1P && f.S2P) configs.push(7n, 7n, 7n, 7n, 7n, 7n, 7n, 7n);
  const config = random.pick(configs);
  const translatesStage1 = config === 5n || config === 7n;
  const second = config >= 6n ? makeStage2(maker) : null;
  if (second !== null && (config === 6n || random.chance(25)))
    stream.spaces.push({ ssid: null, addresses: [...second.addresses] });
  const S1STALLD = translatesStage1 && f.STALL_MODEL === 0n && random.chance(20);
  let dw0 = 1n | (config << 1n);
  let dw1 = (S1STALLD ? 1n << 27n : 0n) | (random.bits(2) & 3n);
  if (translatesStage1) dw0 |= makeContexts(maker, stream, second, S1STALLD);
  if (f.ATS && (config & 3n) !== 0n && random.chance(70)) {
    const stalls = second !== null && ((second.dw2 >> 57n) & 1n) === 1n;
    if (config === 7n && !f.NS1ATS && !stalls && random.chance(40)) dw1 |= 2n << 28n;
    else if (!stalls) dw1 |= 1n << 28n;
  }
  if (config === 5n && f.Hyp && random.chance(30)) dw1 |= 2n << 30n;
  if ((f.FWB && second !== null && random.chance(50)) || random.chance(5)) dw1 |= 1n << 25n;
  if (random.chance(30)) dw1 |= random.bits(4) << 48n;
  const dw2 = second?.dw2 ?? random.bits(f.VMID16 ? 16 : 8);
  maker.put(entryAt, dw0, dw1, dw2, second?.dw3 ?? 0n);
  note(maker, entryAt, STE_MASKS, 8);
  if (second !== null) noteDescriptors(maker, second.tables);
}

/** The bits of doubleword 0 of the stream table entry that lead to contexts. */
function makeContexts(maker: Maker, stream: Stream, second: Second | null, S1STALLD: boolean): bigint {
  const { random, f } = maker;
  const substreams = f.SSIDSIZE > 0n && random.chance(75);
  const put = (at: bigint, ssid: bigint | null) => {
    const addresses: bigint[] = [];
    maker.put(at, ...makeContext(maker, second, S1STALLD, addresses));
    stream.spaces.push({ ssid, addresses });
    note(maker, at, CD_MASKS, 8);
  };
  if (!substreams) {
    const table = structure(maker, second, 64n);
    put(table.physical, null);
    return table.address;
  }
  const most = f.SSIDSIZE < 12n ? Number(f.SSIDSIZE) : 12;
  const S1CDMax = BigInt(1 + random.below(most));
  const format = f.CD2L ? random.pick([0n, 1n, 2n]) : random.pick([0n, 3n]);
  const ssids = new Set([0n, random.bits(S1CDMax)]);
  const linear = format === 0n || format === 3n;
  const leafBits = format === 1n ? 6n : 10n;
  const top = linear ? S1CDMax : S1CDMax > leafBits ? S1CDMax - leafBits : 0n;
  const table = structure(maker, second, linear ? 64n << top : 8n << top < 64n ? 64n : 8n << top);
  for (const ssid of ssids) {
    if (linear) {
      put(table.physical + ssid * 64n, ssid);
      continue;
    }
    const at = table.physical + (ssid >> leafBits) * 8n;
    let leafTable = maker.memory.words.get(at) ?? 0n;
    if (leafTable === 0n) {
      leafTable = structure(maker, second, 64n << leafBits).address | 1n;
      maker.put(at, leafTable);
      note(maker, at, [1n | (1n << 50n)], 1);
    }
    const offset = second === null ? 0n : maker.ipaOffset;
    put((leafTable & ~1n) - offset + (ssid & ((1n << leafBits) - 1n)) * 64n, ssid);
  }
  return table.address | (format << 4n) | (S1CDMax << 59n);
}

/** Stream table, and where the entry of each StreamID lies. */
function makeStreamTable(maker: Maker): Pick<Programming, "STRTAB_BASE" | "STRTAB_BASE_CFG"> {
  const { random, f } = maker;
  const twoLevels = f.twoLevelStreamTable && random.chance(60);
  const written = BigInt(random.chance(90) ? Number(f.SIDSIZE) : random.below(12));
  const log2Size = twoLevels ? written : written < 7n ? written : 7n;
  const size = log2Size < f.SIDSIZE ? log2Size : f.SIDSIZE;
  const split = random.pick([6n, 8n, 10n]);
  const bytes = twoLevels ? (log2Size > split ? 8n << (log2Size - split) : 64n) : 64n << log2Size;
  const base = maker.allocate(bytes < 64n ? 64n : bytes);
  const sids = new Set<bigint>();
  for (let index = 0; index < 4; index++) sids.add(maker.place.streamId(random, size < 16n ? size : 16n));
  for (const sid of sids) {
    if (!twoLevels) {
      makeStream(maker, sid, base + sid * 64n);
      continue;
    }
    const at = base + (sid >> split) * 8n;
    let descriptor = maker.memory.words.get(at) ?? 0n;
    if (descriptor === 0n) {
      const span = random.chance(85) ? split + 1n : BigInt(1 + random.below(Number(split)));
      descriptor = maker.allocate(64n << (span - 1n)) | span;
      maker.put(at, descriptor);
      note(maker, at, [0x1fn], 1);
    }
    const index = sid & ((1n << split) - 1n);
    const span = descriptor & 0x1fn;
    if (index >> (span - 1n) === 0n) makeStream(maker, sid, (descriptor & ~0x3fn) + index * 64n);
    else maker.streams.push({ sid, spaces: [] });
  }
  const format = twoLevels ? 1n : f.twoLevelStreamTable ? random.pick([0n, 2n]) : random.pick([0n, 1n]);
  return { STRTAB_BASE: base, STRTAB_BASE_CFG: log2Size | (split << 6n) | (format << 16n) };
}

function makeRequest(maker: Maker): Request {
  const { random, f } = maker;
  const stream = random.pick(maker.streams);
  const kind = !f.ATS || random.chance(65) ? "untranslated" : random.chance(70) ? "ats" : "translated";
  const space = stream.spaces.length === 0 ? { ssid: null, addresses: [] } : random.pick(stream.spaces);
  const otherwise = random.chance(60) ? null : random.bits(random.below(8));
  const ssid = random.chance(94) ? space.ssid : otherwise;
  let iova = random.chance(6) || space.addresses.length === 0 ? random.bits(40) : random.pick(space.addresses);
  if (random.chance(10)) iova ^= 1n << BigInt(12 + random.below(52));
  if (random.chance(6)) iova ^= random.bits(8) << 56n;
  iova ^= random.bits(12);
  return {
    kind,
    sid: random.chance(4) ? random.bits(18) : stream.sid,
    ssid,
    privileged: random.chance(40),
    instruction: random.chance(50),
    write: random.chance(45),
    iova,
  };
}

/** `identify` chooses the SMMU; by default any that the specification allows. `place`: see there; by default no limits. */
export function randomWorld(
  seed: number,
  count: number,
  identify: (random: Random) => Identification = randomIdentification,
  place: Place = ANYWHERE,
): World {
  const random = new Random(seed);
  const maker = new Maker(random, identify, place);
  const streamTable = makeStreamTable(maker);
  const { memory, spoilable, fetched } = maker;
  for (let times = random.pick([0, 1, 2, 4]); times > 0 && spoilable.length > 0; times--) {
    const { at, mask } = random.pick(spoilable);
    const bits = [...Array(64).keys()].filter((index) => (mask >> BigInt(index)) & 1n);
    const value = memory.words.get(at) ?? 0n;
    memory.words.set(at, value ^ (1n << BigInt(random.pick(bits))));
  }
  if (random.chance(20) && fetched.length > 0) {
    const { at, doublewords } = random.pick(fetched);
    for (let index = 0n; index < BigInt(doublewords); index++) memory.injected.set(at + index * 8n, "access");
  }
  const programming: Programming = {
    ...streamTable,
    CR0: (random.chance(96) ? 1n : 0n) | (maker.f.ATS ? random.flag(75, 4n) : 0n),
    CR2: (maker.f.Hyp ? random.flag(40, 0n) : 0n) | random.flag(75, 1n) | random.flag(50, 3n),
    GBPA: random.flag(30, 20n),
  };
  const requests: Request[] = [];
  for (let index = 0; index < count; index++) requests.push(makeRequest(maker));
  return { identification: maker.identification, programming, memory, requests };
}

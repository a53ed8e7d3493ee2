/**
 * Random configurations for comparing an implementation with the oracle: an implementation, a device directory, process directories, page
 * tables of both stages, MSI page tables; valid for the most part, then damaged in a few places. Addresses come from small pools, so that
 * structures and mappings meet.
 */

import { emptyMemory, type Injected, type Memory, store, word } from "../../memory.ts";
import { Random } from "../../random.ts";
import { deviceIndexes, type TableMode } from "../device-context.ts";
import { CAPABILITY, type Capability, has, type Implementation, swapBytes } from "../implementation.ts";
import type { DirectoryPointer, Request } from "../outcome.ts";
import type { PageRequest } from "../page-request.ts";
import { leafBytes, SHAPES } from "../page-table-entry.ts";
import { TableBuilder } from "./table-builder.ts";

export interface Configuration {
  readonly implementation: Implementation;
  readonly ddtp: DirectoryPointer;
  readonly memory: Memory;
  readonly requests: readonly Request[];
  readonly pageRequests: readonly PageRequest[];
}

type Translating = Exclude<TableMode, "bare">;

/** Physical pages that structures are put in; the first ones are left for queues. */
const FIRST_PAGE = 0x100n;

/** What the generator remembers of a context, for asking interesting questions. */
interface Asked {
  readonly deviceId: bigint;
  /** The addresses mapped for each process_id. */
  readonly spaces: { readonly pid: bigint | null; readonly iovas: bigint[] }[];
  /** GPAs for translated requests under T2GPA. */
  readonly guest: bigint[];
  readonly enAts: boolean;
}

class Builder {
  readonly random: Random;
  readonly memory: Memory = emptyMemory();
  readonly implementation: Implementation;
  readonly asked: Asked[] = [];
  /** Addresses of words worth damaging. */
  readonly structures: bigint[] = [];
  #nextPage = FIRST_PAGE;

  constructor(random: Random) {
    this.random = random;
    this.implementation = randomImplementation(random);
  }

  /** A fresh physical page; seldom one that is in use. */
  newPage(count = 1n, alignment = 1n): bigint {
    if (this.random.chance(1) && count === 1n && this.#nextPage > FIRST_PAGE) {
      return FIRST_PAGE + BigInt(this.random.below(Number(this.#nextPage - FIRST_PAGE)));
    }
    this.#nextPage += this.random.chance(20) ? 1n : 0n;
    this.#nextPage = ((this.#nextPage + alignment - 1n) / alignment) * alignment;
    const page = this.#nextPage;
    this.#nextPage += count;
    for (let index = 0n; index < count; index++) this.memory.pages.add(page + index);
    return page;
  }

  put(address: bigint, value: bigint, big: boolean): void {
    store(this.memory, address, 8, big ? swapBytes(value, 8) : value);
    this.structures.push(address);
  }

  get(address: bigint, big: boolean): bigint {
    const raw = word(this.memory, address);
    return big ? swapBytes(raw, 8) : raw;
  }
}

/** Capabilities: mostly everything, some missing at random. */
function randomImplementation(random: Random): Implementation {
  const narrow = random.chance(12); // Sv32 machinery in use
  let capabilities = 0x10n | (BigInt(random.pick([34, 40, 44, 46, 50, 52, 56, 56])) << 32n);
  const offer = (capability: Capability, percent: number) => {
    if (random.chance(percent)) capabilities |= 1n << CAPABILITY[capability];
  };
  // Sv48 needs Sv39, Sv57 needs Sv48 (§6.3).
  const widest = random.pick([3, 3, 3, 3, 2, 1]);
  const widestX4 = random.pick([3, 3, 3, 3, 2, 1, 0]);
  const wide = (names: readonly Capability[], count: number) => {
    for (const name of names.slice(0, count)) capabilities |= 1n << CAPABILITY[name];
  };
  wide(["Sv39", "Sv48", "Sv57"], widest);
  wide(["Sv39x4", "Sv48x4", "Sv57x4"], widestX4);
  offer("Sv32", narrow ? 95 : 20);
  offer("Sv32x4", narrow ? 95 : 20);
  offer("Svrsw60t59b", 50);
  offer("Svpbmt", 70);
  offer("MSI_FLAT", 60);
  if ((capabilities >> CAPABILITY.MSI_FLAT) & 1n) offer("MSI_MRIF", 70);
  if ((capabilities >> CAPABILITY.MSI_MRIF) & 1n) offer("AMO_MRIF", 70);
  offer("AMO_HWAD", 80);
  offer("ATS", 80);
  if ((capabilities >> CAPABILITY.ATS) & 1n) offer("T2GPA", 70);
  offer("END", 40);
  offer("DBG", 100);
  offer("PD8", 90);
  offer("PD17", 90);
  offer("PD20", 90);
  offer("QOSID", 20);
  offer("NL", 50);
  offer("S", 50);
  const end = ((capabilities >> CAPABILITY.END) & 1n) === 1n;
  const both = ((capabilities >> CAPABILITY.Sv32x4) & 1n) === 1n;
  const gxlWritable = both && widestX4 > 0;
  return {
    capabilities,
    be: end && random.chance(40),
    gxl: gxlWritable ? narrow : both && narrow && random.chance(80),
    beWritable: end && random.chance(80),
    gxlWritable,
    rcidWidth: 6,
    mcidWidth: 8,
  };
}

/** A mode that the implementation has; seldom one that it may lack. */
function pickMode(builder: Builder, second: boolean, narrow: boolean): TableMode {
  const { random, implementation } = builder;
  if (random.chance(15)) return "bare";
  const suffix = second ? "x4" : "";
  if (narrow) return has(implementation, `Sv32${suffix}` as Capability) || random.chance(5) ? "sv32" : "bare";
  const offered = (["sv39", "sv48", "sv57"] as const).filter((mode) =>
    has(implementation, `S${mode.slice(1)}${suffix}` as Capability),
  );
  if (random.chance(2)) return random.pick(["sv39", "sv48", "sv57"]);
  return offered.length === 0 ? "bare" : random.pick(offered);
}

const MODE_ENCODING: Readonly<Record<TableMode, bigint>> = { bare: 0n, sv32: 8n, sv39: 8n, sv48: 9n, sv57: 10n };

/** The guest-physical space of one device: a second stage, or none. */
interface GuestSpace {
  readonly mode: TableMode;
  readonly root: bigint;
  readonly gscid: bigint;
  readonly tables: TableBuilder | null;
  /** The SPA page of a GPA page, mapped on demand; null if it cannot be. */
  readonly resolve: (gpaPage: bigint) => bigint | null;
  /** A fresh GPA page for a structure. */
  readonly newPage: () => bigint;
  readonly dataPage: () => bigint;
}

/** Bits of a leaf besides its PPN. */
function leafFlags(builder: Builder, level: number, second: boolean, updating: boolean, forTables: boolean): bigint {
  const { random, implementation } = builder;
  const full = random.chance(forTables ? 98 : second ? 85 : 60);
  const rights = full ? 0b111n : random.pick([0b011n, 0b011n, 0b001n, 0b101n, 0b100n, 0b000n]);
  const careful = forTables ? 99 : 95;
  let flags = 1n | (rights << 1n);
  flags |= random.flag(second ? (forTables ? 99 : 97) : 82, 4n); // U
  flags |= random.flag(20, 5n); // G
  flags |= random.flag(updating ? 50 : careful, 6n); // A
  flags |= random.flag(updating ? 50 : careful, 7n); // D
  flags |= random.bits(2) << 8n; // RSW
  if (has(implementation, "Svrsw60t59b")) flags |= random.bits(2) << 59n;
  if (has(implementation, "Svpbmt") && random.chance(30)) flags |= BigInt(1 + random.below(2)) << 61n;
  if (level === 0 && random.chance(10)) flags |= 1n << 63n; // N; the caller gives the PPN its 1000
  return flags;
}

function narrowed(flags: bigint, shape: { readonly entryBytes: number }): bigint {
  return shape.entryBytes === 4 ? flags & 0xffff_ffffn : flags;
}

/** A leaf level that a mode has: mostly the lowest. */
function leafLevel(random: Random, mode: Translating): number {
  return random.chance(70) ? 0 : random.below(SHAPES[mode].levels);
}

function guestSpace(builder: Builder, gade: boolean): GuestSpace {
  const { random, memory, implementation } = builder;
  const mode = pickMode(builder, true, implementation.gxl);
  const gscid = BigInt(random.below(3));
  if (mode === "bare") {
    const newPage = () => builder.newPage();
    return { mode, root: random.bits(10), gscid, tables: null, resolve: (page) => page, newPage, dataPage: newPage };
  }
  const shape = SHAPES[mode];
  const root = builder.newPage(4n, 4n);
  const tables = new TableBuilder({
    memory,
    shape,
    root,
    wideRoot: true,
    bigEndian: implementation.be,
    newTable: () => builder.newPage(),
    physical: (page) => page,
    pointerFlags: () => random.flag(10, 5n),
  });
  const widthPages = 1n << (shape.addressBits + 2n - 12n);
  const pages = (implementation.capabilities >> 32n) & 0x3fn;
  const physicalPages = 1n << (pages - 12n);
  const map = (gpaPage: bigint, forTables: boolean): bigint | null => {
    const found = tables.lookup(gpaPage << 12n);
    if (found !== null) return found;
    const level = leafLevel(random, mode);
    const span = leafBytes(shape, level) >> 12n;
    let flags = leafFlags(builder, level, true, gade, forTables);
    let ppn: bigint;
    if (level === 0) {
      ppn = builder.newPage();
      if (flags >> 63n === 1n) {
        if (shape.entryBytes === 4) flags &= ~(1n << 63n);
        else ppn = (ppn & ~0xfn) | 8n;
      }
    } else {
      // A superpage: over the pool (base 0), or somewhere of its own.
      ppn = (random.chance(50) ? 0n : span * BigInt(1 + random.below(3))) % physicalPages;
    }
    tables.map(gpaPage << 12n, level, ppn, narrowed(flags, shape));
    return tables.lookup(gpaPage << 12n);
  };
  const near = () => {
    const base = random.pick([0n, 0n, 0x80000n, widthPages / 2n, widthPages - 64n]);
    return (base + BigInt(random.below(48))) % widthPages;
  };
  const resolve = (gpaPage: bigint) => {
    const page = map(gpaPage, true);
    if (page !== null && page < physicalPages) memory.pages.add(page);
    return page;
  };
  const dataPage = () => {
    const page = near();
    if (random.chance(93)) map(page, false);
    return page;
  };
  return { mode, root, gscid, tables, resolve, newPage: near, dataPage };
}

/** A first stage with some mappings; its IOVAs are added to `iovas`. */
function firstStageRoot(
  builder: Builder,
  space: GuestSpace,
  mode: TableMode,
  sbe: boolean,
  sade: boolean,
  iovas: bigint[],
  interruptPage: (() => bigint) | null,
): bigint {
  const { random, memory } = builder;
  const target = () => (interruptPage !== null && random.chance(35) ? interruptPage() : space.dataPage());
  if (mode === "bare") {
    for (let count = 0; count < 4; count++) iovas.push(target() << 12n);
    return random.bits(8);
  }
  const shape = SHAPES[mode];
  const root = space.newPage();
  const tables = new TableBuilder({
    memory,
    shape,
    root,
    wideRoot: false,
    bigEndian: sbe,
    // Pointers of Sv32 hold 22 bits.
    newTable: () => (shape.entryBytes === 4 ? space.newPage() % (1n << 22n) : space.newPage()),
    physical: space.resolve,
    pointerFlags: () => random.flag(8, 5n),
  });
  const indexes = [0n, 0n, 1n, (1n << shape.indexBits) - 1n, random.bits(shape.indexBits)];
  for (let count = 3 + random.below(6); count > 0; count--) {
    let page = 0n;
    for (let level = 0; level < shape.levels; level++) page = (page << shape.indexBits) | random.pick(indexes);
    let iova = page << 12n;
    if (shape.entryBytes === 8 && iova >> (shape.addressBits - 1n) === 1n) {
      iova |= ((1n << 64n) - 1n) ^ ((1n << shape.addressBits) - 1n);
    }
    const level = leafLevel(random, mode);
    const span = leafBytes(shape, level) >> 12n;
    let flags = leafFlags(builder, level, false, sade, false);
    let gpaPage = target();
    if (shape.entryBytes === 4) flags &= 0xffff_ffffn;
    // The page that the superpage really gives for this IOVA should be mapped too.
    if (level > 0) {
      gpaPage -= gpaPage % span;
      if (random.chance(80)) space.resolve(gpaPage + (page % span));
    } else if (flags >> 63n === 1n) {
      gpaPage = (gpaPage & ~0xfn) | 8n;
      if (random.chance(80)) space.resolve((gpaPage & ~0xfn) | (page & 0xfn));
    }
    // A page that the first stage hardly opens, over a second stage that breaks below it: who stops where?
    if (space.tables !== null && random.chance(8)) {
      flags = (flags & ~0b1110n) | 0b1_0000n | (random.pick([0b000n, 0b001n, 0b100n, 0b100n]) << 1n);
      const below = space.tables.entryAddress(gpaPage << 12n, 0);
      if (below !== null) memory.injected.set(below & ~7n, random.pick<Injected>(["access", "access", "corrupt"]));
    }
    const ppnBits = shape.entryBytes === 4 ? 22n : 44n;
    tables.map(iova & ((1n << 57n) - 1n), level, gpaPage & ((1n << ppnBits) - 1n), flags);
    iovas.push(iova | random.bits(12));
  }
  builder.structures.push(...[...tables.entries].map((address) => address & ~7n));
  return root;
}

interface MsiTable {
  readonly ppn: bigint;
  readonly mask: bigint;
  readonly pattern: bigint;
  readonly page: () => bigint;
}

function msiTable(builder: Builder, space: GuestSpace): MsiTable {
  const { random, implementation } = builder;
  let mask = 0n;
  for (let count = random.below(5); count > 0; count--) mask |= 1n << BigInt(random.below(random.chance(80) ? 8 : 20));
  const pattern = space.newPage();
  const ppn = builder.newPage();
  const files = 1 << [...mask.toString(2)].filter((digit) => digit === "1").length;
  for (let file = 0; file < Math.min(files, 256); file++) {
    const at = (ppn << 12n) + BigInt(file) * 16n;
    if (random.chance(60)) {
      builder.put(at, (builder.newPage() << 10n) | 0b111n, implementation.be);
    } else if (random.chance(75)) {
      builder.put(at, ((builder.newPage() << 3n) << 7n) | 0b011n | (random.bits(3) << 7n), implementation.be);
      const notice = (builder.newPage() << 10n) | random.bits(10) | random.flag(30, 60n);
      builder.put(at + 8n, notice, implementation.be);
    } else {
      builder.put(at, random.pick([0n, 0b001n, 0b101n, 0b110n]), implementation.be);
    }
  }
  const page = () => {
    let result = pattern & ~mask;
    for (let at = 0n; at < 20n; at++) if (((mask >> at) & 1n) === 1n) result |= random.flag(50, at);
    return result;
  };
  return { ppn, mask, pattern, page };
}

/** One device: its context, and under it whatever that needs. Returns the context's doublewords. */
function device(builder: Builder, deviceId: bigint): bigint[] {
  const { random, implementation } = builder;
  const flag = (percent: number) => random.chance(percent);
  const ats = has(implementation, "ATS");
  const enAts = ats && flag(75);
  const enPri = enAts && flag(50);
  const prpr = enPri && flag(50);
  const updating = has(implementation, "AMO_HWAD");
  const gade = updating && flag(50);
  const sade = updating && flag(50);
  const sbe = implementation.beWritable && has(implementation, "END") ? flag(40) : implementation.be;
  const sxl = implementation.gxl || (implementation.gxlWritable && flag(15));
  const space = guestSpace(builder, gade);
  const t2gpa = enAts && has(implementation, "T2GPA") && space.mode !== "bare" && flag(40);
  const extended = has(implementation, "MSI_FLAT");
  const msi = extended && space.mode !== "bare" && flag(70) ? msiTable(builder, space) : null;
  const pdModes = ([1n, 2n, 3n] as const).filter((mode) =>
    has(implementation, (["PD8", "PD17", "PD20"] as const)[Number(mode) - 1]!),
  );
  const pdtv = pdModes.length > 0 && flag(60);
  const dpe = pdtv && flag(40);
  const spaces: Asked["spaces"] = [];
  const untagged: bigint[] = [];
  let fsc: bigint;
  const interruptPage = msi === null ? null : msi.page;
  if (pdtv) {
    const mode = flag(6) ? 0n : random.pick(pdModes);
    const root = space.newPage();
    fsc = (mode << 60n) | root;
    const width = mode === 1n ? 8 : mode === 2n ? 17 : 20;
    const wanted = [dpe ? 0n : random.bits(width), random.bits(width), BigInt(random.below(4))];
    for (const pid of wanted.slice(0, 1 + random.below(3))) {
      const iovas: bigint[] = [];
      spaces.push({ pid, iovas });
      if (pid === 0n && dpe) spaces.push({ pid: null, iovas });
      if (mode !== 0n)
        processContext(builder, space, Number(mode), root, pid, sbe, () => {
          const first = pickMode(builder, false, sxl);
          const table = firstStageRoot(builder, space, first, sbe, sade, iovas, interruptPage);
          return (MODE_ENCODING[first] << 60n) | (table & ((1n << 44n) - 1n));
        });
    }
    if (!dpe || mode === 0n) {
      spaces.push({ pid: null, iovas: untagged });
      for (let count = 0; count < 3; count++) untagged.push((interruptPage ?? space.dataPage)() << 12n);
    }
  } else {
    const mode = pickMode(builder, false, sxl);
    fsc = (MODE_ENCODING[mode] << 60n) | firstStageRoot(builder, space, mode, sbe, sade, untagged, interruptPage);
    spaces.push({ pid: null, iovas: untagged });
  }
  const guest: bigint[] = [];
  if (t2gpa)
    for (let count = 0; count < 3; count++)
      guest.push((flag(30) && interruptPage ? interruptPage() : space.dataPage()) << 12n);
  if (space.tables !== null) builder.structures.push(...[...space.tables.entries].map((address) => address & ~7n));
  const bitAt = (on: boolean, at: bigint) => (on ? 1n << at : 0n);
  const tc =
    1n |
    bitAt(enAts, 1n) |
    bitAt(enPri, 2n) |
    bitAt(t2gpa, 3n) |
    random.flag(15, 4n) |
    bitAt(pdtv, 5n) |
    bitAt(prpr, 6n) |
    bitAt(gade, 7n) |
    bitAt(sade, 8n) |
    bitAt(dpe, 9n) |
    bitAt(sbe, 10n) |
    bitAt(sxl, 11n);
  const iohgatp = (MODE_ENCODING[space.mode] << 60n) | (space.gscid << 44n) | space.root;
  let ta = BigInt(random.below(4)) << 12n;
  if (has(implementation, "QOSID"))
    ta |= (random.bits(implementation.rcidWidth) << 40n) | (random.bits(implementation.mcidWidth) << 52n);
  builder.asked.push({ deviceId, spaces, guest, enAts });
  const words = [tc, iohgatp, ta, fsc];
  if (extended) words.push(msi === null ? 0n : (1n << 60n) | msi.ppn, msi?.mask ?? 0n, msi?.pattern ?? 0n, 0n);
  return words;
}

function processContext(
  builder: Builder,
  space: GuestSpace,
  levels: number,
  root: bigint,
  pid: bigint,
  sbe: boolean,
  fsc: () => bigint,
): void {
  const { random } = builder;
  const pdi = [pid & 0xffn, (pid >> 8n) & 0x1ffn, pid >> 17n];
  let table = root;
  for (let level = levels - 1; level > 0; level--) {
    const page = space.resolve(table);
    if (page === null) return;
    const at = (page << 12n) + pdi[level]! * 8n;
    let entry = builder.get(at, sbe);
    if ((entry & 1n) === 0n) {
      entry = (space.newPage() << 10n) | 1n;
      builder.put(at, entry, sbe);
    }
    table = (entry >> 10n) & ((1n << 44n) - 1n);
  }
  const page = space.resolve(table);
  if (page === null) return;
  const at = (page << 12n) + pdi[0]! * 16n;
  builder.put(at, 1n | random.flag(70, 1n) | random.flag(50, 2n) | (BigInt(random.below(4)) << 12n), sbe);
  builder.put(at + 8n, fsc(), sbe);
}

function directory(builder: Builder): DirectoryPointer {
  const { random, implementation } = builder;
  const extended = has(implementation, "MSI_FLAT");
  const mode = random.chance(2)
    ? random.pick(["off", "bare"] as const)
    : random.pick(["1lvl", "2lvl", "3lvl"] as const);
  const levels = mode === "3lvl" ? 3 : mode === "2lvl" ? 2 : 1;
  const widths = extended ? [6, 15, 24] : [7, 16, 24];
  const root = builder.newPage();
  for (let count = 1 + random.below(2); count > 0; count--) {
    const deviceId = random.chance(30) ? BigInt(random.below(4)) : random.bits(widths[levels - 1]!);
    const words = device(builder, deviceId);
    const ddi = deviceIndexes(extended, deviceId);
    let table = root;
    for (let level = levels - 1; level > 0; level--) {
      const at = (table << 12n) + ddi[level]! * 8n;
      let entry = builder.get(at, implementation.be);
      if ((entry & 1n) === 0n) {
        entry = (builder.newPage() << 10n) | 1n;
        builder.put(at, entry, implementation.be);
      }
      table = (entry >> 10n) & ((1n << 44n) - 1n);
    }
    words.forEach((value, index) => {
      builder.put((table << 12n) + ddi[0]! * (extended ? 64n : 32n) + BigInt(index) * 8n, value, implementation.be);
    });
  }
  return { mode, ppn: root };
}

/** Damage: single bits turned over, words replaced, faults injected. Most configurations get a little, some none. */
function damage(builder: Builder): void {
  const { random, memory, structures } = builder;
  if (structures.length === 0 || random.chance(35)) return;
  for (let count = 1 + random.below(4); count > 0; count--) {
    const at = random.pick(structures);
    const before = word(memory, at);
    const kind = random.below(100);
    if (kind < 55) memory.words.set(at, before ^ (1n << BigInt(random.below(64))));
    else if (kind < 65) memory.words.set(at, before ^ (1n << BigInt(random.below(12))));
    else if (kind < 70) memory.words.set(at, random.pick([0n, (1n << 64n) - 1n, random.bits(64)]));
    else if (kind < 75) memory.words.set(at, word(memory, random.pick(structures)));
    else if (kind < 80) memory.pages.delete(at >> 12n);
    else memory.injected.set(at, random.pick<Injected>(["access", "corrupt", "read-only"]));
  }
}

function request(builder: Builder): Request {
  const { random, asked } = builder;
  const about = random.pick(asked);
  let deviceId = about.deviceId;
  if (random.chance(3)) deviceId ^= 1n << BigInt(random.below(24));
  const translatedOrAts = random.chance(about.enAts ? 45 : 4);
  const type = !translatedOrAts ? "untranslated" : random.chance(60) ? "ats" : "translated";
  const space = random.pick(about.spaces);
  let processId = space.pid;
  if (random.chance(6)) processId = random.chance(50) ? random.pick(about.spaces).pid : random.bits(20);
  const iovas = type === "translated" && about.guest.length > 0 ? about.guest : space.iovas;
  let iova = iovas.length === 0 ? random.bits(30) : random.pick(iovas);
  if (random.chance(25)) iova = (iova & ~0xfffn) | random.bits(12);
  if (random.chance(6)) iova ^= 1n << BigInt(12 + random.below(20));
  if (random.chance(4)) iova ^= 1n << BigInt(random.below(64));
  if (random.chance(2)) iova = random.bits(64);
  const ats = type === "ats";
  return {
    deviceId,
    processId,
    privileged: processId !== null && random.chance(40),
    type,
    access: ats ? "read" : random.pick(["read", "read", "write", "write", "execute"] as const),
    noWrite: ats && random.chance(40),
    executeRequested: ats && processId !== null && random.chance(40),
    iova,
  };
}

/** A Page Request, or a Stop Marker: those have a PASID, L=1, R=W=0 and nothing else (§3.7). */
function pageRequest(builder: Builder): PageRequest {
  const { random, asked } = builder;
  const about = random.pick(asked);
  const deviceId = random.chance(90) ? about.deviceId : about.deviceId ^ (1n << BigInt(random.below(24)));
  const processId = random.chance(60) ? random.bits(20) : null;
  const marker = processId !== null && random.chance(10);
  const [read, write] = random.pick([
    [true, false],
    [false, true],
    [true, true],
  ] as const);
  return {
    deviceId,
    processId,
    privileged: !marker && processId !== null && random.chance(30),
    execute: !marker && processId !== null && random.chance(30),
    read: !marker && read,
    write: !marker && write,
    last: marker || random.chance(60),
    group: marker ? 0n : random.bits(9),
    address: marker ? 0n : random.bits(52) << 12n,
  };
}

/** The configuration of a seed, with `count` requests that follow one another. */
export function randomConfiguration(seed: number, count: number): Configuration {
  const builder = new Builder(new Random(seed));
  const ddtp = directory(builder);
  damage(builder);
  const requests: Request[] = [];
  for (let index = 0; index < count; index++) requests.push(request(builder));
  const pageRequests: PageRequest[] = [];
  if (has(builder.implementation, "ATS"))
    for (let index = 0; index < 3; index++) pageRequests.push(pageRequest(builder));
  return { implementation: builder.implementation, ddtp, memory: builder.memory, requests, pageRequests };
}

/**
 * Random sequences for testing caches: a valid machine, then software that changes directories, process contexts, page tables of either stage
 * and MSI tables, sends the invalidations that the change needs, or too few, or others, and translates in between.
 *
 * The machine keeps to what §3.8 asks of software, as `cached-tables.ts` supposes: every PSCID (in its GSCID) has one first stage and every GSCID one
 * second stage for the whole sequence; global pages appear only where a GSCID has one first stage; the guest pages of process directories stay
 * where they are; all sixteen entries of a NAPOT page are written together, with A and D set.
 */
import { CAPABILITY, type Capability, type Implementation } from "../implementation.ts";
import type { Command } from "../invalidation.ts";
import { copyMemory, type Memory, store, word } from "../memory.ts";
import type { DirectoryPointer, Request } from "../outcome.ts";
import { leafBytes, SHAPES } from "../page-table-entry.ts";
import { iodirInvalDdt, iodirInvalPdt, iotinvalGvma, iotinvalVma } from "./commands.ts";
import { Random } from "./random.ts";
import { TableBuilder } from "./table-builder.ts";

export type Step =
  | { readonly kind: "change"; readonly words: readonly (readonly [bigint, bigint])[] }
  | { readonly kind: "invalidate"; readonly command: Command }
  | { readonly kind: "request"; readonly request: Request };

export interface Sequence {
  readonly implementation: Implementation;
  readonly ddtp: DirectoryPointer;
  /** Memory at the start. */
  readonly memory: Memory;
  readonly steps: readonly Step[];
}

/** Remembers the words stored since it was last asked. */
class RecordingMap extends Map<bigint, bigint> {
  changed = new Set<bigint>();
  override set(address: bigint, value: bigint): this {
    this.changed?.add(address); // the Map constructor may call set before the field is there
    return super.set(address, value);
  }
}

interface SecondStage {
  readonly gscid: bigint;
  readonly tables: TableBuilder;
  readonly root: bigint;
  readonly mode: "sv39" | "sv48" | "sv57";
  /** Guest pages that hold first-stage tables: they may be moved. */
  readonly tablePages: bigint[];
}

interface FirstStage {
  readonly gscid: bigint | null;
  readonly pscid: bigint;
  readonly tables: TableBuilder;
  readonly root: bigint;
  readonly mode: "sv39" | "sv48" | "sv57";
  readonly mayBeGlobal: boolean;
  readonly iovas: readonly bigint[];
  readonly device: Device;
  readonly processId: bigint | null;
}

interface Device {
  readonly deviceId: bigint;
  readonly second: SecondStage | null;
  readonly contextAt: bigint;
  readonly updating: boolean;
  readonly processContexts: { readonly processId: bigint; readonly at: bigint }[];
  readonly interruptPages: { readonly gpa: bigint; readonly at: bigint }[];
}

const MODE = { sv39: 8n, sv48: 9n, sv57: 10n } as const;
const ENTRY = { V: 1n, RWX: 0b1110n, U: 0x10n, G: 0x20n, AD: 0xc0n, N: 1n << 63n };
/** Guest pages: process directories, first-stage tables, data, interrupt files. */
const GUEST = { directories: 0x40n, tables: 0x1000n, data: 0x8000n, files: 0xa000n } as const;
const CAPABILITIES: readonly Capability[] = [
  "Sv39",
  "Sv48",
  "Sv57",
  "Svpbmt",
  "Sv39x4",
  "Sv48x4",
  "Sv57x4",
  "AMO_HWAD",
  "ATS",
  "T2GPA",
  "DBG",
  "PD8",
  "PD17",
  "PD20",
];

class World {
  readonly random: Random;
  readonly memory: Memory = { pages: new Set(), words: new RecordingMap(), injected: new Map() };
  readonly implementation: Implementation;
  readonly extended: boolean;
  readonly ddtp: DirectoryPointer;
  readonly devices: Device[] = [];
  readonly firsts: FirstStage[] = [];
  readonly seconds: SecondStage[] = [];
  readonly steps: Step[] = [];
  #page = 0x100n;
  #directoryEntry = 0n;
  #directoryPage = 0n;

  constructor(random: Random) {
    this.random = random;
    let capabilities = 0x10n | (46n << 32n);
    for (const name of CAPABILITIES) capabilities |= 1n << CAPABILITY[name];
    for (const name of ["MSI_FLAT", "NL", "S"] as const) capabilities |= random.flag(70, CAPABILITY[name]);
    this.extended = ((capabilities >> CAPABILITY.MSI_FLAT) & 1n) === 1n;
    this.implementation = {
      capabilities,
      be: false,
      gxl: false,
      beWritable: false,
      gxlWritable: false,
      rcidWidth: 0,
      mcidWidth: 0,
    };
    const root = this.newPage();
    this.#directoryPage = this.newPage();
    this.#directoryEntry = root << 12n;
    this.put(this.#directoryEntry, (this.#directoryPage << 10n) | 1n);
    this.ddtp = { mode: "2lvl", ppn: root };
    this.#addDevices();
  }

  newPage(count = 1n, alignment = 1n): bigint {
    this.#page = ((this.#page + alignment - 1n) / alignment) * alignment;
    const page = this.#page;
    this.#page += count;
    for (let index = 0n; index < count; index++) this.memory.pages.add(page + index);
    return page;
  }

  put(address: bigint, ...values: bigint[]): void {
    values.forEach((value, index) => {
      store(this.memory, address + BigInt(index) * 8n, 8, value);
    });
  }

  /** Words stored since the last call, with what they hold now. */
  takeChanges(): (readonly [bigint, bigint])[] {
    const recording = this.memory.words as RecordingMap;
    const words = [...recording.changed].map((address) => [address, word(this.memory, address)] as const);
    recording.changed.clear();
    return words;
  }

  #newSecondStage(gscid: bigint): SecondStage {
    const mode = this.random.pick(["sv39", "sv39", "sv48", "sv57"] as const);
    const root = this.newPage(4n, 4n);
    const tables = new TableBuilder({
      memory: this.memory,
      shape: SHAPES[mode],
      root,
      wideRoot: true,
      bigEndian: false,
      newTable: () => this.newPage(),
      physical: (page) => page,
      pointerFlags: () => 0n,
    });
    const second: SecondStage = { gscid, tables, root, mode, tablePages: [] };
    this.seconds.push(second);
    for (let page = GUEST.data; page < GUEST.data + 16n; page++) {
      if (this.random.chance(85)) tables.map(page << 12n, 0, this.newPage(), ENTRY.V | ENTRY.RWX | ENTRY.U | ENTRY.AD);
    }
    return second;
  }

  /** A guest page for a structure, mapped to a fresh physical one. */
  #guestPage(second: SecondStage, page: bigint): bigint {
    second.tables.map(page << 12n, 0, this.newPage(), ENTRY.V | ENTRY.RWX | ENTRY.U | ENTRY.AD);
    return page;
  }

  #newFirstStage(device: Device, pscid: bigint, processId: bigint | null, mayBeGlobal: boolean): FirstStage {
    const { second } = device;
    const mode = this.random.pick(["sv39", "sv39", "sv48", "sv57"] as const);
    const newTable = () => {
      if (second === null) return this.newPage();
      const page = this.#guestPage(second, GUEST.tables + BigInt(second.tablePages.length));
      second.tablePages.push(page);
      return page;
    };
    const root = newTable();
    const tables = new TableBuilder({
      memory: this.memory,
      shape: SHAPES[mode],
      root,
      wideRoot: false,
      bigEndian: false,
      newTable,
      physical: (page) => (second === null ? page : second.tables.lookup(page << 12n)),
      pointerFlags: () => (mayBeGlobal ? this.random.flag(15, 5n) : 0n),
    });
    const high = ((1n << 64n) - 1n) ^ ((1n << SHAPES[mode].addressBits) - 1n);
    const iovas: bigint[] = [];
    for (const base of [0n, 0x20_0000n, 0x4000_0000n, high | (1n << (SHAPES[mode].addressBits - 1n))]) {
      for (const page of [0n, 1n, 2n, 16n, 17n]) iovas.push(base + page * 4096n);
    }
    const first: FirstStage = {
      gscid: second?.gscid ?? null,
      pscid,
      tables,
      root,
      mode,
      mayBeGlobal,
      iovas,
      device,
      processId,
    };
    for (const iova of iovas)
      if (this.random.chance(70)) tables.map(tableAddress(first, iova), 0, this.target(device), this.leafFlags(first));
    this.firsts.push(first);
    return first;
  }

  /** A page for a first stage to point to. */
  target(device: Device): bigint {
    if (device.second === null) return this.newPage();
    if (device.interruptPages.length > 0 && this.random.chance(30))
      return this.random.pick(device.interruptPages).gpa >> 12n;
    return GUEST.data + BigInt(this.random.below(18));
  }

  leafFlags(first: { readonly mayBeGlobal: boolean; readonly device: Device } | null): bigint {
    const { random } = this;
    let flags = ENTRY.V | ENTRY.U | (random.chance(75) ? ENTRY.RWX : random.pick([0b0010n, 0b0110n, 0b1010n]));
    if (first?.mayBeGlobal) flags |= random.flag(40, 5n);
    flags |= random.chance(75) ? ENTRY.AD : random.flag(50, 6n);
    if (random.chance(15)) flags |= 1n << 61n;
    return flags;
  }

  #addDevices(): void {
    const { random } = this;
    const contextBytes = this.extended ? 64n : 32n;
    const table = this.#directoryPage << 12n;
    for (let index = 0n; index < 4n; index++) {
      const deviceId = index * 3n + 1n;
      const second = index === 2n ? null : this.#newSecondStage(index + 1n);
      const device: Device = {
        deviceId,
        second,
        contextAt: table + deviceId * contextBytes,
        updating: random.chance(40),
        processContexts: [],
        interruptPages: [],
      };
      this.devices.push(device);
      let fsc = 0n;
      let tc = 0b11n | (device.updating ? 0b1_1000_0000n : 0n); // V, EN_ATS, SADE and GADE
      let msi = [0n, 0n, 0n, 0n];
      if (this.extended && second !== null && index !== 0n) {
        const msiTable = this.newPage();
        for (const file of [0n, 1n]) {
          device.interruptPages.push({ gpa: (GUEST.files + file) << 12n, at: (msiTable << 12n) + file * 16n });
          this.put((msiTable << 12n) + file * 16n, (this.newPage() << 10n) | 0b111n, 0n);
        }
        msi = [(1n << 60n) | msiTable, 1n, GUEST.files, 0n];
      }
      if (index === 0n) {
        // Two processes under a directory of one or two levels.
        const levels = 1 + random.below(2);
        const root = this.#guestPage(second!, GUEST.directories);
        let leafTable = root;
        if (levels === 2) {
          leafTable = this.#guestPage(second!, GUEST.directories + 1n);
          this.put(second!.tables.lookup(root << 12n)! << 12n, (leafTable << 10n) | 1n);
        }
        const directory = second!.tables.lookup(leafTable << 12n)! << 12n;
        for (const processId of [1n, 2n]) {
          const first = this.#newFirstStage(device, 10n + processId, processId, false);
          const at = directory + processId * 16n;
          device.processContexts.push({ processId, at });
          this.put(at, 0b111n | ((10n + processId) << 12n), (MODE[first.mode] << 60n) | first.root);
        }
        tc |= 1n << 5n;
        fsc = (BigInt(levels) << 60n) | root;
      } else if (index !== 3n) {
        const first = this.#newFirstStage(device, 20n + index, null, second !== null);
        fsc = (MODE[first.mode] << 60n) | first.root;
      }
      const iohgatp = second === null ? 0n : (MODE[second.mode] << 60n) | (second.gscid << 44n) | second.root;
      this.put(device.contextAt, tc, iohgatp, (20n + index) << 12n, fsc);
      if (this.extended) this.put(device.contextAt + 32n, ...msi);
    }
  }

  get directoryEntry(): bigint {
    return this.#directoryEntry;
  }
}

/** The address as table builders take it: without the sign bits above the mode's width. */
function tableAddress(first: FirstStage, iova: bigint): bigint {
  return iova & ((1n << SHAPES[first.mode].addressBits) - 1n);
}

/** A change of the machine, and the commands that make it known, widest last. */
interface Change {
  readonly commands: readonly Command[];
  /** Whom to ask afterwards. */
  readonly ask: () => Request;
}

function changeFirstStage(world: World): Change {
  const { random } = world;
  const first = random.pick(world.firsts);
  const iova = random.pick(first.iovas);
  const address = tableAddress(first, iova);
  const { tables } = first;
  const kind = random.below(10);
  let reach = 4096n;
  if (kind < 6) {
    // A leaf of 4 KiB or, seldom, of 64 KiB.
    const at = tables.entryAddress(address, 0);
    if (at !== null) {
      const group = at & ~0x7fn;
      if (word(world.memory, at) >> 63n === 1n)
        for (let entry = 0n; entry < 16n; entry++) world.put(group + entry * 8n, 0n);
      if (random.chance(12)) {
        const value = ((world.target(first.device) | 0xfn) << 10n) ^ (0b111n << 10n); // PPN[3:0] = 1000
        const flags = world.leafFlags(first) | ENTRY.AD | ENTRY.N;
        for (let entry = 0n; entry < 16n; entry++) world.put(group + entry * 8n, value | flags);
        reach = 0x1_0000n;
      } else if (random.chance(30)) tables.replace(address, 0, 0n);
      else tables.replace(address, 0, (world.target(first.device) << 10n) | world.leafFlags(first));
    }
  } else {
    // Above it: a 2 MiB page, an absent pointer, or a pointer to another table.
    reach = 0x20_0000n;
    const at = tables.entryAddress(address, 1);
    const superpage = (world.random.pick([0x8000n, 0x8200n, 0n]) << 10n) | (world.leafFlags(first) | ENTRY.AD);
    if (at !== null) {
      const choice = random.below(3);
      if (choice === 0) tables.replace(address, 1, superpage);
      else tables.replace(address, 1, 0n);
      if (choice === 2) {
        // The builder makes a fresh table for the pointer that is now absent.
        for (const other of first.iovas) {
          if (random.chance(60))
            tables.map(tableAddress(first, other), 0, world.target(first.device), world.leafFlags(first));
        }
      }
    }
  }
  const pscid = random.chance(60) ? first.pscid : null;
  const { gscid } = first;
  const other = iova + random.pick([0n, 0n, 0n, 4096n]);
  return {
    commands: [
      iotinvalVma(gscid, pscid, { address: other }),
      iotinvalVma(gscid, pscid, { address: other, range: supports(world, "S") ? reach * 2n : undefined }),
      iotinvalVma(gscid, pscid, { address: other, nonLeaf: supports(world, "NL") }),
      iotinvalVma(gscid, pscid),
      iotinvalVma(gscid, null),
    ],
    ask: () => askFirst(world, first, random.chance(60) ? iova : random.pick(first.iovas)),
  };
}

function supports(world: World, capability: Capability): boolean {
  return ((world.implementation.capabilities >> CAPABILITY[capability]) & 1n) === 1n;
}

function changeSecondStage(world: World): Change {
  const { random } = world;
  const second = random.pick(world.seconds);
  const { tables, gscid } = second;
  const page = GUEST.data + BigInt(random.below(18));
  let gpa = page << 12n;
  let reach = 4096n;
  const kind = random.below(10);
  if (kind < 5) {
    const at = tables.entryAddress(gpa, 0);
    const ppn = world.newPage();
    if (at !== null) tables.replace(gpa, 0, random.chance(30) ? 0n : (ppn << 10n) | world.leafFlags(null));
  } else if (kind < 7 && second.tablePages.length > 0) {
    // A first-stage table moves: its content is copied, then sometimes changed at the old place.
    const moved = random.pick(second.tablePages);
    gpa = moved << 12n;
    const old = tables.lookup(gpa);
    if (old !== null) {
      const fresh = world.newPage();
      for (let at = 0n; at < 4096n; at += 8n) {
        const value = word(world.memory, (old << 12n) + at);
        if (value !== 0n) world.put((fresh << 12n) + at, value);
      }
      tables.replace(gpa, 0, (fresh << 10n) | ENTRY.V | ENTRY.RWX | ENTRY.U | ENTRY.AD);
    }
  } else {
    reach = leafBytes(SHAPES[second.mode], 1);
    const at = tables.entryAddress(gpa, 1);
    const superpage = (random.pick([0x200n, 0x400n]) << 10n) | world.leafFlags(null) | ENTRY.AD;
    if (at !== null) {
      const choice = random.below(3);
      tables.replace(gpa, 1, choice === 0 ? superpage : 0n);
      if (choice === 2) {
        for (let other = GUEST.data; other < GUEST.data + 16n; other++) {
          if (random.chance(70)) tables.map(other << 12n, 0, world.newPage(), world.leafFlags(null));
        }
      }
    }
  }
  const users = world.firsts.filter((first) => first.gscid === gscid);
  return {
    commands: [
      iotinvalGvma(gscid, { address: gpa }),
      iotinvalGvma(gscid, { address: gpa, range: supports(world, "S") ? reach * 2n : undefined }),
      iotinvalGvma(gscid, { address: gpa, nonLeaf: supports(world, "NL") }),
      iotinvalGvma(gscid),
      iotinvalGvma(null),
    ],
    ask: () => {
      if (users.length === 0 || random.chance(20)) return askSecond(world, second, gpa);
      const first = random.pick(users);
      return askFirst(world, first, random.pick(first.iovas));
    },
  };
}

function changeDirectory(world: World): Change {
  const { random } = world;
  const device = random.pick(world.devices);
  const ask = () => askDevice(world, device);
  const toggle = (at: bigint, mask: bigint) => world.put(at, word(world.memory, at) ^ mask);
  const kind = random.below(4);
  if (kind === 0) {
    toggle(world.directoryEntry, 1n);
    return { commands: [iodirInvalDdt(device.deviceId), iodirInvalDdt(null)], ask };
  }
  if (kind === 1 && device.processContexts.length > 0) {
    const { at, processId } = random.pick(device.processContexts);
    toggle(at, random.pick([0b001n, 0b010n, 0b100n, 0b001n]));
    return {
      commands: [iodirInvalPdt(device.deviceId, processId), iodirInvalDdt(device.deviceId), iodirInvalDdt(null)],
      ask,
    };
  }
  // V, EN_ATS, DTF; a reserved bit makes the context misconfigured.
  toggle(device.contextAt, random.pick([1n, 1n, 2n, 1n << 4n, 1n << 12n]));
  return { commands: [iodirInvalDdt(device.deviceId), iodirInvalDdt(null)], ask };
}

function changeInterruptFile(world: World): Change | null {
  const { random } = world;
  const device = random.pick(world.devices);
  if (device.interruptPages.length === 0) return null;
  const { gpa, at } = random.pick(device.interruptPages);
  world.put(at, random.chance(30) ? 0n : (world.newPage() << 10n) | 0b111n);
  const { gscid } = device.second!;
  return {
    commands: [iotinvalGvma(gscid, { address: gpa }), iotinvalGvma(gscid), iotinvalGvma(null)],
    ask: () => (random.chance(50) ? askSecond(world, device.second!, gpa) : askDevice(world, device)),
  };
}

function ask(world: World, device: Device, processId: bigint | null, iova: bigint): Request {
  const { random } = world;
  const type = random.chance(20) ? "ats" : "untranslated";
  return {
    deviceId: device.deviceId,
    processId,
    privileged: processId !== null && random.chance(20),
    type,
    access: type === "ats" ? "read" : random.pick(["read", "read", "write", "execute"] as const),
    noWrite: type === "ats" && random.chance(50),
    executeRequested: type === "ats" && processId !== null && random.chance(50),
    iova: (iova + BigInt(random.below(1024)) * 4n) & ((1n << 64n) - 1n),
  };
}

function askFirst(world: World, first: FirstStage, iova: bigint): Request {
  return ask(world, first.device, first.processId, iova);
}

/** A GPA: by the device without a first stage, or by one without a process_id. */
function askSecond(world: World, second: SecondStage, gpa: bigint): Request {
  const device = world.devices.find((candidate) => candidate.second === second)!;
  return ask(world, device, null, gpa);
}

function askDevice(world: World, device: Device): Request {
  const own = world.firsts.filter((first) => first.device === device);
  if (own.length === 0) return askSecond(world, device.second!, (GUEST.data + BigInt(world.random.below(18))) << 12n);
  const first = world.random.pick(own);
  return askFirst(world, first, world.random.pick(first.iovas));
}

/** The sequence of a seed, with `count` changes. */
export function randomSequence(seed: number, count: number): Sequence {
  const random = new Random(seed);
  const world = new World(random);
  world.takeChanges();
  const memory: Memory = copyMemory(world.memory);
  const { steps } = world;
  const request = (wanted: Request) => steps.push({ kind: "request", request: wanted });
  // Software of most sequences works at few places, so that its questions meet its changes.
  for (let index = 0; index < 12; index++) request(askDevice(world, random.pick(world.devices)));
  for (let index = 0; index < count; index++) {
    const kind = random.below(100);
    const change =
      kind < 45
        ? changeFirstStage(world)
        : kind < 75
          ? changeSecondStage(world)
          : kind < 90
            ? changeDirectory(world)
            : changeInterruptFile(world);
    if (change === null) continue;
    for (let times = random.below(3); times > 0; times--) request(change.ask());
    steps.push({ kind: "change", words: world.takeChanges() });
    for (let times = random.below(3); times > 0; times--) request(change.ask());
    if (random.chance(80)) steps.push({ kind: "invalidate", command: random.pick(change.commands) });
    for (let times = 1 + random.below(3); times > 0; times--) request(change.ask());
  }
  for (const page of world.memory.pages) memory.pages.add(page);
  return { implementation: world.implementation, ddtp: world.ddtp, memory, steps };
}

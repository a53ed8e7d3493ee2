/**
 * The machine that cache sequences start from, and its software's hands on it: devices with a process directory, with stages of their own or shared,
 * and one of the host's; tables of both stages, MSI tables. Every store is remembered, so that it can become a step of the sequence.
 */

import { type Memory, store, word } from "../../memory.ts";
import type { Random } from "../../random.ts";
import { CAPABILITY, type Capability, type Implementation } from "../implementation.ts";
import type { Command } from "../invalidation.ts";
import type { DirectoryPointer } from "../outcome.ts";
import { SHAPES } from "../page-table-entry.ts";
import { iodirInvalDdt, iodirInvalPdt, iotinvalGvma, iotinvalVma } from "./commands.ts";
import { TableBuilder } from "./table-builder.ts";

/** Remembers the words stored since it was last asked. */
class RecordingMap extends Map<bigint, bigint> {
  changed = new Set<bigint>();
  override set(address: bigint, value: bigint): this {
    this.changed?.add(address); // the Map constructor may call set before the field is there
    return super.set(address, value);
  }
}

export interface SecondStage {
  readonly gscid: bigint;
  readonly tables: TableBuilder;
  readonly root: bigint;
  readonly mode: "sv39" | "sv48" | "sv57";
  /** Guest pages that hold first-stage tables: they may be moved. */
  readonly tablePages: bigint[];
}

/** A context's pointer to its tables, which software switches between two roots under one tag, with all that §7.3 asks for. */
interface Switch {
  readonly device: Device;
  /** The doublewords: fsc, or iohgatp; in every context that has the tag. */
  readonly at: readonly bigint[];
  readonly values: readonly [bigint, bigint];
  readonly commands: readonly (readonly Command[])[];
}

export interface FirstStage {
  readonly gscid: bigint | null;
  readonly pscid: bigint;
  readonly tables: TableBuilder;
  readonly root: bigint;
  readonly mode: "sv39" | "sv48" | "sv57";
  readonly mayBeGlobal: boolean;
  readonly iovas: readonly bigint[];
  readonly device: Device;
  /** All devices whose contexts point here. */
  readonly sharers: Device[];
  readonly processId: bigint | null;
}

export interface Device {
  readonly deviceId: bigint;
  readonly second: SecondStage | null;
  readonly contextAt: bigint;
  readonly updating: boolean;
  readonly processContexts: { readonly processId: bigint; readonly at: bigint }[];
  readonly interruptPages: { readonly gpa: bigint; readonly at: bigint }[];
  /** Translated requests carry GPAs (tc.T2GPA). */
  readonly t2gpa: boolean;
}

const MODE = { sv39: 8n, sv48: 9n, sv57: 10n } as const;
export const ENTRY = { V: 1n, RWX: 0b1110n, U: 0x10n, G: 0x20n, AD: 0xc0n, N: 1n << 63n };
/** Guest pages: process directories, first-stage tables, data, interrupt files. */
export const GUEST = { directories: 0x40n, tables: 0x1000n, data: 0x8000n, files: 0xa000n } as const;
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

export class World {
  readonly random: Random;
  readonly memory: Memory = { pages: new Set(), words: new RecordingMap(), injected: new Map() };
  readonly implementation: Implementation;
  readonly extended: boolean;
  readonly ddtp: DirectoryPointer;
  readonly devices: Device[] = [];
  readonly firsts: FirstStage[] = [];
  readonly seconds: SecondStage[] = [];
  readonly switches: Switch[] = [];
  /** Where the software last changed a first stage. */
  focus: readonly [FirstStage, bigint] | null = null;
  /** Whether device 5, which shares both stages of device 1, is there. */
  readonly #sharing: boolean;
  #page = 0x100n;
  #directoryEntry = 0n;
  #directoryPage = 0n;

  constructor(random: Random) {
    this.random = random;
    this.#sharing = random.chance(50);
    let capabilities = 0x10n | (46n << 32n);
    for (const name of CAPABILITIES) capabilities |= 1n << CAPABILITY[name];
    for (const name of ["MSI_FLAT", "NL", "S"] as const) capabilities |= random.flag(70, CAPABILITY[name]);
    if ((capabilities >> CAPABILITY.MSI_FLAT) & 1n) capabilities |= random.flag(60, CAPABILITY.MSI_MRIF);
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
      sharers: [device],
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
    // Not where the first stage is shared: a message to one sharer is a plain store to the other, and §3.8 lets caches mix them up.
    if (device.interruptPages.length > 0 && !(this.#sharing && device === this.devices[1]) && this.random.chance(30))
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
    for (let index = 0n; index < (this.#sharing ? 6n : 5n); index++) {
      const deviceId = index * 3n + 1n;
      // Device 4 has the second stage of device 3, device 5 both stages of device 1; neither has their interrupt files.
      const elder = index === 4n ? this.devices[3]! : index === 5n ? this.devices[1]! : null;
      const second = elder !== null ? elder.second : index === 2n ? null : this.#newSecondStage(index + 1n);
      const device: Device = {
        deviceId,
        second,
        contextAt: table + deviceId * contextBytes,
        // Whoever shares a second stage updates it alike.
        updating: elder?.updating ?? random.chance(40),
        processContexts: [],
        interruptPages: [],
        t2gpa: second !== null && random.chance(40),
      };
      this.devices.push(device);
      let fsc = 0n;
      let pscid = 20n + index;
      // V, EN_ATS, EN_PRI and PRPR, T2GPA, SADE and GADE
      const requesting = random.chance(70) ? 0b100n | random.flag(50, 6n) : 0n;
      let tc = 0b11n | requesting | (device.t2gpa ? 0b1000n : 0n) | (device.updating ? 0b1_1000_0000n : 0n);
      let msi = [0n, 0n, 0n, 0n];
      if (this.extended && second !== null && index !== 0n && elder === null) {
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
          this.put(at, 0b111n | ((10n + processId) << 12n), rootOf(first));
          const other = this.#newFirstStage(device, 10n + processId, processId, false);
          const drop = [iodirInvalPdt(deviceId, processId), iodirInvalDdt(deviceId)];
          const { gscid } = second!;
          this.switches.push({
            device,
            at: [at + 8n],
            values: [rootOf(first), rootOf(other)],
            commands: drop.flatMap((context) =>
              [iotinvalVma(gscid, first.pscid), iotinvalVma(gscid, null)].map((tables) => [context, tables]),
            ),
          });
        }
        tc |= 1n << 5n;
        fsc = (BigInt(levels) << 60n) | root;
      } else if (index === 5n) {
        const first = this.firsts.find((candidate) => candidate.device === elder)!;
        first.sharers.push(device);
        fsc = rootOf(first);
        pscid = first.pscid;
      } else if (index < 3n) {
        const first = this.#newFirstStage(device, pscid, null, second !== null);
        fsc = rootOf(first);
        if (second === null) {
          const other = this.#newFirstStage(device, pscid, null, false);
          this.switches.push({
            device,
            at: [device.contextAt + 24n],
            values: [fsc, rootOf(other)],
            commands: [
              [iodirInvalDdt(deviceId), iotinvalVma(null, first.pscid)],
              [iodirInvalDdt(null), iotinvalVma(null, null)],
            ],
          });
        }
      }
      const guestRoot = (of: SecondStage) => (MODE[of.mode] << 60n) | (of.gscid << 44n) | of.root;
      const iohgatp = second === null ? 0n : guestRoot(second);
      if (index === 4n) {
        const other = this.#newSecondStage(second!.gscid);
        this.switches.push({
          device,
          at: [device.contextAt + 8n, this.devices[3]!.contextAt + 8n],
          values: [iohgatp, guestRoot(other)],
          commands: [
            [iodirInvalDdt(null), iotinvalVma(other.gscid, null), iotinvalGvma(other.gscid)],
            [
              iodirInvalDdt(deviceId),
              iodirInvalDdt(this.devices[3]!.deviceId),
              iotinvalVma(other.gscid, null),
              iotinvalGvma(null),
            ],
          ],
        });
      }
      this.put(device.contextAt, tc, iohgatp, pscid << 12n, fsc);
      if (this.extended) this.put(device.contextAt + 32n, ...msi);
    }
  }

  get directoryEntry(): bigint {
    return this.#directoryEntry;
  }
}

/** iosatp of a first stage. */
function rootOf(first: FirstStage): bigint {
  return (MODE[first.mode] << 60n) | first.root;
}

/** The address as table builders take it: without the sign bits above the mode's width. */
export function tableAddress(first: FirstStage, iova: bigint): bigint {
  return iova & ((1n << SHAPES[first.mode].addressBits) - 1n);
}

// A machine small enough for unit tests: one bank of memory, one VT-d unit, and verbs that build tables, queue descriptors and read records the way software
// would, so that tests speak of devices and mappings rather than of bytes.

import { decodeFaultRecord, type FaultRecord } from "../../../../../host/arch/vtd/fault-records.ts";
import { type DescriptorName, encodeDescriptor } from "../../../../../host/arch/vtd/invalidation-descriptors.ts";
import { PASID_ENTRY } from "../../../../../host/arch/vtd/pasid-entries.ts";
import {
  faultRecordingRegister,
  GCMD_QIE,
  GCMD_SRTP,
  GCMD_TE,
  GSTS_LEVELS,
  REG,
} from "../../../../../host/arch/vtd/registers.ts";
import { CONTEXT, SCALABLE_CONTEXT } from "../../../../../host/arch/vtd/root-and-context.ts";
import { addressOf, type HpaPfn } from "../../../../../host/base/address.ts";
import { Clock } from "../../../../../host/base/clock.ts";
import type { Structure } from "../../../../../host/base/fields.ts";
import { type MemoryFaults, PhysicalMemory } from "../../../../../host/base/memory.ts";
import { Trace } from "../../../../../host/base/trace.ts";
import type { VtdOptions } from "../../../../../host/hw/iommu/vtd/options.ts";
import { VtdUnit } from "../../../../../host/hw/iommu/vtd/unit.ts";

/** First frame of memory: 0x8000_0000. */
export const BASE = 0x80000;

export type Fields = Readonly<Record<string, bigint | number>>;

/** First-stage leaves: present, accessed; user; writable and dirty. */
export const P = 1n << 0n;
export const RW = 1n << 1n;
export const US = 1n << 2n;
export const A = 1n << 5n;
export const D = 1n << 6n;
export const PS = 1n << 7n;
export const EA = 1n << 10n;
/** As Linux fills them. */
export const FS_TABLE = P | RW | US | A;
export const FS_LEAF = P | RW | US | A | D;
/** Second stage. */
export const R = 1n << 0n;
export const W = 1n << 1n;
export const SS_A = 1n << 8n;
export const SS_D = 1n << 9n;
export const SNP = 1n << 11n;

export const READ = 1;
export const WRITE = 2;
export const ATOMIC = 3;

export interface RequestOptions {
  readonly pasid?: number;
  readonly privileged?: boolean;
  readonly access?: number;
  readonly translated?: boolean;
  readonly data?: number;
}

export interface MapOptions {
  /** Levels of the table, 4. */
  readonly levels?: number;
  /** Level of the leaf, 0: 4 KiB. */
  readonly level?: number;
  /** Bits of tables above. */
  readonly table?: bigint;
  /** How a table's frame is named in entries. */
  readonly toGuest?: (frame: number) => number;
}

export class Machine {
  readonly memory = new PhysicalMemory<HpaPfn>();
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly unit: VtdUnit;
  /** Messages stored outside memory: page and data. */
  readonly messages: [number, number][] = [];
  readonly #pages: number;
  #next = BASE;
  root = 0;
  ring = 0;
  #wide = true;

  constructor(options: VtdOptions = {}, pages = 4096) {
    this.#pages = pages;
    this.memory.addBank(BASE as HpaPfn, new ArrayBuffer(pages * 4096));
    for (const page of [0xfee00, 0xfee01, 0xfee05])
      this.memory.addStoreTarget(page as HpaPfn, {
        store32: (offset, value) => void this.messages.push([page * 4096 + offset, value]),
      });
    this.unit = new VtdUnit({ name: "vtd0", memory: this.memory, clock: this.clock, trace: this.trace }, options);
  }

  // --- memory ------------------------------------------------------------------------------------------------------------------

  /** Frames from memory, zeroed, naturally aligned to their number. */
  allocate(frames = 1): number {
    const first = Math.ceil(this.#next / frames) * frames;
    if (first + frames > BASE + this.#pages) throw new Error("test machine is out of memory");
    this.#next = first + frames;
    return first;
  }

  load(pfn: number, offset: number): bigint {
    if (this.memory.load64(pfn as HpaPfn, offset) !== 0) throw new Error(`test load at frame ${pfn} failed`);
    return (BigInt(this.memory.hi) << 32n) | BigInt(this.memory.lo);
  }

  store(pfn: number, offset: number, value: bigint): void {
    const lo = Number(value & 0xffffffffn);
    const hi = Number((value >> 32n) & 0xffffffffn);
    if (this.memory.store64(pfn as HpaPfn, offset, lo, hi) !== 0) throw new Error(`test store at frame ${pfn} failed`);
  }

  storeWords(pfn: number, offset: number, words: readonly bigint[]): void {
    for (const [i, word] of words.entries()) this.store(pfn, offset + 8 * i, word);
  }

  /** Makes accesses to the doubleword at frame, offset fail from now on; stores only with `stores`. */
  inject(pfn: number, offset: number, stores = false): void {
    const faults: MemoryFaults = {
      at: (atPfn, atOffset, length, store) =>
        atPfn === pfn && atOffset < offset + 8 && offset < atOffset + length && (!stores || store) ? 1 : 0,
    };
    this.memory.faults = faults;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  read32(offset: number): number {
    return this.unit.registers.mmioRead(offset, 4);
  }

  write32(offset: number, value: number): void {
    this.unit.registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  read64(offset: number): bigint {
    const low = this.unit.registers.mmioRead(offset, 8);
    return (BigInt(this.unit.registers.high) << 32n) | BigInt(low);
  }

  write64(offset: number, value: bigint): void {
    this.unit.registers.mmioWrite(offset, 8, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** As drivers do: GSTS without its one-shots, and one bit more (or less). */
  command(bit: number, on = true): void {
    const levels = this.read32(REG.GSTS) & GSTS_LEVELS;
    this.write32(REG.GCMD, on ? levels | bit : levels & ~bit);
  }

  /** Queue, root table and translation on. `ttm`: RTADDR.TTM. */
  start({ ttm = 1, wide = true, enable = true }: { ttm?: number; wide?: boolean; enable?: boolean } = {}): void {
    this.#wide = wide;
    this.root = this.allocate();
    this.ring = this.allocate(2);
    // 256 descriptors of 32 bytes, or of 16.
    this.write64(REG.IQA, (BigInt(this.ring) << 12n) | (wide ? 0x801n : 0n));
    this.command(GCMD_QIE);
    this.write64(REG.RTADDR, (BigInt(this.root) << 12n) | (BigInt(ttm) << 10n));
    this.command(GCMD_SRTP);
    if (enable) this.command(GCMD_TE);
  }

  // --- structures --------------------------------------------------------------------------------------------------------------

  /** A legacy context entry; P = 1 unless given. */
  setContext(sourceId: number, fields: Fields): void {
    const bus = sourceId >> 8;
    let table = Number(this.load(this.root, bus * 16) >> 12n);
    if (table === 0) {
      table = this.allocate();
      this.store(this.root, bus * 16, (BigInt(table) << 12n) | 1n);
    }
    this.storeWords(table, (sourceId & 0xff) * 16, wordsOf(CONTEXT, 2, { P: 1, ...fields }));
  }

  /** Where a scalable-mode context entry stands; makes its table. */
  contextPlace(sourceId: number): { frame: number; offset: number } {
    const at = (sourceId >> 8) * 16 + ((sourceId & 0x80) !== 0 ? 8 : 0);
    let table = Number(this.load(this.root, at) >> 12n);
    if (table === 0) {
      table = this.allocate();
      this.store(this.root, at, (BigInt(table) << 12n) | 1n);
    }
    return { frame: table, offset: (sourceId & 0x7f) * 32 };
  }

  /** A scalable-mode context entry with a PASID directory (made unless given); the directory's frame. */
  setScalableContext(sourceId: number, fields: Fields = {}): number {
    const { frame, offset } = this.contextPlace(sourceId);
    const directory = Number(fields.PASIDDIRPTR ?? this.allocate());
    this.storeWords(
      frame,
      offset,
      wordsOf(SCALABLE_CONTEXT, 4, { P: 1, PASIDE: 1, DTE: 1, PRE: 1, PASIDDIRPTR: directory, PDTS: 0, ...fields }),
    );
    return directory;
  }

  /** Where a PASID's entry stands; makes its table. */
  pasidPlace(directory: number, pasid: number): { frame: number; offset: number } {
    const at = directory + (pasid >> 15);
    const offset = ((pasid >> 6) & 511) * 8;
    let table = Number(this.load(at, offset) >> 12n);
    if (table === 0) {
      table = this.allocate();
      this.store(at, offset, (BigInt(table) << 12n) | 1n);
    }
    return { frame: table, offset: (pasid & 63) * 64 };
  }

  setPasid(directory: number, pasid: number, fields: Fields): void {
    const { frame, offset } = this.pasidPlace(directory, pasid);
    this.storeWords(frame, offset, wordsOf(PASID_ENTRY, 8, { P: 1, PWSNP: 1, ...fields }));
  }

  /** Maps one page and makes the tables above; returns where the leaf stands. */
  map(
    root: number,
    pfn: number,
    frame: number,
    leaf: bigint,
    options: MapOptions = {},
  ): { frame: number; offset: number } {
    const { levels = 4, level: at = 0, table: tableBits = FS_TABLE, toGuest = (f: number) => f } = options;
    let table = root;
    for (let level = levels - 1; ; level--) {
      const offset = Number((BigInt(pfn) >> BigInt(9 * level)) & 511n) * 8;
      if (level === at) {
        this.store(table, offset, (BigInt(frame) << 12n) | leaf | (level > 0 ? PS : 0n));
        return { frame: table, offset };
      }
      const entry = this.load(table, offset);
      if (entry === 0n) {
        const below = this.allocate();
        this.store(table, offset, (BigInt(toGuest(below)) << 12n) | tableBits);
        table = below;
      } else table = Number((entry >> 12n) & 0xffffffffffn);
    }
  }

  /** Legacy device with a second stage of 48 bits: the root of its tables. */
  makeLegacy(sourceId: number, fields: Fields = {}): number {
    const root = this.allocate();
    this.setContext(sourceId, { AW: 2, DID: 5, SSPTPTR: root, ...fields });
    return root;
  }

  /** Scalable-mode device whose PASID (RID_PASID 0) has a first stage: the root of its tables. */
  makeFirstStage(sourceId: number, fields: Fields = {}, context: Fields = {}, pasid = 0): number {
    const root = this.allocate();
    const directory = this.setScalableContext(sourceId, context);
    this.setPasid(directory, pasid, { PGTT: 1, DID: 5, FSPTPTR: root, ...fields });
    return root;
  }

  /** Scalable-mode device with a second stage of 48 bits: the root of its tables. */
  makeSecondStage(sourceId: number, fields: Fields = {}, context: Fields = {}): number {
    const root = this.allocate();
    const directory = this.setScalableContext(sourceId, context);
    this.setPasid(directory, 0, { PGTT: 2, AW: 2, DID: 5, SSPTPTR: root, ...fields });
    return root;
  }

  /** Nested: both roots. The first stage's tables are where its entries say, one to one through the second stage (which has to map them). */
  makeNested(sourceId: number, fields: Fields = {}, context: Fields = {}): { first: number; second: number } {
    const first = this.allocate();
    const second = this.allocate();
    const directory = this.setScalableContext(sourceId, context);
    this.setPasid(directory, 0, { PGTT: 3, AW: 2, DID: 5, FSPTPTR: first, SSPTPTR: second, ...fields });
    return { first, second };
  }

  /** Maps all of memory one to one in a second stage, in pages of 2 MiB. */
  mapAll(second: number, leaf = R | W, table = R | W): void {
    for (let pfn = BASE; pfn < BASE + this.#pages; pfn += 512) this.map(second, pfn, pfn, leaf, { level: 1, table });
  }

  // --- queue -------------------------------------------------------------------------------------------------------------------

  queueWords(word0: bigint, word1: bigint, upper: readonly bigint[] = [0n, 0n]): void {
    const bytes = this.#wide ? 32 : 16;
    const tail = this.read32(REG.IQT);
    this.storeWords(this.ring + (tail >> 12), tail & 0xfff, [word0, word1, ...(this.#wide ? upper : [])]);
    this.write32(REG.IQT, (tail + bytes) % (256 * bytes));
  }

  queue(name: DescriptorName, fields: Fields = {}): void {
    this.queueWords(...encodeDescriptor(name, fields));
  }

  /** Queues one descriptor and lets the unit work; true: the queue came to its end. */
  invalidate(name: DescriptorName, fields: Fields = {}): boolean {
    this.queue(name, fields);
    this.unit.drain();
    return this.read32(REG.IQH) === this.read32(REG.IQT);
  }

  /** Takes all fault records, as a driver does: from FRI on, F cleared, then overflow. */
  takeFaults(): FaultRecord[] {
    const { features } = this.unit.configuration;
    const records: FaultRecord[] = [];
    const first = (this.read32(REG.FSTS) >>> 8) & 0xff;
    for (let i = 0; i <= features.NFR; i++) {
      const at = faultRecordingRegister(features, (first + i) % (features.NFR + 1));
      const words = [this.read64(at), this.read64(at + 8)];
      const record = decodeFaultRecord(words);
      if (!record.valid) break;
      records.push(record);
      this.write32(at + 12, 0x80000000);
    }
    this.write32(REG.FSTS, 1);
    return records;
  }

  /** Reasons of all records. */
  takeReasons(): number[] {
    return this.takeFaults().map(({ reason }) => reason);
  }

  // --- transactions ------------------------------------------------------------------------------------------------------------

  status(sourceId: number, address: bigint, options: RequestOptions = {}): number {
    return this.unit.translate(
      sourceId,
      options.pasid ?? -1,
      options.privileged ?? false,
      options.access ?? READ,
      Number(address >> 12n),
      Number(address & 0xfffn),
      options.translated ?? false,
      options.data ?? ((options.access ?? READ) === WRITE ? -1 : 0),
    );
  }

  /** The address a request goes to, or null if it does not reach memory. */
  request(sourceId: number, address: bigint, options: RequestOptions = {}): bigint | null {
    return this.status(sourceId, address, options) === 0
      ? addressOf(this.unit.resultPfn, Number(address & 0xfffn))
      : null;
  }

  /** The reason why a request is refused; 0: it is not, -1: it is, without a record. */
  reason(sourceId: number, address: bigint, options: RequestOptions = {}): number {
    this.takeFaults();
    if (this.request(sourceId, address, options) !== null) return 0;
    return this.takeReasons()[0] ?? -1;
  }
}

function wordsOf(shape: Structure<Record<string, never>> | unknown, count: number, fields: Fields): bigint[] {
  const words = new Array<bigint>(count).fill(0n);
  const table = shape as Structure<Record<string, never>>;
  for (const [name, value] of Object.entries(fields)) {
    if (!(name in table.fields)) throw new Error(`${table.name} has no field ${name}`);
    table.set(words, name as never, BigInt(value));
  }
  return words;
}

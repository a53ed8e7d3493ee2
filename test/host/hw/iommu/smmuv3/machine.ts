// A machine small enough for unit tests: one bank of memory, one SMMUv3, and verbs that build tables, queue commands and read records the way software
// would, so that tests speak of streams and mappings rather than of bytes.

import { type CommandName, encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { CD } from "../../../../../host/arch/smmuv3/context-descriptor.ts";
import { decodeEvent, type EventRecord } from "../../../../../host/arch/smmuv3/event-records.ts";
import { CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN, CR2_RECINVSID, REG } from "../../../../../host/arch/smmuv3/registers.ts";
import { STE } from "../../../../../host/arch/smmuv3/stream-table-entry.ts";
import { addressOf, type HpaPfn } from "../../../../../host/base/address.ts";
import { Clock } from "../../../../../host/base/clock.ts";
import { type MemoryFaults, PhysicalMemory } from "../../../../../host/base/memory.ts";
import { Trace } from "../../../../../host/base/trace.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import { Smmuv3 } from "../../../../../host/hw/iommu/smmuv3/smmu.ts";

/** First frame of memory: 0x8000_0000. */
export const BASE = 0x80000;

export type Fields = Readonly<Record<string, bigint | number>>;

/** Stage-1 leaf bits: AF, EL0 may access, read-only, not global. */
export const AF = 1n << 10n;
export const EL0 = 1n << 6n;
export const READ_ONLY = 1n << 7n;
export const NG = 1n << 11n;
export const DBM = 1n << 51n;
export const PXN = 1n << 53n;
export const UXN = 1n << 54n;
/** What Linux gives a device's page: read, write, EL0, not global. */
export const USER_RW = AF | EL0 | NG;
/** Stage-2 leaf bits: readable, writable; MemAttr 0b1111 is write-back memory. */
export const S2_R = 1n << 6n;
export const S2_W = 1n << 7n;
export const S2_NORMAL = 0xfn << 2n;
export const S2_RW = AF | S2_R | S2_W | S2_NORMAL;

export interface TableOptions {
  readonly granule?: 12 | 14 | 16;
  readonly startLevel?: number;
  /** Level of the leaf. */
  readonly level?: number;
  readonly tableBits?: bigint;
  /** Where a table stands, as its parent points to it and as memory has it (identity). */
  readonly toGuest?: (frame: number) => number;
}

export const READ = 1;
export const WRITE = 2;
export const EXECUTE = 4;

export interface RequestOptions {
  readonly ssid?: number;
  readonly privileged?: boolean;
  readonly access?: number;
  readonly translated?: boolean;
}

export class Machine {
  readonly memory = new PhysicalMemory<HpaPfn>();
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly smmu: Smmuv3;
  readonly pulses: number[] = [];
  readonly #pages: number;
  #next = BASE;
  streams = 0;
  #commandRing = 0;
  eventRing = 0;
  #commandLog2 = 8;
  #eventLog2 = 7;

  constructor(options: Smmuv3Options = {}, pages = 4096) {
    this.#pages = pages;
    this.memory.addBank(BASE as HpaPfn, new ArrayBuffer(pages * 4096));
    this.smmu = new Smmuv3({ name: "smmu0", memory: this.memory, clock: this.clock, trace: this.trace }, options);
    this.smmu.onWire = (vector, asserted) => {
      if (asserted) this.pulses.push(vector);
    };
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
    return this.smmu.registers.mmioRead(offset, 4);
  }

  write32(offset: number, value: number): void {
    this.smmu.registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  read64(offset: number): bigint {
    const low = this.smmu.registers.mmioRead(offset, 8);
    return (BigInt(this.smmu.registers.high) << 32n) | BigInt(low);
  }

  write64(offset: number, value: bigint): void {
    this.smmu.registers.mmioWrite(offset, 8, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** Linear stream table of 2^log2 entries, command and event queue, all on. */
  start(options: { log2?: number; commandLog2?: number; eventLog2?: number; cr0?: number; cr2?: number } = {}): void {
    const log2 = options.log2 ?? 6;
    this.#commandLog2 = options.commandLog2 ?? 8;
    this.#eventLog2 = options.eventLog2 ?? 7;
    this.streams = this.allocate(Math.max(1, (64 << log2) >> 12));
    this.#commandRing = this.allocate(Math.max(1, (16 << this.#commandLog2) >> 12));
    this.eventRing = this.allocate(Math.max(1, (32 << this.#eventLog2) >> 12));
    this.write32(REG.CR2, options.cr2 ?? CR2_RECINVSID);
    this.write64(REG.STRTAB_BASE, BigInt(this.streams) << 12n);
    this.write32(REG.STRTAB_BASE_CFG, log2);
    this.write64(REG.CMDQ_BASE, (BigInt(this.#commandRing) << 12n) | BigInt(this.#commandLog2));
    this.write64(REG.EVENTQ_BASE, (BigInt(this.eventRing) << 12n) | BigInt(this.#eventLog2));
    this.write32(REG.CR0, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN | (options.cr0 ?? 0));
  }

  // --- structures --------------------------------------------------------------------------------------------------------------

  /** Writes a stream's entry in the linear table; V = 1 unless given. */
  setStream(sid: number, fields: Fields): void {
    this.storeWords(this.streams + Math.floor(sid / 64), (sid % 64) * 64, steWords(fields));
  }

  /** A table of `entries` context descriptors; its frame. */
  makeContextTable(entries = 1): number {
    return this.allocate(Math.max(1, Math.ceil(entries / 64)));
  }

  setContext(table: number, ssid: number, fields: Fields): void {
    this.storeWords(table + Math.floor(ssid / 64), (ssid % 64) * 64, cdWords(fields));
  }

  /** Maps one leaf and makes the tables above it; returns where the leaf's descriptor stands. `frame` is the output. */
  map(
    root: number,
    pfn: number,
    frame: number,
    attributes: bigint,
    options: TableOptions = {},
  ): { frame: number; offset: number } {
    const granule = options.granule ?? 12;
    const leaf = options.level ?? 3;
    const toGuest = options.toGuest ?? ((at) => at);
    const stride = granule - 3;
    let table = root;
    for (let level = options.startLevel ?? 0; ; level++) {
      const shift = BigInt(granule - 12 + stride * (3 - level));
      const mask = level === (options.startLevel ?? 0) ? (1n << BigInt(stride + 4)) - 1n : (1n << BigInt(stride)) - 1n;
      const index = Number((BigInt(pfn) >> shift) & mask);
      const at = table + (index >> 9);
      const offset = (index & 511) * 8;
      if (level === leaf) {
        this.store(at, offset, (BigInt(frame) << 12n) | attributes | (level === 3 ? 3n : 1n));
        return { frame: at, offset };
      }
      const entry = this.load(at, offset);
      if ((entry & 1n) === 0n) {
        table = this.allocate(1 << (granule - 12));
        this.store(at, offset, (BigInt(toGuest(table)) << 12n) | 3n | (options.tableBits ?? 0n));
      } else table = Number((entry >> 12n) & 0xfffffffffn);
    }
  }

  /** A stream with stage 1 alone: root frame of its 4 KiB tables of 48 bits. */
  makeFirstStage(sid: number, context: Fields = {}, stream: Fields = {}): number {
    const root = this.allocate();
    const table = this.makeContextTable();
    this.setContext(table, 0, { ...CONTEXT, TTB0: root * 256, ...context });
    this.setStream(sid, { Config: 5, S1ContextPtr: table * 64, ...stream });
    return root;
  }

  /** A stream with stage 2 alone: root frame of its 4 KiB tables of 40 bits that start at level 1 (two tables together). */
  makeSecondStage(sid: number, stream: Fields = {}): number {
    const root = this.allocate(2);
    this.setStream(sid, { ...SECOND_STAGE, Config: 6, S2TTB: root * 256, ...stream });
    return root;
  }

  // --- queues ------------------------------------------------------------------------------------------------------------------

  queueWords(word0: bigint, word1: bigint): void {
    const entries = 2 ** this.#commandLog2;
    const prod = this.read32(REG.CMDQ_PROD);
    const at = (prod % entries) * 16;
    this.storeWords(this.#commandRing + (at >> 12), at & 0xfff, [word0, word1]);
    this.write32(REG.CMDQ_PROD, (prod + 1) % (2 * entries));
  }

  queue(name: CommandName, fields: Fields = {}): void {
    this.queueWords(...encodeCommand(name, fields));
  }

  /** Queues commands with a CMD_SYNC behind them and lets the SMMU work. */
  command(name: CommandName, fields: Fields = {}): void {
    this.queue(name, fields);
    this.queue("SYNC");
    this.smmu.drain();
  }

  /** Takes all records written since the last call. */
  takeEvents(): EventRecord[] {
    return this.takeEventWords().map((words) => decodeEvent(words));
  }

  takeEventWords(): bigint[][] {
    const records: bigint[][] = [];
    const entries = 2 ** this.#eventLog2;
    const prod = this.read32(REG.EVENTQ_PROD);
    let cons = this.read32(REG.EVENTQ_CONS) & (2 * entries - 1);
    for (; cons !== (prod & (2 * entries - 1)); cons = (cons + 1) % (2 * entries)) {
      const at = (cons % entries) * 32;
      records.push([0, 8, 16, 24].map((word) => this.load(this.eventRing + (at >> 12), (at & 0xfff) + word)));
    }
    this.write32(REG.EVENTQ_CONS, (cons | (prod & 0x80000000)) >>> 0);
    return records;
  }

  // --- transactions ------------------------------------------------------------------------------------------------------------

  status(sid: number, address: bigint, options: RequestOptions = {}): number {
    return this.smmu.translate(
      sid,
      options.ssid ?? -1,
      options.privileged ?? false,
      options.access ?? READ,
      Number(address >> 12n),
      Number(address & 0xfffn),
      options.translated ?? false,
      0,
    );
  }

  /** The address a request goes to, or null if it does not reach memory. */
  request(sid: number, address: bigint, options: RequestOptions = {}): bigint | null {
    return this.status(sid, address, options) === 0 ? addressOf(this.smmu.resultPfn, Number(address & 0xfffn)) : null;
  }
}

/** 48-bit lower half with 4 KiB pages, no upper half, 48-bit output, faults recorded and aborted: what Linux writes. */
export const CONTEXT: Fields = { V: 1, T0SZ: 16, TG0: 0, EPD1: 1, IPS: 5, AA64: 1, R: 1, A: 1, ASET: 1, ASID: 1 };
/** 40 bits of IPA, from level 1, 48-bit output, faults recorded. */
export const SECOND_STAGE: Fields = { S2VMID: 1, S2T0SZ: 24, S2SL0: 1, S2TG: 0, S2PS: 5, S2AA64: 1, S2R: 1 };

export function steWords(fields: Fields): bigint[] {
  const words = new Array<bigint>(8).fill(0n);
  for (const [name, value] of Object.entries({ V: 1, ...fields }))
    STE.set(words, name as keyof typeof STE.fields, BigInt(value));
  return words;
}

export function cdWords(fields: Fields): bigint[] {
  const words = new Array<bigint>(8).fill(0n);
  for (const [name, value] of Object.entries(fields)) CD.set(words, name as keyof typeof CD.fields, BigInt(value));
  return words;
}

/** As hardware has a structure: 16 signed words. */
export function halves(words: readonly bigint[]): Int32Array {
  return Int32Array.from(
    words.flatMap((word) => [Number(BigInt.asIntN(32, word)), Number(BigInt.asIntN(32, word >> 32n))]),
  );
}

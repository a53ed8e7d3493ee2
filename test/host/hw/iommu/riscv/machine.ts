// A machine small enough for unit tests: one bank of memory, one RISC-V IOMMU, and verbs that build tables, queue commands and
// read records the way software would, so that tests speak of contexts and mappings rather than of bytes.

import { type CommandName, encodeCommand } from "../../../../../host/arch/riscv/commands.ts";
import { DEVICE_CONTEXT, deviceDirectoryIndex } from "../../../../../host/arch/riscv/device-context.ts";
import { decodeFaultRecord, type FaultRecord } from "../../../../../host/arch/riscv/fault-records.ts";
import { PTE } from "../../../../../host/arch/riscv/page-table-entry.ts";
import { PROCESS_CONTEXT, processDirectoryIndex } from "../../../../../host/arch/riscv/process-context.ts";
import { CSR_ENABLE, CSR_INTERRUPT_ENABLE, REG } from "../../../../../host/arch/riscv/registers.ts";
import { addressOf, type HpaPfn } from "../../../../../host/base/address.ts";
import { Clock } from "../../../../../host/base/clock.ts";
import { type MemoryFaults, PhysicalMemory } from "../../../../../host/base/memory.ts";
import { Trace } from "../../../../../host/base/trace.ts";
import { RiscvIommu } from "../../../../../host/hw/iommu/riscv/iommu.ts";
import type { RiscvIommuOptions } from "../../../../../host/hw/iommu/riscv/options.ts";

/** First frame of memory: 0x8000_0000. */
export const BASE = 0x80000;

export type Fields = Readonly<Record<string, bigint | number>>;

/** PTE flag sets. */
export const V = 1;
export const R = 2;
export const W = 4;
export const X = 8;
export const U = 16;
export const G = 32;
export const A = 64;
export const D = 128;
/** Everything a device needs of a user page. */
export const USER_RW = V | R | W | U | A | D;
export const USER_RWX = USER_RW | X;

export class Machine {
  readonly memory = new PhysicalMemory<HpaPfn>();
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly iommu: RiscvIommu;
  readonly extended: boolean;
  readonly wires: boolean[] = new Array(16).fill(false);
  readonly #pages: number;
  #nextFrame = BASE;
  #root = 0;
  #levels = 0;
  #commandRing = 0;
  #faultRing = 0;
  #faultsRead = 0;
  #processRoots = new Map<number, number>();

  constructor(options: RiscvIommuOptions = {}, pages = 4096) {
    this.#pages = pages;
    this.memory.addBank(BASE as HpaPfn, new ArrayBuffer(pages * 4096));
    this.iommu = new RiscvIommu({ name: "iommu0", memory: this.memory, clock: this.clock, trace: this.trace }, options);
    this.iommu.onWire = (vector, asserted) => {
      this.wires[vector] = asserted;
    };
    this.extended = this.iommu.configuration.capabilities.MSI_FLAT;
  }

  // --- memory ------------------------------------------------------------------------------------------------------------------

  /** Frames from memory, zeroed, naturally aligned to their number. */
  allocate(frames = 1): number {
    const first = Math.ceil(this.#nextFrame / frames) * frames;
    if (first + frames > BASE + this.#pages) throw new Error("test machine is out of memory");
    this.#nextFrame = first + frames;
    return first;
  }

  load(pfn: number, offset: number): bigint {
    const status = this.memory.load64(pfn as HpaPfn, offset);
    if (status !== 0) throw new Error(`test load at frame ${pfn} failed`);
    return (BigInt(this.memory.hi) << 32n) | BigInt(this.memory.lo);
  }

  store(pfn: number, offset: number, value: bigint): void {
    const status = this.memory.store64(
      pfn as HpaPfn,
      offset,
      Number(value & 0xffffffffn),
      Number((value >> 32n) & 0xffffffffn),
    );
    if (status !== 0) throw new Error(`test store at frame ${pfn} failed`);
  }

  /** Makes accesses to the doubleword at frame, offset fail from now on: 1 access fault, 2 corruption. Stores only with `stores`. */
  inject(pfn: number, offset: number, status: 1 | 2, stores = false): void {
    const previous = this.memory.faults;
    const faults: MemoryFaults = {
      at(atPfn, atOffset, length, store) {
        const hit = atPfn === pfn && atOffset < offset + 8 && offset < atOffset + length;
        if (hit && (!stores || store)) return status;
        return previous === null ? 0 : previous.at(atPfn, atOffset, length, store);
      },
    };
    this.memory.faults = faults;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  read32(offset: number): number {
    return this.iommu.registers.mmioRead(offset, 4);
  }

  write32(offset: number, value: number): void {
    this.iommu.registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  read64(offset: number): bigint {
    const low = this.iommu.registers.mmioRead(offset, 8);
    return (BigInt(this.iommu.registers.high) << 32n) | BigInt(low);
  }

  write64(offset: number, value: bigint): void {
    this.iommu.registers.mmioWrite(offset, 8, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  // --- directories -------------------------------------------------------------------------------------------------------------

  /** Makes an empty device directory of `levels` levels and points ddtp at it. */
  useDirectory(levels: 1 | 2 | 3 = 3): number {
    this.#levels = levels;
    this.#root = this.allocate();
    this.write64(REG.ddtp, (BigInt(this.#root) << 10n) | BigInt(levels + 1));
    return this.#root;
  }

  /** Frame and offset of a device's context; makes the tables above it. */
  contextPlace(deviceId: number): { frame: number; offset: number } {
    let table = this.#root;
    for (let level = this.#levels - 1; level > 0; level--) {
      const offset = deviceDirectoryIndex(deviceId, level, this.extended) * 8;
      const entry = this.load(table, offset);
      if ((entry & 1n) === 0n) {
        const next = this.allocate();
        this.store(table, offset, (BigInt(next) << 10n) | 1n);
        table = next;
      } else {
        table = Number((entry >> 10n) & ((1n << 44n) - 1n));
      }
    }
    const bytes = this.extended ? 64 : 32;
    return { frame: table, offset: deviceDirectoryIndex(deviceId, 0, this.extended) * bytes };
  }

  /** Writes a device context; V is set unless given. Returns its place. */
  setDevice(deviceId: number, fields: Fields): { frame: number; offset: number } {
    const words = new Array<bigint>(8).fill(0n);
    const layout = DEVICE_CONTEXT;
    for (const [name, value] of Object.entries({ V: 1, ...fields })) {
      layout.set(words, name as keyof typeof layout.fields, BigInt(value));
    }
    const place = this.contextPlace(deviceId);
    for (let i = 0; i < (this.extended ? 8 : 4); i++) this.store(place.frame, place.offset + 8 * i, words[i]!);
    return place;
  }

  /** Makes an empty process directory and returns its root frame, for fsc_PPN. `mode` 1 PD8, 2 PD17, 3 PD20. */
  makeProcessDirectory(mode: 1 | 2 | 3): number {
    const root = this.allocate();
    this.#processRoots.set(root, mode);
    return root;
  }

  /** Writes a process context (directories in host-physical memory). */
  setProcess(root: number, processId: number, fields: Fields): { frame: number; offset: number } {
    let table = root;
    for (let level = this.#processRoots.get(root)! - 1; level > 0; level--) {
      const offset = processDirectoryIndex(processId, level) * 8;
      const entry = this.load(table, offset);
      if ((entry & 1n) === 0n) {
        const next = this.allocate();
        this.store(table, offset, (BigInt(next) << 10n) | 1n);
        table = next;
      } else {
        table = Number((entry >> 10n) & ((1n << 44n) - 1n));
      }
    }
    const words = [0n, 0n];
    for (const [name, value] of Object.entries({ V: 1, ...fields })) {
      PROCESS_CONTEXT.set(words, name as keyof typeof PROCESS_CONTEXT.fields, BigInt(value));
    }
    const offset = processDirectoryIndex(processId, 0) * 16;
    this.store(table, offset, words[0]!);
    this.store(table, offset + 8, words[1]!);
    return { frame: table, offset };
  }

  // --- page tables -------------------------------------------------------------------------------------------------------------

  /**
   * Maps a page in tables of `levels` levels at `root`. `extraRootBits` 2 for second stages. `level` is the leaf's (1 a 2 MiB page …).
   * `place` turns a frame of memory into the number stored in pointers (identity without a second stage). Returns the entry's place.
   */
  map(
    root: number,
    levels: number,
    pfn: number,
    target: number,
    flags: number | bigint,
    options: {
      level?: number;
      extraRootBits?: number;
      toGuest?: (frame: number) => number;
      toHost?: (g: number) => number;
    } = {},
  ): { frame: number; offset: number } {
    const toHost = options.toHost ?? ((frame) => frame);
    const toGuest = options.toGuest ?? ((frame) => frame);
    const leafLevel = options.level ?? 0;
    let table = root;
    for (let level = levels - 1; ; level--) {
      const bits = level === levels - 1 ? 9 + (options.extraRootBits ?? 0) : 9;
      const index = Number((BigInt(pfn) >> BigInt(9 * level)) & ((1n << BigInt(bits)) - 1n));
      const frame = toHost(table) + Math.floor(index / 512);
      const offset = (index % 512) * 8;
      if (level === leafLevel) {
        this.store(frame, offset, (BigInt(target) << 10n) | BigInt(flags));
        return { frame, offset };
      }
      const entry = this.load(frame, offset);
      if ((entry & 1n) === 0n) {
        const next = toGuest(this.allocate());
        this.store(frame, offset, (BigInt(next) << 10n) | 1n);
        table = next;
      } else {
        table = Number((entry >> 10n) & ((1n << 44n) - 1n));
      }
    }
  }

  /** A first-stage root for `map`. */
  makeRoot(): number {
    return this.allocate();
  }

  /** A 16 KiB second-stage root. */
  makeSecondStageRoot(): number {
    return this.allocate(4);
  }

  /** Maps all of memory one to one in a second stage, as 4 KiB pages. */
  mapMemoryOneToOne(root: number, levels: number, flags: number | bigint = USER_RWX): void {
    for (let i = 0; i < this.#pages; i++) {
      this.map(root, levels, BASE + i, BASE + i, flags, { extraRootBits: 2 });
    }
  }

  pte(place: { frame: number; offset: number }): bigint {
    return this.load(place.frame, place.offset);
  }

  flagsOf(place: { frame: number; offset: number }): number {
    return Number(this.pte(place) & 0xffn);
  }

  describe(entry: bigint): string {
    return PTE.describe([entry]);
  }

  // --- queues ------------------------------------------------------------------------------------------------------------------

  /** Turns the fault queue on with 2^sizeLog2 records. */
  enableFaultQueue(sizeLog2 = 7, interrupts = false): number {
    this.#faultRing = this.allocate(Math.max(1, (2 ** sizeLog2 * 32) / 4096));
    this.#faultsRead = 0;
    this.write64(REG.fqb, (BigInt(this.#faultRing) << 10n) | BigInt(sizeLog2 - 1));
    this.write32(REG.fqcsr, CSR_ENABLE | (interrupts ? CSR_INTERRUPT_ENABLE : 0));
    return this.#faultRing;
  }

  /** Takes all records written since the last call. */
  takeFaults(): FaultRecord[] {
    const records: FaultRecord[] = [];
    const size = 2 ** (Number(this.read64(REG.fqb) & 0x1fn) + 1);
    const tail = this.read32(REG.fqt);
    for (; this.#faultsRead !== tail; this.#faultsRead = (this.#faultsRead + 1) % size) {
      const at = this.#faultsRead * 32;
      const frame = this.#faultRing + Math.floor(at / 4096);
      const words = [0, 8, 16, 24].map((offset) => this.load(frame, (at % 4096) + offset));
      records.push(decodeFaultRecord(words));
    }
    this.write32(REG.fqh, tail);
    return records;
  }

  enableCommandQueue(sizeLog2 = 8, interrupts = false): number {
    this.#commandRing = this.allocate(Math.max(1, (2 ** sizeLog2 * 16) / 4096));
    this.write64(REG.cqb, (BigInt(this.#commandRing) << 10n) | BigInt(sizeLog2 - 1));
    this.write32(REG.cqt, 0);
    this.write32(REG.cqcsr, CSR_ENABLE | (interrupts ? CSR_INTERRUPT_ENABLE : 0));
    return this.#commandRing;
  }

  /** Writes a command at the tail and moves the tail; nothing executes. */
  queueWords(word0: bigint, word1: bigint): void {
    const size = 2 ** (Number(this.read64(REG.cqb) & 0x1fn) + 1);
    const tail = this.read32(REG.cqt);
    const at = tail * 16;
    const frame = this.#commandRing + Math.floor(at / 4096);
    this.store(frame, at % 4096, word0);
    this.store(frame, (at % 4096) + 8, word1);
    this.write32(REG.cqt, (tail + 1) % size);
  }

  queue(name: CommandName, fields: Fields = {}): void {
    this.queueWords(...encodeCommand(name, fields));
  }

  /** Queues a command and lets the IOMMU work. */
  command(name: CommandName, fields: Fields = {}): void {
    this.queue(name, fields);
    this.iommu.drain();
  }

  // --- transactions ------------------------------------------------------------------------------------------------------------

  /** An untranslated request; the address it goes to, or null if it was refused. */
  request(deviceId: number, address: bigint, options: RequestOptions = {}): bigint | null {
    const pfn = Number(address >> 12n);
    const offset = Number(address & 0xfffn);
    const status = this.iommu.translate(
      deviceId,
      options.pasid ?? -1,
      options.privileged ?? false,
      options.access ?? 1,
      pfn,
      offset,
      options.translated ?? false,
      options.data ?? 0,
    );
    return status === 0 ? addressOf(this.iommu.resultPfn, offset) : null;
  }
}

export interface RequestOptions {
  readonly pasid?: number;
  readonly privileged?: boolean;
  /** 1 read, 2 write, 4 execute. */
  readonly access?: number;
  readonly translated?: boolean;
  readonly data?: number;
}

export const READ = 1;
export const WRITE = 2;
export const EXECUTE = 4;

/**
 * `nestbox fuzz vtd-registers`: hostile input to the VT-d unit. Random register writes, random memory as root, context, PASID and page tables, queues and
 * interrupt remapping entries (cyclic, all ones, half valid, legal descriptors), random requests, messages and answers in any order. Whatever happens: no
 * exception, no operation that accesses memory without end, and registers keep what the specification says of them (§11.4): read-only ones do not change,
 * reserved bits read zero, commands are seen done, PPF is the OR of all F.
 */
import type { HpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, DATA_CORRUPTION, PhysicalMemory } from "../../host/base/memory.ts";
import { Trace } from "../../host/base/trace.ts";
import type { HardwareIommu } from "../../host/hw/iommu/port.ts";
import { VtdUnit } from "../../host/hw/iommu/vtd/unit.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { Random } from "../oracle/random.ts";
import { HostileHardware, MOST_ACCESSES, OPERATIONS, runHostile } from "./hardware/hostile-hardware.ts";

const PAGES = 0x100;
/** Offsets of registers (§11.4), and their bytes. */
const GCMD = 0x18;
const GSTS = 0x1c;
const RTADDR = 0x20;
const FSTS = 0x34;
const IQH = 0x80;
const IQT = 0x88;
const IQA = 0x90;
const IQERCD = 0xb0;
const IRTA = 0xb8;
const PQA = 0xd0;
const IVA = 0xf0;
const IOTLB = 0xf8;
const RECORDS = 0x220;
const REGISTERS: readonly (readonly [offset: number, size: 4 | 8])[] = [
  ...[GCMD, FSTS, 0x38, 0x3c, 0x40, 0x44, 0x9c, 0xa0, 0xa4, 0xa8, 0xac, 0xdc, 0xe0, 0xe4, 0xe8, 0xec].map(
    (it) => [it, 4] as const,
  ),
  ...[RTADDR, 0x28, IQT, IQT, IQA, IRTA, 0xc0, 0xc8, PQA, IVA, IOTLB].map((it) => [it, 8] as const),
  ...[0, 1, 2, 3].map((it) => [RECORDS + 16 * it + 12, 4] as const),
];
const READ_ONLY = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x64, 0x58] as const;
/** Bits that read zero whatever was written. */
const READ_ZERO: readonly (readonly [number, number])[] = [
  [GCMD, 0xffffffff],
  [GSTS, 0x387fffff], // WBFS, AFLS and FLS with the reserved ones
  [RTADDR, 0x3ff],
  [0x2c, 0x80000000], // CCMD.ICC
  [FSTS, 0xffff008c],
  [0x38, 0x3fffffff], // FECTL
  [0x3c, 0xffff0000],
  [0x40, 3],
  [IQH, 0xfff8000f],
  [IQT, 0xfff8000f],
  [IQA, 0x7f8],
  [0x9c, 0xfffffffe], // ICS
  [0xa0, 0x3fffffff],
  [IQERCD, 0xfffffff8],
  [IRTA, 0x7f0],
  [0xc0, 0xfff8001f],
  [0xc8, 0xfff8001f],
  [PQA, 0xff8],
  [0xdc, 0xfffffffc],
  [0xe0, 0x3fffffff],
  [IVA, 0xffffffff],
  [IOTLB + 4, 0x80000000], // IVT
];

class HostileUnit extends HostileHardware {
  protected readonly pages = PAGES;
  protected readonly devices = 0x200;
  readonly #unit: VtdUnit;
  readonly #words: Uint32Array;
  readonly #clock = new Clock();
  readonly #identity: readonly number[];
  readonly #records: number;
  #accesses = 0;

  constructor(seed: number) {
    const random = new Random(seed);
    super(random);
    const memory = new PhysicalMemory<HpaPfn>();
    this.#words = memory.addBank(0 as HpaPfn, new ArrayBuffer(PAGES * 4096)).words;
    memory.faults = {
      at: (): AccessStatus => {
        this.#accesses++;
        if (this.#accesses > MOST_ACCESSES) throw new Error(`more than ${MOST_ACCESSES} accesses in one operation`);
        return random.chance(99.9) ? ACCESS_OK : random.pick([ACCESS_FAULT, DATA_CORRUPTION]);
      },
    };
    const sizes = random.pick([0, 2, 64]);
    this.#records = 1 + random.below(4);
    this.#unit = new VtdUnit(
      { name: "vtd", memory, clock: this.#clock, trace: new Trace(this.#clock) },
      {
        features: {
          NFR: this.#records - 1,
          CM: random.chance(20),
          ESRTPS: random.chance(50),
          ESIRTPS: random.chance(50),
          SMTS: random.chance(85),
          EIM: random.chance(70),
          MTS: random.chance(20),
          SAGAW: random.pick([2, 4, 8, 14]),
          ND: random.below(7),
        },
        version: random.pick([0x10, 0x50, 0x60]),
        caches: { contexts: sizes, pasids: sizes, translations: sizes * 4, tables: sizes * 8, interrupts: sizes },
        atsTags: 1 + random.below(32),
        ...(random.chance(50) ? { automaticDelayNs: 100 } : {}),
      },
    );
    const target = { invalidate: (): boolean => random.chance(60), pageResponse: (): void => {} };
    this.#unit.findTarget = (deviceId) => (deviceId % 3 === 0 ? undefined : target);
    const style = random.below(5);
    for (let index = 0; index < this.#words.length; index += 2) this.#fill(index, style);
    if (random.chance(70)) this.#bringUp();
    this.#identity = READ_ONLY.map((offset) => this.#read(offset));
  }

  /** Queues and tables somewhere in memory, everything on. */
  #bringUp(): void {
    const { random } = this;
    const page = (): bigint => BigInt(random.below(PAGES)) << 12n;
    this.#write(IQA, 8, page() | BigInt(random.below(4)) | (random.chance(85) ? 0x800n : 0n));
    this.#write(RTADDR, 8, page() | (random.chance(70) ? 0x400n : 0n));
    this.#write(IRTA, 8, page() | BigInt(random.below(16)) | (random.chance(40) ? 0x800n : 0n));
    this.#write(PQA, 8, page() | BigInt(random.below(4)));
    for (const bit of [1n << 30n, 1n << 26n, 1n << 24n, 1n << 25n, 1n << 31n]) this.#command(bit);
  }

  /** One bit of GCMD more, as drivers write it. */
  #command(bit: bigint): void {
    this.#write(GCMD, 4, BigInt(this.#read(GSTS) & 0x96ffffff) | bit);
  }

  #fill(index: number, style: number): void {
    const { random } = this;
    const kind = style === 3 ? random.below(3) : style;
    let pair: readonly [number, number];
    if (kind === 0) pair = [random.word(), random.chance(50) ? 0 : random.word()];
    else if (kind === 1) pair = random.chance(90) ? [0xffffffff, 0xffffffff] : [0, 0];
    else if (kind === 4 && index % 4 === 0) {
      const type = 1 + random.below(9);
      pair = [type | (random.below(16) << 4) | (random.below(8) << 16), random.chance(50) ? 0 : random.below(0x400)];
    } else {
      // what most structures take for a valid entry that points into memory: cycles are the rule
      const low = random.pick([1, 3, 7, 0x27, 0x67, 0x87, 0xe7, 0x41, 0x81, 0xc1, 0x101, 0x303, random.word() & 0xfff]);
      pair = [(random.below(PAGES) << 12) | low, random.chance(85) ? 0 : random.pick([2, 0x80000000, 0x80, 0x500])];
    }
    this.#words[index] = pair[0] >>> 0;
    this.#words[index + 1] = pair[1] >>> 0;
  }

  protected get iommu(): HardwareIommu {
    return this.#unit;
  }

  protected begin(): void {
    this.#accesses = 0;
  }

  protected advance(ns: number): void {
    this.#clock.advance(ns);
    this.#clock.fireDue();
  }

  protected readRegister(): void {
    this.#unit.registers.mmioRead(this.random.below(0x1100), this.random.pick([1, 2, 4, 8] as const));
  }

  protected fill(): void {
    this.#fill(this.random.below(this.#words.length / 2) * 2, this.random.below(5));
  }

  /** Interrupt requests, which random addresses would hardly be. */
  protected override askKnown(): boolean {
    const { random } = this;
    if (random.chance(85)) return false;
    const offset = random.below(4096);
    const data = random.pick([-1, random.below(256), random.word()]);
    this.#unit.translate(random.below(0x200), -1, false, 2, 0xfee00 + random.below(256), offset, false, data);
    return true;
  }

  protected writeRegister(): void {
    const { random } = this;
    const [offset, size] = random.chance(92)
      ? random.pick(REGISTERS)
      : ([random.below(0x1100), random.pick([1, 2, 4, 8] as const)] as const);
    this.#write(offset, size, this.#value(offset));
  }

  #value(offset: number): bigint {
    const { random } = this;
    if (random.chance(15)) return random.pick([0n, (1n << 64n) - 1n, random.bits(64)]);
    const page = BigInt(random.below(PAGES)) << 12n;
    if (offset === GCMD) {
      const levels = BigInt(this.#read(GSTS) & 0x96ffffff);
      return levels ^ (1n << BigInt(23 + random.below(9)));
    }
    if (offset === RTADDR || offset === IQA || offset === IRTA || offset === PQA) return page | random.bits(12);
    if (offset === IQT) return BigInt(random.below(256)) << 5n;
    if (offset === IOTLB || offset === 0x28) return random.bits(63) | (1n << 63n);
    if (offset === FSTS) return random.chance(60) ? BigInt(this.#read(FSTS)) : random.bits(8);
    return random.chance(60) ? BigInt(random.below(1024)) : random.bits(64);
  }

  #read(offset: number): number {
    return this.#unit.registers.mmioRead(offset, 4);
  }

  #write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    this.#unit.registers.mmioWrite(offset, size, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** A broken promise of a register, or null. */
  brokenPromise(): string | null {
    const changed = READ_ONLY.findIndex((offset, i) => this.#read(offset) !== this.#identity[i]);
    if (changed >= 0) return `the read-only register at 0x${READ_ONLY[changed]!.toString(16)} changed`;
    for (const [offset, zero] of READ_ZERO) {
      const value = this.#read(offset);
      if ((value & zero) !== 0)
        return `register 0x${offset.toString(16)} reads 0x${value.toString(16)}: reserved bits are set`;
    }
    const status = this.#read(FSTS);
    let pending = false;
    for (let i = 0; i < this.#records; i++) if (this.#read(RECORDS + 16 * i + 12) >>> 31 !== 0) pending = true;
    if (((status & 2) !== 0) !== pending) return `FSTS is 0x${status.toString(16)}: PPF is not the OR of F`;
    if (((status >>> 8) & 0xff) >= this.#records) return `FSTS is 0x${status.toString(16)}: FRI is no record`;
    if ((status & 0x10) !== 0 && (this.#read(IQERCD) & 0xf) === 0) return "IQE without IQEI";
    const size = 4096 << (this.#read(IQA) & 7);
    if (this.#queueOn && this.#read(IQH) >= size) return `IQH is 0x${this.#read(IQH).toString(16)}, beyond its queue`;
    return null;
  }

  get #queueOn(): boolean {
    return (this.#read(GSTS) & (1 << 26)) !== 0;
  }
}

/** Runs one seed; what went wrong, or null. `pause` is called after every operation. */
export function hostileSeed(seed: number, operations?: number, pause?: (operation: number) => void): string | null {
  return runHostile(new HostileUnit(seed), operations, pause);
}

export const fuzzer: Fuzzer = {
  about: "hostile registers, tables and queues of VT-d: no endless walk",
  round: (seed, count) => {
    const problem = hostileSeed(seed);
    count("operations", OPERATIONS);
    return problem === null ? null : { problem };
  },
};

/**
 * `nestbox fuzz smmuv3-registers`: hostile input to the SMMUv3 hardware model. Random register writes on both pages, random memory as stream tables,
 * contexts, tables and queues (cyclic, all ones, half valid, legal commands), random requests, messages and answers in any order. Whatever happens: no exception,
 * no operation that accesses memory without end, and registers keep what the specification says of them (IHI 0070 §6.3): read-only ones do not change,
 * reserved bits read zero, CR0ACK and IRQ_CTRLACK acknowledge what was written.
 */
import type { HpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, DATA_CORRUPTION, PhysicalMemory } from "../../host/base/memory.ts";
import { Trace } from "../../host/base/trace.ts";
import type { HardwareIommu } from "../../host/hw/iommu/port.ts";
import { Smmuv3 } from "../../host/hw/iommu/smmuv3/smmu.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { Random } from "../oracle/random.ts";
import { HostileHardware, MOST_ACCESSES, OPERATIONS, runHostile } from "./hardware/hostile-hardware.ts";

const PAGES = 0x100;
/** Offsets of registers (§6.2), and their bytes. */
const REGISTERS: readonly (readonly [offset: number, size: 4 | 8])[] = [
  ...[0x20, 0x28, 0x2c, 0x44, 0x50, 0x64, 0x70, 0x74, 0x88, 0x98, 0x9c].map((it) => [it, 4] as const),
  ...[0xb8, 0xbc, 0xd8, 0xdc, 0x100a8, 0x100ac, 0x100c8, 0x100cc].map((it) => [it, 4] as const),
  ...[0x68, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0].map((it) => [it, 8] as const),
];
const READ_ONLY = [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c] as const;
/** Bits that read zero whatever was written (§6.3). */
const READ_ZERO: readonly (readonly [number, number])[] = [
  [0x20, 0xfffffa20], // CR0, with VMW and ATSCHK
  [0x24, 0xfffffa20],
  [0x28, 0xfffff000], // CR1
  [0x2c, 0xfffffff0], // CR2
  [0x44, 0xffe0c0e0 & ~0x80000000], // GBPA
  [0x50, 0xfffffff8], // IRQ_CTRL
  [0x54, 0xfffffff8],
  [0x60, 0xfffff802], // GERROR
  [0x64, 0xfffff802],
];
const COMMANDS = [
  0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x22, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44, 0x45,
  0x46,
] as const;

class HostileSmmu extends HostileHardware {
  protected readonly pages = PAGES;
  protected readonly devices = 16;
  readonly #smmu: Smmuv3;
  readonly #words: Uint32Array;
  readonly #clock = new Clock();
  readonly #identity: readonly number[];
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
    this.#smmu = new Smmuv3(
      { name: "smmu", memory, clock: this.#clock, trace: new Trace(this.#clock) },
      {
        features: {
          VMW: random.chance(30),
          CMDQS: 3 + random.below(13),
          SIDSIZE: 8 + random.below(17),
          HTTU: random.pick([0, 1, 2] as const),
        },
        caches: { streams: sizes, contexts: sizes, translations: sizes * 4, tables: sizes * 8 },
        atsTags: 1 + random.below(32),
        cmdqv: random.chance(30) ? {} : null,
        ...(random.chance(50) ? { automaticDelayNs: 100 } : {}),
      },
    );
    const target = { invalidate: (): boolean => random.chance(60), pageResponse: (): void => {} };
    this.#smmu.findTarget = (deviceId) => (deviceId % 3 === 0 ? undefined : target);
    const style = random.below(5);
    for (let index = 0; index < this.#words.length; index += 2) this.#fill(index, style);
    if (random.chance(70)) this.#bringUp();
    this.#identity = READ_ONLY.map((offset) => this.#read(offset));
  }

  /** Queues and a linear stream table somewhere in memory, everything on. */
  #bringUp(): void {
    const page = (): bigint => BigInt(this.random.below(PAGES)) << 12n;
    this.#write(0x90, 8, page() | BigInt(4 + this.random.below(5)));
    this.#write(0xa0, 8, page() | BigInt(2 + this.random.below(6)));
    this.#write(0x80, 8, page());
    this.#write(0x88, 4, BigInt(4 + this.random.below(8)) | (this.random.chance(40) ? 0x10180n : 0n));
    this.#write(0x20, 4, 0xcn);
    this.#write(0x20, 4, 0x1dn);
  }

  #fill(index: number, style: number): void {
    const { random } = this;
    const kind = style === 3 ? random.below(3) : style;
    let pair: readonly [number, number];
    if (kind === 0) pair = [random.word(), random.chance(50) ? 0 : random.word()];
    else if (kind === 1) pair = random.chance(90) ? [0xffffffff, 0xffffffff] : [0, 0];
    else if (kind === 4 && index % 4 === 0)
      pair = [random.pick(COMMANDS) | (random.word() & 0xfffff800), random.word() & 0xffff];
    else {
      // what most structures take for a valid entry that points into memory: cycles are the rule
      const low = random.pick([0x3, 0x1, 0xb, 0xd, 0xf, 0x9, 0x403, 0x743, 0x7c3, random.word() & 0xfff]);
      pair = [
        (random.below(PAGES) << 12) | low,
        random.chance(80) ? 0 : random.pick([0x400000, 0x80000000, 0x1, 0x600000]),
      ];
    }
    this.#words[index] = pair[0] >>> 0;
    this.#words[index + 1] = pair[1] >>> 0;
  }

  protected get iommu(): HardwareIommu {
    return this.#smmu;
  }

  protected begin(): void {
    this.#accesses = 0;
  }

  protected advance(ns: number): void {
    this.#clock.advance(ns);
    this.#clock.fireDue();
  }

  protected readRegister(): void {
    this.#smmu.registers.mmioRead(this.random.below(0x20000), this.random.pick([1, 2, 4, 8] as const));
  }

  protected fill(): void {
    this.#fill(this.random.below(this.#words.length / 2) * 2, this.random.below(5));
  }

  protected writeRegister(): void {
    const { random } = this;
    const [offset, size] = random.chance(92)
      ? random.pick(REGISTERS)
      : ([random.below(0x20000), random.pick([1, 2, 4, 8] as const)] as const);
    this.#write(offset, size, this.#value(offset));
  }

  #value(offset: number): bigint {
    const { random } = this;
    if (random.chance(15)) return random.pick([0n, (1n << 64n) - 1n, random.bits(64)]);
    const page = BigInt(random.below(PAGES)) << 12n;
    if (offset === 0x20) return random.pick([0x1dn, 0xcn, 0x1n, 0n, random.bits(5)]);
    if (offset === 0x80 || offset === 0x90 || offset === 0xa0 || offset === 0xc0)
      return page | BigInt(random.below(12));
    if (offset === 0x68 || offset === 0xb0 || offset === 0xd0) return page;
    if (offset === 0x88) return BigInt(random.below(24)) | (random.chance(50) ? 0x10180n : 0n);
    if (offset === 0x64) return random.chance(60) ? BigInt(this.#read(0x60)) : random.bits(10);
    if (offset === 0x44) return random.bits(21) | (1n << 31n);
    return random.chance(60) ? BigInt(random.below(1024)) : random.bits(64);
  }

  #read(offset: number): number {
    return this.#smmu.registers.mmioRead(offset, 4);
  }

  #write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    this.#smmu.registers.mmioWrite(offset, size, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** A broken promise of a register, or null. */
  brokenPromise(): string | null {
    const changed = READ_ONLY.findIndex((offset, i) => this.#read(offset) !== this.#identity[i]);
    if (changed >= 0) return `the identification register at 0x${READ_ONLY[changed]!.toString(16)} changed`;
    for (const [offset, zero] of READ_ZERO) {
      const value = this.#read(offset);
      if ((value & zero) !== 0)
        return `register 0x${offset.toString(16)} reads 0x${value.toString(16)}: reserved bits are set`;
    }
    if (this.#read(0x20) !== this.#read(0x24)) return "CR0ACK is not CR0";
    if (this.#read(0x50) !== this.#read(0x54)) return "IRQ_CTRLACK is not IRQ_CTRL";
    if (this.#read(0x44) >>> 31 !== 0) return "GBPA.Update stays set";
    for (const [base, index] of [
      [0x90, 0x9c],
      [0xa0, 0x100a8],
    ] as const) {
      // wrap and index of LOG2SIZE + 1 bits; the error field and OVFLG above them
      const bits = Math.min(this.#read(base) & 31, 19) + 1;
      const value = this.#read(index) & 0xfffff;
      if (value >= 2 ** bits && this.#on())
        return `register 0x${index.toString(16)} is 0x${value.toString(16)}, beyond its queue`;
    }
    return null;
  }

  /** Bases and sizes are guarded only while their queues are on. */
  #on(): boolean {
    return (this.#read(0x20) & 0xc) === 0xc;
  }
}

/** Runs one seed; what went wrong, or null. `pause` is called after every operation. */
export function hostileSeed(seed: number, operations?: number, pause?: (operation: number) => void): string | null {
  return runHostile(new HostileSmmu(seed), operations, pause);
}

export const fuzzer: Fuzzer = {
  about: "hostile registers, tables and queues of the SMMUv3: no endless walk",
  round: (seed, count) => {
    const problem = hostileSeed(seed);
    count("operations", OPERATIONS);
    return problem === null ? null : { problem };
  },
};

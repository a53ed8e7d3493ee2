/**
 * `nestbox fuzz registers`: hostile input to the RISC-V IOMMU hardware model. Random register writes, random memory as directories, tables and queues
 * (cyclic, all ones, half valid), random requests and messages in any order. Whatever happens: no exception, no operation that accesses memory without
 * end, no growth without bound, and registers keep their read-only and reserved bits (§6).
 */
import type { HardwareIommu } from "../../host/hw/iommu/port.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { Random } from "../oracle/random.ts";
import { randomConfiguration } from "../oracle/riscv-iommu/generate/configuration.ts";
import { type HostileMachine, hostileMachine } from "../oracle/riscv-iommu/hardware-adapter.ts";
import type { Request } from "../oracle/riscv-iommu/outcome.ts";
import { HostileHardware, MOST_ACCESSES, OPERATIONS, runHostile } from "./hardware/hostile-hardware.ts";

/** Pages of garbage, from frame 0 on; queues and most pointers point into them. Behind them lie pages for a machine that is mostly valid. */
const PAGES = 48;
const ALL_PAGES = 0x180;
/** Registers by offset and size (§6.1). */
const REGISTERS: readonly (readonly [number, 4 | 8])[] = [
  [0, 8],
  [8, 4],
  [12, 4],
  [16, 8],
  [24, 8],
  [32, 4],
  [36, 4],
  [40, 8],
  [48, 4],
  [52, 4],
  [56, 8],
  [64, 4],
  [68, 4],
  [72, 4],
  [76, 4],
  [80, 4],
  [84, 4],
  [88, 4],
  [92, 4],
  [96, 8],
  [104, 8],
  [112, 8],
  [344, 8],
  [352, 8],
  [360, 8],
  [592, 8],
  [600, 8],
  [608, 8],
  [616, 8],
  [624, 4],
  [760, 8],
  [768, 8],
  [776, 4],
  [780, 4],
  [784, 8],
  [1008, 8],
  [1016, 4],
];

/** Bits that read 0 whatever was written: reserved (§6) or, in a queue's index, beyond any legal LOG2SZ. */
const READ_ZERO: readonly (readonly [number, 4 | 8, bigint])[] = [
  [8, 4, 0xfff8n],
  [16, 8, 0xffc0_0000_0000_03e0n],
  [24, 8, 0xffc0_0000_0000_03e0n],
  [40, 8, 0xffc0_0000_0000_03e0n],
  [56, 8, 0xffc0_0000_0000_03e0n],
  [72, 4, 0x0ffc_f0fcn],
  [76, 4, 0x0ffc_fcfcn],
  [80, 4, 0x0ffc_fcfcn],
  [84, 4, 0xffff_fff0n],
  [628, 4, 0xffff_ffffn],
  [1024, 4, 0xffff_ffffn],
  [4092, 4, 0xffff_ffffn],
];

/** The three queues (§6.1): base and control registers, the index software writes and the one the IOMMU does. */
const QUEUES = [
  { base: 24, software: 36, hardware: 32, control: 72 },
  { base: 40, software: 48, hardware: 52, control: 76 },
  { base: 56, software: 64, hardware: 68, control: 80 },
] as const;

class HostileRiscv extends HostileHardware {
  protected readonly pages = PAGES;
  protected readonly devices = 8;
  readonly machine: HostileMachine;
  readonly #capabilities: bigint;
  readonly #requests: readonly Request[];
  /** Bases of queues that were moved while on. */
  readonly #moved = new Set<number>();

  constructor(seed: number) {
    super(new Random(seed));
    // Half of the machines start from a valid directory and tables, so that requests come far.
    const start = this.random.chance(50) ? randomConfiguration(seed, 12) : null;
    this.#requests = start?.requests ?? [];
    this.machine = hostileMachine(ALL_PAGES, this.random, MOST_ACCESSES, start?.implementation ?? null);
    const { words } = this.machine;
    if (start !== null) {
      for (const [address, value] of start.memory.words) {
        if (address >> 12n >= ALL_PAGES) continue;
        words[Number(address >> 2n)] = Number(value & 0xffff_ffffn);
        words[Number(address >> 2n) + 1] = Number(value >> 32n);
      }
      const mode = { off: 0n, bare: 1n, "1lvl": 2n, "2lvl": 3n, "3lvl": 4n }[start.ddtp.mode];
      this.machine.write(16, 8, (start.ddtp.ppn << 10n) | mode);
      this.machine.write(40, 8, 5n);
      this.machine.write(76, 4, 1n);
    }
    const style = this.random.below(5);
    for (let index = 0; index < PAGES * 1024; index += 2) {
      // The second doubleword of a command is mostly empty.
      const [lo, hi] = style === 4 && index % 4 === 2 && this.random.chance(70) ? [0, 0] : this.#word(style);
      words[index] = lo;
      words[index + 1] = hi;
    }
    this.#capabilities = this.machine.read(0, 8);
  }

  protected get iommu(): HardwareIommu {
    return this.machine.iommu;
  }

  protected begin(): void {
    this.machine.beginOperation();
  }

  protected advance(ns: number): void {
    this.machine.advance(ns);
  }

  protected readRegister(): void {
    this.machine.read(this.random.below(4096), this.random.pick([1, 2, 4, 8] as const));
  }

  protected fill(): void {
    const { random, machine } = this;
    const [lo, hi] = this.#word(random.below(5));
    const at = random.below(PAGES * 512) * 2;
    machine.words[at] = lo;
    machine.words[at + 1] = hi;
  }

  protected override askKnown(): boolean {
    if (this.#requests.length === 0 || !this.random.chance(70)) return false;
    this.#ask(this.random.pick(this.#requests));
    return true;
  }

  #word(style: number): [number, number] {
    const { random } = this;
    const kind = style === 3 ? random.below(3) : style;
    if (kind === 4) return this.#command();
    if (kind === 0) return [random.word(), random.chance(50) ? 0 : random.word()];
    if (kind === 1) return random.chance(90) ? [0xffff_ffff, 0xffff_ffff] : [0, 0];
    return this.#pointer();
  }

  /** Mostly the first doubleword of a legal command (§4.1). */
  #command(): [number, number] {
    const { random } = this;
    const operation = random.pick([0x001, 0x081, 0x002, 0x002, 0x003, 0x083, 0x004, 0x084]);
    const low = operation | (random.chance(50) ? 0x400 : 0) | (random.chance(50) ? random.below(4) << 12 : 0);
    const high = random.below(8) | (random.below(4) << 8) | (random.chance(30) ? random.below(4) << 12 : 0);
    return random.chance(90) ? [low >>> 0, high >>> 0] : [random.word(), random.word()];
  }

  /** Something that most structures take for a valid entry that points into memory: cycles are the rule. */
  #pointer(): [number, number] {
    const { random } = this;
    const page = random.below(PAGES);
    const flags = random.pick([0x01, 0x01, 0x01, 0xdf, 0xcf, 0x57, 0x07, 0x03, random.word() & 0x3ff]);
    const high = random.chance(80) ? 0 : random.pick([0x8000_0000, 0x1000_0000, 0x8001_0000, 0x3000_0000]);
    return [((page << 10) | flags) >>> 0, high >>> 0];
  }

  #ask({ deviceId, processId, privileged, type, access, iova, noWrite, executeRequested }: Request): void {
    const { iommu } = this.machine;
    const pasid = processId === null ? -1 : Number(processId);
    const pfn = Number(iova >> 12n);
    if (type === "ats") iommu.translateForDevice(Number(deviceId), pasid, pfn, noWrite, privileged, executeRequested);
    else {
      const accesses = { read: 1, write: 2, execute: 4 } as const;
      iommu.translate(Number(deviceId), pasid, privileged, accesses[access], pfn, 0, type === "translated", 77);
    }
  }

  protected writeRegister(): void {
    const { random, machine } = this;
    const [offset, size] = random.chance(92)
      ? random.pick(REGISTERS)
      : ([random.below(4096), random.pick([1, 2, 4, 8] as const)] as const);
    // A queue that is moved while it is on behaves as it likes (§6.6): its indexes prove nothing from then on.
    for (const queue of QUEUES) {
      const touched = offset < queue.base + 8 && offset + size > queue.base;
      if (touched && (machine.read(queue.control, 4) & 0x3_0000n) !== 0n) this.#moved.add(queue.base);
    }
    machine.write(offset, size, this.#registerValue(offset));
  }

  #registerValue(offset: number): bigint {
    const { random } = this;
    if (random.chance(15)) return random.pick([0n, (1n << 64n) - 1n, random.bits(64)]);
    const page = BigInt(random.below(PAGES)) << 10n;
    if (offset === 16) return page | BigInt(random.below(6));
    if (offset === 24 || offset === 40 || offset === 56) return page | BigInt(random.below(8));
    if (offset === 72 || offset === 76 || offset === 80) return random.chance(70) ? 0b11n : random.bits(32);
    if (offset === 608) return random.bits(64) | 1n;
    return random.chance(50) ? BigInt(random.below(256)) : random.bits(64);
  }

  /** A broken register promise, or null. */
  brokenPromise(): string | null {
    const { machine } = this;
    if (machine.read(0, 8) !== this.#capabilities) return "capabilities changed";
    for (const [offset, size, zero] of READ_ZERO) {
      const value = machine.read(offset, size);
      if ((value & zero) !== 0n) return `register ${offset} reads 0x${value.toString(16)}: reserved bits are set`;
    }
    for (const { base, software, hardware, control } of QUEUES) {
      if (this.#moved.has(base)) continue;
      const entries = 2n << (machine.read(base, 8) & 0x1fn);
      // The IOMMU's own index starts anew when the queue is switched on; until then it means nothing.
      const on = (machine.read(control, 4) & 0x1_0000n) !== 0n;
      for (const index of on ? [software, hardware] : [software]) {
        const value = machine.read(index, 4);
        if (value >= entries) return `register ${index} is ${value}, the queue has ${entries} entries`;
      }
    }
    return null;
  }
}

/** Runs one seed; what went wrong, or null. `pause` is called after every operation. */
export function hostileSeed(seed: number, operations?: number, pause?: (operation: number) => void): string | null {
  return runHostile(new HostileRiscv(seed), operations, pause);
}

export const fuzzer: Fuzzer = {
  about: "hostile registers, tables and queues of the IOMMU: no endless walk",
  round: (seed, count) => {
    const problem = hostileSeed(seed);
    count("operations", OPERATIONS);
    return problem === null ? null : { problem };
  },
};

/**
 * QEMU's virt machine with its SMMUv3 and many edu functions as DMA sources. Its RAM is a file, so that tables are written and data is found without asking
 * QEMU; registers, configuration space and edu are reached through qtest the way a driver reaches them.
 *
 * A write: edu holds a mark that nothing else holds, and the DMA stores it somewhere. A read: every place that may be meant holds a pattern of its own; with
 * SMMUEN = 0, edu then stores what it read where the file shows it.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Qemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import type { Memory } from "../memory.ts";
import { Qtest } from "../qtest.ts";
import type { Random } from "../random.ts";
import { ADAPTER_MEMORY, type Command } from "../smmuv3/adapter.ts";
import type { Identification, Programming } from "../smmuv3/identification.ts";
import { RAM, RAM_MIB } from "./ram.ts";

/** Bases of QEMU's virt machine (hw/arm/virt.c). */
const SMMU = 0x905_0000n;
const ECAM = 0x40_1000_0000n;

/** §6.2 */
const IDR = { IDR0: 0x00n, IDR1: 0x04n, IDR3: 0x0cn, IDR5: 0x14n, AIDR: 0x1cn } as const;
const CR0 = 0x20n;
const CR2 = 0x2cn;
const GBPA = 0x44n;
const GERROR = 0x60n;
const GERRORN = 0x64n;
const STRTAB_BASE = 0x80n;
const STRTAB_BASE_CFG = 0x88n;
const CMDQ_BASE = 0x90n;
const CMDQ_PROD = 0x98n;
const CMDQ_CONS = 0x9cn;
const EVENTQ_BASE = 0xa0n;
const EVENTQ_PROD = 0x100a8n;
const EVENTQ_CONS = 0x100acn;
/** CMDQEN and EVENTQEN. */
const QUEUES = 0b1100n;

const COMMANDS = ADAPTER_MEMORY;
const EVENTS = ADAPTER_MEMORY + 0x1000n;
const SCRATCH = ADAPTER_MEMORY + 0x2000n;
const LOG2_COMMANDS = 8n;
const LOG2_EVENTS = 7n;
/** CMD_CFGI_ALL, CMD_TLBI_NSNH_ALL (§4.3.4, §4.4). */
const FORGET: readonly Command[] = [
  [0x04n, 31n],
  [0x30n, 0n],
];
const CMD_SYNC: Command = [0x46n, 0n];

/** edu's registers (docs/specs/edu.rst of QEMU) and the two doublewords of its buffer in use. */
const EDU = { source: 0x80n, destination: 0x88n, count: 0x90n, command: 0x98n } as const;
const BUFFER = 0x4_0000n;
const MARK_AT = BUFFER;
const READ_AT = BUFFER + 64n;
const RUN = 1n;
const TO_MEMORY = 2n;
/** Of a DMA: QEMU makes two accesses, and two event records, of a longer one that goes nowhere. */
const BYTES = 4;
/** edu's timer, ns. */
const DMA_TIME = 100_000_000n;

/** Slots of the root bus with one function each, and a root port whose bus may have any number, with eight functions of one slot. */
const SLOTS = 15n;
const PORT = 16n;
const PORT_FUNCTIONS = 8n;
const BAR = 0x1000_0000n;
const PORT_BAR = 0x1100_0000n;

/** Where worlds for this machine have their structures: beyond the 256 MiB in which they look for data. */
export const STRUCTURES = 0x6000_0000n;

/** Whether an edu can send with this StreamID. */
export function reachable(sid: bigint): boolean {
  if (sid >> 8n === 0n) return (sid & 7n) === 0n && sid !== 0n && sid >> 3n <= SLOTS;
  return sid < 0x1_0000n && (sid & 0xffn) < PORT_FUNCTIONS;
}

/** A StreamID of `bits` bits, one that an edu can send with if there is one. */
export function streamId(random: Random, bits: bigint): bigint {
  const buses = bits > 8n ? Number(1n << (bits - 8n)) - 1 : 0;
  if (buses > 0 && random.chance(60)) return (BigInt(1 + random.below(buses)) << 8n) | random.bits(3);
  const slots = bits >= 7n ? SLOTS : (1n << bits) / 8n - 1n;
  return slots < 1n ? random.bits(bits) : (1n + BigInt(random.below(Number(slots)))) * 8n;
}

export interface Seen {
  /** Of the places given, the one that the mark arrived at or that was read; null: none. */
  readonly arrived: bigint | null;
  /** Event records, four doublewords each. */
  readonly records: readonly (readonly bigint[])[];
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

export class QemuMachine {
  readonly identification: Identification;
  readonly #qtest: Qtest;
  readonly #folder: string;
  readonly #ram: number;
  readonly #word = Buffer.alloc(8);
  /** Pages of the world in RAM. */
  #pages: readonly bigint[] = [];
  #programming: Programming | null = null;
  #commands = 0n;
  #bus = 1n;
  #patterns = 0n;

  static async start(qemu: Qemu): Promise<QemuMachine> {
    const folder = mkdtempSync(join(tmpdir(), "nestbox-smmuv3-qemu-"));
    const file = join(folder, "ram");
    const ram = openSync(file, "w+");
    ftruncateSync(ram, Number(RAM_MIB << 20n));
    const edu = (more: string): string[] => ["-device", `edu,dma_mask=0xffffffffffffffff,${more}`];
    const devices: string[] = [];
    for (let slot = 1n; slot <= SLOTS; slot++) devices.push(...edu(`addr=${slot.toString(16)}.0`));
    devices.push("-device", `pcie-root-port,id=root-port,chassis=1,slot=1,addr=${PORT.toString(16)}.0`);
    for (let at = 0n; at < PORT_FUNCTIONS; at++) devices.push(...edu(`bus=root-port,multifunction=on,addr=0.${at}`));
    const backend = `memory-backend-file,id=ram,mem-path=${file},size=${RAM_MIB}M,share=on`;
    const machine = ["-machine", "virt,iommu=smmuv3,memory-backend=ram", "-cpu", "cortex-a57", "-m", `${RAM_MIB}M`];
    const qtest = new Qtest(qemu, ["-object", backend, ...machine, ...devices]);
    try {
      const names = Object.entries(IDR);
      const values = await qtest.send(names.map(([, offset]) => `readl ${hex(SMMU + offset)}`));
      const identification = Object.fromEntries(names.map(([name], at) => [name, values[at]!])) as Record<
        keyof Identification,
        bigint
      >;
      const made = new QemuMachine(qtest, folder, ram, identification);
      await made.#prepare();
      return made;
    } catch (error) {
      await qtest.stop();
      closeSync(ram);
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  private constructor(qtest: Qtest, folder: string, ram: number, identification: Identification) {
    this.#qtest = qtest;
    this.#folder = folder;
    this.#ram = ram;
    this.identification = identification;
  }

  async stop(): Promise<void> {
    await this.#qtest.stop();
    closeSync(this.#ram);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** What a DMA stores and loads. */
  #half(address: bigint): bigint {
    return this.word(address) & 0xffff_ffffn;
  }

  word(address: bigint): bigint {
    readSync(this.#ram, this.#word, 0, 8, Number(address - RAM));
    return this.#word.readBigUInt64LE();
  }

  store(address: bigint, value: bigint): void {
    this.#word.writeBigUInt64LE(value);
    writeSync(this.#ram, this.#word, 0, 8, Number(address - RAM));
  }

  /** BARs, bus mastering, queues, and the mark in every edu: at reset SMMUEN = 0 and GBPA lets pass. */
  async #prepare(): Promise<void> {
    const lines: string[] = [];
    const configure = (bdf: bigint, offset: bigint, value: bigint) =>
      lines.push(`writel ${hex(ECAM + (bdf << 12n) + offset)} ${hex(value)}`);
    const port = PORT << 3n;
    configure(port, 0x18n, this.#busNumbers());
    configure(port, 0x20n, ((PORT_BAR + ((PORT_FUNCTIONS - 1n) << 20n)) & 0xfff0_0000n) | (PORT_BAR >> 16n));
    configure(port, 0x04n, 0b110n);
    const functions: [bigint, bigint][] = [];
    for (let slot = 1n; slot <= SLOTS; slot++) functions.push([slot << 3n, BAR + (slot << 20n)]);
    for (let at = 0n; at < PORT_FUNCTIONS; at++) functions.push([(this.#bus << 8n) | at, PORT_BAR + (at << 20n)]);
    for (const [bdf, bar] of functions) {
      configure(bdf, 0x10n, bar);
      configure(bdf, 0x04n, 0b110n);
    }
    await this.#qtest.send(lines);
    for (const [bdf] of functions) {
      const mark = markOf(bdf);
      this.store(SCRATCH, mark);
      await this.#qtest.send(this.#dma(bdf, SCRATCH, MARK_AT, 0n));
      this.store(SCRATCH, 0n);
      await this.#qtest.send(this.#dma(bdf, MARK_AT, SCRATCH, TO_MEMORY));
      if (this.#half(SCRATCH) !== mark) throw new Error(`edu ${hex(bdf)} does not read and write without translation`);
    }
    await this.#qtest.send([
      `writeq ${hex(SMMU + CMDQ_BASE)} ${hex(COMMANDS | LOG2_COMMANDS)}`,
      `writeq ${hex(SMMU + EVENTQ_BASE)} ${hex(EVENTS | LOG2_EVENTS)}`,
      `writel ${hex(SMMU + CR0)} ${hex(QUEUES)}`,
    ]);
  }

  #busNumbers(): bigint {
    return (this.#bus << 8n) | (this.#bus << 16n);
  }

  #dma(sid: bigint, source: bigint, destination: bigint, direction: bigint): string[] {
    const bar = sid >> 8n === 0n ? BAR + ((sid >> 3n) << 20n) : PORT_BAR + ((sid & 7n) << 20n);
    return [
      `writeq ${hex(bar + EDU.source)} ${hex(source)}`,
      `writeq ${hex(bar + EDU.destination)} ${hex(destination)}`,
      `writeq ${hex(bar + EDU.count)} ${BYTES}`,
      `writeq ${hex(bar + EDU.command)} ${hex(RUN | direction)}`,
      `clock_step ${DMA_TIME}`,
    ];
  }

  /** Puts a world in place of the one before. */
  async program(programming: Programming, memory: Memory): Promise<void> {
    const zeros = Buffer.alloc(4096);
    for (const page of this.#pages) writeSync(this.#ram, zeros, 0, 4096, Number((page << 12n) - RAM));
    this.#pages = [...memory.pages];
    for (const [address, value] of memory.words) this.store(address, value);
    this.#programming = programming;
    await this.#qtest.send([
      `writel ${hex(SMMU + CR0)} ${hex(QUEUES)}`,
      `writeq ${hex(SMMU + STRTAB_BASE)} ${hex(programming.STRTAB_BASE)}`,
      `writel ${hex(SMMU + STRTAB_BASE_CFG)} ${hex(programming.STRTAB_BASE_CFG)}`,
      `writel ${hex(SMMU + CR2)} ${hex(programming.CR2)}`,
      `writel ${hex(SMMU + GBPA)} ${hex(programming.GBPA | (1n << 31n))}`,
      `writel ${hex(SMMU + CR0)} ${hex(programming.CR0 | QUEUES)}`,
    ]);
  }

  /** Makes the SMMU forget what it cached. */
  forget(): Promise<void> {
    return this.execute(FORGET);
  }

  /** Commands, and a CMD_SYNC behind them. */
  async execute(commands: readonly Command[]): Promise<void> {
    const mask = (2n << LOG2_COMMANDS) - 1n;
    for (const [first, second] of [...commands, CMD_SYNC]) {
      const at = COMMANDS + (this.#commands & (mask >> 1n)) * 16n;
      this.store(at, first);
      this.store(at + 8n, second);
      this.#commands = (this.#commands + 1n) & mask;
    }
    const [, consumed, error, acknowledged] = await this.#qtest.send([
      `writel ${hex(SMMU + CMDQ_PROD)} ${hex(this.#commands)}`,
      `readl ${hex(SMMU + CMDQ_CONS)}`,
      `readl ${hex(SMMU + GERROR)}`,
      `readl ${hex(SMMU + GERRORN)}`,
    ]);
    if ((consumed! & mask) !== this.#commands || error !== acknowledged)
      throw new Error(`QEMU's command queue stopped at ${hex(consumed!)}, GERROR ${hex(error!)}`);
  }

  /** One DMA of four bytes at `iova` (a multiple of 8), and which of `places` in RAM it reached. */
  async access(sid: bigint, iova: bigint, write: boolean, places: readonly bigint[]): Promise<Seen> {
    const lines: string[] = [];
    const bus = sid >> 8n;
    if (bus !== 0n && bus !== this.#bus) {
      this.#bus = bus;
      lines.push(`writel ${hex(ECAM + (PORT << 15n) + 0x18n)} ${hex(this.#busNumbers())}`);
    }
    const before = places.map((place) => this.word(place));
    const patterns = places.map((place) => {
      const pattern = 0x5000_0000n + (++this.#patterns & 0xff_ffffn);
      this.store(place, pattern);
      return pattern;
    });
    if (write) lines.push(...this.#dma(sid, MARK_AT, iova, TO_MEMORY));
    else lines.push(...this.#dma(sid, iova, READ_AT, 0n));
    lines.push(`readl ${hex(SMMU + EVENTQ_PROD)}`);
    const produced = (await this.#qtest.send(lines)).at(-1)!;
    const records = await this.#takeRecords(produced);
    let arrived: bigint | null = null;
    if (write) arrived = places.find((place) => this.#half(place) === markOf(sid)) ?? null;
    else {
      const read = await this.#readBuffer(sid);
      arrived = places.find((_place, index) => patterns[index] === read) ?? null;
    }
    places.forEach((place, index) => {
      this.store(place, before[index]!);
    });
    return { arrived, records };
  }

  async #readBuffer(sid: bigint): Promise<bigint> {
    const { GBPA: after, CR0: enable } = this.#programming!;
    await this.#qtest.send([
      `writel ${hex(SMMU + CR0)} ${hex(QUEUES)}`,
      `writel ${hex(SMMU + GBPA)} ${hex(1n << 31n)}`,
      ...this.#dma(sid, READ_AT, SCRATCH, TO_MEMORY),
      `writel ${hex(SMMU + GBPA)} ${hex(after | (1n << 31n))}`,
      `writel ${hex(SMMU + CR0)} ${hex(enable | QUEUES)}`,
    ]);
    return this.#half(SCRATCH);
  }

  async #takeRecords(produced: bigint): Promise<bigint[][]> {
    const mask = (2n << LOG2_EVENTS) - 1n;
    const [consumed] = await this.#qtest.send([`readl ${hex(SMMU + EVENTQ_CONS)}`]);
    const records: bigint[][] = [];
    for (let at = consumed! & mask; at !== (produced & mask); at = (at + 1n) & mask) {
      const from = EVENTS + (at & (mask >> 1n)) * 32n;
      records.push([0n, 8n, 16n, 24n].map((offset) => this.word(from + offset)));
    }
    if (records.length > 0) await this.#qtest.send([`writel ${hex(SMMU + EVENTQ_CONS)} ${hex(produced)}`]);
    return records;
  }
}

/** What only this edu stores. */
function markOf(sid: bigint): bigint {
  return 0xed00_0000n | (sid >> 8n === 0n ? sid : 0x1_0000n | (sid & 7n));
}

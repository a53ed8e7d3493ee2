/**
 * QEMU's q35 machine with its intel-iommu and many edu functions as DMA sources. Its RAM is a file, so that tables are written and data is found without asking
 * QEMU; registers, configuration space and edu are reached through qtest the way a driver reaches them.
 *
 * A write: edu holds a mark that nothing else holds, and the DMA stores it somewhere. A read: every place that may be meant holds a pattern of its own; with
 * TES = 0, edu then stores what it read where the file shows it. Turning translation off makes QEMU forget what it cached, so sequences do not look.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Qemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import type { Memory } from "../memory.ts";
import { Qtest } from "../qtest.ts";
import type { Random } from "../random.ts";
import { bits, type Identification, type Programming } from "../vtd/capabilities.ts";
import { contextGlobal, interruptGlobal, iotlbGlobal, pasidCacheGlobal } from "../vtd/generate/descriptors.ts";
import type { InterruptRequest } from "../vtd/interrupt.ts";
import type { Descriptor } from "../vtd/invalidation.ts";
import { RAM_MIB } from "./ram.ts";

/** Of the machine (hw/i386/intel_iommu.c, Q35_HOST_BRIDGE_IOMMU_ADDR). */
const UNIT = 0xfed9_0000n;

/** §11.4 */
const VER = 0x00n;
const CAP = 0x08n;
const ECAP = 0x10n;
const GCMD = 0x18n;
const RTADDR = 0x20n;
const FSTS = 0x34n;
const IQH = 0x80n;
const IQT = 0x88n;
const IQA = 0x90n;
const IRTA = 0xb8n;
const TE = 1n << 31n;
const SRTP = 1n << 30n;
const QIE = 1n << 26n;
const IRE = 1n << 25n;
const SIRTP = 1n << 24n;
const CFI = 1n << 23n;
/** PFO, IQE, ICE, ITE. */
const ERRORS = 0x71n;

/** A page each: 128 or 256 descriptors, what waits write, what edu stores. */
const QUEUE = 0x100_0000n;
const STATUS = 0x100_1000n;
const SCRATCH = 0x100_2000n;

/** edu's registers (docs/specs/edu.rst of QEMU) and the two doublewords of its buffer in use. */
const EDU = { source: 0x80n, destination: 0x88n, count: 0x90n, command: 0x98n } as const;
const BUFFER = 0x4_0000n;
const MARK_AT = BUFFER;
const READ_AT = BUFFER + 64n;
const RUN = 1n;
const TO_MEMORY = 2n;
const BYTES = 4;
/** edu's timer, ns. */
const DMA_TIME = 100_000_000n;

/**
 * Slots of the root bus with one function each, on both sides of devfn 80h, and a root port whose bus may have any number, with two functions. Few: QEMU goes
 * through all of them with every command and invalidation.
 */
const SLOTS = [2n, 3n, 16n] as const;
const PORT = 22n;
const PORT_FUNCTIONS = 2n;
const BAR = 0xe000_0000n;
const PORT_BAR = 0xe800_0000n;

/** Where worlds for this machine have their structures: clear of the queue, and of 256 MiB in which they look for data. */
export const STRUCTURES = 0x2000_0000n;

/** Whether an edu can send with this Source-ID. */
export function reachable(sid: bigint): boolean {
  if (sid >> 8n === 0n) return (sid & 7n) === 0n && SLOTS.some((slot) => slot === sid >> 3n);
  return sid < 0x1_0000n && (sid & 0xffn) < PORT_FUNCTIONS;
}

/** One that an edu can send with. */
export function sourceId(random: Random): bigint {
  if (random.chance(50)) return (BigInt(1 + random.below(255)) << 8n) | random.bits(1);
  return random.pick(SLOTS) << 3n;
}

export interface Seen {
  /** Of the places given, the one that the mark arrived at or that was read; null: none. Undefined: not looked at. */
  readonly arrived: bigint | null | undefined;
  /** Fault records, two quadwords each. */
  readonly records: readonly (readonly [bigint, bigint])[];
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

export class QemuMachine {
  readonly identification: Identification;
  readonly #qtest: Qtest;
  readonly #folder: string;
  readonly #ram: number;
  readonly #word = Buffer.alloc(8);
  readonly #record: bigint;
  /** Pages of the world in RAM. */
  #pages: readonly bigint[] = [];
  #programming: Programming | null = null;
  #enabled = 0n;
  #tail = 0n;
  #wide = false;
  #waits = 0n;
  #bus = 1n;
  #patterns = 0n;

  /** `unit`: properties of intel-iommu. */
  static async start(qemu: Qemu, unit: string): Promise<QemuMachine> {
    const folder = mkdtempSync(join(tmpdir(), "nestbox-vtd-qemu-"));
    const file = join(folder, "ram");
    const ram = openSync(file, "w+");
    ftruncateSync(ram, Number(RAM_MIB << 20n));
    const edu = (more: string): string[] => ["-device", `edu,dma_mask=0xffffffffffffffff,${more}`];
    const devices = ["-device", `intel-iommu,intremap=on,${unit}`];
    for (const slot of SLOTS) devices.push(...edu(`addr=${slot.toString(16)}.0`));
    devices.push("-device", `pcie-root-port,id=root-port,chassis=1,slot=1,addr=${PORT.toString(16)}.0`);
    for (let at = 0n; at < PORT_FUNCTIONS; at++) devices.push(...edu(`bus=root-port,multifunction=on,addr=0.${at}`));
    const backend = `memory-backend-file,id=ram,mem-path=${file},size=${RAM_MIB}M,share=on`;
    const machine = ["-machine", "q35,memory-backend=ram,sata=off,smbus=off,i8042=off", "-m", `${RAM_MIB}M`];
    const qtest = new Qtest(qemu, ["-object", backend, ...machine, ...devices]);
    try {
      const [version, cap, ecap] = await qtest.send([
        `readl ${hex(UNIT + VER)}`,
        `readq ${hex(UNIT + CAP)}`,
        `readq ${hex(UNIT + ECAP)}`,
      ]);
      // QEMU takes aw-bits for the host address width too.
      const identification = { VER: version!, CAP: cap!, ECAP: ecap!, HAW: bits(cap!, 21n, 16n) + 1n };
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
    this.#record = UNIT + bits(identification.CAP, 33n, 24n) * 16n;
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
    readSync(this.#ram, this.#word, 0, 8, Number(address));
    return this.#word.readBigUInt64LE();
  }

  store(address: bigint, value: bigint): void {
    this.#word.writeBigUInt64LE(value);
    writeSync(this.#ram, this.#word, 0, 8, Number(address));
  }

  #configure(bdf: bigint, offset: bigint, value: bigint): string[] {
    return [`outl 0xcf8 ${hex((1n << 31n) | (bdf << 8n) | offset)}`, `outl 0xcfc ${hex(value)}`];
  }

  /** BARs, bus mastering, and the mark in every edu: at reset TES = 0. */
  async #prepare(): Promise<void> {
    const lines: string[] = [];
    const port = PORT << 3n;
    lines.push(...this.#configure(port, 0x18n, this.#busNumbers()));
    const limit = (PORT_BAR + ((PORT_FUNCTIONS - 1n) << 20n)) & 0xfff0_0000n;
    lines.push(...this.#configure(port, 0x20n, limit | (PORT_BAR >> 16n)));
    lines.push(...this.#configure(port, 0x04n, 0b110n));
    const functions: [bigint, bigint][] = [];
    for (const slot of SLOTS) functions.push([slot << 3n, BAR + (slot << 20n)]);
    for (let at = 0n; at < PORT_FUNCTIONS; at++) functions.push([(this.#bus << 8n) | at, PORT_BAR + (at << 20n)]);
    for (const [bdf, bar] of functions) {
      lines.push(...this.#configure(bdf, 0x10n, bar));
      lines.push(...this.#configure(bdf, 0x04n, 0b110n));
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

  /** One command at a time, as software must (§11.4.4.1). */
  #command(change: bigint, on = true): string {
    const oneShot = SRTP | SIRTP;
    const level = change & ~oneShot;
    this.#enabled = on ? this.#enabled | level : this.#enabled & ~level;
    return `writel ${hex(UNIT + GCMD)} ${hex(this.#enabled | (change & oneShot))}`;
  }

  /** Puts a world in place of the one before. */
  async program(programming: Programming, memory: Memory): Promise<void> {
    const zeros = Buffer.alloc(4096);
    for (const page of this.#pages) writeSync(this.#ram, zeros, 0, 4096, Number(page << 12n));
    this.#pages = [...memory.pages];
    for (const [address, value] of memory.words) this.store(address, value);
    this.#programming = programming;
    const lines = [this.#command(TE | IRE | CFI, false)];
    if ((this.#enabled & QIE) !== 0n) {
      await this.execute([]);
      lines.push(this.#command(QIE, false));
    }
    // 256-bit descriptors in scalable mode (§6.5.2), where the unit has that.
    this.#wide = bits(programming.RTADDR, 11n, 10n) === 1n && bits(this.identification.ECAP, 43n, 43n) === 1n;
    this.#tail = 0n;
    lines.push(
      `writeq ${hex(UNIT + IQT)} 0`,
      `writeq ${hex(UNIT + IQA)} ${hex(QUEUE | (this.#wide ? 1n << 11n : 0n))}`,
      this.#command(QIE),
      `writeq ${hex(UNIT + RTADDR)} ${hex(programming.RTADDR)}`,
      this.#command(SRTP),
      `writeq ${hex(UNIT + IRTA)} ${hex(programming.IRTA)}`,
      this.#command(SIRTP),
      ...this.#enable(),
    );
    await this.#qtest.send(lines);
    await this.forget();
    await this.#takeRecords();
  }

  #enable(): string[] {
    const { TES, IRES, CFIS } = this.#programming!;
    const lines: string[] = [];
    if (CFIS) lines.push(this.#command(CFI));
    if (IRES) lines.push(this.#command(IRE));
    if (TES) lines.push(this.#command(TE));
    return lines;
  }

  /** Makes the unit forget what it cached, and look again which devices pass through: that goes by the bus number a device has then. */
  async forget(sid = 0n): Promise<void> {
    const lines = this.#busOf(sid);
    if (lines.length > 0) await this.#qtest.send(lines);
    const all = [contextGlobal(), ...(this.#wide ? [pasidCacheGlobal()] : []), iotlbGlobal(), interruptGlobal()];
    await this.execute(all);
  }

  /** Descriptors, and a wait behind them that writes a new value. */
  async execute(descriptors: readonly Descriptor[]): Promise<void> {
    const bytes = this.#wide ? 32n : 16n;
    const wait: Descriptor = [0x25n | (++this.#waits << 32n), STATUS];
    for (const [first = 0n, second = 0n] of [...descriptors, wait]) {
      this.store(QUEUE + this.#tail, first);
      this.store(QUEUE + this.#tail + 8n, second);
      for (let at = 16n; at < bytes; at += 8n) this.store(QUEUE + this.#tail + at, 0n);
      this.#tail = (this.#tail + bytes) % 4096n;
    }
    const [, head, status] = await this.#qtest.send([
      `writeq ${hex(UNIT + IQT)} ${hex(this.#tail)}`,
      `readq ${hex(UNIT + IQH)}`,
      `readl ${hex(UNIT + FSTS)}`,
    ]);
    if (head !== this.#tail || this.#half(STATUS) !== this.#waits)
      throw new Error(`QEMU's invalidation queue stopped at ${hex(head!)}, FSTS ${hex(status!)}`);
  }

  #busOf(sid: bigint): string[] {
    const bus = sid >> 8n;
    if (bus === 0n || bus === this.#bus) return [];
    this.#bus = bus;
    return this.#configure(PORT << 3n, 0x18n, this.#busNumbers());
  }

  /** One DMA of four bytes at `address` (a multiple of 8), and which of `places` in RAM it reached; of reads only if `look`. */
  async access(sid: bigint, address: bigint, write: boolean, places: readonly bigint[], look = true): Promise<Seen> {
    const lines = this.#busOf(sid);
    const before = places.map((place) => this.word(place));
    const patterns = places.map((place) => {
      const pattern = 0x5000_0000n + (++this.#patterns & 0xff_ffffn);
      this.store(place, pattern);
      return pattern;
    });
    if (write) lines.push(...this.#dma(sid, MARK_AT, address, TO_MEMORY));
    else lines.push(...this.#dma(sid, address, READ_AT, 0n));
    await this.#qtest.send(lines);
    const records = await this.#takeRecords();
    let arrived: bigint | null | undefined;
    if (write) arrived = places.find((place) => this.#half(place) === markOf(sid)) ?? null;
    else if (look) {
      const read = await this.#readBuffer(sid);
      arrived = places.find((_place, index) => patterns[index] === read) ?? null;
    }
    places.forEach((place, index) => {
      this.store(place, before[index]!);
    });
    return { arrived, records };
  }

  /** What edu sends as data of a message. */
  messageData(sid: bigint): bigint {
    return markOf(sid);
  }

  /** A message, with edu's mark for data. Only faults can be seen. */
  async interrupt({ sid, address }: InterruptRequest): Promise<Seen> {
    await this.#qtest.send([...this.#busOf(sid), ...this.#dma(sid, MARK_AT, address, TO_MEMORY)]);
    return { arrived: undefined, records: await this.#takeRecords() };
  }

  async #readBuffer(sid: bigint): Promise<bigint> {
    await this.#qtest.send([
      this.#command(TE, false),
      ...this.#dma(sid, READ_AT, SCRATCH, TO_MEMORY),
      ...(this.#programming!.TES ? [this.#command(TE)] : []),
    ]);
    return this.#half(SCRATCH);
  }

  async #takeRecords(): Promise<[bigint, bigint][]> {
    const [low, high] = await this.#qtest.send([
      `readq ${hex(this.#record)}`,
      `readq ${hex(this.#record + 8n)}`,
      `writel ${hex(this.#record + 12n)} ${hex(1n << 31n)}`,
      `writel ${hex(UNIT + FSTS)} ${hex(ERRORS)}`,
    ]);
    return high! >> 63n === 1n ? [[low!, high!]] : [];
  }
}

/** What only this edu stores. */
function markOf(sid: bigint): bigint {
  return 0xed00_0000n | (sid >> 8n === 0n ? sid : 0x1_0000n | (sid & 7n));
}

/**
 * QEMU's q35 machine without a guest, an edu of the modelled host behind its intel-iommu by vfio-pci, below `nestbox host run`: structures in RAM and registers are
 * written through qtest, as a driver would. One machine a story: what became of it is in what QEMU and nestbox said, and in the host's trace.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Qemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { nestbox } from "../../../guest-fixtures/qemu-on-host/runs.ts";
import { type DescriptorName, encodeDescriptor } from "../../../host/arch/vtd/invalidation-descriptors.ts";
import { PASID_ENTRY } from "../../../host/arch/vtd/pasid-entries.ts";
import { FSTS_PFO, FSTS_PPF, GCMD_QIE, GCMD_SRTP, GCMD_TE, PRS_PPR, REG } from "../../../host/arch/vtd/registers.ts";
import { SCALABLE_CONTEXT } from "../../../host/arch/vtd/root-and-context.ts";
import * as EDU from "../../../host/devices/edu/registers.ts";
import { Qtest } from "../qtest.ts";

/** Of the machine (hw/i386/intel_iommu.c, Q35_HOST_BRIDGE_IOMMU_ADDR). */
const UNIT = 0xfed9_0000n;
const UNIT_PROPERTIES = "intremap=off,scalable-mode=on,fsts=on,caching-mode=on";
const WITH_PASIDS = ",pasid-bits=20,svm=on,device-iotlb=on";
const DEVICE = "0000:00:01.0";
const SLOT = 2n;
const BAR = 0xe000_0000n;
const RAM_MIB = 64;

/** Guest-physical pages of structures. */
const ROOT = 0x10_0000n;
const CONTEXTS = 0x10_1000n;
const DIRECTORY = 0x10_2000n;
const PASIDS = 0x10_3000n;
const TABLES = [0x10_4000n, 0x10_5000n, 0x10_6000n, 0x10_7000n] as const;
const QUEUE = 0x10_8000n;
const STATUS = 0x10_9000n;
const SCRATCH = 0x10_a000n;
const PAGE_REQUESTS = 0x10_b000n;

/** What the first stage maps; as a guest-physical address it is RAM, too, so that DMA which nothing translated is seen. */
export const IOVA = 0x20_0000n;
/** Where it maps it to, before and after a change. */
export const BEFORE = 0x30_0000n;
export const AFTER = 0x30_1000n;
const MARK = 0x1234_5678_9abc_def0n;
/** P, R/W, U/S, A, D. */
const LEAF = 0x67n;
const DID = 5;
const SERVICES = { pasidBits: 20, ats: true, pri: true };
const POLLS = 1000;

const hex = (value: bigint): string => `0x${value.toString(16)}`;

export type Fields = Readonly<Record<string, bigint | number>>;

export interface MachineOptions {
  /** Features that the host's unit has otherwise than by default. */
  readonly features?: Readonly<Record<string, unknown>>;
  readonly inject?: string;
  /** Unit and device have PASIDs, ATS and page requests. */
  readonly pasids?: boolean;
}

export interface Placing {
  /** Further bits of the entry's quadwords. */
  readonly reserved?: readonly bigint[];
  readonly pasid?: number;
}

export interface Writing {
  readonly pasid?: number;
  /** Translation mode of edu's. */
  readonly mode?: number;
}

export interface Ended {
  /** What QEMU and nestbox said. */
  readonly said: string;
  /** ioctls that the host refused, as NAME ERRNO. */
  readonly refused: readonly string[];
}

export class NestedMachine {
  readonly #qtest: Qtest;
  readonly #folder: string;
  #enabled = 0;
  #tail = 0n;
  #waits = 0n;

  static async start(qemu: Qemu, { features = {}, inject, pasids = false }: MachineOptions): Promise<NestedMachine> {
    const folder = mkdtempSync(join(tmpdir(), "nestbox-vtd-nested-"));
    const host = {
      name: "one",
      iommus: [{ name: "iommu0", kind: "vtd", options: { features } }],
      devices: [{ model: "edu", bdf: DEVICE, iommu: "iommu0", options: pasids ? SERVICES : {} }],
    };
    writeFileSync(join(folder, "host.json"), JSON.stringify(host));
    const below = [process.execPath, nestbox, "host", "run", "--strict", "--check", "stale"];
    below.push("--host", join(folder, "host.json"), "--trace", join(folder, "trace.jsonl"));
    if (inject !== undefined) below.push("--inject", inject);
    const qtest = new Qtest({ ...qemu, command: [...below, "--", ...qemu.command] }, [
      ...["-machine", "q35,sata=off,smbus=off,i8042=off", "-m", `${RAM_MIB}M`],
      ...["-object", "iommufd,id=iommufd0", "-device", `intel-iommu,${UNIT_PROPERTIES}${pasids ? WITH_PASIDS : ""}`],
      ...["-device", `vfio-pci,host=${DEVICE},iommufd=iommufd0,addr=${hex(SLOT)}.0`],
    ]);
    const machine = new NestedMachine(qtest, folder);
    try {
      await machine.#prepare(pasids);
    } catch (error) {
      await machine.end().catch(() => {});
      throw error;
    }
    return machine;
  }

  private constructor(qtest: Qtest, folder: string) {
    this.#qtest = qtest;
    this.#folder = folder;
  }

  async end(): Promise<Ended> {
    const said = await this.#qtest.end();
    const trace = readFileSync(join(this.#folder, "trace.jsonl"), "utf8");
    rmSync(this.#folder, { recursive: true, force: true });
    const refused = trace
      .split("\n")
      .filter((line) => line.includes('"type":"ioctl"'))
      .map((line) => JSON.parse(line) as { name: string; result: number })
      .filter(({ result }) => result < 0)
      .map(({ name, result }) => `${name} ${result}`);
    return { said, refused };
  }

  async #store(address: bigint, ...words: readonly bigint[]): Promise<void> {
    await this.#qtest.send(words.map((word, index) => `writeq ${hex(address + 8n * BigInt(index))} ${hex(word)}`));
  }

  async #load(address: bigint): Promise<bigint> {
    const [word] = await this.#qtest.send([`readq ${hex(address)}`]);
    return word!;
  }

  #command(change: number): string {
    this.#enabled |= change & ~GCMD_SRTP;
    return `writel ${hex(UNIT + BigInt(REG.GCMD))} ${hex(BigInt((this.#enabled | change) >>> 0))}`;
  }

  /** BAR, bus mastering, the mark in edu's buffer, first-stage tables and a queue; translation is still off. */
  async #prepare(pasids: boolean): Promise<void> {
    const configure = (offset: bigint, value: bigint): string[] => [
      `outl 0xcf8 ${hex((1n << 31n) | (SLOT << 11n) | offset)}`,
      `outl 0xcfc ${hex(value)}`,
    ];
    await this.#qtest.send([...configure(0x10n, BAR), ...configure(0x04n, 0b110n)]);
    await this.#store(SCRATCH, MARK);
    await this.#dma(SCRATCH, BigInt(EDU.BUFFER), 0);
    for (const [depth, table] of TABLES.entries()) {
      const index = (IOVA >> BigInt(39 - 9 * depth)) & 511n;
      await this.#store(table + 8n * index, (TABLES[depth + 1] ?? BEFORE) | LEAF);
    }
    await this.#store(ROOT, CONTEXTS | 1n, 0n);
    const context = new Array<bigint>(4).fill(0n);
    const services = pasids ? { DTE: 1, PASIDE: 1, PRE: 1 } : {};
    for (const [name, value] of Object.entries({ P: 1, PASIDDIRPTR: DIRECTORY >> 12n, ...services }))
      SCALABLE_CONTEXT.set(context, name as keyof typeof SCALABLE_CONTEXT.fields, BigInt(value));
    await this.#store(CONTEXTS + 32n * (SLOT << 3n), ...context);
    await this.#store(DIRECTORY, PASIDS | 1n);
    await this.#qtest.send([
      // 256 descriptors of 32 bytes would be two pages: QS = 0 is one page.
      `writeq ${hex(UNIT + BigInt(REG.IQA))} ${hex(QUEUE | 0x800n)}`,
      this.#command(GCMD_QIE),
      `writeq ${hex(UNIT + BigInt(REG.RTADDR))} ${hex(ROOT | 0x400n)}`,
      this.#command(GCMD_SRTP),
      ...(pasids ? [`writeq ${hex(UNIT + BigInt(REG.PQA))} ${hex(PAGE_REQUESTS)}`] : []),
    ]);
  }

  /** Writes a PASID's entry (0: of requests without one), invalidates it, and turns translation on. */
  async place(fields: Fields, { reserved = [], pasid = 0 }: Placing = {}): Promise<void> {
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries({ P: 1, DID, PGTT: 1, FSPTPTR: TABLES[0] >> 12n, ...fields }))
      PASID_ENTRY.set(words, name as keyof typeof PASID_ENTRY.fields, BigInt(value));
    const place = PASIDS + 64n * BigInt(pasid);
    await this.#store(place, ...words.map((word, index) => word | (reserved[index] ?? 0n)));
    await this.invalidate("pasidCache", { G: 1, DID, PASID: pasid });
    await this.#qtest.send([this.#command(GCMD_TE)]);
  }

  /** Another page behind IOVA: the leaf alone changes. */
  async remap(page: bigint): Promise<void> {
    await this.#store(TABLES[3] + 8n * ((IOVA >> 12n) & 511n), page | LEAF);
  }

  /** The entry is not present any more. */
  async unmap(): Promise<void> {
    await this.#store(TABLES[3] + 8n * ((IOVA >> 12n) & 511n), 0n);
  }

  /** A descriptor and a wait behind it. Throws if the queue stops. */
  async invalidate(name: DescriptorName, fields: Fields): Promise<void> {
    const wait = encodeDescriptor("wait", { SW: 1, STDATA: ++this.#waits, STADDR: STATUS >> 2n });
    for (const descriptor of [encodeDescriptor(name, fields), wait]) {
      await this.#store(QUEUE + this.#tail, ...descriptor, 0n, 0n);
      this.#tail = (this.#tail + 32n) % 4096n;
    }
    await this.#qtest.send([`writeq ${hex(UNIT + BigInt(REG.IQT))} ${hex(this.#tail)}`]);
    if (((await this.#load(STATUS)) & 0xffff_ffffn) !== this.#waits)
      throw new Error("QEMU's invalidation queue has stopped");
  }

  /** edu stores its mark at IOVA; which of the places it reached. */
  async write({ pasid, mode = 0 }: Writing = {}): Promise<"before" | "after" | "untranslated" | "nowhere"> {
    const places = { before: BEFORE, after: AFTER, untranslated: IOVA } as const;
    for (const place of Object.values(places)) await this.#store(place, 0n);
    if (pasid !== undefined) await this.#register(EDU.PASID, EDU.PASID_VALID + pasid);
    await this.#register(EDU.TRANSLATION_MODE, mode);
    await this.#dma(BigInt(EDU.BUFFER), IOVA, EDU.COMMAND_TO_RAM);
    for (const name of Object.keys(places) as (keyof typeof places)[])
      if ((await this.#load(places[name])) === MARK) return name;
    return "nowhere";
  }

  /** Whether the guest's unit has recorded a fault, or has a page request in its queue. */
  async recorded(): Promise<boolean> {
    const [faults, requests] = await this.#qtest.send([
      `readl ${hex(UNIT + BigInt(REG.FSTS))}`,
      `readl ${hex(UNIT + BigInt(REG.PRS))}`,
    ]);
    return (faults! & BigInt(FSTS_PFO | FSTS_PPF)) !== 0n || (requests! & BigInt(PRS_PPR)) !== 0n;
  }

  async #register(register: number, value: number): Promise<void> {
    await this.#qtest.send([`writel ${hex(BAR + BigInt(register))} ${hex(BigInt(value))}`]);
  }

  async #dma(source: bigint, destination: bigint, direction: number): Promise<void> {
    const at = (register: number): string => hex(BAR + BigInt(register));
    await this.#qtest.send([
      `writeq ${at(EDU.DMA_SOURCE)} ${hex(source)}`,
      `writeq ${at(EDU.DMA_DESTINATION)} ${hex(destination)}`,
      `writeq ${at(EDU.DMA_COUNT)} 8`,
      `writeq ${at(EDU.DMA_COMMAND)} ${EDU.COMMAND_RUN | direction}`,
    ]);
    // A page request that nobody answers is waited for.
    for (let polls = 0; polls < POLLS; polls++) {
      const [command] = await this.#qtest.send([`readl ${at(EDU.DMA_COMMAND)}`]);
      if ((Number(command) & EDU.COMMAND_RUN) === 0) return;
    }
  }
}

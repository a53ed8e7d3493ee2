/**
 * The hardware model as the harness sees it: the one file here that imports from `host/`, and only public interfaces. It lays a scenario's memory out in
 * banks, programs the registers the way a driver would (§11.4), and reads answers and fault records back.
 */
import { decodeCapabilities } from "../../../host/arch/vtd/capabilities.ts";
import type { HpaPfn } from "../../../host/base/address.ts";
import { Clock } from "../../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, PhysicalMemory } from "../../../host/base/memory.ts";
import { Trace } from "../../../host/base/trace.ts";
import { ATS_COMPLETER_ABORT, ATS_SUCCESS, NO_PASID } from "../../../host/devices/ports.ts";
import { ACCESS_READ, ACCESS_WRITE, CONSUMED, REFUSED } from "../../../host/hw/iommu/port.ts";
import type { VtdOptions } from "../../../host/hw/iommu/vtd/options.ts";
import { VtdUnit } from "../../../host/hw/iommu/vtd/unit.ts";
import type { Injected, Memory } from "../memory.ts";
import {
  ADAPTER_MEMORY,
  type CacheSize,
  type MakeSubject,
  type Observed,
  type ObservedInterrupt,
  type Subject,
} from "./adapter.ts";
import { bits, type Identification, type Programming } from "./capabilities.ts";
import type { InterruptRequest } from "./interrupt.ts";
import type { Descriptor } from "./invalidation.ts";
import type { Request } from "./outcome.ts";

/** Register offsets and bits (§11.4). */
const REGISTER = {
  VER: 0x00,
  CAP: 0x08,
  ECAP: 0x10,
  GCMD: 0x18,
  RTADDR: 0x20,
  FSTS: 0x34,
  IQT: 0x88,
  IQA: 0x90,
  IRTA: 0xb8,
} as const;
const TE = 1n << 31n;
const SRTP = 1n << 30n;
const QIE = 1n << 26n;
const IRE = 1n << 25n;
const SIRTP = 1n << 24n;
const CFI = 1n << 23n;
/** IQE, ICE, ITE. */
const QUEUE_ERRORS = 0x70n;

/** Queue and status pages. */
const QUEUE = Number(ADAPTER_MEMORY >> 12n);
const STATUS = QUEUE + 1;
const QUEUE_BYTES = 4096n;
/** Where messages without extended destinations go: a page for each. */
const RECEIVERS = 0xfee00;
/** What bits 63:40 of a message's address say, bits 31:8 of the destination (§5.1.6). */
const EXTENDED = 2 ** 28;

const CACHES = {
  none: { contexts: 0, pasids: 0, translations: 0, tables: 0, interrupts: 0 },
  tiny: { contexts: 2, pasids: 2, translations: 4, tables: 64, interrupts: 2 },
} as const;

class HardwareSubject implements Subject {
  readonly #unit: VtdUnit;
  readonly #memory = new PhysicalMemory<HpaPfn>();
  readonly #pages = new Map<number, Uint32Array>();
  readonly #records: { readonly at: number; readonly count: number };
  readonly #wide: boolean;
  #stored = new Set<number>();
  #enabled = 0n;
  #tail = 0n;
  #waits = 0;

  constructor(options: VtdOptions, { CAP }: Identification, programming: Programming, memory: Memory) {
    this.#layOut(memory, programming);
    const clock = new Clock();
    this.#unit = new VtdUnit({ name: "dmar", memory: this.#memory, clock, trace: new Trace(clock) }, options);
    this.#records = { at: Number(bits(CAP, 33n, 24n)) * 16, count: Number(bits(CAP, 47n, 40n)) + 1 };
    // 256-bit descriptors in scalable mode (§6.5.2).
    this.#wide = bits(programming.RTADDR, 11n, 10n) === 1n && this.#unit.configuration.features.SMTS;
    this.#write64(REGISTER.IQA, (BigInt(QUEUE) << 12n) | (this.#wide ? 1n << 11n : 0n));
    this.#command(QIE);
    this.#write64(REGISTER.RTADDR, programming.RTADDR);
    this.#command(SRTP);
    this.#write64(REGISTER.IRTA, programming.IRTA);
    this.#command(SIRTP);
    if (programming.CFIS) this.#command(CFI);
    if (programming.IRES) this.#command(IRE);
    if (programming.TES) this.#command(TE);
  }

  /** Whether the identification registers read as asked for. */
  reads(identification: Identification): boolean {
    return (["CAP", "ECAP"] as const).every((name) => this.#read64(REGISTER[name]) === identification[name]);
  }

  #layOut(memory: Memory, { IRTA }: Programming): void {
    const pages = new Set([...memory.pages].map(Number));
    for (const page of [QUEUE, STATUS]) pages.add(page);
    for (let destination = 0; destination < 256; destination++) pages.add(RECEIVERS + destination);
    for (const page of extendedReceivers(memory, IRTA)) pages.add(page);
    const buffer = new ArrayBuffer(pages.size * 4096);
    for (const [index, page] of [...pages].entries()) {
      const bank = this.#memory.addBank(page as HpaPfn, buffer, index * 4096, 4096);
      this.#pages.set(page, bank.words);
    }
    this.store([...memory.words]);
    this.#memory.onStore = (pfn, count) => {
      for (let page = pfn; page < pfn + count; page++) this.#stored.add(page);
    };
    const injected = new Map<number, Injected>();
    for (const [address, what] of memory.injected) injected.set(Number(address >> 3n), what);
    const isMemory = (pfn: number) =>
      pfn < RECEIVERS || memory.pages.has(BigInt(pfn)) || pfn === QUEUE || pfn === STATUS;
    this.#memory.faults = {
      at(pfn, offset, length, store): AccessStatus {
        // What takes messages gives nothing back.
        if (!store && !isMemory(pfn)) return ACCESS_FAULT;
        if (injected.size === 0) return ACCESS_OK;
        for (let word = Math.floor(offset / 8); word * 8 < offset + length; word++) {
          const what = injected.get(pfn * 512 + word);
          if (what === "access" || (what === "read-only" && store) || (what === "corrupt" && !store))
            return ACCESS_FAULT;
        }
        return ACCESS_OK;
      },
    };
  }

  #read(offset: number): bigint {
    return BigInt(this.#unit.registers.mmioRead(offset, 4) >>> 0);
  }

  #read64(offset: number): bigint {
    return this.#read(offset) | (this.#read(offset + 4) << 32n);
  }

  #write(offset: number, value: bigint): void {
    this.#unit.registers.mmioWrite(offset, 4, Number(value & 0xffff_ffffn), 0);
  }

  #write64(offset: number, value: bigint): void {
    this.#unit.registers.mmioWrite(offset, 8, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
  }

  /** One command at a time, as software must (§11.4.4.1). */
  #command(change: bigint): void {
    const oneShot = SRTP | SIRTP;
    this.#enabled |= change & ~oneShot;
    this.#write(REGISTER.GCMD, this.#enabled | (change & oneShot));
  }

  store(words: readonly (readonly [bigint, bigint])[]): void {
    for (const [address, value] of words) {
      const page = this.#pages.get(Number(address >> 12n));
      if (page === undefined) continue;
      const index = Number((address & 0xfffn) >> 2n);
      page[index] = Number(value & 0xffff_ffffn);
      page[index + 1] = Number(value >> 32n);
    }
  }

  word(address: bigint): bigint {
    const page = this.#pages.get(Number(address >> 12n));
    if (page === undefined) return 0n;
    const index = Number((address & 0xfffn) >> 2n);
    return (BigInt(page[index + 1]!) << 32n) | BigInt(page[index]!);
  }

  request(request: Request): Observed {
    this.#stored = new Set();
    const result = request.kind === "translation" ? this.#ats(request) : this.#access(request);
    let records = this.#takeRecords();
    // What a translation request has below bit 12 is no address (PCIe 6.0 §10.2.3); no record has it.
    if (request.kind === "translation") records = records.map(([low, high]) => [low & ~0xfffn, high]);
    const storedPages = [...this.#stored].filter((page) => page !== QUEUE && page !== STATUS).map(BigInt);
    return { result, records, storedPages };
  }

  #access({ kind, sid, pasid, privileged, access, address }: Request): Observed["result"] {
    const rights = { read: ACCESS_READ, write: ACCESS_WRITE, atomic: ACCESS_READ | ACCESS_WRITE }[access];
    const offset = Number(address & 0xfffn);
    const status = this.#unit.translate(
      Number(sid),
      pasid === null ? NO_PASID : Number(pasid),
      pasid !== null && privileged,
      rights,
      Number(address >> 12n),
      offset,
      kind === "translated",
      -1,
    );
    if (status === REFUSED) return { kind: "blocked" };
    return { kind: "translated", address: (BigInt(this.#unit.resultPfn) << 12n) + BigInt(offset) };
  }

  #ats({ sid, pasid, privileged, access, address }: Request): Observed["result"] {
    const status = this.#unit.translateForDevice(
      Number(sid),
      pasid === null ? NO_PASID : Number(pasid),
      Number(address >> 12n),
      access !== "write",
      privileged,
      false,
    );
    if (status !== ATS_SUCCESS) {
      const refused = status === ATS_COMPLETER_ABORT ? "completer-abort" : "unsupported-request";
      return { kind: "ats", completion: { status: refused, r: false, w: false, priv: false }, address: 0n, bytes: 0n };
    }
    const { pfn, sizeLog2, read, write, privileged: priv } = this.#unit.atsTranslation;
    return {
      kind: "ats",
      completion: { status: "success", r: read, w: write, priv },
      address: BigInt(pfn) << 12n,
      bytes: 1n << BigInt(sizeLog2),
    };
  }

  interrupt({ sid, address, data }: InterruptRequest): ObservedInterrupt {
    this.#stored = new Set();
    const status = this.#unit.translate(
      Number(sid),
      NO_PASID,
      false,
      ACCESS_WRITE,
      Number(address >> 12n),
      Number(address & 0xfffn),
      false,
      Number(data),
    );
    const records = this.#takeRecords();
    if (status === REFUSED) return { result: { kind: "blocked" }, records };
    if (status !== CONSUMED) return { result: { kind: "unchanged" }, records };
    const [receiver] = [...this.#stored];
    if (receiver === undefined) return { result: { kind: "remapped", interrupt: {} }, records };
    const message = this.#pages.get(receiver)![0]!;
    const destination = BigInt((receiver % EXTENDED) - RECEIVERS) | (BigInt(Math.floor(receiver / EXTENDED)) << 8n);
    const interrupt = {
      vector: BigInt(message & 0xff),
      deliveryMode: BigInt((message >>> 8) & 7),
      level: (message & 0x8000) !== 0,
      destination,
    };
    return { result: { kind: "remapped", interrupt }, records };
  }

  #takeRecords(): [bigint, bigint][] {
    const records: [bigint, bigint][] = [];
    const { at, count } = this.#records;
    for (let index = 0; index < count; index++) {
      const high = this.#read64(at + index * 16 + 8);
      if (high >> 63n === 0n) continue;
      records.push([this.#read64(at + index * 16), high]);
      this.#write(at + index * 16 + 12, 1n << 31n);
    }
    this.#write(REGISTER.FSTS, 1n);
    return records;
  }

  /** The descriptor, then a wait that writes; an error is acknowledged with the descriptor replaced, as a driver does. */
  invalidate(descriptor: Descriptor): boolean {
    const bytes = this.#wide ? 32n : 16n;
    const wait: Descriptor = [0x25n | (BigInt(++this.#waits) << 32n), BigInt(STATUS) << 12n];
    const places: bigint[] = [];
    for (const [first = 0n, second = 0n] of [descriptor, wait]) {
      const at = (BigInt(QUEUE) << 12n) + this.#tail;
      places.push(at);
      this.store([
        [at, first],
        [at + 8n, second],
      ]);
      if (this.#wide)
        this.store([
          [at + 16n, 0n],
          [at + 24n, 0n],
        ]);
      this.#tail = (this.#tail + bytes) % QUEUE_BYTES;
    }
    this.#write64(REGISTER.IQT, this.#tail);
    this.#unit.drain();
    const done = this.#pages.get(STATUS)![0] === this.#waits;
    if (done && (this.#read(REGISTER.FSTS) & QUEUE_ERRORS) === 0n) return true;
    this.store([
      [places[0]!, wait[0]!],
      [places[0]! + 8n, wait[1]!],
    ]);
    this.#write(REGISTER.FSTS, QUEUE_ERRORS);
    this.#unit.drain();
    return false;
  }
}

/** Pages that the entries of an interrupt remapping table send to beyond those of 8-bit destinations. */
function extendedReceivers({ words }: Memory, IRTA: bigint): Set<number> {
  const pages = new Set<number>();
  const entries = 2n << bits(IRTA, 3n, 0n);
  for (let index = 0n; index < entries; index++) {
    const destination = Number((words.get((IRTA & ~0xfffn) + index * 16n) ?? 0n) >> 32n);
    if (destination > 0xff) pages.add(RECEIVERS + (destination & 0xff) + Math.floor(destination / 256) * EXTENDED);
  }
  return pages;
}

/** The hardware model; null for what it does not offer. */
export const hardware: MakeSubject = (identification, programming, memory, caches: CacheSize) => {
  const { CAP, ECAP, HAW, VER } = identification;
  const options: VtdOptions = {
    features: decodeCapabilities(CAP, ECAP),
    hostAddressBits: Number(HAW),
    version: Number(VER),
    ...(caches === "default" ? {} : { caches: CACHES[caches] }),
  };
  try {
    const subject = new HardwareSubject(options, identification, programming, memory);
    return subject.reads(identification) ? subject : null;
  } catch (error) {
    // Features that do not go together.
    if (error instanceof RangeError) return null;
    throw error;
  }
};

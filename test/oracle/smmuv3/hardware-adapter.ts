/**
 * The hardware model as the harness sees it: the one file here that imports from `host/`, and only public interfaces. It lays a scenario's memory out in
 * banks, programs the registers the way a driver would (§6.3), and reads answers and event records back.
 */
import { decodeIdentification } from "../../../host/arch/smmuv3/identification.ts";
import type { HpaPfn } from "../../../host/base/address.ts";
import { Clock } from "../../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, PhysicalMemory } from "../../../host/base/memory.ts";
import { Trace } from "../../../host/base/trace.ts";
import { ATS_COMPLETER_ABORT, ATS_SUCCESS, NO_PASID } from "../../../host/devices/ports.ts";
import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, DISCARDED, REFUSED, STALLED } from "../../../host/hw/iommu/port.ts";
import type { Smmuv3Options } from "../../../host/hw/iommu/smmuv3/options.ts";
import { Smmuv3 } from "../../../host/hw/iommu/smmuv3/smmu.ts";
import type { Injected, Memory } from "../memory.ts";
import {
  ADAPTER_MEMORY,
  type CacheSize,
  type Command,
  type MakeSubject,
  type Observed,
  type Subject,
} from "./adapter.ts";
import type { Identification, Programming } from "./identification.ts";
import type { Request } from "./outcome.ts";

/** Register offsets (§6.2). */
const REGISTER = {
  IDR0: 0x00,
  IDR1: 0x04,
  IDR3: 0x0c,
  IDR5: 0x14,
  AIDR: 0x1c,
  CR0: 0x20,
  CR2: 0x2c,
  GBPA: 0x44,
  GERROR: 0x60,
  GERRORN: 0x64,
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0,
  EVENTQ_PROD: 0x100a8,
  EVENTQ_CONS: 0x100ac,
} as const;

/** Queue pages: 256 commands, 128 event records. */
const COMMANDS = Number(ADAPTER_MEMORY >> 12n);
const EVENTS = COMMANDS + 1;
const LOG2_COMMANDS = 8n;
const LOG2_EVENTS = 7n;
const CMD_SYNC: Command = [0x46n, 0n];

const CACHES = {
  none: { streams: 0, contexts: 0, translations: 0, tables: 0 },
  tiny: { streams: 2, contexts: 2, translations: 4, tables: 64 },
} as const;

class HardwareSubject implements Subject {
  readonly #smmu: Smmuv3;
  readonly #memory = new PhysicalMemory<HpaPfn>();
  readonly #pages = new Map<number, Uint32Array>();
  #stored = new Set<number>();

  constructor(options: Smmuv3Options, programming: Programming, memory: Memory) {
    this.#layOut(memory);
    const clock = new Clock();
    this.#smmu = new Smmuv3({ name: "smmu", memory: this.#memory, clock, trace: new Trace(clock) }, options);
    this.#write64(REGISTER.CMDQ_BASE, (BigInt(COMMANDS) << 12n) | LOG2_COMMANDS);
    this.#write64(REGISTER.EVENTQ_BASE, (BigInt(EVENTS) << 12n) | LOG2_EVENTS);
    this.#write64(REGISTER.STRTAB_BASE, programming.STRTAB_BASE);
    this.#write(REGISTER.STRTAB_BASE_CFG, programming.STRTAB_BASE_CFG);
    this.#write(REGISTER.CR2, programming.CR2);
    this.#write(REGISTER.GBPA, programming.GBPA | (1n << 31n));
    // EVENTQEN and CMDQEN first, as a driver does.
    this.#write(REGISTER.CR0, 0b1100n);
    this.#write(REGISTER.CR0, programming.CR0 | 0b1100n);
  }

  /** Whether the identification registers read as asked for. */
  reads(identification: Identification): boolean {
    return (["IDR0", "IDR1", "IDR3", "IDR5", "AIDR"] as const).every(
      (name) => this.#read(REGISTER[name]) === identification[name],
    );
  }

  #layOut(memory: Memory): void {
    const pages = [...memory.pages].map(Number);
    pages.push(COMMANDS, EVENTS);
    const buffer = new ArrayBuffer(pages.length * 4096);
    for (const [index, page] of pages.entries()) {
      const bank = this.#memory.addBank(page as HpaPfn, buffer, index * 4096, 4096);
      this.#pages.set(page, bank.words);
    }
    this.store([...memory.words]);
    this.#memory.onStore = (pfn, count) => {
      for (let page = pfn; page < pfn + count; page++) this.#stored.add(page);
    };
    if (memory.injected.size === 0) return;
    const injected = new Map<number, Injected>();
    for (const [address, what] of memory.injected) injected.set(Number(address >> 3n), what);
    this.#memory.faults = {
      at(pfn, offset, length, store): AccessStatus {
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
    return BigInt(this.#smmu.registers.mmioRead(offset, 4));
  }

  #write(offset: number, value: bigint): void {
    this.#smmu.registers.mmioWrite(offset, 4, Number(value & 0xffff_ffffn), 0);
  }

  #write64(offset: number, value: bigint): void {
    this.#smmu.registers.mmioWrite(offset, 8, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
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
    const result = request.kind === "ats" ? this.#ats(request) : this.#access(request);
    let records = this.#takeRecords();
    // A Translation Request carries no address bits below 12 (PCIe 6.0 §10.2.3), so no record of one has them: those that worlds make up are put back.
    if (request.kind === "ats") {
      records = records.map(([first, second, address, last]) => [
        first!,
        second!,
        address! | (hasAddress(first!) ? request.iova & 0xfffn : 0n),
        last!,
      ]);
    }
    const storedPages = [...this.#stored].filter((page) => page !== COMMANDS && page !== EVENTS).map(BigInt);
    if (result.kind === "stalled") this.#execute([0x45n | (request.sid << 32n), 0n]);
    return { result, records, storedPages };
  }

  #access(request: Request): Observed["result"] {
    // A PCIe function without PASID: unprivileged data (§3.9).
    const prefixed = request.ssid !== null;
    const fetch = prefixed && request.instruction && !request.write;
    const offset = Number(request.iova & 0xfffn);
    const status = this.#smmu.translate(
      Number(request.sid),
      request.ssid === null ? NO_PASID : Number(request.ssid),
      prefixed && request.privileged,
      request.write ? ACCESS_WRITE : fetch ? ACCESS_EXECUTE : ACCESS_READ,
      Number(request.iova >> 12n),
      offset,
      request.kind === "translated",
      0,
    );
    if (status === REFUSED) return { kind: "aborted" };
    if (status === DISCARDED) return { kind: "raz-wi" };
    if (status === STALLED) return { kind: "stalled" };
    return { kind: "translated", address: (BigInt(this.#smmu.resultPfn) << 12n) + BigInt(offset) };
  }

  #ats(request: Request): Observed["result"] {
    const status = this.#smmu.translateForDevice(
      Number(request.sid),
      request.ssid === null ? NO_PASID : Number(request.ssid),
      Number(request.iova >> 12n),
      !request.write,
      request.privileged,
      request.instruction,
    );
    const { pfn, sizeLog2, read, write, execute, privileged } = this.#smmu.atsTranslation;
    if (status !== ATS_SUCCESS) {
      const refused = status === ATS_COMPLETER_ABORT ? "completer-abort" : "unsupported-request";
      return {
        kind: "ats",
        completion: { status: refused, r: false, w: false, exe: false, priv: false },
        address: 0n,
        bytes: 0n,
      };
    }
    return {
      kind: "ats",
      completion: { status: "success", r: read, w: write, exe: execute, priv: privileged },
      address: BigInt(pfn) << 12n,
      bytes: 1n << BigInt(sizeLog2),
    };
  }

  #takeRecords(): bigint[][] {
    const mask = (2n << LOG2_EVENTS) - 1n;
    const prod = this.#read(REGISTER.EVENTQ_PROD);
    const records: bigint[][] = [];
    for (let cons = this.#read(REGISTER.EVENTQ_CONS) & mask; cons !== (prod & mask); cons = (cons + 1n) & mask) {
      const at = (BigInt(EVENTS) << 12n) + (cons & (mask >> 1n)) * 32n;
      records.push([0n, 8n, 16n, 24n].map((offset) => this.word(at + offset)));
    }
    this.#write(REGISTER.EVENTQ_CONS, prod);
    return records;
  }

  invalidate(command: Command): boolean {
    return this.#execute(command);
  }

  /** The command, then CMD_SYNC; an error is acknowledged with the command skipped, as a driver does. */
  #execute(command: Command): boolean {
    const mask = (2n << LOG2_COMMANDS) - 1n;
    let prod = this.#read(REGISTER.CMDQ_PROD);
    for (const words of [command, CMD_SYNC]) {
      const at = (BigInt(COMMANDS) << 12n) + (prod & (mask >> 1n)) * 16n;
      this.store([
        [at, words[0]],
        [at + 8n, words[1]],
      ]);
      prod = (prod + 1n) & mask;
    }
    this.#write(REGISTER.CMDQ_PROD, prod);
    this.#smmu.drain();
    if (this.#read(REGISTER.GERROR) === this.#read(REGISTER.GERRORN)) return true;
    const at = (BigInt(COMMANDS) << 12n) + (this.#read(REGISTER.CMDQ_CONS) & (mask >> 1n)) * 16n;
    this.store([
      [at, CMD_SYNC[0]],
      [at + 8n, CMD_SYNC[1]],
    ]);
    this.#write(REGISTER.GERRORN, this.#read(REGISTER.GERROR));
    this.#smmu.drain();
    return false;
  }
}

/** Events that a Translation Request can cause and that hold the input address (§7.3): F_BAD_ATS_TREQ, F_WALK_EABT. */
function hasAddress(first: bigint): boolean {
  const number = first & 0xffn;
  return number === 0x05n || number === 0x0bn;
}

/**
 * The hardware model; null for what it does not offer (OAS of 52 bits) and, until the specification's text has settled it, for REC_CFG_ATS without
 * RECINVSID: the model takes RECINVSID = 0 to keep C_BAD_STREAMID out whatever it is of (§6.3.12), the oracle records that of a Translated transaction.
 */
export const hardware: MakeSubject = (identification, programming, memory, caches: CacheSize) => {
  const features = decodeIdentification(identification);
  if (features.OAS > 5 || (features.ATSRECERR && (programming.CR2 & 0b1010n) === 0b1000n)) return null;
  const options = { features, ...(caches === "default" ? {} : { caches: CACHES[caches] }) };
  const subject = new HardwareSubject(options, programming, memory);
  return subject.reads(identification) ? subject : null;
};

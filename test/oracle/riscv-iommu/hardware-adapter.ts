/**
 * The hardware model as the harness sees it: the one file here that imports from `host/`, and only public interfaces. It lays a scenario's memory out in
 * banks, programs the registers the way a driver would (§6), and reads answers and fault records back.
 */
import type { HpaPfn } from "../../../host/base/address.ts";
import { Clock } from "../../../host/base/clock.ts";
import {
  ACCESS_FAULT,
  ACCESS_OK,
  type AccessStatus,
  DATA_CORRUPTION,
  PhysicalMemory,
} from "../../../host/base/memory.ts";
import type { AccessSize } from "../../../host/base/mmio.ts";
import { Trace } from "../../../host/base/trace.ts";
import { ATS_COMPLETER_ABORT, ATS_SUCCESS, NO_PASID } from "../../../host/devices/ports.ts";
import {
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_WRITE,
  CONSUMED,
  type HardwareIommu,
  REFUSED,
} from "../../../host/hw/iommu/port.ts";
import { RiscvIommu } from "../../../host/hw/iommu/riscv/iommu.ts";
import type { RiscvIommuOptions } from "../../../host/hw/iommu/riscv/options.ts";
import type { Injected, Memory } from "../memory.ts";
import type { Random } from "../random.ts";
import type { CacheSize } from "./generate/sequence.ts";
import type { DebugAnswer, MakeSubject, Observed, PageRequestAnswer, Subject } from "./harness/subject.ts";
import { bit, bits, CAPABILITY, type Capability, has, type Implementation, swapBytes } from "./implementation.ts";
import type { DirectoryPointer, FaultRecord, Request } from "./outcome.ts";
import type { PageRequest } from "./page-request.ts";

/** Register offsets (§6.1). */
export const REGISTER = {
  capabilities: 0,
  fctl: 8,
  ddtp: 16,
  cqb: 24,
  cqh: 32,
  cqt: 36,
  fqb: 40,
  fqh: 48,
  fqt: 52,
  pqb: 56,
  pqh: 64,
  pqt: 68,
  cqcsr: 72,
  fqcsr: 76,
  pqcsr: 80,
  tr_req_iova: 600,
  tr_req_ctl: 608,
  tr_response: 616,
} as const;

/** Queue pages, out of the way of everything the generators make. One page each: 256 commands, 128 fault records, 256 page requests. */
const COMMANDS = 0x3f_f000;
const FAULTS = 0x3f_f001;
export const PAGE_REQUESTS = 0x3f_f002;
const LOG2_COMMANDS = 8;
const LOG2_FAULTS = 7;
const MODES = { off: 0n, bare: 1n, "1lvl": 2n, "2lvl": 3n, "3lvl": 4n } as const;
const ACCESSES = { read: ACCESS_READ, write: ACCESS_WRITE, execute: ACCESS_EXECUTE } as const;

/** The options that make the hardware model what `implementation` describes. */
const CACHES = {
  none: { devices: 0, processes: 0, translations: 0, messages: 0, tables: 0 },
  tiny: { devices: 2, processes: 2, translations: 4, messages: 1, tables: 64 },
} as const;

function options(implementation: Implementation, caches: CacheSize): RiscvIommuOptions {
  const named = Object.fromEntries(
    (Object.keys(CAPABILITY) as Capability[]).map((name) => [name, has(implementation, name)]),
  );
  const PAS = Number(bits(implementation.capabilities, 37n, 32n));
  return {
    capabilities: { ...named, IGS: Number(bits(implementation.capabilities, 29n, 28n)), PAS },
    bigEndian: implementation.be,
    gxl: implementation.gxl,
    bigEndianWritable: implementation.beWritable,
    gxlWritable: implementation.gxlWritable,
    rcidBits: implementation.rcidWidth,
    mcidBits: implementation.mcidWidth,
    ...(caches === "default" ? {} : { caches: CACHES[caches] }),
  };
}

export class HardwareSubject implements Subject {
  readonly iommu: HardwareIommu;
  readonly #memory = new PhysicalMemory<HpaPfn>();
  readonly #pages = new Map<number, Uint32Array>();
  readonly #bigEndian: boolean;
  #stored = new Set<number>();
  #tail = 0;

  constructor(implementation: Implementation, ddtp: DirectoryPointer, memory: Memory, caches: CacheSize) {
    this.#layOut(memory);
    this.#bigEndian = implementation.be;
    const clock = new Clock();
    const parts = { name: "iommu", memory: this.#memory, clock, trace: new Trace(clock) };
    this.iommu = new RiscvIommu(parts, options(implementation, caches));
    const capabilities = this.read(REGISTER.capabilities, 8);
    if (capabilities !== implementation.capabilities) {
      throw new Error(`capabilities read 0x${capabilities.toString(16)}`);
    }
    this.write(REGISTER.cqb, 8, (BigInt(COMMANDS) << 10n) | BigInt(LOG2_COMMANDS - 1));
    this.write(REGISTER.fqb, 8, (BigInt(FAULTS) << 10n) | BigInt(LOG2_FAULTS - 1));
    this.write(REGISTER.cqcsr, 4, 1n);
    this.write(REGISTER.fqcsr, 4, 1n);
    if (has(implementation, "ATS")) {
      this.write(REGISTER.pqb, 8, (BigInt(PAGE_REQUESTS) << 10n) | BigInt(LOG2_COMMANDS - 1));
      this.write(REGISTER.pqcsr, 4, 1n);
    }
    this.write(REGISTER.ddtp, 8, (ddtp.ppn << 10n) | MODES[ddtp.mode]);
    this.iommu.drain();
  }

  #layOut(memory: Memory): void {
    const pages = [...memory.pages].map(Number);
    pages.push(COMMANDS, FAULTS, PAGE_REQUESTS);
    const buffer = new ArrayBuffer(pages.length * 4096);
    pages.forEach((page, index) => {
      const bank = this.#memory.addBank(page as HpaPfn, buffer, index * 4096, 4096);
      this.#pages.set(page, bank.words);
    });
    this.store([...memory.words]);
    this.#memory.onStore = (pfn, count) => {
      for (let page = pfn; page < pfn + count; page++) this.#stored.add(page);
    };
    if (memory.injected.size === 0) return;
    const injected = new Map<number, Injected>();
    for (const [address, what] of memory.injected) injected.set(Number(address >> 3n), what);
    this.#memory.faults = {
      at(pfn, offset, length, store): AccessStatus {
        let status: AccessStatus = ACCESS_OK;
        for (let word = Math.floor(offset / 8); word * 8 < offset + length; word++) {
          const what = injected.get(pfn * 512 + word);
          if (what === "access" || (what === "read-only" && store)) return ACCESS_FAULT;
          if (what === "corrupt" && !store) status = DATA_CORRUPTION;
        }
        return status;
      },
    };
  }

  read(offset: number, size: AccessSize): bigint {
    const low = this.iommu.registers.mmioRead(offset, size);
    return size === 8 ? (BigInt(this.iommu.registers.high) << 32n) | BigInt(low) : BigInt(low);
  }

  write(offset: number, size: AccessSize, value: bigint): void {
    this.iommu.registers.mmioWrite(offset, size, Number(value & 0xffff_ffffn), Number(value >> 32n));
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

  request(request: Request, data: number): Observed {
    this.#stored = new Set();
    const result = request.type === "ats" ? this.#ats(request) : this.#access(request, data);
    return this.#observe(result);
  }

  #observe(result: Observed["result"]): Observed {
    const queues = [COMMANDS, FAULTS, PAGE_REQUESTS];
    const storedPages = [...this.#stored].filter((page) => !queues.includes(page)).map(BigInt);
    return { result, records: this.#takeRecords(), storedPages };
  }

  /** §5: the request is latched by Go and done when Go reads 0. */
  debug(request: Request): Observed & { debug: DebugAnswer } {
    this.#stored = new Set();
    const { processId, access } = request;
    // Priv, Exe, NW, PID, PV, DID (§6.25); a fetch and a read write nothing.
    let control = 1n | (request.deviceId << 40n);
    if (processId !== null) control |= (processId << 12n) | (1n << 32n) | (request.privileged ? 0b10n : 0n);
    if (access === "execute") control |= 0b100n;
    if (access !== "write") control |= 0b1000n;
    this.write(REGISTER.tr_req_iova, 8, request.iova & ~0xfffn);
    this.write(REGISTER.tr_req_ctl, 8, control);
    this.iommu.drain();
    if (bit(this.read(REGISTER.tr_req_ctl, 8), 0n)) throw new Error("the debug translation is still busy");
    const response = this.read(REGISTER.tr_response, 8);
    const page = bits(response, 53n, 10n);
    let bytes = 4096n;
    if (bit(response, 9n)) {
      // S: the lowest 0 bit X of PPN stands for 2^(X+1) pages.
      bytes = 8192n;
      for (let at = 0n; bit(page, at); at++) bytes *= 2n;
    }
    const debug = {
      fault: bit(response, 0n),
      memoryType: bits(response, 8n, 7n),
      address: (page << 12n) & ~(bytes - 1n),
      bytes,
    };
    return { ...this.#observe({ kind: "none" }), debug };
  }

  pageRequest(request: PageRequest): Observed & { page: PageRequestAnswer } {
    this.#stored = new Set();
    const { iommu } = this;
    let response: PageRequestAnswer["response"] = null;
    const target = {
      invalidate: () => true,
      pageResponse(pasid: number, group: number, code: number) {
        response = { code, processId: pasid === NO_PASID ? null : BigInt(pasid), group: BigInt(group) };
      },
    };
    iommu.findTarget = () => target;
    const pasid = request.processId === null ? NO_PASID : Number(request.processId);
    if (request.last && !request.read && !request.write) iommu.stopMarker(Number(request.deviceId), pasid);
    else {
      const flag = (on: boolean, value: number) => (on ? value : 0);
      const flags =
        flag(request.read, 1) |
        flag(request.write, 2) |
        flag(request.last, 4) |
        flag(request.execute, 8) |
        flag(request.privileged, 16);
      const pfn = Number(request.address >> 12n);
      iommu.pageRequest(Number(request.deviceId), pasid, pfn, Number(request.group), flags);
    }
    return { ...this.#observe({ kind: "none" }), page: { queued: this.#takePageRequest(), response } };
  }

  /** The record at pqh, if the queue holds one (§4.3). */
  #takePageRequest(): readonly [bigint, bigint] | null {
    const head = this.read(REGISTER.pqh, 4);
    if (head === this.read(REGISTER.pqt, 4)) return null;
    const at = (BigInt(PAGE_REQUESTS) << 12n) + head * 16n;
    const [low, high] = [this.word(at), this.word(at + 8n)];
    this.write(REGISTER.pqh, 4, (head + 1n) % (1n << BigInt(LOG2_COMMANDS)));
    return this.#bigEndian ? [swapBytes(low, 8), swapBytes(high, 8)] : [low, high];
  }

  #access(request: Request, data: number): Observed["result"] {
    const { iommu } = this;
    const offset = Number(request.iova & 0xfffn);
    const status = iommu.translate(
      Number(request.deviceId),
      request.processId === null ? NO_PASID : Number(request.processId),
      request.privileged,
      ACCESSES[request.access],
      Number(request.iova >> 12n),
      offset,
      request.type === "translated",
      request.access === "write" ? data : 0,
    );
    if (status === REFUSED) return { kind: "aborted" };
    if (status === CONSUMED) return { kind: "message" };
    return { kind: "translated", address: (BigInt(iommu.resultPfn) << 12n) + BigInt(offset) };
  }

  #ats(request: Request): Observed["result"] {
    const { iommu } = this;
    const status = iommu.translateForDevice(
      Number(request.deviceId),
      request.processId === null ? NO_PASID : Number(request.processId),
      Number(request.iova >> 12n),
      request.noWrite,
      request.privileged,
      request.executeRequested,
    );
    const { pfn, sizeLog2, read, write, execute, privileged, global, untranslatedOnly } = iommu.atsTranslation;
    if (status !== ATS_SUCCESS) {
      const nothing = { r: false, w: false, exe: false, priv: false, global: false, u: false };
      const refused = status === ATS_COMPLETER_ABORT ? "completer-abort" : "unsupported-request";
      return { kind: "ats", completion: { status: refused, ...nothing }, address: 0n, bytes: 0n };
    }
    const completion = { r: read, w: write, exe: execute, priv: privileged, global, u: untranslatedOnly };
    return {
      kind: "ats",
      completion: { status: "success", ...completion },
      address: BigInt(pfn) << 12n,
      bytes: 1n << BigInt(sizeLog2),
    };
  }

  /** The records between fqh and fqt (§4.2), in the byte order of fctl.BE. */
  #takeRecords(): FaultRecord[] {
    const tail = Number(this.read(REGISTER.fqt, 4));
    let head = Number(this.read(REGISTER.fqh, 4));
    const records: FaultRecord[] = [];
    while (head !== tail) {
      const at = (BigInt(FAULTS) << 12n) + BigInt(head) * 32n;
      const [first, , iotval, iotval2] = [0n, 8n, 16n, 24n].map((offset) => {
        const value = this.word(at + offset);
        return this.#bigEndian ? swapBytes(value, 8) : value;
      }) as [bigint, bigint, bigint, bigint];
      records.push({
        cause: Number(bits(first, 11n, 0n)),
        pid: bits(first, 31n, 12n),
        pv: bit(first, 32n),
        priv: bit(first, 33n),
        ttyp: Number(bits(first, 39n, 34n)),
        did: bits(first, 63n, 40n),
        iotval,
        iotval2,
      });
      head = (head + 1) % (1 << LOG2_FAULTS);
    }
    this.write(REGISTER.fqh, 4, BigInt(tail));
    return records;
  }

  /** Queues the command and an IOFENCE.C behind it, and lets the IOMMU work them off. */
  invalidate(command: readonly [bigint, bigint]): boolean {
    this.#queue(command);
    this.#queue([2n, 0n]);
    this.write(REGISTER.cqt, 4, BigInt(this.#tail));
    this.iommu.drain();
    return this.read(REGISTER.cqh, 4) === BigInt(this.#tail);
  }

  #queue(command: readonly [bigint, bigint]): void {
    const at = (BigInt(COMMANDS) << 12n) + BigInt(this.#tail) * 16n;
    command.forEach((value, index) => {
      this.store([[at + BigInt(index) * 8n, this.#bigEndian ? swapBytes(value, 8) : value]]);
    });
    this.#tail = (this.#tail + 1) % (1 << LOG2_COMMANDS);
  }
}

/** A hardware model with queues on and the directory in place. Null where the scenario's memory lies under the queues. */
export const hardware: MakeSubject = (implementation, ddtp, memory, caches) => {
  for (const page of [COMMANDS, FAULTS, PAGE_REQUESTS]) if (memory.pages.has(BigInt(page))) return null;
  return new HardwareSubject(implementation, ddtp, memory, caches);
};

/** A hardware model left to itself, over a few pages of memory from frame 0 on, for hostile input. */
export interface HostileMachine {
  readonly iommu: HardwareIommu;
  /** All of memory. */
  readonly words: Uint32Array;
  /** Registers; all sizes and offsets are tried. */
  read(offset: number, size: AccessSize): bigint;
  write(offset: number, size: AccessSize, value: bigint): void;
  /** Lets virtual time pass and fires what falls due. */
  advance(nanoseconds: number): void;
  /** From here on memory accesses are counted anew; past the limit an access throws. */
  beginOperation(): void;
}

/** Whatever shapes the structures in memory. */
function randomOptions(random: Random): RiscvIommuOptions {
  const flag = (percent: number) => random.chance(percent);
  const [ats, flat, interruptFiles] = [flag(80), flag(70), flag(70)];
  return {
    capabilities: {
      Sv32: flag(50),
      Sv32x4: flag(50),
      MSI_FLAT: flat,
      MSI_MRIF: flat && interruptFiles,
      AMO_MRIF: flat && interruptFiles && flag(50),
      AMO_HWAD: flag(80),
      ATS: ats,
      T2GPA: ats && flag(50),
      END: flag(50),
      QOSID: flag(50),
      PAS: random.pick([32, 44, 56]),
    },
    gxlWritable: flag(50),
  };
}

/** `like` gives the capabilities; null takes them at random. */
export function hostileMachine(
  pages: number,
  random: Random,
  mostAccesses: number,
  like: Implementation | null,
): HostileMachine {
  const memory = new PhysicalMemory<HpaPfn>();
  const bank = memory.addBank(0 as HpaPfn, new ArrayBuffer(pages * 4096));
  let accesses = 0;
  memory.faults = {
    at(): AccessStatus {
      accesses++;
      if (accesses > mostAccesses) throw new Error(`more than ${mostAccesses} memory accesses in one operation`);
      return random.chance(99.9) ? ACCESS_OK : random.pick([ACCESS_FAULT, DATA_CORRUPTION]);
    },
  };
  const clock = new Clock();
  const flag = (percent: number) => random.chance(percent);
  const structures =
    like === null ? randomOptions(random) : options(like, random.pick(["none", "tiny", "default"] as const));
  const iommu: HardwareIommu = new RiscvIommu(
    { name: "iommu", memory, clock, trace: new Trace(clock) },
    {
      ...structures,
      capabilities: { ...structures.capabilities, IGS: random.below(3), HPM: flag(70), DBG: flag(80) },
      counters: 1 + random.below(31),
      counterBits: 32 + random.below(33),
      vectorBits: random.below(5),
      queueSizeLog2: 2 + random.below(12),
      atsTags: 1 + random.below(32),
      ...(flag(50) ? { automaticDelayNs: 100 } : {}),
    },
  );
  const target = {
    invalidate: (): boolean => flag(60),
    pageResponse: (): void => {},
  };
  iommu.findTarget = (deviceId) => (deviceId % 3 === 0 ? undefined : target);
  return {
    iommu,
    words: bank.words,
    read(offset, size) {
      const low = iommu.registers.mmioRead(offset, size);
      return size === 8 ? (BigInt(iommu.registers.high) << 32n) | BigInt(low) : BigInt(low);
    },
    write(offset, size, value) {
      iommu.registers.mmioWrite(offset, size, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
    },
    advance(nanoseconds) {
      clock.advance(nanoseconds);
      clock.fireDue();
    },
    beginOperation() {
      accesses = 0;
    },
  };
}

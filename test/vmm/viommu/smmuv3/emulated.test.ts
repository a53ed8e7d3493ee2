// DMA of device models behind the guest-visible SMMUv3: against the oracle (test/oracle/smmuv3), which reads the specification by itself, on random
// guests; and what its caches may keep and must drop.

import { describe, expect, it } from "vitest";
import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import type { GpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace } from "../../../../host/base/trace.ts";
import { ATS_COMPLETER_ABORT, ATS_SUCCESS, type AtsTarget, DMA_OK, NO_PASID } from "../../../../host/devices/ports.ts";
import { deriveCapabilities } from "../../../../vmm/viommu/smmuv3/capabilities.ts";
import { Smmuv3Viommu } from "../../../../vmm/viommu/smmuv3/viommu.ts";
import type { Injected, Memory } from "../../../oracle/memory.ts";
import {
  ADAPTER_MEMORY,
  type Command,
  type MakeSubject,
  type Observed,
  type Subject,
} from "../../../oracle/smmuv3/adapter.ts";
import { randomIdentification } from "../../../oracle/smmuv3/generate/identification.ts";
import { randomWorld } from "../../../oracle/smmuv3/generate/world.ts";
import {
  describeScenario,
  emptyTally,
  run,
  scenarioOfWorld,
  type Tally,
} from "../../../oracle/smmuv3/harness/scenario.ts";
import type { Identification, Programming } from "../../../oracle/smmuv3/identification.ts";
import type { Request } from "../../../oracle/smmuv3/outcome.ts";

const COMMANDS = ADAPTER_MEMORY;
const EVENTS = ADAPTER_MEMORY + 0x1000n;
const LOG2_COMMANDS = 8n;
const LOG2_EVENTS = 7n;
const CMD_SYNC: Command = [0x46n, 0n];
const CFGI_ALL: Command = [0x04n, 31n];
const TLBI_NSNH_ALL: Command = [0x30n, 0n];

/** Guest memory that says where the last transfer of a device went. */
class WatchedMemory extends PhysicalMemory<GpaPfn> {
  reached: bigint | null = null;

  override read(pfn: GpaPfn, offset: number, into: Uint8Array, at: number, length: number): AccessStatus {
    this.reached = (BigInt(pfn) << 12n) | BigInt(offset);
    return super.read(pfn, offset, into, at, length);
  }

  override write(pfn: GpaPfn, offset: number, _from: Uint8Array, _at: number, _length: number): AccessStatus {
    // The scenario's memory is as it was after each request.
    this.reached = (BigInt(pfn) << 12n) | BigInt(offset);
    return ACCESS_OK;
  }
}

/** The guest-visible SMMU with a device model behind each StreamID, as the harness sees it. */
class ViommuSubject implements Subject {
  readonly #memory = new WatchedMemory();
  readonly #pages = new Map<number, Uint32Array>();
  readonly #smmu: Smmuv3Viommu;
  readonly #plugged = new Set<number>();
  #stored = new Set<number>();

  constructor(identification: Identification, programming: Programming, memory: Memory) {
    this.#layOut(memory);
    const clock = new Clock();
    this.#smmu = new Smmuv3Viommu({
      name: "viommu0",
      memory: this.#memory,
      host: null,
      hardware: { ...identification, IDR0: identification.IDR0 | 1n },
      interrupt: { wire: () => {}, message: () => ACCESS_FAULT },
      clock,
      trace: new Trace(clock),
      configuration: { sidBits: Number(identification.IDR1 & 63n), interrupts: "wired" },
    });
    this.#write64(REG.CMDQ_BASE, COMMANDS | LOG2_COMMANDS);
    this.#write64(REG.EVENTQ_BASE, EVENTS | LOG2_EVENTS);
    this.#write64(REG.STRTAB_BASE, programming.STRTAB_BASE);
    this.#write(REG.STRTAB_BASE_CFG, programming.STRTAB_BASE_CFG);
    this.#write(REG.CR2, programming.CR2);
    this.#write(REG.GBPA, programming.GBPA | (1n << 31n));
    this.#write(REG.CR0, 0b1100n);
    this.#write(REG.CR0, programming.CR0 | 0b1100n);
  }

  reads(identification: Identification): boolean {
    return (["IDR0", "IDR1", "IDR3", "IDR5", "AIDR"] as const).every(
      (name) => this.#read(REG[name]) === identification[name],
    );
  }

  #layOut(memory: Memory): void {
    const pages = [...memory.pages].map(Number);
    pages.push(Number(COMMANDS >> 12n), Number(EVENTS >> 12n));
    const buffer = new ArrayBuffer(pages.length * 4096);
    for (const [index, page] of pages.entries())
      this.#pages.set(page, this.#memory.addBank(page as GpaPfn, buffer, index * 4096, 4096).words);
    this.store([...memory.words]);
    this.#memory.onStore = (pfn, count) => {
      for (let page = pfn; page < pfn + count; page++) this.#stored.add(page);
    };
    const injected = new Map<number, Injected>();
    for (const [address, what] of memory.injected) injected.set(Number(address >> 3n), what);
    if (injected.size > 0) {
      this.#memory.faults = {
        at: (pfn, offset) => (injected.has(pfn * 512 + Math.floor(offset / 8)) ? ACCESS_FAULT : ACCESS_OK),
      };
    }
  }

  #read(offset: number): bigint {
    return BigInt(this.#smmu.mmioRead(offset, 4) >>> 0);
  }

  #write(offset: number, value: bigint): void {
    this.#smmu.mmioWrite(offset, 4, Number(value & 0xffff_ffffn), 0);
  }

  #write64(offset: number, value: bigint): void {
    this.#smmu.mmioWrite(offset, 8, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
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
    const sid = Number(request.sid);
    if (!this.#plugged.has(sid)) {
      this.#plugged.add(sid);
      this.#smmu.plug({ handle: sid, guestId: sid, name: `${sid}`, ats: true, pri: false, emulated: true });
    }
    // Worlds ask what no cache answers.
    this.invalidate(CFGI_ALL);
    this.invalidate(TLBI_NSNH_ALL);
    this.#stored = new Set();
    const result = this.#transfer(sid, request);
    const queues = [Number(COMMANDS >> 12n), Number(EVENTS >> 12n)];
    const storedPages = [...this.#stored].filter((page) => !queues.includes(page)).map(BigInt);
    return { result, records: this.#takeRecords(request), storedPages };
  }

  #transfer(sid: number, request: Request): Observed["result"] {
    const target: AtsTarget = { invalidate: () => true, pageResponse: () => {} };
    const port = this.#smmu.emulatedDma(() => sid, target);
    const pfn = Number(request.iova >> 12n);
    const offset = Number(request.iova & 0xfffn);
    const pasid = request.ssid === null ? NO_PASID : Number(request.ssid);
    if (request.kind === "ats") {
      const status = port.ats!.translate(pfn, pasid, !request.write, request.privileged, request.instruction);
      const { pfn: page, sizeLog2, read, write, execute, privileged } = port.ats!.translation;
      const refused = status === ATS_COMPLETER_ABORT ? "completer-abort" : "unsupported-request";
      const completion =
        status === ATS_SUCCESS
          ? ({ status: "success", r: read, w: write, exe: execute, priv: privileged } as const)
          : ({ status: refused, r: false, w: false, exe: false, priv: false } as const);
      const granted = status === ATS_SUCCESS;
      return {
        kind: "ats",
        completion,
        address: granted ? BigInt(page) << 12n : 0n,
        bytes: granted ? 1n << BigInt(sizeLog2) : 0n,
      };
    }
    this.#memory.reached = null;
    const byte = new Uint8Array(1);
    const status =
      request.kind === "translated"
        ? port.ats![request.write ? "writeTranslated" : "readTranslated"](pfn, offset, byte, 0, 1, pasid)
        : port[request.write ? "write" : "read"](pfn, offset, byte, 0, 1, pasid, request.privileged);
    const { reached } = this.#memory;
    if (reached !== null) return { kind: "translated", address: reached };
    return { kind: status === DMA_OK ? "raz-wi" : "aborted" };
  }

  #takeRecords(request: Request): bigint[][] {
    const mask = (2n << LOG2_EVENTS) - 1n;
    const prod = this.#read(REG.EVENTQ_PROD);
    const records: bigint[][] = [];
    for (let cons = this.#read(REG.EVENTQ_CONS) & mask; cons !== (prod & mask); cons = (cons + 1n) & mask) {
      const at = EVENTS + (cons & (mask >> 1n)) * 32n;
      const record = [0n, 8n, 16n, 24n].map((offset) => this.word(at + offset));
      // A Translation Request carries no address bits below 12 (PCIe 6.0 §10.2.3): those that worlds make up are put back.
      const number = record[0]! & 0xffn;
      if (request.kind === "ats" && (number === 0x05n || number === 0x0bn)) record[2]! |= request.iova & 0xfffn;
      records.push(record);
    }
    this.#write(REG.EVENTQ_CONS, prod);
    return records;
  }

  invalidate(command: Command): boolean {
    const mask = (2n << LOG2_COMMANDS) - 1n;
    let prod = this.#read(REG.CMDQ_PROD);
    for (const words of [command, CMD_SYNC]) {
      const at = COMMANDS + (prod & (mask >> 1n)) * 16n;
      this.store([
        [at, words[0]],
        [at + 8n, words[1]],
      ]);
      prod = (prod + 1n) & mask;
    }
    this.#write(REG.CMDQ_PROD, prod);
    return this.#read(REG.GERROR) === this.#read(REG.GERRORN);
  }
}

/** What a guest is promised on some host, as an identification of its own. */
const identify: typeof randomIdentification = (random) => {
  const host = randomIdentification(random);
  // Both stages, as nesting needs; no forced stalls, which device models could not take.
  const IDR0 = (host.IDR0 & ~(3n << 24n)) | 3n;
  const configuration = { sidBits: Number(host.IDR1 & 63n), interrupts: "wired" } as const;
  const { sheet } = deriveCapabilities({ ...host, IDR0 }, configuration);
  const { IDR1, IDR3, IDR5, AIDR } = sheet.registers;
  return { IDR0: sheet.registers.IDR0!, IDR1: IDR1!, IDR3: IDR3!, IDR5: IDR5!, AIDR: AIDR! };
};

const viommu: MakeSubject = (identification, programming, memory) => {
  const subject = new ViommuSubject(identification, programming, memory);
  return subject.reads(identification) ? subject : null;
};

function compareWorld(seed: number, tally: Tally): void {
  const world = randomWorld(seed, 24, identify);
  // Device models fetch no instructions but by ATS.
  const requests = world.requests.map((request) =>
    request.kind === "ats" ? request : { ...request, instruction: false },
  );
  const scenario = scenarioOfWorld({ ...world, requests });
  const found = run(scenario, viommu, tally);
  if (found === null) return;
  throw new Error(`seed ${seed}, step ${found.step}: ${found.why}\n${describeScenario(scenario).join("\n")}`);
}

describe("DMA of device models agrees with the oracle", () => {
  it.each([1, 201, 401])("on result, record and every word stored: 200 guests from seed %i", (first) => {
    const tally = emptyTally();
    for (let seed = first; seed < first + 200; seed++) compareWorld(seed, tally);
    expect(tally.requests).toBe(200 * 24);
    expect(tally.open).toBe(0);
    // Nothing of weight is left out: addresses, and every kind of fault there is without a second stage.
    for (const what of ["translated", "ats", "event 0x4", "event 0x8", "event 0xa", "event 0x10", "event 0x13"])
      expect([what, (tally.answers.get(what) ?? 0) > 0]).toEqual([what, true]);
  });
});

// The guest's IOMMU driver, as a scenario plays it: programs the vIOMMU's registers by traps (so that every access costs what a guest's
// would), keeps device directory, command queue and fault queue in guest RAM (RISC-V IOMMU §3, §4, §6).

import { decodeCapabilities } from "../../../../host/arch/riscv/capabilities.ts";
import {
  type CommandName,
  encodeCommand,
  PRGR_INVALID_REQUEST,
  PRGR_RESPONSE_FAILURE,
  PRGR_SUCCESS,
} from "../../../../host/arch/riscv/commands.ts";
import {
  deviceContextBytes,
  deviceDirectoryIndex,
  TC_DPE,
  TC_EN_ATS,
  TC_EN_PRI,
  TC_PDTV,
  TC_PRPR,
  TC_V,
} from "../../../../host/arch/riscv/device-context.ts";
import { decodeFaultRecord, type FaultRecord } from "../../../../host/arch/riscv/fault-records.ts";
import { decodePageRequest, type PageRequestRecord } from "../../../../host/arch/riscv/page-requests.ts";
import { DDTP_3LVL, REG } from "../../../../host/arch/riscv/registers.ts";
import type { VcpuPort } from "../../../vcpu/port.ts";
import type {
  DeviceTranslation,
  DriverSurroundings,
  FirstStage,
  GuestDriver,
  GuestMemory,
  InvalidationScope,
  PageAnswer,
  PageRequest,
  TranslationOffer,
} from "../../guest-driver.ts";
import { ProcessDirectory } from "./process-directory.ts";
import { Stage1 } from "./stage1.ts";

const QUEUE_LOG2 = 8;
const QUEUE_ENTRIES = 1 << QUEUE_LOG2;
const CAPABILITY_MSI_FLAT = 1n << 22n;
const CSR_ENABLE = 1;
const CSR_INTERRUPT = 2;
const CSR_ON = 1 << 16;
const CQCSR_ERRORS = 0x700;
const ANSWERS: Readonly<Record<PageAnswer, number>> = {
  success: PRGR_SUCCESS,
  invalid: PRGR_INVALID_REQUEST,
  failure: PRGR_RESPONSE_FAILURE,
};

/** What a guest writes into a device context: doublewords of §3.1.3. Words not given are 0. */
export interface ContextWords {
  readonly tc: bigint;
  readonly fsc?: bigint;
  readonly ta?: bigint;
  readonly iohgatp?: bigint;
}

/** What only this kind's translations have. */
export interface TranslationExtra {
  /** Further bits of tc (§3.1.3). */
  readonly tc?: bigint;
}

/** Not state: a scenario plays the guest, and what it knows is its own. */
export class GuestIommu implements GuestDriver {
  /** The capabilities register as the guest reads it. */
  readonly capabilities: bigint;
  readonly #port: VcpuPort;
  readonly #ram: GuestMemory;
  readonly #base: number;
  readonly #extended: boolean;
  readonly #ddt: bigint;
  readonly #commandQueue: bigint;
  readonly #faultQueue: bigint;
  readonly #pageQueue: bigint;
  readonly #processDirectories = new Map<number, ProcessDirectory>();
  #tail = 0;
  #faultHead = 0;
  #pageHead = 0;

  /**
   * Finds the vIOMMU at guest-physical `base` and brings it up: queues on, interrupts as messages from number `firstMessage` on,
   * ddtp 3LVL.
   */
  constructor({ port, ram, base, messageAddress, firstMessage }: DriverSurroundings) {
    this.#port = port;
    this.#ram = ram;
    this.#base = base;
    this.capabilities = this.read64(REG.capabilities);
    this.#extended = (this.capabilities & CAPABILITY_MSI_FLAT) !== 0n;
    this.#ddt = ram.allocate();
    this.#commandQueue = ram.allocate(1);
    this.#faultQueue = ram.allocate(2, 8192n);
    this.#pageQueue = ram.allocate(1);
    // Vectors 0 to 3 (command queue, fault queue, counters, page requests) as messages of their own numbers.
    this.write64(REG.icvec, 0x3210n);
    for (let vector = 0; vector < 4; vector++) {
      this.write64(REG.msi_cfg_tbl + 16 * vector, BigInt(messageAddress));
      this.write32(REG.msi_cfg_tbl + 16 * vector + 8, firstMessage + vector);
      this.write32(REG.msi_cfg_tbl + 16 * vector + 12, 0);
    }
    this.write64(REG.cqb, queueBase(this.#commandQueue));
    this.write32(REG.cqt, 0);
    this.write32(REG.cqcsr, CSR_ENABLE | CSR_INTERRUPT);
    this.write64(REG.fqb, queueBase(this.#faultQueue));
    this.write32(REG.fqh, 0);
    this.write32(REG.fqcsr, CSR_ENABLE | CSR_INTERRUPT);
    if (this.capabilities & (1n << 25n)) {
      this.write64(REG.pqb, queueBase(this.#pageQueue));
      this.write32(REG.pqh, 0);
      this.write32(REG.pqcsr, CSR_ENABLE | CSR_INTERRUPT);
    }
    for (const csr of [REG.cqcsr, REG.fqcsr]) {
      if ((this.read32(csr) & CSR_ON) === 0) throw new Error(`the vIOMMU did not turn on the queue of register ${csr}`);
    }
    this.write64(REG.ddtp, ((this.#ddt >> 12n) << 10n) | BigInt(DDTP_3LVL));
    this.command("IODIR.INVAL_DDT");
    this.command("IOTINVAL.VMA");
    this.fence();
  }

  read32(register: number): number {
    return this.#port.load(this.#base + register, 4);
  }

  read64(register: number): bigint {
    const low = this.#port.load(this.#base + register, 8);
    return (BigInt(this.#port.high) << 32n) | BigInt(low);
  }

  write32(register: number, value: number): void {
    this.#port.store(this.#base + register, 4, value, 0);
  }

  write64(register: number, value: bigint): void {
    const hi = Number((value >> 32n) & 0xffffffffn);
    this.#port.store(this.#base + register, 8, Number(value & 0xffffffffn), hi);
  }

  /** Stores a command into the queue; nothing happens until `ringDoorbell`. */
  command(name: CommandName, fields: Readonly<Record<string, bigint | number>> = {}): void {
    const [word0, word1] = encodeCommand(name, fields);
    this.writeCommand(word0, word1);
  }

  writeCommand(word0: bigint, word1: bigint): void {
    const next = (this.#tail + 1) % QUEUE_ENTRIES;
    if (next === this.read32(REG.cqh)) {
      this.ringDoorbell();
      if (next === this.read32(REG.cqh)) throw new Error("the command queue is full and does not move");
    }
    this.#ram.write64(this.#commandQueue + BigInt(this.#tail * 16), word0);
    this.#ram.write64(this.#commandQueue + BigInt(this.#tail * 16 + 8), word1);
    this.#tail = next;
  }

  ringDoorbell(): void {
    this.write32(REG.cqt, this.#tail);
  }

  /** IOFENCE.C, doorbell, and waits until cqh has passed it. Throws if the queue stopped with an error. */
  fence(): void {
    this.command("IOFENCE.C", { PR: 1, PW: 1 });
    this.ringDoorbell();
    const head = this.read32(REG.cqh);
    if (head !== this.#tail) {
      const csr = this.read32(REG.cqcsr);
      throw new Error(
        `the command queue stands at ${head}, tail ${this.#tail}, cqcsr 0x${csr.toString(16)}` +
          (csr & CQCSR_ERRORS ? " (stopped by an error)" : ""),
      );
    }
  }

  /** IOTINVAL.VMA for one page, one stage 1 (or PSCID), or everything. */
  invalidate(scope: InvalidationScope & { readonly pscid?: number } = {}): void {
    const pscid = scope.pscid ?? scope.stage1?.tag;
    this.command("IOTINVAL.VMA", {
      ...(pscid === undefined ? {} : { PSCV: 1, PSCID: pscid }),
      ...(scope.iova === undefined ? {} : { AV: 1, ADDR: scope.iova >> 12n }),
    });
  }

  /** Guest-physical address of a device's context; the directory grows as needed. */
  contextAddress(deviceId: number): bigint {
    let table = this.#ddt;
    for (const level of [2, 1]) {
      const at = table + BigInt(deviceDirectoryIndex(deviceId, level, this.#extended) * 8);
      let entry = this.#ram.read64(at);
      if ((entry & 1n) === 0n) {
        entry = ((this.#ram.allocate() >> 12n) << 10n) | 1n;
        this.#ram.write64(at, entry);
      }
      table = ((entry >> 10n) & 0xfffffffffffn) << 12n;
    }
    const bytes = deviceContextBytes(this.#extended);
    return table + BigInt(deviceDirectoryIndex(deviceId, 0, this.#extended) * bytes);
  }

  /** Stores a context, tc last, as §7.3.1 asks; no command. */
  writeContext(deviceId: number, words: ContextWords): void {
    const at = this.contextAddress(deviceId);
    this.#ram.write64(at, 0n);
    this.#ram.write64(at + 8n, words.iohgatp ?? 0n);
    this.#ram.write64(at + 16n, words.ta ?? 0n);
    this.#ram.write64(at + 24n, words.fsc ?? 0n);
    this.#ram.write64(at, words.tc);
  }

  /** Stores a context, IODIR.INVAL_DDT, IOTINVAL.VMA, IOFENCE.C. */
  installContext(deviceId: number, words: ContextWords): void {
    this.writeContext(deviceId, words);
    this.command("IODIR.INVAL_DDT", { DV: 1, DID: deviceId });
    this.command("IOTINVAL.VMA");
    this.fence();
  }

  /** What this IOMMU offers, as its guest reads it. */
  get offer(): TranslationOffer {
    const { ATS, PD8, PD17, PD20 } = decodeCapabilities(this.capabilities);
    return { ats: ATS, pageRequests: ATS, pasidBits: PD20 ? 20 : PD17 ? 17 : PD8 ? 8 : 0 };
  }

  /**
   * Stores what a device's requests go through, and the commands that make it so. With PASIDs the context holds a process directory, in
   * which requests without one are process 0 (DPE). `tc`: further bits of the context's first word.
   */
  installTranslation(
    deviceId: number,
    translation: DeviceTranslation<Stage1>,
    { tc = 0n }: TranslationExtra = {},
  ): void {
    const { whole, pasids, ats, pageRequests } = translation;
    if (whole === "blocked" || (whole === null && pasids.size === 0)) {
      this.installContext(deviceId, { tc: 0n });
      return;
    }
    const asked = (ats || pageRequests ? TC_EN_ATS : 0) | (pageRequests ? TC_EN_PRI : 0);
    const valid = BigInt(TC_V | asked) | tc;
    if (pasids.size === 0) {
      const words = whole instanceof Stage1 ? { fsc: whole.fsc, ta: BigInt(whole.pscid) << 12n } : {};
      this.installContext(deviceId, { tc: valid, ...words });
      return;
    }
    const directory = this.#processDirectory(deviceId, pasids);
    directory.write(0, whole ?? "blocked");
    for (const [pasid, stage] of pasids) directory.write(pasid, stage);
    const response = pageRequests ? TC_PRPR : 0;
    this.writeContext(deviceId, { tc: valid | BigInt(TC_PDTV | TC_DPE | response), fsc: directory.pdtp });
    this.command("IODIR.INVAL_DDT", { DV: 1, DID: deviceId });
    for (const pasid of [0, ...pasids.keys()]) this.command("IODIR.INVAL_PDT", { DV: 1, DID: deviceId, PID: pasid });
    this.command("IOTINVAL.VMA");
    this.fence();
  }

  /** The device's directory, anew where another PASID needs a deeper one. */
  #processDirectory(deviceId: number, pasids: ReadonlyMap<number, FirstStage<Stage1>>): ProcessDirectory {
    const mode = ProcessDirectory.modeFor(Math.max(...pasids.keys()), decodeCapabilities(this.capabilities));
    if (mode === null)
      throw new Error(`the vIOMMU has no process directory for PASIDs ${[...pasids.keys()].join(", ")}`);
    let directory = this.#processDirectories.get(deviceId);
    if (directory === undefined || directory.mode !== mode) {
      directory = new ProcessDirectory(this.#ram, mode);
      this.#processDirectories.set(deviceId, directory);
    }
    return directory;
  }

  /** Takes the page requests that wait, oldest first, in every kind's words. */
  takeRequests(): PageRequest[] {
    return this.takePageRequests().map((record) => ({
      deviceId: record.deviceId,
      pasid: record.processId < 0 ? null : record.processId,
      address: record.address,
      read: record.read,
      write: record.write,
      execute: record.execute,
      last: record.last,
      answer: (answer: PageAnswer) => this.respond(record, ANSWERS[answer]),
    }));
  }

  /** Takes the page requests that wait, oldest first. */
  takePageRequests(): PageRequestRecord[] {
    const records: PageRequestRecord[] = [];
    const tail = this.read32(REG.pqt);
    while (this.#pageHead !== tail && records.length < QUEUE_ENTRIES) {
      const at = this.#pageQueue + BigInt(this.#pageHead * 16);
      records.push(decodePageRequest([this.#ram.read64(at), this.#ram.read64(at + 8n)]));
      this.#pageHead = (this.#pageHead + 1) % QUEUE_ENTRIES;
    }
    this.write32(REG.pqh, this.#pageHead);
    this.write32(REG.ipsr, 0x8);
    return records;
  }

  /** ATS.PRGR: answers a page-request group; code 0 success, 1 invalid request. */
  respond(request: PageRequestRecord, code: number): void {
    const pasid = request.processId < 0 ? {} : { PV: 1, PID: request.processId };
    this.command("ATS.PRGR", { RID: request.deviceId, PRGI: request.group, code, ...pasid });
    this.fence();
  }

  /** Takes the fault records that wait, oldest first, and clears overflow and memory-fault conditions. */
  takeFaults(): FaultRecord[] {
    const records: FaultRecord[] = [];
    const tail = this.read32(REG.fqt);
    while (this.#faultHead !== tail && records.length < QUEUE_ENTRIES) {
      const at = this.#faultQueue + BigInt(this.#faultHead * 32);
      records.push(decodeFaultRecord([0n, 8n, 16n, 24n].map((offset) => this.#ram.read64(at + offset))));
      this.#faultHead = (this.#faultHead + 1) % QUEUE_ENTRIES;
    }
    this.write32(REG.fqh, this.#faultHead);
    this.write32(REG.ipsr, 0x2);
    return records;
  }
}

function queueBase(address: bigint): bigint {
  return ((address >> 12n) << 10n) | BigInt(QUEUE_LOG2 - 1);
}

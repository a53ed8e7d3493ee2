// One remapping unit as its driver runs it (Linux: struct intel_iommu): probing, bringing up, queues, tables, interrupts.
//
// `probe` refuses what Linux's alloc_iommu refuses and then goes Linux's way (intel_prepare_irq_remapping, init_dmars): queue on, interrupts remapped,
// root table, page request queue, fault interrupt, translation on. One bit of the global command register a step; each waits for its status.
//
//     fault record or page request → register or ring → interrupt → `handleFaults`, `handlePageRequests` → records.ts

import { decodeCapabilities, domainLimit, type VtdFeatures } from "../../../arch/vtd/capabilities.ts";
import { FAULT_RECORD_BYTES } from "../../../arch/vtd/fault-records.ts";
import {
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INTERRUPT_ENTRY,
  WIDE_DESCRIPTOR_BYTES,
} from "../../../arch/vtd/invalidation-descriptors.ts";
import { PAGE_REQUEST_BYTES } from "../../../arch/vtd/page-requests.ts";
import {
  EVENT_IM,
  FSTS_PFO,
  FSTS_PPF,
  faultRecordingRegister,
  GCMD_CFI,
  GCMD_IRE,
  GCMD_QIE,
  GCMD_SIRTP,
  GCMD_SRTP,
  GCMD_TE,
  GCMD_WBF,
  GSTS_LEVELS,
  IQA_DW,
  PRS_PPR,
  PRS_PRO,
  REG,
  TTM_LEGACY,
  TTM_SCALABLE,
} from "../../../arch/vtd/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import { EINVAL, ENODEV, ENOMEM, ERANGE, ETIMEDOUT } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { loadDoubleword } from "../doubleword.ts";
import type { IommuDevice } from "../driver.ts";
import { TagPool } from "../tags.ts";
import type { WaitingCall } from "../wait.ts";
import { deviceDataOf } from "./device-data.ts";
import { InterruptRemapping } from "./interrupt-remapping.ts";
import { InvalidationQueue, QUEUE_ENTRIES } from "./invalidation-queue.ts";
import { dropContexts, dropPasidEntries, dropTranslations } from "./invalidations.ts";
import type { UnitTraits } from "./pasid-entries.ts";
import { RootTable } from "./root-table.ts";

/** Linux: PRQ_ORDER; 2^(PQS + 7) entries. */
const PAGE_REQUEST_SIZE_CODE = 4;
const PAGE_REQUEST_ENTRIES = 2 ** (PAGE_REQUEST_SIZE_CODE + 7);
/** Linux: DMAR_OPERATION_TIMEOUT. */
const TIMEOUT_NS = 10e9;
/** Domain ids 0 (what caching mode tags absent entries with) and 1 (FLPT_DEFAULT_DID) are nobody's. */
const PASS_THROUGH_ID = 1;

/** Where a message-signalled interrupt of the unit's own is to be written. */
interface InterruptMessage {
  readonly address: bigint;
  readonly data: number;
}

export interface UnitParts {
  readonly hardware: HardwareIommu;
  readonly frames: HostFrames;
  readonly wait: WaitingCall;
  /** Makes `handle` the handler of a new message interrupt; null where there are none. */
  readonly requestMessage: ((name: string, handle: () => void) => InterruptMessage | null) | null;
  readonly defer: (event: ClockEvent) => void;
}

/** Takes what the hardware recorded: 2 quadwords a fault, 4 a page request. */
export interface RecordHandlers {
  fault(words: readonly bigint[]): void;
  pageRequest(words: readonly bigint[]): void;
  pageRequestsLost(): void;
}

export class VtdUnit implements Stateful {
  readonly name: string;
  readonly hardware: HardwareIommu;
  /** CAP and ECAP as they read. */
  capabilities = 0n; // not state: probed
  extendedCapabilities = 0n; // not state: probed
  features!: VtdFeatures; // not state: probed
  queue!: InvalidationQueue;
  readonly devices = new Map<number, IommuDevice>();
  /** Fault records that nobody was told of. */
  unhandledFaults = 0;
  readonly #parts: UnitParts;
  readonly #handlers: RecordHandlers;
  readonly #ids = new TagPool(16);
  readonly #allocations: { frame: HpaPfn; pages: number }[] = []; // not state: set up by probing
  #roots!: RootTable;
  #remapping: InterruptRemapping | null = null;
  #pageRequests: HpaPfn | null = null; // not state: set up by probing
  #handling = false; // not state: within a call

  constructor(parts: UnitParts, handlers: RecordHandlers) {
    this.#parts = parts;
    this.#handlers = handlers;
    this.hardware = parts.hardware;
    this.name = parts.hardware.name;
    for (let id = 1; id <= PASS_THROUGH_ID; id++) this.#ids.take();
  }

  // --- what it is ---

  /** Scalable mode, which Linux uses wherever it is. */
  get scalable(): boolean {
    return this.features.SMTS;
  }

  get hasFirstStage(): boolean {
    return this.scalable && this.features.FSTS;
  }

  /** Legacy mode has nothing else. */
  get hasSecondStage(): boolean {
    return !this.scalable || this.features.SSTS;
  }

  get supportsNesting(): boolean {
    return this.scalable && this.features.NEST && this.features.SSTS;
  }

  get tracksDirty(): boolean {
    return this.scalable && this.features.SSADS && this.features.SMPWCS;
  }

  /** Bits of a PASID; 0: none but the requester id's. */
  get pasidBits(): number {
    return this.scalable && this.features.PASID ? this.features.PSS + 1 : 0;
  }

  /** Linux: DT, PRS and PDS. */
  get takesPageRequests(): boolean {
    const { DT, PRS, PDS } = this.features;
    return this.scalable && DT && PRS && PDS;
  }

  /** Levels and input bits of a second stage (Linux: compute_vasz_lg2_ss); 0 levels: there is no width. */
  get secondStageTable(): { readonly levels: number; readonly inputBits: number } {
    const { SAGAW, MGAW } = this.features;
    const limit = MGAW + 1;
    if (limit > 48 && SAGAW >= 8) return { levels: 5, inputBits: Math.min(57, limit) };
    if (limit > 39 && SAGAW >= 4) return { levels: (SAGAW & 4) !== 0 ? 4 : 5, inputBits: Math.min(48, limit) };
    if (limit > 30 && SAGAW >= 2) {
      return { levels: (SAGAW & 2) !== 0 ? 3 : (SAGAW & 4) !== 0 ? 4 : 5, inputBits: Math.min(39, limit) };
    }
    return { levels: 0, inputBits: 0 };
  }

  /** Of a first stage: only the lower half of what is canonical (Linux: compute_vasz_lg2_fs, PT_FEAT_SIGN_EXTEND). */
  get firstStageTable(): { readonly levels: number; readonly inputBits: number } {
    const { MGAW, FS5LP } = this.features;
    const limit = MGAW + 1;
    if (limit > 48 && FS5LP) return { levels: 5, inputBits: Math.min(57, limit) - 1 };
    return { levels: 4, inputBits: Math.min(48, limit) - 1 };
  }

  get traits(): UnitTraits {
    const { levels } = this.secondStageTable;
    const width = this.hasSecondStage && levels > 0 ? levels - 2 : 0;
    return { walksSnoop: this.features.SMPWCS, width, passThroughId: PASS_THROUGH_ID };
  }

  // --- bringing it up ---

  /** 0 or a negated errno. */
  probe(): number {
    const { hardware } = this;
    this.capabilities = this.#read64(REG.CAP);
    this.extendedCapabilities = this.#read64(REG.ECAP);
    const none = 2n ** 64n - 1n;
    if (this.capabilities === none && this.extendedCapabilities === none) return -EINVAL;
    this.features = decodeCapabilities(this.capabilities, this.extendedCapabilities);
    if (faultRecordingRegister(this.features, this.features.NFR + 1) > hardware.registerBytes) return -EINVAL;
    // Linux: a unit without a usable width is ignored; one without a queue is driven by registers, which is not here.
    if (this.hasSecondStage && this.secondStageTable.levels === 0) return -ENODEV;
    if (!this.hasSecondStage && !this.hasFirstStage) return -ENODEV;
    if (!this.features.QI) return -ENODEV;
    const result = this.#allocate();
    return result < 0 ? result : this.#start();
  }

  #allocate(): number {
    const { frames, hardware, wait } = this.#parts;
    const wide = this.scalable;
    const ring = this.#take((QUEUE_ENTRIES * (wide ? WIDE_DESCRIPTOR_BYTES : DESCRIPTOR_BYTES)) / 4096);
    const status = this.#take(1);
    const roots = RootTable.create(this.scalable, frames);
    if (typeof roots === "number") return roots;
    this.#roots = roots;
    if (ring === null || status === null) return -ENOMEM;
    if (this.takesPageRequests) {
      this.#pageRequests = this.#take((PAGE_REQUEST_ENTRIES * PAGE_REQUEST_BYTES) / 4096);
      if (this.#pageRequests === null) return -ENOMEM;
    }
    this.queue = new InvalidationQueue({
      ...{ hardware, wait, wide, status, base: ring },
      registers: hardware.registers,
      memory: frames.memory,
      isPresent: (sourceId) => this.devices.has(sourceId),
    });
    this.#write64(REG.IQA, (BigInt(ring) << 12n) | (wide ? BigInt(IQA_DW | 1) : 0n));
    if (!this.features.IR) return 0;
    const remapping = InterruptRemapping.create(this, frames);
    if (typeof remapping === "number") return remapping;
    this.#remapping = remapping;
    return 0;
  }

  #start(): number {
    // Somebody before this kernel may have left it running.
    for (const level of [GCMD_TE, GCMD_IRE, GCMD_QIE]) {
      const off = this.#switch(level, false);
      if (off < 0) return off;
    }
    this.#forgetFaults();
    this.#write64(REG.IQT, 0n);
    let result = this.#switch(GCMD_QIE, true);
    if (result === 0) result = this.#startRemapping();
    if (result === 0) result = this.#setRootTable();
    if (result < 0) return result;
    if (this.#pageRequests !== null) {
      this.#write64(REG.PQH, 0n);
      this.#write64(REG.PQT, 0n);
      this.#write64(REG.PQA, (BigInt(this.#pageRequests) << 12n) | BigInt(PAGE_REQUEST_SIZE_CODE));
      this.#takeInterrupt("page requests", REG.PECTL, () => this.handlePageRequests());
      this.#write32(REG.PRS, PRS_PPR | PRS_PRO);
    }
    this.#takeInterrupt("faults", REG.FECTL, () => this.handleFaults());
    return this.#switch(GCMD_TE, true);
  }

  #startRemapping(): number {
    const remapping = this.#remapping;
    if (remapping === null) return 0;
    this.#write64(REG.IRTA, remapping.registerValue);
    let result = this.#command(GCMD_SIRTP, () => (this.#status & GCMD_SIRTP) !== 0);
    if (result === 0 && !this.features.ESIRTPS) {
      this.queue.pushHalves(DESCRIPTOR_INTERRUPT_ENTRY, 0, 0, 0);
      result = this.queue.sync();
    }
    if (result === 0) result = this.#switch(GCMD_IRE, true);
    // Messages in the compatibility format, which would pass by the table, are blocked.
    return result < 0 ? result : this.#switch(GCMD_CFI, false);
  }

  /** iommu_set_root_entry. */
  #setRootTable(): number {
    const mode = this.scalable ? TTM_SCALABLE : TTM_LEGACY;
    this.#write64(REG.RTADDR, (BigInt(this.#roots.root) << 12n) | (BigInt(mode) << 10n));
    const result = this.#command(GCMD_SRTP, () => (this.#status & GCMD_SRTP) !== 0);
    if (result < 0 || this.features.ESRTPS) return result;
    dropContexts(this);
    if (this.scalable) dropPasidEntries(this);
    dropTranslations(this);
    return this.queue.sync();
  }

  /** FE*, PE*: control, data, address, upper address follow each other. Without messages nothing is told by itself. */
  #takeInterrupt(what: string, control: number, handle: () => void): void {
    const message = this.#parts.requestMessage?.(`${this.name} ${what}`, handle) ?? null;
    if (message === null) return;
    this.#write32(control + 4, message.data);
    this.#write32(control + 8, Number(message.address & 0xffffffffn));
    this.#write32(control + 12, Number(message.address >> 32n));
    this.#write32(control, 0);
  }

  /** Stops everything, memory back. */
  shutDown(): void {
    this.#write32(REG.FECTL, EVENT_IM);
    this.#write32(REG.PECTL, EVENT_IM);
    for (const level of [GCMD_TE, GCMD_IRE, GCMD_QIE]) this.#switch(level, false);
    this.#roots?.free();
    this.#remapping?.free();
    this.#remapping = null;
    for (const { frame, pages } of this.#allocations) this.#parts.frames.release(frame, pages);
    this.#allocations.length = 0;
  }

  // --- global commands ---

  get #status(): number {
    return this.#read32(REG.GSTS);
  }

  /** One bit of GCMD beside those that are on. 0, or -ETIMEDOUT. */
  #command(bit: number, done: () => boolean): number {
    this.#write32(REG.GCMD, ((this.#status & GSTS_LEVELS) | bit) >>> 0);
    return this.#parts.wait(this.hardware, done, TIMEOUT_NS) ? 0 : -ETIMEDOUT;
  }

  /** Makes a level what is wanted, if it is not. */
  #switch(level: number, on: boolean): number {
    const is = (): boolean => ((this.#status & level) !== 0) === on;
    if (is()) return 0;
    const status = this.#status & GSTS_LEVELS;
    this.#write32(REG.GCMD, (on ? status | level : status & ~level) >>> 0);
    return this.#parts.wait(this.hardware, is, TIMEOUT_NS) ? 0 : -ETIMEDOUT;
  }

  /** What was written to memory is visible to the unit (Linux: iommu_flush_write_buffer). Only old units need to be told. */
  flushWriteBuffer(): void {
    if (!this.features.RWBF) return;
    this.#command(GCMD_WBF, () => (this.#status & GCMD_WBF) === 0);
  }

  // --- devices ---

  sourceIdOf(device: IommuDevice): number {
    return device.deviceId & 0xffff;
  }

  get roots(): RootTable {
    return this.#roots;
  }

  /** 0; -ERANGE for a device of another segment, -ENODEV for one whose source id is another's, -ENOMEM. */
  addDevice(device: IommuDevice): number {
    const sourceId = this.sourceIdOf(device);
    if (device.deviceId !== sourceId) return -ERANGE;
    // A function that was pulled out keeps its entry until its last user has closed it.
    if (this.devices.has(sourceId)) return -ENODEV;
    const prepared = this.#roots.prepare(sourceId);
    if (prepared === 0) this.devices.set(sourceId, device);
    return prepared;
  }

  removeDevice(device: IommuDevice): void {
    this.devices.delete(this.sourceIdOf(device));
  }

  takeDomainId(): number {
    return this.#ids.take(Math.log2(domainLimit(this.features)));
  }

  giveBackDomainId(id: number): void {
    this.#ids.giveBack(id);
  }

  get remapping(): InterruptRemapping | null {
    return this.#remapping;
  }

  // --- interrupts and records ---

  /** Takes what stands recorded, interrupt or not: before a device changes hands. */
  drainRecords(): void {
    this.handleFaults();
    this.handlePageRequests();
  }

  /** dmar_fault: from FRI on as long as there is a record. The queue's own errors are seen by whoever waits for it. */
  handleFaults(): void {
    const status = this.#read32(REG.FSTS);
    if ((status & (FSTS_PPF | FSTS_PFO)) === 0 || this.#handling) return;
    this.#handling = true;
    const records = this.features.NFR + 1;
    let index = (status >>> 8) & 0xff;
    for (let taken = 0; taken < records; taken++) {
      const at = faultRecordingRegister(this.features, index % records);
      const words = [this.#read64(at), this.#read64(at + 8)];
      if (words[1]! >> 63n === 0n) break;
      this.#write32(at + FAULT_RECORD_BYTES - 4, 0x80000000);
      this.#handlers.fault(words);
      index++;
    }
    this.#write32(REG.FSTS, FSTS_PFO);
    this.#handling = false;
  }

  #forgetFaults(): void {
    for (let index = 0; index <= this.features.NFR; index++) {
      this.#write32(faultRecordingRegister(this.features, index) + FAULT_RECORD_BYTES - 4, 0x80000000);
    }
    this.#write32(REG.FSTS, FSTS_PFO);
  }

  /** prq_event_thread. */
  handlePageRequests(): void {
    const ring = this.#pageRequests;
    if (ring === null || this.#handling) return;
    this.#handling = true;
    const bytes = PAGE_REQUEST_ENTRIES * PAGE_REQUEST_BYTES;
    // Cleared first, so that what comes from now on interrupts again.
    this.#write32(REG.PRS, PRS_PPR);
    let head = this.#read32(REG.PQH) % bytes;
    for (let taken = 0; taken < PAGE_REQUEST_ENTRIES; taken++) {
      if (head === this.#read32(REG.PQT) % bytes) break;
      const page = (ring + (head >> 12)) as HpaPfn;
      const words = [0, 8, 16, 24].map((word) => loadDoubleword(this.#parts.frames.memory, page, (head & 4095) + word));
      head = (head + PAGE_REQUEST_BYTES) % bytes;
      this.#write64(REG.PQH, BigInt(head));
      this.#handlers.pageRequest(words);
    }
    if ((this.#read32(REG.PRS) & PRS_PRO) !== 0 && head === this.#read32(REG.PQT) % bytes) {
      this.#handlers.pageRequestsLost();
      this.#write32(REG.PRS, PRS_PRO);
    }
    this.#handling = false;
  }

  // --- registers and memory ---

  #take(pages: number): HpaPfn | null {
    const frame = this.#parts.frames.allocate(pages, pages);
    if (frame < 0) return null;
    this.#allocations.push({ frame: frame as HpaPfn, pages });
    return frame as HpaPfn;
  }

  #read32(offset: number): number {
    return this.hardware.registers.mmioRead(offset, 4) >>> 0;
  }

  #write32(offset: number, value: number): void {
    this.hardware.registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  #read64(offset: number): bigint {
    const { registers } = this.hardware;
    const low = registers.mmioRead(offset, 8) >>> 0;
    return (BigInt(registers.high >>> 0) << 32n) | BigInt(low);
  }

  #write64(offset: number, value: bigint): void {
    const high = Number((value >> 32n) & 0xffffffffn);
    this.hardware.registers.mmioWrite(offset, 8, Number(value & 0xffffffffn), high);
  }

  // --- state: what probing found out and set up stays as it is ---

  saveState(): StateRecord {
    return { unhandledFaults: this.unhandledFaults };
  }

  restoreState(state: StateReader): void {
    this.unhandledFaults = state.number("unhandledFaults");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["invalidation queue", this.queue];
    yield ["root table", this.#roots];
    yield ["domain ids", this.#ids];
    if (this.#remapping !== null) yield ["interrupt remapping", this.#remapping];
    for (const device of this.devices.values()) yield [device.name, deviceDataOf(device)];
  }
}

// One RISC-V IOMMU as its driver runs it (Linux: struct riscv_iommu_device): probing, queues, the device directory, interrupts.
//
// `probe` does what Linux's riscv_iommu_init does, in that order, and adds what Linux leaves out: a page-request queue, second-stage
// modes, a hot-unpluggable end (`shutDown`). Interrupt causes go to vectors 0 command, 1 fault, 2 performance, 3 page requests.
//
//     fault or page request → record in the ring → interrupt → `handleInterrupt` → faults.ts, page requests to the iommu core

import {
  decodeCapabilities,
  IGS_WSI,
  type RiscvCapabilities,
  type StructureRules,
  structureRules,
} from "../../../arch/riscv/capabilities.ts";
import { encodeCommand } from "../../../arch/riscv/commands.ts";
import { TC_EN_ATS, TC_EN_PRI } from "../../../arch/riscv/device-context.ts";
import { FAULT_RECORD_BYTES } from "../../../arch/riscv/fault-records.ts";
import { PAGE_REQUEST_BYTES } from "../../../arch/riscv/page-requests.ts";
import {
  CSR_BUSY,
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  CSR_OVERFLOW,
  DDTP_1LVL,
  DDTP_3LVL,
  DDTP_BARE,
  DDTP_OFF,
  IPSR_CIP,
  IPSR_FIP,
  IPSR_PIP,
  REG,
} from "../../../arch/riscv/registers.ts";
import { type HpaPfn, PAGE_SIZE } from "../../../base/address.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import { EBUSY, EINVAL, EIO, ENODEV, ENOMEM, ETIMEDOUT } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillMap, refillSet } from "../../same-objects.ts";
import { loadDoubleword } from "../doubleword.ts";
import type { IommuDevice } from "../driver.ts";
import type { TagPool } from "../tags.ts";
import type { WaitingCall } from "../wait.ts";
import { CommandQueue } from "./command-queue.ts";
import {
  type Context,
  hasSecondStage,
  INVALID_CONTEXT,
  keepsRequester,
  type Phase,
  planStores,
  restoredContext,
  throughPrivateTag,
} from "./context-switch.ts";
import { deviceDataOf } from "./device-data.ts";
import { DeviceDirectory } from "./device-directory.ts";
import { forgetTranslations } from "./device-translations.ts";

const COMMAND_ENTRIES = 8192;
const FAULT_ENTRIES = 4096;
const PAGE_REQUEST_ENTRIES = 4096;
const QUEUE_TIMEOUT_NS = 150e6;
const DDTP_TIMEOUT_NS = 10e9;
const PPN_MASK = 0xfff_ffff_ffffn;

/** Where a message-signalled interrupt of the IOMMU's own is to be written. */
export interface InterruptMessage {
  readonly address: bigint;
  readonly data: number;
}

export interface InstanceParts {
  readonly hardware: HardwareIommu;
  readonly frames: HostFrames;
  readonly wait: WaitingCall;
  /** Makes `handle` the handler of a new message interrupt; null where there are none. */
  readonly requestMessage: ((name: string, handle: () => void) => InterruptMessage | null) | null;
  /** Runs a wired interrupt's handler outside of what raised it. */
  readonly defer: (event: ClockEvent) => void;
  /** The host's pools of tags: a switch may need one of its own for a moment. */
  readonly tags: { readonly pscids: TagPool; readonly gscids: TagPool };
}

/** Takes the records that the hardware queued; 4 doublewords a fault, 2 a page request. */
export interface RecordHandlers {
  fault(words: readonly bigint[]): void;
  pageRequest(words: readonly bigint[]): void;
  /** Page requests were lost: the hardware answered them for want of room. */
  pageRequestsLost(): void;
}

interface RecordQueue {
  readonly base: HpaPfn;
  readonly entries: number;
  readonly entryBytes: number;
  readonly headRegister: number;
  readonly tailRegister: number;
  readonly csr: number;
  readonly pending: number;
  readonly take: (words: readonly bigint[]) => void;
  readonly lost: () => void;
}

export class RiscvIommu implements Stateful {
  readonly name: string;
  readonly hardware: HardwareIommu;
  capabilitiesWord = 0n; // not state: probed
  capabilities: RiscvCapabilities; // not state: probed
  fctl = 0; // not state: probed
  /** Rules for contexts under this hardware's capabilities (arch/riscv), as of `probe`. */
  rules: StructureRules; // not state: probed
  directory!: DeviceDirectory;
  queue!: CommandQueue;
  readonly devices = new Map<number, IommuDevice>();
  /** Contexts written by `switchContext`, per device id. */
  readonly #contexts = new Map<number, Context>();
  readonly #parts: InstanceParts;
  readonly #handlers: RecordHandlers;
  readonly #recordQueues: RecordQueue[] = []; // not state: set up by probing
  readonly #allocations: { frame: HpaPfn; pages: number }[] = []; // not state: set up by probing
  #handling = false; // not state: within a call
  /** Wired interrupts that are asserted. */
  readonly #wires = new Set<number>();
  readonly #wired: ClockEvent;
  /** Fault records that no guest was to be told of. */
  unhandledFaults = 0;

  readonly clockEvents: readonly ClockEvent[];

  constructor(parts: InstanceParts, handlers: RecordHandlers) {
    this.#parts = parts;
    this.#handlers = handlers;
    this.hardware = parts.hardware;
    this.name = parts.hardware.name;
    this.capabilities = decodeCapabilities(0n);
    this.rules = structureRules(this.capabilities, { fctl: 0 });
    this.#wired = { owner: `driver of ${this.name}`, name: "wired interrupt", fire: () => this.handleInterrupt() };
    this.clockEvents = [this.#wired];
  }

  /** Brings the hardware up; 0 or a negated errno. */
  probe(): number {
    this.capabilitiesWord = this.#read64(REG.capabilities);
    this.capabilities = decodeCapabilities(this.capabilitiesWord);
    const wired = this.capabilities.IGS === IGS_WSI;
    // fctl: little-endian, host's own contexts with SXL = GXL = 0, interrupts as messages where the hardware can send them.
    const fctl = this.#read32(REG.fctl);
    const wanted = wired ? 2 : 0;
    if (fctl !== wanted) this.#write32(REG.fctl, wanted);
    this.fctl = this.#read32(REG.fctl);
    if (this.fctl !== wanted) return -ENODEV;
    this.rules = structureRules(this.capabilities, { fctl: this.fctl });
    const { Sv39, Sv48, Sv57 } = this.capabilities;
    if (!Sv39 && !Sv48 && !Sv57) return -ENODEV;
    const ddtp = this.#read64(REG.ddtp);
    if ((ddtp & 0x10n) !== 0n || (ddtp & 0xfn) > BigInt(DDTP_BARE)) return -EBUSY;
    const interrupts = this.#setUpInterrupts(wired);
    if (interrupts < 0) return interrupts;
    const queues = this.#setUpQueues();
    if (queues < 0) return queues;
    const directory = this.#setUpDirectory();
    if (directory < 0) return directory;
    this.queue.push(encodeCommand("IODIR.INVAL_DDT"));
    this.queue.push(encodeCommand("IOTINVAL.VMA"));
    if (this.secondStageMode !== 0) this.queue.push(encodeCommand("IOTINVAL.GVMA"));
    return this.queue.fence();
  }

  /** Stops everything: directory off, queues off, memory back (Linux: riscv_iommu_remove). */
  shutDown(): void {
    this.#write64(REG.ddtp, BigInt(DDTP_OFF));
    this.#waitFor(() => (this.#read64(REG.ddtp) & 0x10n) === 0n, DDTP_TIMEOUT_NS);
    for (const csr of [REG.cqcsr, REG.fqcsr, REG.pqcsr]) this.#write32(csr, 0);
    this.hardware.drain();
    for (const { frame, pages } of this.#allocations) this.#parts.frames.release(frame, pages);
    this.#allocations.length = 0;
  }

  /** iosatp mode of the first stages this driver builds: the widest, as Linux. */
  get firstStageMode(): number {
    return this.capabilities.Sv57 ? 10 : this.capabilities.Sv48 ? 9 : 8;
  }

  /** iohgatp mode of second stages: Sv48x4 where there is one (a petabyte is enough, and a level less to walk); 0 without any. */
  get secondStageMode(): number {
    const { Sv39x4, Sv48x4, Sv57x4 } = this.capabilities;
    return Sv48x4 ? 9 : Sv57x4 ? 10 : Sv39x4 ? 8 : 0;
  }

  /** Bits of a process id that the hardware takes; 0 without process directories. */
  get processIdBits(): number {
    const { PD8, PD17, PD20 } = this.capabilities;
    return PD20 ? 20 : PD17 ? 17 : PD8 ? 8 : 0;
  }

  get supportsNesting(): boolean {
    return this.secondStageMode !== 0;
  }

  // --- device contexts ---

  addDevice(device: IommuDevice): number {
    if (device.deviceId >= 2 ** this.directory.deviceIdBits) return -EINVAL;
    // A function that was pulled out keeps its id until its last user has closed it.
    if (this.devices.has(device.deviceId)) return -EBUSY;
    const prepared = this.directory.prepare(device.deviceId);
    if (prepared < 0) return prepared;
    this.devices.set(device.deviceId, device);
    return 0;
  }

  removeDevice(device: IommuDevice): void {
    this.switchContext(device.deviceId, INVALID_CONTEXT);
    this.devices.delete(device.deviceId);
    this.#contexts.delete(device.deviceId);
  }

  contextOf(deviceId: number): Context {
    return this.#contexts.get(deviceId) ?? INVALID_CONTEXT;
  }

  /** The device may ask for translations now, so it may hold some. */
  mayHoldTranslations(device: IommuDevice): boolean {
    return device.hasAts && has(this.contextOf(device.deviceId), TC_EN_ATS);
  }

  /**
   * Makes `to` the device's context. Requests meet the old context or the new one at any time where there is a way to that, else for a
   * moment one that is not valid (context-switch.ts). 0 or -ENOMEM with nothing changed.
   */
  switchContext(deviceId: number, to: Context): number {
    const from = this.contextOf(deviceId);
    const device = this.devices.get(deviceId);
    // The device stops asking before its IOMMU stops answering, and starts after it has begun to.
    if (!has(to, TC_EN_PRI)) device?.services?.setPri(false);
    if (!has(to, TC_EN_ATS)) device?.services?.setAts(false);
    const switched = this.#switch(deviceId, from, to);
    const now = switched < 0 ? from : to;
    if (device?.hasAts && has(from, TC_EN_ATS) && has(to, TC_EN_ATS)) {
      // Translations of the old domain would outlive it.
      forgetTranslations(this.queue, device);
      this.queue.fence();
    }
    if (has(now, TC_EN_ATS)) device?.services?.setAts(true);
    if (has(now, TC_EN_PRI)) device?.services?.setPri(true);
    return switched;
  }

  #switch(deviceId: number, from: Context, to: Context): number {
    const { rules } = this;
    const plan = planStores(from, to, rules);
    if (plan !== null) {
      this.#store(deviceId, plan);
    } else if (!this.#switchTag(deviceId, from, to)) {
      if (keepsRequester(from, to) && this.directory.canReplace) {
        const replaced = this.directory.replace(deviceId, to);
        if (replaced < 0) return replaced;
        // The pointer to the old leaf table may be cached, which only an invalidation of the whole directory drops (§4.1.3).
        this.queue.push(encodeCommand("IODIR.INVAL_DDT"));
        this.queue.fence();
        this.directory.freeReplaced();
      } else {
        this.#store(deviceId, planStores(from, INVALID_CONTEXT, rules)!);
        this.#store(deviceId, planStores(INVALID_CONTEXT, to, rules)!);
      }
    }
    this.#contexts.set(deviceId, to);
    return 0;
  }

  /** The way through a private tag; false if it does not lead there, or there is no tag. */
  #switchTag(deviceId: number, from: Context, to: Context): boolean {
    const nested = hasSecondStage(from);
    const pool = nested ? this.#parts.tags.gscids : this.#parts.tags.pscids;
    const tag = pool.take();
    if (tag < 0) return false;
    const plan = throughPrivateTag(from, to, this.rules, tag);
    if (plan !== null) {
      this.#store(deviceId, plan);
      const scope = nested ? { GV: 1, GSCID: tag } : { PSCV: 1, PSCID: tag };
      this.queue.push(encodeCommand("IOTINVAL.VMA", scope));
      if (nested) this.queue.push(encodeCommand("IOTINVAL.GVMA", scope));
      this.queue.fence();
    }
    pool.giveBack(tag);
    return plan !== null;
  }

  #store(deviceId: number, phases: readonly Phase[]): void {
    for (const phase of phases) {
      for (const { word, value } of phase) this.directory.store(deviceId, word, value);
      this.queue.push(encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: deviceId }));
      this.queue.fence();
    }
  }

  // --- interrupts and record queues ---

  /** Drains the record queues that have something; runs as an interrupt handler, never inside another kernel operation. */
  handleInterrupt(): void {
    if (this.#handling) return;
    this.#handling = true;
    const pending = this.#read32(REG.ipsr);
    this.#write32(REG.ipsr, pending & (IPSR_CIP | IPSR_FIP | IPSR_PIP));
    // An error of the command queue is handled by whoever waits for it.
    for (const queue of this.#recordQueues) if ((pending & queue.pending) !== 0) this.#drain(queue);
    this.#handling = false;
  }

  /** Takes what the record queues hold now, interrupt or not: before a device changes hands. */
  drainRecords(): void {
    // A record, an overflow or a memory fault sets its bit of ipsr, which stays until the handler has come (§6.18).
    if (this.#handling || (this.#read32(REG.ipsr) & (IPSR_FIP | IPSR_PIP)) === 0) return;
    this.#handling = true;
    for (const queue of this.#recordQueues) this.#drain(queue);
    this.#handling = false;
  }

  #drain(queue: RecordQueue): void {
    const { memory } = this.#parts.frames;
    const mask = queue.entries - 1;
    let head = this.#read32(queue.headRegister) & mask;
    // A device may keep the queue full for as long as this runs: one ring's worth per interrupt is enough.
    for (let taken = 0; taken < queue.entries; taken++) {
      const tail = this.#read32(queue.tailRegister) & mask;
      if (head === tail) break;
      const at = head * queue.entryBytes;
      const words: bigint[] = [];
      for (let i = 0; i < queue.entryBytes; i += 8) {
        words.push(loadDoubleword(memory, (queue.base + (at >> 12)) as HpaPfn, (at & 4095) + i));
      }
      head = (head + 1) & mask;
      this.#write32(queue.headRegister, head);
      queue.take(words);
    }
    const status = this.#read32(queue.csr);
    if ((status & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) === 0) return;
    queue.lost();
    this.#write32(queue.csr, status);
  }

  #setUpInterrupts(wired: boolean): number {
    this.#write64(REG.icvec, 0x3010n);
    const icvec = this.#read64(REG.icvec);
    const handle = () => this.handleInterrupt();
    const vectors = new Set([0n, 4n, 8n, 12n].map((shift) => Number((icvec >> shift) & 0xfn)));
    if (wired) {
      this.hardware.onWire = (vector, asserted) => {
        // A level: the handler takes back what made it, so one call per rise is enough.
        if (!asserted) this.#wires.delete(vector);
        else if (!this.#wires.has(vector)) {
          this.#wires.add(vector);
          this.#parts.defer(this.#wired);
        }
      };
      return 0;
    }
    if (this.#parts.requestMessage === null) return -ENODEV;
    for (const vector of vectors) {
      const message = this.#parts.requestMessage(`${this.name} vector ${vector}`, handle);
      if (message === null) return -ENOMEM;
      const entry = REG.msi_cfg_tbl + vector * 16;
      this.#write64(entry, message.address);
      this.#write32(entry + 8, message.data);
      this.#write32(entry + 12, 0);
    }
    return 0;
  }

  #setUpQueues(): number {
    const command = this.#setUpRing(REG.cqb, 16, COMMAND_ENTRIES);
    if (typeof command === "number") return command;
    const { hardware, frames, wait } = { ...this.#parts };
    const fault = this.#setUpRing(REG.fqb, FAULT_RECORD_BYTES, FAULT_ENTRIES);
    if (typeof fault === "number") return fault;
    this.#write32(REG.cqt, 0);
    const commandOn = this.#enable(REG.cqcsr, IPSR_CIP);
    if (commandOn < 0) return commandOn;
    this.queue = new CommandQueue(hardware, frames.memory, command.base, command.entries, wait);
    this.#recordQueues.push({
      ...fault,
      entryBytes: FAULT_RECORD_BYTES,
      headRegister: REG.fqh,
      tailRegister: REG.fqt,
      csr: REG.fqcsr,
      pending: IPSR_FIP,
      take: (words) => this.#handlers.fault(words),
      lost: () => {},
    });
    this.#write32(REG.fqh, 0);
    const faultOn = this.#enable(REG.fqcsr, IPSR_FIP);
    if (faultOn < 0 || !this.capabilities.ATS) return faultOn;
    const requests = this.#setUpRing(REG.pqb, PAGE_REQUEST_BYTES, PAGE_REQUEST_ENTRIES);
    if (typeof requests === "number") return requests;
    this.#write32(REG.pqh, 0);
    // Without a page-request queue the hardware answers requests itself; DMA does not need it.
    if (this.#enable(REG.pqcsr, IPSR_PIP) < 0) return 0;
    this.#recordQueues.push({
      ...requests,
      entryBytes: PAGE_REQUEST_BYTES,
      headRegister: REG.pqh,
      tailRegister: REG.pqt,
      csr: REG.pqcsr,
      pending: IPSR_PIP,
      take: (words) => this.#handlers.pageRequest(words),
      lost: () => this.#handlers.pageRequestsLost(),
    });
    return 0;
  }

  /** Finds out how large a ring may be, allocates and programs it. */
  #setUpRing(register: number, entryBytes: number, wantedEntries: number): { base: HpaPfn; entries: number } | number {
    this.#write64(register, 31n);
    const probed = this.#read64(register);
    const limit = Number(probed & 0x1fn) + 1;
    const log2 = Math.min(limit, Math.log2(wantedEntries));
    const entries = 2 ** log2;
    const pages = Math.max(1, (entries * entryBytes) / PAGE_SIZE);
    const base = this.#allocate(pages);
    if (base < 0) return base;
    const value = (BigInt(base) << 10n) | BigInt(log2 - 1);
    this.#write64(register, value);
    if (this.#read64(register) !== value) return -ENODEV;
    return { base: base as HpaPfn, entries };
  }

  #enable(csr: number, interrupt: number): number {
    const errors = CSR_MEMORY_FAULT | CSR_OVERFLOW;
    this.#write32(csr, CSR_ENABLE | CSR_INTERRUPT_ENABLE | errors);
    if (!this.#waitFor(() => (this.#read32(csr) & CSR_BUSY) === 0, QUEUE_TIMEOUT_NS)) return -ETIMEDOUT;
    if ((this.#read32(csr) & (CSR_ON | CSR_MEMORY_FAULT)) !== CSR_ON) return -EIO;
    this.#write32(REG.ipsr, interrupt);
    return 0;
  }

  #setUpDirectory(): number {
    const root = this.#allocate(1);
    if (root < 0) return root;
    for (let mode = DDTP_3LVL; mode >= DDTP_1LVL; mode--) {
      this.#write64(REG.ddtp, (BigInt(root) << 10n) | BigInt(mode));
      if (!this.#waitFor(() => (this.#read64(REG.ddtp) & 0x10n) === 0n, DDTP_TIMEOUT_NS)) return -ETIMEDOUT;
      const ddtp = this.#read64(REG.ddtp);
      if (Number(ddtp & 0xfn) !== mode) continue;
      if (((ddtp >> 10n) & PPN_MASK) !== BigInt(root)) return -ENODEV;
      const levels = mode - DDTP_1LVL + 1;
      this.directory = new DeviceDirectory(root as HpaPfn, levels, this.capabilities.MSI_FLAT, this.#parts.frames);
      return 0;
    }
    return -ENODEV;
  }

  #allocate(pages: number): number {
    const frame = this.#parts.frames.allocate(pages, pages);
    if (frame >= 0) this.#allocations.push({ frame: frame as HpaPfn, pages });
    return frame;
  }

  #waitFor(done: () => boolean, timeoutNs: number): boolean {
    return this.#parts.wait(this.hardware, done, timeoutNs);
  }

  #read32(offset: number): number {
    return this.hardware.registers.mmioRead(offset, 4);
  }

  #read64(offset: number): bigint {
    const { registers } = this.hardware;
    const low = registers.mmioRead(offset, 8);
    return (BigInt(registers.high) << 32n) | BigInt(low);
  }

  #write32(offset: number, value: number): void {
    this.hardware.registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  #write64(offset: number, value: bigint): void {
    const lo = Number(value & 0xffffffffn);
    this.hardware.registers.mmioWrite(offset, 8, lo, Number((value >> 32n) & 0xffffffffn));
  }

  // --- state: what probing found out and set up stays as it is ---

  saveState(): StateRecord {
    return {
      contexts: [...this.#contexts].map(([deviceId, context]) => ({ deviceId, context: [...context] })),
      wires: [...this.#wires],
      unhandledFaults: this.unhandledFaults,
    };
  }

  restoreState(state: StateReader): void {
    const contexts = state
      .records("contexts")
      .map((saved) => [saved.number("deviceId"), restoredContext(saved, "context")] as const);
    refillMap(this.#contexts, contexts);
    refillSet(this.#wires, numbersOf(state, "wires"));
    this.unhandledFaults = state.number("unhandledFaults");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["command queue", this.queue];
    yield ["device directory", this.directory];
    for (const device of this.devices.values()) {
      const { directory } = deviceDataOf(device);
      if (directory !== null) yield [`process directory of ${device.name}`, directory];
    }
  }
}

function has(context: Context, bit: number): boolean {
  return (Number(context[0] & 0xffffn) & bit) !== 0;
}

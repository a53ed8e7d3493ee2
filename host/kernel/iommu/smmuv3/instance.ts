// One SMMUv3 as its driver runs it (Linux: struct arm_smmu_device): probing, the reset sequence, queues, the stream table, interrupts.
//
// `probe` refuses what arm_smmu_device_hw_probe refuses and then does what arm_smmu_device_reset does, in that order; each step waits until the
// acknowledging register shows exactly what was written.
//
//     event or page request → record in the ring → interrupt → `handleInterrupt` → the driver
//     global error          → GERROR             → interrupt → counted, acknowledged

import { encodeCommand } from "../../../arch/smmuv3/commands.ts";
import { EVENT_BYTES, PAGE_REQUEST_BYTES } from "../../../arch/smmuv3/event-records.ts";
import {
  decodeIdentification,
  IDR0,
  IDR1,
  outputBits,
  type SmmuFeatures,
} from "../../../arch/smmuv3/identification.ts";
import { WIRE_CMDQV } from "../../../arch/smmuv3/parts/interrupts.ts";
import {
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_PRIQEN,
  CR0_SMMUEN,
  CR2_E2H,
  CR2_PTM,
  CR2_RECINVSID,
  GBPA_ABORT,
  GBPA_UPDATE,
  GERROR_BITS,
  GERROR_CMDQ_ERR,
  IRQ_EVENTQ,
  IRQ_GERROR,
  IRQ_PRIQ,
  OVERFLOW_FLAG,
  REG,
  REGISTER_BYTES,
} from "../../../arch/smmuv3/registers.ts";
import { type HpaPfn, PAGE_SIZE } from "../../../base/address.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { HardwareIommu } from "../../../hw/iommu/port.ts";
import type { SmmuHardware } from "../../../hw/iommu/smmuv3/cmdqv/port.ts";
import { EINVAL, ENODEV, ENOMEM, ENXIO, ETIMEDOUT } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { loadDoubleword } from "../doubleword.ts";
import type { IommuDevice } from "../driver.ts";
import { TagPool } from "../tags.ts";
import type { WaitingCall } from "../wait.ts";
import { CommandQueue } from "./command-queue.ts";
import { deviceDataOf } from "./device-data.ts";
import { type Entry, writeEntry } from "./entry-writer.ts";
import { abortEntry, STREAM_ENTRY_RULES } from "./stream-entries.ts";
import { StreamTable } from "./stream-table.ts";
import type { Granule } from "./table-shape.ts";
import { Tegra241Cmdqv } from "./tegra241-cmdqv.ts";

/** log2 of entries, at most; the rings stand in contiguous memory. */
const COMMAND_LOG2 = 13;
const EVENT_LOG2 = 12;
const PAGE_REQUEST_LOG2 = 12;
/** Linux: ARM_SMMU_POLL_TIMEOUT_US. */
const TIMEOUT_NS = 1e9;
/** Inner shareable, write-back, for queues and tables. */
const CR1_COHERENT = 0xd75;
const ALLOCATE_HINT = 1n << 62n;
/** Device-nGnRE. */
const MSI_ATTRIBUTE = 1;
/** IIDR of implementations whose errata the driver knows. */
const ARM = 0x43b;
const MMU_600 = 0x483;
const MMU_700 = 0x487;
const CMDQ_LEAST_LOG2 = 7;

/** Where a message-signalled interrupt of the SMMU's own is to be written. */
export interface InterruptMessage {
  readonly address: bigint;
  readonly data: number;
}

export interface InstanceParts {
  readonly hardware: SmmuHardware;
  readonly frames: HostFrames;
  readonly wait: WaitingCall;
  /** Makes `handle` the handler of a new message interrupt; null where there are none. */
  readonly requestMessage: ((name: string, handle: () => void) => InterruptMessage | null) | null;
  /** Runs a wired interrupt's handler outside of what raised it. */
  readonly defer: (event: ClockEvent) => void;
}

/** Takes the records that the hardware queued: 4 doublewords an event, 2 a page request. */
export interface RecordHandlers {
  event(words: readonly bigint[]): void;
  pageRequest(words: readonly bigint[]): void;
  /** Records were lost for want of room. */
  eventsLost(): void;
  pageRequestsLost(): void;
}

interface RecordQueue {
  readonly base: HpaPfn;
  readonly log2: number;
  readonly entryBytes: number;
  readonly prod: number;
  readonly cons: number;
  readonly take: (words: readonly bigint[]) => void;
  readonly lost: () => void;
}

export class Smmuv3Instance implements Stateful {
  readonly name: string;
  readonly hardware: HardwareIommu;
  /** IDR0 to IDR5, IIDR, AIDR as they read. */
  identification: readonly number[] = []; // not state: probed
  features!: SmmuFeatures; // not state: probed
  /** Granule of the tables that the driver makes here: the host's page size, else the nearest (io-pgtable-arm.c, arm_lpae_restrict_pgsizes). */
  granule: Granule = 12; // not state: probed
  /** Where commands go: the SMMU's own queue, or one of VINTF 0 of its CMDQV once that runs. */
  queue!: CommandQueue; // not state: as probing left it
  /** A CMDQV beside it. */
  cmdqv: Tegra241Cmdqv | null = null;
  readonly vmids: TagPool;
  readonly devices = new Map<number, IommuDevice>();
  /** Event records that nobody was told of; global errors. */
  unhandledEvents = 0;
  globalErrors = 0;
  readonly clockEvents: readonly ClockEvent[];
  readonly #parts: InstanceParts;
  readonly #handlers: RecordHandlers;
  readonly #recordQueues: RecordQueue[] = []; // not state: set up by probing
  readonly #allocations: { frame: HpaPfn; pages: number }[] = []; // not state: set up by probing
  #ownQueue!: CommandQueue;
  #streams!: StreamTable;
  #control = 0; // not state: as probing left it
  #handling = false; // not state: within a call
  /** An interrupt's handler is due. */
  #due = false;
  readonly #interrupt: ClockEvent;

  constructor(parts: InstanceParts, handlers: RecordHandlers) {
    this.#parts = parts;
    this.#handlers = handlers;
    this.hardware = parts.hardware;
    this.name = parts.hardware.name;
    this.vmids = new TagPool(16);
    this.#interrupt = { owner: `driver of ${this.name}`, name: "interrupt", fire: () => this.handleInterrupt() };
    this.clockEvents = [this.#interrupt];
  }

  // --- what it is ---

  /** Physical and intermediate addresses have so many bits. */
  get addressBits(): number {
    return outputBits(this.features);
  }

  /** The kernel runs at EL2 with E2H, and so do its streams (Linux: ARM_SMMU_FEAT_E2H on a VHE host). */
  get el2(): boolean {
    return this.features.Hyp;
  }

  get choosesStalls(): boolean {
    return this.features.STALL_MODEL === 0;
  }

  /** Transactions of the device may stall. */
  stalls(device: IommuDevice): boolean {
    const { STALL_MODEL } = this.features;
    return STALL_MODEL === 2 || (STALL_MODEL === 0 && device.canStall === true);
  }

  /** Not where stage 2 under a guest's stage 1 has errata (MMU-600 before r2: 1209401; MMU-700 before r1p1: 2268618, 2812531). */
  get supportsNesting(): boolean {
    const { S1P, S2P } = this.features;
    return S1P && S2P && !(this.#isProduct(MMU_600) && this.#variant < 2) && !this.#isEarlyMmu700;
  }

  get tracksDirty(): boolean {
    return this.features.HTTU >= 2 && this.features.COHACC;
  }

  /** Bits of a PASID. */
  get substreamBits(): number {
    return this.features.S1P ? this.features.SSIDSIZE : 0;
  }

  get asidBits(): number {
    return this.features.ASID16 ? 16 : 8;
  }

  // --- bringing it up ---

  /** 0 or a negated errno. */
  probe(): number {
    if (this.hardware.registerBytes < REGISTER_BYTES) return -EINVAL;
    const refused = this.#identify();
    if (refused < 0) return refused;
    const { features } = this;
    const command = this.#ring(features.CMDQS, COMMAND_LOG2, 16);
    const event = this.#ring(features.EVENTQS, EVENT_LOG2, EVENT_BYTES);
    const request = features.PRI ? this.#ring(features.PRIQS, PAGE_REQUEST_LOG2, PAGE_REQUEST_BYTES) : null;
    const streams = StreamTable.create(features.SIDSIZE, features.ST_LEVEL === 1, this.#parts.frames);
    if (typeof streams === "number") return streams;
    this.#streams = streams;
    if (command === null || event === null || (features.PRI && request === null)) return -ENOMEM;
    const cmdqv = this.#findCmdqv();
    if (cmdqv !== null && !cmdqv.prepare()) return -ENOMEM;
    const result = this.#reset(command, event, request);
    if (result < 0 || cmdqv === null) return result;
    this.cmdqv = cmdqv;
    const started = cmdqv.start(this.#ownQueue);
    this.queue = cmdqv.queues[0] ?? this.#ownQueue;
    return started;
  }

  /** Firmware's node of the SMMU refers to it (nvidia,cmdqv). */
  #findCmdqv(): Tegra241Cmdqv | null {
    const { hardware, frames, wait, defer } = this.#parts;
    if (hardware.cmdqv == null) return null;
    return new Tegra241Cmdqv({
      name: this.name,
      cmdqv: hardware.cmdqv,
      hardware,
      wait,
      memory: frames.memory,
      ring: () => this.#ring(this.features.CMDQS, COMMAND_LOG2, 16),
      defer,
    });
  }

  #identify(): number {
    const names = ["IDR0", "IDR1", "IDR2", "IDR3", "IDR4", "IDR5", "IIDR", "AIDR"] as const;
    this.identification = names.map((name) => this.#read32(REG[name]));
    const [idr0, idr1, , idr3, , idr5, , aidr] = this.identification.map(BigInt) as bigint[];
    this.features = decodeIdentification({ IDR0: idr0!, IDR1: idr1!, IDR3: idr3!, IDR5: idr5!, AIDR: aidr! });
    const { features } = this;
    // Tables are written little-endian, for hardware that reads them so or either way.
    if (features.TTENDIAN !== 0 && features.TTENDIAN !== 2) return -ENXIO;
    if (!features.S1P && !features.S2P) return -ENXIO;
    if ((IDR0.get([idr0!], "TTF") & 2n) === 0n) return -ENXIO;
    const preset = (["TABLES_PRESET", "QUEUES_PRESET", "REL"] as const).some((bit) => IDR1.get([idr1!], bit) !== 0n);
    if (preset || features.CMDQS < CMDQ_LEAST_LOG2) return -ENXIO;
    if (!features.GRAN4K && !features.GRAN16K && !features.GRAN64K) return -ENXIO;
    this.granule = features.GRAN4K ? 12 : features.GRAN16K ? 14 : 16;
    return 0;
  }

  #reset(command: Ring, event: Ring, request: Ring | null): number {
    const { features } = this;
    if ((this.#read32(REG.CR0) & CR0_SMMUEN) !== 0) {
      // Somebody's translations are in use: nothing passes from here on.
      this.#write32(REG.GBPA, ((this.#read32(REG.GBPA) & ~GBPA_UPDATE) | GBPA_ABORT | GBPA_UPDATE) >>> 0);
      if (!this.#waitFor(() => (this.#read32(REG.GBPA) & GBPA_UPDATE) === 0)) return -ETIMEDOUT;
    }
    let result = this.#setControl(0);
    if (result < 0) return result;
    this.#write32(REG.CR1, CR1_COHERENT);
    this.#write32(REG.CR2, CR2_PTM | CR2_RECINVSID | (this.el2 ? CR2_E2H : 0));
    this.#write64(REG.STRTAB_BASE, (BigInt(this.#streams.root) << 12n) | ALLOCATE_HINT);
    this.#write32(REG.STRTAB_BASE_CFG, this.#streams.configuration);
    result = this.#startCommands(command);
    if (result < 0) return result;
    this.#startRecords(event, {
      base: REG.EVENTQ_BASE,
      entryBytes: EVENT_BYTES,
      prod: REG.EVENTQ_PROD,
      cons: REG.EVENTQ_CONS,
      take: (words) => this.#handlers.event(words),
      lost: () => this.#handlers.eventsLost(),
    });
    result = this.#setControl(this.#control | CR0_EVENTQEN);
    if (result < 0) return result;
    if (request !== null) {
      this.#startRecords(request, {
        base: REG.PRIQ_BASE,
        entryBytes: PAGE_REQUEST_BYTES,
        prod: REG.PRIQ_PROD,
        cons: REG.PRIQ_CONS,
        take: (words) => this.#handlers.pageRequest(words),
        lost: () => this.#handlers.pageRequestsLost(),
      });
      result = this.#setControl(this.#control | CR0_PRIQEN);
      if (result < 0) return result;
    }
    if (features.ATS) result = this.#setControl(this.#control | CR0_ATSCHK);
    if (result === 0) result = this.#startInterrupts();
    return result < 0 ? result : this.#setControl(this.#control | CR0_SMMUEN);
  }

  #startCommands(ring: Ring): number {
    const { hardware, frames, wait } = this.#parts;
    this.#write64(REG.CMDQ_BASE, (BigInt(ring.base) << 12n) | BigInt(ring.log2) | ALLOCATE_HINT);
    this.#write32(REG.CMDQ_PROD, 0);
    this.#write32(REG.CMDQ_CONS, 0);
    const result = this.#setControl(CR0_CMDQEN);
    if (result < 0) return result;
    this.queue = this.#ownQueue = new CommandQueue({
      hardware,
      registers: hardware.registers,
      prod: REG.CMDQ_PROD,
      cons: REG.CMDQ_CONS,
      gerror: REG.GERROR,
      gerrorn: REG.GERRORN,
      memory: frames.memory,
      base: ring.base,
      log2Entries: ring.log2,
      // Linux: ARM_SMMU_OPT_MSIPOLL.
      signal: this.features.MSI && this.features.COHACC ? "message" : "event",
      syncsEachBatch: this.#isEarlyMmu700,
      wait,
    });
    const invalidations = [encodeCommand("CFGI_STE_RANGE", { Range: 31 })];
    if (this.features.Hyp) invalidations.push(encodeCommand("TLBI_EL2_ALL"));
    invalidations.push(encodeCommand("TLBI_NSNH_ALL"));
    for (const command of invalidations) {
      this.queue.push(command);
      const synced = this.queue.sync();
      if (synced < 0) return synced;
    }
    return 0;
  }

  get #variant(): number {
    return (this.identification[6]! >>> 16) & 0xf;
  }

  #isProduct(product: number): boolean {
    const iidr = this.identification[6]!;
    return (iidr & 0xfff) === ARM && iidr >>> 20 === product;
  }

  /** Before r1p1. */
  get #isEarlyMmu700(): boolean {
    const revision = (this.identification[6]! >>> 12) & 0xf;
    return this.#isProduct(MMU_700) && (this.#variant < 1 || revision < 1);
  }

  #startRecords(ring: Ring, queue: Omit<RecordQueue, "base" | "log2"> & { readonly base: number }): void {
    this.#write64(queue.base, (BigInt(ring.base) << 12n) | BigInt(ring.log2) | ALLOCATE_HINT);
    this.#write32(queue.prod, 0);
    this.#write32(queue.cons, 0);
    this.#recordQueues.push({ ...queue, base: ring.base, log2: ring.log2 });
  }

  #startInterrupts(): number {
    const off = this.#setInterrupts(0);
    if (off < 0) return off;
    const configurations = [
      REG.GERROR_IRQ_CFG0,
      REG.EVENTQ_IRQ_CFG0,
      ...(this.features.PRI ? [REG.PRIQ_IRQ_CFG0] : []),
    ];
    for (const register of configurations) this.#write64(register, 0n);
    this.#takeWires(!this.#sendMessages(configurations));
    return this.#setInterrupts(IRQ_EVENTQ | IRQ_GERROR | (this.features.PRI ? IRQ_PRIQ : 0));
  }

  /** False without messages, or if there are not enough of them. */
  #sendMessages(configurations: readonly number[]): boolean {
    const { requestMessage } = this.#parts;
    if (!this.features.MSI || requestMessage === null) return false;
    const names = ["global errors", "events", "page requests"];
    const messages: InterruptMessage[] = [];
    for (const [index] of configurations.entries()) {
      const message = requestMessage(`${this.name} ${names[index]}`, () => this.handleInterrupt());
      if (message === null) return false;
      messages.push(message);
    }
    for (const [index, register] of configurations.entries()) {
      const { address, data } = messages[index]!;
      this.#write64(register, address);
      this.#write32(register + 8, data);
      this.#write32(register + 12, MSI_ATTRIBUTE);
    }
    return true;
  }

  /** Edges. `own`: the SMMU's own come by wire, too; what is due is looked at once, outside of what raised it. */
  #takeWires(own: boolean): void {
    this.hardware.onWire = (wire, asserted) => {
      if (!asserted) return;
      if (wire === WIRE_CMDQV) this.cmdqv?.raised();
      else if (own && !this.#due) {
        this.#due = true;
        this.#parts.defer(this.#interrupt);
      }
    };
  }

  #setControl(value: number): number {
    this.#control = value;
    return this.#writeAcknowledged(REG.CR0, REG.CR0ACK, value);
  }

  #setInterrupts(value: number): number {
    return this.#writeAcknowledged(REG.IRQ_CTRL, REG.IRQ_CTRLACK, value);
  }

  #writeAcknowledged(register: number, acknowledged: number, value: number): number {
    this.#write32(register, value);
    return this.#waitFor(() => this.#read32(acknowledged) === value) ? 0 : -ETIMEDOUT;
  }

  /** Stops everything, memory back (Linux: arm_smmu_device_disable). */
  shutDown(): void {
    this.cmdqv?.shutDown();
    this.#setInterrupts(0);
    this.#setControl(0);
    this.#streams?.free();
    for (const { frame, pages } of this.#allocations) this.#parts.frames.release(frame, pages);
    this.#allocations.length = 0;
  }

  // --- streams and commands ---

  /** StreamID of a device. */
  streamOf(device: IommuDevice): number {
    return device.deviceId;
  }

  /** 0; -ERANGE for a stream outside of the table, -ENODEV for one that is another device's, -ENOMEM. */
  addDevice(device: IommuDevice): number {
    const prepared = this.#streams.prepare(this.streamOf(device));
    if (prepared < 0) return prepared;
    // A function that was pulled out keeps its stream until its last user has closed it.
    if (this.devices.has(device.deviceId)) return -ENODEV;
    this.devices.set(device.deviceId, device);
    return 0;
  }

  removeDevice(device: IommuDevice): void {
    this.writeStreamEntry(device, abortEntry());
    this.devices.delete(device.deviceId);
  }

  /** Makes `entry` the device's stream table entry, hitless where that is possible; true if it was (Linux: arm_smmu_write_ste). */
  writeStreamEntry(device: IommuDevice, entry: Entry): boolean {
    const stream = this.streamOf(device);
    const forget = encodeCommand("CFGI_STE", { SID: stream, Leaf: 1 });
    const place = this.#streams.entryOf(stream, () => this.issue([forget]));
    const hitless = writeEntry(place, entry, STREAM_ENTRY_RULES);
    this.queue.push(encodeCommand("PREFETCH_CONFIG", { SID: stream }));
    this.queue.flush();
    return hitless;
  }

  /** The device's stream table entry as it stands. */
  streamEntryOf(device: IommuDevice): Entry {
    const place = this.#streams.entryOf(this.streamOf(device), () => {});
    return [0, 1, 2, 3, 4, 5, 6, 7].map((word) => place.load(word));
  }

  /** Commands and a CMD_SYNC: 0, or -ETIMEDOUT. A command that the hardware does not take is left out (see command-queue.ts). */
  issue(commands: Iterable<readonly [bigint, bigint]>): number {
    for (const command of commands) this.queue.push(command);
    return this.queue.sync();
  }

  // --- interrupts and record queues ---

  /** Takes what is queued and acknowledges errors; runs as an interrupt handler, never inside another kernel operation. */
  handleInterrupt(): void {
    this.#due = false;
    this.#acknowledgeErrors();
    this.drainRecords();
  }

  /** Takes what the record queues hold now, interrupt or not: before a device changes hands. */
  drainRecords(): void {
    if (this.#handling) return;
    this.#handling = true;
    for (const queue of this.#recordQueues) this.#drain(queue);
    this.#handling = false;
  }

  #drain(queue: RecordQueue): void {
    const { memory } = this.#parts.frames;
    const entries = 2 ** queue.log2;
    const mask = entries * 2 - 1;
    let cons = this.#read32(queue.cons);
    let prod = this.#read32(queue.prod);
    // Handling records may bring forth others; a ring's worth at a time is enough, and the rest comes with an interrupt of its own.
    for (let taken = 0; taken < entries && ((prod ^ cons) & mask) !== 0; taken++) {
      const at = (cons & (entries - 1)) * queue.entryBytes;
      const words: bigint[] = [];
      for (let i = 0; i < queue.entryBytes; i += 8) {
        words.push(loadDoubleword(memory, (queue.base + (at >> 12)) as HpaPfn, (at & 4095) + i));
      }
      cons = ((cons & OVERFLOW_FLAG) | ((cons + 1) & mask)) >>> 0;
      this.#write32(queue.cons, cons);
      queue.take(words);
      prod = this.#read32(queue.prod);
    }
    if (((prod ^ cons) & OVERFLOW_FLAG) !== 0) {
      queue.lost();
      this.#write32(queue.cons, ((prod & OVERFLOW_FLAG) | (cons & mask)) >>> 0);
    }
    if (((prod ^ cons) & mask) === 0 || this.#due) return;
    this.#due = true;
    this.#parts.defer(this.#interrupt);
  }

  #acknowledgeErrors(): void {
    const active = (this.#read32(REG.GERROR) ^ this.#read32(REG.GERRORN)) & GERROR_BITS;
    if (active === 0) return;
    this.globalErrors++;
    if ((active & GERROR_CMDQ_ERR) !== 0) this.#ownQueue.recover();
    this.#write32(REG.GERRORN, this.#read32(REG.GERROR));
  }

  // --- registers and memory ---

  #ring(hardwareLog2: number, wantedLog2: number, entryBytes: number): Ring | null {
    const log2 = Math.min(hardwareLog2, wantedLog2);
    const pages = Math.max(1, (2 ** log2 * entryBytes) / PAGE_SIZE);
    const frame = this.#parts.frames.allocate(pages, pages);
    if (frame < 0) return null;
    this.#allocations.push({ frame: frame as HpaPfn, pages });
    return { base: frame as HpaPfn, log2 };
  }

  #waitFor(done: () => boolean): boolean {
    return this.#parts.wait(this.hardware, done, TIMEOUT_NS);
  }

  #read32(offset: number): number {
    return this.hardware.registers.mmioRead(offset, 4) >>> 0;
  }

  #write32(offset: number, value: number): void {
    this.hardware.registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  #write64(offset: number, value: bigint): void {
    const high = Number((value >> 32n) & 0xffffffffn);
    this.hardware.registers.mmioWrite(offset, 8, Number(value & 0xffffffffn), high);
  }

  // --- state: what probing found out and set up stays as it is ---

  saveState(): StateRecord {
    return { due: this.#due, unhandledEvents: this.unhandledEvents, globalErrors: this.globalErrors };
  }

  restoreState(state: StateReader): void {
    this.#due = state.boolean("due");
    this.unhandledEvents = state.number("unhandledEvents");
    this.globalErrors = state.number("globalErrors");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["command queue", this.#ownQueue];
    if (this.cmdqv !== null) yield ["CMDQV", this.cmdqv];
    yield ["stream table", this.#streams];
    yield ["VMIDs", this.vmids];
    for (const device of this.devices.values()) yield [device.name, deviceDataOf(device)];
  }
}

interface Ring {
  readonly base: HpaPfn;
  readonly log2: number;
}

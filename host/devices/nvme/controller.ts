// An NVMe 1.4 controller with one namespace on a block store: registers, doorbells, and the cycle of commands through it.
//
//     doorbell → event → fetch: submission queues in turn (round robin, §4.13.1) → in flight (lane.ts)
//     → event → carried out (admin-commands.ts, io-commands.ts), data moves → completion entry → interrupt
//
// Guests are hostile: a queue is fetched from only while its completion queue has room, at most COMMANDS are in flight, an event
// carries out at most those. What the controller cannot do anything about (a command or completion that the bus refuses) is
// a fatal status (CSTS.CFS): it stops until it is reset. timing.ts says how long things take.

import { pfnOfHalves } from "../../base/address.ts";
import type { ClockEvent } from "../../base/clock.ts";
import type { AccessSize, MmioPort, WritePosting } from "../../base/mmio.ts";
import { bytesOf, isStateful, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import type { MsixCapability } from "../capabilities/msix.ts";
import { PciEndpoint } from "../pci-function.ts";
import { DMA_OK, NO_PASID } from "../ports.ts";
import { AdminCommands, HELD } from "./admin-commands.ts";
import {
  AsynchronousEvents,
  ERROR_INVALID_DOORBELL,
  ERROR_INVALID_DOORBELL_VALUE,
  EVENT_ERROR,
  EVENT_HEALTH,
  HEALTH_RELIABILITY,
} from "./asynchronous-events.ts";
import { BLOCK_OK, type BlockStore } from "./block-store.ts";
import {
  ABORT_REQUESTED,
  ABORTED_BY_QUEUE_DELETION,
  COMMAND_BYTES,
  COMPLETION_BYTES,
  FEATURE_ARBITRATION,
  FEATURE_ASYNCHRONOUS_EVENTS,
  FLUSH,
  INVALID_FIELD,
  LOG_ERROR,
  LOG_HEALTH,
  PAGE_BYTES,
  SUCCESS,
} from "./commands.ts";
import { DataPointer } from "./data-pointer.ts";
import { Features } from "./features.ts";
import { VENDOR, VERSION_1_4 } from "./identify.ts";
import { IoCommands } from "./io-commands.ts";
import { Lane } from "./lane.ts";
import { LogPages, WARNING_RELIABILITY } from "./log-pages.ts";
import { Command, CompletionQueue, entryOf, queuesOf, restoreCommand, SubmissionQueue, savedCommand } from "./queue.ts";
import * as R from "./registers.ts";
import { FETCH_NS, FLUSH_NS, READY_NS, SERVICE_NS, SERVICE_NS_PER_PAGE } from "./timing.ts";

export interface NvmeOptions {
  readonly name?: string;
  readonly store: BlockStore;
  /** Serial number, up to 20 ASCII characters; identifiers of the drive are made from it. */
  readonly serial?: string;
  /** I/O queue pairs, 1 to 64. Default 16. */
  readonly ioQueues?: number;
  /** As of FunctionIdentity. */
  readonly messages?: boolean;
}

/** Most entries of a queue (CAP.MQES + 1). */
const MOST_ENTRIES = 1024;
/** Commands in flight, and how many of those I/O queues leave for the admin queue. */
const COMMANDS = 128;
const ADMIN_RESERVE = 4;

const BAR_BYTES = 0x4000;
const MSIX_TABLE = 0x2000;
const MSIX_PENDING = 0x3000;
/** CAP.TO: ready within 500 ms. */
const TIMEOUT_500_MS = 1;

const { EN, CSS, MPS, AMS, SHN, IOSQES, IOCQES } = R.CC_FIELDS.fields;
const { ASQS, ACQS } = R.AQA_FIELDS.fields;
const { RDY, CFS, SHST } = R.CSTS_FIELDS.fields;

export class NvmeController extends PciEndpoint implements MmioPort {
  high = 0;
  readonly #store: BlockStore;
  readonly #msix: MsixCapability;
  readonly #data: DataPointer;
  readonly #features: Features;
  readonly #logs = new LogPages();
  readonly #events = new AsynchronousEvents();
  readonly #admin: AdminCommands;
  readonly #io: IoCommands;
  readonly #submission: (SubmissionQueue | null)[];
  readonly #completion: (CompletionQueue | null)[];
  readonly #capabilities: readonly [number, number];
  readonly #completionDoorbells: WritePosting;
  // not state, to the blank line: a completion on its way.
  readonly #entry = new Uint8Array(COMPLETION_BYTES);
  readonly #entryWords = new Uint32Array(this.#entry.buffer);

  #configuration = 0;
  #ready = false;
  #fatal = false;
  #shutdown = 0;
  #interruptMask = 0;
  #adminSizes = 0;
  readonly #adminAddresses = new Uint32Array(4);

  readonly #free: Command[] = []; // not state: those that are in no lane
  readonly #adminLane: Lane;
  readonly #ioLane: Lane;
  /** Submission queue whose turn it is. */
  #turn = 0;
  #fetchEvent = 0;
  #readyEvent = 0;
  #shutdownEvent = 0;
  readonly #fetchDue = this.#clockEvent("fetch", () => {
    this.#fetchEvent = 0;
    this.#fetch();
  });
  readonly #readyDue = this.#clockEvent("ready", () => {
    this.#readyEvent = 0;
    this.#ready = true;
  });
  readonly #shutdownDue = this.#clockEvent("shut down", () => {
    this.#shutdownEvent = 0;
    // What was acknowledged may not be durable: the guest must not be told that it is safe to switch off.
    if (this.#store.flush() !== BLOCK_OK) this.#fail();
    else this.#shutdown = R.SHUTDOWN_COMPLETE;
  });
  readonly clockEvents: readonly ClockEvent[] = [this.#fetchDue, this.#readyDue, this.#shutdownDue];

  constructor({ name = "nvme", store, serial = name, ioQueues = 16, messages = true }: NvmeOptions) {
    super({ name, vendorId: VENDOR, deviceId: 0x4e56, revision: 1, classCode: 0x010802, messages });
    if (ioQueues < 1 || ioQueues > 64) throw new RangeError("nvme: 1 to 64 I/O queues");
    this.#store = store;
    this.addBar(0, { size: BAR_BYTES, kind: "memory64", prefetchable: false, registers: this });
    this.#msix = this.addMsix(ioQueues + 1, { bar: 0, tableOffset: MSIX_TABLE, pendingOffset: MSIX_PENDING });
    this.#data = new DataPointer(
      (pfn, offset, bytes, at, length) => this.dmaRead(pfn, offset, bytes, at, length, NO_PASID),
      (pfn, offset, bytes, at, length) => this.dmaWrite(pfn, offset, bytes, at, length, NO_PASID),
    );
    this.#features = new Features(ioQueues + 1, ioQueues);
    this.#submission = new Array<SubmissionQueue | null>(ioQueues + 1).fill(null);
    this.#completion = new Array<CompletionQueue | null>(ioQueues + 1).fill(null);
    this.#io = new IoCommands(store, this.#data, this.#features, this.#logs);
    this.#admin = new AdminCommands({
      queues: {
        submission: this.#submission,
        completion: this.#completion,
        mostEntries: MOST_ENTRIES,
        vectors: () => (this.#msix.enabled ? this.#msix.vectors : 1),
        entrySizesValid: () => this.#entrySizesValid,
        abandon: (queue) => this.#abandon(queue),
        abort: (queue, command) => this.#abort(queue, command),
      },
      data: this.#data,
      features: this.#features,
      logs: this.#logs,
      events: this.#events,
      store,
      identity: { serial },
      now: () => this.ports.clock.now,
    });
    this.#completionDoorbells = {
      ...{ from: R.DOORBELLS + 4, to: R.DOORBELLS + 8 * (ioQueues + 1), every: 8, width: 4, deferrable: true },
    };
    const capabilities: bigint[] = [];
    R.CAP_FIELDS.set(capabilities, "MQES", BigInt(MOST_ENTRIES - 1));
    R.CAP_FIELDS.set(capabilities, "CQR", 1n);
    R.CAP_FIELDS.set(capabilities, "TO", BigInt(TIMEOUT_500_MS));
    R.CAP_FIELDS.set(capabilities, "CSS", 1n);
    this.#capabilities = [Number(capabilities[0]! & 0xffffffffn), Number(capabilities[0]! >> 32n)];
    for (let i = 0; i < COMMANDS; i++) this.#free.push(new Command());
    this.#adminLane = this.#lane(`${name} admin`);
    this.#ioLane = this.#lane(`${name} I/O`);
  }

  #lane(name: string): Lane {
    return new Lane({
      name,
      capacity: COMMANDS,
      clock: () => this.ports.clock,
      carryOut: (command) => this.#carryOut(command),
      served: () => this.#fetch(),
      save: (command) => savedCommand(command, this.#submission),
      restore: (state) => {
        const command = this.#free.pop() ?? state.fail("commands", "are too many");
        restoreCommand(command, state, this.#submission);
        return command;
      },
    });
  }

  #clockEvent(name: string, fire: () => void): ClockEvent {
    return { owner: this.name, name, fire };
  }

  protected override transactionsPending(): boolean {
    return this.#adminLane.count + this.#ioLane.count > 0;
  }

  protected onReset(): void {
    this.#resetController();
    this.#configuration = 0;
    this.#adminSizes = 0;
    this.#adminAddresses.fill(0);
  }

  // Registers.

  mmioRead(offset: number, size: AccessSize): number {
    if (offset >= MSIX_TABLE) {
      const [port, at] =
        offset >= MSIX_PENDING ? [this.#msix.pendingBits, MSIX_PENDING] : [this.#msix.table, MSIX_TABLE];
      const low = port.mmioRead(offset - at, size);
      this.high = port.high;
      return low;
    }
    this.high = size === 8 ? this.#readWord(offset + 4) : 0;
    const word = this.#readWord(offset & ~3);
    return size >= 4 ? word : (word >>> (8 * (offset & 3))) & (2 ** (8 * size) - 1);
  }

  #readWord(offset: number): number {
    switch (offset) {
      case R.CAP:
        return this.#capabilities[0];
      case R.CAP + 4:
        return this.#capabilities[1];
      case R.VS:
        return VERSION_1_4;
      case R.INTMS:
      case R.INTMC:
        return this.#interruptMask;
      case R.CC:
        return this.#configuration;
      case R.CSTS:
        return (
          ((this.#ready ? 1 : 0) << RDY.shift) | ((this.#fatal ? 1 : 0) << CFS.shift) | (this.#shutdown << SHST.shift)
        );
      case R.AQA:
        return this.#adminSizes;
      case R.ASQ:
      case R.ASQ + 4:
      case R.ACQ:
      case R.ACQ + 4:
        return this.#adminAddresses[(offset - R.ASQ) >> 2]!;
      default:
        return 0;
    }
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (offset >= MSIX_TABLE) {
      if (offset < MSIX_PENDING) this.#msix.table.mmioWrite(offset - MSIX_TABLE, size, lo, hi);
      return;
    }
    if (size < 4) return;
    if (offset >= R.DOORBELLS) {
      if (size === 4) this.#ringDoorbell((offset - R.DOORBELLS) >> 2, lo >>> 0);
      return;
    }
    this.#writeWord(offset, lo >>> 0);
    if (size === 8) this.#writeWord(offset + 4, hi >>> 0);
  }

  /**
   * A command is carried out soon after its doorbell, so whoever rings waits for the completion. The head of a completion queue matters only once
   * the queue is full: with MSI-X (a pin follows the queue) there is time.
   */
  posting(offset: number): WritePosting | null {
    const completion = offset >= R.DOORBELLS && offset < MSIX_TABLE && (offset & 4) !== 0;
    return completion && this.#msix.enabled ? this.#completionDoorbells : null;
  }

  #writeWord(offset: number, value: number): void {
    switch (offset) {
      case R.INTMS:
        this.#interruptMask = (this.#interruptMask | value) >>> 0;
        this.#drivePin();
        break;
      case R.INTMC:
        this.#interruptMask = (this.#interruptMask & ~value) >>> 0;
        this.#drivePin();
        break;
      case R.CC:
        this.#configure(value);
        break;
      case R.AQA:
        this.#adminSizes = value & 0x0fff0fff;
        break;
      case R.ASQ:
      case R.ACQ:
        this.#adminAddresses[(offset - R.ASQ) >> 2] = value & ~(PAGE_BYTES - 1);
        break;
      case R.ASQ + 4:
      case R.ACQ + 4:
        this.#adminAddresses[(offset - R.ASQ) >> 2] = value;
        break;
    }
  }

  #field({ shift, mask }: { shift: number; mask: number }): number {
    return (this.#configuration >>> shift) & mask;
  }

  get #entrySizesValid(): boolean {
    return this.#field(IOSQES) === Math.log2(COMMAND_BYTES) && this.#field(IOCQES) === Math.log2(COMPLETION_BYTES);
  }

  // Enabling, reset, shutdown (§3.1.5, §7.3, §7.6).

  #configure(value: number): void {
    const wasEnabled = this.#field(EN) !== 0;
    const hadNotice = this.#field(SHN) !== 0;
    this.#configuration = value & 0x00fffff1;
    const enabled = this.#field(EN) !== 0;
    if (enabled && !wasEnabled) this.#enable();
    if (!enabled && wasEnabled) this.#resetController();
    if (this.#field(SHN) !== 0 && !hadNotice) this.#beginShutdown();
  }

  #enable(): void {
    const submissionEntries = ((this.#adminSizes >>> ASQS.shift) & ASQS.mask) + 1;
    const completionEntries = ((this.#adminSizes >>> ACQS.shift) & ACQS.mask) + 1;
    const unknown = this.#field(CSS) !== 0 || this.#field(MPS) !== 0 || this.#field(AMS) !== 0;
    if (unknown || submissionEntries < 2 || completionEntries < 2) {
      this.#fail();
      return;
    }
    const address = this.#adminAddresses;
    const completion = new CompletionQueue(0, pfnOfHalves(address[2]!, address[3]!), completionEntries, true, 0);
    this.#completion[0] = completion;
    const pfn = pfnOfHalves(address[0]!, address[1]!);
    this.#submission[0] = new SubmissionQueue(0, pfn, submissionEntries, completion);
    this.#readyEvent = this.ports.clock.schedule(READY_NS, this.#readyDue);
  }

  /** Controller level reset (§7.3.2): queues and commands are gone, admin queue registers stay. */
  #resetController(): void {
    const { clock } = this.ports;
    for (const event of [this.#fetchEvent, this.#readyEvent, this.#shutdownEvent]) {
      if (event !== 0) clock.cancel(event);
    }
    this.#fetchEvent = this.#readyEvent = this.#shutdownEvent = 0;
    for (const lane of [this.#adminLane, this.#ioLane]) lane.clear((command) => this.#retire(command));
    this.#submission.fill(null);
    this.#completion.fill(null);
    this.#features.reset();
    this.#events.reset();
    this.#ready = this.#fatal = false;
    this.#shutdown = this.#interruptMask = this.#turn = 0;
    this.setInterruptLevel(false);
  }

  #beginShutdown(): void {
    if (this.#shutdownEvent !== 0) return;
    this.#shutdown = 1;
    this.#shutdownEvent = this.ports.clock.schedule(READY_NS, this.#shutdownDue);
  }

  /** Controller fatal status: nothing more happens until a reset (§9.5). */
  #fail(): void {
    this.#fatal = true;
  }

  // Commands.

  #ringDoorbell(index: number, value: number): void {
    if (!this.#ready || this.#fatal) return;
    const id = index >> 1;
    if ((index & 1) === 0) {
      const queue = this.#submission[id] ?? null;
      if (queue === null) this.#events.report(EVENT_ERROR, ERROR_INVALID_DOORBELL, LOG_ERROR);
      else if (value >= queue.entries) this.#events.report(EVENT_ERROR, ERROR_INVALID_DOORBELL_VALUE, LOG_ERROR);
      else queue.tail = value;
    } else {
      const queue = this.#completion[id] ?? null;
      if (queue === null) this.#events.report(EVENT_ERROR, ERROR_INVALID_DOORBELL, LOG_ERROR);
      else if (!queue.take(value)) this.#events.report(EVENT_ERROR, ERROR_INVALID_DOORBELL_VALUE, LOG_ERROR);
      else this.#drivePin();
    }
    if (this.#fetchEvent === 0) this.#fetchEvent = this.ports.clock.schedule(FETCH_NS, this.#fetchDue);
  }

  #fetch(): void {
    const queues = this.#submission;
    const burstLog2 = this.#features.value(FEATURE_ARBITRATION) & 7;
    const burst = burstLog2 === 7 ? COMMANDS : 1 << burstLog2;
    for (let idle = 0; idle < queues.length && !this.#fatal; ) {
      const queue = queues[this.#turn]!;
      this.#turn = (this.#turn + 1) % queues.length;
      idle++;
      for (let i = 0; i < burst && queue !== null && this.#mayFetch(queue); i++) {
        if (!this.#fetchFrom(queue)) return;
        idle = 0;
      }
    }
    this.#answerEventRequests();
  }

  #mayFetch(queue: SubmissionQueue): boolean {
    return !queue.empty && queue.completion.hasRoom && this.#free.length > (queue.id === 0 ? 0 : ADMIN_RESERVE);
  }

  #fetchFrom(queue: SubmissionQueue): boolean {
    const command = this.#free.pop()!;
    const status = this.dmaRead(queue.headPfn, queue.headOffset, command.bytes, 0, COMMAND_BYTES, NO_PASID);
    if (status !== DMA_OK) {
      this.#free.push(command);
      this.#fail();
      return false;
    }
    queue.advance();
    queue.completion.promised++;
    command.queue = queue;
    (queue.id === 0 ? this.#adminLane : this.#ioLane).add(command, this.#serviceTime(command));
    return true;
  }

  #serviceTime(command: Command): number {
    if (command.queue!.id === 0) return SERVICE_NS;
    if (command.opcode === FLUSH) return FLUSH_NS;
    const bytes = IoCommands.blocksTouched(command) * this.#store.blockBytes;
    return SERVICE_NS + Math.ceil(bytes / PAGE_BYTES) * SERVICE_NS_PER_PAGE;
  }

  #retire(command: Command): void {
    command.queue = null;
    this.#free.push(command);
  }

  #carryOut(command: Command): void {
    // Without a queue: it was aborted and answered. After a fatal error nothing is carried out any more.
    if (command.queue !== null && !this.#fatal) this.#execute(command, command.queue);
    this.#retire(command);
  }

  #execute(command: Command, queue: SubmissionQueue): void {
    let status: number;
    let result = 0;
    // Fused operations and SGLs are not offered (§4.2: FUSE 9:8, PSDT 15:14).
    if ((command.words[0]! & 0xc300) !== 0) {
      status = INVALID_FIELD;
    } else if (queue.id === 0) {
      status = this.#admin.execute(command);
      result = this.#admin.result;
    } else {
      const warnings = this.#logs.criticalWarning;
      status = this.#io.execute(command);
      if (this.#logs.criticalWarning !== warnings) this.#reportDegraded();
    }
    if (status === HELD) queue.completion.promised--;
    else this.#complete(command, queue, status, result);
  }

  #reportDegraded(): void {
    if ((this.#features.value(FEATURE_ASYNCHRONOUS_EVENTS) & WARNING_RELIABILITY) !== 0) {
      this.#events.report(EVENT_HEALTH, HEALTH_RELIABILITY, LOG_HEALTH);
    }
  }

  /** Answers a command that holds a promised completion. */
  #complete(command: Command, queue: SubmissionQueue, status: number, result: number): void {
    if (status !== SUCCESS) {
      this.#logs.recordError(queue.id, command, status);
    }
    queue.completion.promised--;
    this.#post(queue, command.id, status, result);
  }

  /** Writes a completion entry (§4.6) and signals it. */
  #post(queue: SubmissionQueue, commandId: number, status: number, result: number): void {
    const { completion } = queue;
    const words = this.#entryWords;
    words[0] = result;
    words[1] = 0;
    words[2] = queue.head | (queue.id << 16);
    words[3] = commandId | (completion.phase << 16) | (status << 17);
    const { tailPfn, tailOffset } = completion;
    if (this.dmaWrite(tailPfn, tailOffset, this.#entry, 0, COMPLETION_BYTES, NO_PASID) !== DMA_OK) {
      this.#fail();
      return;
    }
    completion.advance();
    if (!completion.interrupts) return;
    if (this.messagesEnabled) this.raise(completion.vector);
    else this.#drivePin();
  }

  /** Interrupt pin: some completion queue has entries the host has not taken, and its vector is not masked (§7.5.1.1). */
  #drivePin(): void {
    if (this.messagesEnabled) return;
    let asserted = false;
    for (const queue of this.#completion) {
      if (queue?.interrupts !== true || queue.used === 0) continue;
      if (((this.#interruptMask >>> queue.vector) & 1) === 0) asserted = true;
    }
    this.setInterruptLevel(asserted);
  }

  #answerEventRequests(): void {
    const queue = this.#submission[0] ?? null;
    if (queue === null) return;
    while (!this.#fatal && this.#events.ready && queue.completion.hasRoom) {
      const { commandId, result } = this.#events.next();
      this.#post(queue, commandId, SUCCESS, result);
    }
  }

  /** Ends what is in flight from a queue that is being deleted (§7.4.3). */
  #abandon(queue: SubmissionQueue): void {
    this.#endInFlight(ABORTED_BY_QUEUE_DELETION, (command) => command.queue === queue);
  }

  #abort(queueId: number, commandId: number): boolean {
    if (this.#endInFlight(ABORT_REQUESTED, ({ queue, id }) => queue?.id === queueId && id === commandId)) return true;
    const queue = this.#submission[0]!;
    if (queueId !== 0 || !queue.completion.hasRoom || !this.#events.withdraw(commandId)) return false;
    this.#post(queue, commandId, ABORT_REQUESTED, 0);
    return true;
  }

  /** Answers with `status` every command in flight that matches; true if there was one. */
  #endInFlight(status: number, matches: (command: Command) => boolean): boolean {
    let found = false;
    for (const lane of [this.#adminLane, this.#ioLane]) {
      for (let i = 0; i < lane.count && !this.#fatal; i++) {
        const command = lane.at(i);
        if (command.queue === null || !matches(command)) continue;
        this.#complete(command, command.queue, status, 0);
        command.queue = null;
        found = true;
      }
    }
    return found;
  }

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      completion: this.#completion.flatMap((queue) => queue?.identity ?? []),
      submission: this.#submission.flatMap((queue) => queue?.identity ?? []),
      adminAddresses: bytesOf(this.#adminAddresses),
      configuration: this.#configuration,
      ready: this.#ready,
      fatal: this.#fatal,
      shutdown: this.#shutdown,
      interruptMask: this.#interruptMask,
      adminSizes: this.#adminSizes,
      turn: this.#turn,
      fetchEvent: this.#fetchEvent,
      readyEvent: this.#readyEvent,
      shutdownEvent: this.#shutdownEvent,
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    for (const lane of [this.#adminLane, this.#ioLane]) lane.drain((command) => this.#retire(command));
    queuesOf(state, "completion", this.#completion, (queue, id) => {
      const vector = entryOf(queue, "vector", this.#msix.vectors);
      return new CompletionQueue(id, queue.number("pfn"), entriesOf(queue), queue.boolean("interrupts"), vector);
    });
    queuesOf(state, "submission", this.#submission, (queue, id) => {
      const completion = this.#completion[entryOf(queue, "completion", this.#completion.length)] ?? null;
      if (completion === null) return queue.fail("completion", "is not there");
      return new SubmissionQueue(id, queue.number("pfn"), entriesOf(queue), completion);
    });
    state.memory("adminAddresses", this.#adminAddresses);
    this.#configuration = state.number("configuration");
    this.#ready = state.boolean("ready");
    this.#fatal = state.boolean("fatal");
    this.#shutdown = state.number("shutdown");
    this.#interruptMask = state.number("interruptMask");
    this.#adminSizes = state.number("adminSizes");
    this.#turn = entryOf(state, "turn", this.#submission.length);
    this.#fetchEvent = state.number("fetchEvent");
    this.#readyEvent = state.number("readyEvent");
    this.#shutdownEvent = state.number("shutdownEvent");
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield* super.stateParts();
    for (const queue of this.#completion) if (queue !== null) yield [`completion queue ${queue.id}`, queue];
    for (const queue of this.#submission) if (queue !== null) yield [`submission queue ${queue.id}`, queue];
    yield ["admin commands", this.#adminLane];
    yield ["I/O commands", this.#ioLane];
    yield ["features", this.#features];
    yield ["log pages", this.#logs];
    yield ["events", this.#events];
    if (isStateful(this.#store)) yield ["store", this.#store];
  }
}

function entriesOf(queue: StateReader): number {
  const entries = entryOf(queue, "entries", 0x1000 + 1);
  return entries >= 2 ? entries : queue.fail("entries", "are too few");
}

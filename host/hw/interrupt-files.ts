// Interrupt files of the host: pages of physical memory that are doorbells of message-signalled interrupts, one page a file, as
// an incoming-MSI controller (RISC-V AIA §3) has them: a 32-bit store of n at offset 0 makes interrupt n pending. Kernel
// drivers allocate ids, write page address and id into a device or an IOMMU, and get called back.
//
// A store only makes pending: it can come from inside any piece of hardware or kernel code (a device's burst, an IOMMU's
// fault). The handler runs from a clock event at the same instant, that is, when the run loop fires events (decision 1).

import type { HpaPfn } from "../base/address.ts";
import type { Clock, ClockEvent } from "../base/clock.ts";
import type { PhysicalMemory, StoreTarget } from "../base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../base/state.ts";
import type { Trace } from "../base/trace.ts";

/** Ids of one file are 1 to IDS_PER_FILE - 1; 0 is no interrupt. */
export const IDS_PER_FILE = 256;

/** Functions allowed to send a message: one by its name, none (only hardware that stores by itself, an IOMMU), or all. */
export type Requester = string | null | "*";

/** A message: store `data` (4 bytes) at offset 0 of page `pfn`. */
export interface Message {
  readonly pfn: HpaPfn;
  readonly data: number;
}

export interface InterruptFilesParts {
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
  /** First page; the files follow each other. Outside every bank. */
  readonly basePfn: HpaPfn;
  readonly files: number;
}

export class InterruptFiles implements Stateful {
  readonly basePfn: HpaPfn;
  readonly files: number;
  readonly #memory: PhysicalMemory<HpaPfn>;
  readonly #clock: Clock;
  readonly #trace: Trace;
  readonly #handlers: ((() => void) | null)[]; // not state: wiring, of whoever took the interrupt
  readonly #sources: string[];
  readonly #requesters: Requester[];
  readonly #allocated: Uint8Array;
  readonly #pending: Uint8Array;
  /** Trace event that made an interrupt pending. */
  readonly #causes: Float64Array;
  /** Interrupts to deliver, in order of arrival: file * IDS_PER_FILE + id. Each at most once, so it never overflows. */
  readonly #queue: Uint32Array;
  readonly #inQueue: Uint8Array;
  #queueHead = 0;
  #queued = 0;
  #event = 0;
  readonly #deliver: ClockEvent = { owner: "interrupt files", name: "deliver", fire: () => this.#deliverQueued() };
  readonly clockEvents: readonly ClockEvent[] = [this.#deliver];

  constructor({ memory, clock, trace, basePfn, files }: InterruptFilesParts) {
    const ids = files * IDS_PER_FILE;
    this.basePfn = basePfn;
    this.files = files;
    this.#memory = memory;
    this.#clock = clock;
    this.#trace = trace;
    this.#handlers = new Array<(() => void) | null>(ids).fill(null);
    this.#sources = new Array<string>(ids).fill("");
    this.#requesters = new Array<Requester>(ids).fill(null);
    this.#allocated = new Uint8Array(ids);
    this.#pending = new Uint8Array(ids);
    this.#causes = new Float64Array(ids);
    this.#queue = new Uint32Array(ids);
    this.#inQueue = new Uint8Array(ids);
    for (let file = 0; file < files; file++) memory.addStoreTarget(this.#page(file), this.#doorbell(file));
  }

  #page(file: number): HpaPfn {
    return (this.basePfn + file) as HpaPfn;
  }

  /** Takes the pages out of the memory map. */
  dispose(): void {
    for (let file = 0; file < this.files; file++) this.#memory.removeStoreTarget(this.#page(file));
    if (this.#event !== 0) this.#clock.cancel(this.#event);
    this.#event = 0;
  }

  /** Number of ids in use. */
  get allocated(): number {
    return this.#allocated.reduce((sum, one) => sum + one, 0);
  }

  /**
   * Reserves an id of `file`; null if all are in use. `source` names it in traces. `requester` is the function whose message it
   * is: no other function can send it.
   */
  allocate(file: number, source: string, requester: Requester = "*"): Message | null {
    for (let data = 1; data < IDS_PER_FILE; data++) {
      const index = file * IDS_PER_FILE + data;
      if (this.#allocated[index] !== 0) continue;
      this.#allocated[index] = 1;
      this.#sources[index] = source;
      this.#requesters[index] = requester;
      return { pfn: this.#page(file), data };
    }
    return null;
  }

  /**
   * True if a DMA write of `length` bytes by function `requester` to a doorbell page is a message that the function may send. What is
   * not gets nowhere, so that a guest with a device cannot raise interrupts that are not that device's (isolated MSIs).
   */
  accepts(pfn: HpaPfn, offset: number, length: number, data: number, requester: string): boolean {
    const file = pfn - this.basePfn;
    if (file < 0 || file >= this.files) return true;
    if (offset !== 0 || length !== 4 || data >= IDS_PER_FILE) return false;
    const index = file * IDS_PER_FILE + data;
    const allowed = this.#requesters[index]!;
    return this.#allocated[index] !== 0 && (allowed === "*" || allowed === requester);
  }

  /** Gives an id back; what is pending there is lost. */
  release(message: Message): void {
    const index = this.#index(message);
    this.#allocated[index] = 0;
    this.#pending[index] = 0;
    this.#handlers[index] = null;
    this.#sources[index] = "";
  }

  /** Sets who takes the interrupt; null masks it: it stays pending until somebody does. */
  setHandler(message: Message, handler: (() => void) | null): void {
    const index = this.#index(message);
    this.#handlers[index] = handler;
    if (handler !== null && this.#pending[index] !== 0) this.#enqueue(index);
  }

  isPending(message: Message): boolean {
    return this.#pending[this.#index(message)] !== 0;
  }

  #index({ pfn, data }: Message): number {
    return (pfn - this.basePfn) * IDS_PER_FILE + data;
  }

  #doorbell(file: number): StoreTarget {
    return {
      store32: (offset, value) => {
        // Other offsets are reserved: stores are ignored (AIA §3.5). Nobody waits for an id that is not in use.
        if (offset !== 0 || value >= IDS_PER_FILE || this.#allocated[file * IDS_PER_FILE + value] === 0) return;
        this.#makePending(file, value);
      },
    };
  }

  #makePending(file: number, id: number): void {
    const index = file * IDS_PER_FILE + id;
    if (this.#trace.on) {
      const source = this.#sources[index] || `interrupt file ${file}`;
      this.#causes[index] = this.#trace.emit({ type: "irq", where: "host", source, vector: id });
    }
    if (this.#pending[index] !== 0) return;
    this.#pending[index] = 1;
    if (this.#handlers[index] !== null) this.#enqueue(index);
  }

  #enqueue(index: number): void {
    if (this.#inQueue[index] !== 0) return;
    this.#inQueue[index] = 1;
    this.#queue[(this.#queueHead + this.#queued++) % this.#queue.length] = index;
    if (this.#event === 0) this.#event = this.#clock.schedule(0, this.#deliver);
  }

  #deliverQueued(): void {
    this.#event = 0;
    // Only what is queued now; what handlers make pending gets an event of its own.
    for (let left = this.#queued; left > 0; left--) {
      const index = this.#queue[this.#queueHead]!;
      this.#queueHead = (this.#queueHead + 1) % this.#queue.length;
      this.#queued--;
      this.#inQueue[index] = 0;
      const handler = this.#handlers[index]!;
      if (handler === null || this.#pending[index] === 0) continue;
      this.#pending[index] = 0;
      const previous = this.#trace.cause;
      if (this.#trace.on) this.#trace.cause = this.#causes[index]!;
      handler();
      this.#trace.leave(previous);
    }
  }

  saveState(): StateRecord {
    return {
      allocated: bytesOf(this.#allocated),
      pending: bytesOf(this.#pending),
      causes: bytesOf(this.#causes),
      queue: bytesOf(this.#queue),
      inQueue: bytesOf(this.#inQueue),
      queueHead: this.#queueHead,
      queued: this.#queued,
      event: this.#event,
      sources: [...this.#sources],
      requesters: [...this.#requesters],
    };
  }

  restoreState(state: StateReader): void {
    state.memory("allocated", this.#allocated);
    state.memory("pending", this.#pending);
    state.memory("causes", this.#causes);
    state.memory("queue", this.#queue);
    state.memory("inQueue", this.#inQueue);
    this.#queueHead = state.number("queueHead");
    this.#queued = state.number("queued");
    this.#event = state.number("event");
    const ids = this.#sources.length;
    const [sources, requesters] = [state.list("sources"), state.list("requesters")];
    if (sources.length !== ids || requesters.length !== ids) state.fail("sources", `are not those of ${ids} ids`);
    for (let index = 0; index < ids; index++) {
      const requester = requesters[index]!;
      if (requester !== null && typeof requester !== "string") state.fail("requesters", `${index} is no name`);
      this.#sources[index] = String(sources[index]);
      this.#requesters[index] = requester;
    }
    if (!(this.#queueHead < ids && this.#queued <= ids)) state.fail("queued", "is past the queue");
  }
}

// A small NVMe driver for tests: admin queue at fixed addresses, I/O queues on request, one call per command. It talks to the
// controller through its registers and the memory of a bench bus only, as a guest would.

import type { BlockStore } from "../../../../host/devices/nvme/block-store.ts";
import { MemoryBlockStore } from "../../../../host/devices/nvme/block-store.ts";
import { NvmeController, type NvmeOptions } from "../../../../host/devices/nvme/controller.ts";
import { BenchBus, MESSAGE_PAGE } from "../bench-bus.ts";

export interface Completion {
  readonly status: number;
  readonly result: number;
  readonly commandId: number;
  readonly submissionQueue: number;
  readonly submissionHead: number;
}

interface Queue {
  readonly id: number;
  readonly entries: number;
  readonly submissionAt: number;
  readonly completionAt: number;
  tail: number;
  head: number;
  phase: number;
}

/** Dwords of a command by number; what is missing is 0. */
export type Dwords = Partial<Record<0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15, number>>;

export const ADMIN_SUBMISSION = 0x10000;
export const ADMIN_COMPLETION = 0x12000;
const IO_QUEUES = 0x20000;
const IO_QUEUE_BYTES = 0x8000;
/** Memory from here on is free for data. */
export const DATA = 0x100000;
const MEMORY_BYTES = 0x400000;

/** Status of a completion without do-not-retry: code type << 8 | code. */
export const kind = (completion: Completion): number => completion.status & 0x7ff;

export class NvmeTestDriver {
  readonly controller: NvmeController;
  readonly bus: BenchBus;
  readonly queues = new Map<number, Queue>();
  nextId = 1;

  constructor(store: BlockStore = new MemoryBlockStore(1 << 20), options: Partial<NvmeOptions> = {}) {
    this.controller = new NvmeController({ store, ...options });
    this.bus = new BenchBus(this.controller, MEMORY_BYTES);
    this.bus.enable();
  }

  read(register: number): number {
    return this.controller.mmioRead(register, 4);
  }

  write(register: number, value: number): void {
    this.controller.mmioWrite(register, 4, value >>> 0, 0);
  }

  get view(): DataView {
    return new DataView(this.bus.memory.buffer);
  }

  /** Sets up the admin queues and enables the controller; returns CSTS. */
  enable(entries = 16, configuration = 0x00460001): number {
    this.write(0x24, ((entries - 1) << 16) | (entries - 1));
    this.write(0x28, ADMIN_SUBMISSION);
    this.write(0x2c, 0);
    this.write(0x30, ADMIN_COMPLETION);
    this.write(0x34, 0);
    this.write(0x14, configuration);
    this.bus.memory.fill(0, ADMIN_COMPLETION, ADMIN_COMPLETION + 16 * entries);
    this.queues.set(0, this.#queue(0, entries, ADMIN_SUBMISSION, ADMIN_COMPLETION));
    this.bus.run(1_000_000);
    return this.read(0x1c);
  }

  #queue(id: number, entries: number, submissionAt: number, completionAt: number): Queue {
    return { id, entries, submissionAt, completionAt, tail: 0, head: 0, phase: 1 };
  }

  /** MSI-X on, entry n sending data n. */
  enableMessages(): void {
    for (let vector = 0; vector < 17; vector++) {
      this.controller.mmioWrite(0x2000 + 16 * vector, 8, Number(MESSAGE_PAGE << 12n), 0);
      this.controller.mmioWrite(0x2008 + 16 * vector, 8, vector, 0);
    }
    this.controller.configWrite(this.bus.findCapability(0x11) + 2, 2, 0x8000);
  }

  /** Creates I/O queue pair `id`, completing with `vector`. */
  createIoQueue(id: number, entries = 64, vector = 0): void {
    const at = IO_QUEUES + (id - 1) * IO_QUEUE_BYTES;
    const size = ((entries - 1) << 16) | id;
    this.bus.memory.fill(0, at, at + IO_QUEUE_BYTES);
    const completion = this.admin(0x05, { 6: at + 0x4000, 10: size, 11: (vector << 16) | 3 });
    const submission = this.admin(0x01, { 6: at, 10: size, 11: (id << 16) | 1 });
    if (completion.status !== 0 || submission.status !== 0) throw new Error(`queue ${id} was refused`);
    this.queues.set(id, this.#queue(id, entries, at, at + 0x4000));
  }

  /** Stores a command at the queue's tail; returns its id. The doorbell is not rung. */
  place(queueId: number, opcode: number, dwords: Dwords = {}): number {
    const queue = this.queues.get(queueId)!;
    const id = this.nextId++ & 0xffff;
    const at = queue.submissionAt + 64 * queue.tail;
    const view = this.view;
    for (let i = 0; i < 16; i++) view.setUint32(at + 4 * i, (dwords[i as 0] ?? 0) >>> 0, true);
    view.setUint32(at, ((dwords[0] ?? 0) | opcode | (id << 16)) >>> 0, true);
    queue.tail = (queue.tail + 1) % queue.entries;
    return id;
  }

  ring(queueId: number): void {
    this.write(0x1000 + 8 * queueId, this.queues.get(queueId)!.tail);
  }

  /** The next completion that the host has not taken, or null; takes it and rings the head doorbell. */
  take(queueId: number): Completion | null {
    const queue = this.queues.get(queueId)!;
    const at = queue.completionAt + 16 * queue.head;
    const view = this.view;
    const last = view.getUint32(at + 12, true);
    if (((last >>> 16) & 1) !== queue.phase) return null;
    const completion = {
      status: last >>> 17,
      result: view.getUint32(at, true),
      commandId: last & 0xffff,
      submissionQueue: view.getUint16(at + 10, true),
      submissionHead: view.getUint16(at + 8, true),
    };
    queue.head++;
    if (queue.head === queue.entries) {
      queue.head = 0;
      queue.phase ^= 1;
    }
    this.write(0x1004 + 8 * queueId, queue.head);
    return completion;
  }

  /** All completions there are. */
  takeAll(queueId: number): Completion[] {
    const all: Completion[] = [];
    for (let next = this.take(queueId); next !== null; next = this.take(queueId)) all.push(next);
    return all;
  }

  /** Submits one command and waits for its completion. */
  run(queueId: number, opcode: number, dwords: Dwords = {}): Completion {
    const id = this.place(queueId, opcode, dwords);
    this.ring(queueId);
    this.bus.run(1_000_000);
    const completion = this.take(queueId);
    if (completion === null) throw new Error("no completion");
    if (completion.commandId !== id) throw new Error(`completion of command ${completion.commandId}, not ${id}`);
    return completion;
  }

  admin(opcode: number, dwords: Dwords = {}): Completion {
    return this.run(0, opcode, dwords);
  }

  /** Identify into DATA. */
  identify(what: number, namespace = 0): Completion {
    return this.admin(0x06, { 1: namespace, 6: DATA, 10: what });
  }

  /** Read or write of `blocks` at `first`, data at `address` (one or two pages, or a list at `list`). */
  transfer(write: boolean, first: number, blocks: number, address = DATA, prp2 = 0, flags = 0): Completion {
    return this.run(1, write ? 1 : 2, {
      1: 1,
      6: address,
      8: prp2,
      10: first >>> 0,
      11: Math.floor(first / 2 ** 32),
      12: ((blocks - 1) | flags) >>> 0,
    });
  }
}

/** A store whose answers a test decides. */
export class ScriptedStore extends MemoryBlockStore {
  failReads = false;
  failWrites = false;
  readonly calls: string[] = [];

  override read(first: number, count: number, into: Uint8Array, at: number): 0 | 1 {
    this.calls.push(`read ${first} ${count}`);
    super.read(first, count, into, at);
    return this.failReads ? 1 : 0;
  }

  override write(first: number, count: number, from: Uint8Array, at: number): 0 | 1 {
    this.calls.push(`write ${first} ${count}`);
    if (this.failWrites) return 1;
    super.write(first, count, from, at);
    return 0;
  }

  override flush(): 0 | 1 {
    this.calls.push("flush");
    return this.failWrites ? 1 : 0;
  }
}

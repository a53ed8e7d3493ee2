// Submission and completion queues (NVMe 1.4 §4.1): rings of fixed-size entries in host memory, physically contiguous in the
// device's address space. A command is fetched only when its completion queue will have room for the answer, so a guest that
// does not consume completions stops its own queue and nothing else.

import { pfnOfHalves } from "../../base/address.ts";
import { COMMAND_BYTES, COMPLETION_BYTES } from "./commands.ts";

export class CompletionQueue {
  readonly id: number;
  readonly entries: number;
  readonly interrupts: boolean;
  readonly vector: number;
  readonly #pfn: number;
  head = 0;
  tail = 0;
  phase = 1;
  /** Entries promised to commands in flight. */
  promised = 0;
  /** Submission queues that complete here. */
  users = 0;

  /** `entries` at least 2; the base is a page address. */
  constructor(
    id: number,
    addressLow: number,
    addressHigh: number,
    entries: number,
    interrupts: boolean,
    vector: number,
  ) {
    this.id = id;
    this.#pfn = pfnOfHalves(addressLow, addressHigh);
    this.entries = entries;
    this.interrupts = interrupts;
    this.vector = vector;
  }

  /** Completions that the host has not taken. */
  get used(): number {
    return (this.tail - this.head + this.entries) % this.entries;
  }

  /** One more completion can be promised. */
  get hasRoom(): boolean {
    return this.used + this.promised < this.entries - 1;
  }

  get tailPfn(): number {
    return this.#pfn + ((this.tail * COMPLETION_BYTES) >>> 12);
  }

  get tailOffset(): number {
    return (this.tail * COMPLETION_BYTES) & 0xfff;
  }

  /** The entry at the tail was written. */
  advance(): void {
    if (++this.tail < this.entries) return;
    this.tail = 0;
    this.phase ^= 1;
  }

  /** The host has taken entries up to `head`; false if it cannot have. */
  take(head: number): boolean {
    if (head >= this.entries) return false;
    const left = (this.tail - head + this.entries) % this.entries;
    if (left > this.used) return false;
    this.head = head;
    return true;
  }
}

export class SubmissionQueue {
  readonly id: number;
  readonly entries: number;
  readonly completion: CompletionQueue;
  readonly #pfn: number;
  head = 0;
  tail = 0;

  constructor(id: number, addressLow: number, addressHigh: number, entries: number, completion: CompletionQueue) {
    this.id = id;
    this.#pfn = pfnOfHalves(addressLow, addressHigh);
    this.entries = entries;
    this.completion = completion;
    completion.users++;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  get headPfn(): number {
    return this.#pfn + ((this.head * COMMAND_BYTES) >>> 12);
  }

  get headOffset(): number {
    return (this.head * COMMAND_BYTES) & 0xfff;
  }

  /** The entry at the head was fetched. */
  advance(): void {
    this.head = this.head + 1 === this.entries ? 0 : this.head + 1;
  }
}

/** A fetched command: its 16 dwords and what became of it. Reused; nothing is allocated per command. */
export class Command {
  readonly bytes = new Uint8Array(COMMAND_BYTES);
  /** Dwords 0 to 15 (§4.2). */
  readonly words = new Uint32Array(this.bytes.buffer);
  /** Null once it has been answered. */
  queue: SubmissionQueue | null = null;
  /** Virtual time at which it is carried out and completes. */
  due = 0;

  get opcode(): number {
    return this.words[0]! & 0xff;
  }

  get id(): number {
    return this.words[0]! >>> 16;
  }

  get namespace(): number {
    return this.words[1]!;
  }
}

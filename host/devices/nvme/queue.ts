// Submission and completion queues (NVMe 1.4 §4.1): rings of fixed-size entries in host memory, physically contiguous in the
// device's address space. A command is fetched only when its completion queue will have room for the answer, so a guest that
// does not consume completions stops its own queue and nothing else.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import { COMMAND_BYTES, COMPLETION_BYTES } from "./commands.ts";

export class CompletionQueue implements Stateful {
  readonly id: number;
  readonly entries: number;
  readonly interrupts: boolean;
  readonly vector: number;
  /** Page-frame number of the first entry. */
  readonly pfn: number;
  head = 0;
  tail = 0;
  phase = 1;
  /** Entries promised to commands in flight. */
  promised = 0;
  /** Submission queues that complete here. */
  users = 0;

  /** `pfn`: of the first entry; `entries` at least 2. */
  constructor(id: number, pfn: number, entries: number, interrupts: boolean, vector: number) {
    this.id = id;
    this.pfn = pfn;
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
    return this.pfn + ((this.tail * COMPLETION_BYTES) >>> 12);
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

  /** Where and how large it is: what the controller makes it anew from. */
  get identity(): StateRecord {
    const { id, pfn, entries, interrupts, vector } = this;
    return { id, pfn, entries, interrupts, vector };
  }

  saveState(): StateRecord {
    return { head: this.head, tail: this.tail, phase: this.phase, promised: this.promised, users: this.users };
  }

  restoreState(state: StateReader): void {
    this.head = entryOf(state, "head", this.entries);
    this.tail = entryOf(state, "tail", this.entries);
    this.phase = entryOf(state, "phase", 2);
    this.promised = entryOf(state, "promised", this.entries);
    this.users = state.number("users");
  }
}

export class SubmissionQueue implements Stateful {
  readonly id: number;
  readonly entries: number;
  readonly completion: CompletionQueue;
  /** Page-frame number of the first entry. */
  readonly pfn: number;
  head = 0;
  tail = 0;

  constructor(id: number, pfn: number, entries: number, completion: CompletionQueue) {
    this.id = id;
    this.pfn = pfn;
    this.entries = entries;
    this.completion = completion;
    completion.users++;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  get headPfn(): number {
    return this.pfn + ((this.head * COMMAND_BYTES) >>> 12);
  }

  get headOffset(): number {
    return (this.head * COMMAND_BYTES) & 0xfff;
  }

  /** The entry at the head was fetched. */
  advance(): void {
    this.head = this.head + 1 === this.entries ? 0 : this.head + 1;
  }

  /** Where and how large it is: what the controller makes it anew from. */
  get identity(): StateRecord {
    const { id, pfn, entries, completion } = this;
    return { id, pfn, entries, completion: completion.id };
  }

  saveState(): StateRecord {
    return { head: this.head, tail: this.tail };
  }

  restoreState(state: StateReader): void {
    this.head = entryOf(state, "head", this.entries);
    this.tail = entryOf(state, "tail", this.entries);
  }
}

// Not state: commands in flight are written down by the lane that they are in (savedCommand).
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

/** A whole number below `limit`. */
export function entryOf(state: StateReader, name: string, limit: number): number {
  const value = state.number(name);
  if (!Number.isInteger(value) || value < 0 || value >= limit) state.fail(name, `is not below ${limit}`);
  return value;
}

/** Table of queues from the list of their identities. */
export function queuesOf<Q>(
  state: StateReader,
  name: string,
  into: (Q | null)[],
  make: (identity: StateReader, id: number) => Q,
): void {
  into.fill(null);
  for (const identity of state.records(name)) {
    const id = entryOf(identity, "id", into.length);
    if (into[id] !== null) identity.fail("id", `${id} is there twice`);
    into[id] = make(identity, id);
  }
}

export function savedCommand(command: Command, submission: readonly (SubmissionQueue | null)[]): StateRecord {
  // After a fatal status a command may be of a queue that is gone: it is never carried out.
  const { queue } = command;
  const known = queue !== null && submission[queue.id] === queue;
  return { bytes: bytesOf(command.bytes), queue: known ? queue.id : null, due: command.due };
}

export function restoreCommand(
  command: Command,
  state: StateReader,
  submission: readonly (SubmissionQueue | null)[],
): void {
  state.memory("bytes", command.bytes);
  const id = state.optional("queue", (reader, name) => entryOf(reader, name, submission.length));
  command.queue = id === null ? null : submission[id]!;
  if (id !== null && command.queue === null) state.fail("queue", `${id} is not there`);
  command.due = state.number("due");
}

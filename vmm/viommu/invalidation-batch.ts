// Invalidations on their way to the host: a guest's commands collect here between two fences (CMD_SYNC, IOFENCE.C) and go in one call.
//
// An entry is the guest's command, four words, as the kind's host interface takes it; beside it stands its place in the guest's queue, so that a
// batch that the host did not finish stops the queue exactly at the command that failed.

import { EIO, ETIMEDOUT } from "../../host/uapi/errno.ts";
import type { InvalidationReply } from "./host-port.ts";

const ENTRY_BYTES = 16;

/** A reply is the host's word, but not beyond what was asked. */
function entriesDone(reply: InvalidationReply, count: number): number {
  return reply.done >= 0 && reply.done <= count ? Math.floor(reply.done) : 0;
}

// Not state: a batch lives within one run of the queue; the counters are the queue's to keep
export class InvalidationBatch {
  /** Entries waiting. */
  count = 0;
  /** A device did not answer an invalidation of its translation cache; whoever reports it clears it. */
  timedOut = false;
  /** Batches and entries that the host was given. */
  batches = 0;
  forwarded = 0;
  /** Why the last `flush` failed. */
  errno = 0;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  /** Place in the guest's queue of each entry. */
  readonly #places: Uint32Array;
  readonly #invalidate: (batch: Uint8Array, count: number) => InvalidationReply;
  readonly #forDevice: (word0: number) => boolean;

  /**
   * `entries`: as many as one run of the queue can add. `lent`: the host's memory for batches (`ViommuHost.batch`). `forDevice` tells by its first word
   * whether a command invalidates a device's own cache.
   */
  constructor(
    entries: number,
    lent: Uint8Array | undefined,
    invalidate: (batch: Uint8Array, count: number) => InvalidationReply,
    forDevice: (word0: number) => boolean,
  ) {
    const bytes = entries * ENTRY_BYTES;
    this.#bytes =
      lent !== undefined && lent.length >= bytes && lent.byteOffset % 4 === 0 ? lent : new Uint8Array(bytes);
    this.#words = new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset, bytes / 4);
    this.#places = new Uint32Array(entries);
    this.#invalidate = invalidate;
    this.#forDevice = forDevice;
  }

  add(place: number, word0: number, word1: number, word2: number, word3: number): void {
    const at = this.count++;
    const words = this.#words;
    this.#places[at] = place;
    words[4 * at] = word0;
    words[4 * at + 1] = word1;
    words[4 * at + 2] = word2;
    words[4 * at + 3] = word3;
  }

  /** Forgets what waits. */
  clear(): void {
    this.count = 0;
    this.timedOut = false;
  }

  /** Has the host do what waits: -1, or the place of the command that failed, with `errno`. */
  flush(): number {
    const count = this.count;
    if (count === 0) return -1;
    this.count = 0;
    this.batches++;
    const reply = this.#invalidate(this.#bytes, count);
    const done = entriesDone(reply, count);
    this.forwarded += done;
    if (reply.errno === -ETIMEDOUT) return this.#afterTimeout(done, count);
    if (done === count && reply.errno === 0) return -1;
    return this.#failedAt(done, count, reply.errno);
  }

  /**
   * A device did not answer: that is reported by the fence that follows, which cannot say which one it was. The host stopped at entry `done`; what is
   * left of the batch is given to it again without its device invalidations, all of which the guest has to take as failed.
   */
  #afterTimeout(done: number, count: number): number {
    this.timedOut = true;
    const words = this.#words;
    let left = 0;
    for (let entry = done; entry < count; entry++) {
      if (this.#forDevice(words[4 * entry]!)) continue;
      words.copyWithin(4 * left, 4 * entry, 4 * entry + 4);
      this.#places[left++] = this.#places[entry]!;
    }
    if (left === 0) return -1;
    const reply = this.#invalidate(this.#bytes, left);
    const again = entriesDone(reply, left);
    this.forwarded += again;
    if (again === left && (reply.errno === 0 || reply.errno === -ETIMEDOUT)) return -1;
    return this.#failedAt(again, left, reply.errno);
  }

  #failedAt(done: number, count: number, errno: number): number {
    this.errno = errno === 0 ? -EIO : errno;
    return this.#places[Math.min(done, count - 1)]!;
  }
}

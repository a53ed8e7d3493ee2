// A guest's invalidations on their way to the host: the hardware knows nothing of a guest's domain ids, so that a descriptor is worked out to ranges of every
// device whose entry carries the id. They collect, a batch a device, until a wait (or the end of what the guest queued), and go in one call a device.

import type { InvalidationReply } from "../host-port.ts";
import { writeInvalidation } from "./nested-codec.ts";

/** Entries of a device that wait at most; the next one has them sent. */
const MOST = 256;
const ENTRY_BYTES = 24;
/** log2 of all pages there are. */
export const EVERYTHING = 52;

interface Batch {
  count: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}

// Not state: batches live within one run of the queue; the counters are the queue's to keep
export class PendingInvalidations {
  /** Calls and entries that the host was given. */
  batches = 0;
  forwarded = 0;
  readonly #forward: (batch: Uint8Array, count: number, device: number) => InvalidationReply;
  /** What is done about a device whose translations the host does not drop. */
  readonly #failed: (device: number, errno: number) => void;
  readonly #batches = new Map<number, Batch>();

  constructor(
    forward: (batch: Uint8Array, count: number, device: number) => InvalidationReply,
    failed: (device: number, errno: number) => void,
  ) {
    this.#forward = forward;
    this.#failed = failed;
  }

  /** 2^order pages from `pfn` on, or EVERYTHING, of a device's first stage. */
  add(device: number, pfn: number, order: number, leavesOnly: boolean): void {
    let batch = this.#batches.get(device);
    if (batch === undefined) {
      const bytes = new Uint8Array(MOST * ENTRY_BYTES);
      batch = { count: 0, bytes, words: new Uint32Array(bytes.buffer) };
      this.#batches.set(device, batch);
    }
    if (batch.count === MOST) this.#send(device, batch);
    writeInvalidation(batch.words, batch.count++, pfn, order, leavesOnly);
  }

  /** Has the host do what waits. */
  flush(): void {
    for (const [device, batch] of this.#batches) if (batch.count > 0) this.#send(device, batch);
  }

  /** A device has gone. */
  forget(device: number): void {
    this.#batches.delete(device);
  }

  #send(device: number, batch: Batch): void {
    const { count } = batch;
    batch.count = 0;
    this.batches++;
    this.forwarded += count;
    const { done, errno } = this.#forward(batch.bytes.subarray(0, count * ENTRY_BYTES), count, device);
    if (errno === 0 && done === count) return;
    // Once more, all at once: a host that does not do that either leaves translations that the guest has taken back.
    writeInvalidation(batch.words, 0, 0, EVERYTHING, false);
    const again = this.#forward(batch.bytes.subarray(0, ENTRY_BYTES), 1, device);
    if (again.errno !== 0 || again.done !== 1) this.#failed(device, again.errno);
  }
}

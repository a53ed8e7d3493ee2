// A guest's invalidations on their way to the host: the hardware knows nothing of a guest's domain ids, so that a descriptor is worked out to ranges of every
// device and PASID whose entry carries the id. They collect, a batch each, until a wait (or the end of what the guest queued), and go in one call each.

import { EIO } from "../../../host/uapi/errno.ts";
import type { InvalidationReply } from "../host-port.ts";
import { writeInvalidation } from "./nested-codec.ts";

/** Entries of a device that wait at most; the next one has them sent. A batch begins with room for few: most PASIDs get one. */
const MOST = 256;
const FEW = 4;
/** What a call costs beside an entry (`work`). */
const CALL_WORK = 16;
const ENTRY_BYTES = 24;
/** log2 of all pages there are. */
export const EVERYTHING = 52;

const PASIDS = 2 ** 20;

interface Batch {
  readonly device: number;
  readonly pasid: number;
  count: number;
  /** Everything is in it. */
  whole: boolean;
  bytes: Uint8Array;
  words: Uint32Array;
}

// Not state: batches live within one run of the queue; the counters are the queue's to keep
export class PendingInvalidations {
  /** Calls and entries that the host was given. */
  batches = 0;
  forwarded = 0;
  /** Units of work done so far: an entry is one. */
  work = 0;
  readonly #forward: (batch: Uint8Array, count: number, device: number, pasid: number) => InvalidationReply;
  /** What is done about a device, or its PASID, whose translations the host does not drop. */
  readonly #failed: (device: number, pasid: number, errno: number) => void;
  /** By device and PASID. */
  readonly #batches = new Map<number, Batch>();

  constructor(
    forward: (batch: Uint8Array, count: number, device: number, pasid: number) => InvalidationReply,
    failed: (device: number, pasid: number, errno: number) => void,
  ) {
    this.#forward = forward;
    this.#failed = failed;
  }

  /** 2^order pages from `pfn` on, or EVERYTHING, of the first stage of a device, or of one of its PASIDs (0: of its requests without one). */
  add(device: number, pasid: number, pfn: number, order: number, leavesOnly: boolean): void {
    this.work++;
    const key = device * PASIDS + pasid;
    let batch = this.#batches.get(key);
    if (batch === undefined) {
      const bytes = new Uint8Array(FEW * ENTRY_BYTES);
      batch = { device, pasid, count: 0, whole: false, bytes, words: new Uint32Array(bytes.buffer) };
      this.#batches.set(key, batch);
    }
    // What comes after everything is in it, and so is what came before.
    if (batch.whole) return;
    batch.whole = order >= EVERYTHING && !leavesOnly;
    if (batch.count === MOST) {
      if (batch.whole) batch.count = 0;
      else this.#send(batch);
    }
    if ((batch.count + 1) * ENTRY_BYTES > batch.bytes.length) grow(batch);
    writeInvalidation(batch.words, batch.count++, pfn, order, leavesOnly);
  }

  /** Has the host do what waits. */
  flush(): void {
    for (const [key, batch] of this.#batches) {
      if (batch.count > 0) this.#send(batch);
      // PASIDs come and go.
      if (batch.pasid !== 0) this.#batches.delete(key);
    }
  }

  /** A device has gone; between two runs of the queue. */
  forget(device: number): void {
    this.#batches.delete(device * PASIDS);
  }

  #send(batch: Batch): void {
    const { count, device, pasid } = batch;
    batch.count = 0;
    batch.whole = false;
    this.batches++;
    this.work += CALL_WORK;
    this.forwarded += count;
    const { done, errno } = this.#forward(batch.bytes.subarray(0, count * ENTRY_BYTES), count, device, pasid);
    if (errno === 0 && done === count) return;
    // Once more, all at once: a host that does not do that either leaves translations that the guest has taken back.
    writeInvalidation(batch.words, 0, 0, EVERYTHING, false);
    const again = this.#forward(batch.bytes.subarray(0, ENTRY_BYTES), 1, device, pasid);
    if (again.errno !== 0 || again.done !== 1) this.#failed(device, pasid, again.errno || -EIO);
  }
}

function grow(batch: Batch): void {
  const bytes = new Uint8Array(Math.min(2 * batch.bytes.length, MOST * ENTRY_BYTES));
  bytes.set(batch.bytes);
  batch.bytes = bytes;
  batch.words = new Uint32Array(bytes.buffer);
}

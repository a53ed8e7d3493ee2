// Drives in files, what is read of them written down.

import type { BlockStatus, BlockStore } from "../../devices/nvme/block-store.ts";
import * as records from "./host-records.ts";
import type { RecordingWriter } from "./recording-writer.ts";

export class RecordedDrives {
  readonly #writer: RecordingWriter;
  #count = 0;

  constructor(writer: RecordingWriter) {
    this.#writer = writer;
  }

  /** The drive to use in place of one that has just been opened. */
  open(store: BlockStore & { close(): void }): BlockStore & { close(): void } {
    this.#writer.begin(records.DRIVE);
    this.#writer.number(store.blocks);
    this.#writer.number(store.blockBytes);
    return new RecordedDrive(store, this.#count++, this.#writer);
  }
}

class RecordedDrive implements BlockStore {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly #store: BlockStore & { close(): void };
  readonly #number: number;
  readonly #writer: RecordingWriter;

  constructor(store: BlockStore & { close(): void }, number: number, writer: RecordingWriter) {
    this.blocks = store.blocks;
    this.blockBytes = store.blockBytes;
    this.#store = store;
    this.#number = number;
    this.#writer = writer;
  }

  read(first: number, count: number, into: Uint8Array, at: number): BlockStatus {
    const status = this.#store.read(first, count, into, at);
    const bytes = into.subarray(at, at + count * this.blockBytes);
    this.#writer.begin(records.DRIVE_READ, bytes.length);
    this.#writer.number(this.#number);
    this.#writer.number(status);
    // Of a read that failed as well: the device may look at what there is.
    this.#writer.bytes(bytes);
    return status;
  }

  write(first: number, count: number, from: Uint8Array, at: number): BlockStatus {
    return this.#done(this.#store.write(first, count, from, at));
  }

  flush(): BlockStatus {
    return this.#done(this.#store.flush());
  }

  zero(first: number, count: number): BlockStatus {
    return this.#done(this.#store.zero(first, count));
  }

  discard(first: number, count: number): BlockStatus {
    return this.#done(this.#store.discard(first, count));
  }

  close(): void {
    this.#store.close();
  }

  #done(status: BlockStatus): BlockStatus {
    this.#writer.begin(records.DRIVE_DONE);
    this.#writer.number(this.#number);
    this.#writer.number(status);
    return status;
  }
}

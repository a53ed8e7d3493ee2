// What stands behind a namespace: blocks that can be read, written, flushed, zeroed and discarded, synchronously. A failure is a
// status, and becomes a media error for the guest; whoever implements the store tells the user. Ranges are within the store.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";

export const BLOCK_OK = 0;
export const BLOCK_FAILED = 1;
export type BlockStatus = typeof BLOCK_OK | typeof BLOCK_FAILED;

/** A store whose content is the machine's own has state; one that is a file of the host's names it. */
export interface BlockStore extends Partial<Stateful> {
  readonly blocks: number;
  /** 512 or 4096. */
  readonly blockBytes: number;
  /** Copies `count` blocks from block `first` on into `into` at `at`. */
  read(first: number, count: number, into: Uint8Array, at: number): BlockStatus;
  /** After BLOCK_OK every later read sees the data; it survives a crash of the machine only after `flush`. */
  write(first: number, count: number, from: Uint8Array, at: number): BlockStatus;
  /** Makes all that was written before durable. */
  flush(): BlockStatus;
  /** The blocks read zero from now on. */
  zero(first: number, count: number): BlockStatus;
  /** The blocks' content is no longer needed; what they read is not said. */
  discard(first: number, count: number): BlockStatus;
}

/** Bytes of a chunk of the memory store. */
const CHUNK_BYTES = 1 << 16;

/** A store in memory; only what was written takes room. */
export class MemoryBlockStore implements BlockStore, Stateful {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly #chunks = new Map<number, Uint8Array>();

  /** `bytes` is rounded down to whole blocks. */
  constructor(bytes: number, blockBytes: 512 | 4096 = 512) {
    this.blockBytes = blockBytes;
    this.blocks = Math.floor(bytes / blockBytes);
  }

  read(first: number, count: number, into: Uint8Array, at: number): BlockStatus {
    this.#eachPiece(first, count, (chunk, offset, length, done) => {
      const bytes = this.#chunks.get(chunk);
      if (bytes === undefined) into.fill(0, at + done, at + done + length);
      else into.set(bytes.subarray(offset, offset + length), at + done);
    });
    return BLOCK_OK;
  }

  write(first: number, count: number, from: Uint8Array, at: number): BlockStatus {
    this.#eachPiece(first, count, (chunk, offset, length, done) => {
      let bytes = this.#chunks.get(chunk);
      if (bytes === undefined) {
        bytes = new Uint8Array(CHUNK_BYTES);
        this.#chunks.set(chunk, bytes);
      }
      bytes.set(from.subarray(at + done, at + done + length), offset);
    });
    return BLOCK_OK;
  }

  flush(): BlockStatus {
    return BLOCK_OK;
  }

  zero(first: number, count: number): BlockStatus {
    const start = first * this.blockBytes;
    const end = start + count * this.blockBytes;
    if ((end - start) / CHUNK_BYTES > this.#chunks.size) {
      // The work is bounded by what there is, not by how large a range a command names.
      for (const [chunk, bytes] of this.#chunks) {
        const base = chunk * CHUNK_BYTES;
        if (base >= start && base + CHUNK_BYTES <= end) this.#chunks.delete(chunk);
        else if (base < end && base + CHUNK_BYTES > start) {
          bytes.fill(0, Math.max(start - base, 0), Math.min(end - base, CHUNK_BYTES));
        }
      }
      return BLOCK_OK;
    }
    this.#eachPiece(first, count, (chunk, offset, length) => {
      if (length === CHUNK_BYTES) this.#chunks.delete(chunk);
      else this.#chunks.get(chunk)?.fill(0, offset, offset + length);
    });
    return BLOCK_OK;
  }

  discard(first: number, count: number): BlockStatus {
    return this.zero(first, count);
  }

  #eachPiece(
    first: number,
    count: number,
    visit: (chunk: number, offset: number, length: number, done: number) => void,
  ): void {
    let position = first * this.blockBytes;
    const end = position + count * this.blockBytes;
    for (let done = 0; position < end; ) {
      const offset = position % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - offset, end - position);
      visit((position - offset) / CHUNK_BYTES, offset, length, done);
      position += length;
      done += length;
    }
  }

  saveState(): StateRecord {
    return {
      blocks: this.blocks,
      blockBytes: this.blockBytes,
      chunks: [...this.#chunks].sort(([a], [b]) => a - b).map(([chunk, bytes]) => ({ chunk, bytes: bytesOf(bytes) })),
    };
  }

  restoreState(state: StateReader): void {
    for (const size of ["blocks", "blockBytes"] as const) {
      if (state.number(size) !== this[size]) state.fail(size, `are ${state.number(size)}, not ${this[size]}`);
    }
    this.#chunks.clear();
    for (const saved of state.records("chunks")) {
      const chunk = saved.number("chunk");
      const last = Math.ceil((this.blocks * this.blockBytes) / CHUNK_BYTES);
      if (!Number.isInteger(chunk) || chunk < 0 || chunk >= last) saved.fail("chunk", "is not in the store");
      const bytes = new Uint8Array(CHUNK_BYTES);
      saved.memory("bytes", bytes);
      this.#chunks.set(chunk, bytes);
    }
  }
}

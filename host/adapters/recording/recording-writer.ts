// Writes a recording while something runs: records are gathered in a chunk, a full chunk is compressed on another thread and written in its turn.
// Memory is bounded: when compression does not keep up, chunks are written as they are. A disk that is full ends the recording, not the run.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { constants, deflateRaw } from "node:zlib";
import {
  CHUNK_HEADER,
  CONTAINER_VERSION,
  DEFLATED,
  FIXED_BYTES,
  HASH,
  LARGEST_CHUNK,
  MAGIC,
  RecordingError,
  type RecordingHeader,
  STORED,
  TRAILER_MARK,
} from "./recording-format.ts";

const CHUNK_BYTES = 1 << 20;
/** Chunks that wait for their compression, at most. */
const MOST_WAITING = 6;
/** Bytes that a record's numbers take, at most. */
const NUMBERS = 256;

interface WaitingChunk {
  readonly bytes: Buffer;
  compressed: Buffer | null;
}

export class RecordingWriter {
  readonly #path: string;
  readonly #say: (line: string) => void;
  readonly #fd: number;
  readonly #hash = createHash(HASH);
  #chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  #at = 0;
  readonly #waiting: WaitingChunk[] = [];
  #chunks = 0;
  #records = 0;
  #bytes = 0;
  #failed = false;
  #closed = false;

  /** `say`: gets a line when the file cannot be written any more. Throws RecordingError. */
  constructor(path: string, header: RecordingHeader, say: (line: string) => void) {
    this.#path = path;
    this.#say = say;
    try {
      this.#fd = fs.openSync(path, "w", 0o600);
    } catch (error) {
      throw new RecordingError(`${path}: ${(error as Error).message}`);
    }
    const document = Buffer.from(JSON.stringify(header));
    const fixed = Buffer.alloc(FIXED_BYTES);
    MAGIC.copy(fixed);
    fixed.writeUInt32LE(CONTAINER_VERSION, MAGIC.length);
    fixed.writeUInt32LE(document.length, MAGIC.length + 4);
    this.#write(fixed);
    this.#write(document);
  }

  /** False once the file could not be written. */
  get good(): boolean {
    return !this.#failed;
  }

  /** Chunks so far, for an index: the next record may begin in this one. */
  get chunks(): number {
    return this.#chunks;
  }

  /** Begins a record; `payload`: bytes that will be put into it, beside numbers. Types are 1 to 255. */
  begin(type: number, payload = 0): void {
    if (this.#failed) {
      this.#at = 0;
      return;
    }
    if (this.#at + NUMBERS + payload > this.#chunk.length) this.#turn(NUMBERS + payload);
    this.#chunk[this.#at++] = type;
    this.#records++;
  }

  /** A whole number below 2^53. */
  number(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#chunk[this.#at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#chunk[this.#at++] = rest;
  }

  flag(value: boolean): void {
    this.#chunk[this.#at++] = value ? 1 : 0;
  }

  wide(value: bigint): void {
    this.#at = this.#chunk.writeBigUInt64LE(value, this.#at);
  }

  /** Any number. */
  double(value: number): void {
    this.#at = this.#chunk.writeDoubleLE(value, this.#at);
  }

  /** Their length, and the bytes: part of the payload that `begin` was told of. */
  bytes(bytes: Uint8Array): void {
    this.number(bytes.length);
    if (this.#failed) return;
    this.#chunk.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** The record that comes next begins a chunk, so that it can be found by the chunk's number. */
  turn(): void {
    if (this.#at > 0) this.#turn(0);
  }

  /** Writes what is left, and the end. Without it the file is refused. True if all of it is there. */
  close(result: unknown): boolean {
    if (this.#closed) return !this.#failed;
    this.#closed = true;
    this.turn();
    this.#settle();
    const trailer = Buffer.from(
      JSON.stringify({ chunks: this.#chunks, records: this.#records, bytes: this.#bytes, result }),
    );
    const tail = Buffer.alloc(4);
    tail.writeUInt32LE(trailer.length);
    this.#write(Buffer.concat([trailer, tail, TRAILER_MARK]));
    if (!this.#failed) this.#writeRaw(this.#hash.digest());
    try {
      fs.closeSync(this.#fd);
    } catch (error) {
      this.#failWith(error);
    }
    return !this.#failed;
  }

  /** Hands the chunk over, and begins one with room for `needed` bytes. */
  #turn(needed: number): void {
    const bytes = this.#chunk.subarray(0, this.#at);
    this.#bytes += this.#at;
    this.#at = 0;
    if (needed > LARGEST_CHUNK) this.#fail(`cannot hold ${needed} bytes that were read at once`);
    if (this.#failed) return;
    this.#chunk = Buffer.allocUnsafe(Math.max(CHUNK_BYTES, needed));
    if (bytes.length === 0) return;
    this.#chunks++;
    const waiting: WaitingChunk = { bytes, compressed: null };
    this.#waiting.push(waiting);
    deflateRaw(bytes, { level: constants.Z_BEST_SPEED }, (error, compressed) => {
      if (error !== null) return;
      waiting.compressed = compressed;
      while (this.#waiting[0]?.compressed != null) this.#writeChunk(this.#waiting.shift()!);
    });
    if (this.#waiting.length > MOST_WAITING) this.#settle();
  }

  /** Writes all that waits, compressed or not. */
  #settle(): void {
    for (const chunk of this.#waiting.splice(0)) this.#writeChunk(chunk);
  }

  #writeChunk({ bytes, compressed }: WaitingChunk): void {
    const smaller = compressed !== null && compressed.length < bytes.length;
    const stored = smaller ? compressed : bytes;
    const header = Buffer.alloc(CHUNK_HEADER);
    header.writeUInt32LE(smaller ? DEFLATED : STORED, 0);
    header.writeUInt32LE(bytes.length, 4);
    header.writeUInt32LE(stored.length, 8);
    this.#write(header);
    this.#write(stored);
  }

  #write(bytes: Uint8Array): void {
    if (this.#failed) return;
    this.#hash.update(bytes);
    this.#writeRaw(bytes);
  }

  #writeRaw(bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length && !this.#failed; ) done += fs.writeSync(this.#fd, bytes, done);
    } catch (error) {
      this.#failWith(error);
    }
  }

  #failWith(error: unknown): void {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    this.#fail(code === "ENOSPC" ? "no space is left on the disk" : `cannot be written (${code})`);
  }

  /** All that is left to do is to say so: what is recorded from now on goes nowhere. */
  #fail(why: string): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#waiting.length = 0;
    this.#at = 0;
    this.#say(`recording ${this.#path}: ${why}; the run goes on without it, and the file will be refused`);
  }
}

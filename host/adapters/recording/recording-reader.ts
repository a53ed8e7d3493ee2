// Reads a recording. First all of the file is looked at: one that is cut short, has been changed, or is another version's is refused before anything
// is made of it. Then its records, one after the other; a record that is none throws RecordingError as well (the hash says that the file is as it was
// written, not who wrote it).

import { createHash } from "node:crypto";
import fs from "node:fs";
import { inflateRawSync } from "node:zlib";
import {
  CHUNK_HEADER,
  CONTAINER_VERSION,
  DEFLATED,
  FIXED_BYTES,
  HASH,
  HASH_BYTES,
  LARGEST_CHUNK,
  LARGEST_DOCUMENT,
  MAGIC,
  RecordingError,
  type RecordingHeader,
  type RecordingTrailer,
  STORED,
  TRAILER_MARK,
} from "./recording-format.ts";

const NOTHING = Buffer.alloc(0);
const PIECE = 1 << 20;
/** Length of the trailer, its mark, the hash. */
const TAIL = 4 + TRAILER_MARK.length + HASH_BYTES;

/** The bytes of a file, or of a buffer. */
interface Source {
  readonly bytes: number;
  read(position: number, length: number): Buffer;
  close(): void;
}

export interface ReaderMark {
  readonly nextChunk: number;
  readonly chunk: Buffer;
  readonly at: number;
  readonly records: number;
}

export class RecordingReader {
  readonly name: string;
  readonly header: RecordingHeader;
  readonly trailer: RecordingTrailer;
  readonly #source: Source;
  readonly #firstChunk: number;
  readonly #end: number;
  /** Where the next chunk begins. */
  #nextChunk: number;
  #chunk: Buffer = NOTHING;
  #at = 0;
  /** Records so far. */
  records = 0;

  private constructor(name: string, source: Source) {
    this.name = name;
    this.#source = source;
    const fixed = source.read(0, FIXED_BYTES);
    if (fixed.length < FIXED_BYTES || !fixed.subarray(0, MAGIC.length).equals(MAGIC)) {
      throw this.#refused("is no recording of nestbox's");
    }
    const version = fixed.readUInt32LE(MAGIC.length);
    if (version !== CONTAINER_VERSION) {
      throw this.#refused(`is a recording of version ${version}; this nestbox reads version ${CONTAINER_VERSION}`);
    }
    const tail = source.read(Math.max(source.bytes - TAIL, 0), TAIL);
    if (!tail.subarray(4, 4 + TRAILER_MARK.length).equals(TRAILER_MARK)) {
      throw this.#refused("is cut short: its end is missing");
    }
    this.#verify(tail.subarray(TAIL - HASH_BYTES));
    const headerBytes = fixed.readUInt32LE(MAGIC.length + 4);
    const trailerBytes = tail.readUInt32LE(0);
    this.#firstChunk = FIXED_BYTES + headerBytes;
    this.#end = source.bytes - TAIL - trailerBytes;
    if (this.#firstChunk > this.#end || headerBytes > LARGEST_DOCUMENT || trailerBytes > LARGEST_DOCUMENT) {
      throw this.#refused("has no room for what it says it holds");
    }
    this.#nextChunk = this.#firstChunk;
    this.header = this.#header(this.#document(FIXED_BYTES, headerBytes));
    this.trailer = this.#trailer(this.#document(this.#end, trailerBytes));
  }

  /** Throws RecordingError. */
  static open(path: string): RecordingReader {
    let fd: number;
    let bytes: number;
    try {
      fd = fs.openSync(path, "r");
      const stat = fs.fstatSync(fd);
      if (!stat.isFile()) {
        fs.closeSync(fd);
        throw new RecordingError(`${path}: is no file`);
      }
      bytes = stat.size;
    } catch (error) {
      if (error instanceof RecordingError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      throw new RecordingError(`${path}: ${code === "ENOENT" ? "no such file" : message}`);
    }
    const source: Source = {
      bytes,
      read(position, length) {
        const piece = Buffer.alloc(length);
        return piece.subarray(0, fs.readSync(fd, piece, 0, length, position));
      },
      close: () => fs.closeSync(fd),
    };
    try {
      return new RecordingReader(path, source);
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** The same of bytes in memory. */
  static of(name: string, bytes: Buffer): RecordingReader {
    const read = (position: number, length: number) => bytes.subarray(position, position + length);
    return new RecordingReader(name, { bytes: bytes.length, read, close: () => {} });
  }

  close(): void {
    this.#source.close();
  }

  /** Type of the next record, 0 at the end: its fields are next. */
  next(): number {
    if (this.#at === this.#chunk.length && !this.#inflate()) return 0;
    this.records++;
    const type = this.#chunk[this.#at++]!;
    if (type === 0) throw this.malformed("type");
    return type;
  }

  /** As `next`, without going on to it. */
  get upcoming(): number {
    if (this.#at === this.#chunk.length && !this.#inflate()) return 0;
    return this.#chunk[this.#at]!;
  }

  number(): number {
    let value = 0;
    // Eight bytes hold all there are; more, even of nothing, are no number.
    for (let scale = 1; scale < 2 ** 56; scale *= 0x80) {
      const byte = this.#byte();
      value += (byte & 0x7f) * scale;
      if (value > Number.MAX_SAFE_INTEGER) break;
      if (byte < 0x80) return value;
    }
    throw this.malformed("number");
  }

  flag(): boolean {
    const byte = this.#byte();
    if (byte > 1) throw this.malformed("yes or no");
    return byte === 1;
  }

  wide(): bigint {
    return this.#take(8).readBigUInt64LE();
  }

  double(): number {
    return this.#take(8).readDoubleLE();
  }

  /** Good for as long as the chunk is: nobody writes to them. */
  bytes(): Buffer {
    return this.#take(this.number());
  }

  /** Goes to the beginning of chunk `chunk` (from 0). */
  seek(chunk: number): void {
    this.#nextChunk = this.#firstChunk;
    for (let i = 0; i < chunk; i++) this.#nextChunk += CHUNK_HEADER + this.#chunkHeader().stored;
    this.#chunk = NOTHING;
    this.#at = 0;
  }

  /** Where it reads, to come back to. */
  mark(): ReaderMark {
    return { nextChunk: this.#nextChunk, chunk: this.#chunk, at: this.#at, records: this.records };
  }

  return(mark: ReaderMark): void {
    this.#nextChunk = mark.nextChunk;
    this.#chunk = mark.chunk;
    this.#at = mark.at;
    this.records = mark.records;
  }

  malformed(what: string): RecordingError {
    return this.#refused(`record ${this.records} is malformed (${what})`);
  }

  #byte(): number {
    if (this.#at >= this.#chunk.length) throw this.malformed("cut off");
    return this.#chunk[this.#at++]!;
  }

  #take(length: number): Buffer {
    if (length > this.#chunk.length - this.#at) throw this.malformed("cut off");
    this.#at += length;
    return this.#chunk.subarray(this.#at - length, this.#at);
  }

  #chunkHeader(): { codec: number; bytes: number; stored: number } {
    const header =
      this.#nextChunk + CHUNK_HEADER <= this.#end ? this.#source.read(this.#nextChunk, CHUNK_HEADER) : NOTHING;
    if (header.length < CHUNK_HEADER) throw this.#refused("has a chunk that is cut off");
    const [codec, bytes, stored] = [header.readUInt32LE(0), header.readUInt32LE(4), header.readUInt32LE(8)];
    const fits = this.#nextChunk + CHUNK_HEADER + stored <= this.#end && bytes > 0 && bytes <= LARGEST_CHUNK;
    // Whatever does not get smaller is stored as it is: neither side of a chunk is ever larger than the largest.
    const smaller = codec === STORED ? bytes === stored : codec === DEFLATED && stored < bytes;
    if (!fits || !smaller) {
      throw this.#refused("has a chunk that is none");
    }
    return { codec, bytes, stored };
  }

  /** The next chunk; false if there is none. */
  #inflate(): boolean {
    if (this.#nextChunk === this.#end) return false;
    const { codec, bytes, stored } = this.#chunkHeader();
    const content = this.#source.read(this.#nextChunk + CHUNK_HEADER, stored);
    try {
      this.#chunk = codec === STORED ? content : inflateRawSync(content, { maxOutputLength: bytes });
    } catch {
      throw this.#refused("has a chunk that cannot be inflated");
    }
    if (this.#chunk.length !== bytes) throw this.#refused("has a chunk of another length than it says");
    this.#nextChunk += CHUNK_HEADER + stored;
    this.#at = 0;
    return true;
  }

  #verify(expected: Buffer): void {
    const hash = createHash(HASH);
    const end = this.#source.bytes - HASH_BYTES;
    for (let at = 0; at < end; at += PIECE) hash.update(this.#source.read(at, Math.min(PIECE, end - at)));
    if (!hash.digest().equals(expected)) throw this.#refused("has been changed since it was written");
  }

  #document(position: number, length: number): Record<string, unknown> {
    try {
      const document: unknown = JSON.parse(this.#source.read(position, length).toString());
      if (typeof document === "object" && document !== null) return document as Record<string, unknown>;
    } catch {
      // Said below.
    }
    throw this.#refused("has no header or trailer that can be read");
  }

  #header({ kind, version, nestbox, run }: Record<string, unknown>): RecordingHeader {
    if (typeof kind === "string" && typeof version === "number" && typeof nestbox === "string") {
      return { kind, version, nestbox, run };
    }
    throw this.#refused("does not say what it is a recording of");
  }

  #trailer({ chunks, records, bytes, result }: Record<string, unknown>): RecordingTrailer {
    if (typeof chunks === "number" && typeof records === "number" && typeof bytes === "number") {
      return { chunks, records, bytes, result };
    }
    throw this.#refused("does not say what it holds");
  }

  #refused(why: string): RecordingError {
    return new RecordingError(`${this.name}: ${why}`);
  }
}

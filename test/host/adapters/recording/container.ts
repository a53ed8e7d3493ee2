// The container of recordings, by its page (host/adapters/recording/README.md) and sharing no code with it: taken apart, and put together with a hash that
// is right, so that what is inside can be changed.

import { createHash } from "node:crypto";
import { inflateRawSync } from "node:zlib";

const MARK = Buffer.from("\nEND OF RECORDING");

export interface Parts {
  version: number;
  header: Buffer;
  /** Inflated. */
  chunks: Buffer[];
  trailer: Buffer;
}

export function takeApart(file: Buffer): Parts {
  const header = 18 + file.readUInt32LE(14);
  const trailerEnd = file.length - 32 - MARK.length - 4;
  const trailer = trailerEnd - file.readUInt32LE(trailerEnd);
  const chunks: Buffer[] = [];
  for (let at = header; at < trailer; ) {
    const stored = file.readUInt32LE(at + 8);
    const bytes = file.subarray(at + 12, at + 12 + stored);
    chunks.push(file.readUInt32LE(at) === 0 ? Buffer.from(bytes) : inflateRawSync(bytes));
    at += 12 + stored;
  }
  return {
    version: file.readUInt32LE(10),
    header: Buffer.from(file.subarray(18, header)),
    chunks,
    trailer: Buffer.from(file.subarray(trailer, trailerEnd)),
  };
}

export function putTogether({ version, header, chunks, trailer }: Parts): Buffer {
  const stored = chunks.flatMap((bytes) => [words(0, bytes.length, bytes.length), bytes]);
  const begin = [Buffer.from("NESTBOX\r\n\x1a", "latin1"), words(version, header.length), header];
  const all = Buffer.concat([...begin, ...stored, trailer, words(trailer.length), MARK]);
  return Buffer.concat([all, createHash("sha256").update(all).digest()]);
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, 4 * i);
  return bytes;
}

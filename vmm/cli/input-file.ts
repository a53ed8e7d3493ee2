// Files that the user names: read whole, up to a limit (a device file or a pipe may never end), and what is wrong with one as a person
// says it.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { UsageError } from "./exit-codes.ts";

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied",
  EISDIR: "is a folder",
  ENOTDIR: "a part of the path is no folder",
};
const CHUNK = 1 << 20;

/** What a call of `node:fs` threw, without the path, which the caller names. */
export function fileProblem(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return WORDS[code ?? ""] ?? String(message);
}

/** All bytes of the file. `name` is what the UsageError of a file that cannot be read, or is longer than `limit`, begins with. */
export function readInput(file: string, limit: number, name: string = file): Buffer {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    const fd = openSync(file, "r");
    try {
      // one byte more than a regular file has: it comes in one piece, and its end with it
      let size = Math.max(CHUNK, Math.min(fstatSync(fd).size, limit) + 1);
      for (;;) {
        const chunk = Buffer.allocUnsafe(size);
        size = CHUNK;
        const got = readSync(fd, chunk);
        if (got === 0) break;
        chunks.push(chunk.subarray(0, got));
        length += got;
        if (length > limit) throw new UsageError(`${name}: longer than ${limit} bytes`);
      }
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${name}: ${fileProblem(error)}`);
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, length);
}

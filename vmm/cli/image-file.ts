// A file whose bytes go into a machine's RAM. Of a regular file only what somebody asks for is read before: the rest goes from the file straight into RAM,
// whenever the machine starts, for a second copy of a kernel costs a boot more than the kernel's own start does. Other files (a pipe) are read at once.

import { closeSync, fstatSync, openSync, readSync, type Stats, statSync } from "node:fs";
import type { BytesElsewhere } from "../platform/kernel-image.ts";
import { UsageError } from "./exit-codes.ts";
import { fileProblem, readInput } from "./input-file.ts";

export class ImageFile implements BytesElsewhere {
  readonly length: number;
  /** What a UsageError begins with. */
  readonly #name: string;
  readonly #file: { readonly fd: number; readonly about: Stats } | null;
  #bytes: Uint8Array | null = null;

  /** Throws UsageError for a file that cannot be read, or is longer than `limit`. */
  constructor(path: string, limit: number, name: string) {
    this.#name = name;
    this.#file = openRegular(path, name);
    this.length = this.#file?.about.size ?? (this.#bytes = readInput(path, limit, name)).length;
    if (this.length <= limit) return;
    this.close();
    throw new UsageError(`${name}: longer than ${limit} bytes`);
  }

  /** The first bytes, no more than there are. */
  head(length: number): Uint8Array {
    if (this.#bytes !== null) return this.#bytes.subarray(0, length);
    const head = new Uint8Array(Math.min(length, this.length));
    this.#read(head);
    return head;
  }

  /** All of it, in memory from now on. */
  get bytes(): Uint8Array {
    if (this.#bytes === null) {
      const bytes = Buffer.allocUnsafe(this.length);
      this.#read(bytes);
      this.#bytes = bytes;
    }
    return this.#bytes;
  }

  copyTo(target: Uint8Array): void {
    if (this.#bytes === null) this.#read(target);
    else target.set(this.#bytes);
  }

  close(): void {
    if (this.#file !== null) closeSync(this.#file.fd);
  }

  /** From its beginning. What was checked when it was opened must be what is read: a file that somebody writes to meanwhile is refused. */
  #read(target: Uint8Array): void {
    const { fd, about } = this.#file!;
    let done = 0;
    try {
      while (done < target.length) {
        const got = readSync(fd, target, done, target.length - done, done);
        if (got === 0) break;
        done += got;
      }
      const now = fstatSync(fd);
      if (done === target.length && now.size === about.size && now.mtimeMs === about.mtimeMs) return;
    } catch (error) {
      throw new UsageError(`${this.#name}: ${fileProblem(error)}`);
    }
    throw new UsageError(`${this.#name}: has changed since it was opened`);
  }
}

/** null: no regular file, or one that does not say how long it is (/proc). */
function openRegular(path: string, name: string): { readonly fd: number; readonly about: Stats } | null {
  try {
    // A pipe that is opened twice would end between.
    if (!statSync(path).isFile()) return null;
    const fd = openSync(path, "r");
    const about = fstatSync(fd);
    if (about.isFile() && about.size > 0) return { fd, about };
    closeSync(fd);
    return null;
  } catch (error) {
    throw new UsageError(`${name}: ${fileProblem(error)}`);
  }
}

// A block store in a host file: what stands behind an NVMe namespace. Writes go to the file at once, `flush` is fsync, a lock file
// keeps a second opener out. What goes wrong with the file (truncated, unwritable, a full disk) is a failed status for the
// device, which makes it a media error for the guest, and one message a kind for the user.

import { closeSync, fstatSync, fsyncSync, openSync, readSync, realpathSync, writeSync } from "node:fs";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import { BLOCK_FAILED, BLOCK_OK, type BlockStatus, type BlockStore } from "../devices/nvme/block-store.ts";
import { errorCode, FileLock } from "./file-lock.ts";

/** The file cannot be opened; the message is one line that names it and says what to do. */
export class BlockFileError extends Error {}

export interface BlockFileOptions {
  readonly path: string;
  /** 512 (default) or 4096. */
  readonly blockBytes?: 512 | 4096;
  /** Gets a line for the user, once for each kind of problem. */
  readonly onProblem: (message: string) => void;
}

/** Zeroes are written in pieces of this size. */
const ZEROES = new Uint8Array(1 << 20);

export class BlockFile implements BlockStore, Stateful, Disposable {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly path: string;
  readonly #fd: number;
  readonly #lock: FileLock | null;
  readonly #onProblem: (message: string) => void;
  readonly #reported = new Set<string>();
  readonly #readOnly: boolean;
  #closed = false;

  /** Opens and locks a file. Throws BlockFileError if that cannot be. */
  constructor({ path, blockBytes = 512, onProblem }: BlockFileOptions) {
    this.path = path;
    this.blockBytes = blockBytes;
    this.#onProblem = onProblem;
    const { fd, readOnly } = open(path);
    this.#fd = fd;
    this.#readOnly = readOnly;
    const size = checkSize(path, fd, blockBytes);
    this.blocks = Math.floor(size / blockBytes);
    this.#lock = this.#acquireLock();
    if (readOnly)
      this.#report("read-only", "cannot be written: every write of the guest's will fail with a media error");
  }

  #acquireLock(): FileLock | null {
    const file = realpathSync(this.path);
    const result = FileLock.acquire(file);
    if ("lock" in result) return result.lock;
    // A file that nobody can write here, in a directory that nobody can write, needs no lock.
    if ("error" in result && this.#readOnly) return null;
    closeSync(this.#fd);
    throw new BlockFileError(
      "owner" in result
        ? `${this.path}: in use by ${result.owner}; stop that one first (or remove ${file}.lock if it is wrong)`
        : `${this.path}: cannot create the lock file ${file}.lock (${result.error}); make its directory writable`,
    );
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Closes and unlocks the file; every operation fails from now on. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
    this.#lock?.[Symbol.dispose]();
  }

  read(first: number, count: number, into: Uint8Array, at: number): BlockStatus {
    return this.#attempt("read", () => {
      let position = first * this.blockBytes;
      let done = 0;
      for (const length = count * this.blockBytes; done < length; ) {
        const got = readSync(this.#fd, into, at + done, length - done, position);
        if (got === 0) return "is shorter than it was when it was opened";
        done += got;
        position += got;
      }
      return null;
    });
  }

  write(first: number, count: number, from: Uint8Array, at: number): BlockStatus {
    return this.#attempt("write", () => this.#write(first * this.blockBytes, from, at, count * this.blockBytes));
  }

  #write(start: number, from: Uint8Array, at: number, length: number): string | null {
    if (this.#readOnly) return "cannot be written";
    // Writing past the end would make the file longer again, with a hole where data was lost.
    if (fstatSync(this.#fd).size < start + length) return "is shorter than it was when it was opened";
    for (let done = 0; done < length; ) done += writeSync(this.#fd, from, at + done, length - done, start + done);
    return null;
  }

  flush(): BlockStatus {
    if (this.#readOnly) return BLOCK_OK;
    return this.#attempt("flush", () => {
      fsyncSync(this.#fd);
      return null;
    });
  }

  zero(first: number, count: number): BlockStatus {
    return this.#attempt("write", () => {
      const start = first * this.blockBytes;
      const end = start + count * this.blockBytes;
      for (let position = start; position < end; position += ZEROES.length) {
        const problem = this.#write(position, ZEROES, 0, Math.min(ZEROES.length, end - position));
        if (problem !== null) return problem;
      }
      return null;
    });
  }

  /** Nothing: the content may stay as it is. */
  discard(): BlockStatus {
    return BLOCK_OK;
  }

  /** Runs one operation on the file; what it returns or throws is the problem. */
  #attempt(operation: string, work: () => string | null): BlockStatus {
    let problem: string | null;
    try {
      problem = this.#closed ? "was closed" : work();
    } catch (error) {
      problem = `${operation} failed (${errorCode(error)})`;
    }
    if (problem === null) return BLOCK_OK;
    this.#report(`${operation} ${problem}`, `${problem}; the guest's ${operation} ended with a media error`);
    return BLOCK_FAILED;
  }

  #report(kind: string, problem: string): void {
    if (this.#reported.has(kind)) return;
    this.#reported.add(kind);
    this.#onProblem(`${this.path}: ${problem}`);
  }

  /** The content is the file's own, which is named: whoever keeps the document keeps the file. */
  saveState(): StateRecord {
    return { path: this.path, blocks: this.blocks, blockBytes: this.blockBytes };
  }

  restoreState(state: StateReader): void {
    const path = state.text("path");
    if (path !== this.path) state.fail("path", `is ${path}: give that file instead of ${this.path}`);
    for (const size of ["blocks", "blockBytes"] as const) {
      if (state.number(size) !== this[size])
        state.fail(size, `are ${state.number(size)}, but ${path} has ${this[size]}`);
    }
  }
}

function open(path: string): { readonly fd: number; readonly readOnly: boolean } {
  try {
    return { fd: openSync(path, "r+"), readOnly: false };
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT")
      throw new BlockFileError(`${path}: no such file; make one, for example: truncate -s 64M ${path}`);
    if (code !== "EACCES" && code !== "EROFS" && code !== "EPERM")
      throw new BlockFileError(`${path}: cannot open (${code})`);
  }
  try {
    return { fd: openSync(path, "r"), readOnly: true };
  } catch (error) {
    throw new BlockFileError(`${path}: cannot open (${errorCode(error)})`);
  }
}

function checkSize(path: string, fd: number, blockBytes: number): number {
  const stat = fstatSync(fd);
  const problem = !stat.isFile()
    ? "is not a regular file"
    : stat.size < blockBytes
      ? `holds no block of ${blockBytes} bytes; make it larger, for example: truncate -s 64M ${path}`
      : null;
  if (problem === null) return stat.size;
  closeSync(fd);
  throw new BlockFileError(`${path}: ${problem}`);
}

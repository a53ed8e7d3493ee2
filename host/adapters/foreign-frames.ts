// Page identities of foreign processes. Their physical addresses are nobody's business, and not needed: a page is known by what it
// is - page n of a file (shared mappings, memfds), or the private page at an address of one process. Each file and each process that
// lends private pages gets a span of frame numbers, so that consecutive pages are consecutive frames, and pin counts, contiguity and
// identity checks work as with physical memory.

import fs from "node:fs";
import type { FrameMemory } from "../kernel/file.ts";
import { PinnedFrames } from "../kernel/pinned-frames.ts";
import { EFAULT } from "../uapi/errno.ts";

/** Spans of frames: one a file from here on, */
const FILE_BASE = 2 ** 34;
const FILE_SPAN = 2 ** 30;
/** and one a process's private pages (2^36 pages hold every user address). */
const PRIVATE_BASE = 2 ** 50;
const PRIVATE_SPAN = 2 ** 36;

/** Device and inode number of a file, as /proc/PID/maps and stat show them. */
export type FileIdentity = string;

export interface PrivateMemory {
  readonly alive: boolean;
  readAt(address: number, into: Uint8Array): boolean;
  writeAt(address: number, from: Uint8Array): boolean;
  /** Where this process maps a page of a shared file now, or null. */
  addressOf(file: FileIdentity, page: number): number | null;
}

export class ForeignFrames implements FrameMemory {
  readonly pins = new PinnedFrames();
  readonly #fileSpans = new Map<FileIdentity, number>();
  readonly #files: FileIdentity[] = [];
  /** Descriptors of files that are referred to, through which their pages can be reached. */
  readonly openFiles = new Map<FileIdentity, number>();
  readonly #processes: (PrivateMemory | null)[] = [];
  readonly #spans = new Map<PrivateMemory, number>();
  readonly memories = new Set<PrivateMemory>();
  /** Number of the request being handled: what was learned of a process's mappings is good for that long. */
  request = 0;

  /** Frame of page 0 of a file. */
  fileBase(file: FileIdentity): number {
    let base = this.#fileSpans.get(file);
    if (base === undefined) {
      base = FILE_BASE + this.#files.length * FILE_SPAN;
      this.#files.push(file);
      this.#fileSpans.set(file, base);
    }
    return base;
  }

  /** Frame of the private page at address 0 of a process. */
  privateBase(memory: PrivateMemory): number {
    let index = this.#spans.get(memory);
    if (index === undefined) {
      // Numbers of processes that are gone come back once nothing at all is pinned.
      const free = this.pins.total === 0 ? this.#processes.findIndex((owner) => owner === null || !owner.alive) : -1;
      index = free >= 0 ? free : this.#processes.length;
      const previous = this.#processes[index];
      if (previous != null) this.#spans.delete(previous);
      this.#processes[index] = memory;
      this.#spans.set(memory, index);
    }
    return PRIVATE_BASE + index * PRIVATE_SPAN;
  }

  read(frame: number, offset: number, into: Uint8Array): number {
    return this.#copy(frame, offset, into, false);
  }

  write(frame: number, offset: number, from: Uint8Array): number {
    return this.#copy(frame, offset, from, true);
  }

  #copy(frame: number, offset: number, bytes: Uint8Array, write: boolean): number {
    if (frame >= PRIVATE_BASE) {
      const index = Math.floor((frame - PRIVATE_BASE) / PRIVATE_SPAN);
      const owner = this.#processes[index];
      const page = (frame - PRIVATE_BASE) % PRIVATE_SPAN;
      return owner?.alive && copyAt(owner, page * 4096 + offset, bytes, write) ? 0 : -EFAULT;
    }
    const file = this.#files[Math.floor((frame - FILE_BASE) / FILE_SPAN)];
    if (file === undefined) return -EFAULT;
    const page = (frame - FILE_BASE) % FILE_SPAN;
    const descriptor = this.openFiles.get(file);
    if (descriptor !== undefined) return copyFile(descriptor, page * 4096 + offset, bytes, write) ? 0 : -EFAULT;
    // A pinned page of shared memory outlives its process: any other that maps it will do.
    for (const memory of this.memories) {
      const address = memory.alive ? memory.addressOf(file, page) : null;
      if (address !== null && copyAt(memory, address + offset, bytes, write)) return 0;
    }
    return -EFAULT;
  }
}

function copyAt(memory: PrivateMemory, address: number, bytes: Uint8Array, write: boolean): boolean {
  return write ? memory.writeAt(address, bytes) : memory.readAt(address, bytes);
}

function copyFile(descriptor: number, position: number, bytes: Uint8Array, write: boolean): boolean {
  try {
    const moved = write
      ? fs.writeSync(descriptor, bytes, 0, bytes.length, position)
      : fs.readSync(descriptor, bytes, 0, bytes.length, position);
    return moved === bytes.length;
  } catch {
    return false;
  }
}

// Page identities of foreign processes, where nothing reads physical addresses. Each file and each process that lends private pages gets a span of frame numbers, so that consecutive pages are consecutive frames, and pin counts, contiguity and
// identity checks work as with physical memory.

import type { FrameRun } from "../kernel/file.ts";
import { PinnedFrames } from "../kernel/pinned-frames.ts";
import { EFAULT } from "../uapi/errno.ts";
import { copyShared, type ForeignPages, OpenForeignFiles, type PrivateMemory } from "./foreign-pages.ts";
import type { FileIdentity } from "./outside.ts";

/** Spans of frames: one a file from here on, */
const FILE_BASE = 2 ** 34;
const FILE_SPAN = 2 ** 30;
/** and one a process's private pages (2^36 pages hold every user address). */
const PRIVATE_BASE = 2 ** 50;
const PRIVATE_SPAN = 2 ** 36;

export class ForeignFrames implements ForeignPages {
  readonly pins = new PinnedFrames();
  readonly #fileSpans = new Map<FileIdentity, number>();
  readonly #files: FileIdentity[] = [];
  readonly openFiles = new OpenForeignFiles();
  readonly #processes: (PrivateMemory | null)[] = [];
  readonly #spans = new Map<PrivateMemory, number>();
  readonly memories = new Set<PrivateMemory>();
  request = 0;

  fileRuns(file: FileIdentity, first: number, count: number): FrameRun[] {
    return [{ frame: this.#fileBase(file) + first, count }];
  }

  privateRuns(memory: PrivateMemory, first: number, count: number): FrameRun[] {
    return [{ frame: this.#privateBase(memory) + first, count }];
  }

  ended(memory: PrivateMemory): void {
    this.memories.delete(memory);
  }

  /** Frame of page 0 of a file. */
  #fileBase(file: FileIdentity): number {
    let base = this.#fileSpans.get(file);
    if (base === undefined) {
      base = FILE_BASE + this.#files.length * FILE_SPAN;
      this.#files.push(file);
      this.#fileSpans.set(file, base);
    }
    return base;
  }

  /** Frame of the private page at address 0 of a process. */
  #privateBase(memory: PrivateMemory): number {
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
    return copyShared(this, file, page * 4096 + offset, bytes, write) ? 0 : -EFAULT;
  }
}

function copyAt(memory: PrivateMemory, address: number, bytes: Uint8Array, write: boolean): boolean {
  return write ? memory.writeAt(address, bytes) : memory.readAt(address, bytes);
}

// A file that is memory (Linux: memfd): pages of host RAM with a descriptor, which IOAS_MAP_FILE pins by offset and which every process
// that has the descriptor can map or copy. Its pages live as long as the file, pinned ones until they are unpinned.

import { type HpaPfn, PAGE_SIZE } from "../base/address.ts";
import { EFAULT, EINVAL, ESPIPE } from "../uapi/errno.ts";
import { MAP_SHARED } from "../uapi/system-calls.ts";
import {
  type CallContext,
  type FileMapping,
  type FrameRun,
  type MmapRequest,
  OpenFile,
  type PageFile,
} from "./file.ts";
import type { HostFrames } from "./host-frames.ts";

export class MemoryFile extends OpenFile implements PageFile {
  readonly path = "/memfd: (deleted)";
  override readonly pages: PageFile = this;
  readonly pageBytes = PAGE_SIZE;
  readonly #frames: HostFrames;
  readonly #first: HpaPfn;
  readonly #count: number;
  readonly #released: () => void;

  private constructor(frames: HostFrames, first: HpaPfn, count: number, released: () => void) {
    super();
    this.#frames = frames;
    this.#first = first;
    this.#count = count;
    this.#released = released;
  }

  /** A zeroed file of `length` bytes, rounded up to pages; -EINVAL or -ENOMEM. `released` runs when it has gone. */
  static create(frames: HostFrames, length: number, released: () => void): MemoryFile | number {
    const count = Math.ceil(length / PAGE_SIZE);
    if (!(count > 0)) return -EINVAL;
    const first = frames.allocate(count);
    return first < 0 ? first : new MemoryFile(frames, first as HpaPfn, count, released);
  }

  get #bytes(): Uint8Array {
    return this.#frames.view(this.#first, this.#count);
  }

  pin(first: number, pages: number): FrameRun[] | number {
    if (first + pages > this.#count) return -EINVAL;
    const run = { frame: this.#first + first, count: pages };
    this.#frames.pins.pin(run);
    return [run];
  }

  /** pread and pwrite only: the file keeps no position. */
  override read(call: CallContext, va: bigint, length: number, position: bigint): number {
    if (position < 0n) return -ESPIPE;
    const bytes = this.#bytes;
    const from = Number(position < BigInt(bytes.length) ? position : BigInt(bytes.length));
    const piece = bytes.subarray(from, Math.min(from + length, bytes.length));
    return call.memory.write(va, piece) < 0 ? -EFAULT : piece.length;
  }

  override write(call: CallContext, va: bigint, length: number, position: bigint): number {
    if (position < 0n) return -ESPIPE;
    const bytes = this.#bytes;
    if (position >= BigInt(bytes.length)) return -EINVAL;
    const from = Number(position);
    const piece = bytes.subarray(from, Math.min(from + length, bytes.length));
    return call.memory.read(va, piece) < 0 ? -EFAULT : piece.length;
  }

  override mmap(_call: CallContext, request: MmapRequest): FileMapping | number {
    const bytes = this.#bytes;
    const { offset, length } = request;
    if ((request.flags & MAP_SHARED) === 0 || offset % BigInt(PAGE_SIZE) !== 0n) return -EINVAL;
    if (offset + length > BigInt(bytes.length)) return -EINVAL;
    this.get();
    return { memory: bytes.subarray(Number(offset), Number(offset + length)), close: () => this.put() };
  }

  protected override release(): void {
    this.#frames.release(this.#first, this.#count);
    this.#released();
  }
}

// A simulated process's memory (Linux: mm_struct and its VMAs): user addresses over host frames, seen from inside (UserMemory) and
// from the kernel (AddressSpace).
//
//     allocate(n)            frames of host RAM, zeroed
//     mapBuffer(window)      a buffer the process already has, lent to the host as a bank of its own
//     mapKernelMemory(file)  what mmap of a kernel file gives: bytes of the kernel's, no frames, so it cannot be pinned
//
// Addresses are below 2^47, as on a real 64-bit system, so that inside they are plain numbers. Between mappings lies at least one
// unmapped page.

import { type HpaPfn, PAGE_SIZE } from "../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import { EFAULT, EINVAL, ENOMEM } from "../uapi/errno.ts";
import type { UserMemory } from "../uapi/system-calls.ts";
import type { AddressSpace, FrameRun, UserAddress, UserBytes } from "./file.ts";
import type { HostFrames } from "./host-frames.ts";
import { requireSame, textsOf } from "./same-objects.ts";

const FIRST_VA = 0x7f00_0000_0000;
const VA_END = 2 ** 47;
const MEGAPAGE_BYTES = 512 * PAGE_SIZE;

/** What stands behind a mapping and all the pieces it was cut into. */
interface Backing {
  /** -1: kernel memory without frames. */
  readonly frame: number;
  readonly writable: boolean;
  pieces: number;
  readonly release: () => void;
}

interface Mapping {
  readonly va: number;
  readonly end: number;
  readonly bytes: Uint8Array;
  /** The same as whole doublewords; none where it is not aligned to them. */
  readonly doublewords: BigUint64Array;
  /** Byte offset of this piece within its backing. */
  readonly offset: number;
  readonly backing: Backing;
}

const NOWHERE: Mapping = {
  va: 0,
  end: 0,
  bytes: new Uint8Array(0),
  doublewords: new BigUint64Array(0),
  offset: 0,
  backing: { frame: -1, writable: false, pieces: 1, release: () => {} },
};

export class ProcessMemory implements AddressSpace, UserMemory, Stateful {
  readonly #frames: HostFrames;
  /** Ascending, disjoint. */
  #mappings: Mapping[] = [];
  /** The two that were found last. */
  #recent: Mapping = NOWHERE; // not state: found again
  #other: Mapping = NOWHERE; // not state: found again
  #next = FIRST_VA;
  #alive = true;
  lockedPages = 0;
  pinnedPages = 0;

  constructor(frames: HostFrames) {
    this.#frames = frames;
  }

  get alive(): boolean {
    return this.#alive;
  }

  get mappings(): number {
    return this.#mappings.length;
  }

  // --- seen from inside ---

  allocate(length: number): bigint {
    const pages = Math.ceil(length / PAGE_SIZE);
    if (!this.#alive || !(pages > 0)) return BigInt(-ENOMEM);
    const frame = this.#frames.allocate(pages);
    if (frame < 0) return BigInt(frame);
    const bytes = this.#frames.view(frame as HpaPfn, pages);
    return this.#add(bytes, frame, true, () => this.#frames.release(frame as HpaPfn, pages));
  }

  mapBuffer(buffer: ArrayBufferLike, offset: number, length: number): bigint {
    if (!this.#alive) return BigInt(-ENOMEM);
    const frame = this.#frames.lend(buffer, offset, length);
    if (frame < 0) return BigInt(frame);
    const bytes = new Uint8Array(buffer, offset, length);
    return this.#add(bytes, frame, true, () => this.#frames.takeBack(frame as HpaPfn, length / PAGE_SIZE));
  }

  /** Maps memory of a kernel object; `close` runs when the last piece is unmapped. */
  mapKernelMemory(bytes: Uint8Array, writable: boolean, close: () => void): bigint {
    return this.#add(bytes, -1, writable, close);
  }

  free(va: bigint, length: number): void {
    this.unmap(va, length);
  }

  bytes(va: bigint, length: number): Uint8Array {
    const mapping = this.#find(Number(va));
    const from = mapping === null ? 0 : Number(va) - mapping.va;
    if (mapping === null || from + length > mapping.bytes.length) {
      throw new RangeError(`segmentation fault: [0x${va.toString(16)}, +${length}) is not one mapping`);
    }
    return mapping.bytes.subarray(from, from + length);
  }

  /** munmap: 0, or -EINVAL for a misaligned range. A range may cover several mappings, parts of them, or nothing. */
  unmap(va: bigint, length: number): number {
    if (va % BigInt(PAGE_SIZE) !== 0n || va < 0n || va >= BigInt(VA_END) || !(length > 0)) return -EINVAL;
    const start = Number(va);
    const end = start + Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
    const gone: Mapping[] = [];
    const kept: Mapping[] = [];
    for (const mapping of this.#mappings) {
      const last = mapping.va + mapping.bytes.length;
      if (last <= start || mapping.va >= end) {
        kept.push(mapping);
        continue;
      }
      gone.push(mapping);
      if (mapping.va < start) kept.push(piece(mapping, 0, start - mapping.va));
      if (last > end) kept.push(piece(mapping, end - mapping.va, last - end));
    }
    this.#mappings = kept;
    this.#recent = this.#other = NOWHERE;
    for (const mapping of gone) this.#drop(mapping.backing);
    return 0;
  }

  /** The process ends: nothing is mapped any more; pinned frames stay until they are unpinned. */
  exit(): void {
    this.#alive = false;
    const mappings = this.#mappings;
    this.#mappings = [];
    this.#recent = this.#other = NOWHERE;
    for (const mapping of mappings) this.#drop(mapping.backing);
  }

  // --- seen from the kernel ---

  read(va: UserAddress, into: UserBytes, length = into.byteLength): number {
    if (into instanceof BigUint64Array) {
      const mapping = this.#wholeDoublewords(va, length);
      // Not whole doublewords of one mapping: as bytes.
      if (mapping === null) return this.read(va, bytesOf(into), length);
      copyDoublewords(mapping.doublewords, ((va as number) - mapping.va) / 8, into, 0, length >>> 3);
      return 0;
    }
    let at = this.#start(va, length);
    if (at < 0) return length === 0 ? 0 : -EFAULT;
    for (let done = 0; done < length; ) {
      const mapping = this.#find(at);
      if (mapping === null) return -EFAULT;
      const from = at - mapping.va;
      const count = Math.min(length - done, mapping.bytes.length - from);
      copy(mapping.bytes, from, into, done, count);
      done += count;
      at += count;
    }
    return 0;
  }

  write(va: UserAddress, from: UserBytes, length = from.byteLength): number {
    if (from instanceof BigUint64Array) {
      const mapping = this.#wholeDoublewords(va, length);
      if (mapping === null) return this.write(va, bytesOf(from), length);
      if (!mapping.backing.writable) return -EFAULT;
      copyDoublewords(from, 0, mapping.doublewords, ((va as number) - mapping.va) / 8, length >>> 3);
      return 0;
    }
    let at = this.#start(va, length);
    if (at < 0) return length === 0 ? 0 : -EFAULT;
    for (let done = 0; done < length; ) {
      const mapping = this.#find(at);
      if (mapping === null || !mapping.backing.writable) return -EFAULT;
      const to = at - mapping.va;
      const count = Math.min(length - done, mapping.bytes.length - to);
      copy(from, done, mapping.bytes, to, count);
      done += count;
      at += count;
    }
    return 0;
  }

  pin(va: bigint, pages: number, writable: boolean): FrameRun[] | number {
    if (!this.#alive || va % BigInt(PAGE_SIZE) !== 0n || va < 0n || va >= BigInt(VA_END)) return -EFAULT;
    const runs: FrameRun[] = [];
    let at = Number(va);
    let left = pages;
    while (left > 0) {
      const mapping = this.#find(at);
      if (mapping === null || mapping.backing.frame < 0 || (writable && !mapping.backing.writable)) return -EFAULT;
      const skipped = (at - mapping.va) / PAGE_SIZE;
      const count = Math.min(left, mapping.bytes.length / PAGE_SIZE - skipped);
      const frame = mapping.backing.frame + mapping.offset / PAGE_SIZE + skipped;
      const last = runs[runs.length - 1];
      if (last !== undefined && last.frame + last.count === frame) {
        runs[runs.length - 1] = { frame: last.frame, count: last.count + count };
      } else {
        runs.push({ frame, count });
      }
      at += count * PAGE_SIZE;
      left -= count;
    }
    for (const run of runs) this.#frames.pins.pin(run);
    return runs;
  }

  // --- mappings ---

  #add(bytes: Uint8Array, frame: number, writable: boolean, release: () => void): bigint {
    const alignment = bytes.length >= MEGAPAGE_BYTES ? MEGAPAGE_BYTES : PAGE_SIZE;
    const va = Math.ceil(this.#next / alignment) * alignment;
    if (va + bytes.length > VA_END) {
      release();
      return BigInt(-ENOMEM);
    }
    this.#next = va + Math.ceil(bytes.length / PAGE_SIZE) * PAGE_SIZE + PAGE_SIZE;
    // Addresses only grow: the list stays sorted.
    const backing = { frame, writable, pieces: 1, release };
    this.#mappings.push({ va, end: va + bytes.length, bytes, doublewords: doublewordsOf(bytes), offset: 0, backing });
    return BigInt(va);
  }

  #drop(backing: Backing): void {
    if (--backing.pieces === 0) backing.release();
  }

  #find(va: number): Mapping | null {
    // A call's structure and the data it points to: two mappings in turn.
    const recent = this.#recent;
    if (va >= recent.va && va < recent.end) return recent;
    const other = this.#other;
    if (va >= other.va && va < other.end) return other;
    const found = this.#search(va);
    if (found !== null) {
      this.#other = recent;
      this.#recent = found;
    }
    return found;
  }

  #search(va: number): Mapping | null {
    let low = 0;
    let high = this.#mappings.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const mapping = this.#mappings[middle]!;
      if (va < mapping.va) high = middle - 1;
      else if (va >= mapping.end) low = middle + 1;
      else return mapping;
    }
    return null;
  }

  /** The mapping that holds a range, if that is whole doublewords of one mapping and its address a number; else null. */
  #wholeDoublewords(va: UserAddress, length: number): Mapping | null {
    if (typeof va !== "number" || ((va | length) & 7) !== 0) return null;
    // A process that is gone has none.
    const mapping = this.#find(va);
    return mapping !== null && (va - mapping.va) / 8 + (length >>> 3) <= mapping.doublewords.length ? mapping : null;
  }

  /** The address as a number, or -1 where the range is not the process's to use at all. */
  #start(va: UserAddress, length: number): number {
    const at = typeof va === "number" ? va : va < 0n || va > BigInt(VA_END) ? -1 : Number(va);
    return this.#alive && at >= 0 && at + length <= VA_END ? at : -1;
  }

  /** Bytes are in the host's memory. Mappings must be the same. */
  saveState(): StateRecord {
    return {
      mappings: this.#mappings.map(nameOf),
      next: this.#next,
      alive: this.#alive,
      lockedPages: this.lockedPages,
      pinnedPages: this.pinnedPages,
    };
  }

  restoreState(state: StateReader): void {
    requireSame(state, this.#mappings.map(nameOf), textsOf(state, "mappings"));
    this.#next = state.number("next");
    this.#alive = state.boolean("alive");
    this.lockedPages = state.number("lockedPages");
    this.pinnedPages = state.number("pinnedPages");
  }
}

function doublewordsOf(bytes: Uint8Array): BigUint64Array {
  const whole = bytes.byteOffset % 8 === 0 ? bytes.length >>> 3 : 0;
  return new BigUint64Array(bytes.buffer, whole === 0 ? 0 : bytes.byteOffset, whole);
}

function bytesOf(doublewords: BigUint64Array): Uint8Array {
  return new Uint8Array(doublewords.buffer, doublewords.byteOffset, doublewords.byteLength);
}

function copyDoublewords(from: BigUint64Array, start: number, to: BigUint64Array, at: number, count: number): void {
  if (count > 64) to.set(from.subarray(start, start + count), at);
  else for (let i = 0; i < count; i++) to[at + i] = from[start + i]!;
}

/** A run of a few bytes is copied one by one: that needs no view. */
function copy(from: Uint8Array, start: number, to: Uint8Array, at: number, count: number): void {
  if (count > 64) to.set(from.subarray(start, start + count), at);
  else for (let i = 0; i < count; i++) to[at + i] = from[start + i]!;
}

function piece(mapping: Mapping, from: number, length: number): Mapping {
  mapping.backing.pieces++;
  const bytes = mapping.bytes.subarray(from, from + length);
  return {
    va: mapping.va + from,
    end: mapping.va + from + length,
    bytes,
    doublewords: doublewordsOf(bytes),
    offset: mapping.offset + from,
    backing: mapping.backing,
  };
}

function nameOf({ va, bytes, offset, backing }: Mapping): string {
  const what = backing.frame < 0 ? "the kernel's" : `frame 0x${(backing.frame + offset / PAGE_SIZE).toString(16)}`;
  return `mapping of ${bytes.length} bytes of ${what} at 0x${va.toString(16)}`;
}

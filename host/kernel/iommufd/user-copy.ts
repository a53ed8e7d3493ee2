// Copying structures between user space and the kernel: the one place for Linux's extensible-structure rules.
//
//     copy_struct_from_user    the caller's structure may be shorter than ours (missing fields are 0) or longer (what we do not know
//                              must be 0, else E2BIG)
//     driver data              type and length belong to a driver: it may be shorter down to the structure's first version, never longer
//     arrays                   of fixed-size entries, one copied at a time as the consumer comes to it

import { E2BIG, EFAULT, EINVAL } from "../../uapi/errno.ts";
import type { AddressSpace } from "../file.ts";
import type { InvalidationBatch, UserData } from "../iommu/driver.ts";

/** Bytes checked or fetched at a time where user space names the length. */
const CHUNK = 65536;
const U64 = 1n << 64n;

/** Reads `length` bytes: 0 or -EFAULT, also for a range that wraps. */
export function readUser(memory: AddressSpace, va: bigint, into: Uint8Array): number {
  if (into.length === 0) return 0;
  if (va + BigInt(into.length) > U64) return -EFAULT;
  return memory.read(va, into);
}

export function writeUser(memory: AddressSpace, va: bigint, from: Uint8Array): number {
  if (from.length === 0) return 0;
  if (va + BigInt(from.length) > U64) return -EFAULT;
  return memory.write(va, from);
}

/** Fills `into` (all of it is the kernel's structure) from a user structure of `userSize` bytes. 0, -E2BIG or -EFAULT. */
export function copyStruct(memory: AddressSpace, va: bigint, userSize: number, into: Uint8Array): number {
  if (userSize > into.length) {
    const tail = checkZero(memory, va + BigInt(into.length), userSize - into.length);
    if (tail < 0) return tail;
  }
  if (userSize >= into.length) return readUser(memory, va, into);
  into.fill(0, userSize);
  return readUser(memory, va, into.subarray(0, userSize));
}

function checkZero(memory: AddressSpace, va: bigint, length: number): number {
  const chunk = new Uint8Array(Math.min(length, CHUNK));
  for (let done = 0; done < length; done += CHUNK) {
    const part = chunk.subarray(0, Math.min(CHUNK, length - done));
    const result = readUser(memory, va + BigInt(done), part);
    if (result < 0) return result;
    if (part.some((byte) => byte !== 0)) return -E2BIG;
  }
  return 0;
}

/** User data for a driver, copied when the driver asks: it refuses a type it does not know before anything is read. */
export class UserDataAt implements UserData {
  readonly type: number;
  readonly length: number;
  readonly va: bigint;
  readonly #memory: AddressSpace;

  constructor(memory: AddressSpace, type: number, va: bigint, length: number) {
    this.type = type;
    this.va = va;
    this.length = length;
    this.#memory = memory;
  }

  get bytes(): Uint8Array {
    const bytes = new Uint8Array(Math.min(this.length, 4096));
    return readUser(this.#memory, this.va, bytes) < 0 ? new Uint8Array(0) : bytes;
  }

  copy(minimum: number, size: number): Uint8Array | number {
    if (this.length < minimum || this.length > size) return -EINVAL;
    const bytes = new Uint8Array(size);
    const result = copyStruct(this.#memory, this.va, this.length, bytes);
    return result < 0 ? result : bytes;
  }
}

/** The entries of an HWPT_INVALIDATE. */
export class UserBatch implements InvalidationBatch {
  readonly type: number;
  readonly entryLength: number;
  readonly count: number;
  done = 0;
  readonly #va: bigint;
  readonly #memory: AddressSpace;
  #window = new Uint8Array(0);
  #windowFirst = 0;
  #windowCount = 0;

  constructor(memory: AddressSpace, type: number, va: bigint, entryLength: number, count: number) {
    this.#memory = memory;
    this.type = type;
    this.#va = va;
    this.entryLength = entryLength;
    this.count = count;
  }

  fetch(index: number, length: number): Uint8Array | number {
    if (index < this.#windowFirst || index >= this.#windowFirst + this.#windowCount) {
      const loaded = this.#load(index);
      if (loaded < 0) return loaded;
    }
    const at = (index - this.#windowFirst) * this.entryLength;
    if (this.entryLength === length) return this.#window.subarray(at, at + length);
    if (this.entryLength > length) {
      if (this.#window.subarray(at + length, at + this.entryLength).some((byte) => byte !== 0)) return -E2BIG;
      return this.#window.subarray(at, at + length);
    }
    const padded = new Uint8Array(length);
    padded.set(this.#window.subarray(at, at + this.entryLength));
    return padded;
  }

  /** Reads a run of entries at once; when not all of them can be read, just the one asked for. */
  #load(index: number): number {
    const many = Math.max(1, Math.min(this.count - index, Math.floor(CHUNK / this.entryLength)));
    for (const count of [many, 1]) {
      const bytes = new Uint8Array(count * this.entryLength);
      if (readUser(this.#memory, this.#va + BigInt(index * this.entryLength), bytes) === 0) {
        this.#window = bytes;
        this.#windowFirst = index;
        this.#windowCount = count;
        return 0;
      }
    }
    return -EFAULT;
  }
}

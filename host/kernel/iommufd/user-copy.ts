// Copying structures between user space and the kernel: the one place for Linux's extensible-structure rules.
//
//     copy_struct_from_user    the caller's structure may be shorter than ours (missing fields are 0) or longer (what we do not know
//                              must be 0, else E2BIG)
//     driver data              type and length belong to a driver: it may be shorter down to the structure's first version, never longer
//     arrays                   of fixed-size entries, one copied at a time as the consumer comes to it

import { E2BIG, EFAULT, EINVAL } from "../../uapi/errno.ts";
import type { AddressSpace, UserAddress, UserBytes } from "../file.ts";
import type { InvalidationBatch, UserData } from "../iommu/driver.ts";

/** Bytes checked or fetched at a time where user space names the length. */
const CHUNK = 65536;
const U64 = 1n << 64n;
/** The longest entry of an array that a request may name. */
export const MAX_ENTRY_LENGTH = 4096;

/** Reads into all of `into`, or its first `length` bytes: 0 or -EFAULT, also for a range that wraps. */
export function readUser(memory: AddressSpace, va: UserAddress, into: UserBytes, length = into.byteLength): number {
  if (length === 0) return 0;
  if (typeof va === "bigint" && va + BigInt(length) > U64) return -EFAULT;
  return memory.read(va, into, length);
}

export function writeUser(memory: AddressSpace, va: UserAddress, from: UserBytes, length = from.byteLength): number {
  if (length === 0) return 0;
  if (typeof va === "bigint" && va + BigInt(length) > U64) return -EFAULT;
  return memory.write(va, from, length);
}

/** The address `offset` bytes further on. */
export function userAddress(va: UserAddress, offset: number): UserAddress {
  return typeof va === "number" ? va + offset : va + BigInt(offset);
}

/** The 64-bit address in two words of a structure, from byte `at` on. */
export function addressAt(words: Uint32Array, at: number): UserAddress {
  const low = words[at >>> 2]!;
  const high = words[(at >>> 2) + 1]!;
  return high < 2 ** 21 ? high * 2 ** 32 + low : (BigInt(high) << 32n) | BigInt(low);
}

/** Fills `into` (all of it is the kernel's structure) from a user structure of `userSize` bytes. 0, -E2BIG or -EFAULT. */
export function copyStruct(memory: AddressSpace, va: UserAddress, userSize: number, into: Uint8Array): number {
  if (userSize > into.length) {
    const tail = checkZero(memory, BigInt(va) + BigInt(into.length), userSize - into.length);
    if (tail < 0) return tail;
  }
  if (userSize < into.length) into.fill(0, userSize);
  return readUser(memory, va, into, Math.min(userSize, into.length));
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

/** The entries of an HWPT_INVALIDATE. One object serves many calls, one after another: `begin` says what it stands for. */
// Not state: within one request.
export class UserBatch implements InvalidationBatch {
  type = 0;
  entryLength = 0;
  count = 0;
  done = 0;
  /** A run of entries as copied from user space, and behind them room for one that has to be completed with zeros. */
  readonly #bytes = new Uint8Array(CHUNK + MAX_ENTRY_LENGTH);
  readonly words = new Uint32Array(this.#bytes.buffer);
  #va: UserAddress = 0;
  #memory: AddressSpace | null = null;
  #windowFirst = 0;
  #windowCount = 0;

  /** `entryLength` is at most MAX_ENTRY_LENGTH. */
  begin(memory: AddressSpace | null, type: number, va: UserAddress, entryLength: number, count: number): void {
    this.#memory = memory;
    this.#va = va;
    this.type = type;
    this.entryLength = entryLength;
    this.count = count;
    this.done = 0;
    this.#windowCount = 0;
  }

  locate(index: number, length: number): number {
    const entryLength = this.entryLength;
    if (index < this.#windowFirst || index >= this.#windowFirst + this.#windowCount) {
      const loaded = this.#load(index);
      if (loaded < 0) return loaded;
    }
    const at = (index - this.#windowFirst) * entryLength;
    const bytes = this.#bytes;
    for (let i = at + length; i < at + entryLength; i++) if (bytes[i] !== 0) return -E2BIG;
    if (entryLength >= length && (at & 3) === 0) return at >>> 2;
    bytes.fill(0, CHUNK, CHUNK + length);
    bytes.copyWithin(CHUNK, at, at + Math.min(length, entryLength));
    return CHUNK >>> 2;
  }

  fetch(index: number, length: number): Uint8Array | number {
    const at = this.locate(index, length);
    return at < 0 ? at : this.#bytes.subarray(4 * at, 4 * at + length);
  }

  /** Reads a run of entries at once; when not all of them can be read, just the one asked for. */
  #load(index: number): number {
    const entryLength = this.entryLength;
    const va = userAddress(this.#va, index * entryLength);
    const many = Math.max(1, Math.min(this.count - index, Math.floor(CHUNK / entryLength)));
    let count = many;
    if (!this.#read(va, many * entryLength)) {
      if (many === 1 || !this.#read(va, entryLength)) return -EFAULT;
      count = 1;
    }
    this.#windowFirst = index;
    this.#windowCount = count;
    return 0;
  }

  #read(va: UserAddress, length: number): boolean {
    return readUser(this.#memory!, va, (length & 3) === 0 ? this.words : this.#bytes, length) === 0;
  }
}

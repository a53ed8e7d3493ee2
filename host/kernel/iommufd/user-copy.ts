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
  /** A call is using it. */
  busy = false;
  /** A run of entries as copied from user space, and then as they were asked for. */
  readonly #bytes = new Uint8Array(CHUNK);
  readonly #copied = new BigUint64Array(this.#bytes.buffer);
  readonly words = new Int32Array(this.#bytes.buffer);
  /** Where they begin: a number, or, where no double holds that, a bigint beside it. */
  #va = 0;
  #wideVa: bigint | null = null;
  #memory: AddressSpace | null = null;
  /** What `words` hold: so many entries from this one on, of so many bytes. */
  #first = 0;
  #loaded = 0;
  #length = 0;

  /** `entryLength` is at most MAX_ENTRY_LENGTH. */
  begin(memory: AddressSpace, type: number, va: UserAddress, entryLength: number, count: number): void {
    this.busy = true;
    this.#memory = memory;
    if (typeof va === "number") {
      this.#va = va;
      this.#wideVa = null;
    } else this.#wideVa = va;
    this.type = type;
    this.entryLength = entryLength;
    this.count = count;
    this.done = 0;
    this.#loaded = 0;
  }

  /** The call is over. */
  end(): void {
    this.busy = false;
    this.#memory = null;
  }

  load(index: number, length: number): number {
    if (this.#loaded > 0 && index === this.#first && length === this.#length) return this.#loaded;
    this.#loaded = 0;
    const copied = this.#copy(index, length);
    const loaded = copied < 0 || length === this.entryLength ? copied : this.#reshape(copied, length);
    if (loaded < 0) return loaded;
    this.#first = index;
    this.#length = length;
    this.#loaded = loaded;
    return loaded;
  }

  fetch(index: number, length: number): Uint8Array | number {
    const loaded = this.load(index, length);
    return loaded < 0 ? loaded : this.#bytes.slice(0, length);
  }

  /** Reads a run of entries at once; when not all of them can be read, just the first. How many, or -EFAULT. */
  #copy(index: number, length: number): number {
    const entryLength = this.entryLength;
    const va = userAddress(this.#wideVa ?? this.#va, index * entryLength);
    // As a rule all of it fits as it is.
    const bytes = (this.count - index) * entryLength;
    if (bytes <= CHUNK && length <= entryLength && this.#read(va, bytes)) return this.count - index;
    const room = Math.floor(CHUNK / Math.max(entryLength, length));
    const many = Math.min(this.count - index, room);
    if (this.#read(va, many * entryLength)) return many;
    return many > 1 && this.#read(va, entryLength) ? 1 : -EFAULT;
  }

  /** Entries of another length than what is asked for: what is missing is 0, what is too much has to be. How many are sound, or -E2BIG. */
  #reshape(copied: number, length: number): number {
    const entryLength = this.entryLength;
    const bytes = this.#bytes;
    if (entryLength < length) {
      for (let entry = copied - 1; entry >= 0; entry--) {
        bytes.copyWithin(entry * length, entry * entryLength, (entry + 1) * entryLength);
        bytes.fill(0, entry * length + entryLength, (entry + 1) * length);
      }
      return copied;
    }
    for (let entry = 0; entry < copied; entry++) {
      const at = entry * entryLength;
      for (let i = at + length; i < at + entryLength; i++) if (bytes[i] !== 0) return entry === 0 ? -E2BIG : entry;
      bytes.copyWithin(entry * length, at, at + length);
    }
    return copied;
  }

  #read(va: UserAddress, length: number): boolean {
    return readUser(this.#memory!, va, (length & 7) === 0 ? this.#copied : this.#bytes, length) === 0;
  }
}

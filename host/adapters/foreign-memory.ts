// The address space of a foreign process: copies, and which pages its mappings are, from the text of /proc/PID/maps.

import type { AddressSpace, FrameRun, UserAddress, UserBytes } from "../kernel/file.ts";
import { EFAULT } from "../uapi/errno.ts";
import type { ForeignPages, PrivateMemory } from "./foreign-pages.ts";
import type { FileIdentity, OutsideProcess } from "./outside.ts";

interface Mapping {
  readonly start: number;
  readonly end: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** Identity of a shared mapping's file; null for private pages. */
  readonly file: FileIdentity | null;
  readonly fileOffset: number;
  /** The main thread's stack. */
  readonly stack: boolean;
}

const PAGE = 4096;
/** No user address of a 64-bit process is above. */
const USER_LIMIT = 2 ** 47;
/** A reply carries this much of what was read. */
const MOST_TAKEN = 4096;
const NOTHING = new Uint8Array(0);

export class ForeignMemory implements AddressSpace, PrivateMemory {
  alive = true;
  lockedPages = 0;
  pinnedPages = 0;
  readonly #frames: ForeignPages;
  readonly #process: OutsideProcess;

  constructor(process: OutsideProcess, frames: ForeignPages) {
    this.#process = process;
    this.#frames = frames;
    frames.memories.add(this);
  }

  /** The process is gone. */
  close(): void {
    if (!this.alive) return;
    this.alive = false;
    this.#frames.ended(this);
  }

  // Where the caller's buffer for the data of a short read lies, and what was written there: it goes with the reply.
  #takenAt = -1;
  readonly #taken = new Uint8Array(MOST_TAKEN);
  #takenBytes = 0;

  /** What is written at an address from now on, up to `length` bytes, is kept instead (`taken`); -1n: no more. */
  take(address: bigint, length: number): void {
    this.#takenAt = length <= MOST_TAKEN ? Number(address) : -1;
    this.#takenBytes = 0;
  }

  /** What was written at the address of `take`. */
  get taken(): Uint8Array {
    return this.#taken.subarray(0, this.#takenBytes);
  }

  // Bytes at the argument's address that came with the request, and what the call has written there since.
  #sent: Uint8Array = NOTHING;
  #sentAt = 0;
  #writableEnd = 0;

  /** The caller has sent what is at an address along with its request, and may have found that it can be written. */
  sentWith(address: bigint, bytes: Uint8Array, writable = false): void {
    this.#sent = bytes;
    this.#sentAt = Number(address);
    this.#writableEnd = writable ? this.#sentAt + bytes.length : 0;
  }

  read(va: UserAddress, into: UserBytes, length = into.byteLength): number {
    const bytes = new Uint8Array(into.buffer, into.byteOffset, length);
    // Beyond 2^53 a double is off by less than what lies between that and the limit.
    const address = Number(va);
    if (!this.alive || !(address >= 0 && address + length <= USER_LIMIT)) return -EFAULT;
    return this.known(address, bytes) || this.readAt(address, bytes) ? 0 : -EFAULT;
  }

  /** Copies what the call's request and its answer hold of memory; false if that is not all of it. */
  known(address: number, into: Uint8Array): boolean {
    const { length } = into;
    if (address === this.#takenAt && length <= this.#takenBytes) {
      into.set(this.#taken.subarray(0, length));
      return true;
    }
    const at = address - this.#sentAt;
    if (at < 0 || at + length > this.#sent.length) return false;
    into.set(this.#sent.subarray(at, at + length));
    return true;
  }

  write(va: UserAddress, from: UserBytes, length = from.byteLength): number {
    const address = Number(va);
    if (!this.alive || !(address >= 0 && address + length <= USER_LIMIT)) return -EFAULT;
    if (address === this.#takenAt && length <= MOST_TAKEN) {
      this.#taken.set(new Uint8Array(from.buffer, from.byteOffset, length));
      this.#takenBytes = length;
      return 0;
    }
    // /proc/PID/mem writes through read-only mappings; a real copy_to_user does not.
    if (!this.#allWritable(address, length)) return -EFAULT;
    const bytes = new Uint8Array(from.buffer, from.byteOffset, length);
    if (!this.writeAt(address, bytes)) {
      // Some of it may be there.
      this.#sent = NOTHING;
      return -EFAULT;
    }
    const first = Math.max(address, this.#sentAt);
    const last = Math.min(address + length, this.#sentAt + this.#sent.length);
    if (first < last) this.#sent.set(bytes.subarray(first - address, last - address), first - this.#sentAt);
    return 0;
  }

  readAt(address: number, into: Uint8Array): boolean {
    return this.#process.read(address, into);
  }

  writeAt(address: number, from: Uint8Array): boolean {
    return this.#process.write(address, from);
  }

  // The main thread's stack, where most calls want their answers: always writable, and it only grows.
  #stackStart = 0;
  #stackEnd = 0;

  #allWritable(address: number, length: number): boolean {
    if (address >= this.#sentAt && address + length <= this.#writableEnd) return true;
    if (address >= this.#stackStart && address + length <= this.#stackEnd) return true;
    let next = address;
    for (const mapping of this.#mappingsIn(address, address + length)) {
      if (mapping.start > next || !mapping.writable) return false;
      if (mapping.stack) {
        this.#stackStart = mapping.start;
        this.#stackEnd = mapping.end;
      }
      next = mapping.end;
    }
    return next >= address + length;
  }

  pin(va: bigint, pages: number, writable: boolean): FrameRun[] | number {
    const start = Number(va);
    if (!this.alive || !(start >= 0 && start + pages * PAGE <= USER_LIMIT)) return -EFAULT;
    const end = start + pages * PAGE;
    const runs: { frame: number; count: number }[] = [];
    let next = start;
    for (const mapping of this.#mappingsIn(start, end)) {
      if (mapping.start > next || !(writable ? mapping.writable : mapping.readable)) return -EFAULT;
      const to = Math.min(mapping.end, end);
      const first = next / PAGE;
      const count = (to - next) / PAGE;
      const found =
        mapping.file === null
          ? this.#frames.privateRuns(this, first, count, mapping.start / PAGE, mapping.end / PAGE)
          : this.#frames.fileRuns(mapping.file, (mapping.fileOffset + (next - mapping.start)) / PAGE, count);
      if (typeof found === "number") return found;
      for (const run of found) {
        const last = runs[runs.length - 1];
        if (last !== undefined && last.frame + last.count === run.frame) last.count += run.count;
        else runs.push({ ...run });
      }
      next = to;
    }
    if (next < end) return -EFAULT;
    for (const run of runs) this.#frames.pins.pin(run);
    return runs;
  }

  addressOf(file: FileIdentity, page: number): number | null {
    const offset = page * PAGE;
    for (const mapping of this.#mappingsIn(0, Number.POSITIVE_INFINITY)) {
      if (mapping.file !== file || offset < mapping.fileOffset) continue;
      const address = mapping.start + (offset - mapping.fileOffset);
      if (address < mapping.end) return address;
    }
    return null;
  }

  // All mappings as of the request that is being handled: the process waits for its answer meanwhile. The text is read again for
  // every request that needs it, and parsed when it is another one than the last time.
  #mappings: Mapping[] = [];
  #mappingsOf = -1;
  #text: Buffer = Buffer.alloc(0);

  /** The process's mappings that touch [start, end), ascending. */
  #mappingsIn(start: number, end: number): Mapping[] {
    if (this.#mappingsOf !== this.#frames.request) {
      const text = this.#process.maps();
      if (!text.equals(this.#text)) {
        this.#text = Buffer.from(text);
        this.#mappings = parseMaps(this.#text.toString("latin1"));
      }
      this.#mappingsOf = this.#frames.request;
    }
    return this.#mappings.filter((mapping) => mapping.end > start && mapping.start < end);
  }
}

/** Lines such as "7f0000000000-7f0000021000 rw-s 00000000 00:01 12345   /dev/zero (deleted)". */
function parseMaps(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split("\n")) {
    const dash = line.indexOf("-");
    const space = line.indexOf(" ", dash);
    if (dash < 0 || space < 0) continue;
    const [permissions, offset, device, inode] = line.slice(space + 1).split(" ", 4);
    mappings.push({
      start: Number.parseInt(line.slice(0, dash), 16),
      end: Number.parseInt(line.slice(dash + 1, space), 16),
      readable: permissions![0] === "r",
      writable: permissions![1] === "w",
      file: permissions![3] === "s" ? `${device}:${inode}` : null,
      fileOffset: Number.parseInt(offset!, 16),
      stack: line.endsWith("[stack]"),
    });
  }
  return mappings;
}

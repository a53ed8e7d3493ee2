// Open files of the kernel (Linux: struct file and its file_operations) and what a call handler sees of its caller.
//
// A system call enters through a process's descriptor table (process.ts, or host/adapters for a foreign process), which finds the
// OpenFile and calls its method with the caller's CallContext. Both kinds of process stand behind the same interfaces:
//
//                     simulated process                    foreign process (host run)
//     AddressSpace    simulated memory                     /proc/PID/mem and maps
//     frame           host page-frame number               number given to a page's identity (file page, or private page)
//     reserve()       lowest free descriptor               a placeholder; the client's side makes the descriptor afterwards
//
// Conventions: results are >= 0 or a negated errno; user addresses are bigints; frames and page counts are numbers; memory is
// counted in 4096-byte pages unless a name says bytes.

import type { MmioPort } from "../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import { EINVAL, ENODEV, ENOTTY } from "../uapi/errno.ts";
import { POLLIN, POLLOUT } from "../uapi/system-calls.ts";

/** `count` pages with consecutive frame numbers. Contiguity of frames is what lets mappings use large leaves. */
export interface FrameRun {
  readonly frame: number;
  readonly count: number;
}

/** A user address: a number where a double holds it, so that what a guest waits for needs no bigint; else a bigint. */
export type UserAddress = number | bigint;

/**
 * What is copied to or from it: bytes, or doublewords where it is made of them, which are copied as such: that takes less than half of the time, and
 * compiled code makes no bigint of one. Lengths are in bytes.
 */
export type UserBytes = Uint8Array | BigUint64Array;

/** A process's memory as the kernel sees it (Linux: mm_struct). Outlives the process for as long as somebody refers to it. */
export interface AddressSpace {
  /** False once the process is gone: pinning and copying fail with -EFAULT. */
  readonly alive: boolean;
  /** copy_from_user: fills `into`, or its first `length` bytes; 0 or -EFAULT. */
  read(va: UserAddress, into: UserBytes, length?: number): number;
  /** copy_to_user of `from`, or its first `length` bytes: 0 or -EFAULT. What comes before the first bad page may have been written. */
  write(va: UserAddress, from: UserBytes, length?: number): number;
  /**
   * Pins `pages` whole pages from the page-aligned `va` for long-term DMA and counts them in the FrameMemory's pins. -EFAULT (and
   * nothing pinned) if any page is missing, or is not writable where `writable`. Cost O(mappings), not O(pages), where memory is
   * contiguous.
   */
  pin(va: bigint, pages: number, writable: boolean): FrameRun[] | number;
  /** Accounting: pages locked against RLIMIT_MEMLOCK (VmLck) and pages pinned (VmPin). iommufd and VFIO change them. */
  lockedPages: number;
  pinnedPages: number;
}

/** Pages of memory by frame number, whoever maps them: what DMA and in-kernel accesses reach. */
export interface FrameMemory {
  readonly pins: PinCounts;
  /** Copies within one page: offset + length <= 4096. 0 or -EFAULT if the page cannot be reached any more. */
  read(frame: number, offset: number, into: Uint8Array): number;
  write(frame: number, offset: number, from: Uint8Array): number;
}

/** Pin counts of frames (Linux: page refcount bias of pin_user_pages). See pinned-frames.ts. */
export interface PinCounts {
  pin(run: FrameRun): void;
  unpin(run: FrameRun): void;
  countOf(frame: number): number;
  /** Sum of all counts; 0 when nothing is pinned. */
  readonly total: number;
}

/** Per-user accounting (Linux: user_struct.locked_vm), in pages. */
export interface UserAccount {
  lockedPages: number;
}

export interface Capabilities {
  readonly ipcLock: boolean;
  readonly sysResource: boolean;
  readonly sysRawio: boolean;
}

/** Descriptors of the calling process. */
export interface DescriptorTable {
  /** The open file behind `fd`, or -EBADF. Takes no reference. */
  lookup(fd: number): OpenFile | number;
  /** Takes a free descriptor number (get_unused_fd), or -EMFILE. */
  reserve(): number;
  /**
   * Makes a reserved descriptor refer to `file`, whose one initial reference it takes over (fd_install). `numberAt` is the user
   * address of the u32 that reports the number to the caller, null when the call returns it: a foreign process's number is known
   * only later and stored there by its side.
   */
  install(fd: number, file: OpenFile, numberAt: bigint | null): void;
  /** Gives a reserved descriptor back. */
  cancel(fd: number): void;
}

/** The calling process as a call handler sees it; one object for all calls of a process, so it may be kept. */
export interface CallContext {
  /** Short name for messages and traces. */
  readonly name: string;
  readonly memory: AddressSpace;
  readonly frames: FrameMemory;
  readonly descriptors: DescriptorTable;
  readonly user: UserAccount;
  /** As of the current call. */
  readonly capabilities: Capabilities;
  /** RLIMIT_MEMLOCK in bytes; Infinity for none. */
  readonly memlockLimit: number;
  /** The same process for the eyes of a trace, where looking at its memory is not free of consequences (host/adapters). */
  readonly shown?: CallContext;
}

export interface MmapRequest {
  readonly offset: bigint;
  readonly length: bigint;
  /** PROT_* and MAP_* of host/uapi/system-calls.ts. */
  readonly protection: number;
  readonly flags: number;
}

/** What mmap of a kernel file maps: memory of the kernel's, or device registers. The VMA calls `close` once, when it goes. */
export interface FileMapping {
  readonly memory?: Uint8Array;
  readonly registers?: MmioPort;
  close(): void;
}

/** A file whose pages can be pinned by offset (memfd, hugetlbfs). */
export interface PageFile {
  /** Size of its pages in bytes (4096, or a huge page). */
  readonly pageBytes: number;
  /** Pins `pages` 4096-byte pages from page index `first`; -EINVAL past the end of the file. */
  pin(first: number, pages: number): FrameRun[] | number;
}

/** A dma-buf: memory of a device, lent by its exporter, who may revoke it. */
export interface DmaBuffer {
  readonly bytes: bigint;
  /** Frames of the whole buffer, or -ENODEV while revoked, -EOPNOTSUPP when the exporter cannot name physical memory. */
  frames(): FrameRun[] | number;
  /** `revoked` is called when the exporter takes the memory away; the importer has unmapped all of it on return. */
  attach(revoked: () => void): DmaBufferAttachment;
}

export interface DmaBufferAttachment {
  detach(): void;
}

/** Aligned registers of a file, in [from, to), whose writes cannot fail as things are: a bus posts them. */
export interface PostedWrites {
  readonly from: bigint;
  readonly to: bigint;
  /** As WritePosting: `width` bytes in every so many, 0 all; */
  readonly every: number;
  readonly width: number;
  readonly deferrable: boolean;
}

/** How many refer to a file. Apart from it: counting is the same for files of all sorts. Not state: the file saves it as `references`. */
export class FileReferences {
  count = 1;
}

/**
 * An open file: reference-counted; `release` runs when the last descriptor and the last in-kernel reference (`get`) are gone.
 * The defaults are what the VFS answers for a file without that operation.
 */
export abstract class OpenFile implements Stateful {
  /** As /proc/PID/fd shows it: a path or "anon_inode:[iommufd-pgfault]". */
  abstract readonly path: string;
  /** Present on files whose pages can be pinned. */
  readonly pages?: PageFile;
  readonly dmaBuffer?: DmaBuffer;
  readonly held = new FileReferences(); // not state: saved as `references`
  #watchers: Set<() => void> | null = null; // not state: wiring

  get references(): number {
    return this.held.count;
  }

  /** Takes a reference (fget). */
  get(): this {
    this.held.count++;
    return this;
  }

  /** Drops a reference (fput); the last one releases the file. */
  put(): void {
    if (this.held.count <= 0) throw new Error(`${this.path}: dropped more references than were taken`);
    if (--this.held.count === 0) this.release();
  }

  /** The last reference is gone. */
  protected abstract release(): void;

  /** `argument` is an address or an integer, as the request says. */
  ioctl(_call: CallContext, _request: number, _argument: bigint): number {
    return -ENOTTY;
  }

  /** The same with an argument that is an address below 2^53. */
  ioctlAt(call: CallContext, request: number, address: number): number {
    return this.ioctl(call, request, BigInt(address));
  }

  /** `position` is -1n for read(), the offset for pread(). Returns bytes moved. */
  read(_call: CallContext, _va: bigint, _length: number, _position: bigint): number {
    return -EINVAL;
  }

  write(_call: CallContext, _va: bigint, _length: number, _position: bigint): number {
    return -EINVAL;
  }

  /** After a write there: what may be posted from now on, besides what was. Null: nothing at all. */
  postedWrites(_position: bigint): PostedWrites | null {
    return null;
  }

  /** Ready events now (POLLIN, POLLOUT, …). */
  poll(): number {
    return POLLIN | POLLOUT;
  }

  mmap(_call: CallContext, _request: MmapRequest): FileMapping | number {
    return -ENODEV;
  }

  /** Name of a request as in the uAPI headers, null for one the file does not know: for failure injection and traces. */
  ioctlName(_request: number): string | null {
    return null;
  }

  /** Decoded fields of a request, for traces; called when it has been handled, so that outputs are there. */
  ioctlFields(_call: CallContext, _request: number, _argument: bigint): Record<string, bigint | number | string> {
    return {};
  }

  /** Lets `ready` be called whenever the file becomes readable; it only sets a flag. */
  watch(ready: () => void): void {
    this.#watchers ??= new Set();
    this.#watchers.add(ready);
  }

  unwatch(ready: () => void): void {
    this.#watchers?.delete(ready);
  }

  /** For the file's own code: it has become readable. */
  protected wake(): void {
    if (this.#watchers !== null) for (const ready of this.#watchers) ready();
  }

  // --- state; a file that has more than this adds to it ---

  saveState(): StateRecord {
    return { references: this.held.count };
  }

  restoreState(state: StateReader): void {
    this.held.count = state.number("references");
  }

  stateParts(): Iterable<readonly [name: string, part: Stateful]> {
    return [];
  }
}

// What a user-space process may ask of the kernel. The VMM holds one of these and nothing else of the host; today it is a
// process of the host model (host/kernel/process.ts), later the real system calls of a Linux machine.
//
// Every call returns a value >= 0 or a negated errno, and never throws. User addresses (`va`) are bigints in the process's own
// address space. The caller owns its memory: `memory.bytes(va, length)` is a view of it, as a pointer would be.

import type { MmioPort } from "../base/mmio.ts";

export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_NONBLOCK = 0x800;
export const O_CLOEXEC = 0x80000;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 1;
export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;

/** A process's own memory, seen from inside. */
export interface UserMemory {
  /** Maps `length` fresh zeroed bytes (rounded up to pages); the address, or -ENOMEM. */
  allocate(length: number): bigint;
  /**
   * Maps a window of a buffer the process already has (a VM's RAM), shared: stores through either are seen by both, and by DMA.
   * offset and length are multiples of 4096.
   */
  mapBuffer(buffer: ArrayBufferLike, offset: number, length: number): bigint;
  free(va: bigint, length: number): void;
  /** A view of mapped memory; throws RangeError for a range that is not one mapping (a bug of the process, its own segfault). */
  bytes(va: bigint, length: number): Uint8Array;
}

export interface SystemCalls {
  readonly memory: UserMemory;
  open(path: string, flags: number): number;
  close(fd: number): number;
  /** `argument` is an address or an integer, as the request says; an address below 2^53 may be a number. */
  ioctl(fd: number, request: number, argument: bigint | number): number;
  /** pread/pwrite take `position`; read/write pass -1n. Returns bytes moved or -errno. */
  read(fd: number, va: bigint, length: number, position: bigint): number;
  write(fd: number, va: bigint, length: number, position: bigint): number;
  /** Ready events (POLLIN, POLLOUT, POLLERR, POLLHUP) now; never waits. */
  poll(fd: number): number;
  /** An eventfd with counter 0; reading it (8 bytes) takes the counter, -EAGAIN when 0. */
  eventfd(): number;
  /** Maps a device's region (VFIO region offset); registers to access, or -errno. Unmapped by `close` of the device or `munmap`. */
  mmapRegion(fd: number, offset: bigint, length: number): MmioPort | number;
  /** mmap of an exported kernel object (iommufd hardware queue pages); the address, or a negated errno as a negative bigint. */
  mmap(fd: number, offset: bigint, length: number, prot: number, flags: number): bigint;
  munmap(va: bigint, length: number): number;
  /**
   * The edge of the process's event loop (what epoll is to a real one): `ready` is called whenever `fd` becomes readable, from
   * wherever the kernel noticed it. It must only set a flag; the process acts later, from its run loop. null stops watching.
   */
  watch(fd: number, ready: (() => void) | null): number;
  /** Open files of this process, for tests and `inspect`. */
  readonly openFiles: number;
}

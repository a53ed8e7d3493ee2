// A user-space process of the host: an address space and a table of open files, entered by system calls.
//
// This is the edge at which user space meets the kernel. A call finds its OpenFile by descriptor and hands over to it; an ioctl is
// one trace event, the cause of all that happens inside. What a handler needs of the process (memory, descriptors, credentials) it
// gets as the CallContext. When the process ends, its descriptors and mappings go as they do on a real system.

import type { MmioPort } from "../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import type { Trace } from "../base/trace.ts";
import { EBADF, EINVAL, EMFILE, ENODEV } from "../uapi/errno.ts";
import { MAP_SHARED, PROT_READ, PROT_WRITE, type SystemCalls } from "../uapi/system-calls.ts";
import { ProcessMemory } from "./address-space.ts";
import { EventFd } from "./eventfd.ts";
import {
  type CallContext,
  type Capabilities,
  type DescriptorTable,
  type FileMapping,
  FileReferences,
  type FrameMemory,
  type OpenFile,
  type UserAccount,
  type UserAddress,
} from "./file.ts";
import type { HostFrames } from "./host-frames.ts";
import type { Injector } from "./inject.ts";
import { callIoctl } from "./ioctl-call.ts";
import type { LiveObjects } from "./live-objects.ts";
import { MemoryFile } from "./memory-file.ts";

export interface ProcessOptions {
  readonly capabilities?: Partial<Capabilities>;
  /** RLIMIT_MEMLOCK in bytes; default none. */
  readonly memlockLimit?: number;
  /** RLIMIT_NOFILE; default 1024. */
  readonly descriptorLimit?: number;
  /** Processes of one user share an account. */
  readonly user?: UserAccount;
}

/** What a process needs of its kernel. */
export interface ProcessParts {
  readonly frames: HostFrames;
  readonly trace: Trace;
  readonly live: LiveObjects;
  /** Where calls are made to fail, as things are. */
  readonly failures: { readonly injector: Injector };
  /** Opens a path; a negated errno refuses. */
  openPath(call: CallContext, path: string, flags: number): OpenFile | number;
  /** The process has ended. */
  exited(process: Process): void;
  /** A descriptor was closed, and its file is still in use. */
  closedInUse(file: OpenFile): void;
}

interface Descriptor {
  /** null: reserved, not installed yet. */
  readonly file: OpenFile | null;
  readonly held: FileReferences;
  watcher: (() => void) | null;
  /** Register mappings made through this descriptor; they go when it is closed. */
  readonly mappings: FileMapping[];
}

const NOT_HELD = new FileReferences();

export class Process implements SystemCalls, CallContext, Stateful {
  readonly name: string;
  readonly memory: ProcessMemory;
  readonly frames: FrameMemory;
  readonly user: UserAccount;
  readonly memlockLimit: number;
  readonly descriptors: DescriptorTable;
  capabilities: Capabilities;
  readonly #parts: ProcessParts;
  readonly #descriptorLimit: number;
  readonly #table: (Descriptor | undefined)[] = [];
  #open = 0; // not state: descriptors are the same
  #exited = false;

  constructor(name: string, parts: ProcessParts, options: ProcessOptions = {}) {
    this.name = name;
    this.#parts = parts;
    this.memory = new ProcessMemory(parts.frames);
    this.frames = parts.frames;
    this.user = options.user ?? { lockedPages: 0 };
    this.memlockLimit = options.memlockLimit ?? Number.POSITIVE_INFINITY;
    this.capabilities = { ipcLock: true, sysResource: true, sysRawio: true, ...options.capabilities };
    this.#descriptorLimit = options.descriptorLimit ?? 1024;
    this.descriptors = {
      lookup: (fd) => this.#table[fd]?.file ?? -EBADF,
      reserve: () => this.#reserve(),
      install: (fd, file) => this.#install(fd, file),
      cancel: (fd) => {
        this.#table[fd] = undefined;
      },
    };
    parts.live.created("process");
  }

  get openFiles(): number {
    return this.#open;
  }

  open(path: string, flags: number): number {
    const fd = this.#reserve();
    if (fd < 0) return fd;
    const file = this.#parts.openPath(this, path, flags);
    if (typeof file === "number") {
      this.#table[fd] = undefined;
      return file;
    }
    this.#install(fd, file);
    return fd;
  }

  close(fd: number): number {
    const descriptor = this.#table[fd];
    if (descriptor === undefined || descriptor.file === null) return -EBADF;
    this.#table[fd] = undefined;
    this.#open--;
    if (descriptor.watcher !== null) descriptor.file.unwatch(descriptor.watcher);
    for (const mapping of descriptor.mappings) mapping.close();
    descriptor.file.put();
    if (descriptor.file.references > 0) this.#parts.closedInUse(descriptor.file);
    return 0;
  }

  ioctl(fd: number, request: number, argument: UserAddress): number {
    const descriptor = this.#table[fd];
    if (descriptor === undefined || descriptor.file === null) return -EBADF;
    const { file, held } = descriptor;
    const { trace, failures } = this.#parts;
    // A handler may close descriptors of its own process (a device release): the call holds the file meanwhile.
    held.count++;
    const result = callIoctl(file, this, fd, request, argument, trace, failures.injector);
    if (held.count > 1) held.count--;
    else file.put();
    return result;
  }

  read(fd: number, va: bigint, length: number, position: bigint): number {
    const file = this.#table[fd]?.file;
    if (file === undefined || file === null) return -EBADF;
    return isLength(length) ? file.read(this, va, length, position) : -EINVAL;
  }

  write(fd: number, va: bigint, length: number, position: bigint): number {
    const file = this.#table[fd]?.file;
    if (file === undefined || file === null) return -EBADF;
    return isLength(length) ? file.write(this, va, length, position) : -EINVAL;
  }

  poll(fd: number): number {
    const file = this.#table[fd]?.file;
    return file === undefined || file === null ? -EBADF : file.poll();
  }

  eventfd(): number {
    const fd = this.#reserve();
    if (fd < 0) return fd;
    this.#parts.live.created("eventfd");
    this.#install(fd, new EventFd(() => this.#parts.live.destroyed("eventfd")));
    return fd;
  }

  /** A file of `length` bytes that is memory (memfd_create and ftruncate); the model's VMM does not need it, iommufd's MAP_FILE does. */
  memfd(length: number): number {
    const fd = this.#reserve();
    if (fd < 0) return fd;
    const { frames, live } = this.#parts;
    const file = MemoryFile.create(frames, length, () => live.destroyed("memory file"));
    if (typeof file === "number") {
      this.#table[fd] = undefined;
      return file;
    }
    live.created("memory file");
    this.#install(fd, file);
    return fd;
  }

  mmapRegion(fd: number, offset: bigint, length: number): MmioPort | number {
    const descriptor = this.#table[fd];
    if (descriptor === undefined || descriptor.file === null) return -EBADF;
    if (!isLength(length)) return -EINVAL;
    const request = {
      offset,
      length: BigInt(length),
      protection: PROT_READ | PROT_WRITE,
      flags: MAP_SHARED,
    };
    const mapping = descriptor.file.mmap(this, request);
    if (typeof mapping === "number") return mapping;
    if (mapping.registers === undefined) {
      mapping.close();
      return -ENODEV;
    }
    descriptor.mappings.push(mapping);
    return mapping.registers;
  }

  mmap(fd: number, offset: bigint, length: number, prot: number, flags: number): bigint {
    const file = this.#table[fd]?.file;
    if (file === undefined || file === null) return BigInt(-EBADF);
    if (!isLength(length) || length === 0) return BigInt(-EINVAL);
    const mapping = file.mmap(this, { offset, length: BigInt(length), protection: prot, flags });
    if (typeof mapping === "number") return BigInt(mapping);
    if (mapping.memory === undefined) {
      mapping.close();
      return BigInt(-ENODEV);
    }
    return this.memory.mapKernelMemory(mapping.memory, (prot & PROT_WRITE) !== 0, () => mapping.close());
  }

  munmap(va: bigint, length: number): number {
    return this.memory.unmap(va, length);
  }

  watch(fd: number, ready: (() => void) | null): number {
    const descriptor = this.#table[fd];
    if (descriptor === undefined || descriptor.file === null) return -EBADF;
    if (descriptor.watcher !== null) descriptor.file.unwatch(descriptor.watcher);
    descriptor.watcher = ready;
    if (ready !== null) descriptor.file.watch(ready);
    return 0;
  }

  /** The process ends: its memory goes first, then its descriptors, in order (do_exit: exit_mm before exit_files). */
  exit(): void {
    if (this.#exited) return;
    this.#exited = true;
    this.memory.exit();
    for (let fd = 0; fd < this.#table.length; fd++) this.close(fd);
    this.#parts.live.destroyed("process");
    this.#parts.exited(this);
  }

  [Symbol.dispose](): void {
    this.exit();
  }

  #reserve(): number {
    let fd = 0;
    while (this.#table[fd] !== undefined) fd++;
    if (fd >= this.#descriptorLimit) return -EMFILE;
    this.#table[fd] = { file: null, held: NOT_HELD, watcher: null, mappings: [] };
    return fd;
  }

  #install(fd: number, file: OpenFile): void {
    this.#table[fd] = { file, held: file.held, watcher: null, mappings: [] };
    this.#open++;
  }

  /** Descriptors that refer to a file, ascending. */
  *files(): Generator<readonly [fd: number, file: OpenFile]> {
    for (let fd = 0; fd < this.#table.length; fd++) {
      const file = this.#table[fd]?.file ?? null;
      if (file !== null) yield [fd, file];
    }
  }

  /** Its files and their descriptors must be the same; who watches them is wiring. */
  saveState(): StateRecord {
    const { ipcLock, sysResource, sysRawio } = this.capabilities;
    return {
      exited: this.#exited,
      capabilities: { ipcLock, sysResource, sysRawio },
      userLockedPages: this.user.lockedPages,
    };
  }

  restoreState(state: StateReader): void {
    this.#exited = state.boolean("exited");
    const capabilities = state.record("capabilities");
    this.capabilities = {
      ipcLock: capabilities.boolean("ipcLock"),
      sysResource: capabilities.boolean("sysResource"),
      sysRawio: capabilities.boolean("sysRawio"),
    };
    this.user.lockedPages = state.number("userLockedPages");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["memory", this.memory];
    for (const [fd, file] of this.files()) yield [`fd ${fd} (${file.path})`, file];
  }
}

/** Sizes are what a size_t can be and a double holds exactly. */
function isLength(length: number): boolean {
  return Number.isSafeInteger(length) && length >= 0;
}

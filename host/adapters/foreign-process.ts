// A foreign process as the kernel's call handlers see it: its memory, its descriptors, its capabilities as it says them with each call.

import {
  type AddressSpace,
  type CallContext,
  type Capabilities,
  type DescriptorTable,
  type FrameRun,
  OpenFile,
  type PageFile,
  type UserAccount,
} from "../kernel/file.ts";
import { EBADF, EFAULT, EINVAL } from "../uapi/errno.ts";
import { ClientEvents, ForeignEventFd } from "./client-events.ts";
import { ForeignMemory } from "./foreign-memory.ts";
import type { ForeignPages } from "./foreign-pages.ts";
import type { FileIdentity, OutsideProcess } from "./outside.ts";

/** A descriptor that the process's side will make when the call returns. */
export interface PendingDescriptor {
  readonly file: OpenFile;
  /** Where its number goes; null: it is the call's result. */
  readonly numberAt: bigint | null;
}

/** What a process needs of the server: the emulated files by the inode number of their sockets. */
export interface ForeignFiles {
  bySocket(inode: bigint): OpenFile | null;
}

export class ForeignProcess implements CallContext {
  readonly name: string;
  readonly pid: number;
  readonly memory: ForeignMemory;
  readonly frames: ForeignPages;
  readonly user: UserAccount;
  readonly descriptors: DescriptorTable;
  capabilities: Capabilities = { ipcLock: false, sysResource: false, sysRawio: false };
  /** Its eventfds that the kernel holds. */
  readonly events = new ClientEvents();
  /** Descriptors installed by the current call. */
  pending: PendingDescriptor[] = [];
  /** What a trace says of a call is what its request and its answer hold: watching reads nothing that the call itself did not. */
  readonly shown: CallContext;
  readonly #files: ForeignFiles;
  readonly #process: OutsideProcess;

  constructor(pid: number, process: OutsideProcess, user: UserAccount, frames: ForeignPages, files: ForeignFiles) {
    this.name = `pid ${pid}`;
    this.pid = pid;
    this.user = user;
    this.frames = frames;
    this.#process = process;
    this.memory = new ForeignMemory(process, frames);
    this.#files = files;
    this.shown = shownOf(this);
    this.descriptors = {
      lookup: (fd) => this.#lookup(fd),
      // The number is made by the other side; until then there is nothing to hold.
      reserve: () => 0,
      install: (_fd, file, numberAt) => {
        this.pending.push({ file, numberAt });
      },
      cancel: () => {},
    };
  }

  get memlockLimit(): number {
    return this.#process.memlockLimit();
  }

  /** The process is gone. */
  close(): void {
    this.memory.close();
    this.#process.close();
  }

  #lookup(fd: number): OpenFile | number {
    if (fd < 0) return -EBADF;
    const found = this.#process.descriptor(fd);
    if (found === null) return -EBADF;
    switch (found.kind) {
      case "eventfd":
        return new ForeignEventFd(this.events, fd);
      case "socket":
        return this.#files.bySocket(found.inode) ?? this.#foreignFile(fd, `socket:${found.inode}`, false);
      case "file":
        return this.#foreignFile(fd, found.identity, found.pinnable);
    }
  }

  #foreignFile(fd: number, identity: FileIdentity, pinnable: boolean): OpenFile {
    return new ForeignFile({ pid: this.pid, process: this.#process, fd }, identity, this.frames, pinnable);
  }
}

function shownOf(caller: ForeignProcess): CallContext {
  const memory: AddressSpace = {
    alive: true,
    lockedPages: 0,
    pinnedPages: 0,
    read: (va, into, length = into.byteLength) =>
      caller.memory.known(Number(va), new Uint8Array(into.buffer, into.byteOffset, length)) ? 0 : -EFAULT,
    write: () => -EFAULT,
    pin: () => -EFAULT,
  };
  return {
    ...{ name: caller.name, memory, frames: caller.frames, descriptors: caller.descriptors, user: caller.user },
    ...{ capabilities: caller.capabilities, memlockLimit: 0 },
  };
}

interface OwnDescriptor {
  readonly pid: number;
  readonly process: OutsideProcess;
  readonly fd: number;
}

/** A file of the process's own, as IOAS_MAP_FILE uses it: open here from the first reference on. */
class ForeignFile extends OpenFile {
  readonly path: string;
  declare readonly pages?: PageFile;
  readonly #own: OwnDescriptor;
  readonly #identity: FileIdentity;
  readonly #frames: ForeignPages;
  #open = false;

  constructor(own: OwnDescriptor, identity: FileIdentity, frames: ForeignPages, pinnable: boolean) {
    super();
    this.path = `/proc/${own.pid}/fd/${own.fd}`;
    this.#own = own;
    this.#identity = identity;
    this.#frames = frames;
    if (pinnable) this.pages = { pageBytes: 4096, pin: (first, count) => this.#pin(first, count) };
  }

  override get(): this {
    // What has no pages is not opened: a device may do something then, and a pipe may wait.
    if (!this.#open && this.pages !== undefined)
      this.#open = this.#frames.openFiles.open(this.#identity, this.#own.process, this.#own.fd);
    return super.get();
  }

  override put(): void {
    super.put();
    // One reference is the lookup's own, which nobody gives back.
    if (this.references > 1 || !this.#open) return;
    this.#frames.openFiles.close(this.#identity);
    this.#open = false;
  }

  #pin(first: number, count: number): FrameRun[] | number {
    const { process, fd } = this.#own;
    const size = this.#frames.openFiles.of(this.#identity)?.size() ?? process.fileSize(fd);
    if (size < 0 || (first + count) * 4096 > Math.ceil(size / 4096) * 4096) return -EINVAL;
    const runs = this.#frames.fileRuns(this.#identity, first, count);
    if (typeof runs !== "number") for (const run of runs) this.#frames.pins.pin(run);
    return runs;
  }

  protected release(): void {}
}

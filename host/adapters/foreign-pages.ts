// What stands for the pages of foreign processes. A page is known by what it is: the private page at an address of one process, or page n of a
// file (shared mappings, memfds). Two ways to give such pages frame numbers exist: identities that nothing else uses (foreign-frames.ts,
// for the iommufd selftests), and page frames of a modelled host's physical memory, which its IOMMUs reach (hosted-frames.ts).

import type { FrameMemory, FrameRun } from "../kernel/file.ts";
import type { FileIdentity, OutsideFile, OutsideProcess } from "./outside.ts";

/** A foreign process's address space. */
export interface PrivateMemory {
  readonly alive: boolean;
  readAt(address: number, into: Uint8Array): boolean;
  writeAt(address: number, from: Uint8Array): boolean;
  /** Where this process maps a page of a shared file now, or null. */
  addressOf(file: FileIdentity, page: number): number | null;
}

export interface ForeignPages extends FrameMemory {
  /** Number of the request being handled: what was learned of a process's mappings is good for that long. */
  request: number;
  /** Address spaces there are: a pinned page of shared memory outlives its process, and any other that maps it will do. */
  readonly memories: Set<PrivateMemory>;
  /** Files that are referred to, through which their pages can be reached. */
  readonly openFiles: OpenForeignFiles;
  /** Frames of private pages [first, first + count), which lie in a mapping of [mappedFrom, mappedTo); or -ENOMEM. */
  privateRuns(
    memory: PrivateMemory,
    first: number,
    count: number,
    mappedFrom: number,
    mappedTo: number,
  ): FrameRun[] | number;
  /** Frames of a file's pages [first, first + count); or -ENOMEM. */
  fileRuns(file: FileIdentity, first: number, count: number): FrameRun[] | number;
  /** The address space is gone. */
  ended(memory: PrivateMemory): void;
}

/** Files of foreign processes that are open here, once each. */
export class OpenForeignFiles {
  readonly #files = new Map<FileIdentity, { readonly file: OutsideFile; users: number }>();

  of(identity: FileIdentity): OutsideFile | undefined {
    return this.#files.get(identity)?.file;
  }

  /** Opens a file by the descriptor that a process has of it, or counts one more user; false if it cannot be opened. */
  open(identity: FileIdentity, process: OutsideProcess, fd: number): boolean {
    const known = this.#files.get(identity);
    if (known !== undefined) {
      known.users++;
      return true;
    }
    const file = process.openFile(fd);
    if (file === null) return false;
    this.#files.set(identity, { file, users: 1 });
    return true;
  }

  close(identity: FileIdentity): void {
    const known = this.#files.get(identity);
    if (known === undefined || --known.users > 0) return;
    this.#files.delete(identity);
    known.file.close();
  }
}

/** Reads or writes bytes of a shared file, through a descriptor or a process that maps it; false if nobody can. */
export function copyShared(
  pages: ForeignPages,
  file: FileIdentity,
  position: number,
  bytes: Uint8Array,
  write: boolean,
): boolean {
  const open = pages.openFiles.of(file);
  // A file of huge pages can be read so, not written.
  if (open !== undefined && (write ? open.write(position, bytes) : open.read(position, bytes))) return true;
  const page = Math.floor(position / 4096);
  for (const memory of pages.memories) {
    const address = memory.alive ? memory.addressOf(file, page) : null;
    if (address === null) continue;
    const at = address + (position % 4096);
    if (write ? memory.writeAt(at, bytes) : memory.readAt(at, bytes)) return true;
  }
  return false;
}

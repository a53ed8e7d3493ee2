// What a served host learns of the world outside while it handles a request: time, the memory and the descriptors of foreign processes, drives in
// files. With the messages of programs (hostshim-listener.ts) that is all that enters: whatever stands above is a function of both.
//
//     linux-outside.ts                  this machine
//     recording/recorded-outside.ts     the same, written down
//     recording/replayed-outside.ts     what was written down
//
// Everything is synchronous; nothing throws.

import type { BlockStore } from "../devices/nvme/block-store.ts";

/** Device and inode number of a file, as /proc/PID/maps and stat show them. */
export type FileIdentity = string;

export interface Outside {
  /** Nanoseconds since some moment; never less than before. */
  now(): number;
  /** Asks to be woken in `ms` milliseconds, at the loop's next turn (0), or not any more (null): in place of what was asked before. */
  wake(ms: number | null): void;
  /** Who is woken. */
  onWake: () => void;
  /** A process; null: it is gone, or may not be looked into. */
  process(pid: number): OutsideProcess | null;
  /** A drive in a file. Throws BlockFileError if it cannot be had. */
  openBlockFile(path: string, blockBytes: 512 | 4096): BlockStore & { close(): void };
  /** Makes a file that a program will map; false if there is no room. */
  putFile(path: string, bytes: Uint8Array): boolean;
  removeFile(path: string): void;
}

export interface OutsideProcess {
  /** Copies memory; false if not all of it is there. `write` asks for no permission. */
  read(address: number, into: Uint8Array): boolean;
  write(address: number, from: Uint8Array): boolean;
  /** The text of /proc/PID/maps, good until the next call; empty if it cannot be read. */
  maps(): Buffer;
  /** RLIMIT_MEMLOCK in bytes, Infinity for none. */
  memlockLimit(): number;
  /** What a descriptor is now; null: none, or not to be had. */
  descriptor(fd: number): OutsideDescriptor | null;
  /** The file behind a descriptor, for reading and writing. */
  openFile(fd: number): OutsideFile | null;
  /** Bytes of the file behind a descriptor, -1 if that cannot be said. */
  fileSize(fd: number): number;
  close(): void;
}

export type OutsideDescriptor =
  | { readonly kind: "socket"; readonly inode: bigint }
  | { readonly kind: "eventfd" }
  /** `pinnable`: of tmpfs or hugetlbfs, as memfds are. */
  | { readonly kind: "file"; readonly identity: FileIdentity; readonly pinnable: boolean };

export interface OutsideFile {
  read(position: number, into: Uint8Array): boolean;
  write(position: number, from: Uint8Array): boolean;
  /** -1 if that cannot be said. */
  size(): number;
  close(): void;
}

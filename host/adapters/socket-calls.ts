// System calls on sockets (native/sockets.c), loaded into this process. They return what the system does, a negated errno where it fails.

import { constants } from "node:os";

/** What `open` made. */
export type OpenSockets = object & { readonly openSockets: never };

// Bits of libuv's polling (uv_poll_t).
export const READABLE = 1;
export const WRITABLE = 2;
export const DISCONNECT = 4;

export interface SocketCalls {
  /** Listens on a path, mode 0600; `ready` is called once after each of the event loop's pollings that has found something. */
  open(path: string, ready: () => void): OpenSockets | number;
  /** What was found: pairs of a descriptor and its bits; how many. Those for which there is no room are told the next time. */
  collect(sockets: OpenSockets, pairs: Int32Array): number;
  /** Looks for `us` microseconds whether the event loop has something: 1; 0, or -1 where somebody else wanted the CPU meanwhile. */
  look(sockets: OpenSockets, us: number): number;
  /** A connection, watched for READABLE and DISCONNECT; after -EMFILE no more are told of until one is closed. */
  accept(sockets: OpenSockets): number;
  /** Number of bytes put into [from, to); 0: the other side has ended it. */
  receive(descriptor: number, bytes: Uint8Array, from: number, to: number): number;
  /** Sends bytes from `from` on; how many. */
  send(descriptor: number, bytes: Uint8Array, from: number): number;
  interest(sockets: OpenSockets, descriptor: number, events: number): number;
  shutdown(descriptor: number): number;
  close(sockets: OpenSockets, descriptor: number): number;
  stop(sockets: OpenSockets): number;
}

/** Loads the library. Throws if it cannot be. */
export function loadSocketCalls(library: string): SocketCalls {
  const module = { exports: {} };
  process.dlopen(module, library, constants.dlopen.RTLD_NOW);
  return module.exports as SocketCalls;
}

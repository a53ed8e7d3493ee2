// Serves emulated device nodes to unmodified Linux programs. Every emulated open file is a socket the program holds, so that close,
// dup, fork, exec and crash need no interposition: the last reference going away is the end of a connection.
//
//     program ── ioctl, read, write, mmap ──→ CONTROL connection ──→ handler (synchronous) ──→ reply
//     program's descriptors ═══════════════ OPEN / OBJ connections ═══ end → file released; a byte = "readable now"
//     program's mappings ═════════════════ VMA connections ═══════════ end → mapping closed
//
// The sockets themselves, and the order in which what they bring is handled, are hostshim-listener.ts's. What it calls here, together with what the
// handlers learn of the world outside (outside.ts), is all that enters a served host.

import { dirname, join } from "node:path";
import type { CallContext, FileMapping, OpenFile, UserAccount } from "../kernel/file.ts";
import { EBADF, EINVAL, EIO, ENODEV, ENOMEM } from "../uapi/errno.ts";
import { POLLIN } from "../uapi/system-calls.ts";
import type { ForeignPages } from "./foreign-pages.ts";
import { type ForeignFiles, ForeignProcess } from "./foreign-process.ts";
import * as wire from "./hostshim-protocol.ts";
import type { Outside } from "./outside.ts";

/** What is served. */
export interface ServedNodes {
  /** Opens a path for a process: a file with one reference, or a negated errno. */
  open(path: string, process: ForeignProcess, flags: number): OpenFile | number;
  ioctl(process: ForeignProcess, file: OpenFile, fd: number, request: number, argument: bigint): number;
  /** read or write, with a position or (-1n) without. */
  transfer(
    process: ForeignProcess,
    file: OpenFile,
    va: bigint,
    length: number,
    position: bigint,
    write: boolean,
  ): number;
  /** Major and minor number of a device node (major << 20 | minor); -ENODEV: the path is none. */
  deviceNumber(path: string): number;
  /** A request of this process is about to be handled (null: it has been). */
  entering(process: ForeignProcess | null): void;
  /** Milliseconds for which the answer that was found is kept back: what the call took in the host's time, and has not in the program's. */
  heldMs(): number;
  /** A message has been handled, and is not answered yet: what it set off happens, as far as it is over at once. */
  handled(): void;
  /** A program does what the server cannot go along with: one line. */
  complain(message: string): void;
}

/** A program's socket, as the server uses it. */
export interface ClientSocket {
  /** False once more waits than the socket takes; `drained` is called when there is room again. */
  send(bytes: Uint8Array): boolean;
  /** Sends one byte, unless something waits already: a program that does not look is not told again and again. */
  ring(): void;
  /** Asks for `released` in so many milliseconds. */
  hold(ms: number): void;
  /** Ends it after what has been sent. */
  end(): void;
  destroy(): void;
}

/** What comes in, in the order in which it is handled. */
export interface ClientEntry {
  /** A program has connected; the number that names the connection. */
  opened(socket: ClientSocket): number;
  /** A whole message. */
  message(connection: number, bytes: Uint8Array): void;
  /** False for the connection of an open file: nothing comes there. */
  takesMessages(connection: number): boolean;
  /** Something did: the program goes round the C library. */
  stray(connection: number): void;
  drained(connection: number): void;
  released(connection: number): void;
  ended(connection: number): void;
  /** The service ends: what programs hold open is released as if they had ended. */
  close(): void;
}

const NOTHING = new Uint8Array(0);
/** By the flags of a request. */
const CAPABILITIES = Array.from({ length: 8 }, (_, flags) => ({
  ipcLock: (flags & wire.CAP_IPC_LOCK) !== 0,
  sysResource: (flags & wire.CAP_SYS_RESOURCE) !== 0,
  sysRawio: (flags & wire.CAP_SYS_RAWIO) !== 0,
}));
const NO_POSITION = 0xffff_ffff_ffff_ffffn;

interface PendingToken {
  readonly owner: ForeignProcess;
  readonly file: OpenFile | null;
  readonly mapping: FileMapping | null;
  readonly path: string | null;
}

interface Connection {
  readonly number: number;
  readonly socket: ClientSocket;
  process: ForeignProcess | null;
  inode: bigint;
  file: OpenFile | null;
  mapping: FileMapping | null;
  ring: (() => void) | null;
  /** Whose eventfds are told of here. */
  events: ForeignProcess | null;
  /** An answer that is kept back (heldMs). */
  held: Uint8Array | null;
}

export class HostshimServer implements ForeignFiles, ClientEntry {
  readonly frames: ForeignPages;
  readonly #nodes: ServedNodes;
  readonly #outside: Outside;
  readonly #folder: string;
  readonly #files = new Map<bigint, Connection>();
  readonly #tokens = new Map<bigint, PendingToken>();
  readonly #users = new Map<number, UserAccount>();
  readonly #processes = new Map<number, ForeignProcess>();
  readonly #connections = new Map<number, Connection>();
  #nextConnection = 1;
  #nextToken = 1n;
  #nextRegion = 0;

  /** `socket`: its path; what programs map lies in files beside it. */
  constructor(socket: string, nodes: ServedNodes, frames: ForeignPages, outside: Outside) {
    this.frames = frames;
    this.#folder = dirname(socket);
    this.#nodes = nodes;
    this.#outside = outside;
  }

  close(): void {
    for (const connection of this.#connections.keys()) this.ended(connection);
  }

  /** Open files and processes that are connected. */
  get connected(): number {
    return this.#files.size + this.#processes.size;
  }

  bySocket(inode: bigint): OpenFile | null {
    return this.#files.get(inode)?.file ?? null;
  }

  // --- connections ---

  opened(socket: ClientSocket): number {
    const number = this.#nextConnection++;
    this.#connections.set(number, {
      ...{ number, socket, process: null, inode: 0n, file: null, mapping: null, ring: null, events: null, held: null },
    });
    return number;
  }

  takesMessages(number: number): boolean {
    return this.#connections.get(number)?.file == null;
  }

  stray(number: number): void {
    const file = this.#connections.get(number)?.file;
    if (file == null) return;
    const went = "a program writes to it by a way round the C library, which the model does not see";
    this.#nodes.complain(`${file.path}: ${went}; the file is closed`);
    this.ended(number);
  }

  drained(number: number): void {
    this.#connections.get(number)?.events?.events.drained();
  }

  released(number: number): void {
    const connection = this.#connections.get(number);
    if (connection === undefined || connection.held === null) return;
    const answer = connection.held;
    connection.held = null;
    connection.socket.send(answer);
  }

  ended(number: number): void {
    const connection = this.#connections.get(number);
    if (connection === undefined) return;
    this.#connections.delete(number);
    if (this.#files.get(connection.inode) === connection) this.#files.delete(connection.inode);
    connection.events?.events.disconnect();
    if (connection.process !== null) this.#processGone(connection.process);
    if (connection.ring !== null) connection.file?.unwatch(connection.ring);
    connection.file?.put();
    connection.mapping?.close();
    connection.socket.destroy();
  }

  #processGone(gone: ForeignProcess): void {
    this.#claimLeftOver(gone);
    gone.close();
    if (this.#processes.get(gone.pid) === gone) this.#processes.delete(gone.pid);
    // Programs say whose they are: the accounts of users that nobody is are not kept.
    const { user } = gone;
    if (user.lockedPages > 0 || [...this.#processes.values()].some((other) => other.user === user)) return;
    for (const [uid, known] of this.#users) if (known === user) this.#users.delete(uid);
  }

  /** Descriptors and mappings a process was to make and did not: they go. */
  #claimLeftOver(owner: ForeignProcess): void {
    if (this.#tokens.size === 0) return;
    for (const [token, pending] of [...this.#tokens]) {
      if (pending.owner !== owner) continue;
      this.#tokens.delete(token);
      pending.file?.put();
      pending.mapping?.close();
      if (pending.path !== null) this.#outside.removeFile(pending.path);
    }
  }

  // --- messages ---

  message(number: number, bytes: Uint8Array): void {
    const connection = this.#connections.get(number);
    if (connection !== undefined) this.#handle(connection, bytes);
  }

  #handle(connection: Connection, bytes: Uint8Array): void {
    const { type, flags, seq } = wire.header.decode(bytes);
    const body = bytes.subarray(wire.HEADER_BYTES);
    const { socket } = connection;
    if (type === wire.HELLO) {
      const err = this.#hello(connection, body);
      socket.send(wire.message(wire.HELLO_ACK, seq, wire.helloAck.encode({ err })));
      if (err < 0) socket.end();
      else connection.events?.events.connect(socket);
      this.#nodes.handled();
      return;
    }
    if (type === wire.EVENT && connection.events !== null && body.length >= wire.event.bytes) {
      connection.events.events.received(body);
      this.#nodes.handled();
      return;
    }
    const caller = connection.process;
    // One request at a time: the next comes after the answer.
    if (caller === null || connection.held !== null || body.length < (wire.REQUEST_BYTES[type] ?? 0)) {
      this.ended(connection.number);
      return;
    }
    this.#claimLeftOver(caller);
    caller.capabilities = CAPABILITIES[flags & 7]!;
    this.frames.request++;
    this.#nodes.entering(caller);
    const answered = type !== wire.POST;
    if (answered) caller.events.callBegins();
    const { result, actions } = this.#request(caller, type, body);
    this.#nodes.entering(null);
    this.#nodes.handled();
    if (!answered) return;
    for (const signal of caller.events.callEnds()) actions.push(signal);
    const answer = wire.reply(seq, result, actions);
    const heldMs = this.#nodes.heldMs();
    if (heldMs === 0) {
      socket.send(answer);
      return;
    }
    connection.held = answer;
    // timers count whole milliseconds, and may be one of them early
    socket.hold(Math.ceil(heldMs) + 1);
  }

  #hello(connection: Connection, body: Uint8Array): number {
    if (body.length < wire.hello.bytes) return -EINVAL;
    const hello = wire.hello.decode(body);
    if (hello.version !== wire.PROTOCOL_VERSION) return -EINVAL;
    const { process, file: opened, mapping, events } = connection;
    if (process !== null || opened !== null || mapping !== null || events !== null) return -EINVAL;
    switch (hello.kind) {
      case wire.KIND_CONTROL: {
        let user = this.#users.get(hello.uid);
        if (user === undefined) {
          user = { lockedPages: 0 };
          this.#users.set(hello.uid, user);
        }
        const process = this.#outside.process(hello.pid);
        if (process === null) return -EIO;
        connection.process = new ForeignProcess(hello.pid, process, user, this.frames, this);
        this.#processes.set(hello.pid, connection.process);
        return 0;
      }
      case wire.KIND_OPEN: {
        const path = new TextDecoder().decode(body.subarray(64, 64 + hello.path_len));
        const caller = this.#processes.get(hello.pid);
        if (caller === undefined) return -EINVAL;
        this.frames.request++;
        this.#nodes.entering(caller);
        const file = this.#nodes.open(path, caller, hello.open_flags);
        this.#nodes.entering(null);
        if (typeof file === "number") return file;
        return this.#adopt(connection, hello.ino, file);
      }
      case wire.KIND_EVENTS: {
        const owner = this.#processes.get(hello.pid);
        if (owner === undefined) return -EINVAL;
        connection.events = owner;
        return 0;
      }
      case wire.KIND_OBJ:
      case wire.KIND_VMA: {
        const pending = this.#tokens.get(hello.token);
        if (pending === undefined) return -EBADF;
        this.#tokens.delete(hello.token);
        if (pending.path !== null) this.#outside.removeFile(pending.path);
        connection.mapping = pending.mapping;
        return pending.file === null ? 0 : this.#adopt(connection, hello.ino, pending.file);
      }
      default:
        return -EINVAL;
    }
  }

  /**
   * The connection is an open file now; a byte on it says that the file has become readable. Requests name a file by the inode number that the
   * client says its socket has: -EINVAL for one that another's has.
   */
  #adopt(connection: Connection, inode: bigint, file: OpenFile): number {
    if (inode === 0n || this.#files.has(inode)) {
      file.put();
      return -EINVAL;
    }
    connection.inode = inode;
    connection.file = file;
    this.#files.set(inode, connection);
    connection.ring = () => connection.socket.ring();
    file.watch(connection.ring);
    return 0;
  }

  #request(caller: ForeignProcess, type: number, body: Uint8Array): { result: number; actions: wire.Action[] } {
    if (type === wire.PROCSTAT) {
      const memory = this.#processes.get(wire.procstat.decode(body).pid)?.memory;
      const pinnedKb = BigInt(memory?.pinnedPages ?? 0) * 4n;
      return { result: 0, actions: [{ kind: "pinned", pinnedKb, lockedKb: BigInt(memory?.lockedPages ?? 0) * 4n }] };
    }
    if (type === wire.FSTAT) {
      const path = this.#files.get(wire.fstat.decode(body).ino)?.file?.path;
      return { result: path === undefined ? -EBADF : this.#nodes.deviceNumber(path), actions: [] };
    }
    // All other requests begin with the inode number of the file's socket.
    const connection = this.#files.get(wire.fstat.decode(body).ino);
    const file = connection?.file;
    if (connection === undefined || file == null) return { result: -EBADF, actions: [] };
    file.get();
    const outcome = this.#onFile(caller, connection, file, type, body);
    file.put();
    return outcome;
  }

  #onFile(
    caller: ForeignProcess,
    connection: Connection,
    file: OpenFile,
    type: number,
    body: Uint8Array,
  ): { result: number; actions: wire.Action[] } {
    switch (type) {
      case wire.IOCTL: {
        const { cmd, arg, fd, inline_len: sent, writable } = wire.ioctlRequest.decode(body);
        caller.pending = [];
        caller.memory.sentWith(arg, body.subarray(32, 32 + sent), writable !== 0);
        const result = this.#nodes.ioctl(caller, file, fd, cmd, arg);
        caller.memory.sentWith(0n, NOTHING);
        const actions: wire.Action[] = caller.pending.map((made) => this.#descriptor(caller, made.file, made.numberAt));
        for (const held of caller.events.pending) actions.push({ kind: "eventfd", ...held });
        caller.events.pending = [];
        return { result, actions };
      }
      case wire.READ: {
        const { addr, count, pos } = wire.readWrite.decode(body);
        const length = lengthOf(count);
        caller.memory.take(addr, length);
        const result = this.#nodes.transfer(caller, file, addr, length, BigInt.asIntN(64, pos), false);
        const taken = caller.memory.taken.slice();
        caller.memory.take(-1n, 0);
        // The shim has swallowed the byte that announced what is still there.
        if (pos === NO_POSITION && (file.poll() & POLLIN) !== 0) connection.ring?.();
        return { result, actions: taken.length > 0 ? [{ kind: "write", at: addr, bytes: taken }] : [] };
      }
      case wire.POST:
      case wire.WRITE: {
        const { addr, count, pos } = wire.readWrite.decode(body);
        caller.memory.sentWith(addr, body.subarray(32));
        const result = this.#nodes.transfer(caller, file, addr, lengthOf(count), BigInt.asIntN(64, pos), true);
        caller.memory.sentWith(0n, NOTHING);
        const writes = type === wire.WRITE && result > 0 ? file.postedWrites(BigInt.asIntN(64, pos)) : null;
        return { result, actions: writes === null ? [] : [{ kind: "posted", writes }] };
      }
      case wire.MMAP: {
        const { length, offset, prot, flags } = wire.mmapRequest.decode(body);
        return this.#mmap(caller, file, { length, offset, protection: prot, flags });
      }
      default:
        return { result: -EINVAL, actions: [] };
    }
  }

  #descriptor(owner: ForeignProcess, file: OpenFile, numberAt: bigint | null): wire.Action {
    const token = this.#nextToken++;
    this.#tokens.set(token, { owner, file, mapping: null, path: null });
    return { kind: "descriptor", token, numberAt };
  }

  /** The program maps a file with a copy of the kernel's memory: nothing here can share memory with another process. */
  #mmap(
    caller: ForeignProcess,
    file: OpenFile,
    request: Parameters<OpenFile["mmap"]>[1],
  ): { result: number; actions: wire.Action[] } {
    const mapping = file.mmap(caller satisfies CallContext, request);
    if (typeof mapping === "number") return { result: mapping, actions: [] };
    if (mapping.memory === undefined) {
      mapping.close();
      return { result: -ENODEV, actions: [] };
    }
    // Its side may see the folder by another path: it is told the name alone.
    const name = `region-${this.#nextRegion++}`;
    const path = join(this.#folder, name);
    if (!this.#outside.putFile(path, mapping.memory)) {
      mapping.close();
      return { result: -ENOMEM, actions: [] };
    }
    const token = this.#nextToken++;
    this.#tokens.set(token, { owner: caller, file: null, mapping, path });
    return { result: 0, actions: [{ kind: "backing", token, name }] };
  }
}

function lengthOf(count: bigint): number {
  return count > 0x7fff_f000n ? 0x7fff_f000 : Number(count);
}

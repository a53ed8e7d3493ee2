// Serves emulated device nodes to unmodified Linux programs. Every emulated open file is a socket the program holds, so that close,
// dup, fork, exec and crash need no interposition: the last reference going away is the end of a connection.
//
//     program ── ioctl, read, write, mmap ──→ CONTROL connection ──→ handler (synchronous) ──→ reply
//     program's descriptors ═══════════════ OPEN / OBJ connections ═══ end → file released; a byte = "readable now"
//     program's mappings ═════════════════ VMA connections ═══════════ end → mapping closed
//
// Ordering: a request is handled only after every end of a connection that happened before it. Requests therefore wait for the check
// phase of the event-loop turn in which they arrived: the polling before it has delivered all ends that were there by then.

import fs from "node:fs";
import net from "node:net";
import { dirname, join } from "node:path";
import type { CallContext, FileMapping, OpenFile, UserAccount } from "../kernel/file.ts";
import { EBADF, EINVAL, EIO, ENODEV, ENOMEM } from "../uapi/errno.ts";
import { POLLIN } from "../uapi/system-calls.ts";
import type { ForeignPages } from "./foreign-pages.ts";
import { type ForeignFiles, ForeignProcess } from "./foreign-process.ts";
import * as wire from "./hostshim-protocol.ts";

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
  /** A request has been answered. */
  answered(): void;
  /** A program does what the server cannot go along with: one line. */
  complain(message: string): void;
}

/** What has happened so far. */
export interface ServerStatistics {
  readonly calls: number;
  /** Sum of the time from a request's arrival until its reply was written, in ns. */
  readonly totalNs: number;
}

const DOORBELL = Uint8Array.of(1);
const NOTHING = new Uint8Array(0);
const NO_POSITION = 0xffff_ffff_ffff_ffffn;

interface PendingToken {
  readonly owner: ForeignProcess;
  readonly file: OpenFile | null;
  readonly mapping: FileMapping | null;
  readonly path: string | null;
}

interface Connection {
  readonly socket: net.Socket;
  buffer: Uint8Array;
  process: ForeignProcess | null;
  inode: bigint;
  file: OpenFile | null;
  mapping: FileMapping | null;
  ring: (() => void) | null;
  /** Whose eventfds are told of here. */
  events: ForeignProcess | null;
  /** Its answer is kept back (heldMs). */
  held: boolean;
  gone: boolean;
}

export class HostshimServer implements ForeignFiles {
  readonly frames: ForeignPages;
  readonly #nodes: ServedNodes;
  readonly #path: string;
  readonly #server: net.Server;
  readonly #files = new Map<bigint, Connection>();
  readonly #tokens = new Map<bigint, PendingToken>();
  readonly #users = new Map<number, UserAccount>();
  readonly #processes = new Map<number, ForeignProcess>();
  readonly #connections = new Set<Connection>();
  #waiting: { connection: Connection; bytes: Uint8Array; arrived: number }[] = [];
  #nextToken = 1n;
  #nextRegion = 0;
  #calls = 0;
  #totalNs = 0;

  /** `path`: of the socket, which only the user of this process can reach. */
  constructor(path: string, nodes: ServedNodes, frames: ForeignPages) {
    this.frames = frames;
    this.#path = path;
    this.#nodes = nodes;
    this.#server = net.createServer((socket) => this.#accept(socket));
  }

  /** Listens; `ready` is called when programs can connect, with a sentence when they cannot. */
  listen(ready: (problem: string | null) => void): void {
    const failed = (error: Error) => ready(`${this.#path}: ${error.message}`);
    this.#server.once("error", failed);
    this.#server.listen(this.#path, () => {
      fs.chmodSync(this.#path, 0o600);
      this.#server.off("error", failed).on("error", (error) => this.#nodes.complain(`${this.#path}: ${error.message}`));
      ready(null);
    });
  }

  /** Ends all connections: what programs hold open is released as if they had ended. */
  close(): void {
    this.#server.close();
    for (const connection of this.#connections) this.#ended(connection);
  }

  get statistics(): ServerStatistics {
    return { calls: this.#calls, totalNs: this.#totalNs };
  }

  /** Open files and processes that are connected. */
  get connected(): number {
    return this.#files.size + this.#processes.size;
  }

  bySocket(inode: bigint): OpenFile | null {
    return this.#files.get(inode)?.file ?? null;
  }

  // --- connections ---

  #accept(socket: net.Socket): void {
    const connection: Connection = {
      socket,
      buffer: new Uint8Array(0),
      process: null,
      inode: 0n,
      file: null,
      mapping: null,
      ring: null,
      events: null,
      held: false,
      gone: false,
    };
    this.#connections.add(connection);
    socket.on("data", (data) => this.#received(connection, data));
    socket.on("drain", () => socket.resume());
    socket.on("end", () => this.#ended(connection));
    socket.on("error", () => this.#ended(connection));
    socket.on("close", () => this.#ended(connection));
  }

  #received(connection: Connection, data: Uint8Array): void {
    const arrived = performance.now();
    if (connection.file !== null) {
      const went = "a program writes to it by a way round the C library, which the model does not see";
      this.#nodes.complain(`${connection.file.path}: ${went}; the file is closed`);
      this.#ended(connection);
      return;
    }
    let bytes = connection.buffer.length > 0 ? Buffer.concat([connection.buffer, data]) : data;
    while (bytes.length >= wire.HEADER_BYTES) {
      const { len } = wire.header.decode(bytes);
      if (len < wire.HEADER_BYTES || len > wire.MAX_MESSAGE) {
        connection.socket.destroy();
        return;
      }
      if (bytes.length < len) break;
      this.#waiting.push({ connection, bytes: bytes.subarray(0, len), arrived });
      if (this.#waiting.length === 1) setImmediate(() => this.#handleWaiting());
      bytes = bytes.subarray(len);
    }
    connection.buffer = bytes;
  }

  #handleWaiting(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { connection, bytes, arrived } of waiting) {
      if (connection.gone) continue;
      this.#handle(connection, bytes);
      this.#calls++;
      this.#totalNs += (performance.now() - arrived) * 1e6;
      this.#nodes.answered();
    }
  }

  #ended(connection: Connection): void {
    if (connection.gone) return;
    connection.gone = true;
    this.#connections.delete(connection);
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
  }

  /** Descriptors and mappings a process was to make and did not: they go. */
  #claimLeftOver(owner: ForeignProcess): void {
    for (const [token, pending] of [...this.#tokens]) {
      if (pending.owner !== owner) continue;
      this.#tokens.delete(token);
      pending.file?.put();
      pending.mapping?.close();
      if (pending.path !== null) fs.rmSync(pending.path, { force: true });
    }
  }

  // --- messages ---

  #handle(connection: Connection, bytes: Uint8Array): void {
    const { type, flags, seq } = wire.header.decode(bytes);
    const body = bytes.subarray(wire.HEADER_BYTES);
    if (type === wire.HELLO) {
      const err = this.#hello(connection, body);
      this.#send(connection, wire.message(wire.HELLO_ACK, seq, wire.helloAck.encode({ err })));
      if (err < 0) connection.socket.end();
      return;
    }
    if (type === wire.EVENT && connection.events !== null && body.length >= wire.event.bytes) {
      connection.events.events.received(body);
      return;
    }
    const caller = connection.process;
    // One request at a time: the next comes after the answer.
    if (caller === null || connection.held || body.length < (wire.REQUEST_BYTES[type] ?? 0)) {
      this.#ended(connection);
      return;
    }
    this.#claimLeftOver(caller);
    caller.capabilities = {
      ipcLock: (flags & wire.CAP_IPC_LOCK) !== 0,
      sysResource: (flags & wire.CAP_SYS_RESOURCE) !== 0,
      sysRawio: (flags & wire.CAP_SYS_RAWIO) !== 0,
    };
    this.frames.request++;
    this.#nodes.entering(caller);
    const answered = type !== wire.POST;
    if (answered) caller.events.callBegins();
    const { result, actions } = this.#request(caller, type, body);
    if (answered) for (const signal of caller.events.callEnds()) actions.push({ kind: "signal", ...signal });
    this.#nodes.entering(null);
    if (!answered) return;
    const answer = wire.reply(seq, result, actions);
    const heldMs = this.#nodes.heldMs();
    if (heldMs === 0) {
      this.#send(connection, answer);
      return;
    }
    connection.held = true;
    const release = (): void => {
      connection.held = false;
      if (!connection.gone) this.#send(connection, answer);
    };
    // timers count whole milliseconds, and may be one of them early
    setTimeout(release, Math.ceil(heldMs) + 1);
  }

  /** A client that does not read what it is answered is not read from until it does: no more waits for it than a stream's worth. */
  #send({ socket }: Connection, bytes: Uint8Array): void {
    if (!socket.write(bytes)) socket.pause();
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
        try {
          connection.process = new ForeignProcess(hello.pid, user, this.frames, this);
        } catch {
          return -EIO;
        }
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
        const { socket } = connection;
        socket.on("drain", () => owner.events.drained());
        // After the answer to this message.
        setImmediate(() => owner.events.connect({ send: (bytes) => socket.write(bytes) }));
        return 0;
      }
      case wire.KIND_OBJ:
      case wire.KIND_VMA: {
        const pending = this.#tokens.get(hello.token);
        if (pending === undefined) return -EBADF;
        this.#tokens.delete(hello.token);
        if (pending.path !== null) fs.rmSync(pending.path, { force: true });
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
    // A process that does not look is not told again and again.
    connection.ring = () => {
      if (connection.socket.writableLength === 0) connection.socket.write(DOORBELL);
    };
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
        const range = type === wire.WRITE && result > 0 ? file.postedWrites(BigInt.asIntN(64, pos)) : null;
        return { result, actions: range === null ? [] : [{ kind: "posted", from: range[0], to: range[1] }] };
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
    const path = join(dirname(this.#path), name);
    try {
      fs.writeFileSync(path, mapping.memory, { mode: 0o600 });
    } catch {
      // No room in the file system, or no descriptor.
      fs.rmSync(path, { force: true });
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

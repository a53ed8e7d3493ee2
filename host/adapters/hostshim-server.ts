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
import type { CallContext, FileMapping, OpenFile, UserAccount } from "../kernel/file.ts";
import { EBADF, EINVAL, EIO, ENODEV } from "../uapi/errno.ts";
import { POLLIN } from "../uapi/system-calls.ts";
import { ForeignFrames } from "./foreign-frames.ts";
import { type ForeignFiles, ForeignProcess } from "./foreign-process.ts";
import * as wire from "./hostshim-protocol.ts";

/** What is served. */
export interface ServedNodes {
  /** Opens a path for a process: a file with one reference, or a negated errno. */
  open(path: string, pid: number): OpenFile | number;
  /** A request of this process is about to be handled (null: it has been). */
  entering(process: ForeignProcess | null): void;
}

/** What has happened so far. */
export interface ServerStatistics {
  readonly calls: number;
  /** Sum of the time from a request's arrival until its reply was written, in ns. */
  readonly totalNs: number;
}

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
  gone: boolean;
}

export class HostshimServer implements ForeignFiles {
  readonly frames = new ForeignFrames();
  readonly #nodes: ServedNodes;
  readonly #path: string;
  readonly #server: net.Server;
  readonly #files = new Map<bigint, Connection>();
  readonly #tokens = new Map<bigint, PendingToken>();
  readonly #users = new Map<number, UserAccount>();
  readonly #processes = new Map<number, ForeignProcess>();
  #waiting: { connection: Connection; bytes: Uint8Array; arrived: bigint }[] = [];
  #nextToken = 1n;
  #nextRegion = 0;
  #calls = 0;
  #totalNs = 0;

  constructor(path: string, nodes: ServedNodes) {
    this.#path = path;
    this.#nodes = nodes;
    this.#server = net.createServer((socket) => this.#accept(socket));
  }

  /** Listens; `ready` is called when programs can connect, with a sentence when they cannot. */
  listen(ready: (problem: string | null) => void): void {
    this.#server.once("error", (error) => ready(`${this.#path}: ${error.message}`));
    this.#server.listen(this.#path, () => ready(null));
  }

  close(): void {
    this.#server.close();
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
      gone: false,
    };
    socket.on("data", (data) => this.#received(connection, data));
    socket.on("end", () => this.#ended(connection));
    socket.on("error", () => this.#ended(connection));
    socket.on("close", () => this.#ended(connection));
  }

  #received(connection: Connection, data: Uint8Array): void {
    const arrived = process.hrtime.bigint();
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
      this.#totalNs += Number(process.hrtime.bigint() - arrived);
    }
  }

  #ended(connection: Connection): void {
    if (connection.gone) return;
    connection.gone = true;
    if (connection.inode !== 0n) this.#files.delete(connection.inode);
    if (connection.process !== null) this.#processGone(connection.process);
    if (connection.ring !== null) connection.file?.unwatch(connection.ring);
    connection.file?.put();
    connection.mapping?.close();
    connection.socket.destroy();
  }

  #processGone(gone: ForeignProcess): void {
    this.#claimLeftOver(gone);
    gone.memory.close();
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
      connection.socket.write(wire.message(wire.HELLO_ACK, seq, wire.helloAck.encode({ err })));
      if (err < 0) connection.socket.end();
      return;
    }
    const caller = connection.process;
    if (caller === null) {
      connection.socket.destroy();
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
    const { result, actions } = this.#request(caller, type, body);
    this.#nodes.entering(null);
    connection.socket.write(wire.reply(seq, result, actions));
  }

  #hello(connection: Connection, body: Uint8Array): number {
    const hello = wire.hello.decode(body);
    if (hello.version !== wire.PROTOCOL_VERSION) return -EINVAL;
    if (connection.process !== null || connection.file !== null || connection.mapping !== null) return -EINVAL;
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
        this.#nodes.entering(this.#processes.get(hello.pid) ?? null);
        const file = this.#nodes.open(path, hello.pid);
        this.#nodes.entering(null);
        if (typeof file === "number") return file;
        this.#adopt(connection, hello.ino, file);
        return 0;
      }
      case wire.KIND_OBJ:
      case wire.KIND_VMA: {
        const pending = this.#tokens.get(hello.token);
        if (pending === undefined) return -EBADF;
        this.#tokens.delete(hello.token);
        if (pending.path !== null) fs.rmSync(pending.path, { force: true });
        if (pending.file !== null) this.#adopt(connection, hello.ino, pending.file);
        connection.mapping = pending.mapping;
        return 0;
      }
      default:
        return -EINVAL;
    }
  }

  /** The connection is an open file now; a byte on it says that the file has become readable. */
  #adopt(connection: Connection, inode: bigint, file: OpenFile): void {
    connection.inode = inode;
    connection.file = file;
    this.#files.set(inode, connection);
    connection.ring = () => connection.socket.write(Uint8Array.of(1));
    file.watch(connection.ring);
  }

  #request(caller: ForeignProcess, type: number, body: Uint8Array): { result: number; actions: wire.Action[] } {
    if (type === wire.PROCSTAT) {
      const memory = this.#processes.get(wire.procstat.decode(body).pid)?.memory;
      const pinnedKb = BigInt(memory?.pinnedPages ?? 0) * 4n;
      return { result: 0, actions: [{ kind: "pinned", pinnedKb, lockedKb: BigInt(memory?.lockedPages ?? 0) * 4n }] };
    }
    // All other requests begin with the inode number of the file's socket.
    const connection = this.#files.get(wire.ioctlRequest.decode(body).ino);
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
        const { cmd, arg, inline_len: sent } = wire.ioctlRequest.decode(body);
        caller.pending = [];
        caller.memory.sentWith(arg, body.subarray(24, 24 + sent));
        const result = file.ioctl(caller, cmd, arg);
        caller.memory.sentWith(0n, body.subarray(0, 0));
        return { result, actions: caller.pending.map((made) => this.#descriptor(caller, made.file, made.numberAt)) };
      }
      case wire.READ: {
        const { addr, count, pos } = wire.readWrite.decode(body);
        const result = file.read(caller, addr, lengthOf(count), BigInt.asIntN(64, pos));
        // The shim has swallowed the byte that announced what is still there.
        if ((file.poll() & POLLIN) !== 0) connection.ring?.();
        return { result, actions: [] };
      }
      case wire.WRITE: {
        const { addr, count, pos } = wire.readWrite.decode(body);
        return { result: file.write(caller, addr, lengthOf(count), BigInt.asIntN(64, pos)), actions: [] };
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
    const path = `${this.#path}.region-${this.#nextRegion++}`;
    fs.writeFileSync(path, mapping.memory);
    const token = this.#nextToken++;
    this.#tokens.set(token, { owner: caller, file: null, mapping, path });
    return { result: 0, actions: [{ kind: "backing", token, path }] };
  }
}

function lengthOf(count: bigint): number {
  return count > 0x7fff_f000n ? 0x7fff_f000 : Number(count);
}

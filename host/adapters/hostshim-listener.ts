// The socket of a served host: accepts programs, cuts what they send into messages, and hands over what happened in an order that the server can
// rely on: a request is handled only after every end of a connection that happened before it. Everything that is there is therefore taken first,
// then handled: what those said who are gone, their ends, and the requests of the others.
//
// Whoever has been answered often asks again at once: for a while the sockets are looked at again and again before the loop goes to sleep, as
// long as nobody else wants the CPU.

import { constants } from "node:os";
import { HEADER_BYTES, header, MAX_MESSAGE } from "./hostshim-protocol.ts";
import type { ClientEntry, ClientSocket } from "./hostshim-server.ts";
import { DISCONNECT, type OpenSockets, READABLE, type SocketCalls, WRITABLE } from "./socket-calls.ts";

/** What has happened so far. */
export interface ListenerStatistics {
  readonly calls: number;
  /** Sum of the time from a request's arrival until its reply was written, in ns. */
  readonly totalNs: number;
}

const { EAGAIN, EINTR, EMFILE, ENFILE } = constants.errno;
const DOORBELL = Uint8Array.of(1);
const NOTHING = new Uint8Array(0);
/** What is taken of one client at a time: a loud one does not keep the others waiting. */
const PIECE = 2 * MAX_MESSAGE;
const BUFFER = 16 * PIECE;
/** Sockets of one turn, and connections taken in one. */
const MOST = 1024;
/** How long is looked for the next message, in pieces between which the loop's other things have their turn, */
const LINGER_MS = 0.5;
const LOOK_US = 20;
/** and how long not, after somebody else wanted the CPU. */
const POLITE_MS = 50;

/** One program's socket. A client that does not read what it is answered is not read from until it does. */
class Client implements ClientSocket {
  number = 0;
  gone = false;
  /** The beginning of a message. */
  buffer: Uint8Array = NOTHING;
  readonly descriptor: number;
  readonly #listener: HostshimListener;
  /** What the socket has not taken yet. */
  #unsent: Uint8Array[] = [];
  #ending = false;

  constructor(descriptor: number, listener: HostshimListener) {
    this.descriptor = descriptor;
    this.#listener = listener;
  }

  send(bytes: Uint8Array): boolean {
    if (this.gone) return true;
    if (this.#unsent.length > 0) {
      this.#unsent.push(bytes);
      return false;
    }
    return this.#sent(bytes);
  }

  /** False if something is left, which waits. */
  #sent(bytes: Uint8Array): boolean {
    const { calls, opened } = this.#listener;
    const sent = calls.send(this.descriptor, bytes, 0);
    // Who is not there any more ends in a moment.
    if (sent === bytes.length || (sent < 0 && sent !== -EAGAIN && sent !== -EINTR)) return true;
    this.#unsent.unshift(bytes.subarray(Math.max(sent, 0)));
    calls.interest(opened, this.descriptor, WRITABLE | DISCONNECT);
    return false;
  }

  /** There is room again: true if all has been sent now. */
  flush(): boolean {
    while (this.#unsent.length > 0) if (!this.#sent(this.#unsent.shift()!)) return false;
    const { calls, opened } = this.#listener;
    calls.interest(opened, this.descriptor, READABLE | DISCONNECT);
    if (this.#ending) calls.shutdown(this.descriptor);
    return true;
  }

  ring(): void {
    // Where it does not fit in, others lie unread.
    if (!this.gone && this.#unsent.length === 0) this.#listener.calls.send(this.descriptor, DOORBELL, 0);
  }

  hold(ms: number): void {
    setTimeout(() => this.#listener.release(this), ms);
  }

  end(): void {
    if (this.#unsent.length > 0) this.#ending = true;
    else if (!this.gone) this.#listener.calls.shutdown(this.descriptor);
  }

  destroy(): void {
    if (!this.gone) this.#listener.drop(this);
    this.gone = true;
  }
}

export class HostshimListener {
  readonly calls: SocketCalls;
  /** Set while it listens. */
  opened!: OpenSockets;
  readonly #path: string;
  readonly #entry: ClientEntry;
  readonly #complain: (message: string) => void;
  readonly #clients = new Map<number, Client>();
  readonly #events = new Int32Array(2 * MOST);
  #buffer = new Uint8Array(BUFFER);
  #used = 0;
  // What was found.
  readonly #last: { client: Client; bytes: Uint8Array }[] = [];
  readonly #ended: Client[] = [];
  readonly #waiting: { client: Client; bytes: Uint8Array }[] = [];
  #accepting = false;
  /** It has been said that there is no descriptor for another connection. */
  #full = false;
  #closed = false;
  #looking: NodeJS.Immediate | null = null;
  #lookUntil = 0;
  #politeUntil = 0;
  #calls = 0;
  #totalNs = 0;

  /** `path`: of the socket, which only the user of this process can reach. */
  constructor(path: string, entry: ClientEntry, calls: SocketCalls, complain: (message: string) => void) {
    this.#path = path;
    this.#entry = entry;
    this.calls = calls;
    this.#complain = complain;
  }

  /** Listens: null, or a sentence why programs cannot connect. */
  listen(): string | null {
    const opened = this.calls.open(this.#path, () => this.#ready());
    if (typeof opened === "number") return `${this.#path}: ${nameOf(-opened)}`;
    this.opened = opened;
    return null;
  }

  /** Takes no more connections, and ends those there are. */
  close(): void {
    if (this.#closed) return;
    this.#entry.close();
    for (const client of this.#clients.values()) client.destroy();
    this.#closed = true;
    if (this.#looking !== null) clearImmediate(this.#looking);
    if (this.opened !== undefined) this.calls.stop(this.opened);
  }

  get statistics(): ListenerStatistics {
    return { calls: this.#calls, totalNs: this.#totalNs };
  }

  release(client: Client): void {
    if (!client.gone) this.#entry.released(client.number);
  }

  drop(client: Client): void {
    this.#clients.delete(client.descriptor);
    this.calls.close(this.opened, client.descriptor);
  }

  /** Looks for what comes next, and again at the loop's next turn, until nothing has come for a while. */
  #look(): void {
    this.#looking = null;
    const now = performance.now();
    if (this.#closed || now >= this.#lookUntil || now < this.#politeUntil) return;
    if (this.calls.look(this.opened, LOOK_US) < 0) this.#politeUntil = performance.now() + POLITE_MS;
    else this.#looking = setImmediate(() => this.#look());
  }

  /** Takes and handles what the loop's polling has found. */
  #ready(): void {
    const found = this.calls.collect(this.opened, this.#events);
    const arrived = performance.now();
    this.#used = 0;
    for (let n = 0; n < found; n++) {
      const client = this.#clients.get(this.#events[2 * n]!);
      if (client === undefined) this.#accepting = true;
      else this.#take(client, this.#events[2 * n + 1]!);
    }
    for (const { client, bytes } of this.#last) this.#handle(client, bytes, arrived);
    for (const client of this.#ended) this.#end(client);
    for (const { client, bytes } of this.#waiting) this.#handle(client, bytes, arrived);
    this.#last.length = 0;
    this.#ended.length = 0;
    this.#waiting.length = 0;
    if (this.#accepting && !this.#closed) this.#accept();
    if (this.#looking === null) this.#look();
  }

  /** What a client has sent, and whether it has gone. */
  #take(client: Client, events: number): void {
    const goes = (events & DISCONNECT) !== 0;
    if ((events & WRITABLE) !== 0 && !goes && client.flush()) this.#entry.drained(client.number);
    if ((events & READABLE) === 0 && !goes) return;
    // Of one who has gone all is taken: what it did before is not undone.
    for (;;) {
      if (this.#buffer.length - this.#used < PIECE) {
        this.#buffer = new Uint8Array(BUFFER);
        this.#used = 0;
      }
      const got = this.calls.receive(client.descriptor, this.#buffer, this.#used, this.#used + PIECE);
      if (got === -EAGAIN || got === -EINTR) break;
      if (got <= 0) {
        this.#ended.push(client);
        break;
      }
      const bytes = this.#buffer.subarray(this.#used, this.#used + got);
      this.#used += got;
      if (!this.#cut(client, bytes, goes ? this.#last : this.#waiting)) break;
      if (!goes) break;
    }
  }

  /** False: what it sends is no message, and the connection has ended. */
  #cut(client: Client, data: Uint8Array, into: { client: Client; bytes: Uint8Array }[]): boolean {
    if (!this.#entry.takesMessages(client.number)) {
      this.#entry.stray(client.number);
      return false;
    }
    let bytes = client.buffer.length > 0 ? Buffer.concat([client.buffer, data]) : data;
    while (bytes.length >= HEADER_BYTES) {
      const { len } = header.decode(bytes);
      if (len < HEADER_BYTES || len > MAX_MESSAGE) {
        this.#end(client);
        return false;
      }
      if (bytes.length < len) break;
      into.push({ client, bytes: bytes.subarray(0, len) });
      bytes = bytes.subarray(len);
    }
    // The buffer is used again.
    client.buffer = bytes.length === 0 ? NOTHING : bytes.slice();
    return true;
  }

  #end(client: Client): void {
    if (client.gone) return;
    this.#entry.ended(client.number);
    client.destroy();
  }

  #handle(client: Client, bytes: Uint8Array, arrived: number): void {
    if (client.gone) return;
    this.#entry.message(client.number, bytes);
    const now = performance.now();
    this.#calls++;
    this.#totalNs += (now - arrived) * 1e6;
    this.#lookUntil = now + LINGER_MS;
  }

  #accept(): void {
    this.#accepting = false;
    for (let n = 0; n < MOST; n++) {
      const descriptor = this.calls.accept(this.opened);
      if (descriptor < 0) {
        if ((descriptor === -EMFILE || descriptor === -ENFILE) && !this.#full) {
          this.#full = true;
          this.#complain(
            `${this.#path}: no descriptor for another connection (ulimit -n); programs wait for one that ends`,
          );
        }
        return;
      }
      const client = new Client(descriptor, this);
      this.#clients.set(descriptor, client);
      client.number = this.#entry.opened(client);
    }
  }
}

function nameOf(errno: number): string {
  return Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? `errno ${errno}`;
}

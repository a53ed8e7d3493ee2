// The socket of a served host: accepts programs, cuts what they send into messages, and hands over what happened in an order that the server can
// rely on: a request is handled only after every end of a connection that happened before it. Requests therefore wait for the check phase of the
// event-loop turn in which they arrived: the polling before it has delivered all ends that were there by then.

import fs from "node:fs";
import net from "node:net";
import { HEADER_BYTES, header, MAX_MESSAGE } from "./hostshim-protocol.ts";
import type { ClientEntry, ClientSocket } from "./hostshim-server.ts";

/** What has happened so far. */
export interface ListenerStatistics {
  readonly calls: number;
  /** Sum of the time from a request's arrival until its reply was written, in ns. */
  readonly totalNs: number;
}

const DOORBELL = Uint8Array.of(1);
const NOTHING = new Uint8Array(0);

/** One program's socket. A client that does not read what it is answered is not read from until it does. */
class Client implements ClientSocket {
  number = 0;
  gone = false;
  /** The beginning of a message. */
  buffer: Uint8Array = NOTHING;
  readonly #socket: net.Socket;
  readonly #released: (client: Client) => void;

  constructor(socket: net.Socket, released: (client: Client) => void) {
    this.#socket = socket;
    this.#released = released;
  }

  send(bytes: Uint8Array): boolean {
    const room = this.#socket.write(bytes);
    if (!room) this.#socket.pause();
    return room;
  }

  ring(): void {
    if (this.#socket.writableLength === 0) this.#socket.write(DOORBELL);
  }

  hold(ms: number): void {
    setTimeout(() => this.#released(this), ms);
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.gone = true;
    this.#socket.destroy();
  }
}

export class HostshimListener {
  readonly #path: string;
  readonly #entry: ClientEntry;
  readonly #complain: (message: string) => void;
  readonly #server: net.Server;
  #waiting: { client: Client; bytes: Uint8Array; arrived: number }[] = [];
  #calls = 0;
  #totalNs = 0;

  /** `path`: of the socket, which only the user of this process can reach. */
  constructor(path: string, entry: ClientEntry, complain: (message: string) => void) {
    this.#path = path;
    this.#entry = entry;
    this.#complain = complain;
    this.#server = net.createServer((socket) => this.#accept(socket));
  }

  /** Listens; `ready` is called when programs can connect, with a sentence when they cannot. */
  listen(ready: (problem: string | null) => void): void {
    const failed = (error: Error) => ready(`${this.#path}: ${error.message}`);
    this.#server.once("error", failed);
    this.#server.listen(this.#path, () => {
      fs.chmodSync(this.#path, 0o600);
      this.#server.off("error", failed).on("error", (error) => this.#complain(`${this.#path}: ${error.message}`));
      ready(null);
    });
  }

  /** Takes no more connections, and ends those there are. */
  close(): void {
    this.#server.close();
    this.#entry.close();
  }

  get statistics(): ListenerStatistics {
    return { calls: this.#calls, totalNs: this.#totalNs };
  }

  #accept(socket: net.Socket): void {
    const client = new Client(socket, ({ number }) => this.#entry.released(number));
    client.number = this.#entry.opened(client);
    const ended = (): void => {
      if (client.gone) return;
      client.gone = true;
      this.#entry.ended(client.number);
    };
    socket.on("data", (data) => this.#received(client, data));
    socket.on("drain", () => {
      socket.resume();
      this.#entry.drained(client.number);
    });
    for (const event of ["end", "error", "close"]) socket.on(event, ended);
  }

  #received(client: Client, data: Uint8Array): void {
    const arrived = performance.now();
    if (!this.#entry.takesMessages(client.number)) {
      this.#entry.stray(client.number);
      return;
    }
    let bytes = client.buffer.length > 0 ? Buffer.concat([client.buffer, data]) : data;
    while (bytes.length >= HEADER_BYTES) {
      const { len } = header.decode(bytes);
      if (len < HEADER_BYTES || len > MAX_MESSAGE) {
        this.#entry.ended(client.number);
        return;
      }
      if (bytes.length < len) break;
      this.#waiting.push({ client, bytes: bytes.subarray(0, len), arrived });
      if (this.#waiting.length === 1) setImmediate(() => this.#handleWaiting());
      bytes = bytes.subarray(len);
    }
    client.buffer = bytes;
  }

  #handleWaiting(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { client, bytes, arrived } of waiting) {
      if (client.gone) continue;
      this.#entry.message(client.number, bytes);
      this.#calls++;
      this.#totalNs += (performance.now() - arrived) * 1e6;
    }
  }
}

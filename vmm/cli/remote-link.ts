// Programs that come by a socket while a machine runs, as the machine's thread sees them: messages that it takes when it has time, or waits for. The socket
// itself is a thread's (remote-server.ts).

import { lstatSync, unlinkSync } from "node:fs";
import { createConnection } from "node:net";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { UsageError } from "./exit-codes.ts";

/** Path of a Unix socket, or a port of the loopback interface (0: any). */
export type RemotePlace = string | number;

export interface RemoteSettings {
  readonly at: RemotePlace;
  readonly port: MessagePort;
  /** Word 0: messages that have not been taken. */
  readonly signal: Int32Array;
}

export type FromRemote =
  | { readonly kind: "open"; readonly client: number }
  | { readonly kind: "closed"; readonly client: number }
  | { readonly kind: "bytes"; readonly client: number; readonly bytes: Uint8Array };

export type ToRemote =
  | { readonly kind: "bytes"; readonly client: number; readonly bytes: Uint8Array }
  | { readonly kind: "taken"; readonly client: number }
  | { readonly kind: "end"; readonly client: number }
  | { readonly kind: "close" };

type Arrival =
  | FromRemote
  | { readonly kind: "listening"; readonly port: number }
  | { readonly kind: "failed"; readonly code: string };

export class RemoteLink {
  /** Port that it listens at; 0 for a Unix socket. */
  readonly port: number;
  /** Called from the event loop when something has come. */
  onArrival: () => void = () => {};
  readonly #signal = new Int32Array(new SharedArrayBuffer(4));
  readonly #messages: MessagePort;
  readonly #worker: Worker;
  readonly #path: string | null;
  readonly #removeSocket = (): void => {
    if (this.#path !== null) remove(this.#path);
  };

  private constructor(at: RemotePlace, what: string) {
    const { port1, port2 } = new MessageChannel();
    this.#messages = port1;
    this.#path = typeof at === "string" ? at : null;
    const settings: RemoteSettings = { at, port: port2, signal: this.#signal };
    // The socket is its owner's alone from the moment that it is there.
    const umask = process.umask(0o177);
    try {
      this.#worker = new Worker(new URL("./remote-server.js", import.meta.url), {
        workerData: settings,
        transferList: [port2],
      });
      this.wait();
    } finally {
      process.umask(umask);
    }
    const first = this.#receive();
    if (first?.kind !== "listening") {
      port1.close();
      const code = first?.kind === "failed" ? first.code : "no answer";
      throw new UsageError(`${what} ${at}: ${code === "EADDRINUSE" ? "in use" : code}`);
    }
    this.port = first.port;
    process.on("exit", this.#removeSocket);
    this.#worker.on("message", () => this.onArrival());
  }

  /** Listens; `what` names the option. Throws UsageError. */
  static async listen(at: RemotePlace, what: string): Promise<RemoteLink> {
    if (typeof at === "string") await freePath(at, what);
    return new RemoteLink(at, what);
  }

  /** Something has come that was not taken: cheap, for a loop that asks often. */
  get pending(): boolean {
    return Atomics.load(this.#signal, 0) !== 0;
  }

  /** The next message; undefined: there is none. The client's next bytes are not read before these were taken. */
  take(): FromRemote | undefined {
    const message = this.#receive();
    if (message?.kind === "listening" || message?.kind === "failed") return undefined;
    if (message?.kind === "bytes") this.#post({ kind: "taken", client: message.client });
    return message;
  }

  /** Blocks this thread until something has come. */
  wait(): void {
    Atomics.wait(this.#signal, 0, 0);
  }

  send(client: number, bytes: Uint8Array): void {
    this.#post({ kind: "bytes", client, bytes });
  }

  /** Ends a connection once what was sent is out. */
  end(client: number): void {
    this.#post({ kind: "end", client });
  }

  /** Ends all; what was sent goes out. */
  async close(): Promise<void> {
    process.off("exit", this.#removeSocket);
    this.#post({ kind: "close" });
    await new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#removeSocket();
    this.#messages.close();
  }

  #receive(): Arrival | undefined {
    const message = receiveMessageOnPort(this.#messages)?.message as Arrival | undefined;
    if (message !== undefined) Atomics.sub(this.#signal, 0, 1);
    return message;
  }

  #post(message: ToRemote): void {
    this.#messages.postMessage(message);
  }
}

/** A socket that nobody listens at any more is taken away; anything else is somebody's. */
async function freePath(path: string, what: string): Promise<void> {
  let there: ReturnType<typeof lstatSync>;
  try {
    there = lstatSync(path);
  } catch {
    return;
  }
  if (!there.isSocket()) throw new UsageError(`${what} ${path}: there is a file of that name`);
  const answers = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.on("error", () => resolve(false));
  });
  if (answers) throw new UsageError(`${what} ${path}: in use by another process`);
  remove(path);
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Somebody else has taken it away.
  }
}

// A thread that listens for others: a socket's bytes come to the machine's thread as messages, which it can wait for without an event loop (a component guest
// holds that from its first instruction to its last). What is in the bytes is not this file's business.

import { createServer, type Socket } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import type { RemoteSettings, ToRemote } from "./remote-link.ts";

const { at, port, signal } = workerData as RemoteSettings;
const MOST_CLIENTS = 8;
/** Bytes that a client may leave unread before it is dropped: it is not reading. */
const MOST_UNREAD = 16 * 2 ** 20;

const clients = new Map<number, Socket>();
let next = 1;

function post(message: object): void {
  port.postMessage(message);
  Atomics.add(signal, 0, 1);
  Atomics.notify(signal, 0);
  // For an event loop that turns.
  parentPort?.postMessage(null);
}

const server = createServer({ noDelay: true }, (socket) => {
  if (clients.size >= MOST_CLIENTS) {
    socket.destroy();
    return;
  }
  const client = next++;
  clients.set(client, socket);
  post({ kind: "open", client });
  socket.on("data", (bytes: Buffer) => {
    // One piece at a time: the next is read once this has been taken.
    socket.pause();
    post({ kind: "bytes", client, bytes: new Uint8Array(bytes) });
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    clients.delete(client);
    post({ kind: "closed", client });
  });
});

port.on("message", (message: ToRemote) => {
  if (message.kind === "close") {
    // What was sent goes out before the connection ends.
    for (const socket of clients.values()) socket.destroySoon();
    server.close(() => port.close());
    return;
  }
  const socket = clients.get(message.client);
  if (socket === undefined) return;
  if (message.kind === "bytes") {
    socket.write(message.bytes);
    if (socket.writableLength > MOST_UNREAD) socket.destroy();
  } else if (message.kind === "taken") socket.resume();
  else socket.end();
});

server.on("error", (error: NodeJS.ErrnoException) => post({ kind: "failed", code: error.code ?? error.message }));
const listening = () => {
  const address = server.address();
  post({ kind: "listening", port: typeof address === "object" && address !== null ? address.port : 0 });
};
if (typeof at === "string") server.listen({ path: at }, listening);
else server.listen({ host: "127.0.0.1", port: at }, listening);

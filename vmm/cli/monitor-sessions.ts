// The monitor's socket: lines in, JSON lines out. A line is a request (vmm/monitor/request.ts); each gets one answer,
//
//     {"id":1,"ok":true,"result":…}   or   {"id":1,"ok":false,"error":"…"}
//
// in the order in which they are done: a `step` answers once the machine stands. The first line of a connection says what it is, the last how the run ended.

import { shapeOf } from "../monitor/command-shapes.ts";
import type { Answer, Monitor } from "../monitor/monitor.ts";
import { parseRequest, RequestError } from "../monitor/request.ts";
import type { FromRemote, RemoteLink } from "./remote-link.ts";

/** Version of the protocol. */
export const MONITOR_VERSION = 1;
/** Bytes of a line. */
const LONGEST_LINE = 65536;
/** Requests of all clients that wait for the machine to stand. */
const MOST_UNANSWERED = 64;

/** The clients of a socket (remote-link.ts). */
export type MonitorClients = Pick<RemoteLink, "take" | "send" | "end" | "close">;

export class MonitorSessions {
  readonly #link: MonitorClients;
  readonly #monitor: Monitor;
  /** What has come of each client's line so far. */
  readonly #partial = new Map<number, string>();
  readonly #decoder = new Map<number, TextDecoder>();
  /** Requests that are answered when the machine stands. */
  readonly #unanswered = new Set<(answer: Answer) => void>();

  constructor(link: MonitorClients, monitor: Monitor) {
    this.#link = link;
    this.#monitor = monitor;
  }

  /** Does everything that has come. */
  serve(): void {
    for (let message = this.#link.take(); message !== undefined; message = this.#link.take()) this.#received(message);
  }

  /** The run is over. */
  async close(end: Readonly<Record<string, unknown>>): Promise<void> {
    this.serve();
    for (const answer of this.#unanswered) answer({ ok: false, error: "the machine has ended" });
    for (const client of this.#partial.keys()) this.#send(client, { event: "ended", ...end });
    await this.#link.close();
  }

  #received(message: FromRemote): void {
    const { client } = message;
    if (message.kind === "open") {
      this.#partial.set(client, "");
      this.#decoder.set(client, new TextDecoder());
      this.#send(client, { "nestbox-monitor": MONITOR_VERSION });
    } else if (message.kind === "closed") {
      this.#partial.delete(client);
      this.#decoder.delete(client);
    } else {
      const lines = (
        this.#partial.get(client)! + this.#decoder.get(client)!.decode(message.bytes, { stream: true })
      ).split("\n");
      const rest = lines.pop()!;
      this.#partial.set(client, rest);
      for (const line of lines) if (line.trim() !== "") this.#request(client, line);
      if (rest.length > LONGEST_LINE) {
        this.#send(client, { ok: false, error: `a line has at most ${LONGEST_LINE} bytes` });
        this.#partial.set(client, "");
        this.#link.end(client);
      }
    }
  }

  #request(client: number, line: string): void {
    try {
      const request = parseRequest(line);
      const id = request.id === undefined ? {} : { id: request.id };
      if (this.#unanswered.size >= MOST_UNANSWERED && shapeOf(request.command)?.later === true) {
        const error = `${MOST_UNANSWERED} requests wait for the machine to stand; no more before it does`;
        this.#send(client, { ...id, ok: false, error });
        return;
      }
      const reply = (answer: Answer): void => {
        this.#unanswered.delete(reply);
        this.#send(client, { ...id, ...answer });
      };
      this.#unanswered.add(reply);
      this.#monitor.execute(request, reply);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.#send(client, { ...(error.id === undefined ? {} : { id: error.id }), ok: false, error: error.message });
    }
  }

  #send(client: number, value: object): void {
    // The client may have gone while its step was under way.
    if (!this.#partial.has(client)) return;
    this.#link.send(client, Buffer.from(`${JSON.stringify(value)}\n`));
  }
}

// `--gdb PORT`: a debugger's connection to a machine. One at a time; the machine stands while it is there and runs on when it goes.

import type { Trace } from "../../host/base/trace.ts";
import type { Host } from "../../host/host.ts";
import { GdbSession } from "../gdb/session.ts";
import { GdbTarget, type HeldByDebugger, type Past } from "../gdb/target.ts";
import type { KernelMachine } from "../kernel-machine.ts";
import { RAM_BASE } from "../memory-map.ts";
import type { Monitor } from "../monitor/monitor.ts";
import { parseRequest, RequestError } from "../monitor/request.ts";
import type { RunControl } from "../monitor/run-control.ts";
import { answerText } from "./monitor-text.ts";
import type { FromRemote, RemoteLink } from "./remote-link.ts";

export interface GdbServerParts {
  readonly link: RemoteLink;
  readonly trace: Trace;
  readonly control: RunControl;
  readonly monitor: Monitor;
  /** Ends the run. */
  readonly quit: () => void;
}

export class GdbServer {
  readonly #parts: GdbServerParts;
  #held: HeldByDebugger | null = null;
  #past: Past | null = null;
  #target: GdbTarget | null = null;
  #session: { readonly client: number; readonly session: GdbSession } | null = null;

  constructor(parts: GdbServerParts) {
    this.#parts = parts;
  }

  get port(): number {
    return this.#parts.link.port;
  }

  /** From here on it is about this machine; `past`: where one can go back. */
  hold(held: HeldByDebugger, past: Past | null): void {
    this.#held = held;
    this.#past = past;
    this.#target?.hold(held);
  }

  /** Does everything that has come. */
  serve(): void {
    const { link } = this.#parts;
    this.#target?.turn();
    for (let message = link.take(); message !== undefined; message = link.take()) this.#received(message);
    // What was asked for may be done already: nobody else would wake the machine's loop for it.
    this.#target?.turn();
  }

  async close(status: number): Promise<void> {
    this.serve();
    this.#session?.session.ended(status);
    await this.#parts.link.close();
  }

  #received(message: FromRemote): void {
    const { client } = message;
    if (message.kind === "open") this.#open(client);
    else if (client !== this.#session?.client) return;
    else if (message.kind === "bytes") this.#session.session.take(message.bytes);
    else this.#leave();
  }

  #open(client: number): void {
    const { link, trace, control, quit } = this.#parts;
    if (this.#session !== null || this.#held === null) {
      link.end(client);
      return;
    }
    control.pause();
    this.#target = new GdbTarget({ control, trace, past: this.#past }, this.#held);
    const session = new GdbSession(this.#target, {
      send: (bytes) => link.send(client, bytes),
      monitor: (line, answer) => this.#ask(line, answer),
      kill: () => {
        quit();
        this.#leave();
      },
      detach: () => {
        link.end(client);
        this.#leave();
      },
    });
    this.#session = { client, session };
  }

  /** Nobody debugs any more. */
  #leave(): void {
    this.#session = null;
    this.#target?.leave();
    this.#target = null;
    if (this.#parts.control.paused) this.#parts.control.resume();
  }

  #ask(line: string, answer: (text: string) => void): void {
    try {
      const request = parseRequest(line);
      this.#parts.monitor.execute(request, (given) =>
        answer(given.ok ? answerText(request.command, given.result) : given.error),
      );
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      answer(error.message);
    }
  }
}

/** The machine as a debugger holds it: its RAM is lent to the host, whose devices name it by the host's addresses. */
export function heldByDebugger(machine: KernelMachine, host: Host): HeldByDebugger {
  const { ram } = machine.parts.core;
  return {
    machine,
    guestAddress: (spa) => {
      const pfn = Number(spa >> 12n);
      const bank = host.memory.banks.find(({ basePfn, pages }) => pfn >= basePfn && pfn < basePfn + pages);
      if (bank === undefined || bank.bytes.buffer !== ram.buffer) return -1;
      const offset = bank.bytes.byteOffset + Number(spa) - bank.basePfn * 4096 - ram.byteOffset;
      return offset >= 0 && offset < ram.length ? RAM_BASE + offset : -1;
    },
  };
}

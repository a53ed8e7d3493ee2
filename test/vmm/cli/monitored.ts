// A machine with a monitor, as a program meets it: the process, and its socket.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { nestboxFile } from "./command-line.ts";

export interface MonitorAnswer {
  readonly ok?: boolean;
  readonly id?: number | string;
  readonly error?: string;
  // biome-ignore lint/suspicious/noExplicitAny: each command's own
  readonly result?: any;
  readonly event?: string;
}

export class Monitored {
  readonly child: ChildProcess;
  output = "";
  errors = "";
  readonly #path: string;

  private constructor(path: string, verb: string, args: readonly string[]) {
    this.#path = path;
    this.child = spawn(process.execPath, [nestboxFile, verb, "--monitor", path, ...args]);
    this.child.stdout!.on("data", (text: Buffer) => {
      this.output += text.toString();
    });
  }

  /** A machine that listens. */
  static start(path: string, ...args: string[]): Promise<Monitored> {
    return Monitored.#listening(new Monitored(path, "boot", args));
  }

  /** A replay that listens. */
  static replay(path: string, ...args: string[]): Promise<Monitored> {
    return Monitored.#listening(new Monitored(path, "replay", args));
  }

  static async #listening(machine: Monitored): Promise<Monitored> {
    await new Promise<void>((resolve, reject) => {
      machine.child.stderr!.on("data", (text: Buffer) => {
        machine.errors += text.toString();
        if (machine.errors.includes("nestbox monitor")) resolve();
      });
      machine.child.once("exit", () => reject(new Error(`it ended: ${machine.errors}`)));
    });
    return machine;
  }

  async connect(): Promise<Connection> {
    const socket = connect(this.#path);
    await once(socket, "connect");
    const connection = new Connection(socket);
    await connection.next();
    return connection;
  }

  async ended(): Promise<number | null> {
    if (this.child.exitCode === null) await once(this.child, "close");
    return this.child.exitCode;
  }
}

/** One client: lines it has received, in order. */
export class Connection {
  readonly socket: Socket;
  closed = false;
  readonly #lines: string[] = [];
  readonly #waiting: ((line: string) => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
      for (const waiter of this.#waiting.splice(0)) waiter('{"event":"closed"}');
    });
    createInterface({ input: socket }).on("line", (line) => {
      const waiter = this.#waiting.shift();
      if (waiter === undefined) this.#lines.push(line);
      else waiter(line);
    });
  }

  /** The next line. */
  async next(): Promise<MonitorAnswer> {
    const line = this.#lines.shift();
    if (line !== undefined) return JSON.parse(line) as MonitorAnswer;
    if (this.closed) return { event: "closed" };
    return JSON.parse(await new Promise<string>((resolve) => this.#waiting.push(resolve))) as MonitorAnswer;
  }

  send(text: string): void {
    this.socket.write(text);
  }

  ask(line: string): Promise<MonitorAnswer> {
    this.send(`${line}\n`);
    return this.next();
  }

  /** The result of what must be done. */
  async result(line: string) {
    const answer = await this.ask(line);
    if (answer.ok !== true) throw new Error(`${line}: ${answer.error ?? JSON.stringify(answer)}`);
    return answer.result;
  }
}

// A machine with a debugger's port, and a debugger that speaks plain packets: the other side of the protocol, written from GDB's manual.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { nestboxFile } from "../cli/command-line.ts";

export class DebuggedRun {
  readonly child: ChildProcess;
  output = "";
  errors = "";

  private constructor(args: readonly string[]) {
    this.child = spawn(process.execPath, [nestboxFile, ...args]);
    this.child.stdout!.on("data", (text: Buffer) => {
      this.output += text.toString();
    });
  }

  /** A run that listens for a debugger at `port`. */
  static async start(...args: string[]): Promise<{ run: DebuggedRun; port: number }> {
    const run = new DebuggedRun(args);
    const port = await new Promise<number>((resolve, reject) => {
      run.child.stderr!.on("data", (text: Buffer) => {
        run.errors += text.toString();
        const said = /target remote :(\d+)/.exec(run.errors);
        if (said !== null) resolve(Number(said[1]));
      });
      run.child.once("close", () => reject(new Error(`it ended: ${run.errors}`)));
    });
    return { run, port };
  }

  async ended(): Promise<number | null> {
    if (this.child.exitCode === null) await once(this.child, "close");
    return this.child.exitCode;
  }
}

export class Debugger {
  readonly socket: Socket;
  /** What came of the packet that is under way. */
  #text = "";
  readonly #replies: string[] = [];
  readonly #waiting: ((reply: string) => void)[] = [];
  acknowledged = 0;
  /** Packets that are wanted again. */
  refused = 0;
  #acknowledges = true;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (bytes) => this.#take(bytes.toString("latin1")));
    socket.on("error", () => {});
    socket.on("close", () => {
      for (const waiting of this.#waiting.splice(0)) waiting("<closed>");
    });
  }

  static async connect(port: number): Promise<Debugger> {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    return new Debugger(socket);
  }

  #take(text: string): void {
    this.#text += text;
    for (;;) {
      for (const sign of /^[+-]*/.exec(this.#text)![0]) {
        if (sign === "+") this.acknowledged++;
        else this.refused++;
        this.#text = this.#text.slice(1);
      }
      const packet = /^\$([^#]*)#([0-9a-f]{2})/s.exec(this.#text);
      if (packet === null) return;
      this.#text = this.#text.slice(packet[0].length);
      const [, body, sum] = packet;
      const expected = [...body!].reduce((total, one) => (total + one.charCodeAt(0)) & 0xff, 0);
      if (expected !== Number.parseInt(sum!, 16)) throw new Error(`checksum of ${body}`);
      if (this.#acknowledges) this.socket.write("+");
      const reply = body!.replace(/\}(.)/gs, (_, one: string) => String.fromCharCode(one.charCodeAt(0) ^ 0x20));
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#replies.push(reply);
      else waiting(reply);
    }
  }

  send(payload: string): void {
    const escaped = payload.replace(/[$#}*]/g, (one) => `}${String.fromCharCode(one.charCodeAt(0) ^ 0x20)}`);
    const sum = [...escaped].reduce((total, one) => (total + one.charCodeAt(0)) & 0xff, 0);
    this.socket.write(Buffer.from(`$${escaped}#${sum.toString(16).padStart(2, "0")}`, "latin1"));
  }

  next(): Promise<string> {
    const reply = this.#replies.shift();
    return reply !== undefined ? Promise.resolve(reply) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  ask(payload: string): Promise<string> {
    this.send(payload);
    return this.next();
  }

  async withoutAcks(): Promise<this> {
    if ((await this.ask("QStartNoAckMode")) !== "OK") throw new Error("no QStartNoAckMode");
    this.#acknowledges = false;
    return this;
  }

  /** A register's value. */
  async register(number: number): Promise<bigint> {
    return littleEndian(await this.ask(`p${number.toString(16)}`));
  }

  async memory(address: bigint, length: number): Promise<string> {
    return await this.ask(`m${address.toString(16)},${length.toString(16)}`);
  }

  /** What a command of the monitor's says. */
  async monitor(line: string): Promise<string> {
    this.send(`qRcmd,${Buffer.from(line).toString("hex")}`);
    let text = "";
    for (;;) {
      const reply = await this.next();
      if (!/^O([0-9a-f]{2})+$/.test(reply)) return reply === "OK" ? text : `${text}${reply}`;
      text += Buffer.from(reply.slice(1), "hex").toString();
    }
  }
}

export function littleEndian(hex: string): bigint {
  return BigInt(`0x${(hex.match(/../g) ?? ["00"]).reverse().join("")}`);
}

/**
 * A QEMU that runs no guest and is driven by its qtest protocol on standard input and output: one command a line, one answer a line, in order.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import type { Qemu } from "../../guest-fixtures/qemu-on-host/qemu.ts";

/** QEMU ended before it answered; `said` is what it wrote to standard error. */
export class QemuEnded extends Error {
  readonly said: string;
  constructor(said: string) {
    super(`QEMU ended: ${said.trim()}`);
    this.said = said;
  }
}

/** Of what is written to standard error, the last so many characters are kept. */
const MOST_SAID = 16384;

interface Waiting {
  readonly resolve: (value: bigint) => void;
  readonly reject: (why: Error) => void;
}

export class Qtest {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #waiting: Waiting[] = [];
  #input = "";
  #said = "";
  #ended = false;

  constructor(qemu: Qemu, machine: readonly string[]) {
    const [program, ...words] = qemu.command as [string, ...string[]];
    const protocol = ["-accel", "qtest", "-qtest", "stdio", "-qtest-log", "none"];
    const quiet = ["-nodefaults", "-display", "none", "-monitor", "none"];
    this.#child = spawn(program, [...words, ...protocol, ...quiet, ...machine], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, ...qemu.environment },
    });
    this.#child.stdout.on("data", (chunk: Buffer) => this.#take(chunk.toString("latin1")));
    this.#child.stderr.on("data", (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString("latin1")).slice(-MOST_SAID);
    });
    // Writing to a process that has ended; "close" says so too.
    this.#child.stdin.on("error", () => {});
    this.#child.on("error", (error) => this.#end(String(error)));
    this.#child.on("close", () => this.#end(this.#said));
  }

  /** The answers to commands; 0 where a command answers with nothing. */
  send(commands: readonly string[]): Promise<bigint[]> {
    if (this.#ended) return Promise.reject(new QemuEnded(this.#said));
    const answers = commands.map(
      () => new Promise<bigint>((resolve, reject) => this.#waiting.push({ resolve, reject })),
    );
    this.#child.stdin.write(commands.map((line) => `${line}\n`).join(""));
    return Promise.all(answers);
  }

  /** Ends QEMU by SIGTERM; what it, or what runs it, said. */
  async end(): Promise<string> {
    if (this.#ended) throw new QemuEnded(this.#said);
    const closed = once(this.#child, "close");
    this.#child.kill("SIGTERM");
    await closed;
    return this.#said;
  }

  async stop(): Promise<void> {
    if (this.#ended) return;
    const closed = once(this.#child, "close");
    this.#child.kill("SIGKILL");
    await closed;
  }

  #take(text: string): void {
    const lines = (this.#input + text).split("\n");
    this.#input = lines.pop()!;
    for (const line of lines) {
      // Interrupts are announced in between.
      if (line.startsWith("IRQ ")) continue;
      if (line.startsWith("Bail out!")) {
        // A failed assertion of QEMU's; nothing is answered any more.
        this.#said += `${line}\n`;
        continue;
      }
      const waiting = this.#waiting.shift();
      const answer = /^OK(?: (0x[0-9a-fA-F]+))?/.exec(line);
      if (answer === null) waiting?.reject(new Error(`qtest: ${line}`));
      else waiting?.resolve(BigInt(answer[1] ?? 0));
    }
  }

  #end(said: string): void {
    this.#ended = true;
    for (const { reject } of this.#waiting.splice(0)) reject(new QemuEnded(said));
  }
}

// `nestbox monitor SOCKET [COMMAND…]`: asks a running machine one thing, or many from a prompt or a pipe.

import { createConnection, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { Command } from "commander";
import { COMMANDS, usageOf } from "../../monitor/command-shapes.ts";
import { EXIT_FAILED, UsageError } from "../exit-codes.ts";
import { completed } from "../monitor-prompt.ts";
import { answerText } from "../monitor-text.ts";
import { fitted } from "../terminal.ts";

interface Answer {
  readonly ok?: boolean;
  readonly result?: unknown;
  readonly error?: string;
  readonly event?: string;
  readonly detail?: string;
}

export function monitor(): Command {
  return new Command("monitor")
    .description("ask a machine that runs with --monitor: pause, step, inspect, walk, plug devices, make its host fail")
    .argument("<socket>", "as boot --monitor has it")
    .argument("[command...]", "what to ask (default: a prompt, or lines of standard input)")
    .option("--json", "print answers as they come, one JSON line each")
    .passThroughOptions()
    .addHelpText("after", `\nCommands:\n${COMMANDS.map((command) => `  ${usageOf(command)}`).join("\n")}`)
    .action(async (path: string, words: readonly string[], options: { readonly json?: true }) => {
      const machine = await Connection.open(path);
      const show = (command: string, answer: Answer): void => {
        if (answer.ok === false) process.exitCode = EXIT_FAILED;
        if (options.json === true) console.log(JSON.stringify(answer));
        else if (answer.ok === true) console.log(answerText(command, answer.result));
        else console.log(fitted(answer.error ?? `the machine has ended: ${answer.detail ?? ""}`));
      };
      if (words.length > 0) {
        show(words[0]!, await machine.ask(words.map(quoted).join(" ")));
        machine.close();
        return;
      }
      const terminal = process.stdin.isTTY === true;
      const lines = createInterface({
        input: process.stdin,
        ...(terminal ? { output: process.stdout, terminal, completer: completed, prompt: "(nestbox) " } : {}),
      });
      machine.onEnd = () => {
        if (terminal) console.log("\nthe machine has ended");
        lines.close();
        process.stdin.destroy();
      };
      lines.prompt();
      for await (const line of lines) {
        if (line.trim() !== "") show(line.trim().split(/\s+/)[0]!, await machine.ask(line));
        if (machine.ended) break;
        lines.prompt();
      }
      machine.close();
    });
}

const quoted = (word: string): string =>
  /^[^\s"']+$/.test(word) ? word : word.includes('"') ? `'${word}'` : `"${word}"`;

/** The socket: one question after the other. */
class Connection {
  ended = false;
  onEnd: () => void = () => {};
  readonly #socket: Socket;
  #waiter: ((answer: Answer) => void) | null = null;
  #last: Answer = { ok: false, error: "the machine has ended" };

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on("line", (line) => this.#line(line));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.ended = true;
      this.#answer(this.#last);
      this.onEnd();
    });
  }

  /** Throws UsageError where nobody listens. */
  static open(path: string): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(path);
      socket.once("connect", () => resolve(new Connection(socket)));
      socket.once("error", (error: NodeJS.ErrnoException) =>
        reject(
          new UsageError(`monitor ${path}: nobody listens there (${error.code}); start it with boot --monitor ${path}`),
        ),
      );
    });
  }

  ask(line: string): Promise<Answer> {
    return new Promise((resolve) => {
      this.#waiter = resolve;
      if (this.ended) this.#answer(this.#last);
      else this.#socket.write(`${line.replaceAll("\n", " ")}\n`);
    });
  }

  close(): void {
    this.#socket.end();
  }

  #line(line: string): void {
    let answer: Answer;
    try {
      answer = JSON.parse(line) as Answer;
    } catch {
      answer = { ok: false, error: "what answers there is no monitor of nestbox's" };
    }
    if (answer.event === "ended") this.#last = { ok: false, error: `the machine has ended: ${answer.detail ?? ""}` };
    else if (answer.ok !== undefined) this.#answer(answer);
  }

  #answer(answer: Answer): void {
    const waiter = this.#waiter;
    this.#waiter = null;
    waiter?.(answer);
  }
}

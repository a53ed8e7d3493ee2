// The monitor on the terminal that is the guest's console: a line editor with history and completion, from one Ctrl-A c to the next.

import { createInterface, type Interface } from "node:readline";
import { PassThrough } from "node:stream";
import { completionsOf } from "../monitor/command-shapes.ts";
import type { Monitor } from "../monitor/monitor.ts";
import { parseRequest, RequestError } from "../monitor/request.ts";
import type { KeyTaker } from "./console.ts";
import { answerText } from "./monitor-text.ts";

/** The keys of one visit. `done` is called when the person has ended it from within. */
export class MonitorPrompt implements KeyTaker {
  readonly #input = new PassThrough();
  readonly #lines: Interface;

  constructor(monitor: Monitor, history: string[]) {
    process.stdout.write("\r\n(Ctrl-A c goes back to the guest; help lists the commands)\r\n");
    this.#lines = createInterface({
      input: this.#input,
      output: process.stdout,
      terminal: true,
      prompt: "(nestbox) ",
      history,
      completer: completed,
    });
    this.#lines.on("history", (lines) => history.splice(0, history.length, ...lines));
    this.#lines.on("line", (line) => {
      if (line.trim() !== "") run(monitor, line, () => this.#lines.prompt());
      this.#lines.prompt();
    });
    // Ctrl-C ends a line, not the machine.
    this.#lines.on("SIGINT", () => {
      process.stdout.write("^C\r\n");
      this.#lines.prompt();
    });
    this.#lines.prompt();
  }

  keys(bytes: Uint8Array): void {
    this.#input.write(bytes);
  }

  leave(): void {
    this.#lines.close();
    process.stdout.write("\r\n");
  }
}

/** For node:readline: what the line may go on with, and the word that is completed. */
export function completed(line: string): [string[], string] {
  const { word, candidates } = completionsOf(line);
  return [candidates.map((candidate) => `${candidate} `), word];
}

function run(monitor: Monitor, line: string, done: () => void): void {
  let command = "";
  const show = (text: string) => process.stdout.write(`${text.replaceAll("\n", "\r\n")}\r\n`);
  try {
    const request = parseRequest(line);
    command = request.command;
    let later = false;
    monitor.execute(request, (answer) => {
      show(`${later ? "\n" : ""}${answer.ok ? answerText(command, answer.result) : answer.error}`);
      if (later) done();
    });
    later = true;
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    show(error.message);
  }
}

// What every run from the command line has: the clock, the trace and its file, the console, wall time, and the summary at the end.

import { closeSync, openSync } from "node:fs";
import { Clock } from "../../host/base/clock.ts";
import { Trace, type TraceSink } from "../../host/base/trace.ts";
import { JsonLinesSink } from "../../host/base/trace-json.ts";
import type { Machine } from "../machine.ts";
import { type RunCounters, type RunSummary, SUMMARY_INDENT, summaryRows } from "../summary.ts";
import { type Tree, treeText } from "../view/machine-tree.ts";
import { verdictKnown } from "./closed-output.ts";
import { writeAll } from "./console.ts";
import { EXIT_FAULT, EXIT_PASS, EXIT_TIME_LIMIT, EXIT_USAGE, UsageError } from "./exit-codes.ts";
import { fileProblem } from "./input-file.ts";
import { colours, fitted, Progress } from "./terminal.ts";

export interface ShellOptions {
  readonly trace?: string;
  /** none: nobody is told anything. */
  readonly report: "text" | "json" | "none";
  /** File for what the guest prints. */
  readonly console?: string;
  readonly failOnFault?: true;
}

export interface RunEnd {
  readonly status: number;
  readonly detail: string;
  readonly instructions?: number;
  /** The machine, where --inspect asks for it. */
  readonly tree?: Tree[string];
}

/** What a machine's console is: whole lines, or bytes for a terminal, with escape sequences. */
export interface ConsoleKind {
  readonly lines: boolean;
}

/** ms without a word from the guest after which a progress line says that it runs. */
const QUIET = 1000;

export class RunShell {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly #options: ShellOptions;
  readonly #started = performance.now();
  #machine: Machine | null = null;
  /** Traps of machines that were watched before this one (reboots). */
  #earlierTraps = 0;
  /** Console output not written yet: a guest sends it byte by byte. */
  readonly #console = Buffer.alloc(4096);
  #consoleLength = 0;
  readonly #flushAtExit = () => {
    this.flushConsole();
    this.#sink?.end();
  };
  #sink: JsonLinesSink | null = null;
  #filtered: TraceSink | null = null;
  #silent = false;
  #traceFile = -1;
  /** Outputs that could not be written to their end. */
  readonly #cutOff = new Set<"trace" | "console">();
  #atLineStart = true;
  /** Descriptor of what the guest prints: standard output may be the report's alone. */
  readonly #consoleFile: number;
  /** Whether long lines of it are broken for a terminal. */
  #wrapsConsole = false;
  readonly #progress = new Progress();
  #lastWord = performance.now();

  constructor(options: ShellOptions) {
    this.#options = options;
    // What a guest printed, and what was traced, before a run fails is worth having.
    process.on("exit", this.#flushAtExit);
    this.clock.trace = this.trace;
    this.#consoleFile = options.report === "json" ? 2 : 1;
    if (options.console !== undefined) {
      try {
        this.#consoleFile = openSync(options.console, "w");
      } catch (error) {
        throw new UsageError(`--console ${options.console}: ${fileProblem(error)}`);
      }
    }
    if (options.trace !== undefined) {
      try {
        this.#traceFile = openSync(options.trace, "w");
      } catch (error) {
        throw new UsageError(`--trace ${options.trace}: ${fileProblem(error)}`);
      }
      this.#sink = new JsonLinesSink((text) => this.#writeTrace(options.trace!, text));
      this.#filtered = { event: (event) => this.traceMuted || this.#sink?.event(event) };
      this.trace.addSink(this.#filtered);
    }
  }

  /** While what is traced has been traced before (a replay that went back). */
  traceMuted = false;

  /** The run begins again: its machines are others. */
  forgetMachines(): void {
    this.#machine = null;
    this.#earlierTraps = 0;
  }

  /** Does something that has been done before: nobody is told again. */
  silently<T>(action: () => T): T {
    this.#silent = true;
    try {
      return action();
    } finally {
      this.#silent = false;
    }
  }

  /** A full disk ends the trace, not the machine; the run has failed then. */
  #writeTrace(file: string, text: string): void {
    if (this.#cutOff.has("trace")) return;
    try {
      writeAll(this.#traceFile, Buffer.from(text));
    } catch (error) {
      this.#cutOff.add("trace");
      this.trace.removeSink(this.#filtered!);
      this.message(`--trace ${file}: ${fileProblem(error)}; the trace is cut off`);
    }
  }

  /** Nothing more goes into the trace. */
  endTrace(): void {
    if (this.#filtered !== null) this.trace.removeSink(this.#filtered);
  }

  /** Connects a machine's console and messages to the terminal. */
  watchMachine(machine: Machine, console: ConsoleKind): void {
    this.#wrapsConsole = console.lines && this.#consoleFile === 1 && process.stdout.isTTY === true;
    this.#earlierTraps += this.#machine?.counters.traps ?? 0;
    this.#machine = machine;
    machine.onConsole = (bytes) => {
      for (const byte of bytes) {
        this.#console[this.#consoleLength++] = byte;
        if (byte === 0x0a || this.#consoleLength === this.#console.length) this.flushConsole();
      }
    };
    machine.onUnclaimed = (address, size, write) => {
      const what = write ? "store to" : "load from";
      this.message(
        `nothing answers the guest's ${size}-byte ${what} 0x${address.toString(16)}; loads there read all ones`,
      );
    };
  }

  /** Writes what the guest has printed of a line that is not ended. */
  flushConsole(): void {
    if (this.#consoleLength === 0) return;
    this.#atLineStart = this.#console[this.#consoleLength - 1] === 0x0a;
    const bytes = this.#console.subarray(0, this.#consoleLength);
    this.#consoleLength = 0;
    this.writeConsole(this.#wrapsConsole ? Buffer.from(fitted(bytes.toString("utf8"))) : bytes);
  }

  /** Puts bytes where the guest's console goes. A full disk loses them, and the run goes on. */
  writeConsole(bytes: Uint8Array): void {
    this.#progress.clear();
    this.#lastWord = performance.now();
    if (this.#cutOff.has("console")) return;
    try {
      writeAll(this.#consoleFile, bytes);
    } catch (error) {
      this.#cutOff.add("console");
      this.message(`--console ${this.#options.console ?? "(standard output)"}: ${fileProblem(error)}`);
    }
  }

  /** What comes next begins a line of its own. */
  endConsoleLine(): void {
    this.flushConsole();
    if (!this.#atLineStart) this.writeConsole(Buffer.from("\n"));
    this.#atLineStart = true;
  }

  /** The machine runs on: its console goes out, and after a while without a word a terminal is told that it does. */
  betweenSlices(): void {
    this.flushConsole();
    const now = performance.now();
    if (now - this.#lastWord < QUIET || !this.#atLineStart) return;
    const [virtual, wall] = [this.clock.now / 1e9, (now - this.#started) / 1e3];
    this.#progress.show(`running: ${virtual.toFixed(1)} s virtual, ${wall.toFixed(0)} s wall`);
  }

  /** One line for the person who runs the VM, on standard error. */
  message(text: string): void {
    if (this.#silent || this.#options.report === "none") return;
    this.flushConsole();
    this.#progress.clear();
    console.error(fitted(`nestbox: ${text}`, 4, process.stderr));
  }

  /** The run has failed: what it printed and traced until then goes out. */
  abandon(): void {
    process.off("exit", this.#flushAtExit);
    this.#flushAtExit();
    if (this.#consoleFile > 2) closeSync(this.#consoleFile);
    if (this.#traceFile >= 0) closeSync(this.#traceFile);
  }

  /** Prints the summary; returns the process's exit status. */
  finish(end: RunEnd, counters: RunCounters): number {
    this.endConsoleLine();
    this.#progress.clear();
    if (this.#consoleFile > 2) closeSync(this.#consoleFile);
    process.off("exit", this.#flushAtExit);
    this.#sink?.end();
    if (this.#traceFile >= 0) closeSync(this.#traceFile);
    const faulted = this.#options.failOnFault === true && counters.faults > 0;
    const passed = faulted ? EXIT_FAULT : this.#cutOff.size > 0 ? EXIT_USAGE : EXIT_PASS;
    const status = end.status === EXIT_PASS ? passed : end.status;
    const summary: RunSummary = {
      result:
        status === EXIT_PASS
          ? "pass"
          : status === EXIT_FAULT
            ? "fault"
            : status === EXIT_TIME_LIMIT
              ? "time-limit"
              : "failed",
      detail: status === EXIT_USAGE ? `the ${[...this.#cutOff].join(" and the ")} could not be written` : end.detail,
      traps: this.#earlierTraps + (this.#machine?.counters.traps ?? 0),
      ...counters,
      virtualNs: Math.round(this.clock.now),
      wallMs: Math.round(performance.now() - this.#started),
      ...(end.instructions === undefined ? {} : { instructions: end.instructions }),
      ...(end.tree === undefined ? {} : { inspect: end.tree }),
    };
    if (this.#options.report === "none") return status;
    verdictKnown(status);
    if (this.#options.report === "json") {
      console.log(JSON.stringify(summary));
      return status;
    }
    if (end.tree !== undefined) console.log(fitted(treeText(end.tree)));
    const paint = status === EXIT_PASS ? colours.green : colours.red;
    for (const [name, value] of summaryRows(summary)) {
      const shown = name === "result" ? paint(value) : value;
      console.log(fitted(`${name.padEnd(SUMMARY_INDENT)}${shown}`, SUMMARY_INDENT));
    }
    return status;
  }
}

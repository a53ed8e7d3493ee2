// What every run from the command line has: the clock, the trace and its file, the console, wall time, and the summary at the end.

import { closeSync, openSync } from "node:fs";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { JsonLinesSink } from "../../host/base/trace-json.ts";
import type { Machine } from "../machine.ts";
import { type RunCounters, type RunSummary, summaryText } from "../summary.ts";
import { writeAll } from "./console.ts";
import { EXIT_FAULT, EXIT_PASS, EXIT_TIME_LIMIT, EXIT_USAGE, UsageError } from "./exit-codes.ts";

export interface ShellOptions {
  readonly trace?: string;
  readonly report: "text" | "json";
  readonly failOnFault?: true;
}

export interface RunEnd {
  readonly status: number;
  readonly detail: string;
  readonly instructions?: number;
}

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
  #traceFile = -1;
  #traceFailed = false;
  #atLineStart = true;

  constructor(options: ShellOptions) {
    this.#options = options;
    // What a guest printed, and what was traced, before a run fails is worth having.
    process.on("exit", this.#flushAtExit);
    this.clock.trace = this.trace;
    if (options.trace !== undefined) {
      try {
        this.#traceFile = openSync(options.trace, "w");
      } catch (error) {
        throw new UsageError(`--trace ${options.trace}: ${(error as Error).message}`);
      }
      this.#sink = new JsonLinesSink((text) => this.#writeTrace(options.trace!, text));
      this.trace.addSink(this.#sink);
    }
  }

  /** A full disk ends the trace, not the machine; the run has failed then. */
  #writeTrace(file: string, text: string): void {
    if (this.#traceFailed) return;
    try {
      writeAll(this.#traceFile, Buffer.from(text));
    } catch (error) {
      this.#traceFailed = true;
      this.trace.removeSink(this.#sink!);
      this.message(`--trace ${file}: ${(error as Error).message}; the trace is cut off`);
    }
  }

  /** Connects a machine's console and messages to the terminal. */
  watchMachine(machine: Machine): void {
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
    writeAll(1, bytes);
  }

  /** One line for the person who runs the VM, on standard error. */
  message(text: string): void {
    this.flushConsole();
    console.error(`nestbox: ${text}`);
  }

  /** Prints the summary; returns the process's exit status. */
  finish(end: RunEnd, counters: RunCounters): number {
    this.flushConsole();
    process.off("exit", this.#flushAtExit);
    this.#sink?.end();
    if (this.#traceFile >= 0) closeSync(this.#traceFile);
    if (!this.#atLineStart) writeAll(1, Buffer.from("\n"));
    const faulted = this.#options.failOnFault === true && counters.faults > 0;
    const passed = faulted ? EXIT_FAULT : this.#traceFailed ? EXIT_USAGE : EXIT_PASS;
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
      detail: status === EXIT_USAGE ? "the trace could not be written" : end.detail,
      traps: this.#earlierTraps + (this.#machine?.counters.traps ?? 0),
      ...counters,
      virtualNs: Math.round(this.clock.now),
      wallMs: Math.round(performance.now() - this.#started),
      ...(end.instructions === undefined ? {} : { instructions: end.instructions }),
    };
    if (this.#options.report === "json") console.log(JSON.stringify(summary));
    else console.log(summaryText(summary));
    return status;
  }
}

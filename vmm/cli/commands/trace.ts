// `nestbox trace`: the events of a trace that fit a filter, also as they come; a trace in other tools' formats.

import { closeSync, openSync } from "node:fs";
import { Command } from "commander";
import { TraceFormatError } from "../../../host/base/trace-json.ts";
import { toPerfetto } from "../../view/perfetto.ts";
import { FilterError, makeFilter, type TraceFilter } from "../../view/trace-filter.ts";
import { EVENT_TYPES, LONGEST_TRACE } from "../../view/trace-index.ts";
import { writeAll } from "../console.ts";
import { UsageError } from "../exit-codes.ts";
import { fileProblem, readInput } from "../input-file.ts";
import { fitted } from "../terminal.ts";
import { readTraceFile } from "../trace-file.ts";
import { fittingLines, follow } from "../trace-lines.ts";

export function trace(): Command {
  const command = new Command("trace").description("work with traces written by --trace");
  command.addCommand(show());
  command
    .command("export")
    .description("convert a trace for another viewer")
    .argument("<file>", "trace (JSON Lines)")
    .option("--perfetto", "Chrome trace-event JSON, which the Perfetto viewer opens (the default)")
    .option("--output <file>", "where to write; standard output if left out")
    .action((file: string, options: { output?: string }) => {
      const events = readTraceFile(file);
      try {
        const fd = options.output === undefined ? 1 : openSync(options.output, "w");
        writePieces(fd, toPerfetto(events));
        if (fd !== 1) closeSync(fd);
      } catch (error) {
        throw new UsageError(`--output ${options.output ?? "(standard output)"}: ${fileProblem(error)}`);
      }
    });
  return command;
}

interface ShowOptions {
  readonly type?: string;
  readonly device?: string;
  readonly time?: string;
  readonly iova?: string;
  readonly follow?: true;
  readonly json?: true;
}

/** The options are the words of the walk theatre's filter (../../view/trace-filter.ts). */
function show(): Command {
  return new Command("show")
    .description("print the events that fit, a line each")
    .argument("<file>", "trace (JSON Lines)")
    .argument("[words...]", "parts of names that must be there: a register, a command, a call, a table")
    .option("--type <types>", `of these types, such as dma,fault (there are ${EVENT_TYPES.join(", ")})`)
    .option("--device <device>", "of this device of the host's: its name, its PCI address, or its id at its IOMMU")
    .option("--time <range>", "at this virtual time: 2us, 2us..3.5us, ..1ms")
    .option("--iova <range>", "about this page or these: 0x4000, 0x4000..0x5fff")
    .option("--follow", "go on with what is written into the file, until interrupted")
    .option("--json", "lines of the trace itself instead of text")
    .action(async (file: string, words: string[], options: ShowOptions) => {
      const filter = filterOf(options, words);
      const json = options.json === true;
      const print = (lines: readonly string[]): void => {
        for (const line of lines) console.log(json ? line : fitted(line));
      };
      if (options.follow === true) {
        const ended = new Promise<void>((end) => {
          for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end());
        });
        await follow(file, filter, json, print, ended);
        return;
      }
      try {
        for (const line of fittingLines(readInput(file, LONGEST_TRACE, `trace ${file}`), filter, json)) print([line]);
      } catch (error) {
        if (error instanceof TraceFormatError) throw new UsageError(`${file}: ${error.message}`);
        throw error;
      }
    });
}

function filterOf(options: ShowOptions, words: readonly string[]): TraceFilter {
  try {
    return makeFilter({ ...options, words });
  } catch (error) {
    if (error instanceof FilterError) throw new UsageError(`trace show: --${error.message}`);
    throw error;
  }
}

function writePieces(fd: number, pieces: Iterable<string>): void {
  let chunk = "";
  for (const piece of pieces) {
    chunk += piece;
    if (chunk.length < 65536) continue;
    writeAll(fd, Buffer.from(chunk));
    chunk = "";
  }
  writeAll(fd, Buffer.from(chunk));
}

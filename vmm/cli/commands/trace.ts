// `nestbox trace export`: a trace in other tools' formats.

import { closeSync, openSync } from "node:fs";
import { Command } from "commander";
import { toPerfetto } from "../../view/perfetto.ts";
import { writeAll } from "../console.ts";
import { UsageError } from "../exit-codes.ts";
import { fileProblem } from "../input-file.ts";
import { readTraceFile } from "../trace-file.ts";

export function trace(): Command {
  const command = new Command("trace").description("work with traces written by --trace");
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

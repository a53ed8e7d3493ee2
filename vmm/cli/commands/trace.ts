// `nestbox trace export`: a trace in other tools' formats.

import { writeFileSync } from "node:fs";
import { Command } from "commander";
import { toPerfetto } from "../../view/perfetto.ts";
import { writeAll } from "../console.ts";
import { UsageError } from "../exit-codes.ts";
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
      const text = toPerfetto(readTraceFile(file));
      if (options.output === undefined) {
        writeAll(1, Buffer.from(`${text}\n`));
        return;
      }
      try {
        writeFileSync(options.output, text);
      } catch (error) {
        throw new UsageError(`--output ${options.output}: ${(error as Error).message}`);
      }
    });
  return command;
}

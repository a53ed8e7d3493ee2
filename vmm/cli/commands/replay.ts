// `nestbox replay FILE`: the model of a recorded run again, without what ran on it.

import { Command } from "commander";
import { RecordingError } from "../../../host/adapters/recording/recording-format.ts";
import { RecordingReader } from "../../../host/adapters/recording/recording-reader.ts";
import { ReplayDifference } from "../../../host/adapters/recording/replayed-outside.ts";
import { JsonLinesSink } from "../../../host/base/trace-json.ts";
import { EXIT_FAILED, UsageError } from "../exit-codes.ts";
import { summaryLines } from "../host-summary.ts";
import { wholeNumber } from "../options.ts";
import { replayHost } from "../record-host.ts";
import { TraceFile } from "../trace-output.ts";

interface ReplayOptions {
  readonly trace?: string;
  readonly to?: number;
  readonly quiet?: true;
  readonly json?: true;
}

function say(line: string): void {
  console.error(`nestbox: ${line}`);
}

export function replay(): Command {
  return new Command("replay")
    .description(
      "run the model of a recorded run again, without the programs: the same trace; exit status 1 where it answers otherwise than it did",
    )
    .argument("<recording>", "what --record wrote")
    .option("--trace <file>", "write the trace as JSON Lines")
    .option("--to <event>", "stop after what brought this event of the trace (its seq)", wholeNumber)
    .option("--quiet", "no summary at the end")
    .option("--json", "print the summary as JSON")
    .action((file: string, options: ReplayOptions) => {
      try {
        replayFile(file, options);
      } catch (error) {
        if (error instanceof RecordingError) throw new UsageError(error.message);
        if (!(error instanceof ReplayDifference)) throw error;
        say(`replay: ${file}: ${error.message}`);
        process.exitCode = EXIT_FAILED;
      }
    });
}

function replayFile(file: string, options: ReplayOptions): void {
  const reader = RecordingReader.open(file);
  const output = options.trace === undefined ? null : new TraceFile(options.trace);
  const sink = output === null ? null : new JsonLinesSink((text) => output.write(text));
  try {
    const outcome = replayHost(reader, {
      sinks: sink === null ? [] : [sink],
      ...(options.to === undefined ? {} : { to: options.to }),
      say: options.quiet === true ? () => {} : say,
    });
    const { messages, connections, complete, leftOver, events, summary } = outcome;
    if (options.json === true) console.log(JSON.stringify({ file, ...outcome }));
    if (options.quiet === true || options.json === true) return;
    const end = complete
      ? "all answers are those that were recorded"
      : `stopped at event ${options.to}: all answers until then are those that were recorded`;
    say(`replay: ${messages} messages on ${connections} connections; ${end}`);
    for (const line of summaryLines(summary)) say(`host: ${line}`);
    if (sink !== null) say(`trace: ${events} events`);
    say(`host: left over${complete ? "" : " then"}: ${leftOver === "" ? "nothing" : leftOver}`);
    if (options.to !== undefined && complete) say(`replay: the run has no event ${options.to}`);
  } finally {
    reader.close();
    sink?.end();
    output?.close();
  }
}

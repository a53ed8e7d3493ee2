// `nestbox replay FILE`: the model of a recorded run again, without what ran on it.

import { Command } from "commander";
import { ReplayDifference } from "../../../host/adapters/recording/expected-records.ts";
import { MACHINE_KIND } from "../../../host/adapters/recording/machine-records.ts";
import { RecordingError } from "../../../host/adapters/recording/recording-format.ts";
import { RecordingReader } from "../../../host/adapters/recording/recording-reader.ts";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { JsonLinesSink } from "../../../host/base/trace-json.ts";
import { FILTER_HELP } from "../../view/trace-filter.ts";
import { eventFilter } from "../event-filter.ts";
import { EXIT_FAILED, UsageError } from "../exit-codes.ts";
import { summaryLines } from "../host-summary.ts";
import { collect, portNumber, wholeNumber } from "../options.ts";
import type { Trip } from "../run-source.ts";
import { TraceFile } from "../trace-output.ts";

interface ReplayOptions {
  readonly trace?: string;
  readonly to?: number;
  readonly until?: string;
  readonly back?: number;
  readonly monitor?: string;
  readonly gdb?: number;
  readonly paused?: true;
  readonly image: readonly string[];
  readonly inspect?: string | true;
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
    .option(
      "--until <words>",
      `stop after what brought the first event that fits: a type, or words as trace show has them (${FILTER_HELP})`,
    )
    .option("--back <n>", "of a machine: stop that many events before that, or before the end of the run", wholeNumber)
    .option("--monitor <socket>", "of a machine: stand there, to be looked at and to go back (see: nestbox monitor)")
    .option("--gdb <port>", "of a kernel: serve a debugger at this port of 127.0.0.1, backwards too", portNumber)
    .option("--paused", "stand before the first instruction until the monitor says continue")
    .option(
      "--image <file>",
      "where an image of the recorded machine is now, found by its hash; repeatable",
      collect,
      [],
    )
    .option("--inspect [path]", "of a machine: print it as a tree at the end (see: nestbox inspect)")
    .option("--quiet", "no summary at the end")
    .option("--json", "print the summary as JSON")
    .action(async (file: string, options: ReplayOptions) => {
      if (options.paused === true && options.monitor === undefined && options.gdb === undefined)
        throw new UsageError("replay: --paused needs --monitor or --gdb: nobody could let it go on");
      try {
        const reader = RecordingReader.open(file);
        if (reader.header.kind === MACHINE_KIND) {
          const { replayMachine } = await import("../replay-machine.ts");
          await replayMachine(reader, options, tripOf(options));
        } else {
          await replayFile(reader, file, options);
        }
      } catch (error) {
        if (error instanceof RecordingError) throw new UsageError(error.message);
        if (!(error instanceof ReplayDifference)) throw error;
        say(`replay: ${file}: ${error.message}`);
        process.exitCode = EXIT_FAILED;
      }
    });
}

/** Where the replay of a machine is to go; null: to its end. */
function tripOf({ to, until, back }: ReplayOptions): Trip | null {
  if (to === undefined && until === undefined && back === undefined) return null;
  return {
    ...(to === undefined ? {} : { to }),
    ...(until === undefined ? {} : { until: eventFilter(until, "--until") }),
    ...(back === undefined ? {} : { back }),
  };
}

/** Whether an event is the one to stop at; null: none is. */
function lastOf({ to, until }: ReplayOptions): ((event: TracedEvent) => boolean) | null {
  if (to === undefined && until === undefined) return null;
  const fits = until === undefined ? () => false : eventFilter(until, "--until");
  return (event) => (to !== undefined && event.seq >= to) || fits(event);
}

async function replayFile(reader: RecordingReader, file: string, options: ReplayOptions): Promise<void> {
  if (options.back !== undefined || options.monitor !== undefined || options.gdb !== undefined)
    throw new UsageError(`replay ${file}: of a host's run, which neither goes back nor is looked at`);
  const { replayHost } = await import("../record-host.ts");
  const last = lastOf(options);
  const output = options.trace === undefined ? null : new TraceFile(options.trace);
  const sink = output === null ? null : new JsonLinesSink((text) => output.write(text));
  try {
    const outcome = replayHost(reader, {
      sinks: sink === null ? [] : [sink],
      last,
      say: options.quiet === true ? () => {} : say,
    });
    const { messages, connections, complete, leftOver, events, summary } = outcome;
    if (options.json === true) console.log(JSON.stringify({ file, ...outcome }));
    if (options.quiet === true || options.json === true) return;
    const end = complete
      ? "all answers are those that were recorded"
      : `stopped: all answers until then are those that were recorded`;
    say(`replay: ${messages} messages on ${connections} connections; ${end}`);
    for (const line of summaryLines(summary)) say(`host: ${line}`);
    if (sink !== null) say(`trace: ${events} events`);
    say(`host: left over${complete ? "" : " then"}: ${leftOver === "" ? "nothing" : leftOver}`);
    if (last !== null && complete) say("replay: the run has no such event");
  } finally {
    reader.close();
    sink?.end();
    output?.close();
  }
}

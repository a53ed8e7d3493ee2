// The recording of a run of `nestbox host`: what its header says, and a replay of it.

import { ReplayDifference } from "../../host/adapters/recording/expected-records.ts";
import { HOST_KIND, HOST_RECORDS_VERSION } from "../../host/adapters/recording/host-records.ts";
import { replayClients } from "../../host/adapters/recording/host-replay.ts";
import { RecordingError, type RecordingHeader } from "../../host/adapters/recording/recording-format.ts";
import type { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import { RecordingWriter } from "../../host/adapters/recording/recording-writer.ts";
import { ReplayedOutside } from "../../host/adapters/recording/replayed-outside.ts";
import type { HostSummary, ServedHost } from "../../host/adapters/served-host.ts";
import { Clock } from "../../host/base/clock.ts";
import { Trace, type TracedEvent, type TraceSink } from "../../host/base/trace.ts";
import { HostDescriptionError, parseHost } from "../../host/description.ts";
import { InjectionSyntaxError } from "../../host/host.ts";
import { UsageError } from "./exit-codes.ts";
import { describedHost, type MakeHostOptions, makeHost } from "./make-host.ts";
import { version } from "./version.ts";

/** Throws RecordingError, and UsageError for a host that there is not. */
export function beginRecording(path: string, options: MakeHostOptions, say: (line: string) => void): RecordingWriter {
  const { time, inject, seed, check, selftest } = options;
  const host = selftest === true ? null : JSON.parse(JSON.stringify(describedHost(options.host), asHex));
  const run = { host, time, inject, seed, check: check ?? null, selftest: selftest === true };
  const header: RecordingHeader = { kind: HOST_KIND, version: HOST_RECORDS_VERSION, nestbox: version(), run };
  return new RecordingWriter(path, header, say);
}

function asHex(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? `0x${value.toString(16)}` : value;
}

/** What a recording's run began from. Throws RecordingError. */
function optionsOf({ header, name }: RecordingReader): MakeHostOptions {
  const wrong = (what: string) => new RecordingError(`${name}: its header has no ${what} that can be used`);
  if (typeof header.run !== "object" || header.run === null) throw wrong("description of a run");
  const { host, time, inject, seed, check, selftest } = header.run as Record<string, unknown>;
  if (time !== "real" && time !== "leap") throw wrong("time");
  if (!Array.isArray(inject) || !inject.every((rule) => typeof rule === "string")) throw wrong("rules");
  if (typeof seed !== "number" || !Number.isSafeInteger(seed) || seed < 0) throw wrong("seed");
  const options: MakeHostOptions = { time, inject, seed, ...(check === "stale" ? { check } : {}) };
  return selftest === true ? { ...options, selftest } : { ...options, host: parseHost(host, `${name}: its host`) };
}

export interface HostReplay {
  readonly messages: number;
  readonly connections: number;
  readonly events: number;
  readonly complete: boolean;
  readonly leftOver: string;
  readonly summary: HostSummary;
}

export interface HostReplayOptions {
  readonly sinks: readonly TraceSink[];
  /** Whether to stop after what brought this event; null: after none. */
  readonly last?: ((event: TracedEvent) => boolean) | null;
  readonly say: (line: string) => void;
}

/** Counts events, and notices one. */
class EventCounter implements TraceSink {
  count = 0;
  reached = false;
  readonly #last: (event: TracedEvent) => boolean;

  constructor(last: (event: TracedEvent) => boolean) {
    this.#last = last;
  }

  event(event: TracedEvent): void {
    this.count++;
    if (this.#last(event)) this.reached = true;
  }
}

/** Replays a run on a model made as then. Throws RecordingError and ReplayDifference. */
export function replayHost(reader: RecordingReader, { sinks, last = null, say }: HostReplayOptions): HostReplay {
  if (reader.header.nestbox !== version()) {
    throw new RecordingError(`${reader.name}: was made by nestbox ${reader.header.nestbox}; this is ${version()}`);
  }
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const counter = new EventCounter(last ?? (() => false));
  if (last !== null || sinks.length > 0) trace.addSink(counter);
  for (const sink of sinks) trace.addSink(sink);
  const outside = new ReplayedOutside(reader);
  const host = made(reader, clock, trace, outside, say);
  const outcome = replayClients(reader, outside, host, () => counter.reached);
  const summary = host.summary();
  if (outcome.complete) {
    host.close();
    const left = reader.next();
    if (left !== 0) throw new ReplayDifference(`the recording goes on after the end of its run`);
    const { leftOver } = (reader.trailer.result ?? {}) as { leftOver?: unknown };
    if (typeof leftOver === "string" && leftOver !== outcome.leftOver) {
      throw new ReplayDifference(`left over is "${outcome.leftOver}", the recording says "${leftOver}"`);
    }
  }
  return { ...outcome, events: counter.count, summary };
}

function made(
  reader: RecordingReader,
  clock: Clock,
  trace: Trace,
  outside: ReplayedOutside,
  say: (line: string) => void,
): ServedHost {
  try {
    return makeHost(optionsOf(reader), clock, trace, outside, say);
  } catch (error) {
    const users = [HostDescriptionError, InjectionSyntaxError, UsageError];
    if (users.some((kind) => error instanceof kind))
      throw new RecordingError(`${reader.name}: ${(error as Error).message}`);
    throw error;
  }
}

// Runs and serves a modelled host for unmodified programs: makes the host, the folder and its socket, starts the program, and says at the end
// what happened and what is left.

import { spawn } from "node:child_process";
import { accessSync, constants, statSync, writeFileSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { BlockFileError } from "../../host/adapters/block-file.ts";
import { LibraryMissing, preloadLibrary, socketLibrary } from "../../host/adapters/built-libraries.ts";
import { HostFolderError, HostService } from "../../host/adapters/host-service.ts";
import { LinuxOutside } from "../../host/adapters/linux-outside.ts";
import { whyNotPreloadable } from "../../host/adapters/preloadable.ts";
import { RecordedEntry, RecordedOutside } from "../../host/adapters/recording/recorded-outside.ts";
import { RecordingError } from "../../host/adapters/recording/recording-format.ts";
import type { RecordingWriter } from "../../host/adapters/recording/recording-writer.ts";
import { loadSocketCalls } from "../../host/adapters/socket-calls.ts";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { JsonLinesSink } from "../../host/base/trace-json.ts";
import { HostDescriptionError } from "../../host/description.ts";
import { InjectionSyntaxError } from "../../host/host.ts";
import { EXIT_BUG, EXIT_FAILED, EXIT_MISSING, EXIT_PASS, UsageError } from "./exit-codes.ts";
import { summaryLines } from "./host-summary.ts";
import { fileProblem } from "./input-file.ts";
import { makeHost } from "./make-host.ts";
import { withSysfs } from "./program-arguments.ts";
import { beginRecording } from "./record-host.ts";
import { TraceFile } from "./trace-output.ts";

export interface HostServeOptions {
  readonly host?: string;
  readonly trace?: string;
  readonly time: "real" | "leap";
  readonly inject: readonly string[];
  readonly seed: number;
  readonly check?: "stale";
  readonly strict?: true;
  readonly ownPrivileges?: true;
  readonly quiet?: true;
  readonly selftest?: true;
  readonly dir?: string;
  readonly record?: string;
  readonly json?: string;
}

const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];

function say(line: string): void {
  console.error(`nestbox: ${line}`);
}

/** Runs a program on a host until it ends; its exit status, or why there is none. */
export async function runProgram(words: readonly string[], options: HostServeOptions): Promise<number> {
  const [name, ...rest] = words as [string, ...string[]];
  const program = findProgram(name);
  const why = whyNotPreloadable(program);
  if (why !== null) throw new UsageError(`host run: ${program} ${why}`);
  const serving = await begin(options);
  const environment = serving.service.environment(process.env.LD_PRELOAD);
  const devices = new Set(serving.service.host.devices.map((device) => device.name));
  const args = withSysfs(rest, environment.NESTBOX_SYS!, devices, (line) => say(`host run: ${line}`));
  const child = spawn(program, args, { argv0: name, stdio: "inherit", env: { ...process.env, ...environment } });
  // A terminal sends its signals to the program, too; others are passed on.
  const pass = (signal: NodeJS.Signals) => {
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, pass);
  const status = await new Promise<number>((done) => {
    child.on("error", (error) => {
      say(`host run: ${program}: ${error.message}`);
      done(127);
    });
    child.on("exit", (code, signal) => done(code ?? 128 + osConstants.signals[signal!]));
  });
  for (const signal of SIGNALS) process.off(signal, pass);
  const failed = await serving.end();
  return status === EXIT_PASS && failed ? EXIT_FAILED : status;
}

/** Serves a host until a signal. */
export async function serveHost(options: HostServeOptions & { readonly dir: string }): Promise<number> {
  const serving = await begin({ ...options, dir: resolve(options.dir) });
  for (const [name, value] of Object.entries(serving.service.environment()))
    console.log(`export ${name}='${value.replaceAll("'", `'\\''`)}'`);
  await new Promise<void>((done) => {
    for (const signal of SIGNALS) process.on(signal, () => done());
  });
  return (await serving.end()) ? EXIT_FAILED : EXIT_PASS;
}

interface Serving {
  readonly service: HostService;
  /** True if something is left of what programs made, and may not be; or a check has found something. */
  end(): Promise<boolean>;
}

/** What handlers of sockets and timers throw is a bug of ours, as anywhere. */
function sayBug(error: unknown): void {
  console.error("nestbox: this is a bug of nestbox's, please report it with the command line");
  console.error(error instanceof Error ? (error.stack ?? error.message) : error);
  process.exit(EXIT_BUG);
}

async function begin(options: HostServeOptions): Promise<Serving> {
  process.on("uncaughtException", sayBug);
  const libraries = builtLibraries();
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const file = options.trace === undefined ? null : new TraceFile(options.trace);
  const sink = file === null ? null : new JsonLinesSink((text) => file.write(text));
  if (sink !== null) trace.addSink(sink);
  let service: HostService;
  let recording: RecordingWriter | null = null;
  try {
    const linux = new LinuxOutside(say);
    if (options.record !== undefined) recording = beginRecording(options.record, options, say);
    const outside = recording === null ? linux : new RecordedOutside(linux, recording);
    const host = makeHost(options, clock, trace, outside, say);
    service = new HostService(host, outside, {
      ...libraries,
      asRoot: options.ownPrivileges !== true,
      ...(options.dir === undefined ? {} : { folder: options.dir }),
      between: (server) => (recording === null ? server : new RecordedEntry(server, recording)),
    });
    service.listen();
  } catch (error) {
    if (error instanceof InjectionSyntaxError) throw new UsageError(`--inject: ${error.message}`);
    const users = [HostFolderError, HostDescriptionError, BlockFileError, RecordingError];
    if (users.some((kind) => error instanceof kind)) throw new UsageError((error as Error).message);
    throw error;
  }
  // A bug of ours ends the recording, too.
  process.on("exit", () => recording?.close({ leftOver: null }));
  const closed = (leftOver: string) => {
    const complete = recording?.close({ leftOver }) ?? true;
    closeTrace(sink, file);
    return complete;
  };
  return { service, end: () => end(service, options, closed) };
}

function builtLibraries() {
  try {
    return { library: preloadLibrary(), socketCalls: loadSocketCalls(socketLibrary()) };
  } catch (error) {
    if (error instanceof LibraryMissing) throw new UsageError(error.message, EXIT_MISSING);
    throw error;
  }
}

/** When the program has ended: what its connections still hold is released first. */
async function end(
  service: HostService,
  options: HostServeOptions,
  closed: (leftOver: string) => boolean,
): Promise<boolean> {
  const { host, server, listener } = service;
  // The ends of connections of a process that is gone arrive one by one; children may live on.
  for (let turn = 0; turn < 100 && server.connected > 0; turn++) await new Promise((next) => setTimeout(next, 1));
  const held = server.connected;
  const left = host.leftOver;
  const summary = host.summary();
  if (options.quiet !== true) {
    const { calls, totalNs } = listener.statistics;
    say(`host: ${calls} requests, ${(calls === 0 ? 0 : totalNs / calls / 1000).toFixed(1)} us each`);
    if (calls === 0) say("host: the program opened nothing of the host (one that is linked statically cannot)");
    for (const line of summaryLines(summary)) say(`host: ${line}`);
    say(
      `host: left over: ${left === "" ? "nothing" : left}${held > 0 ? ` (held by ${held} open files and processes)` : ""}`,
    );
  }
  if (options.json !== undefined) {
    const { calls: requests, totalNs } = listener.statistics;
    writeJson(options.json, {
      requests,
      meanNs: Math.round(totalNs / Math.max(requests, 1)),
      ...summary,
      leftOver: left,
    });
  }
  const failed = host.failed() || (left !== "" && options.strict === true);
  service.close();
  host.close();
  return !closed(left) || failed;
}

function writeJson(file: string, summary: unknown): void {
  try {
    writeFileSync(file, `${JSON.stringify(summary)}\n`);
  } catch (error) {
    say(`--json ${file}: ${fileProblem(error)}`);
  }
}

function closeTrace(sink: JsonLinesSink | null, file: TraceFile | null): void {
  sink?.end();
  file?.close();
}

/** Path of a program as a shell finds it. Throws UsageError. */
function findProgram(name: string): string {
  const places = name.includes("/")
    ? [name]
    : (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name));
  for (const place of places) {
    try {
      accessSync(place, constants.X_OK);
      if (statSync(place).isFile()) return place;
    } catch {
      // The next one.
    }
  }
  throw new UsageError(`host run: ${name}: no such program`, 127);
}

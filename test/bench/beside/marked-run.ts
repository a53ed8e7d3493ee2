// A program that runs a guest, measured between two lines of the guest's: "bench: NAME begins", and "bench: NAME <what it computed>". CPU time is read
// from /proc when a line arrives (Linux: proc_pid_stat(5), proc_pid_status(5)), so what a start costs is no part of what the work costs.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

/** USER_HZ, the unit of times in /proc. */
const TICKS_PER_SECOND = 100;
const LONGEST_MS = 1_200_000;

export interface MarkedRun {
  /** User and system time of the whole process from its start to the first line, seconds. */
  readonly start: number;
  /** From there to the second. */
  readonly work: number;
  /** Most memory that it had resident until then, MiB. */
  readonly peakMiB: number;
  /** What the guest computed. */
  readonly result: string;
}

/** Runs a program to its end, without input. Rejects if it fails, or lacks a line. */
export async function markedRun(
  program: readonly string[],
  name: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<MarkedRun> {
  const [command, ...args] = program as [string, ...string[]];
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
    timeout: LONGEST_MS,
  });
  const begins = `bench: ${name} begins`;
  const ends = new RegExp(`bench: ${name} <(.*)>`);
  let output = "";
  let start = Number.NaN;
  let end: { readonly seconds: number; readonly peakMiB: number; readonly result: string } | null = null;
  const collect = (chunk: Buffer): void => {
    output += chunk.toString("latin1");
    if (Number.isNaN(start) && output.includes(begins)) start = cpuSecondsOf(child.pid!);
    if (end !== null) return;
    const result = ends.exec(output)?.[1];
    if (result !== undefined) end = { seconds: cpuSecondsOf(child.pid!), peakMiB: peakOf(child.pid!), result };
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const status = await new Promise<number | null>((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (status !== 0 || end === null || Number.isNaN(start)) {
    throw new Error(`${command} ended with ${status} at ${name}: ${output.slice(-400)}`);
  }
  const { seconds, peakMiB, result } = end as { seconds: number; peakMiB: number; result: string };
  return { start, work: seconds - start, peakMiB, result };
}

function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // the program's name, in brackets, may hold anything
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function peakOf(pid: number): number {
  const kib = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
  return Number(kib ?? Number.NaN) / 1024;
}

// CPU time of whole programs, for comparing two of them.
import { spawnSync } from "node:child_process";

export interface Measured {
  /** User and system time of the program, seconds. */
  readonly seconds: number;
  /** What it printed, standard error included. */
  readonly output: string;
}

/** Runs a program to its end, without input. `times` is POSIX: its second line is that of the shell's children. Throws if it fails. */
export function cpuSeconds(program: readonly string[], environment: Readonly<Record<string, string>> = {}): Measured {
  const shell = ["-c", '"$@" >&2 </dev/null || exit; times', "sh", ...program];
  const { stdout, stderr, status } = spawnSync("sh", shell, {
    encoding: "utf8",
    timeout: 1_200_000,
    maxBuffer: 64 << 20,
    env: { ...process.env, ...environment },
  });
  const line = /\n(\d+)m([\d.]+)s (\d+)m([\d.]+)s/.exec(stdout ?? "");
  if (status !== 0 || line === null) throw new Error(`${program[0]} ended with ${status}: ${stderr?.slice(-400)}`);
  const [userMinutes, user, systemMinutes, system] = line.slice(1).map(Number);
  return { seconds: userMinutes! * 60 + user! + systemMinutes! * 60 + system!, output: stderr };
}

export const median = (values: readonly number[]): number => values.toSorted((x, y) => x - y)[values.length >> 1]!;
export const rounded = (value: number): number => Number(value.toPrecision(3));

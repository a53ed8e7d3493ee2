// Runs the command as a user does.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
export const nestboxFile = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));

export interface CommandResult {
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

export function nestbox(...args: string[]): CommandResult {
  const result = spawnSync(process.execPath, ["vmm/cli/nestbox.mjs", ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
    // A command that hangs, not one that is slow: the machine may be busy.
    timeout: 500_000,
    maxBuffer: 256 * 2 ** 20,
  });
  return { status: result.status, output: result.stdout, errors: result.stderr };
}

export const fixture = (name: string) => `guest-fixtures/build/${name}.wasm`;

/** The JSON report: all of standard output. */
export function report(result: CommandResult): Record<string, unknown> {
  return JSON.parse(result.output) as Record<string, unknown>;
}

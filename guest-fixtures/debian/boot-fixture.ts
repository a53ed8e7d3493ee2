// Boots the Debian fixture with `nestbox boot` in a process of its own, a drive on a fresh disk image; collects what it prints.

import { spawn } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { DebianFixture } from "./recipe.ts";

/** The command line's program. */
export const nestbox = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));
const DISK_BYTES = 64 * 2 ** 20;

export interface FixtureBoot {
  readonly fixture: DebianFixture;
  /** Words for init.sh, such as nestbox.script. */
  readonly words: string;
  readonly cpus?: string;
  readonly memory?: string;
  /** Disk image; a fresh one, removed afterwards, if left out. */
  readonly disk?: string;
  /** Further options of `nestbox boot`. */
  readonly more?: readonly string[];
  /** Gives the terminal to the guest: nothing is collected. */
  readonly interactive?: boolean;
  /** Prints what the guest prints, too. */
  readonly echo?: boolean;
  /** Called with all that the guest prints, as it comes, and with what types on its console. Its time is then that of the wall. */
  readonly watch?: (output: string, type: (text: string) => void) => void;
}

export interface ConsoleLine {
  readonly text: string;
  /** Wall time since the process was started. */
  readonly ms: number;
}

export interface FixtureRun {
  readonly status: number;
  readonly lines: readonly ConsoleLine[];
}

export async function bootFixture(boot: FixtureBoot): Promise<FixtureRun> {
  const { fixture, interactive = false } = boot;
  const folder = mkdtempSync(join(tmpdir(), "nestbox-debian-"));
  const args = [nestbox, "boot", "--kernel", fixture.kernel, "--initrd", fixture.initrd];
  args.push("--nvme", boot.disk ?? freshDisk(folder), "--memory", boot.memory ?? "512M", "--cpus", boot.cpus ?? "1");
  if (!interactive) args.push("--wall-limit", "20m");
  // The kernel's own crypto self-tests are most of its boot, and say nothing about us.
  args.push("--append", `console=ttyS0 cryptomgr.notests ${boot.words}`.trim(), ...(boot.more ?? []));
  if (interactive || boot.watch !== undefined) args.push("--interactive");
  const started = performance.now();
  const outputs = interactive ? "inherit" : "pipe";
  const input = boot.watch === undefined ? "inherit" : "pipe";
  const child = spawn(process.execPath, args, { stdio: [input, outputs, outputs] });
  // the machine may be gone before it has read all
  child.stdin?.on("error", () => {});
  const lines: ConsoleLine[] = [];
  // With --report json the guest's console is on standard error.
  const collect = (from: Readable | null, to: NodeJS.WriteStream, echo: boolean): void => {
    let open = "";
    from?.on("data", (chunk: Buffer) => {
      if (echo) to.write(chunk);
      boot.watch?.(chunk.toString("latin1"), (text) => child.stdin?.write(text));
      const complete = (open + chunk.toString("latin1")).split("\n");
      open = complete.pop()!;
      const ms = performance.now() - started;
      for (const line of complete) lines.push({ text: line.replace(/\r$/, ""), ms });
    });
  };
  const toldJson = boot.more?.includes("json") === true;
  collect(child.stdout, process.stdout, boot.echo === true);
  collect(child.stderr, process.stderr, boot.echo === true || !toldJson);
  const status = await new Promise<number>((resolve) => child.on("close", (code) => resolve(code ?? 1)));
  rmSync(folder, { recursive: true, force: true });
  return { status, lines };
}

/** An empty disk image in `folder`. */
export function freshDisk(folder: string, bytes = DISK_BYTES): string {
  const disk = join(folder, "disk.img");
  const fd = openSync(disk, "w");
  ftruncateSync(fd, bytes);
  closeSync(fd);
  return disk;
}

/** The line of `nestbox boot --report json`. */
export function summaryOf(run: FixtureRun): Record<string, unknown> {
  const line = run.lines.findLast(({ text }) => text.startsWith("{"));
  return line === undefined ? {} : (JSON.parse(line.text) as Record<string, unknown>);
}

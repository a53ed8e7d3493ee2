// QEMU below `nestbox host run`: how the checks of this folder start it, what they look at afterwards, and how they say it.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freshDisk } from "../debian/boot-fixture.ts";

export const nestbox = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));
export const DRIVE = "0000:01:00.0";
export const LIMIT_MS = 300_000;
export const VERIFIED = /nestbox-demo: checksum verified: [0-9a-f]{64}/;

export const failures: string[] = [];

export function check(holds: boolean, what: string): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${what}`);
  if (!holds) failures.push(what);
}

export interface Run {
  readonly status: number | null;
  /** What guest, QEMU and nestbox said. */
  readonly output: string;
  readonly seconds: number;
}

export interface RunOptions {
  readonly host: readonly string[];
  readonly qemu: readonly string[];
  /** What QEMU's environment adds. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Called with all output so far. */
  readonly watch?: (output: string, child: ChildProcess) => void;
}

/** Runs QEMU below `nestbox host run`. */
export async function runOnHost({ host, qemu, environment, watch }: RunOptions): Promise<Run> {
  const started = performance.now();
  const child = spawn(process.execPath, [nestbox, "host", "run", "--strict", ...host, "--", ...qemu], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  let output = "";
  const collect = (chunk: Buffer): void => {
    output += chunk.toString("latin1");
    watch?.(output, child);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const limit = setTimeout(() => child.kill("SIGTERM"), LIMIT_MS);
  const status = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearTimeout(limit);
  return { status, output, seconds: (performance.now() - started) / 1000 };
}

/** The process that `nestbox host run` started. */
export function qemuOf(parent: number): number {
  return Number(readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim().split(" ")[0]);
}

export const nothingLeft = (run: Run): boolean => /^nestbox: host: left over: nothing\r?$/m.test(run.output);

/** What guest, QEMU and nestbox said of it, without the kernel's own lines. */
export function show(run: Run): void {
  for (const line of run.output.split("\n"))
    if (/^nestbox: |nestbox-(demo|domains)|qemu-system/.test(line)) console.log(`       ${line.trimEnd()}`);
}

/** A host with a drive behind an IOMMU; its description's file, and the drive's. */
export function describeHost(folder: string, kind: string): { readonly host: string; readonly disk: string } {
  const disk = freshDisk(folder);
  const host = join(folder, `${kind}.json`);
  const drive = { model: "nvme", bdf: DRIVE, iommu: "iommu0", options: { file: disk } };
  writeFileSync(host, JSON.stringify({ name: kind, iommus: [{ name: "iommu0", kind }], devices: [drive] }));
  return { host, disk };
}

/** The recording alone gives the trace again: neither QEMU nor the drive's file is there any more. */
export function checkReplay(recording: string, trace: string): void {
  const again = `${trace}.again`;
  const { status, stderr } = spawnSync(process.execPath, [nestbox, "replay", recording, "--trace", again], {
    encoding: "utf8",
  });
  const [then, now] = [trace, again].map((file) => createHash("sha256").update(readFileSync(file)).digest("hex"));
  console.log(`       recording: ${statSync(recording).size} bytes; trace: sha256 ${then}`);
  check(
    status === 0 && /all answers are those that were recorded/.test(stderr),
    `its recording is replayed (${status})`,
  );
  check(now === then, "and gives the same trace, byte for byte");
}

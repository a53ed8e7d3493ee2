// Results on record: rows beside what they were measured on, in test/bench/results/.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { rounded } from "./cpu-seconds.ts";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));

/** A run that began under more load than this shared its caches and its clock: a result of it says so. */
const IDLE = 0.3;

/** Writes results/NAME-DATE.json; `load`: runnable processes before the run, over a minute; `qemu`: the version compared with. */
export function storeResults(
  name: string,
  rows: readonly Record<string, unknown>[],
  load: number,
  qemu: string | null,
): void {
  const commit = spawnSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8", cwd: ROOT }).stdout?.trim();
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cpus: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    qemu,
    commit: commit === "" ? null : commit,
    load: rounded(load),
  };
  const provisional =
    load < IDLE ? {} : { provisional: "other programs ran on these CPUs meanwhile: measure again on an idle machine" };
  const results = join(ROOT, "test/bench/results");
  mkdirSync(results, { recursive: true });
  const date = new Date().toISOString().slice(0, 10);
  const file = join(results, `${name}-${date}.json`);
  writeFileSync(file, `${JSON.stringify({ date, ...provisional, machine, rows }, null, 2)}\n`);
  console.error(`bench: ${file}`);
}

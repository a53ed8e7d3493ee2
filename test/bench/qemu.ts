// `npm run bench -- qemu [--short] [--store]`: the same bare-metal RV64 guests here and on QEMU's virt machine (TCG), in pairs, one after the other; a
// row an operation, with the median rates of both and the median of the pairs' ratios. Rates are of CPU time (user and system of the whole
// process), between a short and a long run of the same guest, so that what a start costs falls out.
//
// QEMU is qemu-system-riscv64 from PATH, or what NESTBOX_QEMU names; it needs iommu-sys (11 or newer), and OpenSBI as Debian packages it. Without it
// each row says what is missing, and has our rate alone. `--short` takes one pair of half the length: a look, no measurement. `--store`
// writes the rows with the machine's description to test/bench/results/.
//
// The other rows of the comparison are booted Linux: `npm run compare:qemu`, and `bench -- boot nvme cpu` for our side alone.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { qemuHere } from "../../guest-fixtures/qemu-on-host/qemu.ts";
import { type Given, SHORT, STORE } from "./beside/benchmark.ts";
import { cpuSeconds, median, rounded } from "./beside/cpu-seconds.ts";
import { storeResults } from "./beside/results.ts";
import { type GuestOperation, guestFile, OPERATIONS } from "./guests/iommu-operations.ts";

/** The first whose virt machine has iommu-sys and that this was compared with. */
const OLDEST = 11;
const qemu = qemuHere("riscv64", OLDEST);
const PAIRS = 3;
/** Less CPU time than this between two runs says nothing. */
const SHORTEST_SECONDS = 0.05;
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

const ours = (image: string): string[] => {
  const options = ["--assign", "0000:00:01.0@00:01.0", "--memory", "64M", "--wall-limit", "5m"];
  return [process.execPath, join(ROOT, "vmm/cli/nestbox.mjs"), "boot", "--kernel", image, ...options];
};
const theirs = (image: string): string[] => {
  const machine = ["-machine", "virt,aia=aplic-imsic,iommu-sys=on", "-m", "64M", "-smp", "1"];
  return [
    ...(qemu?.command ?? []),
    ...machine,
    "-display",
    "none",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-kernel",
    image,
  ];
};

/** Units a second of CPU time; NaN (null in a row) if the runs were too short to tell. */
function rate(program: (image: string) => string[], images: readonly [string, string], units: number): number {
  const [short, long] = images.map((image) => cpuSeconds(program(image), qemu?.environment).seconds);
  const seconds = long! - short!;
  return seconds < SHORTEST_SECONDS ? Number.NaN : units / seconds;
}

function compare(operation: GuestOperation, folder: string, short: boolean, against: boolean): Record<string, unknown> {
  const long = short ? operation.count / 2 : operation.count;
  const counts = [long / 4, long];
  const images = counts.map((count, at) => {
    const file = join(folder, `${at}.elf`);
    writeFileSync(file, guestFile(operation.guest(count)));
    return file;
  }) as [string, string];
  const units = (counts[1]! - counts[0]!) * operation.units;
  const pairs = Array.from({ length: short ? 1 : PAIRS }, () => ({
    nestbox: rate(ours, images, units),
    qemu: against ? rate(theirs, images, units) : Number.NaN,
  }));
  const row = {
    unit: operation.unit,
    nestbox: rounded(median(pairs.map(({ nestbox }) => nestbox))),
    pairs: pairs.length,
  };
  if (!against) return row;
  const qemu = rounded(median(pairs.map((pair) => pair.qemu)));
  return { ...row, qemu, ratio: rounded(median(pairs.map((pair) => pair.nestbox / pair.qemu))) };
}

export const about = "bare-metal RV64 guests here and on QEMU: rates and ratios";
export const onRequest = true;
export const options = [SHORT, STORE];

export async function bench(emit: (line: Record<string, unknown>) => void, given: Given): Promise<void> {
  const short = given.short === true;
  const load = loadavg()[0]!;
  const lacks =
    qemu === null ? `no qemu-system-riscv64 ${OLDEST} or newer here (npm run compare:qemu fetches one)` : null;
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  const rows: Record<string, unknown>[] = [];
  try {
    for (const operation of OPERATIONS) {
      const row = { bench: `qemu/${operation.name}`, ...compare(operation, folder, short, lacks === null) };
      rows.push(lacks === null ? row : { ...row, missing: lacks });
      emit(rows.at(-1)!);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (given.store === true) {
    storeResults("qemu", rows, load, qemu?.version ?? null);
  }
}

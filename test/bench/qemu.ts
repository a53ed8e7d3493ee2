// `npm run bench -- qemu [--work=NAME,…] [--pairs=N] [--short] [--store]`: the same bare-metal RV64 guests here and on QEMU's virt machine (TCG), in pairs, one after the other; a
// row an operation, with the median rates of both and the median of the pairs' ratios. Rates are of CPU time (user and system of the whole
// process), between a short and a long run of the same guest, so that what a start costs falls out; both are made longer until that is enough to tell.
//
// QEMU is qemu-system-riscv64 from PATH, or what NESTBOX_QEMU names; it needs iommu-sys (11 or newer), and OpenSBI as Debian packages it. Without it
// each row says what is missing, and has our rate alone. `--short` takes one pair: a look, no measurement. `--store`
// writes the rows with the machine's description to test/bench/results/.
//
// The other rows of the comparison are booted Linux: `bench -- debian`.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freshDisk } from "../../guest-fixtures/debian/boot-fixture.ts";
import { qemuHere } from "../../guest-fixtures/qemu-on-host/qemu.ts";
import { type Given, PAIRS, SHORT, STORE, WORK } from "./beside/benchmark.ts";
import { cpuSeconds, median, rounded } from "./beside/cpu-seconds.ts";
import { storeResults } from "./beside/results.ts";
import type { GuestOperation } from "./guests/guest-operation.ts";
import { guestFile, IOMMU_OPERATIONS } from "./guests/iommu-operations.ts";
import { NVME_OPERATIONS } from "./guests/nvme-operations.ts";

/** The first whose virt machine has iommu-sys and that this was compared with. */
const OLDEST = 11;
const qemu = qemuHere("riscv64", OLDEST);
const DEFAULT_PAIRS = 3;
/**
 * Less CPU time than this between two runs says little: what V8 compiles beside a guest takes up to half a second in its first, and must lie within the short
 * run, too. `--short` makes do with less.
 */
const LONG_ENOUGH = 3;
const LONG_ENOUGH_FOR_A_LOOK = 0.3;
/** How many times longer than it begins with a guest's work may be made. */
const LONGEST = 64;
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

const OPERATIONS = [...IOMMU_OPERATIONS, ...NVME_OPERATIONS];

const ours = (image: string, drive: string | null): string[] => {
  const options = ["--assign", "0000:00:01.0@00:01.0", "--memory", "64M", "--wall-limit", "5m"];
  const nvme = drive === null ? [] : ["--nvme", drive];
  return [process.execPath, join(ROOT, "vmm/cli/nestbox.mjs"), "boot", "--kernel", image, ...options, ...nvme];
};
const theirs = (image: string, drive: string | null): string[] => {
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
    ...(drive === null ? [] : ["-drive", `if=none,id=drive,format=raw,file=${drive}`]),
    ...(drive === null ? [] : ["-device", "nvme,serial=nestbox,drive=drive,addr=10"]),
  ];
};

type Run = (image: string, drive: string | null) => string[];

/** Seconds of CPU time between two runs of a guest: one that does `count`, and one that does a quarter. */
function between(run: Run, operation: GuestOperation, count: number, folder: string): number {
  const [short, long] = [count / 4, count].map((times) => {
    const file = join(folder, "guest.elf");
    writeFileSync(file, guestFile(operation.guest(times)));
    const drive = operation.drive === true ? freshDisk(folder) : null;
    return cpuSeconds(run(file, drive), qemu?.environment).seconds;
  });
  return long! - short!;
}

/** Units a second of CPU time, of a guest whose work takes `enough` seconds; NaN (null in a row) if it does not however often it is done. */
function rate(run: Run, operation: GuestOperation, start: number, enough: number, folder: string): Rate {
  for (let count = start; ; count *= 2) {
    const seconds = between(run, operation, count, folder);
    if (seconds >= enough) return { count, perSecond: (count * 0.75 * operation.units) / seconds };
    if (count >= LONGEST * operation.count) return { count, perSecond: Number.NaN };
  }
}

interface Rate {
  /** Of operations that were enough. */
  readonly count: number;
  readonly perSecond: number;
}

function compare(operation: GuestOperation, folder: string, given: Given): Record<string, unknown> {
  const short = given.short === true;
  const enough = short ? LONG_ENOUGH_FOR_A_LOOK : LONG_ENOUGH;
  const pairs: { readonly nestbox: number; readonly qemu: number }[] = [];
  let [here, there] = [operation.count, operation.count];
  while (pairs.length < (given.pairs ?? (short ? 1 : DEFAULT_PAIRS))) {
    const nestbox = rate(ours, operation, here, enough, folder);
    here = nestbox.count;
    const other = qemu === null ? null : rate(theirs, operation, there, enough, folder);
    there = other?.count ?? there;
    pairs.push({ nestbox: nestbox.perSecond, qemu: other?.perSecond ?? Number.NaN });
  }
  const row = {
    unit: operation.unit,
    nestbox: rounded(median(pairs.map(({ nestbox }) => nestbox))),
    pairs: pairs.length,
  };
  if (qemu === null) return row;
  const rates = rounded(median(pairs.map((pair) => pair.qemu)));
  return { ...row, qemu: rates, ratio: rounded(median(pairs.map((pair) => pair.nestbox / pair.qemu))) };
}

export const about = "bare-metal RV64 guests here and on QEMU: rates and ratios";
export const onRequest = true;
export const works = OPERATIONS.map(({ work }) => work);
export const options = [WORK, PAIRS, SHORT, STORE];

export async function bench(emit: (line: Record<string, unknown>) => void, given: Given): Promise<void> {
  const load = loadavg()[0]!;
  const lacks =
    qemu === null ? `no qemu-system-riscv64 ${OLDEST} or newer here (npm run compare:qemu fetches one)` : null;
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  const rows: Record<string, unknown>[] = [];
  try {
    for (const operation of OPERATIONS) {
      if (given.work?.includes(operation.work) === false) continue;
      const row = { bench: `qemu/${operation.name}`, ...compare(operation, folder, given) };
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

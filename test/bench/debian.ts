// `npm run bench -- debian [--arch=riscv64|arm64] [--work=NAME,…] [--pairs=N] [--short] [--store]`: a stock Debian kernel here and on QEMU (TCG), the
// same kernel, initramfs and work, in pairs one after the other. A row a workload, as soon as it is measured: CPU time (user and system of the whole
// process) of both and the median of the pairs' ratios, below 1 where nestbox is faster. `boot` is from the start of the process until the guest has found
// its drive, the others from there until the work is done. `memory` is the most that the process had resident while a guest of 512 MiB booted and did `ext4`.
// What the guests print must be the same.
//
// QEMU is found as everywhere (guest-fixtures/qemu-on-host); arm64 is compared with -cpu cortex-a53. The fixture is the cached one (npm run fixture:debian),
// and so are the programs that busybox has not (… -- --programs). Where one of them is missing a row says so. `--short` takes one pair of the four rows that
// every change should hold; `--store` writes them to test/bench/results/.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Option } from "commander";
import { freshDisk } from "../../guest-fixtures/debian/boot-fixture.ts";
import { cpio, EXECUTABLE } from "../../guest-fixtures/debian/cpio.ts";
import { cachedPrograms } from "../../guest-fixtures/debian/programs-archive.ts";
import { type BootedArchitecture, cachedFixture, type DebianFixture } from "../../guest-fixtures/debian/recipe.ts";
import { type Qemu, qemuHere } from "../../guest-fixtures/qemu-on-host/qemu.ts";
import { type Given, PAIRS, SHORT, STORE, WORK } from "./beside/benchmark.ts";
import { median, rounded } from "./beside/cpu-seconds.ts";
import { type MarkedRun, markedRun } from "./beside/marked-run.ts";
import { storeResults } from "./beside/results.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const SCRIPT = join(ROOT, "test/bench/guests/debian-workloads.sh");
const OLDEST = 11;
/** What a start costs. */
const BOOT = "boot";
/** A row about memory, and the work that it is of. */
const MEMORY = "memory";
const REMEMBERED = "ext4";
const FEW = [BOOT, "loop", "sha256", "reads"];
/** By busybox alone, and by Debian's programs. */
const OF_BUSYBOX = [...FEW, "sequential", "gzip", "gunzip", "bzip2", "awk", "sort", "find", "fork", "pipes"];
const OF_PROGRAMS = ["xz", "unxz", "mawk", "perl", "python", "openssl", "ext4", MEMORY];
const ALL = [...OF_BUSYBOX, ...OF_PROGRAMS];

const MACHINES: Readonly<Record<BootedArchitecture, { qemu: "riscv64" | "aarch64"; options: readonly string[] }>> = {
  riscv64: { qemu: "riscv64", options: ["-machine", "virt,aia=aplic-imsic,iommu-sys=on"] },
  arm64: { qemu: "aarch64", options: ["-machine", "virt,gic-version=2,iommu=smmuv3", "-cpu", "cortex-a53"] },
};

interface Guest {
  readonly kernel: string;
  readonly initrd: string;
  /** An empty drive of its own for every run. */
  readonly disk: () => string;
}

function append(work: string, console_: string): string {
  return `console=${console_} cryptomgr.notests quiet rdinit=/bench bench.work=${work}`;
}

function ours(guest: Guest, work: string): Promise<MarkedRun> {
  const images = ["--kernel", guest.kernel, "--initrd", guest.initrd, "--nvme", guest.disk()];
  const options = ["--memory", "512M", "--wall-limit", "20m", "--append", append(work, "ttyS0")];
  return markedRun([process.execPath, join(ROOT, "vmm/cli/nestbox.mjs"), "boot", ...images, ...options], work);
}

function theirs(qemu: Qemu, architecture: BootedArchitecture, guest: Guest, work: string): Promise<MarkedRun> {
  const console_ = architecture === "arm64" ? "ttyAMA0" : "ttyS0";
  const images = ["-kernel", guest.kernel, "-initrd", guest.initrd, "-append", append(work, console_)];
  const drive = [
    "-drive",
    `if=none,id=drive,format=raw,file=${guest.disk()}`,
    "-device",
    "nvme,serial=nestbox,drive=drive",
  ];
  const machine = [...MACHINES[architecture].options, "-m", "512M", "-smp", "1", "-nic", "none"];
  const outside = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"];
  return markedRun([...qemu.command, ...machine, ...outside, ...images, ...drive], work, qemu.environment);
}

interface Pair {
  readonly nestbox: MarkedRun;
  readonly qemu: MarkedRun | null;
}

async function measure(qemu: Qemu | null, architecture: BootedArchitecture, guest: Guest, work: string): Promise<Pair> {
  const here = await ours(guest, work);
  if (qemu === null) return { nestbox: here, qemu };
  const there = await theirs(qemu, architecture, guest, work);
  if (here.result !== there.result && work !== "find") {
    throw new Error(`${work}: ${here.result} here, ${there.result} on QEMU`);
  }
  return { nestbox: here, qemu: there };
}

/** What a row says of its pairs; `figure`: of one run. */
function figures(unit: string, pairs: readonly Pair[], figure: (run: MarkedRun) => number): Record<string, unknown> {
  const here = pairs.map(({ nestbox }) => figure(nestbox));
  const row = { unit, nestbox: rounded(median(here)), pairs: pairs.length };
  const there = pairs.flatMap(({ qemu }) => (qemu === null ? [] : figure(qemu)));
  if (there.length === 0) return row;
  const ratio = rounded(median(here.map((value, at) => value / there[at]!)));
  return { ...row, qemu: rounded(median(there)), ratio };
}

function rowOf(work: string, pairs: readonly Pair[]): Record<string, unknown> {
  if (work === MEMORY) return figures("MiB at most", pairs, ({ peakMiB }) => peakMiB);
  return figures("s of CPU time", pairs, ({ start, work: took }) => (work === BOOT ? start : took));
}

/** The fixture's initramfs and behind it others, with `programs` and the script: the kernel unpacks all. */
function guestOf(fixture: DebianFixture, programs: string | null, folder: string): Guest {
  const script = cpio([{ path: "bench", mode: EXECUTABLE, data: readFileSync(SCRIPT) }]);
  const initrd = join(folder, programs === null ? "busybox.cpio" : "programs.cpio");
  const parts = [fixture.initrd, ...(programs === null ? [] : [programs])].map((file) => readFileSync(file));
  writeFileSync(initrd, Buffer.concat([...parts, script]));
  return { kernel: fixture.kernel, initrd, disk: () => freshDisk(folder) };
}

export const about = "a stock Debian kernel's start and work here and on QEMU, in CPU time";
export const onRequest = true;
export const works = ALL;
export const options = [
  new Option("--arch <architecture>", "one alone").choices(["riscv64", "arm64"]),
  WORK,
  PAIRS,
  SHORT,
  STORE,
];

/** Every row of an architecture, as soon as it is measured. */
async function* rowsOf(
  architecture: BootedArchitecture,
  asked: readonly string[],
  count: number,
  folder: string,
): AsyncGenerator<Record<string, unknown>> {
  const fixture = cachedFixture(undefined, architecture);
  if (fixture === null) {
    yield { bench: `debian/${architecture}`, skipped: "the fixture is not cached; npm run fixture:debian fetches it" };
    return;
  }
  const { qemu: program } = MACHINES[architecture];
  const qemu = qemuHere(program, OLDEST);
  const lacks = qemu === null ? { missing: `qemu-system-${program} ${OLDEST} or newer` } : {};
  const programs = cachedPrograms(architecture);
  const measured = new Map<string, readonly Pair[]>();
  for (const work of asked) {
    const bench = `debian/${architecture}/${work}`;
    const ofPrograms = OF_PROGRAMS.includes(work);
    if (ofPrograms && programs === null) {
      const fetched = `npm run fixture:debian -- --arch ${architecture} --programs`;
      yield { bench, skipped: `the programs are not cached; ${fetched} fetches them` };
      continue;
    }
    const guest = guestOf(fixture, ofPrograms ? programs : null, folder);
    const does = work === MEMORY ? REMEMBERED : work;
    const pairs: Pair[] = [];
    while (!measured.has(does) && pairs.length < count) pairs.push(await measure(qemu, architecture, guest, does));
    if (pairs.length > 0) measured.set(does, pairs);
    yield { bench, ...rowOf(work, measured.get(does)!), ...lacks };
  }
}

export async function bench(emit: (line: Record<string, unknown>) => void, given: Given): Promise<void> {
  const short = given.short === true;
  const asked = given.work ?? (short ? FEW : ALL);
  const pairs = given.pairs ?? (short ? 1 : 3);
  const load = loadavg()[0]!;
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  const rows: Record<string, unknown>[] = [];
  let version: string | null = null;
  try {
    for (const architecture of ["arm64", "riscv64"] as const) {
      if (given.arch !== undefined && given.arch !== architecture) continue;
      version = qemuHere(MACHINES[architecture].qemu, OLDEST)?.version ?? version;
      for await (const row of rowsOf(architecture, asked, pairs, folder)) {
        rows.push(row);
        emit(row);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (given.store === true) storeResults("debian", rows, load, version);
}

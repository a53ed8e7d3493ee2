// `npm run bench -- debian [--arch=riscv64|arm64] [--work=NAME,…] [--pairs=N] [--short] [--store]`: a stock Debian kernel here and on QEMU (TCG), the
// same kernel, initramfs and work, in pairs one after the other. A row a workload: CPU time (user and system of the whole process) of both and the
// median of the pairs' ratios, below 1 where nestbox is faster. `boot` is from the start of the process to the guest's power-off, its drive found;
// the others are what they take beyond that pair's boot. What the guests print must be the same.
//
// QEMU is found as everywhere (guest-fixtures/qemu-on-host); arm64 is compared with -cpu cortex-a53. The fixture is the cached one (npm run fixture:debian). Where one of them is
// missing a row says so. `--short` takes one pair of the four rows that every change should hold; `--store` writes them to test/bench/results/.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InvalidArgumentError, Option } from "commander";
import { freshDisk } from "../../guest-fixtures/debian/boot-fixture.ts";
import { cpio, EXECUTABLE } from "../../guest-fixtures/debian/cpio.ts";
import { type BootedArchitecture, cachedFixture } from "../../guest-fixtures/debian/recipe.ts";
import { type Qemu, qemuHere } from "../../guest-fixtures/qemu-on-host/qemu.ts";
import { type Given, PAIRS, SHORT, STORE } from "./beside/benchmark.ts";
import { cpuSeconds, type Measured, median, rounded } from "./beside/cpu-seconds.ts";
import { storeResults } from "./beside/results.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const SCRIPT = join(ROOT, "test/bench/guests/debian-workloads.sh");
const OLDEST = 11;
/** The first is what a start costs. */
const FEW = ["boot", "loop", "sha256", "reads"];
const ALL = [...FEW, "sequential", "gzip", "gunzip", "bzip2", "awk", "sort", "find", "fork", "pipes"];

const MACHINES: Readonly<Record<BootedArchitecture, { qemu: "riscv64" | "aarch64"; options: readonly string[] }>> = {
  riscv64: { qemu: "riscv64", options: ["-machine", "virt,aia=aplic-imsic,iommu-sys=on"] },
  arm64: { qemu: "aarch64", options: ["-machine", "virt,gic-version=2,iommu=smmuv3", "-cpu", "cortex-a53"] },
};

interface Guest {
  readonly kernel: string;
  readonly initrd: string;
  readonly disk: string;
}

function append(work: string, console_: string): string {
  return `console=${console_} cryptomgr.notests quiet rdinit=/bench bench.work=${work}`;
}

function ours(guest: Guest, work: string): Measured {
  const images = ["--kernel", guest.kernel, "--initrd", guest.initrd, "--nvme", guest.disk];
  const options = ["--memory", "512M", "--wall-limit", "20m", "--append", append(work, "ttyS0")];
  return cpuSeconds([process.execPath, join(ROOT, "vmm/cli/nestbox.mjs"), "boot", ...images, ...options]);
}

function theirs(qemu: Qemu, architecture: BootedArchitecture, guest: Guest, work: string): Measured {
  const console_ = architecture === "arm64" ? "ttyAMA0" : "ttyS0";
  const images = ["-kernel", guest.kernel, "-initrd", guest.initrd, "-append", append(work, console_)];
  const drive = [
    "-drive",
    `if=none,id=drive,format=raw,file=${guest.disk}`,
    "-device",
    "nvme,serial=nestbox,drive=drive",
  ];
  const machine = [...MACHINES[architecture].options, "-m", "512M", "-smp", "1", "-nic", "none"];
  const outside = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"];
  return cpuSeconds([...qemu.command, ...machine, ...outside, ...images, ...drive], qemu.environment);
}

/** What the guest computed. */
function resultOf({ output }: Measured, work: string): string {
  const line = new RegExp(`bench: ${work} <(.*?)>`).exec(output)?.[1];
  if (line === undefined) throw new Error(`a guest never printed its result of ${work}: ${output.slice(-400)}`);
  return line;
}

interface Pair {
  readonly nestbox: number;
  readonly qemu: number;
}

function measure(qemu: Qemu | null, architecture: BootedArchitecture, guest: Guest, work: string): Pair {
  const here = ours(guest, work);
  if (qemu === null) return { nestbox: here.seconds, qemu: Number.NaN };
  const there = theirs(qemu, architecture, guest, work);
  const [mine, other] = [resultOf(here, work), resultOf(there, work)];
  if (mine !== other && work !== "find") throw new Error(`${work}: ${mine} here, ${other} on QEMU`);
  return { nestbox: here.seconds, qemu: there.seconds };
}

/** The pairs of each workload, `boot` as it is and the others beyond it. */
function rounds(count: number, works: readonly string[], take: (work: string) => Pair): Map<string, Pair[]> {
  const all = new Map<string, Pair[]>();
  for (let round = 0; round < count; round++) {
    const boot = take("boot");
    for (const work of works) {
      const whole = work === "boot" ? boot : take(work);
      const net = work === "boot" ? whole : { nestbox: whole.nestbox - boot.nestbox, qemu: whole.qemu - boot.qemu };
      all.set(work, [...(all.get(work) ?? []), net]);
    }
  }
  return all;
}

function rowOf(architecture: BootedArchitecture, work: string, pairs: readonly Pair[]): Record<string, unknown> {
  const row = {
    bench: `debian/${architecture}/${work}`,
    unit: "s of CPU time",
    nestbox: rounded(median(pairs.map(({ nestbox }) => nestbox))),
    pairs: pairs.length,
  };
  if (pairs.some(({ qemu }) => Number.isNaN(qemu))) return row;
  const ratio = rounded(median(pairs.map(({ nestbox, qemu }) => nestbox / qemu)));
  return { ...row, qemu: rounded(median(pairs.map(({ qemu }) => qemu))), ratio };
}

/** The fixture's initramfs and behind it another, with the script: the kernel unpacks both. */
function guestOf(architecture: BootedArchitecture, folder: string): Guest | null {
  const fixture = cachedFixture(undefined, architecture);
  if (fixture === null) return null;
  const script = cpio([{ path: "bench", mode: EXECUTABLE, data: readFileSync(SCRIPT) }]);
  const initrd = join(folder, `${architecture}.cpio`);
  writeFileSync(initrd, Buffer.concat([readFileSync(fixture.initrd), script]));
  return { kernel: fixture.kernel, initrd, disk: freshDisk(folder) };
}

export const about = "a stock Debian kernel's start and work here and on QEMU, in CPU time";
export const onRequest = true;
export const options = [
  new Option("--arch <architecture>", "one alone").choices(["riscv64", "arm64"]),
  new Option("--work <name,…>", `of ${ALL.join(", ")}`).argParser(worksOf),
  PAIRS,
  SHORT,
  STORE,
];

function worksOf(text: string): readonly string[] {
  const works = text.split(",");
  const unknown = works.find((work) => !ALL.includes(work));
  if (unknown !== undefined)
    throw new InvalidArgumentError(`There is no work "${unknown}"; there are ${ALL.join(", ")}.`);
  return works;
}

export async function bench(emit: (line: Record<string, unknown>) => void, given: Given): Promise<void> {
  const short = given.short === true;
  const works = given.work ?? (short ? FEW : ALL);
  const pairs = given.pairs ?? (short ? 1 : 3);
  const load = loadavg()[0]!;
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  const rows: Record<string, unknown>[] = [];
  let version: string | null = null;
  try {
    for (const architecture of ["arm64", "riscv64"] as const) {
      if (given.arch !== undefined && given.arch !== architecture) continue;
      const guest = guestOf(architecture, folder);
      if (guest === null) {
        emit({
          bench: `debian/${architecture}`,
          skipped: "the fixture is not cached; npm run fixture:debian fetches it",
        });
        continue;
      }
      const { qemu: program } = MACHINES[architecture];
      const qemu = qemuHere(program, OLDEST);
      const lacks = qemu === null ? { missing: `qemu-system-${program} ${OLDEST} or newer` } : {};
      version = qemu?.version ?? version;
      for (const [work, measured] of rounds(pairs, works, (it) => measure(qemu, architecture, guest, it))) {
        rows.push({ ...rowOf(architecture, work, measured), ...lacks });
        emit(rows.at(-1)!);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (given.store === true) storeResults("debian", rows, load, version);
}

// Unmodified programs on a modelled host (`nestbox host run`): register accesses, mappings, interrupts and NVMe reads of C programs, and the NVMe
// drive of a Debian arm64 guest in QEMU, timed by the guest's clock, which is the wall's. Beside the guest's figures stand those of the same guest
// with QEMU's own NVMe controller on a drive of zeroes, in turns: what is left between them is the model's, however busy the machine is. Rows
// have a goal, and what a prototype did on an idle machine. --store keeps them; says why it skips what is not here.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cachedFixture } from "../../guest-fixtures/debian/recipe.ts";
import { machineOf, type Qemu, qemuHere } from "../../guest-fixtures/qemu-on-host/qemu.ts";
import { type Given, STORE } from "./beside/benchmark.ts";
import { storeResults } from "./beside/results.ts";

type Row = Record<string, unknown>;
type Emit = (line: Row) => void;
const root = fileURLToPath(new URL("../../..", import.meta.url));
const nestbox = join(root, "vmm/cli/nestbox.mjs");
const ROUNDS = 3;
const EDU = "0000:00:01.0";
const DRIVE = "0000:01:00.0";
const READS = 4096;
/** Pairs of runs with and without a recording, and the reads of one: as many before, to warm up. */
const PAIRS = 5;
const DRIVER_READS = 10_000;
const MIB = 64;

export const about = "unmodified programs and QEMU on a modelled host";
export const options = [STORE];

export async function bench(print: Emit, given: Given): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  const load = loadavg()[0]!;
  const rows: Row[] = [];
  const emit = (row: Row): void => {
    rows.push(row);
    print(row);
  };
  const qemu = qemuHere();
  try {
    const host = join(folder, "host.json");
    const drive = { model: "nvme", bdf: DRIVE, iommu: "iommu0" };
    writeFileSync(
      host,
      JSON.stringify({ name: "bench", iommus: [{ name: "iommu0", kind: "riscv" }], devices: [drive] }),
    );
    programs(emit, folder, host);
    await guest(emit, qemu, host);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (given.store === true) storeResults("host-run", rows, load, qemu?.version ?? null);
}

function median(figures: readonly number[]): number {
  return [...figures].sort((a, b) => a - b)[figures.length >> 1]!;
}

/** A C program of the tests, built; null without a compiler. */
function built(folder: string, name: string): string | null {
  const client = join(folder, name);
  const { status } = spawnSync("cc", ["-O1", "-o", client, join(root, `test/host/adapters/${name}.c`)]);
  return status === 0 ? client : null;
}

/** What a program measures on a host. */
function measured(words: readonly string[], host: readonly string[]): Record<string, number> {
  const command = [nestbox, "host", "run", "--quiet", "--strict", ...host, "--", ...words];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: "utf8" });
  if (status !== 0) throw new Error(`host run ended with ${status}: ${stderr.slice(-400)}`);
  return JSON.parse(stdout) as Record<string, number>;
}

function programs(emit: Emit, folder: string, host: string): void {
  const vfio = built(folder, "vfio-program");
  const nvme = built(folder, "nvme-program");
  if (vfio === null || nvme === null) {
    emit({ bench: "host-run", skipped: "no C compiler here" });
    return;
  }
  const registers = Array.from({ length: ROUNDS }, () => measured([vfio, "bench", EDU], []));
  const figures = [
    { key: "barReadUs", bench: "4-byte BAR read", goal: 25, prototype: 59 },
    { key: "barWriteUs", bench: "4-byte BAR write, many and then a read", goal: 25, prototype: 53 },
    { key: "mapUnmapUs", bench: "IOAS_MAP and UNMAP of 4 KiB", goal: 120, prototype: 361 },
    { key: "raiseUs", bench: "register write that raises an MSI, until the eventfd is read", goal: 80, prototype: 183 },
  ];
  for (const { key, bench, goal, prototype } of figures) {
    emit({ bench: `host run: ${bench}`, us: median(registers.map((round) => round[key]!)), goal, prototype });
  }
  // In turns, so that a pair sees the same machine.
  const reading = [nvme, "bench", DRIVE, String(DRIVER_READS)];
  const file = join(folder, "recording");
  const pairs = Array.from({ length: PAIRS }, () => {
    const plain = measured(reading, ["--host", host]);
    return { plain, recorded: measured(reading, ["--host", host, "--record", file]) };
  });
  const of = (key: string): number => median(pairs.map(({ plain }) => plain[key]!));
  emit({
    ...{ bench: "host run: NVMe read of 4 KiB by a driver in user space", us: of("nvmeReadUs") },
    ...{ serverCpuUs: of("serverCpuUs"), programCpuUs: of("programCpuUs") },
  });
  const cpuOfRead = (run: Record<string, number>): number => run.serverCpuUs! + run.programCpuUs!;
  const ratios = (cost: (run: Record<string, number>) => number): number =>
    Number(median(pairs.map(({ plain, recorded }) => cost(recorded) / cost(plain))).toPrecision(4));
  emit({
    ...{ bench: "host run: the same with --record", times: ratios((run) => run.nvmeReadUs!), goal: 1.05 },
    ...{ cpuTimes: ratios(cpuOfRead), bytesARead: Math.round(statSync(file).size / (2 * DRIVER_READS)) },
  });
}

interface GuestFigures {
  readonly iops: number;
  readonly mibPerSecond: number;
  /** CPU time of one random read, in us: of QEMU, and of the host where there is one. */
  readonly qemuCpuUs: number;
  readonly hostCpuUs: number;
}

async function guest(emit: Emit, qemu: Qemu | null, host: string): Promise<void> {
  const fixture = cachedFixture(undefined, "arm64");
  if (qemu === null || fixture === null) {
    emit({ bench: "host-run", skipped: "QEMU or the arm64 fixture is not here; npm run check:host-run fetches them" });
    return;
  }
  const machine = [...machineOf(qemu, fixture, "nestbox.bench"), "-M", "virt"];
  const assigned = [...machine, "-device", `vfio-pci,host=${DRIVE},iommufd=iommufd0`];
  const zeroes = `if=none,id=zeroes,driver=null-co,size=${MIB}M,read-zeroes=on`;
  // Alone it finds no /dev/iommu.
  const alone = machine.filter((word) => word !== "-object" && !word.startsWith("iommufd,"));
  const own = [...alone, "-drive", zeroes, "-device", "nvme,serial=zeroes,drive=zeroes"];
  const here: GuestFigures[] = [];
  const qemus: GuestFigures[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const words = [process.execPath, nestbox, "host", "run", "--quiet", "--strict", "--host", host, "--", ...assigned];
    here.push(await guestRun(words, qemu));
    qemus.push(await guestRun(own, qemu));
  }
  const of = (key: keyof GuestFigures, runs = here): number => Math.round(median(runs.map((run) => run[key])));
  emit({
    ...{ bench: "host run: QEMU guest, NVMe direct reads of 4 KiB, one at a time", iops: of("iops") },
    ...{ best: Math.round(Math.max(...here.map(({ iops }) => iops))), goal: 2000, prototype: 885 },
    ...{ hostCpuUs: of("hostCpuUs"), qemuCpuUs: of("qemuCpuUs") },
    ...{ qemusOwn: of("iops", qemus), qemusOwnCpuUs: of("qemuCpuUs", qemus) },
    ratio: Number(median(here.map(({ iops }, round) => iops / qemus[round]!.iops)).toPrecision(3)),
  });
  emit({
    ...{ bench: "host run: QEMU guest, NVMe direct sequential reads of 1 MiB", mibPerSecond: of("mibPerSecond") },
    ...{ goal: 286, prototype: 305, qemusOwn: of("mibPerSecond", qemus) },
  });
}

/** Runs a guest that reads from its drive, and says when it begins and ends. */
async function guestRun(words: readonly string[], { environment }: Qemu): Promise<GuestFigures> {
  const child = spawn(words[0]!, words.slice(1), {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  let output = "";
  const cpu: { host: number; qemu: number }[] = [];
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString("latin1");
    const said = /random ends/.test(output) ? 2 : /random begins/.test(output) ? 1 : 0;
    while (cpu.length < said) cpu.push(cpuOf(child.pid!));
  });
  child.stderr.on("data", (chunk: Buffer) => {
    output += chunk.toString("latin1");
  });
  const status = await new Promise<number | null>((done) => child.on("close", done));
  if (status !== 0) throw new Error(`the guest's run ended with ${status}: ${output.slice(-400)}`);
  const [before, after] = cpu as [{ host: number; qemu: number }, { host: number; qemu: number }];
  return {
    iops: READS / seconds(output, "random"),
    mibPerSecond: MIB / seconds(output, "sequential"),
    qemuCpuUs: (after.qemu - before.qemu) / READS,
    hostCpuUs: (after.host - before.host) / READS,
  };
}

/** CPU time so far, in us, of QEMU and of the host that it is the child of; or of QEMU alone. */
function cpuOf(pid: number): { host: number; qemu: number } {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim().split(" ");
  return child ? { host: cpuUs(pid), qemu: cpuUs(Number(child)) } : { host: 0, qemu: cpuUs(pid) };
}

/** utime and stime, in ticks of 10 ms. */
function cpuUs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const [user, system] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13);
  return (Number(user) + Number(system)) * 10_000;
}

/** Between "nestbox-bench: NAME begins at T" and "… ends at T". */
function seconds(output: string, name: string): number {
  const at = (what: string): number => Number(new RegExp(`${name} ${what} at ([\\d.]+)`).exec(output)?.[1]);
  const between = at("ends") - at("begins");
  if (!(between > 0)) throw new Error(`the guest measured no ${name} reads: ${output.slice(-400)}`);
  return between;
}

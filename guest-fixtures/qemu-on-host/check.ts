// `npm run check:host-run`: unmodified QEMU on a modelled host. It boots Debian arm64 with an NVMe drive of the host's, by iommufd, behind the
// modelled IOMMU, RISC-V or SMMUv3; the guest makes a file system on it and verifies a checksum; the run is recorded, and its replay gives the same trace. Then
// with its RAM in a memfd, killed in the middle; with an IOMMU_IOAS_MAP that fails; and on a host that is served to it by another process. Nothing may be
// left in the host. 77 where QEMU or the guest cannot be had.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freshDisk } from "../debian/boot-fixture.ts";
import { type DebianFixture, debianFixture, MissingHere } from "../debian/recipe.ts";
import { findQemu, machineOf, type Qemu } from "./qemu.ts";

const nestbox = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));
const DRIVE = "0000:01:00.0";
const LIMIT_MS = 300_000;

const failures: string[] = [];
function check(holds: boolean, what: string): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${what}`);
  if (!holds) failures.push(what);
}

interface Run {
  readonly status: number | null;
  /** What guest, QEMU and nestbox said. */
  readonly output: string;
  readonly seconds: number;
}

interface RunOptions {
  readonly host: readonly string[];
  readonly qemu: readonly string[];
  /** Called with all output so far. */
  readonly watch?: (output: string, child: ChildProcess) => void;
}

/** Runs QEMU below `nestbox host run`. */
async function runOnHost({ host, qemu, watch }: RunOptions): Promise<Run> {
  const started = performance.now();
  const child = spawn(process.execPath, [nestbox, "host", "run", "--strict", ...host, "--", ...qemu], {
    stdio: ["ignore", "pipe", "pipe"],
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

const machine = (qemu: Qemu, fixture: DebianFixture): string[] => machineOf(qemu, fixture, "nestbox.script");

const nothingLeft = (run: Run): boolean => /^nestbox: host: left over: nothing\r?$/m.test(run.output);

function show(run: Run): void {
  for (const line of run.output.split("\n"))
    if (/^nestbox: |nestbox-demo|qemu-system/.test(line)) console.log(`       ${line.trimEnd()}`);
}

/** A host with a drive behind an IOMMU; its description's file, and the drive's. */
function describeHost(folder: string, kind: string): { readonly host: string; readonly disk: string } {
  const disk = freshDisk(folder);
  const host = join(folder, `${kind}.json`);
  const drive = { model: "nvme", bdf: DRIVE, iommu: "iommu0", options: { file: disk } };
  writeFileSync(host, JSON.stringify({ name: kind, iommus: [{ name: "iommu0", kind }], devices: [drive] }));
  return { host, disk };
}

async function checkBoot(qemu: Qemu, fixture: DebianFixture, folder: string, kind: string): Promise<void> {
  const { host, disk } = describeHost(folder, kind);
  console.log(`       behind an IOMMU of the kind ${kind}`);
  const drive = ["-M", "virt", "-device", `vfio-pci,host=${DRIVE},iommufd=iommufd0`];
  const [recording, trace] = [join(folder, `${kind}.nestbox`), join(folder, `${kind}.jsonl`)];
  const run = await runOnHost({
    host: ["--host", host, "--check", "stale", "--record", recording, "--trace", trace],
    qemu: [...machine(qemu, fixture), ...drive],
  });
  show(run);
  check(
    run.status === 0,
    `QEMU boots Debian arm64 and ends with exit status 0 (${run.status}, ${run.seconds.toFixed(0)} s)`,
  );
  check(/nestbox-demo: checksum verified: [0-9a-f]{64}/.test(run.output), "the guest verified its file's checksum");
  check(/IOMMU_IOAS_MAP \d+/.test(run.output), "QEMU mapped guest RAM by iommufd");
  check(
    /DMA: \d+ transfers, \d{7,} bytes, 0 aborted, [1-9]\d* MSIs, 0 IOMMU faults/.test(run.output),
    "the drive moved the data without an IOMMU fault, and its interrupts were MSIs",
  );
  check(nothingLeft(run), "nothing is left in the host");
  check(/stale accesses: 0\r?$/m.test(run.output), "no DMA went by a translation that the tables no longer held");
  // The guest's partition table is in the drive's file: its bytes came through the IOMMU.
  const sector = readFileSync(disk).subarray(0, 512);
  check(
    sector[510] === 0x55 && sector[511] === 0xaa,
    "the drive's file holds the partition table that the guest wrote",
  );
  rmSync(disk);
  checkReplay(recording, trace);
}

/** The recording alone gives the trace again: neither QEMU nor the drive's file is there any more. */
function checkReplay(recording: string, trace: string): void {
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

async function checkKilled(qemu: Qemu, fixture: DebianFixture, host: string): Promise<void> {
  const ram = ["-object", "memory-backend-memfd,id=ram,size=512M,share=on", "-M", "virt,memory-backend=ram"];
  // As a shell leaves it that has read $NESTBOX_SYS without quotes.
  const drive = ["-device", `vfio-pci,sysfsdev=/${DRIVE},iommufd=iommufd0`];
  let killed = 0;
  const run = await runOnHost({
    host: ["--host", host],
    qemu: [...machine(qemu, fixture), ...ram, ...drive],
    watch: (output, child) => {
      if (killed !== 0 || !/nestbox-demo: drive \d+ sectors/.test(output)) return;
      killed = qemuOf(child.pid!);
      process.kill(killed, "SIGKILL");
    },
  });
  show(run);
  check(
    killed !== 0 && run.status === 128 + 9,
    `QEMU with RAM in a memfd is killed while its guest uses the drive (${run.status})`,
  );
  check(/IOMMU_IOAS_MAP_FILE \d+/.test(run.output), "its RAM was mapped by descriptor");
  check(nothingLeft(run), "nothing of it is left in the host");
}

/** The process that `nestbox host run` started. */
function qemuOf(parent: number): number {
  return Number(readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim().split(" ")[0]);
}

async function checkRefused(qemu: Qemu, fixture: DebianFixture, host: string): Promise<void> {
  const drive = ["-M", "virt", "-device", `vfio-pci,host=${DRIVE},iommufd=iommufd0`];
  const rule = "ioctl:IOMMU_IOAS_MAP=ENOMEM";
  const run = await runOnHost({
    host: ["--host", host, "--inject", rule],
    qemu: [...machine(qemu, fixture), ...drive],
  });
  show(run);
  check(run.status === 1, `with ${rule} QEMU gives up (${run.status})`);
  check(/qemu-system-aarch64: .*Cannot allocate memory/.test(run.output), "and says why, in its own words");
  check(nothingLeft(run), "nothing is left in the host");
}

/** QEMU from a shell of its own, in the environment that `host serve` prints. */
async function checkServed(qemu: Qemu, fixture: DebianFixture, host: string, folder: string): Promise<void> {
  const served = join(folder, "served");
  const server = spawn(process.execPath, [nestbox, "host", "serve", "--strict", "--host", host, "--dir", served], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const end = new Promise<number | null>((resolve) => server.on("close", resolve));
  let said = "";
  server.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const environment = await new Promise<string>((resolve) => {
    let lines = "";
    server.stdout.on("data", (chunk: Buffer) => {
      lines += chunk.toString();
      if (/^export NESTBOX_SYS=.*\n/m.test(lines)) resolve(lines);
    });
    server.stdout.on("end", () => resolve(lines));
  });
  const words = [...machine(qemu, fixture), "-M", "virt"].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const script = `${environment}exec ${words} -device vfio-pci,sysfsdev=$NESTBOX_SYS/${DRIVE},iommufd=iommufd0`;
  const { status, stdout } = spawnSync("sh", ["-c", script], {
    encoding: "latin1",
    timeout: LIMIT_MS,
    stdio: ["ignore", "pipe", "inherit"],
  });
  server.kill("SIGTERM");
  const ended = await end;
  show({ status: ended, output: said, seconds: 0 });
  check(status === 0, `QEMU boots on a host that another process serves (${status})`);
  check(/nestbox-demo: checksum verified: [0-9a-f]{64}/.test(stdout), "the guest verified its file's checksum");
  check(
    ended === 0 && nothingLeft({ status: ended, output: said, seconds: 0 }),
    `nothing is left in the host (${ended})`,
  );
}

try {
  const log = (line: string): void => console.error(line);
  const qemu = findQemu(log);
  const fixture = debianFixture({ architecture: "arm64", log });
  console.log(`${qemu.version}; kernel ${fixture.release}`);
  const folder = mkdtempSync(join(tmpdir(), "nestbox-qemu-"));
  try {
    for (const kind of ["riscv", "smmuv3"]) await checkBoot(qemu, fixture, folder, kind);
    const { host } = describeHost(folder, "riscv");
    await checkKilled(qemu, fixture, host);
    await checkRefused(qemu, fixture, host);
    await checkServed(qemu, fixture, host, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (failures.length > 0) {
    console.error(`check:host-run: ${failures.length} failed: ${failures.join("; ")}`);
    process.exitCode = 1;
  }
} catch (error) {
  if (!(error instanceof MissingHere)) throw error;
  console.error(`check:host-run: ${error.message}`);
  process.exitCode = 77;
}

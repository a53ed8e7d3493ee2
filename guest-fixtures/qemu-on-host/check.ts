// `npm run check:host-run`: unmodified QEMU on a modelled host. It boots Debian arm64 with an NVMe drive of the host's, by iommufd, behind the
// modelled IOMMU, RISC-V or SMMUv3; the guest makes a file system on it and verifies a checksum; the run is recorded, and its replay gives the same trace. Then
// with its RAM in a memfd, killed in the middle; with an IOMMU_IOAS_MAP that fails; and on a host that is served to it by another process. Nothing may be
// left in the host. Then QEMU's own vIOMMU, nested (nested-vtd.ts). 77 where QEMU or a guest cannot be had.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Argument, Command } from "commander";
import { type DebianFixture, debianFixture, MissingHere } from "../debian/recipe.ts";
import { checkNestedVtd } from "./nested-vtd.ts";
import { findQemu, machineOf, type Qemu } from "./qemu.ts";
import {
  check,
  checkReplay,
  DRIVE,
  describeHost,
  failures,
  LIMIT_MS,
  nestbox,
  nothingLeft,
  qemuOf,
  runOnHost,
  show,
  VERIFIED,
} from "./runs.ts";

const log = (line: string): void => console.error(line);

const machine = (qemu: Qemu, fixture: DebianFixture): string[] => machineOf(qemu, fixture, "nestbox.script");

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
  check(VERIFIED.test(run.output), "the guest verified its file's checksum");
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
  check(VERIFIED.test(stdout), "the guest verified its file's checksum");
  check(
    ended === 0 && nothingLeft({ status: ended, output: said, seconds: 0 }),
    `nothing is left in the host (${ended})`,
  );
}

async function checkArm64(folder: string): Promise<void> {
  const qemu = findQemu(log);
  const fixture = debianFixture({ architecture: "arm64", log });
  console.log(`${qemu.version}; kernel ${fixture.release}`);
  for (const kind of ["riscv", "smmuv3"]) await checkBoot(qemu, fixture, folder, kind);
  const { host } = describeHost(folder, "riscv");
  await checkKilled(qemu, fixture, host);
  await checkRefused(qemu, fixture, host);
  await checkServed(qemu, fixture, host, folder);
}

const PARTS: Readonly<Record<string, (folder: string, log: (line: string) => void) => Promise<void>>> = {
  arm64: checkArm64,
  "nested-vtd": checkNestedVtd,
};

/** One part of the check in a folder of its own; false: something for it cannot be had here. */
async function ran(part: string): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-qemu-"));
  try {
    await PARTS[part]!(folder, log);
    return true;
  } catch (error) {
    if (!(error instanceof MissingHere)) throw error;
    console.error(`check:host-run: ${part}: ${error.message}`);
    return false;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

await new Command("check:host-run")
  .description("unmodified QEMU on modelled hosts, with everything checked that can be")
  .addArgument(new Argument("[part]", "one part only").choices(Object.keys(PARTS)))
  .action(async (part?: string) => {
    let missing = false;
    for (const one of part === undefined ? Object.keys(PARTS) : [part]) if (!(await ran(one))) missing = true;
    if (missing) process.exitCode = 77;
    if (failures.length === 0) return;
    console.error(`check:host-run: ${failures.length} failed: ${failures.join("; ")}`);
    process.exitCode = 1;
  })
  .parseAsync();

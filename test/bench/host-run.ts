// Unmodified programs on a modelled host (`nestbox host run`): register accesses, mappings and interrupts of a C program, and the NVMe drive of a Debian
// arm64 guest in QEMU, timed by the guest's clock, which is the wall's. Says why it skips what is not here.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cachedFixture } from "../../guest-fixtures/debian/recipe.ts";
import { machineOf, qemuHere } from "../../guest-fixtures/qemu-on-host/qemu.ts";

type Emit = (line: Record<string, unknown>) => void;
const root = fileURLToPath(new URL("../../..", import.meta.url));
const nestbox = join(root, "vmm/cli/nestbox.mjs");
const ROUNDS = 3;
const DRIVE = "0000:01:00.0";

export async function bench(emit: Emit): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  try {
    program(emit, folder);
    guest(emit, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [nestbox, "host", "run", "--quiet", "--strict", ...words],
    {
      encoding: "utf8",
      maxBuffer: 2 ** 26,
    },
  );
  if (status !== 0) throw new Error(`host run ended with ${status}: ${stderr.slice(-400)}`);
  return stdout;
}

function program(emit: Emit, folder: string): void {
  const client = join(folder, "vfio-program");
  const built = spawnSync("cc", ["-O1", "-o", client, join(root, "test/host/adapters/vfio-program.c")]);
  if (built.status !== 0) {
    emit({ bench: "host-run", skipped: "no C compiler here" });
    return;
  }
  const rounds = Array.from(
    { length: ROUNDS },
    () => JSON.parse(run(["--", client, "bench", "0000:00:01.0"])) as Record<string, number>,
  );
  const names: readonly (readonly [string, string])[] = [
    ["barReadUs", "4-byte BAR read"],
    ["barWriteUs", "4-byte BAR write, many and then a read"],
    ["mapUnmapUs", "IOAS_MAP and UNMAP of 4 KiB"],
    ["raiseUs", "register write that raises an MSI, until the eventfd is read"],
  ];
  for (const [key, name] of names) {
    emit({ bench: `host run: ${name}`, us: rounds.map((round) => round[key]!).sort((a, b) => a - b)[ROUNDS >> 1] });
  }
}

function guest(emit: Emit, folder: string): void {
  const qemu = qemuHere();
  const fixture = cachedFixture(undefined, "arm64");
  if (qemu === null || fixture === null) {
    emit({ bench: "host-run", skipped: "QEMU or the arm64 fixture is not here; npm run check:host-run fetches them" });
    return;
  }
  const host = join(folder, "host.json");
  const drive = { model: "nvme", bdf: DRIVE, iommu: "iommu0" };
  writeFileSync(host, JSON.stringify({ name: "bench", iommus: [{ name: "iommu0", kind: "riscv" }], devices: [drive] }));
  const device = ["-M", "virt", "-device", `vfio-pci,host=${DRIVE},iommufd=iommufd0`];
  const rounds = Array.from({ length: ROUNDS }, () => {
    const output = run(["--host", host, "--", ...machineOf(qemu, fixture, "nestbox.bench"), ...device]);
    return { iops: 4096 / seconds(output, "random"), mibPerSecond: 64 / seconds(output, "sequential") };
  });
  const median = (of: (round: { iops: number; mibPerSecond: number }) => number): number =>
    Math.round(rounds.map(of).sort((a, b) => a - b)[ROUNDS >> 1]!);
  emit({ bench: "host run: QEMU guest, NVMe direct reads of 4 KiB, one at a time", iops: median(({ iops }) => iops) });
  emit({
    bench: "host run: QEMU guest, NVMe direct sequential reads of 1 MiB",
    mibPerSecond: median(({ mibPerSecond }) => mibPerSecond),
  });
}

/** Between "nestbox-bench: NAME begins at T" and "… ends at T". */
function seconds(output: string, name: string): number {
  const at = (what: string): number => Number(new RegExp(`${name} ${what} at ([\\d.]+)`).exec(output)?.[1]);
  const between = at("ends") - at("begins");
  if (!(between > 0)) throw new Error(`the guest measured no ${name} reads: ${output.slice(-400)}`);
  return between;
}

// The Debian guest by the clock: until userland runs (seconds and instructions), a shell loop, sha256, and reads of its NVMe drive, 4 KiB one
// at a time and 1 MiB. The guest prints a mark before and after each piece; the time between marks is wall time outside. Two runs
// of the command line, as a user would start it; where the image cannot be had, one line says so.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cpio, EXECUTABLE } from "../../guest-fixtures/debian-riscv64/cpio.ts";
import { debianFixture, MissingHere } from "../../guest-fixtures/debian-riscv64/recipe.ts";

/** Benches run from dist/test/bench. */
const NESTBOX = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));
const DRIVE_BYTES = 64 << 20;
const READS_4K = 4_000;
const READS_1M = 64;
const TURNS = 300_000;

/** First process of the guest. */
const SCRIPT = `#!/bin/busybox sh
echo bench:userland
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev
$bb mount -t proc proc /proc
if $bb grep -q bench.stop /proc/cmdline; then $bb poweroff -f; fi
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
while read -r module; do $bb insmod "/modules/$module.ko"; done < /modules/order
while [ ! -b /dev/nvme0n1 ]; do $bb sleep 0.1; done
echo bench:drive
$bb dd if=/dev/nvme0n1 of=/dev/null bs=4k count=${READS_4K} iflag=direct 2>/dev/null || echo bench:failed
echo bench:read4k
$bb dd if=/dev/nvme0n1 of=/dev/null bs=1M count=${READS_1M} iflag=direct 2>/dev/null || echo bench:failed
echo bench:read1m
i=0; while [ $i -lt ${TURNS} ]; do i=$((i+1)); done
echo bench:loop
$bb dd if=/dev/zero bs=1M count=64 2>/dev/null | $bb sha256sum >/dev/null
echo bench:sha256
$bb poweroff -f
`;

interface Run {
  /** Wall time of each mark, in ms since the start of the process. */
  readonly marks: ReadonlyMap<string, number>;
  readonly report: { readonly instructions?: number; readonly result?: string; readonly faults?: number };
}

function boot(kernel: string, initrd: string, drive: string, append: string): Promise<Run> {
  const start = performance.now();
  const child = spawn(
    process.execPath,
    [
      ...[NESTBOX, "boot", "--kernel", kernel, "--initrd", initrd, "--append", append, "--nvme", drive],
      ...["--memory", "512M", "--wall-limit", "600s", "--report", "json"],
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const marks = new Map<string, number>();
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    const seen = output.length;
    output += chunk.toString("latin1");
    // A mark may be cut in two by the pipe: look back a little.
    for (const [, name] of output.slice(Math.max(0, seen - 32)).matchAll(/bench:(\w+)\r?\n/g)) {
      if (!marks.has(name!)) marks.set(name!, performance.now() - start);
    }
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", () => {
      const last = output.trimEnd().split("\n").at(-1) ?? "";
      if (!last.startsWith("{"))
        reject(new Error(`bench boot: no report; the guest's last words: ${output.slice(-500)}`));
      else resolve({ marks, report: JSON.parse(last) as Run["report"] });
    });
  });
}

export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "bench-boot-"));
  try {
    const { kernel, initrd } = debianFixture();
    const own = join(directory, "initrd.cpio");
    // The kernel unpacks archives one after the other.
    const archive = cpio([{ path: "bench.sh", mode: EXECUTABLE, data: Buffer.from(SCRIPT) }]);
    writeFileSync(own, Buffer.concat([readFileSync(initrd), archive]));
    const drive = join(directory, "drive.img");
    writeFileSync(drive, "");
    truncateSync(drive, DRIVE_BYTES);

    const short = await boot(kernel, own, drive, "console=ttyS0 quiet rdinit=/bench.sh bench.stop");
    const long = await boot(kernel, own, drive, "console=ttyS0 quiet rdinit=/bench.sh");
    const at = (name: string): number => {
      const ms = long.marks.get(name);
      if (ms === undefined || long.marks.has("failed"))
        throw new Error(`bench boot: the guest did not come to "${name}"`);
      return ms;
    };
    const seconds = (ms: number) => Math.round(ms) / 1000;
    const userlandMs = short.marks.get("userland");
    if (userlandMs === undefined) throw new Error("bench boot: the guest did not come to userland");
    emit({ bench: "boot-userland", seconds: seconds(userlandMs), instructions: short.report.instructions });

    const small = at("read4k") - at("drive");
    emit({
      ...{ bench: "boot-nvme-read-4k", seconds: seconds(small) },
      ...{ nsPerOp: Math.round((small * 1e6) / READS_4K), opsPerSecond: Math.round((READS_4K * 1000) / small) },
    });
    const large = at("read1m") - at("read4k");
    emit({ bench: "boot-nvme-read-1m", seconds: seconds(large), mibPerSecond: Math.round((READS_1M * 1000) / large) });
    emit({ bench: "boot-shell-loop", seconds: seconds(at("loop") - at("read1m")), turns: TURNS });
    emit({ bench: "boot-sha256-64m", seconds: seconds(at("sha256") - at("loop")) });
  } catch (error) {
    if (!(error instanceof MissingHere)) throw error;
    emit({ bench: "boot", skipped: error.message });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

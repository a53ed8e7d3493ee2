// `npm run demo:debian`: boots the Debian fixture with an NVMe drive assigned through VFIO behind the guest's own IOMMU. Runs the built-in
// script (partition, file system, checksummed file, verified after dropping caches), or with --interactive a shell.

import { spawn } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { debianFixture, MissingHere } from "./recipe.ts";

const nestbox = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));
const DISK_BYTES = 64 * 2 ** 20;

interface DemoOptions {
  readonly interactive?: true;
  readonly memory: string;
  readonly cpus: string;
  readonly disk?: string;
  readonly suite: string;
}

async function demo(options: DemoOptions, more: readonly string[]): Promise<number> {
  const fixture = debianFixture({ suite: options.suite, log: (line) => console.error(line) });
  const folder = mkdtempSync(join(tmpdir(), "nestbox-debian-"));
  const disk = options.disk ?? join(folder, "disk.img");
  if (options.disk === undefined) {
    const fd = openSync(disk, "w");
    ftruncateSync(fd, DISK_BYTES);
    closeSync(fd);
  }
  const interactive = options.interactive === true;
  const args = [nestbox, "boot", "--kernel", fixture.kernel, "--initrd", fixture.initrd, "--nvme", disk];
  args.push("--memory", options.memory, "--cpus", options.cpus, "--wall-limit", "20m");
  // The kernel's own crypto self-tests are most of its boot, and say nothing about us.
  args.push("--append", `console=ttyS0 cryptomgr.notests${interactive ? "" : " nestbox.script"}`);
  if (interactive) args.push("--interactive");
  const child = spawn(process.execPath, [...args, ...more], {
    stdio: ["inherit", interactive ? "inherit" : "pipe", "inherit"],
  });
  let verified = interactive;
  let tail = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    process.stdout.write(chunk);
    tail = (tail + chunk.toString("latin1")).slice(-4096);
    if (/nestbox-demo: checksum verified: [0-9a-f]{64}/.test(tail)) verified = true;
  });
  const status = await new Promise<number>((resolve) => child.on("exit", (code) => resolve(code ?? 1)));
  rmSync(folder, { recursive: true, force: true });
  if (status === 0 && !verified) {
    console.error("demo:debian: the guest ended without a verified checksum");
    return 1;
  }
  return status;
}

await new Command("demo:debian")
  .description("boot a stock Debian riscv64 kernel with an NVMe drive behind the guest's own IOMMU")
  .option("--interactive", "a shell on this terminal instead of the built-in script (Ctrl-A h helps)")
  .option("--memory <size>", "guest RAM", "512M")
  .option("--cpus <n>", "harts", "1")
  .option("--disk <file>", "disk image to use; a fresh one if left out")
  .option("--suite <name>", "Debian suite, forky or newer", "forky")
  .argument("[options...]", "after --: further options of nestbox boot, such as --report json")
  .action(async (more: string[], options: DemoOptions) => {
    try {
      process.exitCode = await demo(options, more);
    } catch (error) {
      if (!(error instanceof MissingHere)) throw error;
      console.error(`demo:debian: ${error.message}`);
      process.exitCode = 77;
    }
  })
  .parseAsync();

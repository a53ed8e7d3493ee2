// `npm run demo:debian`: boots the Debian fixture with an NVMe drive assigned through VFIO behind the guest's own IOMMU. Runs the built-in
// script (partition, file system, checksummed file, verified after dropping caches), or with --interactive a shell.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { bootFixture } from "./boot-fixture.ts";
import { CORRUPTED_ENTRY, DRIVE, EVENT_ON_CONSOLE } from "./corrupted-entry.ts";
import { nestingReport } from "./nesting-report.ts";
import { BOOTED_ARCHITECTURES, type BootedArchitecture, debianFixture, MissingHere } from "./recipe.ts";
import { bootRoot, rootProblems } from "./root-demo.ts";

interface DemoOptions {
  readonly arch: BootedArchitecture;
  readonly interactive?: true;
  readonly fault?: true;
  readonly root?: true;
  readonly memory: string;
  readonly cpus: string;
  readonly disk?: string;
  readonly suite: string;
}

async function rootDemo({ arch, cpus }: DemoOptions): Promise<number> {
  const it = await bootRoot(arch, cpus, (line) => console.error(line));
  for (const [question, answer] of it.answers) console.log(`${question.padEnd(17)}${answer}`);
  console.log(`login prompt     after ${it.loginSeconds.toFixed(1)} s`);
  console.log(`nested DMA       ${it.nested} of ${it.dmas}`);
  const problems = rootProblems(it);
  for (const problem of problems) console.error(`demo:debian: ${problem}`);
  return problems.length === 0 ? 0 : 1;
}

async function demo(options: DemoOptions, more: readonly string[]): Promise<number> {
  const fixture = debianFixture({
    architecture: options.arch,
    suite: options.suite,
    log: (line) => console.error(line),
  });
  const interactive = options.interactive === true;
  const { memory, cpus, disk } = options;
  const words = interactive ? "" : "nestbox.script";
  const place = disk === undefined ? {} : { disk };
  const folder = mkdtempSync(join(tmpdir(), "nestbox-demo-"));
  const trace = join(folder, "trace.jsonl");
  const nests = options.arch === "arm64" && !interactive && !more.includes("--trace");
  const traced = nests ? ["--trace", trace] : [];
  const injected = options.fault === true ? ["--inject", CORRUPTED_ENTRY] : [];
  const all = [...more, ...traced, ...injected];
  const run = await bootFixture({ fixture, words, memory, cpus, ...place, more: all, interactive, echo: true });
  if (nests && run.status === 0) await printNesting(trace);
  const shown = run.lines.some(({ text }) => EVENT_ON_CONSOLE.test(text));
  rmSync(folder, { recursive: true, force: true });
  const verified = run.lines.some(({ text }) => /nestbox-demo: checksum verified: [0-9a-f]{64}/.test(text));
  if (run.status === 0 && !interactive && !verified) {
    console.error("demo:debian: the guest ended without a verified checksum");
    return 1;
  }
  if (run.status === 0 && !interactive && options.fault === true && !shown) {
    console.error("demo:debian: the guest's kernel printed no event of its IOMMU");
    return 1;
  }
  return run.status;
}

async function printNesting(trace: string): Promise<void> {
  const { host, guestId } = DRIVE;
  const it = await nestingReport(trace, host, guestId);
  console.log(`guest's STE  ${it.streamTableEntry} (StreamID 0x${guestId.toString(16)})`);
  console.log(`guest's CD   ${it.contextDescriptor}`);
  console.log(`domains      ${it.domains.join(", ")}`);
  console.log(`nested DMA   ${it.dmas - it.beforeNesting} of ${it.dmas}, ${it.refused} refused`);
}

await new Command("demo:debian")
  .description("boot a stock Debian kernel with an NVMe drive behind the guest's own IOMMU")
  .addOption(new Option("--arch <name>", "Debian port").choices(BOOTED_ARCHITECTURES).default("riscv64"))
  .option("--interactive", "a shell on this terminal instead of the built-in script (Ctrl-A h helps)")
  .option(
    "--root",
    "Debian's minimal system on the drive, under systemd, to its login prompt (arm64; some minutes the first time)",
  )
  .option(
    "--fault",
    "corrupts a stage-1 entry while the guest uses it: its kernel prints the event and tries again (arm64)",
  )
  .option("--memory <size>", "guest RAM", "512M")
  .option("--cpus <n>", "CPUs", "1")
  .option("--disk <file>", "disk image to use; a fresh one if left out")
  .option("--suite <name>", "Debian suite, forky or newer", "forky")
  .argument("[options...]", "after --: further options of nestbox boot, such as --report json")
  .action(async (more: string[], options: DemoOptions) => {
    try {
      process.exitCode = options.root === true ? await rootDemo(options) : await demo(options, more);
    } catch (error) {
      if (!(error instanceof MissingHere)) throw error;
      console.error(`demo:debian: ${error.message}`);
      process.exitCode = 77;
    }
  })
  .parseAsync();

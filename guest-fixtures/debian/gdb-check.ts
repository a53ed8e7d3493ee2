// `npm run check:gdb`: Debian's gdb-multiarch on a Debian guest, forwards and backwards. A boot is recorded whose shell is asked for the kernel's map; the replay
// of it has the same addresses, whatever the kernel randomised, and the drive's driver, a module, is probed in it again. Exit status 77 without gdb-multiarch.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { bootFixture, nestbox } from "./boot-fixture.ts";
import { BOOTED_ARCHITECTURES, type BootedArchitecture, debianFixture, MissingHere } from "./recipe.ts";
import { symbolFile, symbolsIn } from "./symbol-file.ts";

const GDB = "gdb-multiarch";
/** From the bus to the driver: pci_device_probe calls local_pci_probe, and that nvme_probe. */
const NAMES = ["pci_device_probe", "local_pci_probe", "nvme_probe", "start_kernel"];
const PROMPT = /busybox shell; poweroff -f ends the machine/;

let failed = 0;
function check(holds: boolean, what: string): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${what}`);
  if (!holds) failed++;
}

/** Port at which a replay waits for its debugger. */
function listening(child: ChildProcess): Promise<number> {
  let text = "";
  return new Promise((resolve, reject) => {
    child.stderr!.on("data", (bytes: Buffer) => {
      text += bytes.toString();
      const port = /target remote :(\d+)/.exec(text);
      if (port !== null) resolve(Number(port[1]));
    });
    child.once("close", () => reject(new Error(`the replay ended: ${text}`)));
  });
}

/** What each register is called that holds a function's first argument. */
const ARGUMENT = { riscv64: "$a0", arm64: "$x0" } as const;

function commands(symbols: string, port: number, architecture: BootedArchitecture): string[] {
  const where = (mark: string) => `printf "${mark} %#lx\\n", $pc`;
  return [
    "set confirm off",
    "set pagination off",
    // Its own patience is 2 seconds, and the machine may be a busy one.
    "set remotetimeout 300",
    `file ${symbols}`,
    `target remote :${port}`,
    ...["break *nvme_probe", "continue", "info symbol $pc", where("probe")],
    ...["x/2i $pc", `printf "argument %#lx\\n", ${ARGUMENT[architecture]}`, `x/4gx ${ARGUMENT[architecture]}`],
    ...[
      "stepi",
      where("one"),
      "stepi",
      where("two"),
      "reverse-stepi",
      where("one-again"),
      "reverse-stepi",
      where("probe-again"),
    ],
    ...["break *local_pci_probe", "reverse-continue", "info symbol $pc", where("caller")],
    ...["continue", where("probe-at-last")],
    ...["delete", "break *start_kernel", "reverse-continue", "info symbol $pc", "delete", "reverse-continue"],
    ...["monitor status", "kill"],
  ];
}

async function checkPort(architecture: BootedArchitecture, folder: string): Promise<void> {
  const fixture = debianFixture({ architecture, log: (line) => console.log(line) });
  const recording = join(folder, "recording");
  let asked = false;
  const run = await bootFixture({
    ...{ fixture, words: "", more: ["--record", recording] },
    watch: (output, type) => {
      if (asked || !PROMPT.test(output)) return;
      asked = true;
      type(`grep -E ' (${NAMES.join("|")})([[:space:]]|$)' /proc/kallsyms; poweroff -f\n`);
    },
  });
  const symbols = symbolsIn(run.lines.map(({ text }) => text));
  check(run.status === 0, `a boot of ${architecture} is recorded (${run.status})`);
  for (const name of NAMES)
    check(
      symbols.some((symbol) => symbol.name === name),
      `its map has ${name}`,
    );
  const file = join(folder, "symbols.elf");
  writeFileSync(file, symbolFile(architecture, symbols));
  const addressOf = (name: string) => `0x${symbols.find((symbol) => symbol.name === name)?.address.toString(16)}`;

  const replay = spawn(process.execPath, [nestbox, "replay", recording, "--gdb", "0", "--paused", "--quiet"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = new Promise<number | null>((resolve) => replay.once("close", (status) => resolve(status)));
  const script = join(folder, "commands");
  writeFileSync(script, `${commands(file, await listening(replay), architecture).join("\n")}\n`);
  const debug = spawn(GDB, ["-nx", "-batch", "-x", script], { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const output of [debug.stdout, debug.stderr]) output.on("data", (bytes: Buffer) => (text += bytes.toString()));
  await new Promise((resolve) => debug.once("close", resolve));
  replay.kill();
  await ended;
  console.log(text);

  const value = (mark: string) => new RegExp(`^${mark} (0x[0-9a-f]+)$`, "m").exec(text)?.[1];
  check(value("probe") === addressOf("nvme_probe"), "gdb breaks in nvme_probe, a module's, by a name from the map");
  check(/^nvme_probe in section \.text/m.test(text), "and knows where it is");
  check(/^=> 0x[0-9a-f]+ <nvme_probe>:\t\S+/m.test(text), "it reads the code there");
  check(new RegExp(`^${value("argument")}:\t0x[0-9a-f]{16}\t0x`, "m").test(text), "and the device that is probed");
  const same = (mark: string, other: string) => value(mark) !== undefined && value(mark) === value(other);
  const differs = (mark: string, other: string) => value(mark) !== undefined && value(mark) !== value(other);
  check(differs("one", "probe") && differs("two", "one"), "it steps twice");
  check(same("one-again", "one") && same("probe-again", "probe"), "and back, twice");
  check(
    value("caller") === addressOf("local_pci_probe"),
    "backwards it comes to local_pci_probe, which has called nvme_probe",
  );
  check(same("probe-at-last", "probe"), "and forwards to nvme_probe again");
  check(/^start_kernel in section \.text/m.test(text), "far back lies start_kernel");
  check(/No more reverse-execution history/.test(text), "and then nothing does");
}

async function main(): Promise<void> {
  const options = new Command("check:gdb")
    .addOption(new Option("--arch <name>", "instruction set").choices([...BOOTED_ARCHITECTURES]).default("riscv64"))
    .parse()
    .opts<{ arch: BootedArchitecture }>();
  if (spawnSync(GDB, ["--version"]).status !== 0) throw new MissingHere(`there is no ${GDB}`);
  const folder = mkdtempSync(join(tmpdir(), "nestbox-gdb-check-"));
  try {
    await checkPort(options.arch, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (failed > 0) process.exitCode = 1;
}

await main().catch((error: unknown) => {
  if (!(error instanceof MissingHere)) throw error;
  console.error(`check:gdb: ${error.message}`);
  process.exitCode = 77;
});

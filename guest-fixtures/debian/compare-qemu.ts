// `npm run compare:qemu [-- --arch arm64]`: the same kernel, initramfs and script here and on QEMU's virt machine with the port's IOMMU; the two consoles must say
// the same (console-lines.ts has what may differ). 77 where QEMU cannot be had (qemu-on-host/qemu.ts).

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { findQemu, type Qemu, type QemuArchitecture } from "../qemu-on-host/qemu.ts";
import { bootFixture, freshDisk } from "./boot-fixture.ts";
import { commonLines, missingFrom } from "./console-lines.ts";
import {
  BOOTED_ARCHITECTURES,
  type BootedArchitecture,
  type DebianFixture,
  debianFixture,
  MissingHere,
} from "./recipe.ts";

/** The first with iommu-sys (RISC-V), and whose consoles these were compared with. */
const OLDEST = 11;
const LIMIT_MS = 300_000;

interface Port {
  readonly qemu: QemuArchitecture;
  readonly machine: readonly string[];
  readonly console: string;
  /** Lines of a whole run, so that an empty comparison cannot pass. */
  readonly driver: RegExp;
}

const PORTS: Readonly<Record<BootedArchitecture, Port>> = {
  riscv64: {
    qemu: "riscv64",
    machine: ["-machine", "virt,aia=aplic-imsic,iommu-sys=on"],
    console: "ttyS0",
    driver: /using MSIs/,
  },
  arm64: {
    qemu: "aarch64",
    machine: ["-machine", "virt,iommu=smmuv3,gic-version=2", "-cpu", "cortex-a53"],
    console: "ttyAMA0",
    driver: /arm-smmu-v3 DEVICE: oas/,
  },
};

async function bootQemu(
  { command, environment }: Qemu,
  port: Port,
  { kernel, initrd }: DebianFixture,
): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-qemu-"));
  const drive = `if=none,id=drive,format=raw,file=${freshDisk(folder)}`;
  const machine = [...port.machine, "-m", "512M", "-smp", "1"];
  const devices = ["-nic", "none", "-drive", drive, "-device", "nvme,serial=nestbox,drive=drive"];
  const console_ = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"];
  const append = `console=${port.console} cryptomgr.notests nestbox.script`;
  const files = ["-kernel", kernel, "-initrd", initrd, "-append", append];
  const [program, ...before] = command as [string, ...string[]];
  const child = spawn(program, [...before, ...machine, ...console_, ...files, ...devices], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...environment },
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString("latin1");
  });
  const limit = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
  const status = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearTimeout(limit);
  rmSync(folder, { recursive: true, force: true });
  if (status !== 0) throw new Error(`QEMU ended with ${status}; the last it said: ${output.slice(-400)}`);
  return output.split("\n");
}

async function compare(arch: BootedArchitecture): Promise<number> {
  const log = (line: string): void => console.error(line);
  const port = PORTS[arch];
  const qemu = findQemu(log, port.qemu, OLDEST);
  const fixture = debianFixture({ architecture: arch, log });
  console.log(`${qemu.version}; kernel ${fixture.release}`);
  const theirs = commonLines(await bootQemu(qemu, port, fixture));
  const run = await bootFixture({ fixture, words: "nestbox.script" });
  const ours = commonLines(run.lines.map(({ text }) => text));
  const wanted = [/Linux version/, port.driver, /nvme nvme0: pci function/, /checksum verified/, /Power down/];
  const whole = (lines: readonly string[]): boolean => wanted.every((one) => lines.some((line) => one.test(line)));
  if (!whole(theirs) || !whole(ours)) {
    console.error(`compare:qemu: ${whole(ours) ? "QEMU's" : "our"} console does not hold a whole run`);
    return 1;
  }
  const onlyTheirs = missingFrom(theirs, ours);
  const onlyOurs = missingFrom(ours, theirs);
  for (const line of onlyTheirs) console.log(`QEMU only: ${line}`);
  for (const line of onlyOurs) console.log(`here only: ${line}`);
  console.log(`${ours.length} lines here, ${theirs.length} on QEMU; ${onlyTheirs.length + onlyOurs.length} differ`);
  return onlyTheirs.length + onlyOurs.length === 0 ? 0 : 1;
}

await new Command("compare:qemu")
  .description("boot the Debian fixture here and on QEMU: the consoles must say the same")
  .addOption(new Option("--arch <name>", "Debian port").choices(BOOTED_ARCHITECTURES).default("riscv64"))
  .action(async ({ arch }: { arch: BootedArchitecture }) => {
    try {
      process.exitCode = await compare(arch);
    } catch (error) {
      if (!(error instanceof MissingHere)) throw error;
      console.error(`compare:qemu: ${error.message}`);
      process.exitCode = 77;
    }
  })
  .parseAsync();

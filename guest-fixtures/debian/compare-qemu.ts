// `npm run compare:qemu`: the same kernel, initramfs and script here and on QEMU's virt machine with its RISC-V IOMMU; the two consoles must say
// the same (console-lines.ts has what may differ). QEMU is qemu-system-riscv64 from PATH, or what NESTBOX_QEMU names; 77 without it.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bootFixture, freshDisk } from "./boot-fixture.ts";
import { commonLines, missingFrom } from "./console-lines.ts";
import { type DebianFixture, debianFixture, MissingHere } from "./recipe.ts";

const QEMU = process.env.NESTBOX_QEMU ?? "qemu-system-riscv64";
const APPEND = "console=ttyS0 cryptomgr.notests nestbox.script";
/** The first with iommu-sys whose console this was compared with. */
const OLDEST = 11;
const LIMIT_MS = 300_000;

async function bootQemu({ kernel, initrd }: DebianFixture): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-qemu-"));
  const drive = `if=none,id=drive,format=raw,file=${freshDisk(folder)}`;
  const machine = ["-machine", "virt,aia=aplic-imsic,iommu-sys=on", "-m", "512M", "-smp", "1"];
  const devices = ["-drive", drive, "-device", "nvme,serial=nestbox,drive=drive"];
  const console_ = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"];
  const files = ["-kernel", kernel, "-initrd", initrd, "-append", APPEND];
  const child = spawn(QEMU, [...machine, ...console_, ...files, ...devices], { stdio: ["ignore", "pipe", "inherit"] });
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

/** True if `lines` hold a whole run, so that an empty comparison cannot pass. */
function whole(lines: readonly string[]): boolean {
  const wanted = [/Linux version/, /using MSIs/, /nvme nvme0: pci function/, /checksum verified/, /Power down/];
  return wanted.every((pattern) => lines.some((line) => pattern.test(line)));
}

async function compare(): Promise<number> {
  const version = spawnSync(QEMU, ["--version"], { encoding: "utf8" });
  const major = Number(/version (\d+)/.exec(version.stdout ?? "")?.[1] ?? 0);
  if (version.error !== undefined || version.status !== 0 || major < OLDEST) {
    throw new MissingHere(
      `${QEMU} cannot be run here (Debian: qemu-system-riscv, ${OLDEST} or newer; or set NESTBOX_QEMU)`,
    );
  }
  const fixture = debianFixture({ log: (line) => console.error(line) });
  console.log(`${version.stdout.split("\n")[0]}; kernel ${fixture.release}`);
  const theirs = commonLines(await bootQemu(fixture));
  const run = await bootFixture({ fixture, words: "nestbox.script" });
  const ours = commonLines(run.lines.map(({ text }) => text));
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

try {
  process.exitCode = await compare();
} catch (error) {
  if (!(error instanceof MissingHere)) throw error;
  console.error(`compare:qemu: ${error.message}`);
  process.exitCode = 77;
}

// `npm run check:replay [-- --node 24]`: runs of every sort of guest, recorded and replayed: the traces must be the same, byte for byte; then once more under
// another major version of Node, which npm brings into .cache. 77 where that cannot be had, or a part of the recordings cannot be made here.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cachedFixture, type FixtureArchitecture } from "../../guest-fixtures/debian/recipe.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const NESTBOX = join(ROOT, "vmm/cli/nestbox.mjs");
const DISK_BYTES = 64 * 2 ** 20;
const MISSING = 77;

/** What somebody does while it runs. */
type Attend = (
  child: ChildProcess,
  seen: (pattern: RegExp) => Promise<void>,
  ask: (...words: string[]) => void,
) => Promise<void>;

interface Run {
  readonly name: string;
  readonly args: readonly string[];
  /** What must be in the trace: that it is a recording of what it is said to be. */
  readonly shows: RegExp;
  readonly attend?: Attend;
}

const folder = mkdtempSync(join(tmpdir(), "nestbox-replay-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const missing: string[] = [];

/** A drive's file whose first blocks are not zeroes. */
function disk(name: string): string {
  const fd = openSync(at(name), "w");
  writeSync(fd, Buffer.alloc(1 << 20, "what the drive held before"));
  writeSync(fd, Buffer.alloc(1), 0, 1, DISK_BYTES - 1);
  closeSync(fd);
  return at(name);
}

function debian(architecture: FixtureArchitecture, words: string, ...more: string[]): string[] | null {
  const fixture = cachedFixture(undefined, architecture);
  if (fixture === null) {
    missing.push(`Debian ${architecture} (npm run fixture:debian)`);
    return null;
  }
  const images = ["--kernel", fixture.kernel, "--initrd", fixture.initrd, "--memory", "512M"];
  return [...images, "--append", `console=ttyS0 cryptomgr.notests quiet ${words}`, "--wall-limit", "20m", ...more];
}

function* runs(): Generator<Run> {
  const some = function* (args: string[] | null, run: Omit<Run, "args">): Generator<Run> {
    if (args !== null) yield { ...run, args };
  };
  yield { name: "component, RISC-V IOMMU", args: [], shows: /"type":"fault"/ };
  yield { name: "component, SMMUv3", args: ["--viommu", "smmuv3"], shows: /CMD_SYNC/ };
  yield {
    name: "faults injected",
    args: [
      "--inject",
      "ioctl:IOMMU_HWPT_INVALIDATE%20=drop",
      "--inject",
      "device:0000:00:01.0=slow/700",
      "--seed",
      "7",
    ],
    shows: /"type":"injection","point":"ioctl"/,
  };
  yield {
    name: "devices removed and added",
    args: ["--monitor", at("socket"), "--paused"],
    // Two devices from the start, and one of them again.
    shows: /(VFIO_DEVICE_BIND_IOMMUFD[\s\S]*){3}/,
    attend: async (_child, seen, ask) => {
      await seen(/nestbox monitor/);
      ask("step", "700");
      ask("device-remove", "00:01.0");
      ask("step", "--event", "50");
      ask("inject", "ioctl:IOMMU_HWPT_ALLOC@3=ENOMEM");
      ask("device-add", "0000:00:02.0@00:01.0");
      ask("step", "9");
      ask("continue");
    },
  };
  const built = spawnSync(process.execPath, [join(ROOT, "guest-fixtures/riscv64-nested-dma/build.mjs")], {
    encoding: "utf8",
  });
  const image = built.stdout.trim();
  if (built.status !== 0) missing.push("the bare-metal guest (riscv64-linux-gnu-gcc)");
  else {
    const args = ["--kernel", image, "--assign", "0000:00:01.0@00:02.0", "--memory", "64M"];
    yield { name: "bare metal", args, shows: /"type":"fault"/ };
  }
  yield* some(debian("riscv64", "nestbox.poweroff"), { name: "Debian riscv64", shows: /"device":"uart"/ });
  yield* some(debian("riscv64", "nestbox.session", "--cpus", "4", "--seed", "9"), {
    ...{ name: "Debian riscv64, 4 harts", shows: /"device":"imsic|"device":"aplic/ },
  });
  yield* some(debian("riscv64", "nestbox.script", "--nvme", disk("disk0")), {
    ...{ name: "Debian riscv64, NVMe in a host file", shows: /"type":"dma","device":"0000:40:00\.0"/ },
  });
  yield* some(debian("arm64", "nestbox.script", "--nvme", disk("disk1")), {
    ...{ name: "Debian arm64, NVMe in a host file", shows: /CMD_TLBI_NH_VA/ },
  });
  yield* some(debian("arm64", "", "--interactive", "--monitor", at("socket")), {
    name: "Debian arm64, console input and a device added",
    shows: /"device":"0000:00:01\.0"/,
    attend: async (child, seen, ask) => {
      await seen(/nestbox: userland/);
      child.stdin!.write("echo it hears $((40 + 2))\n");
      await seen(/it hears 42/);
      ask("device-add", "0000:00:01.0@00:03.0");
      child.stdin!.write("echo 1 > /sys/bus/pci/rescan; ls /sys/bus/pci/devices; poweroff -f\n");
    },
  });
}

const hash = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

/** Boots and records; what went wrong, or null. */
async function record({ args, attend }: Run, file: string, trace: string): Promise<string | null> {
  const child = spawn(process.execPath, [NESTBOX, "boot", ...args, "--record", file, "--trace", trace]);
  let output = "";
  let ended = false;
  const waiting = new Set<() => void>();
  const look = (text: Buffer): void => {
    output += text.toString("latin1");
    for (const waiter of waiting) waiter();
  };
  child.stdout.on("data", look);
  child.stderr.on("data", look);
  child.stdin.on("error", () => {});
  const end = new Promise<number | null>((resolve) =>
    child.on("close", (status) => {
      ended = true;
      for (const waiter of waiting) waiter();
      resolve(status);
    }),
  );
  const seen = async (pattern: RegExp): Promise<void> => {
    while (!pattern.test(output) && !ended) {
      await new Promise<void>((resolve) => {
        waiting.add(resolve);
      });
      waiting.clear();
    }
    if (!pattern.test(output)) throw new Error(`it never says ${pattern}: ${output.slice(-400)}`);
  };
  const ask = (...words: string[]): void => {
    const asked = spawnSync(process.execPath, [NESTBOX, "monitor", at("socket"), ...words], { encoding: "utf8" });
    if (asked.status !== 0) throw new Error(`monitor ${words.join(" ")}: ${asked.stdout}${asked.stderr}`);
  };
  try {
    if (attend === undefined) child.stdin.end();
    await attend?.(child, seen, ask);
  } catch (error) {
    child.kill("SIGKILL");
    return (error as Error).message;
  }
  await end;
  return existsSync(file) ? null : `there is no recording: ${output.slice(-400)}`;
}

function replay(node: string, file: string, trace: string): string | null {
  const { status, stderr } = spawnSync(node, [NESTBOX, "replay", file, "--trace", trace, "--quiet"], {
    ...{ encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] },
  });
  return /the run is as it was recorded/.test(stderr) ? null : `exit status ${status}: ${stderr.slice(-400)}`;
}

/** A Node of another major version: its program, or null where npm has none. */
function otherNode(wanted: string | undefined): { readonly program: string; readonly version: string } | null {
  const own = process.versions.node.split(".")[0]!;
  const major = wanted ?? (own === "24" ? "22" : "24");
  const place = join(ROOT, ".cache", `node-${major}`);
  const program = join(place, "node_modules/node/bin/node");
  if (!existsSync(program)) {
    mkdirSync(place, { recursive: true });
    const options = ["--prefix", place, "--no-save", "--no-audit", "--no-fund", "--silent"];
    spawnSync("npm", ["install", ...options, `node@${major}`], { cwd: place, stdio: "ignore" });
  }
  const said = existsSync(program) ? spawnSync(program, ["--version"], { encoding: "utf8" }) : null;
  return said?.status === 0 ? { program, version: said.stdout.trim() } : null;
}

const wanted = process.argv.indexOf("--node");
const other = otherNode(wanted < 0 ? undefined : process.argv[wanted + 1]);
if (other === null) missing.push("another major version of Node (npm install node@24)");
let failures = 0;
let count = 0;
for (const run of runs()) {
  count++;
  const file = at(`recording${count}`);
  const [then, now] = [at("then"), at("now")];
  const wrong = ((await record(run, file, then)) ?? null) as string | null;
  const results: string[] = [];
  if (wrong !== null) results.push(wrong);
  else {
    if (!run.shows.test(readFileSync(then, "latin1"))) results.push(`its trace has no ${run.shows}`);
    // Nothing of the world that it ran in is left, but the images.
    for (const name of ["disk0", "disk1"]) if (run.args.includes(at(name))) rmSync(at(name));
    for (const node of [process.execPath, ...(other === null ? [] : [other.program])]) {
      const differs = replay(node, file, now) ?? (hash(now) === hash(then) ? null : "another trace");
      if (differs !== null) results.push(`${node}: ${differs}`);
    }
  }
  const bytes =
    wrong === null ? `, ${Math.ceil(statSync(file).size / 1024)} KiB, trace ${hash(then).slice(0, 16)}` : "";
  console.log(
    `${results.length === 0 ? "ok    " : "FAILED"} ${run.name}${bytes}${results.map((one) => `: ${one}`).join("")}`,
  );
  if (results.length > 0) failures++;
}
const nodes = other === null ? process.version : `${process.version} and ${other.version}`;
console.log(`${count} recordings, replayed by ${nodes}, ${failures} failed`);
for (const what of missing) console.log(`not here: ${what}`);
process.exitCode = failures > 0 ? 1 : missing.length > 0 ? MISSING : 0;

// `nestbox host run` and `host serve`: Linux programs on a modelled host. vfio-program.c is one such program; what it checks is written
// down there. Needs a C compiler, as the command itself.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nestbox, nestboxFile } from "./command-line.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const source = fileURLToPath(new URL("../../host/adapters/vfio-program.c", import.meta.url));
const hostileSource = fileURLToPath(new URL("../../host/adapters/hostile-program.c", import.meta.url));
const nvmeSource = fileURLToPath(new URL("../../host/adapters/nvme-program.c", import.meta.url));
const EDU = "0000:00:01.0";
const OTHER_EDU = "0000:80:01.0";

const possible = process.platform === "linux" && spawnSync("cc", ["--version"]).status === 0;
if (!possible) console.warn("SKIPPED: no Linux with a C compiler here, so no program is run on a modelled host");

let folder: string;
let program: string;
let hostile: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-host-test-"));
  program = join(folder, "vfio-program");
  if (!possible) return;
  hostile = join(folder, "hostile-program");
  for (const [made, from] of [
    [program, source],
    [hostile, hostileSource],
  ] as const) {
    expect(spawnSync("cc", ["-Wall", "-O1", "-o", made, from], { encoding: "utf8" }).stderr).toBe("");
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function onHost(...words: string[]) {
  return nestbox("host", "run", "--strict", "--", ...words);
}

/** A host served in a folder: its process, what programs need in their environment, and what it says. */
async function serve(place: string, limit = "unlimited") {
  const words = [process.execPath, nestboxFile, "host", "serve", "--dir", place, "--strict"];
  const limited = limit === "unlimited" ? words : ["sh", "-c", `ulimit -n ${limit}; exec "$@"`, "sh", ...words];
  const server = spawn(limited[0]!, limited.slice(1), { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const said = { output: "", errors: "" };
  server.stderr.on("data", (chunk: Buffer) => {
    said.errors += chunk.toString();
  });
  await new Promise<void>((resolve) => {
    server.stdout.on("data", (chunk: Buffer) => {
      said.output += chunk.toString();
      if (/NESTBOX_SYS=.*\n/.test(said.output)) resolve();
    });
  });
  const environment = Object.fromEntries(
    [...said.output.matchAll(/^export (\w+)='(.*)'$/gm)].map(([, name, value]) => [name, value]),
  );
  return { server, environment, said };
}

describe.skipIf(!possible)("a program on a modelled host", () => {
  it.each([
    ["memories", "reaches its memory, private, shared and by descriptor, by the device's DMA, and is charged for it"],
    ["eventfds", "keeps no duplicate of an eventfd that another has replaced"],
    ["interrupts", "gets every MSI on its eventfd"],
    ["posted", "writes registers without waiting, and is refused what the device cannot take"],
    ["pin", "gets INTx, and unmasks it by an eventfd that the host listens to"],
    ["child", "has children that share its device and have memory of their own"],
    ["pass", "hands descriptors over a socket to a program that then begins"],
    ["group", "finds the device by container and group"],
  ])("%s: it %s", (what) => {
    const result = onHost(program, what, EDU);
    expect(result.errors).not.toMatch(/line \d+:/);
    expect(result.status).toBe(0);
    expect(result.errors).toMatch(/left over: nothing/);
  });

  it("finds the MSI window and the interrupts that the host's description gives", () => {
    const file = join(folder, "window.json");
    const device = { model: "edu", bdf: EDU, iommu: "iommu0", options: { messages: false } };
    const iommus = [{ name: "iommu0", kind: "riscv" }];
    writeFileSync(file, JSON.stringify({ name: "window", msiWindow: "0xfee00000", iommus, devices: [device] }));
    const result = nestbox("host", "run", "--strict", "--host", file, "--", program, "window", EDU, "0xfee00000");
    expect(result.errors).not.toMatch(/line \d+:/);
    expect(result.status).toBe(0);
  });

  it("drives an NVMe drive: a completion is there when its doorbell has been rung, and a doorbell that is put off is not lost", () => {
    const driver = join(folder, "nvme-program");
    expect(spawnSync("cc", ["-Wall", "-O1", "-o", driver, nvmeSource], { encoding: "utf8" }).stderr).toBe("");
    const file = join(folder, "nvme.json");
    const device = { model: "nvme", bdf: EDU, iommu: "iommu0" };
    writeFileSync(
      file,
      JSON.stringify({ name: "nvme", iommus: [{ name: "iommu0", kind: "riscv" }], devices: [device] }),
    );
    const result = nestbox("host", "run", "--strict", "--host", file, "--", driver, "check", EDU);
    expect(result.errors).not.toMatch(/line \d+:/);
    expect(result.status).toBe(0);
    expect(result.errors).toMatch(/left over: nothing/);
  });

  it("finds platform devices by their names", () => {
    const file = join(folder, "platform.json");
    const platform = [{ model: "edu", name: "edu0", iommu: "iommu0", deviceId: 5 }];
    writeFileSync(file, JSON.stringify({ name: "platform", iommus: [{ name: "iommu0", kind: "riscv" }], platform }));
    const script =
      "cat /sys/bus/platform/devices/edu0/vfio-dev/vfio0/dev && stat -c %F /dev/vfio/devices/vfio0 /dev/vfio/0";
    const { output } = nestbox("host", "run", "--strict", "--host", file, "--", "sh", "-c", script);
    expect(output).toBe("511:0\ncharacter special file\ncharacter special file\n");
  });

  describe("whose host is broken on purpose", () => {
    const run = (...words: string[]) => {
      const separator = words.indexOf("--");
      return nestbox("host", "run", ...words.slice(0, separator), "--", program, ...words.slice(separator + 1));
    };

    it("sees old memory when an invalidation is dropped, and the checker says so", () => {
      const result = run("--check", "stale", "--inject", "command:IOTINVAL.VMA=drop", "--", "replaced", EDU);
      expect(result.status).toBe(3);
      expect(result.errors).toMatch(
        /^nestbox: stale: 0000:00:01\.0 reads IOVA 0x10000000 at 0x[0-9a-f]+, which iommu0 has cached; its tables say 0x[0-9a-f]+: the kernel's IOMMU driver/m,
      );
      expect(result.errors).toMatch(/host: stale accesses: [1-9]/);
    });

    it.each(["replaced", "memories", "child"])("is not told of stale accesses when there are none: %s", (what) => {
      const result = run("--check", "stale", "--strict", "--", what, EDU);
      expect(result.errors).toMatch(/host: stale accesses: 0$/m);
      expect(result.status).toBe(0);
    });

    it("maps nothing by a call that is dropped", () => {
      const result = run("--inject", "ioctl:IOMMU_IOAS_MAP=drop", "--", "memories", EDU);
      expect(result.errors).toMatch(/VmPin/);
      expect(result.status).toBe(1);
    });

    it("waits for a call that is delayed", () => {
      expect(run("--inject", "ioctl:IOMMU_IOAS_MAP=delay/50000000", "--", "slow", EDU, "50").status).toBe(0);
    });

    it("is refused, or sees something else, when what it asks for is corrupted", () => {
      const result = run("--inject", "ioctl:IOMMU_IOAS_MAP@1=corrupt", "--seed", "3", "--", "replaced", EDU);
      expect(result.status).not.toBe(0);
      expect(result.errors).not.toMatch(/no occasion/);
    });

    it("ends with its errno", () => {
      const result = run("--inject", "ioctl:VFIO_DEVICE_BIND_IOMMUFD=EPERM", "--", "memories", EDU);
      expect(result.errors).toMatch(/VFIO\(18\).*errno 1\)/);
      expect(result.status).toBe(1);
    });
  });

  it("huge: it reaches huge pages, private, shared and by descriptor", ({ skip }) => {
    const result = onHost(program, "huge", EDU);
    expect(result.errors).not.toMatch(/line \d+:/);
    // No pool of huge pages here (vm.nr_hugepages).
    if (result.status === 4) skip();
    expect(result.status).toBe(0);
  });

  it("is told in a line of a call that the host does not know", () => {
    const result = onHost(program, "unknown", EDU);
    expect(result.status).toBe(0);
    expect(result.errors).toMatch(
      /^nestbox: pid \d+ asks 0x3bf0 of \/dev\/iommu, which this host does not know \(ENOTTY\)$/m,
    );
  });

  it("that is killed leaves nothing behind", () => {
    const result = onHost(program, "killed", EDU);
    expect(result.status).toBe(128 + 9);
    expect(result.errors).toMatch(/DMA: \d+ transfers, 8192 bytes/);
    expect(result.errors).toMatch(/left over: nothing/);
  });

  it.each([
    ["--strict", 1],
    ["--time=leap", 0],
  ])("that leaves a child with all it had has that said; with %s the exit status is %d", (option, status) => {
    const result = nestbox("host", "run", option, "--", "sh", "-c", `exec 2>/dev/null; exec ${hostile} left ${EDU}`);
    process.kill(Number(result.output), "SIGKILL");
    expect(result.errors).toMatch(/left over: .*1 ioas.*\(held by 2 open files and processes\)/);
    expect(result.status).toBe(status);
  });

  it("has device nodes and a sysfs in its file system, which is gone afterwards", () => {
    const script = `set -e
      stat -c '%F %t:%T' /dev/iommu /dev/vfio/devices/vfio0
      cat /sys/bus/pci/devices/${EDU}/vendor $NESTBOX_SYS/${EDU}/vfio-dev/vfio0/dev
      ls /sys/bus/pci/devices | head -1
      basename $(readlink /sys/bus/pci/devices/${EDU}/iommu_group)
      stat -c %a $NESTBOX_HOST_TREE $NESTBOX_HOST_SOCKET
      echo $NESTBOX_HOST_TREE`;
    const { output, status } = onHost("sh", "-c", script);
    const lines = output.trim().split("\n");
    const tree = lines.pop()!;
    expect(lines).toEqual([
      "character special file a:7c",
      "character special file 1ff:0",
      "0x1234",
      "511:0",
      EDU,
      "0",
      "700",
      "600",
    ]);
    expect(status).toBe(0);
    expect(existsSync(tree)).toBe(false);
  });

  it("lists them without a complaint", () => {
    const result = onHost("ls", "-l", "/dev/vfio/devices", "/sys/bus/pci/devices");
    expect(result.output).toMatch(/^crw-------.* 511, +0 .* vfio0$/m);
    expect(result.output).toMatch(
      /^lrwxrwxrwx.* 0000:00:01\.0 -> \.\.\/\.\.\/\.\.\/devices\/pci0000:00\/0000:00:01\.0$/m,
    );
    expect(result.errors).not.toMatch(/^ls: /m);
    expect(result.status).toBe(0);
  });

  it("is named $NESTBOX_SYS in its arguments, and ends with its own status", () => {
    const result = onHost("sh", "-c", 'test "$1" = "$NESTBOX_SYS/x" && exit 7', "sh", "$NESTBOX_SYS/x");
    expect(result.status).toBe(7);
  });

  it("finds its device by what a shell makes of an unquoted $NESTBOX_SYS, and is told so", () => {
    const script = 'test "$1" = "vfio-pci,sysfsdev=$NESTBOX_SYS/0000:00:01.0,iommufd=i0" && test "$2" = /0000:77:01.0';
    const words = ["sh", "vfio-pci,sysfsdev=/0000:00:01.0,iommufd=i0", "/0000:77:01.0"];
    const result = onHost("sh", "-c", script, ...words);
    expect(result.status).toBe(0);
    expect(result.errors.replace(/\s+/g, " ")).toMatch(
      /host run: "vfio-pci,sysfsdev=\/0000:00:01\.0,iommufd=i0" is taken for \$NESTBOX_SYS\/0000:00:01\.0: .* \(quote it: '\$NESTBOX_SYS\/0000:00:01\.0'\)/,
    );
    expect(result.errors).not.toMatch(/77:01/);
  });

  it("has its devices' DMA and IOMMU faults counted, for people and as JSON", () => {
    const file = join(folder, "summary.json");
    const result = nestbox("host", "run", "--strict", "--json", file, "--", program, "memories", EDU);
    expect(result.errors).toMatch(/DMA: \d+ transfers, \d+ bytes, 1 aborted, 0 MSIs, 1 IOMMU faults$/m);
    const { requests, ioctls, devices, leftOver } = JSON.parse(readFileSync(file, "utf8"));
    expect(requests).toBeGreaterThan(20);
    expect(ioctls.IOMMU_IOAS_MAP).toBe(2);
    expect(devices).toMatchObject([{ name: EDU, aborted: 1, faults: 1, messages: 0 }]);
    expect(leftOver).toBe("");
  });

  /** Programs that make their system calls themselves, as C: source, options of the compiler, and why they are refused. */
  it.each([
    ["a static one", "int main(void) { return 0; }", ["-static"], "is linked statically"],
    [
      "one without any library",
      'void _start(void) { for (;;) __asm__ volatile(""); }',
      ["-nostdlib", "-static", "-ffreestanding"],
      "is linked statically",
    ],
    [
      // What Go's linker leaves in what it makes, with cgo or without: a note of the owner "Go" (cmd/link, buildid).
      "a Go program, even one that is linked with the C library",
      `__asm__(".section .note.go.buildid,\\"a\\",@note\\n.balign 4\\n.long 4,4,4\\n.asciz \\"Go\\\\0\\"\\n.long 1\\n.text");
       int main(void) { return 0; }`,
      [],
      "is a Go program",
    ],
  ])("that goes round the C library is refused in one line: %s", (_what, text, options, why) => {
    const code = join(folder, "round.c");
    writeFileSync(code, `${text}\n`);
    const made = join(folder, "round-program");
    expect(spawnSync("cc", [...options, "-o", made, code], { encoding: "utf8" }).stderr).toBe("");
    const result = onHost(made);
    expect(result.errors.replace(/\n\s+/g, " ")).toMatch(
      new RegExp(`^nestbox: host run: \\S*round-program ${why}[:,] [^\n]*\n$`),
    );
    expect(result.status).toBe(2);
  });

  it("that is not there is one line", () => {
    const result = onHost("no-such-program");
    expect(result.errors).toBe("nestbox: host run: no-such-program: no such program\n");
    expect(result.status).toBe(127);
  });

  it("finds no device that is not described, and is told so", () => {
    const result = onHost("cat", "/dev/vfio/devices/vfio9");
    expect(result.status).toBe(1);
    expect(result.errors).toMatch(
      /^nestbox: pid \d+ opens \/dev\/vfio\/devices\/vfio9, which this host does not have$/m,
    );
  });

  it("cannot begin without a C compiler: exit status 77 and a sentence", () => {
    const result = spawnSync(process.execPath, [nestboxFile, "host", "run", "--", process.execPath], {
      encoding: "utf8",
      env: { ...process.env, PATH: "/nowhere", XDG_CACHE_HOME: join(folder, "empty-cache") },
    });
    expect(result.stderr).toMatch(/^nestbox: no C compiler here .*\n$/);
    expect(result.status).toBe(77);
  });
});

/** A program with the environment that `host serve` printed. */
function start(environment: Record<string, string>, ...words: string[]): ChildProcess {
  return spawn(program, words, { env: { ...process.env, ...environment }, stdio: ["ignore", "inherit", "inherit"] });
}

function ended(child: ChildProcess): Promise<number | string | null> {
  return new Promise((resolve) => child.on("exit", (code, signal) => resolve(code ?? signal)));
}

describe.skipIf(!possible)("nestbox host serve", () => {
  it("serves programs started elsewhere; one that is stopped does not hold up another", async () => {
    const place = join(folder, "served");
    const { server, environment, said } = await serve(place);
    expect(statSync(place).mode & 0o777).toBe(0o700);
    const stopped = start(environment, "stopped", EDU);
    // It stops itself when it has mapped memory and done DMA.
    while (!/^State:\tT/m.test(readFileSync(`/proc/${stopped.pid}/status`, "utf8"))) {
      expect(stopped.exitCode).toBe(null);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(await ended(start(environment, "memories", OTHER_EDU))).toBe(0);
    expect(await ended(start(environment, "interrupts", OTHER_EDU))).toBe(0);
    stopped.kill("SIGKILL");
    expect(await ended(stopped)).toBe("SIGKILL");
    server.kill("SIGTERM");
    expect(await ended(server)).toBe(0);
    expect(said.errors).toMatch(/left over: nothing/);
    expect(existsSync(place)).toBe(false);
  });

  it("waits for a connection to end when the server has no descriptor for another, which says so", async () => {
    const { server, environment, said } = await serve(join(folder, "full"), "512");
    // Node needs some hundred to begin.
    const sockets = Array.from({ length: 600 }, () => net.connect(environment.NESTBOX_HOST_SOCKET!));
    await new Promise<void>((resolve) => {
      server.stderr.on("data", () => {
        if (/no descriptor for another connection/.test(said.errors)) resolve();
      });
    });
    const program = ended(start(environment, "memories", EDU));
    for (const socket of sockets) socket.destroy();
    expect(await program).toBe(0);
    server.kill("SIGTERM");
    expect(await ended(server)).toBe(0);
    expect(said.errors).toMatch(/left over: nothing/);
  });

  it("refuses a folder that LD_PRELOAD cannot name", () => {
    const dir = join(folder, "two words");
    const { status, errors } = nestbox("host", "serve", "--dir", dir);
    expect(status).toBe(2);
    expect(errors).toMatch(/two words: LD_PRELOAD cannot name a folder with spaces or colons/);
    expect(existsSync(dir)).toBe(false);
  });

  it("refuses a folder that exists", () => {
    const result = nestbox("host", "serve", "--dir", folder);
    expect(result.errors).toMatch(/^nestbox: .*: exists already\n$/);
    expect(result.status).toBe(2);
  });
});

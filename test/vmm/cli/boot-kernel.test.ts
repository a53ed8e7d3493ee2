// `nestbox boot --kernel` as a user meets it, with small programs in Linux's Image format.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { APLIC_BASE, RAM_BASE, UART_BASE } from "../../../vmm/memory-map.ts";
import { CSR, Program, S0, T1 } from "../rv64-program.ts";
import { nestbox, nestboxFile, report } from "./command-line.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-kernel-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, contents: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, contents);
  return path;
}
const kernel = (name: string, program: Program): string => file(name, program.imageFile);
const boot = (...args: string[]) => nestbox("boot", "--memory", "4M", "--report", "json", "--kernel", ...args);

function endless(): Program {
  const program = new Program().print(UART_BASE, "on ");
  return program.jump(program.here);
}

describe("nestbox boot --kernel", () => {
  it("prints what the guest prints, a line without an end too, and what it executed", () => {
    const result = boot(kernel("hello", new Program().print(UART_BASE, "no newline").reset()));
    expect(result.errors).toBe("no newline\n");
    expect(result.status).toBe(0);
    const summary = report(result);
    expect(summary).toMatchObject({ result: "pass", detail: "powered off", traps: 10, faults: 0, ids: [] });
    expect(summary.instructions).toBeGreaterThan(10);
  });

  it("fails when the guest reports a system failure", () => {
    const result = boot(kernel("failure", new Program().reset(0, 1)));
    expect(result.status).toBe(1);
    expect(report(result).detail).toBe("the guest reported a system failure");
  });

  // Virtual time goes on over a reboot: the third boot is late enough to power off.
  const reboots = new Program()
    .print(UART_BASE, "boot\n")
    .load(4, S0, APLIC_BASE)
    .storeRegister(1, UART_BASE + 7, S0)
    .store(4, APLIC_BASE, 0x100)
    .csrRead(S0, CSR.time)
    .li(T1, 20)
    .ifLess(S0, T1, (program) => program.reset(1))
    .reset();

  it("a reboot starts the machine anew, and the summary counts all boots", () => {
    const result = boot(kernel("reboot", reboots));
    expect(result.status).toBe(0);
    const boots = result.errors.match(/boot\n/g)!.length;
    expect(boots).toBeGreaterThanOrEqual(2);
    expect(report(result).traps).toBe(boots * (5 + 3));
    expect(result.errors).toBe(`${"boot\nnestbox: the guest reboots\n".repeat(boots - 1)}boot\n`);
  });

  it("--no-reboot ends the run there", () => {
    const result = boot(kernel("reboot", reboots), "--no-reboot");
    expect(result.status).toBe(0);
    expect(report(result).detail).toBe("the guest asked for a reboot");
    expect(result.errors.match(/boot\n/g)).toHaveLength(1);
  });

  it("a guest that reboots for ever ends at the limit", () => {
    const result = boot(kernel("loop", new Program().reset(1)), "--wall-limit", "4s");
    expect(result.status).toBe(42);
  });

  it("ends at the limits on virtual and on wall time with 42", () => {
    const path = kernel("endless", endless());
    const virtual = boot(path, "--time-limit", "1ms");
    expect(virtual.status).toBe(42);
    expect(report(virtual)).toMatchObject({ result: "time-limit", virtualNs: 1_000_000 });
    const wall = boot(path, "--wall-limit", "500ms");
    expect(wall.status).toBe(42);
    expect(report(wall).detail).toBe("the limit on wall time (--wall-limit)");
  });

  it("says so when every hart waits for what cannot come", () => {
    const result = boot(kernel("stuck", new Program().wfi()));
    expect(result.status).toBe(1);
    expect(report(result).detail).toBe("every CPU waits for an interrupt that can never come");
  });

  it.each(["SIGINT", "SIGTERM"] as const)("ends at %s with its summary", async (signal) => {
    const args = [nestboxFile, "boot", "--memory", "4M", "--report", "json", "--kernel", kernel("endless", endless())];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    // The guest runs: now it can be interrupted.
    child.stderr.once("data", () => child.kill(signal));
    const status = await new Promise<number | null>((resolve) => child.on("close", resolve));
    expect(status).toBe(1);
    const summary = report({ status, output, errors: "" });
    expect(summary).toMatchObject({ result: "failed", detail: `ended by ${signal}` });
  });

  it("assigns a drive without a vIOMMU, and leaves nothing in the host", () => {
    const disk = file("disk.img", "");
    truncateSync(disk, 2 ** 20);
    const result = boot(kernel("off", new Program().reset()), "--nvme", disk, "--viommu", "none");
    expect(result.errors).toBe("");
    expect(result.status).toBe(0);
    const summary = report(result);
    expect(summary.ids).toMatchObject([{ guestBdf: "00:10.0", viommu: null }]);
    expect(summary.ioctls).not.toHaveProperty("IOMMU_VIOMMU_ALLOC");
  });

  it("writes its device tree down instead of booting, and hands out one that it is given", () => {
    const own = join(folder, "own.dtb");
    const hello = kernel("hello", new Program().print(UART_BASE, "executed\n").reset());
    const dumped = boot(hello, "--dump-dtb", own);
    expect([dumped.status, dumped.output, dumped.errors]).toEqual([0, "", ""]);
    const tree = readFileSync(own);
    // Devicetree Specification §5.2: magic, totalsize
    expect([tree.readUInt32BE(0), tree.readUInt32BE(4)]).toEqual([0xd00dfeed, tree.length]);
    const other = file("other.dtb", Buffer.concat([tree, Buffer.of(4, 0, 0, 0)]));
    // The tree lies in the last 2 MiB of RAM.
    const looks = new Program()
      .load(4, S0, RAM_BASE + 0x200000 + tree.length)
      .li(T1, 4)
      .ifLess(S0, T1, (program) => program.reset(0, 1))
      .reset();
    expect(boot(kernel("looks", looks)).status).toBe(1);
    expect(boot(kernel("looks", looks), "--dtb", other).status).toBe(0);
  });

  it.each<[string, () => string[], RegExp]>([
    [
      "a device tree that is none",
      () => [kernel("off", new Program().reset()), "--dtb", file("no.dtb", "x".repeat(64))],
      /no\.dtb: not a flattened device tree/,
    ],
    [
      "a device tree that is cut short",
      () => [
        kernel("off", new Program().reset()),
        "--dtb",
        file("short.dtb", Buffer.concat([Buffer.from("d00dfeed00000100", "hex"), Buffer.alloc(0xf0)])),
      ],
      /short\.dtb: not a flattened device tree/,
    ],
    [
      "a place for its device tree where nothing can be written",
      () => [kernel("off", new Program().reset()), "--dump-dtb", join(folder, "no/where.dtb")],
      /where\.dtb: no such file or folder/,
    ],
    ["no such file", () => [join(folder, "nothing")], /nothing: no such file/],
    [
      "something that is no kernel",
      () => [file("text", "hello")],
      /text: neither a Linux Image of riscv64 or arm64 nor an ELF file/,
    ],
    ["a damaged gzip file", () => [file("gz", Uint8Array.of(0x1f, 0x8b, 0))], /gz: a damaged gzip file/],
    [
      "a kernel larger than RAM",
      () => [file("big", large())],
      /big: the kernel needs 0x80000000\.\.0x8040001., RAM is/,
    ],
    ["nine harts", () => [kernel("off", new Program().reset()), "--cpus", "9"], /--cpus takes 1 to 8/],
    [
      "a drive that is not there",
      () => [kernel("off", new Program().reset()), "--nvme", "no.img"],
      /no\.img: no such file/,
    ],
  ])("refuses %s in one line, exit status 2", (_what, args, message) => {
    const result = boot(...args());
    expect(result.status).toBe(2);
    expect(result.errors).toMatch(message);
    expect(result.errors.trimEnd().split("\n")).toHaveLength(1);
  });
});

/** An Image that claims 4 MiB and a little. */
function large(): Uint8Array {
  const image = new Program().reset().imageFile;
  new DataView(image.buffer).setBigUint64(16, 0x40_0010n, true);
  return image;
}

// `nestbox boot --record` and `nestbox replay` of what it wrote. Kernels are replayed by test/vmm/cli/recorded-pace.test.ts in small, and by the Debian checks.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UART_BASE } from "../../../vmm/memory-map.ts";
import { putTogether, takeApart } from "../../host/adapters/recording/container.ts";
import { Program } from "../rv64-program.ts";
import { nestbox, nestboxFile } from "./command-line.ts";

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-machine-"));
  const rules = ["--inject", "ioctl:IOMMU_HWPT_INVALIDATE%20=drop", "--seed", "7"];
  nestbox("boot", "--record", at("run"), "--trace", at("then"), ...rules);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function changed(change: (header: { nestbox: string; version: number; run: never }) => void): string {
  const parts = takeApart(readFileSync(at("run")));
  const header = JSON.parse(parts.header.toString());
  change(header);
  writeFileSync(at("bad"), putTogether({ ...parts, header: Buffer.from(JSON.stringify(header)) }));
  const { errors, status } = nestbox("replay", at("bad"));
  expect(status).toBe(2);
  return errors.replace(/\n\s+/g, " ");
}

describe("a recorded run of a component guest", () => {
  it("gives the same trace, byte for byte, with what was injected then", () => {
    const replayed = nestbox("replay", at("run"), "--trace", at("now"));
    expect(replayed.errors).toMatch(/the run is as it was recorded$/m);
    expect(replayed.status).toBe(0);
    const trace = readFileSync(at("then"), "utf8");
    expect(trace).toMatch(/"type":"injection"/);
    expect(readFileSync(at("now"), "utf8")).toBe(trace);
  });

  it("stops at the first event of a kind, and shows the machine as it is then", () => {
    const { output, errors, status } = nestbox(
      "replay",
      at("run"),
      "--until",
      "fault",
      "--inspect",
      "--trace",
      at("now"),
    );
    expect(status).toBe(0);
    expect(output).toMatch(/iommu/);
    const now = readFileSync(at("now"), "utf8").trim().split("\n");
    const { seq } = JSON.parse(now.at(-1)!) as { readonly seq: number };
    expect(errors).toContain(`stopped at the event, seq ${seq} of the trace\n`);
    const then = readFileSync(at("then"), "utf8").trim().split("\n");
    expect(now).toEqual(then.slice(0, now.length));
    expect(now.findIndex((line) => /"type":"fault"/.test(line))).toBeGreaterThan(now.length - 200);
  });

  it("is refused where an image is another, the version is another, or the header is none", () => {
    expect(
      changed((header) => {
        (header.run as { images: { sha256: string }[] }).images[0]!.sha256 = "0".repeat(64);
      }),
    ).toMatch(/^nestbox: \S+: needs the image \S+ as it was \(SHA-256 0{64}\); --image FILE says where it is now\n$/);
    expect(
      changed((header) => {
        header.nestbox = "0.0.1";
      }),
    ).toMatch(/was made by nestbox 0\.0\.1; this is/);
    expect(
      changed((header) => {
        header.version = 99;
      }),
    ).toMatch(/records of a machine in version 99/);
    expect(
      changed((header) => {
        header.run = { images: [] } as never;
      }),
    ).toMatch(/does not describe a machine's run/);
  });

  it("differs where the run was made otherwise", () => {
    const parts = takeApart(readFileSync(at("run")));
    const header = JSON.parse(parts.header.toString());
    header.run.options.inject = [];
    writeFileSync(at("bad"), putTogether({ ...parts, header: Buffer.from(JSON.stringify(header)) }));
    const { errors, status } = nestbox("replay", at("bad"));
    expect(status).toBe(1);
    expect(errors.replace(/\s+/g, " ")).toMatch(/the run's (kind|virtualNs|console) is \S+, the recorded one/);
  });
});

describe("a replay that goes on for ever", () => {
  it("ends at the first Ctrl-C", async () => {
    const program = new Program().print(UART_BASE, "on\n");
    program.jump(program.here);
    writeFileSync(at("endless"), program.imageFile);
    nestbox("boot", "--kernel", at("endless"), "--memory", "4M", "--time-limit", "1ms", "--record", at("short"));
    const parts = takeApart(readFileSync(at("short")));
    const header = JSON.parse(parts.header.toString());
    header.run.options.timeLimit = 1e15;
    writeFileSync(at("long"), putTogether({ ...parts, header: Buffer.from(JSON.stringify(header)) }));
    const child = spawn(process.execPath, [nestboxFile, "replay", at("long")], { stdio: ["ignore", "pipe", "ignore"] });
    await once(child.stdout!, "data");
    child.kill("SIGINT");
    const [status, signal] = await once(child, "exit");
    expect(status ?? signal).toBe("SIGINT");
  });
});

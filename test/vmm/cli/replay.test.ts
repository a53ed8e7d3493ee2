// `nestbox host run --record` and `nestbox replay`: programs on a modelled host, and the model of their runs again without them.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { putTogether, takeApart } from "../../host/adapters/recording/container.ts";
import { nestbox } from "./command-line.ts";

const source = fileURLToPath(new URL("../../host/adapters/vfio-program.c", import.meta.url));
const EDU = "0000:00:01.0";

const possible = process.platform === "linux" && spawnSync("cc", ["--version"]).status === 0;

let folder: string;
let program: string;
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-replay-"));
  program = at("vfio-program");
  if (possible) expect(spawnSync("cc", ["-O1", "-o", program, source]).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function record(what: string, ...options: string[]): ReturnType<typeof nestbox> {
  return nestbox("host", "run", "--record", at("run"), ...options, "--", program, what, EDU);
}

describe.skipIf(!possible)("a recorded run of a program on a modelled host", () => {
  it.each([
    ["memories", "memory that devices read and write: private, shared and by descriptor"],
    ["interrupts", "interrupts on eventfds"],
    ["pin", "an eventfd that the host listens to"],
    ["posted", "registers that are written without waiting"],
    ["child", "processes that fork"],
    ["pass", "descriptors that come over a socket, to a program that begins by exec"],
    ["group", "container and group"],
    ["killed", "a program that is killed"],
  ])("%s: gives the same trace, byte for byte, without the program: %s", (what) => {
    record(what, "--trace", at("then"));
    const replayed = nestbox("replay", at("run"), "--trace", at("now"));
    expect(replayed.errors).toMatch(/all answers are those that were recorded/);
    expect(replayed.errors).toMatch(/left over: nothing/);
    expect(replayed.status).toBe(0);
    expect(readFileSync(at("now"), "utf8")).toBe(readFileSync(at("then"), "utf8"));
  });

  it("gives a trace when it was recorded without one, with the rules and the checker of then", () => {
    const rules = ["--inject", "command:IOTINVAL.VMA=drop", "--inject", "ioctl:IOMMU_IOAS_MAP=delay/3000000"];
    const then = record("replaced", "--check", "stale", ...rules, "--seed", "5");
    expect(then.errors).toMatch(/stale: 0000:00:01\.0 reads IOVA/);
    const now = nestbox("replay", at("run"), "--trace", at("now"));
    expect(now.status).toBe(0);
    expect(readFileSync(at("now"), "utf8")).toMatch(/"type":"injection"/);
    const stale = ({ errors }: typeof now) => errors.split("\n").filter((line) => /stale/.test(line));
    expect(stale(now)).toEqual(stale(then));
  });

  it("stops after what brought the event that is asked for", () => {
    record("memories");
    const { output, status } = nestbox("replay", at("run"), "--to", "100", "--json");
    expect(status).toBe(0);
    const { complete, events, leftOver } = JSON.parse(output);
    expect(complete).toBe(false);
    expect(events).toBeGreaterThanOrEqual(100);
    expect(leftOver).toMatch(/ioas/);
  });

  it("is refused in one line when it is cut short or changed, and nothing of it is replayed", () => {
    record("memories");
    const file = readFileSync(at("run"));
    const changed = Buffer.from(file);
    changed[file.length >> 1]! ^= 1;
    for (const [bytes, why] of [
      [file.subarray(0, file.length - 1), "is cut short: its end is missing"],
      [changed, "has been changed since it was written"],
      [Buffer.from("nothing"), "is no recording of nestbox's"],
    ] as const) {
      writeFileSync(at("bad"), bytes);
      const result = nestbox("replay", at("bad"));
      expect(result.errors.replace(/\n\s+/g, " ")).toBe(`nestbox: ${at("bad")}: ${why}\n`);
      expect(result.status).toBe(2);
    }
  });

  it("of another version of nestbox is refused", () => {
    record("memories");
    const parts = takeApart(readFileSync(at("run")));
    const header = { ...JSON.parse(parts.header.toString()), nestbox: "0.0.9" };
    writeFileSync(at("bad"), putTogether({ ...parts, header: Buffer.from(JSON.stringify(header)) }));
    const result = nestbox("replay", at("bad"));
    expect(result.errors).toMatch(/was made by nestbox 0\.0\.9; this is/);
    expect(result.status).toBe(2);
  });

  it("says where the model does otherwise than it did", () => {
    record("memories");
    const parts = takeApart(readFileSync(at("run")));
    // The run began on a host that fails its second call of that name.
    const header = JSON.parse(parts.header.toString());
    header.run.inject = ["ioctl:IOMMU_IOAS_MAP@2=ENOMEM"];
    writeFileSync(at("bad"), putTogether({ ...parts, header: Buffer.from(JSON.stringify(header)) }));
    const result = nestbox("replay", at("bad"), "--quiet");
    expect(result.status).toBe(1);
    expect(result.errors.replace(/\s+/g, " ")).toMatch(
      /replay: \S+: record \d+, while IOCTL 0x3b85 of descriptor \d+ is handled: the model asks for the time, the recording has a process's mappings/,
    );
  });

  it("that cannot be written does not end the program, and is said in a line", () => {
    const { errors, status } = nestbox("host", "run", "--record", "/dev/full", "--", program, "memories", EDU);
    expect(errors).toMatch(/^nestbox: recording \/dev\/full: no space is left on the disk/m);
    expect(errors).toMatch(/left over: nothing/);
    expect(status).toBe(1);
  });
});

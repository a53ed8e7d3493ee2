// The command line with a VT-d unit: the host comes with the kind; the default guest's story holds, and a fault that the guest never hears of is explained.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nestbox, report } from "./command-line.ts";
import { describeReadmeCommands } from "./readme-commands.ts";

let folder: string;
let trace: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
  trace = join(folder, "boot.jsonl");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("nestbox boot --viommu vtd", () => {
  it("boots the default guest on the host that has VT-d, and its story holds", () => {
    const run = nestbox("boot", "--viommu", "vtd", "--report", "json", "--trace", trace);
    expect(run.errors).toMatch(/\ndone: all steps hold\n/);
    expect(report(run)).toMatchObject({ result: "pass", faults: 0 });
    const { commands, nestedDomains } = report(run) as Record<string, Record<string, number>>;
    expect(Object.keys(commands!)).toEqual(expect.arrayContaining(["pasidCache", "pasidIotlb", "wait"]));
    expect(nestedDomains).toBeGreaterThan(5);
    expect(run.status).toBe(0);
  });

  it("explains what the first stage refused, though its guest never hears of it", () => {
    const run = nestbox("walk", "--trace", trace, "--why", "--iova", "0x3456789000", "--device", "00:02.0");
    expect(run.output).toMatch(/-> stage 2: the host's fault/);
    expect(run.status).toBe(0);
  });

  it("ids knows the guest's side by its interrupts: the host has no vDEVICE to ask", () => {
    const rows = JSON.parse(nestbox("ids", "--trace", trace, "--json").output) as Record<string, unknown>[];
    const sides = rows.map(({ guestBdf, guestDeviceId, vdevice, hostBdf, hostDeviceId }) => [
      ...[guestBdf, guestDeviceId, vdevice, hostBdf, hostDeviceId],
    ]);
    expect(sides).toEqual([
      ["00:02.0", 0x10, null, "0000:00:01.0", 0x08],
      ["00:01.0", 0x08, null, "0000:00:02.0", 0x10],
    ]);
  });

  it("has the host's failures, by rules: a refused stage 1 leaves its device blocked, and the run says so", () => {
    const run = nestbox("boot", "--viommu", "vtd", "--inject", "ioctl:IOMMU_HWPT_ALLOC@4=ENOMEM");
    expect(run.errors).toMatch(/IOMMU_HWPT_ALLOC.*00:0[12]\.0.*0000:00:0[12]\.0.*ENOMEM/);
    expect(run.status).toBe(1);
  });
});

describeReadmeCommands("vtd");

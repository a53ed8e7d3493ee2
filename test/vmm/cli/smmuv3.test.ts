// The command line with an SMMUv3: the host comes with the kind; walk, ids, inspect and caps speak its words.

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

describe("nestbox boot --viommu smmuv3", () => {
  it("boots the default guest on the host that has SMMUs, and its story holds", () => {
    const run = nestbox("boot", "--viommu", "smmuv3", "--report", "json", "--trace", trace);
    expect(run.errors).toMatch(/\ndone: all steps hold\n/);
    expect(report(run)).toMatchObject({ result: "pass", faults: 5 });
    const { commands, nestedDomains, bypassDomains } = report(run) as Record<string, Record<string, number>>;
    expect(Object.keys(commands!)).toEqual(expect.arrayContaining(["CMD_CFGI_STE", "CMD_TLBI_NH_VA", "CMD_SYNC"]));
    expect(nestedDomains).toBeGreaterThan(50);
    expect(bypassDomains).toBeGreaterThan(50);
    expect(run.status).toBe(0);
  });

  it("says what to do where the host named has another kind", () => {
    const run = nestbox("boot", "--viommu", "smmuv3", "--host", "two-iommus", "--assign", "0000:00:01.0@00:02.0");
    expect(run.errors).toBe(
      "nestbox: --assign 0000:00:01.0@00:02.0: host two-iommus has a riscv IOMMU before 0000:00:01.0, and a guest's smmuv3 needs one of its " +
        "own kind: run on --host arm, or take --viommu riscv\n",
    );
    expect(run.status).toBe(2);
    const other = nestbox("boot", "--host", "arm", "--assign", "0000:00:01.0@00:02.0");
    expect(other.errors).toMatch(/host arm has a smmuv3 IOMMU .* run on --host two-iommus, or take --viommu smmuv3\n$/);
  });

  it("has the host's failures, by rules: a refused stage 1 leaves its device aborting, and the run says so", () => {
    const run = nestbox("boot", "--viommu", "smmuv3", "--inject", "ioctl:IOMMU_HWPT_ALLOC@4=ENOMEM");
    expect(run.errors).toMatch(/IOMMU_HWPT_ALLOC.*00:0[12]\.0.*0000:00:0[12]\.0.*ENOMEM/);
    expect(run.status).toBe(1);
  });
});

describeReadmeCommands("smmuv3");

describe("what looks at an SMMUv3", () => {
  it("walk shows levels from 0 down, and tells the guest's stage from the host's, with the section", () => {
    const at = ["--device", "00:01.0", "--trace", trace, "--why", "--width", "60"];
    const own = nestbox("walk", ...at, "--iova", "0x1234567000");
    expect(own.output).toMatch(/stage 1 level 1 {2}gpa 0x8/);
    const outside = nestbox("walk", "--trace", trace, "--why", "--iova", "0x3456789000", "--device", "00:02.0");
    expect(outside.output).toMatch(
      /-> stage 2: the host's fault: F_TRANSLATION of stream 0x10: write at 0x3456789000, stage 2 \(IN\)/,
    );
    expect(outside.output).toMatch(/F_TRANSLATION, at the host's door\..*S2 = 1.*\(IHI 0070 §7\.3\.13\)/s);
  });

  it("walk runs one scenario of a file by its name", () => {
    const scenario = ["--scenario", "test/scenarios/stale-iotlb.scenario.ts", "--filter", "(smmuv3)"];
    const { output, status } = nestbox("walk", ...scenario, "--device", "00:02.0", "--iova", "0x4000", "--why");
    expect(output).toMatch(
      /-> stage 1: the guest's fault: F_TRANSLATION of stream 0x8: read at 0x4000, stage 1 \(IN\)/,
    );
    expect(output).toMatch(/F_TRANSLATION, at the guest's door\..*S2 = 0\. \(IHI 0070 §7\.3\.13\)/s);
    expect(output).toContain("the guest finds: F_TRANSLATION of stream 0x10: read at 0x4000, stage 1 (IN)");
    expect(status).toBe(0);
  });

  it("ids pairs the guest's StreamIDs with the host's", () => {
    const rows = JSON.parse(nestbox("ids", "--trace", trace, "--json").output) as object[];
    expect(rows).toMatchObject([
      { guestBdf: "00:02.0", guestDeviceId: 0x10, hostBdf: "0000:00:01.0", hostDeviceId: 0x08 },
      { guestBdf: "00:01.0", guestDeviceId: 0x08, hostBdf: "0000:00:02.0", hostDeviceId: 0x10 },
    ]);
  });

  it("inspect reads every register by name", () => {
    const tree = JSON.parse(nestbox("inspect", "vm/viommus/viommu0", "--viommu", "smmuv3", "--json").output) as {
      registers: Record<string, string>;
    };
    expect(tree).toMatchObject({ over: "smmu0" });
    expect(tree.registers.IDR0).toMatch(/S1P=1 TTF=VMSAv8-64 .*STALL_MODEL=terminate/);
    expect(tree.registers.IDR0).not.toContain("S2P");
    expect(tree.registers.GBPA).toContain("ABORT=1");
  });

  it("caps gives each field of the identification registers its reason", () => {
    const { output, status } = nestbox("caps", "--viommu", "smmuv3");
    expect(output).toMatch(/^viommu0, over smmu0: /);
    expect(output).toMatch(/IDR0 +│ 0 +│ S2P +│ 1 +│ 0 +│ never: the second stage is the host's/);
    expect(output).toMatch(/IDR0 +│ 16 +│ PRI +│ 1 +│ 0 +│ /);
    expect(status).toBe(0);
  });

  it("hosts lists the host with its SMMUs' devices", () => {
    expect(nestbox("hosts").output).toMatch(/^arm: .*SMMUv3/m);
  });
});

// A host description without --assign: the guest gets two of its devices, or is told what to add.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parseHost } from "../../../host/description.ts";
import { defaultAssignments } from "../../../vmm/cli/default-assignments.ts";
import { fixture, nestbox } from "./command-line.ts";

const folder = mkdtempSync(join(tmpdir(), "nestbox-default-"));
afterAll(() => rmSync(folder, { recursive: true }));

const iommus = ["iommu0", "iommu1"].map((name) => ({ name, kind: "riscv" }));
type Device = { model: string; bdf: string; iommu?: string; group?: number };
const edu = (bdf: string, more: Partial<Device> = {}): Device => ({ model: "edu", bdf, iommu: "iommu0", ...more });
const nvme = (bdf: string): Device => ({ model: "nvme", bdf, iommu: "iommu0" });
const description = (devices: Device[]) => ({ name: "mine", iommus, devices });

function hostFile(devices: Device[]): string {
  const file = join(folder, "host.json");
  writeFileSync(file, JSON.stringify(description(devices)));
  return file;
}

describe("without --assign", () => {
  it.each([
    [
      "two edu devices behind one IOMMU, ids crossed over",
      [edu("00:01.0"), nvme("00:02.0"), edu("00:03.0")],
      ["0000:00:01.0@00:02.0", "0000:00:03.0@00:01.0"],
    ],
    [
      "those of the second IOMMU, where the first has one",
      [edu("00:01.0"), edu("00:02.0", { iommu: "iommu1" }), edu("00:03.0", { iommu: "iommu1" })],
      ["0000:00:02.0@00:02.0", "0000:00:03.0@00:01.0"],
    ],
    [
      "any two devices, where there are not two edu",
      [edu("00:01.0"), nvme("00:02.0")],
      ["0000:00:01.0@00:02.0", "0000:00:02.0@00:01.0"],
    ],
    ["one, where there is one", [nvme("00:05.0")], ["0000:00:05.0@00:02.0"]],
    [
      "none that shares its iommu group",
      [edu("00:01.0"), edu("00:02.0", { group: 1 }), edu("00:03.0", { group: 1 })],
      ["0000:00:01.0@00:02.0"],
    ],
    ["none without an IOMMU", [{ model: "edu", bdf: "00:01.0" }, edu("00:02.0")], ["0000:00:02.0@00:02.0"]],
  ])("a guest gets %s", (_what, devices, expected) => {
    expect(defaultAssignments(parseHost(description(devices), "mine"))).toEqual(expected);
  });

  it("the default guest passes on a host with two edu devices", () => {
    const run = nestbox("boot", "--host", hostFile([edu("00:03.0"), edu("00:04.0")]));
    expect(run.errors).toBe("");
    expect(run.output).toContain("device id  guest 00:02.0 (0x10) -> host 0000:00:03.0");
    expect(run.status).toBe(0);
  });

  it.each([
    [
      "too few edu devices for the default guest",
      [edu("00:01.0")],
      /default guest needs two edu devices behind one IOMMU, and gets one of host mine: .*--assign two/,
    ],
    ["no devices", [], /host mine has no devices; add some to its description/],
    [
      "no device behind an IOMMU",
      [{ model: "edu", bdf: "00:01.0" }],
      /no device of host mine is behind an IOMMU; add one/,
    ],
    [
      "only devices that share their groups",
      [edu("00:01.0"), edu("00:01.1")],
      /--assign 0000:00:01\.0@00:02\.0 --allow-shared-group/,
    ],
  ])("a host with %s: boot says what to add", (_what, devices, message) => {
    const run = nestbox("boot", "--host", hostFile(devices));
    expect(run.errors).toMatch(message);
    expect(run.status).toBe(2);
  });

  it("a guest that needs no device boots on a host that has none, with a line that says so", () => {
    const run = nestbox("boot", fixture("hello"), "--host", hostFile([]));
    expect(run.errors).toMatch(/the guest gets no device: host mine has no devices/);
    expect(run.status).toBe(0);
  });

  it("inspect and caps show the two devices that boot would give, too", () => {
    const file = hostFile([edu("00:03.0"), edu("00:04.0")]);
    expect(nestbox("inspect", "vm/viommus/viommu0/over", "--host", file).output).toBe("iommu0\n");
    expect(nestbox("caps", "--host", file).output).toContain("viommu0, over iommu0");
  });
});

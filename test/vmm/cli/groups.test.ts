// iommu groups on the command line: refused or shared, and shown by hosts, inspect and ids.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fixture, nestbox } from "./command-line.ts";

let folder: string;
let host: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-groups-"));
  host = join(folder, "host.json");
  const device = (bdf: string) => ({ model: "edu", bdf, iommu: "iommu0" });
  // Functions of one slot without ACS: Linux makes one group of them (pci_device_group).
  const devices = ["0000:00:01.0", "0000:00:01.1", "0000:00:02.0"].map(device);
  writeFileSync(host, JSON.stringify({ name: "shared", iommus: [{ name: "iommu0", kind: "riscv" }], devices }));
});
afterAll(() => rmSync(folder, { recursive: true }));

const BOTH = ["--assign", "00:01.0@00:02.0", "--assign", "00:01.1@00:01.0"];

describe("a shared iommu group on the command line", () => {
  it("is refused by boot and inspect in one line that names the group and its members", () => {
    for (const command of [["boot", fixture("nested-dma")], ["inspect"]]) {
      const { status, errors } = nestbox(...command, "--host", host, ...BOTH);
      expect(status).toBe(2);
      expect(errors.trimEnd().split("\n")).toHaveLength(1);
      expect(errors).toContain("iommu group 0 (0000:00:01.0, 0000:00:01.1)");
      expect(errors).toContain("--allow-shared-group");
    }
  });

  it("is one stream under --allow-shared-group: a guest that gives its functions contexts that differ is told with 259", () => {
    const trace = join(folder, "trace.jsonl");
    const image = fixture("nested-dma");
    const { status, output, errors } = nestbox(
      "boot",
      image,
      "--host",
      host,
      ...BOTH,
      "--allow-shared-group",
      "--trace",
      trace,
    );
    expect(status).toBe(1);
    expect(errors).toContain("contexts of guest devices 00:02.0 and 00:01.0 differ");
    expect(errors).toContain("259");
    expect(output).toContain("FAILED");
    const rows = JSON.parse(nestbox("ids", "--trace", trace, "--json").output) as Record<string, unknown>[];
    expect(rows.map(({ guestBdf, hostBdf, group }) => [guestBdf, hostBdf, group])).toEqual([
      ["00:02.0", "0000:00:01.0", 0],
      ["held", "0000:00:01.1", 0],
      ["00:01.0", "0000:00:01.1", 0],
    ]);
    expect(nestbox("ids", "--trace", trace).output).toMatch(/host id +│ group +│/);
  });

  it("is shown by hosts and inspect, as text and as JSON", () => {
    const description = JSON.parse(nestbox("hosts", host).output) as { devices: { bdf: string; group: number }[] };
    expect(description.devices.map(({ bdf, group }) => [bdf, group])).toEqual([
      ["0000:00:01.0", 0],
      ["0000:00:01.1", 0],
      ["0000:00:02.0", 1],
    ]);
    expect(nestbox("hosts").output).toContain("0000:80:01.0  edu   behind iommu1, iommu group 2");
    const builtIn = JSON.parse(nestbox("hosts", "--json").output) as (typeof description)[];
    expect(builtIn[0]!.devices.map(({ group }) => group)).toEqual([0, 1, 2]);
    const one = ["--host", host, "--assign", "00:01.1@00:02.0", "--allow-shared-group"];
    const tree = JSON.parse(nestbox("inspect", "--json", ...one).output) as {
      host: { "iommu groups": unknown };
      vm: { viommus: { viommu0: { devices: Record<string, Record<string, unknown>> } } };
    };
    expect(tree.host["iommu groups"]).toEqual({ 0: "0000:00:01.0 0000:00:01.1", 1: "0000:00:02.0" });
    const { devices } = tree.vm.viommus.viommu0;
    expect(Object.keys(devices)).toEqual(["0000:00:01.0 (held)", "00:02.0"]);
    expect(devices["00:02.0"]!["one stream with"]).toBe("iommu group 0 (0000:00:01.0, 0000:00:01.1)");
    expect(nestbox("inspect", "host/iommu groups", ...one).output).toBe(
      "0: 0000:00:01.0 0000:00:01.1\n1: 0000:00:02.0\n",
    );
  });
});

import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { HostDescriptionError, parseHost, parseSize } from "../../host/description.ts";
import { Host } from "../../host/host.ts";
import { HARDWARE_KINDS } from "../../host/hw/iommu/kinds.ts";

describe("a host description", () => {
  const cases: [what: string, document: unknown, message: RegExp][] = [
    ["is no object", 7, /^file\.json: \(top\): /],
    ["has an unknown key", { name: "x", iommu: [] }, /^file\.json: .*iommu/],
    [
      "has a bad PCI address",
      { name: "x", devices: [{ model: "edu", bdf: "1:2" }] },
      /devices\.0\.bdf: .*0000:01:00\.0/,
    ],
    [
      "names an IOMMU that is not there",
      { name: "x", devices: [{ model: "edu", bdf: "00:01.0", iommu: "i" }] },
      /no IOMMU "i"/,
    ],
    [
      "puts two devices at one address",
      {
        name: "x",
        devices: [
          { model: "edu", bdf: "00:01.0" },
          { model: "edu", bdf: "0000:00:01.0" },
        ],
      },
      /taken/,
    ],
    ["has an odd memory size", { name: "x", memory: 4097 }, /memory: .*4096/],
  ];
  for (const [what, document, message] of cases) {
    it(`that ${what} is refused in one line with file and place`, () => {
      const attempt = () => parseHost(document, "file.json");
      expect(attempt).toThrow(HostDescriptionError);
      expect(attempt).toThrow(message);
      try {
        attempt();
      } catch (error) {
        expect((error as Error).message).not.toContain("\n");
      }
    });
  }

  it("may give a size in K, M or G", () => {
    expect([parseSize("64K"), parseSize("1M"), parseSize("2G"), parseSize("12")]).toEqual([
      65536,
      1 << 20,
      2 ** 31,
      12,
    ]);
  });
});

describe("the built-in hosts", () => {
  it("include the default: two RISC-V IOMMUs, two edu devices behind the first, one behind the second", () => {
    const host = builtInHosts.find(({ name }) => name === DEFAULT_HOST)!;
    expect(host.iommus.map(({ kind }) => kind)).toEqual(["riscv", "riscv"]);
    expect(host.devices.map(({ model, iommu }) => `${model} ${iommu}`)).toEqual([
      "edu iommu0",
      "edu iommu0",
      "edu iommu1",
    ]);
  });
});

describe("a host with an IOMMU that its kernel has no driver for", () => {
  it("boots, and says which kind that is", () => {
    const description = parseHost({ name: "arm", iommus: [{ name: "smmu0", kind: "smmuv3" }], devices: [] }, "test");
    const clock = new Clock();
    const kinds = { hardware: HARDWARE_KINDS, drivers: {} };
    const host = new Host(description, { clock, trace: new Trace(clock), kinds });
    expect(host.problems).toEqual([
      "smmu0: this kernel has no driver for a smmuv3 IOMMU; devices behind it are without one",
    ]);
  });
});

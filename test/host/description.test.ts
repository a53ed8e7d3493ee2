import { describe, expect, it } from "vitest";
import { parseSize } from "../../host/base/byte-size.ts";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { HostDescriptionError, iommuGroups, parseHost } from "../../host/description.ts";
import { DMA_ABORTED, DMA_OK } from "../../host/devices/ports.ts";
import { Host } from "../../host/host.ts";
import { HARDWARE_KINDS } from "../../host/hw/iommu/kinds.ts";

/** A PCI function with device id 8, and platform devices: edu0 with device id 7, but for `changes`. */
function onPlatform(...changes: Record<string, unknown>[]) {
  return {
    name: "x",
    iommus: [{ name: "i", kind: "riscv" }],
    devices: [{ model: "edu", bdf: "00:01.0", iommu: "i" }],
    platform: changes.map((change) => ({
      ...{ model: "edu", name: "edu0", iommu: "i", deviceId: 7 },
      ...change,
    })),
  };
}

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
    [
      "names a platform device as PCI ones are named",
      onPlatform({ name: "0000:00:01.0" }),
      /platform\.0\.name: .*edu0/,
    ],
    ["names two platform devices alike", onPlatform({}, { deviceId: 9 }), /platform\.1\.name: edu0 is taken/],
    [
      "gives two devices one id at an IOMMU",
      onPlatform({ deviceId: 8 }),
      /platform\.0\.deviceId: 0x8 is 0000:00:01\.0's at "i"/,
    ],
    [
      "gives two platform devices one id",
      onPlatform({}, { name: "edu1" }),
      /platform\.1\.deviceId: 0x7 is edu0's at "i"/,
    ],
    [
      "leaves out a platform device's id",
      onPlatform({ deviceId: undefined }),
      /platform\.0\.deviceId: say by which id/,
    ],
    ["has an id too wide for any IOMMU", onPlatform({ deviceId: 2 ** 24 }), /platform\.0\.deviceId: /],
    ["names an IOMMU that is not there for a platform device", onPlatform({ iommu: "j" }), /platform\.0\.iommu: .*"j"/],
    ["lets a device stall at an IOMMU that cannot", onPlatform({ canStall: true }), /platform\.0\.canStall: .*riscv/],
    [
      "lets a device stall without an IOMMU",
      { name: "x", platform: [{ model: "edu", name: "edu0", canStall: true }] },
      /platform\.0\.canStall: .*without an IOMMU/,
    ],
    [
      "asks for a deviation that there is not",
      { name: "x", deviations: ["riscv-magic"] },
      /deviations\.0: no deviation "riscv-magic"/,
    ],
    ["has control characters in a deviation", { name: "x", deviations: ["\u001b[2J"] }, /deviations\.0: text without/],
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

describe("a host with a platform device", () => {
  const boot = (document: unknown) => {
    const clock = new Clock();
    return new Host(parseHost(document, "test"), { clock, trace: new Trace(clock) });
  };

  it("lists it after the PCI functions, in an iommu group of its own, under vfio-platform once asked for", () => {
    const host = boot(onPlatform({}));
    expect(host.deviceNames).toEqual(["0000:00:01.0", "edu0"]);
    expect(iommuGroups(host.description)).toEqual([
      { id: 0, devices: ["0000:00:01.0"] },
      { id: 1, devices: ["edu0"] },
    ]);
    expect(host.groupOf("edu0")).toEqual({ id: 1, devices: ["edu0"] });
    const assignable = { hostName: "edu0", bus: "platform", path: "/dev/vfio/devices/vfio0", iommu: "i", group: 1 };
    expect(host.assignable("edu0")).toMatchObject(assignable);
    expect(host.describe().devices).toMatchObject({
      edu0: { compatible: "nestbox,edu", "device id": "0x7", driver: "vfio-platform", iommu: "i", stalls: "never" },
    });
    expect(host.describe().iommus).toMatchObject({ i: { devices: "0000:00:01.0 edu0" } });
    host.pullOut("edu0");
    expect(host.deviceNames).toEqual(["0000:00:01.0"]);
    expect(host.groupOf("edu0")).toBeNull();
  });

  it("keeps a name that looks like a PCI address without its domain apart", () => {
    const host = boot({ name: "x", platform: [{ model: "edu", name: "edu0000" }] });
    expect([host.find("edu0000"), host.find("edu")]).toEqual(["edu0000", null]);
  });

  it("can have it fail on purpose", () => {
    const host = boot({ name: "x", platform: [{ model: "edu", name: "edu0" }] });
    const write = () => host.dmaOf("edu0").write(0x800000, 0, Uint8Array.of(1), 0, 1, -1);
    expect(write()).toBe(DMA_OK);
    host.inject(["device:edu0=dead"]);
    expect(write()).toBe(DMA_ABORTED);
    host.inject(["device:edu0=slow/700"]);
    const before = host.clock.now;
    expect(write()).toBe(DMA_OK);
    expect(host.clock.now - before).toBe(700);
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

describe("every built-in host", () => {
  it.each(builtInHosts.map((host) => [host.name, host] as const))(
    "%s boots without a complaint",
    (_name, description) => {
      const clock = new Clock();
      const host = new Host(description, { clock, trace: new Trace(clock) });
      expect(host.problems).toEqual([]);
      expect(host.deviceNames.length).toBeGreaterThan(1);
    },
  );
});

describe("a host with an IOMMU that its kernel has no driver for", () => {
  it("boots, and says which kind that is", () => {
    const description = parseHost({ name: "x", iommus: [{ name: "iommu0", kind: "riscv" }], devices: [] }, "test");
    const clock = new Clock();
    const kinds = { hardware: HARDWARE_KINDS, drivers: {} };
    const host = new Host(description, { clock, trace: new Trace(clock), kinds });
    expect(host.problems).toEqual([
      "iommu0: this kernel has no driver for a riscv IOMMU; devices behind it are without one",
    ]);
  });
});

// The tree of an AArch64 machine, read back by dtc: what a guest is told of the host's MSI window. Every device's stage 1 must map it one to one
// (Linux: Documentation of reserved-memory.yaml, `iommu-addresses`; memory-region of the device; drivers/iommu/of_iommu.c).

import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import type { DescribedViommu } from "../../../vmm/kernel-machine.ts";
import { VIOMMU_BASE } from "../../../vmm/memory-map.ts";
import { arm64DeviceTree } from "../../../vmm/platform/arm64-device-tree.ts";
import { SMMUV3 } from "../../../vmm/viommu/smmuv3/kind.ts";

const hasDtc = spawnSync("dtc", ["--version"]).status === 0;
if (!hasDtc)
  console.warn("SKIPPED: dtc (package device-tree-compiler) is not installed; device trees are not read back");

function readBack(viommus: readonly DescribedViommu[]) {
  const blob = arm64DeviceTree({
    kind: SMMUV3,
    cpus: 4,
    memoryBytes: 512 * 2 ** 20,
    bootArguments: "console=ttyS0",
    initrd: { start: 0x8800_0000, end: 0x8900_0000 },
    viommus,
    uartSpi: 1,
    intxSpi: 4,
    viommuSpi: 8,
    viommuWires: 8,
    platformSpi: 224,
    seed: new Uint8Array(32).fill(7),
  });
  const result = spawnSync("dtc", ["-I", "dtb", "-O", "dts"], { input: blob });
  expect([result.status, result.stderr.toString()]).toEqual([0, ""]);
  return result.stdout.toString();
}

/** Text of the node at a path, its children in it. */
function node(text: string, ...path: string[]): string {
  let found = text;
  for (const name of path) {
    const at = found.search(new RegExp(`^\\t*${name.replaceAll(/[@,]/g, "\\$&")} \\{`, "m"));
    expect(at, `${path.join("/")} in\n${text}`).toBeGreaterThanOrEqual(0);
    let depth = 0;
    let end = found.indexOf("{", at);
    const begin = end + 1;
    do {
      if (found[end] === "{") depth++;
      if (found[end] === "}") depth--;
      end++;
    } while (depth > 0);
    found = found.slice(begin, end - 1);
  }
  return found;
}

const phandle = (text: string): number => Number(/phandle = <(0x\w+)>/.exec(text)![1]);

const cells = (text: string, property: string): number[] =>
  new RegExp(`${property} = <([^>]*)>`).exec(text)![1]!.split(" ").map(Number);

// The window of Linux's arm-smmu-v3 driver: MSI_IOVA_BASE 0x8000000, MSI_IOVA_LENGTH 0x100000.
const WINDOW = [0, 0x0800_0000, 0, 0x10_0000];

describe.runIf(hasDtc)("the tree of an AArch64 machine", () => {
  it("reserves the host's MSI window for each assigned function, which names the reservation", () => {
    const text = readBack([{ base: VIOMMU_BASE, requesterIds: [0x80, 0x91] }]);
    const window = node(text, "reserved-memory", "msi-window@8000000");
    expect(cells(window, "reg")).toEqual(WINDOW);
    const functions = [
      node(text, "soc", "pci@30000000", "device@10"),
      node(text, "soc", "pci@30000000", "device@12,1"),
    ];
    expect(functions.map((one) => cells(one, "reg")[0])).toEqual([0x8000, 0x9100]);
    for (const one of functions) expect(cells(one, "memory-region")).toEqual([phandle(window)]);
    // each: the device, three cells of address (space 010: memory of 32 bits, PCI bus binding 2.2.1.1), two of size
    expect(cells(window, "iommu-addresses")).toEqual(
      functions.flatMap((one) => [phandle(one), 0x0200_0000, ...WINDOW]),
    );
    // a region that is mapped one to one is not taken from the kernel
    expect(window).not.toMatch(/no-map|reusable/);
  });

  it("reserves it for functions behind root ports, below their port's node", () => {
    const behindPorts = [
      { routingId: 0x18, behind: 0 },
      { routingId: 0x18, behind: 9 },
      { routingId: 0x20, behind: 0 },
    ];
    const text = readBack([{ base: VIOMMU_BASE, requesterIds: [0x80], otherIds: true, behindPorts }]);
    const bus = ["soc", "pci@30000000"];
    const ports = [node(text, ...bus, "pci@3"), node(text, ...bus, "pci@4")];
    expect(ports.map((port) => cells(port, "reg")[0])).toEqual([0x1800, 0x2000]);
    for (const port of ports) expect(port).toMatch(/device_type = "pci";.*ranges;/s);
    const functions = [
      node(text, ...bus, "device@10"),
      node(text, ...bus, "pci@3", "device@0"),
      node(text, ...bus, "pci@3", "device@1,1"),
      node(text, ...bus, "pci@4", "device@0"),
    ];
    expect(functions.map((one) => cells(one, "reg")[0])).toEqual([0x8000, 0, 0x900, 0]);
    const window = node(text, "reserved-memory", "msi-window@8000000");
    for (const one of functions) expect(cells(one, "memory-region")).toEqual([phandle(window)]);
    expect(cells(window, "iommu-addresses")).toEqual(
      functions.flatMap((one) => [phandle(one), 0x0200_0000, ...WINDOW]),
    );
  });

  it("keeps GIC and message frame out of the window, and reserves nothing where nothing is assigned", () => {
    const text = readBack([{ base: VIOMMU_BASE, requesterIds: [] }]);
    expect(text).not.toContain("reserved-memory");
    for (const name of ["interrupt-controller@", "v2m@", "iommu@", "serial@", "pci@"]) {
      const [, address] = new RegExp(`${name}(\\w+) \\{`).exec(text)!;
      const base = Number.parseInt(address!, 16);
      expect(base + 0x2000 <= WINDOW[1]! || base >= WINDOW[1]! + WINDOW[3]!, `${name}${address}`).toBe(true);
    }
  });
});

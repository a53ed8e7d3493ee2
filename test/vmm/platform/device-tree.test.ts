// The flattened tree is read back by dtc, the reference compiler of the format.

import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import type { DescribedViommu } from "../../../vmm/kernel-machine.ts";
import { VIOMMU_BASE } from "../../../vmm/memory-map.ts";
import { encodeDeviceTree, ref } from "../../../vmm/platform/flattened-device-tree.ts";
import { rv64DeviceTree } from "../../../vmm/platform/rv64-device-tree.ts";
import type { PlatformDeviceEntry } from "../../../vmm/platform-devices.ts";
import type { ViommuKind } from "../../../vmm/viommu/kind.ts";
import { RISCV } from "../../../vmm/viommu/riscv/kind.ts";
import { SMMUV3 } from "../../../vmm/viommu/smmuv3/kind.ts";

const hasDtc = spawnSync("dtc", ["--version"]).status === 0;
if (!hasDtc)
  console.warn("SKIPPED: dtc (package device-tree-compiler) is not installed; device trees are not read back");

function decompile(blob: Uint8Array): { text: string; warnings: string; status: number | null } {
  const result = spawnSync("dtc", ["-I", "dtb", "-O", "dts"], { input: blob });
  return { text: result.stdout.toString(), warnings: result.stderr.toString(), status: result.status };
}

describe.runIf(hasDtc)("a flattened device tree", () => {
  it("holds strings, cells, 64-bit cells, flags and references as written", () => {
    const blob = encodeDeviceTree({
      name: "",
      properties: { "#address-cells": [2], "#size-cells": [2], model: "m", names: ["a", "bc"] },
      children: [
        { name: "target@1000", label: "t", properties: { reg: [0x1000n, 16n], flag: true } },
        { name: "user", properties: { points: [ref("t"), 7] } },
      ],
    });
    const { text, status } = decompile(blob);
    expect(status).toBe(0);
    expect(text).toContain('names = "a\\0bc";');
    expect(text).toContain("reg = <0x00 0x1000 0x00 0x10>;");
    expect(text).toContain("flag;");
    expect(text).toContain("phandle = <0x01>;");
    expect(text).toContain("points = <0x01 0x07>;");
  });

  const machine = (
    viommus: readonly DescribedViommu[],
    platformDevices: readonly PlatformDeviceEntry[] = [],
    kind: ViommuKind = RISCV,
  ) =>
    rv64DeviceTree({
      kind,
      harts: 2,
      memoryBytes: 512 * 2 ** 20,
      timebaseHz: 10_000_000,
      isaExtensions: ["i", "m", "a", "f", "d", "c", "zicsr", "zifencei", "ssaia", "sstc"],
      mmuType: "riscv,sv57",
      bootArguments: "console=ttyS0",
      initrd: { start: 0x8800_0000, end: 0x8900_0000 },
      viommus,
      platformDevices,
      platformSource: 48,
      aplicSources: 96,
      imsicIds: 255,
      uartSource: 10,
      intxSource: 32,
      seed: new Uint8Array(32).fill(7),
    });

  it("of an RV64 machine passes the compiler's checks", () => {
    const blob = machine([{ base: VIOMMU_BASE, requesterIds: [0x10] }]);
    const { text, warnings, status } = decompile(blob);
    expect(status).toBe(0);
    expect(warnings).toBe("");
    expect(text).toContain("linux,initrd-start = <0x00 0x88000000>;");
    expect(text).toMatch(/iommu-map = <0x00 0x0\w 0x00 0x10000>;/);
    expect(blob.length % 8).toBe(0);
  });

  it("gives a CMDQV a node of its own, which its SMMU's names (nvidia,tegra264-cmdqv.yaml)", () => {
    const described = { base: VIOMMU_BASE, requesterIds: [0x10] };
    const tree = (hardwareQueues: boolean) => decompile(machine([{ ...described, hardwareQueues }], [], SMMUV3));
    const { text, warnings, status } = tree(true);
    expect([status, warnings]).toEqual([0, ""]);
    expect(text).toContain('compatible = "nvidia,tegra264-smmu\\0arm,smmu-v3";');
    expect(text).toMatch(/iommu@3010000 \{\s*reg = <0x00 0x3010000 0x00 0x20000>;/);
    const [, node] = /cmdqv@3030000 \{([^}]*)\}/.exec(text)!;
    expect(node).toContain('compatible = "nvidia,tegra264-cmdqv";');
    expect(node).toContain("reg = <0x00 0x3030000 0x00 0x50000>;");
    const [, phandle] = /phandle = <(0x\w+)>/.exec(node!)!;
    expect(text).toContain(`nvidia,cmdqv = <${phandle}>;`);
    expect(tree(false).text).not.toContain("nvidia");
    const wires = [0, 1, 2, 3, 4].map((wire) => [0, 8 + wire, 1]);
    expect(SMMUV3.node.companion!.properties(wires)).toMatchObject({ interrupts: [0, 12, 1] });
  });

  it("describes the ISA in both forms that kernels read, with a size for each kind of cache-block operation", () => {
    const { text } = decompile(machine([]));
    expect(text).toContain('riscv,isa-base = "rv64i";');
    expect(text).toContain('riscv,isa-extensions = "i\\0m\\0a\\0f\\0d\\0c\\0zicsr\\0zifencei\\0ssaia\\0sstc";');
    expect(text).toContain('riscv,isa = "rv64imafdc_zicsr_zifencei_ssaia_sstc";');
    for (const kind of ["cbom", "cbop", "cboz"]) expect(text).toContain(`riscv,${kind}-block-size = <0x40>;`);
  });

  it("names a device on no bus with its registers, its wire, its id at its vIOMMU, and whether it may stall", () => {
    const request = { hostName: "edu0", path: "", iommu: "i", group: 0, groupOthers: [], compatible: "nestbox,edu" };
    const at = (base: number, wire: number, guestId: number, viommu: number, canStall: boolean) =>
      ({
        request: { ...request, guestId, canStall },
        ...{ regions: [{ base, size: 0x10_0000 }], wires: [wire], viommu },
      }) as unknown as PlatformDeviceEntry;
    const blob = machine(
      [{ base: VIOMMU_BASE, requesterIds: [] }],
      [at(0x1100_0000, 0, 0x400, 0, true), at(0x1110_0000, 3, 0, -1, true)],
    );
    const { text, warnings, status } = decompile(blob);
    expect([status, warnings]).toEqual([0, ""]);
    const [stalling, alone] = ["edu@11000000", "edu@11100000"].map(
      (node) => new RegExp(`${node} \\{([^}]*)\\}`).exec(text)![1]!,
    );
    expect(stalling).toContain('compatible = "nestbox,edu";');
    expect(stalling).toContain("reg = <0x00 0x11000000 0x00 0x100000>;");
    // APLIC source 48, level high (interrupt-controller/riscv,aplic.yaml).
    expect(stalling).toContain("interrupts = <0x30 0x04>;");
    expect(stalling).toMatch(/iommus = <0x0\w 0x400>;/);
    expect(stalling).toContain("dma-can-stall;");
    expect(alone).toContain("interrupts = <0x33 0x04>;");
    expect(alone).not.toMatch(/iommus|dma-can-stall/);
  });

  it("puts each device behind its own vIOMMU where a machine has several", () => {
    const { text, warnings } = decompile(
      machine([
        { base: VIOMMU_BASE, requesterIds: [0x10, 0x20] },
        { base: VIOMMU_BASE + 0x1000, requesterIds: [0x18] },
      ]),
    );
    expect(warnings).toBe("");
    const phandleOf = (node: string): string => new RegExp(`${node} \\{[^}]*phandle = <(0x\\w+)>`).exec(text)![1]!;
    const [first, second] = [phandleOf("iommu@3010000"), phandleOf("iommu@3011000")];
    expect(text).toContain(`iommu-map = <0x10 ${first} 0x10 0x01 0x20 ${first} 0x20 0x01 0x18 ${second} 0x18 0x01>;`);
  });

  it("puts what stands on buses that the guest will number behind the vIOMMU that is said, all other ids with it", () => {
    const { text, warnings } = decompile(
      machine([
        { base: VIOMMU_BASE, requesterIds: [0x10] },
        { base: VIOMMU_BASE + 0x1000, requesterIds: [0x11], otherIds: true },
      ]),
    );
    expect(warnings).toBe("");
    const phandleOf = (node: string): string => new RegExp(`${node} \\{[^}]*phandle = <(0x\\w+)>`).exec(text)![1]!;
    const [first, second] = [phandleOf("iommu@3010000"), phandleOf("iommu@3011000")];
    // Every id of [0, 0x10000) once (PCI-IOMMU binding, iommu-map).
    const rest = `0x00 ${second} 0x00 0x10 0x12 ${second} 0x12 0xffee`;
    expect(text).toContain(`iommu-map = <0x10 ${first} 0x10 0x01 0x11 ${second} 0x11 0x01 ${rest}>;`);
  });
});

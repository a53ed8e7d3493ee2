// The comparison of two machines' consoles: what it forgives (each case a line that differs between machines that both work), and that it
// forgives nothing else.

import { describe, expect, it } from "vitest";
import { commonLines, missingFrom } from "../../guest-fixtures/debian/console-lines.ts";

const BOOT = [
  "OpenSBI v1.6",
  "[    0.000000] Linux version 7.2.12",
  "[    2.1] riscv,iommu 3010000.iommu: using MSIs",
  "[    2.2] nvme nvme0: pci function 0000:00:10.0",
  `nestbox-demo: checksum verified: ${"a".repeat(64)}`,
  "[    9.9] reboot: Power down",
  "result pass",
];
const OTHER = [
  "[    0.000000] Linux version 7.2.12",
  "[    1.2] nvme nvme0: pci function 0000:00:01.0\r",
  "[    1.1] riscv,iommu 3010000.iommu: using MSIs\r",
  "[    1.1] goldfish_rtc 101000.rtc: registered as rtc0",
  `nestbox-demo: checksum verified: ${"b".repeat(64)}`,
  "[    3.9] reboot: Power down",
];

describe("consoles of two machines", () => {
  it("have the kernel's and the script's lines in common, in whatever order drivers came up", () => {
    const [ours, theirs] = [commonLines(BOOT), commonLines(OTHER)];
    expect(ours).toHaveLength(5);
    expect(missingFrom(ours, theirs)).toEqual([]);
    expect(missingFrom(theirs, ours)).toEqual([]);
  });

  it.each([
    ["a line less", (lines: string[]) => lines.filter((line) => !line.includes("using MSIs"))],
    ["a line twice", (lines: string[]) => [lines[0]!, lines[1]!, lines[1]!, ...lines.slice(2)]],
    ["another word", (lines: string[]) => lines.map((line) => line.replace("using MSIs", "using wired interrupts"))],
    [
      "a complaint",
      (lines: string[]) => [lines[0]!, "[ 1.0] WARNING: CPU: 0 PID: 1 at kernel/fork.c", ...lines.slice(1)],
    ],
  ])("do not agree with %s", (_what, change) => {
    const [ours, theirs] = [commonLines(BOOT), commonLines(change(OTHER))];
    expect(missingFrom(ours, theirs).length + missingFrom(theirs, ours).length).toBeGreaterThan(0);
  });
});

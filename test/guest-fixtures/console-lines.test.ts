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

  it("have a line in common that the kernel broke into on one of them, wherever it did", () => {
    const said = OTHER[4]!;
    for (const at of [8, 40, said.length]) {
      const broken = [
        ...OTHER.slice(0, 4),
        `${said.slice(0, at)}[    3.8] EXT4-fs: unmounting\r`,
        `${said.slice(at)}\r`,
        OTHER[5]!,
      ];
      const whole = [...BOOT.slice(0, 5), "[    9.8] EXT4-fs: unmounting", ...BOOT.slice(5)];
      expect(missingFrom(commonLines(broken), commonLines(whole))).toEqual([]);
      expect(missingFrom(commonLines(whole), commonLines(broken))).toEqual([]);
    }
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

describe("consoles of two arm64 machines", () => {
  const here = [
    "[    0.0] Linux version 7.2.12",
    "[    0.0] KASLR disabled due to lack of seed",
    "[    0.0] Detected PIPT I-cache on CPU0",
    "[    0.1] Kernel command line: console=ttyS0 nestbox.script",
    "[    0.2] 10000000.serial: ttyS0 at MMIO 0x10000000 (irq = 14, base_baud = 230400) is a 16550A",
    "[    0.3] arm-smmu-v3 3010000.iommu: oas 48-bit (features 0x0000000e)",
    "[    0.4] reboot: Power down",
  ];
  const there = [
    "[    0.0] Linux version 7.2.12",
    "[    0.0] KASLR enabled",
    "[    0.0] Detected VIPT I-cache on CPU0",
    "[    0.1] Kernel command line: console=ttyAMA0 nestbox.script",
    "[    0.2] 9000000.pl011: ttyAMA0 at MMIO 0x9000000 (irq = 13, base_baud = 0) is a PL011 rev1",
    "[    0.3] arm-smmu-v3 9050000.smmuv3: oas 44-bit (features 0x0000000e)",
    "[    0.4] reboot: Power down",
  ];

  it("have in common what is true of both", () => {
    expect(commonLines(here)).toEqual(commonLines(there));
    expect(commonLines(here)).toHaveLength(6);
  });

  it.each([
    ["another word on the command line", 3, "console=ttyS0 nestbox.script iommu.passthrough=1"],
    ["an event of the SMMU", 5, "arm-smmu-v3 3010000.iommu: event: F_TRANSLATION client: 0000:00:10.0"],
    ["a CPU that is not as it should be", 2, "CPU features: SANITY CHECK: Unexpected variation"],
  ])("differ in %s", (_what, index, line) => {
    const other = here.with(index, `[    0.2] ${line}`);
    expect(missingFrom(commonLines(other), commonLines(there))).toHaveLength(1);
  });
});

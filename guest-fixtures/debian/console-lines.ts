// What two machines' consoles must have in common: the same kernel on the same initramfs says the same on both, apart from what is true of one
// machine only. Two steps, each a table with its reasons: values that differ are replaced by a word, lines that only one machine has reason to
// print are dropped.

/** What stands in lines of both, with another value: timestamps, addresses, numbers of things, measurements, random ids. */
const VALUES: readonly (readonly [RegExp, string])[] = [
  [/^\[ *\d+\.\d+\] /, ""], // time since boot
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, "UUID"], // mke2fs draws one
  [/checksum verified: [0-9a-f]{64}/, "checksum verified: SHA256"], // the file is random
  [/\b0000:[0-9a-f]{2}:[0-9a-f]{2}\.\d\b/g, "BDF"], // where the drive is plugged in
  [/0x[0-9a-f]{8,16}/g, "ADDRESS"],
  [/\birq = \d+/, "irq = N"], // Linux numbers them as drivers come
  [/\bgroup \d+/, "group N"], // another machine may have more functions
  [/model .*$/, "model NAME"], // the drive's own
  [/\bin \d+ms\b/, "in N ms"],
  [/speed is [\d.]+x/, "speed is Nx"],
  [/audit\([\d.]+:1\)/, "audit(TIME:1)"],
  [/^Memory: \d+K\/(\d+K) available .*/, "Memory: of $1"], // firmware keeps some, the tree has another size
  [/^riscv: base ISA extensions .*/, "riscv: base ISA extensions"], // QEMU's CPU has H
  [/^SBI implementation ID=.*/, "SBI implementation"], // ours, OpenSBI
  [/^Machine model: .*/, "Machine model"],
  [/^(pci-host-generic|arm-smmu-v3) \S+:/, "$1 DEVICE:"], // named for where they stand
  [/host bridge \S+ ranges:/, "host bridge NODE ranges:"],
  [/\boas \d+-bit/, "oas N-bit"], // how large the machines are
  [/allocated \d+ entries for (cmdq|evtq)/, "allocated N entries for $1"],
  [/^GICv2m: range(.*), SPI\[\d+:\d+\]/, "GICv2m: range$1, SPI[N:N]"],
  [/^Kernel command line: console=tty\w+ /, "Kernel command line: console=TTY "], // a 16550 here, a PL011 there
  [/^printk: (?:legacy )?console \[tty\w+\] enabled/, "printk: console enabled"],
  [/^\S+: tty(?:S0|AMA0) at MMIO .*/, "serial port"],
  [/^Detected (?:VIPT|PIPT) I-cache/, "Detected I-cache"], // CTR_EL0
  [/found \d+ breakpoint and \d+ watchpoint/, "found N breakpoint and N watchpoint"], // ID_AA64DFR0_EL1
  [/^ASID allocator .*/, "ASID allocator"], // implementations may have none (privileged specification §12.1.11)
  [/(?:Ticket spinlock: enabled|Queued spinlock .*)/, "spinlocks"], // Ziccrse and Zabha
  [/root bus resource \[mem ADDRESS-ADDRESS( pref)?\]/, "root bus resource [mem ADDRESS-ADDRESS]"], // QEMU's high window is not prefetchable
];

/** What one machine has and the other has not. */
const MACHINES_OWN: readonly RegExp[] = [
  /^OF: reserved mem|^ {2}node {3}0: /, // M-mode firmware's memory
  /HugeTLB: .*64\.0 KiB page/, // Svnapot
  /riscv-pmu-sbi|Legacy PMU/, // SBI PMU
  /goldfish_rtc|rtc-pl031|pl061_gpio/, // a clock, a power button
  /KASLR|page table isolation/, // with a seed in the tree the kernel unmaps itself; ours has none
  /^2G module region|pages in range for non-PLT usage/, // where KASLR puts modules
  /^CPU features: detected: (ARM erratum 845719|Spectre-(v4|BHB))$/, // the cortex-a53's; an unknown CPU's
  /^CPU features: detected: (32-bit EL[01] Support|PMUv3|Data cache clean to the PoU not required)/,
  /^hw perfevents: .*armv8_pmuv3|^setend instruction emulation/, // with a PMU; without AArch32
  /arm-smmu-v3 .*msi_domain absent/, // QEMU's SMMU has no messages of its own
  /^printk: legacy console \[ttyS0\] disabled/,
  /^pci(-host-generic)? .*(IO |resource size exceeds)|\bio {2}0x/, // PCI I/O space
  /^pci_bus .*resource \d+/, // numbered with it
  /^pci BDF: /, // which functions there are, their BARs
  /group N type \S+ devices BDF/, // and their groups
  /supports timestamps until 2038/, // only once a clock is set
  /nvme nvme0: (Ignoring bogus Namespace Identifiers|passthrough uses implicit buffer lengths)/, // the drive's own
  /^(EFI|efi)\b/,
];

const KERNEL_LINE = /\[ *\d+\.\d+\] /;

/** Lines as they were written: the kernel writes its own whole, and where it likes in those of user space. */
function untangled(console: readonly string[]): string[] {
  const lines: string[] = [];
  let begun = "";
  for (const line of console) {
    const at = line.search(KERNEL_LINE);
    if (at < 0) {
      lines.push(begun + line);
      begun = "";
      continue;
    }
    lines.push(line.slice(at));
    begun += line.slice(0, at);
  }
  return begun === "" ? lines : [...lines, begun];
}

/** The lines of a console that both machines should have. */
export function commonLines(console: readonly string[]): string[] {
  const first = console.findIndex((line) => line.includes("Linux version"));
  const lines: string[] = [];
  for (const line of untangled(console.slice(Math.max(0, first)))) {
    let text = line.replace(/\r$/, "");
    for (const [pattern, word] of VALUES) text = text.replace(pattern, word);
    text = text.trimEnd();
    if (/reboot: Power down/.test(text)) return [...lines, text];
    if (text !== "" && !MACHINES_OWN.some((pattern) => pattern.test(text))) lines.push(text);
  }
  return lines;
}

/** Lines of `a` that `b` has not, counted: drivers come up side by side, so that order says nothing. */
export function missingFrom(a: readonly string[], b: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const line of b) left.set(line, (left.get(line) ?? 0) + 1);
  return a.filter((line) => {
    const count = left.get(line) ?? 0;
    left.set(line, count - 1);
    return count <= 0;
  });
}

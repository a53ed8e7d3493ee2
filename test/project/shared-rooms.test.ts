// Design decision 9: shared rooms name no architecture. Imports are the linter's (.dependency-cruiser.cjs, "…-name-no-kind"); the words are
// looked for here, so that a kind does not come in as a string, a comment that must be kept true, or a format written out.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Files and folders that every kind shares. */
const SHARED = [
  "vmm/vfio",
  "vmm/scenario",
  "vmm/view",
  "vmm/pci",
  "vmm/assignment.ts",
  "vmm/assignment-parts.ts",
  "vmm/assignment-request.ts",
  "vmm/platform-devices.ts",
  "vmm/component-machine.ts",
  "vmm/kernel-machine.ts",
  "vmm/machine-frame.ts",
  "vmm/machine.ts",
  "vmm/bus.ts",
  "vmm/summary.ts",
  "vmm/viommu/kind.ts",
  "vmm/viommu/host-port.ts",
  "vmm/viommu/nested-codec.ts",
  "vmm/viommu/guest-driver.ts",
  "vmm/cli/commands/caps.ts",
  "vmm/cli/commands/walk.ts",
  "vmm/cli/commands/inspect.ts",
  "vmm/cli/commands/ids.ts",
  "vmm/cli/scenario-probe.ts",
  "host/kernel/iommufd",
  "host/kernel/vfio",
  "host/kernel/pci",
  "host/kernel/platform",
  "host/kernel/iommu/driver.ts",
  "host/kernel/iommu/hardware.ts",
  "host/kernel/iommu/core.ts",
  "host/kernel/iommu/group.ts",
  "host/kernel/iommu/attachments.ts",
  "host/kernel/iommu/page-table.ts",
  "host/kernel/iommu/tags.ts",
  "host/kernel/iommu/doubleword.ts",
  "host/description.ts",
  "host/host.ts",
];

/** A kind's name, or a word that only one architecture's formats have. */
const KIND_WORDS = /\brisc-?v\b|riscv|smmu|\bvt-?d\b|\btegra|\bDDTP?\b|\bPDTP?\b|\bIOTINVAL|\bIODIR|\bfsc\b|\bpdtp\b/i;
/** Where one is said as an example of what a kind is, or is a table line. */
const EXAMPLES = [/^vmm\/scenario\/index\.ts: export \* from "\.\.\/viommu\/\w+\/scenario\.ts";$/];

/** Lines of a shared file that name an architecture. */
function violations(path: string, text: string): string[] {
  const lines = text.split("\n").map((line) => `${path}: ${line.trim()}`);
  return lines.filter((line) => {
    const said = line.slice(path.length + 2);
    if (!KIND_WORDS.test(said)) return false;
    // Prose may name architectures as examples, Linux's drivers or a specification's text; code may not.
    if (/^(\/\/|\*|\/\*\*)/.test(said)) return false;
    return !EXAMPLES.some((example) => example.test(line));
  });
}

function* filesOf(path: string): Generator<string> {
  if (!statSync(join(root, path)).isDirectory()) {
    yield path;
    return;
  }
  for (const name of readdirSync(join(root, path), { recursive: true, encoding: "utf8" })) {
    if (name.endsWith(".ts")) yield join(path, name);
  }
}

describe("shared rooms", () => {
  it("name no architecture in their code", () => {
    const found = SHARED.flatMap((path) => [...filesOf(path)]).flatMap((path) =>
      violations(path, readFileSync(join(root, path), "utf8")),
    );
    expect(found).toEqual([]);
  });

  it("are checked by something that finds a planted one", () => {
    expect(violations("vmm/assignment.ts", 'if (kind.name === "riscv") return;\n// as RISC-V does')).toEqual([
      'vmm/assignment.ts: if (kind.name === "riscv") return;',
    ]);
    expect(violations("vmm/view/walks.ts", "const first = step.table === DDT;")).toHaveLength(1);
    expect(violations("vmm/vfio/x.ts", "type: IOMMU_VIOMMU_TYPE_ARM_SMMUV3,")).toHaveLength(1);
  });

  it("are there under the names that are checked", () => {
    for (const path of SHARED) expect(() => statSync(join(root, path)), path).not.toThrow();
  });
});

describe("the linter", () => {
  const config = join(root, ".dependency-cruiser.cjs");
  it.each(["shared-rooms-name-no-kind", "kernel-core-names-no-kind"])("has the rule %s", (rule) => {
    const names = execFileSync(process.execPath, [
      "-e",
      `console.log(require(${JSON.stringify(config)}).forbidden.map((rule) => rule.name).join(" "))`,
    ]).toString();
    expect(names.split(/\s+/)).toContain(rule);
  });
});

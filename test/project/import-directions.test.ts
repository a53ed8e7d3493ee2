// The checks that CI relies on must be able to fail: each is run against a planted violation.

import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const planted: string[] = [];

function plant(path: string, text: string): void {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  planted.push(file);
}

function run(command: string, ...args: string[]): { status: number | null; output: string } {
  const result = spawnSync(process.execPath, [join(root, "node_modules", command), ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  return { status: result.status, output: result.stdout + result.stderr };
}

const depcruise = (path: string) =>
  run("dependency-cruiser/bin/dependency-cruise.mjs", "--config", ".dependency-cruiser.cjs", path);

afterEach(() => {
  for (const file of planted.splice(0)) rmSync(file, { force: true });
});

describe("import directions", () => {
  const violations: [rule: string, path: string, text: string][] = [
    ["base-imports-nothing", "host/base/planted-violation.ts", 'export * from "../uapi/errno.ts";\n'],
    ["arch-sees-base", "host/arch/planted-violation.ts", 'export * from "../hw/iommu/port.ts";\n'],
    ["hw-sees-what-lies-below", "host/hw/planted-violation.ts", 'export * from "../kernel/iommu/wait.ts";\n'],
    ["host-knows-no-vmm", "host/planted-violation.ts", 'export * from "../vmm/bus.ts";\n'],
    ["vmm-enters-by-system-calls", "vmm/planted-violation.ts", 'export * from "../host/kernel/iommu/wait.ts";\n'],
    [
      "engine-knows-no-instruction-set",
      "vmm/vcpu/engine/planted-violation.ts",
      'export * from "../riscv64/extensions.ts";\n',
    ],
    [
      "shared-rooms-name-no-kind",
      "vmm/vfio/planted-violation.ts",
      'export * from "../../host/arch/riscv/commands.ts";\n',
    ],
    ["shared-rooms-name-no-kind", "vmm/planted-violation.ts", 'export * from "./viommu/riscv/kind.ts";\n'],
    ["kernel-core-names-no-kind", "host/planted-violation.ts", 'export * from "./hw/iommu/riscv/iommu.ts";\n'],
    ["core-runs-in-a-browser", "vmm/planted-violation.ts", 'export { readFileSync } from "node:fs";\n'],
  ];
  for (const [rule, path, text] of violations) {
    it(`refuse a planted violation of ${rule}`, () => {
      plant(path, text);
      const { status, output } = depcruise(path);
      expect(output).toContain(rule);
      expect(status).not.toBe(0);
    });
  }
});

describe("formatter and linter", () => {
  it("refuse a file that is not formatted", () => {
    plant("host/base/planted-format.ts", "export   const a=1\n");
    expect(run("@biomejs/biome/bin/biome", "ci", "host/base/planted-format.ts").status).not.toBe(0);
  });

  it("refuse files that import values from each other", () => {
    plant(
      "host/base/planted-circle-a.ts",
      'import { b } from "./planted-circle-b.ts";\n\nexport const a = (): unknown => b;\n',
    );
    plant(
      "host/base/planted-circle-b.ts",
      'import { a } from "./planted-circle-a.ts";\n\nexport const b = (): unknown => a;\n',
    );
    const { status, output } = run("@biomejs/biome/bin/biome", "ci", "host/base/planted-circle-a.ts");
    expect(output).toContain("noImportCycles");
    expect(status).not.toBe(0);
  });

  it("refuse an explicit any", () => {
    plant("host/base/planted-any.ts", "export const a: any = 1;\n");
    const { status, output } = run("@biomejs/biome/bin/biome", "ci", "host/base/planted-any.ts");
    expect(output).toContain("noExplicitAny");
    expect(status).not.toBe(0);
  });
});

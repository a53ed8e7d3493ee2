// .ci/remove-kind.mjs on a small tree: what goes and what stays, by the rule of vmm/viommu/README.md. (CI does it to the whole tree and tests the copy.)

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("../../.ci/remove-kind.mjs", import.meta.url));
let tree: string;

function write(files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), text);
  }
}

const read = (path: string) => readFileSync(join(tree, path), "utf8");
const there = (path: string) => existsSync(join(tree, path));
const remove = (kind = "acme") => spawnSync(process.execPath, [script, kind, tree], { encoding: "utf8" });

beforeEach(() => {
  tree = mkdtempSync(join(tmpdir(), "nestbox-test-"));
  write({
    "host/examples/acme-host.json": '{ "iommus": [{ "kind": "acme" }] }',
    "host/examples/works.json": '{ "iommus": [{ "kind": "acme" }, { "kind": "acme" }] }',
    "host/examples/both.json": '{ "iommus": [{ "kind": "acme" }, { "kind": "other" }] }',
    "host/arch/acme/formats.ts": "export const FORMAT = 1;\n",
    "vmm/viommu/acme/kind.ts": "export const ACME = {};\nexport interface AcmeThing {}\n",
    "vmm/viommu/other/kind.ts": "export const OTHER = {};\n",
    "vmm/kinds.ts":
      'import { ACME, type AcmeThing } from "./viommu/acme/kind.ts";\nimport { OTHER } from "./viommu/other/kind.ts";\n\n' +
      "// ACME is one.\nexport const KINDS = {\n  other: OTHER,\n  acme: ACME,\n};\nexport type Thing = number;\n",
    "vmm/index.ts": 'export * from "./viommu/acme/kind.ts";\nexport * from "./viommu/other/kind.ts";\n',
    "guest-fixtures/driver/find.ts": 'import { Acme } from "./acme";\nif (a) return new Acme();\nreturn 1;\n',
    "guest-fixtures/driver/acme.ts": "export class Acme {}\n",
    "test/acmeology.test.ts": 'import { KINDS } from "../vmm/kinds.ts";\n',
    "test/uses.test.ts": 'import {\n  ACME,\n} from "../vmm/viommu/acme/kind.ts";\n',
    "test/uses-helper.test.ts": 'import { helper } from "./acme-helper.ts";\n',
    "test/acme-helper.ts": "export const helper = 1;\n",
    "test/fuzz/all.ts": 'import { FORMAT } from "../../host/arch/acme/formats.ts";\n',
    "test/fuzz/runs-all.test.ts": 'import "./all.ts";\n',
  });
});
afterEach(() => rmSync(tree, { recursive: true, force: true }));

describe("a kind that is taken out", () => {
  it("goes with its folders, its files, and the hosts that have no other", () => {
    expect(remove().status).toBe(0);
    for (const path of ["host/arch/acme", "vmm/viommu/acme", "guest-fixtures/driver/acme.ts", "test/acme-helper.ts"])
      expect(there(path), path).toBe(false);
    expect(["acme-host", "works", "both"].map((name) => there(`host/examples/${name}.json`))).toEqual([
      false,
      false,
      true,
    ]);
  });

  it("leaves tables without its lines", () => {
    remove();
    expect(read("vmm/kinds.ts")).toBe(
      'import { OTHER } from "./viommu/other/kind.ts";\n\n// ACME is one.\nexport const KINDS = {\n  other: OTHER,\n};\nexport type Thing = number;\n',
    );
    expect(read("vmm/index.ts")).toBe('export * from "./viommu/other/kind.ts";\n');
    expect(read("guest-fixtures/driver/find.ts")).toBe("return 1;\n");
  });

  it("takes the tests that import it along, whichever way, and no others", () => {
    remove();
    for (const path of [
      "test/uses.test.ts",
      "test/uses-helper.test.ts",
      "test/fuzz/all.ts",
      "test/fuzz/runs-all.test.ts",
    ])
      expect(there(path), path).toBe(false);
    expect(there("test/acmeology.test.ts")).toBe(true);
  });

  it("has to be there", () => {
    const { status, stderr } = remove("nobody");
    expect(stderr).toBe("no folder is named nobody: there is no such kind here\n");
    expect(status).toBe(1);
  });
});

// The lines of guest-fixtures/README.md that take a newcomer to an image of their own, run literally: each block marked
// <!-- image: NAME --> is a shell script, run in a folder that stands for the project's.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const readme = readFileSync(join(root, "guest-fixtures/README.md"), "utf8");

/** The shell blocks by name. */
function recipes(): Map<string, string> {
  const found = new Map<string, string>();
  for (const match of readme.matchAll(/<!-- image: (\S+) -->\n```sh\n([\s\S]*?)```/g)) found.set(match[1]!, match[2]!);
  return found;
}

/** Runs a recipe in a fresh folder that has the project's parts in it. */
function follow(recipe: string): { status: number | null; output: string } {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-readme-"));
  try {
    for (const name of ["package.json", "node_modules", "dist", "host", "vmm", "guest-fixtures"]) {
      symlinkSync(resolve(root, name), join(folder, name));
    }
    const result = spawnSync("sh", ["-e", "-c", recipe], { cwd: folder, encoding: "utf8" });
    return { status: result.status, output: result.stdout + result.stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const has = (tool: string) => spawnSync(tool, ["--version"]).error === undefined;
const clang = has("clang") && has("wasm-ld");
if (!clang) console.warn("SKIPPED: no clang with wasm-ld here, the README's C image is not built");

/** npx and two compilers, on a machine that may be busy. */
const PATIENCE = 600_000;

describe("the README's own images", { timeout: PATIENCE }, () => {
  it("there is one in AssemblyScript and one in C, and each boots what it made", () => {
    expect([...recipes().keys()]).toEqual(["assemblyscript", "c"]);
    for (const recipe of recipes().values()) expect(recipe).toContain("npx nestbox boot ");
  });

  it("the AssemblyScript lines give an image that boots", () => {
    const { status, output } = follow(recipes().get("assemblyscript")!);
    expect(output).toMatch(/my IOMMU's capabilities: 0x[0-9a-f]+10\n/);
    expect(status).toBe(0);
  });

  it.skipIf(!clang)("the C lines give an image that boots", () => {
    const { status, output } = follow(recipes().get("c")!);
    expect(output).toContain("hello from my C guest\n");
    expect(status).toBe(0);
  });
});
